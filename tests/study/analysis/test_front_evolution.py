"""Evolution as a way to a front: whom a size tries, what is carried, who survives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny
from tqdm.auto import tqdm

from evoae.study.analysis import front_evolution as evolution
from evoae.study.runs.fronts import LOOK, Stage, Trained


@pytest.fixture
def search(tmp_path: Path) -> evolution.Search:
    where = {"out": tmp_path, "workers": 1}
    return evolution.Search(tiny("frontier", epochs=1), 1, 1, tqdm(disable=True), where)


def test_who_tries_whose_networks() -> None:
    assert evolution.neighbours([0.0, 0.5, 0.8]) == {
        0.0: {"itself": 0.0},
        0.5: {"itself": 0.5, "denser": 0.0, "sparser": 0.8},
        0.8: {"itself": 0.8, "denser": 0.5},
    }


def test_carried_settings_begin_near_the_recipe_and_change_by_a_step() -> None:
    e, draws = tiny("frontier"), np.random.default_rng(1)
    for _ in range(20):
        settings = evolution.prior(e, draws)
        assert set(settings) == set(evolution.CARRIED)
        for name, value in settings.items():
            assert 1 / evolution.PRIOR <= value / getattr(e, name) <= evolution.PRIOR
        assert settings["drop_fraction"] <= 1
        for name, value in evolution.changed(settings, draws).items():
            assert value / settings[name] == pytest.approx(0.8) or (
                value == pytest.approx(min(1.0, 1.25 * settings[name]))
            )
    assert evolution.changed({}, draws) == {}  # of a network that carries none


def test_fronts_and_crowding_by_hand() -> None:
    # front 1: a, b, c, d; front 2: e, f; crowding makes the ends of a front first
    a, b, c, d, e, f = (0, 10), (1, 6), (5, 5), (9, 0), (2, 11), (10, 1)
    found = evolution.best_first(np.array([e, c, b, a, d, f], float))
    named = ["ecbadf"[i] for i in found]
    assert named[:2] == ["a", "d"]  # in the order given, both ends
    # b lies between a and c: 5/9 + 5/10; c between b and d: 8/9 + 6/10
    assert named[2:] == ["c", "b", "e", "f"]
    assert evolution.crowding(np.array([[1.0, 1.0]])).tolist() == [np.inf]
    # a diverged network is dominated by whatever is as small
    assert evolution.best_first(np.array([[np.inf, 0.5], [1.0, 0.5]])).tolist() == [1, 0]


def test_a_child_has_the_union_of_masks_and_a_size_near_its_parents(
    search: evolution.Search,
) -> None:
    other_way = {**LOOK, "learning_rate": 0.5}  # so the masks are not nested
    stages = [
        Stage(f"size {size}", size, 1.0, settings, None, False)
        for size, settings in ((0.5, LOOK), (0.6, other_way))
    ]
    search.train(stages, 8)
    one, other = (search.runs[stage.name].population for stage in stages)
    path = evolution.crossed(search, *stages)
    child = evolution.population.load(path)
    for ours, theirs, of_child in zip(one.sides, other.sides, child.sides, strict=True):
        assert torch.equal(
            of_child.weights, torch.where(ours.weights == 0, theirs.weights, ours.weights)
        )
    kept = [int((side.weights != 0).sum()) for side in child.sides]
    assert sum(kept) > one.parameters - one.encoder.zeros()[0] - one.decoder.zeros()[0]
    sizes = [evolution.size_of_child(0.5, 0.6, 0.7, np.random.default_rng(i)) for i in range(50)]
    assert 0.01 <= min(sizes) < 0.5 < 0.6 < max(sizes) == 0.7


def test_the_random_search_goes_on_with_its_best_settings(search: evolution.Search) -> None:
    evolution.by_random_search(search, [0.3, 0.6], 48)
    means = {}
    for number in range(evolution.CONFIGURATIONS):
        own = [s for s in search.plan if s.name.startswith(f"configuration {number} ")]
        means[np.mean([search.loss(stage) for stage in own])] = own[0].settings
    best = [stage for stage in search.plan if stage.name.startswith("best ")]
    chosen = means[min(means)]
    assert all(stage.settings.items() >= chosen.items() for stage in best)
    assert best[-1].begin == "best size 0.3"
    # the short trajectories count, and may be the ones that are taken
    table = Trained(search.plan, search.runs).table
    total = sum(run.result["model_steps"] for run in search.runs.values())
    assert table.model_steps.sum() == total
