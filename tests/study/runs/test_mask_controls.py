"""Controls made from a run's masks: counts, positions, values; the trainings that they begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny

from evoae import run
from evoae.evolution.cells import initial
from evoae.networks import population
from evoae.study.analysis import inspection
from evoae.study.runs.mask_controls import (
    CONTROLS,
    MASKS,
    WEIGHTS,
    begin_from,
    controls,
    tensors_of,
)
from evoae.study.runs.run import Run

SPARSE = {"operator": "magnitude", "schedule": "cubic", "target_sparsity": 0.6}
SPARSE |= {"pruned_weights": "masked", "allocation": "global"}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three trials of one cell, pruned to 60 %."""
    out = tmp_path_factory.mktemp("pruned")
    return run(tiny(**SPARSE), range(3), 5, out=out, workers=1, progress=False)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_start_has_the_masks_layer_by_layer_and_the_weights_asked_for(
    pruned: Run, tmp_path: Path, mask: str, weights: str
) -> None:
    path = begin_from(pruned, tmp_path / "start.safetensors", mask=mask, weights=weights)
    begun, ended = tensors_of(population.load(path)), tensors_of(pruned.population)
    first = tensors_of(initial(pruned.experiment, [0, 1, 2], 5, "cpu", "batched").population)
    moved = 0
    for start, end, origin in zip(begun, ended, first, strict=True):
        kept = start != 0
        # as many in each tensor of each trial
        assert torch.equal(kept.flatten(1).sum(1), (end != 0).flatten(1).sum(1))
        moved += int((kept != (end != 0)).sum())
        if weights == "rewound":
            assert torch.equal(start[kept], origin[kept])
        elif weights == "new":
            assert not torch.isin(start[kept], origin.contiguous()).any()
        else:  # the same values, wherever they are
            assert torch.equal(start.flatten(1).sort(1).values, end.flatten(1).sort(1).values)
    assert (moved > 0) == (mask == "shuffled")


def test_shuffled_masks_differ_between_trials_and_not_between_calls(
    pruned: Run, tmp_path: Path
) -> None:
    one, other = (
        begin_from(pruned, tmp_path / name, mask="shuffled", weights="new") for name in "ab"
    )
    assert one.read_bytes() == other.read_bytes()
    weights = population.load(one).encoder.weights
    assert not torch.equal(weights[0] != 0, weights[1] != 0)


def test_a_slice_of_trials_begins_each_with_its_own(pruned: Run, tmp_path: Path) -> None:
    part = Run(pruned.folder, [1, 2])
    path = begin_from(part, tmp_path / "start.safetensors", mask="same", weights="trained")
    e = tiny(initial_weights=str(path), pruned_weights="masked")
    state = initial(e, [1, 2], 5, "cpu", "batched")
    assert torch.equal(state.population.encoder.weights, part.population.encoder.weights)


def test_controls_keep_the_size_and_the_steps(pruned: Run, tmp_path: Path) -> None:
    found = controls(pruned, tmp_path)
    assert list(found) == list(CONTROLS)
    for name, e in found.items():
        one = run(e, 3, 5, workers=1, progress=False)
        assert np.array_equal(one.trials.preserved, pruned.trials.preserved), name
        assert one.result["model_steps"] == pruned.result["model_steps"]
        if name.startswith("same mask"):
            for start, end in zip(
                tensors_of(pruned.population), tensors_of(one.population), strict=True
            ):
                assert not end[start == 0].any()
                assert not torch.equal(start, end)


def test_a_run_that_exchanges_weights_gives_its_data_and_a_dense_model_of_its_size() -> None:
    one = run(tiny("frontier", bits=20, target_sparsity=0.8), 1, workers=1, progress=False)
    assert torch.equal(one.data(0).train, one.experiment.load_data(1, 0).train)
    ((_, narrow),) = inspection.dense({"frontier": one}).items()
    assert (narrow.operator, narrow.drop_fraction, narrow.epochs) == (
        "none",
        0,
        one.setting("epochs"),
    )


def test_what_cannot_be_begun_from_is_refused(pruned: Run, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    with pytest.raises(ValueError, match="mask='none' must be one of same, shuffled"):
        begin_from(pruned, path, mask="none")
    with pytest.raises(ValueError, match="weights='old' must be one of trained, rewound, new"):
        begin_from(pruned, path, weights="old")
    ring = run(tiny("lipi-ae-s", cells=3), 1, workers=1, progress=False)
    with pytest.raises(ValueError, match="cells=3; it must be 1"):
        begin_from(ring, path)
    assert not path.exists()
