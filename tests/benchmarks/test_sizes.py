"""The table of sizes and times: right counts, equal outputs, honest times."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import sizes
from helpers import TINY
from sizes import best_times, latency_table

from evoae import Experiment, run
from evoae.study.runs.run import Run

PRUNED = TINY | {
    "operator": "magnitude",
    "schedule": "cubic",
    "target_sparsity": 0.7,
    "pruned_weights": "masked",
    "bits": 300,
}
PYTORCH = ["PyTorch, dense", "PyTorch, compacted", "PyTorch, sparse"]
ONNX = ["onnxruntime, dense", "onnxruntime, compacted"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = Experiment.preset("canonical", **PRUNED)
    out = tmp_path_factory.mktemp("out")
    return run(experiment, 1, workers=1, out=out, progress=False)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "ROUNDS", 2)


def test_sizes_and_outputs(pruned: Run) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    table = latency_table(pruned).set_index("form")
    assert list(table.index) == PYTORCH + ONNX
    assert table.difference.max() <= 1e-5
    found, population = pruned.result["trials"][0], pruned.population
    weights = sum(weight.numel() for side in population.sides for weight, _ in side.layers())
    left = sum(int((w != 0).sum()) for side in population.sides for w, _ in side.layers())
    biases = population.parameters - weights
    for library in ("PyTorch", "onnxruntime"):
        dense, small = table.loc[f"{library}, dense"], table.loc[f"{library}, compacted"]
        assert (dense.parameters, dense.macs) == (population.parameters, weights)
        assert small.parameters == found["compact_parameters"] < dense.parameters
        assert found["macs"] <= small.macs < dense.macs
        # a file holds four bytes a parameter, eight for an input's index, and some words
        for each, inputs in ((dense, 0), (small, 300)):
            assert 0 < each.bytes - 4 * each.parameters <= 8 * inputs + 3000
    sparse = table.loc["PyTorch, sparse"]
    assert (sparse.macs, sparse.parameters) == (left, left + biases)
    assert sparse.bytes >= 8 * left


def test_times_are_of_the_whole_table(pruned: Run) -> None:
    table = latency_table(pruned)
    for batch in (1, 64):
        microseconds, speedup = table[f"microseconds_{batch}"], table[f"speedup_{batch}"]
        assert (microseconds > 0).all()
        assert speedup[0] == 1
        assert np.allclose(speedup * microseconds, microseconds[0])


def test_without_onnxruntime_the_rest_is_there(
    pruned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert list(latency_table(pruned).form) == PYTORCH


def test_best_times_are_of_one_call_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the calls move, and an interruption now and then."""
    now, interruptions = [0.0], itertools.cycle([*96 * [0.0], 1.0])

    def call(seconds: float) -> None:
        now[0] += seconds + next(interruptions)

    monkeypatch.setattr(sizes.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sizes, "SECONDS", 0.008)
    found = best_times([lambda: call(0.004), lambda: call(0.001)])
    assert found == pytest.approx([0.004, 0.001])
