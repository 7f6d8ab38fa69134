"""The runs of a front: which they are, how long each is, which networks are taken."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny

from evoae import run
from evoae.experiment import Experiment
from evoae.study.runs import fronts
from evoae.study.runs.fronts import Stage, Trained


def recipe(**settings: object) -> Experiment:
    return tiny("frontier", **settings)


def test_every_epoch_is_given_to_one_stage() -> None:
    plan = fronts.stages([0.5, 0.8, 0.9])
    for total in (4, 5, 9, 40, 1000):
        found = fronts.epochs_of(plan, total)
        assert sum(found) == total
        assert all(n >= 1 for n, stage in zip(found, plan, strict=True) if stage.candidate)
        assert min(found) >= 0


def test_a_stage_begins_from_one_before_it() -> None:
    known: set[str | None] = {None}
    for stage in fronts.stages([0.2, 0.5, 0.95]):
        assert stage.begin in known
        known.add(stage.name)
    assert sum(stage.share for stage in fronts.stages([0.2, 0.5])) == pytest.approx(1)


def test_sizes_lie_where_the_loss_bends() -> None:
    sizes = [0.0, *(1 - np.geomspace(0.7, 0.02, 9))]
    early = fronts.bends(sizes, [0.1] * 7 + [0.11, 0.18, 0.19], 0.4)
    late = fronts.bends(sizes, np.linspace(0.1, 0.39, 10), 1.0)
    for found in (early, late):
        assert len(found) == fronts.AUTO_SIZES
        assert found == sorted(found)
        assert all(0 < size < 1 for size in found)
    assert np.median(early) > np.median(late)


@pytest.mark.parametrize("losses", [[0.4] * 10, [math.nan] * 10, [0.3, *[math.nan] * 9]])
def test_sizes_are_found_where_nothing_was_learnt(losses: list[float]) -> None:
    found = fronts.bends([0.0, *(1 - np.geomspace(0.7, 0.02, 9))], losses, 0.4)
    assert all(0 < size < 1 for size in found)


class FakeRun:
    numbers = (0, 1)

    def __init__(self, losses: list[float], steps: int) -> None:
        self.folder = Path("run")
        self.result = {"model_steps": steps}
        self.trials = pd.DataFrame({"trial": [0, 1], "validation_l1": losses})


def test_the_network_of_the_lowest_validation_loss_is_taken() -> None:
    plan = [Stage(name, 0.5, 1, {}) for name in "abc"]
    losses = {"a": [0.3, 0.1], "b": [0.2, math.nan], "c": [math.nan, 0.4]}
    found = Trained(plan, {name: FakeRun(each, 10) for name, each in losses.items()})
    assert found.best.stage.tolist() == ["b", "a"]


def test_each_trial_continues_its_own(tmp_path: Path) -> None:
    first = run(recipe(target_sparsity=0.3), 2, out=tmp_path, progress=False)
    e = recipe(target_sparsity=0.3, initial_weights=str(first.folder), learning_rate=0.0)
    e = e.replace(l1_penalty=0.0, drop_fraction=0.0)
    begun = run(e, range(1, 2), out=tmp_path, progress=False)
    for side, other in zip(begun.population.sides, first.population.sides, strict=True):
        assert torch.equal(side.weights[0], other.weights[1])
    name = e.hash(seed=1)
    run(recipe(target_sparsity=0.3), 3, out=tmp_path, progress=False)
    assert e.hash(seed=1) == name  # more trials of the first leave it
    with pytest.raises(ValueError, match="holds no trial 3 to begin from"):
        run(e, range(3, 4), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="is not the folder of a finished run"):
        tiny(initial_weights=str(tmp_path)).check_files()
