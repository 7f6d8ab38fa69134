"""Blocks: intervals that cover, tests of difference and of equivalence, and no shared streams."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from evoae import Experiment, sweep
from evoae.study.analysis import blocks
from evoae.study.analysis.blocks import compared, effect, means, rates_by, table_of
from evoae.study.runs.grids import Design


@pytest.mark.parametrize("n", [5, 10])
def test_intervals_over_blocks_cover(n: int) -> None:
    """Blocks differ in their data and in their training; within one, ten cells share both."""
    rng = np.random.default_rng(n)
    own = rng.normal(0.02, 0.01, (4000, n, 1)) + rng.normal(0, 0.02, (4000, n, 10))
    found = [effect(values) for values in own.mean(2)]
    covered = np.mean([one.low <= 0.02 <= one.high for one in found])
    assert 0.94 <= covered <= 0.96


def test_a_block_counts_once() -> None:
    table = pd.DataFrame(
        {"data_seed": [0, 0, 1, 1], "arm": list("aabb"), "loss": [1, 3, 5, np.nan]}
    )
    assert means(table, "loss").tolist() == [2, np.inf]
    assert means(table, "loss", arm="a").to_dict() == {0: 2}


def test_difference_and_equivalence_keep_their_level() -> None:
    rng = np.random.default_rng(0)
    none = [effect(rng.normal(0, 0.005, 10)) for _ in range(4000)]
    assert np.mean([one.p < 0.05 for one in none]) == pytest.approx(0.05, abs=0.012)
    edge = [effect(rng.normal(0.01, 0.005, 10)) for _ in range(4000)]
    assert np.mean([one.p_equal < 0.05 for one in edge]) <= 0.06
    assert np.mean([one.p_equal < 0.05 for one in none]) > 0.95


def test_an_effect_by_hand() -> None:
    found = effect([0.01, 0.02, 0.03])
    half = 4.302653 * 0.01 / np.sqrt(3)  # Student's quantile of two degrees of freedom
    assert (found.estimate, found.n) == (pytest.approx(0.02), 3)
    assert (found.low, found.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))
    assert found.p == pytest.approx(0.0741799)
    assert found.p_equal > 0.5
    assert effect([0.02] * 3).p < 1e-9
    assert effect([0.0] * 3).p == 1
    assert effect([0.0] * 3).p_equal < 1e-9
    for few in ([], [0.1], [0.1, np.inf], [0.1, np.nan]):
        assert np.isnan([effect(few).low, effect(few).p, effect(few).p_equal]).all()


def test_what_a_family_of_effects_says() -> None:
    noise = 0.001 * np.array([1, -1, 2, -2, 1, -1, 0, 0, 1, -1])
    rows = {"lower": -0.05, "higher": 0.05, "lower, by less than the margin": -0.004}
    rows |= {"no difference as large as the margin": 0.0}
    table = compared((({"name": name}, pd.Series(gap + noise)) for name, gap in rows.items()))
    assert table.says.tolist() == table.name.tolist()
    assert (table.p_holm >= table.p).all()
    wide = pd.Series([0.1, -0.1, 0.2, -0.2, 0.1] * 2)
    table = compared([({}, wide), ({}, wide[:9]), ({}, wide.replace(0.2, np.inf))])
    assert table.says.tolist() == ["open", "too few blocks", "diverged"]
    assert len(compared([])) == 0


def test_a_block_has_data_and_training_of_its_own() -> None:
    size = {k: v for k, v in TINY.items() if k != "learning_rate"}
    design = Design()
    for rate in (1e-3, 1e-2):
        design.add(str(rate), Experiment.preset("canonical", learning_rate=rate, **size), rate=rate)
    study = sweep(design, 3, progress=False, workers=1)
    table = table_of(study, ["rate"])
    assert table.groupby("data_seed").training_seed.nunique().eq(1).all()
    assert table.training_seed.nunique() == table.data_seed.nunique() == 3
    weights = study.runs["0.001"].population.encoder.weights
    rows = [study.runs["0.001"].data(trial).train for trial in range(3)]
    assert not any((weights[0] == weights[other]).any() for other in (1, 2))
    assert not any(bool((rows[0] == rows[other]).all()) for other in (1, 2))
    assert rates_by(table.assign(learning_rate=table.rate, arm="a"), ["arm"]).loc["a"] == 1e-2
    table.loc[table.rate == 1e-2, "validation_l1"] = None  # it diverged
    assert rates_by(table.assign(learning_rate=table.rate, arm="a"), ["arm"]).loc["a"] == 1e-3


def test_trials_of_tuning_are_none_of_a_block() -> None:
    assert set(blocks.TUNING).isdisjoint(range(10 * blocks.PLANNED))
