"""On a GPU: the draws of the CPU, the same bits whatever runs beside, and runs that resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny

from evoae import evolve, run
from evoae.experiment import Experiment
from evoae.networks import activations, training
from evoae.study.runs import jobs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SETTINGS = {
    "canonical": {"preset": "canonical", "cells": 1, "operator": "random", "schedule": "fixed"},
    "as released": {"operator": "conjunctive", "schedule": "final-n", "as_released": True},
    "variance in a ring": {"operator": "variance", "schedule": "fixed", "loss": "bce"},
    "variational": {
        "preset": "canonical",
        "cells": 1,
        "kind": "variational",
        "loss": "bce",
        "optimiser": "adam",
        "learning_rate": 0.05,
    },
    "of the paper's size": {"bits": 784, "model": "standard", "optimiser": "adam"},
    "denoising": {"kind": "denoising", "optimiser": "adam"},
    "masked": {
        "operator": "magnitude",
        "schedule": "cubic",
        "target_sparsity": 0.8,
        "pruned_weights": "masked",
        "optimiser": "adam",
    },
    "regrowing": {
        "operator": "rigl",
        "schedule": "fixed",
        "target_sparsity": 0.5,
        "pruned_weights": "masked",
        "optimiser": "adam",
    },
    "moving away": {"operator": "movement", "schedule": "cubic", "target_sparsity": 0.5},
    "random partners": {"pairing": "random-partner"},
    "all pairs": {"preset": "all-vs-all", "cells": 3},
    "the better stays": {"replacement": "better", "data_share": 0.5},
    "digits": {"dataset": "digits", "batch_size": 64, "epochs": 2},
}


def made(name: str) -> Experiment:
    """A small experiment of these settings."""
    return tiny(**{"preset": "lipi-ae-s", "cells": 5} | SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_that_of_the_cpu_up_to_rounding(name: str, tmp_path: Path) -> None:
    """Draws are made on the CPU; what training computes differs in the last bits."""
    e = made(name)
    here = run(e, 2, 1, out=tmp_path / "cpu", engine="batched", progress=False)
    there = run(e, 2, 1, out=tmp_path / "cuda", device="cuda", progress=False)
    for column in ("train_l1", "test_loss", "replacement_loss", "selection_loss"):
        expected, found = here.history[column], there.history[column]
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-3, err_msg=column)
    assert (here.history.pruned == there.history.pruned).all()
    zeros = here.history.encoder_zeros + here.history.decoder_zeros
    theirs = there.history.encoder_zeros + there.history.decoder_zeros
    np.testing.assert_allclose(theirs, zeros, rtol=0.02, atol=2)
    for side in there.population.sides:
        assert side.weights.device.type == "cpu"  # read from its files


@pytest.mark.parametrize("name", SETTINGS)
def test_what_units_did_is_that_of_the_cpu_up_to_rounding(name: str) -> None:
    e = made(name).replace(epochs=2)
    *_, here = evolve(e, trials=[0], engine="batched")
    *_, there = evolve(e, trials=[0], device="cuda")
    for ours, theirs in zip(here.population.sides, there.population.sides, strict=True):
        for key in activations.SUMS:
            expected, found = ours.tensors[key], theirs.tensors[key].cpu()
            off = (found - expected).abs() > 0.02 * expected.abs() + 0.02 * expected.abs().mean()
            assert off.double().mean() < 0.02, key


@pytest.mark.parametrize("chunk", [training.CHUNK, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_trial_has_the_same_bits_whatever_runs_beside_it(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one chunk, and in several, the last of which is filled up."""
    monkeypatch.setattr(training, "CHUNK", chunk)
    e = made(name)
    *_, last_three = evolve(e, trials=[0, 1, 2], device="cuda")
    *_, last_one = evolve(e, trials=[1], device="cuda")
    cells = slice(e.cells, 2 * e.cells)
    for ours, theirs in zip(last_three.population.sides, last_one.population.sides, strict=True):
        for key, tensor in ours.tensors.items():
            assert torch.equal(tensor[cells], theirs.tensors[key]), key
    for key, values in last_three.records.items():
        np.testing.assert_array_equal(values[cells], last_one.records[key], err_msg=key)


@pytest.mark.parametrize("name", ["masked", "as released"])
def test_an_interrupted_run_goes_on_with_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = made(name)
    whole = run(e, 2, 1, out=tmp_path / "whole", device="cuda", progress=False)
    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0.0)
    real, epochs = jobs.Reports.after_epoch, []

    def interrupted_once(self: jobs.Reports) -> None:
        real(self)
        epochs.append(self.state.epoch)
        if epochs == [0, 1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Reports, "after_epoch", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        run(e, 2, 1, out=tmp_path / "parts", device="cuda", progress=False)
    parts = run(e, 2, 1, out=tmp_path / "parts", device="cuda", progress=False)
    for ours, theirs in zip(whole.population.sides, parts.population.sides, strict=True):
        assert torch.equal(ours.weights, theirs.weights)
    assert epochs == [0, 1, 2, 2, 3]  # the one that was interrupted, again
