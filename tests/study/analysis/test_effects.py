"""Effects of factors: known ones are found, none is found where there is none."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from evoae.study.analysis.effects import (
    mixed_model,
    permutation_test,
    shapley,
    shares,
)
from evoae.study.analysis.statistics import mean_interval

FACTORS = dict.fromkeys(("optimiser", "rates", "neighbours", "selection"), (False, True))


def trials(blocks=6, repeats=2, noise=0.002, seed=0, **effects) -> pd.DataFrame:
    """Loss 0.3, a large intercept of each block, the effects of factors that are on, and noise."""
    rng, rows = np.random.default_rng(seed), []
    for block in range(blocks):
        start = 0.3 + rng.normal(0, 0.05)
        for corner in itertools.product((False, True), repeat=4):
            on = dict(zip(FACTORS, corner, strict=True))
            loss = start + sum(size * on[name] for name, size in effects.items() if name in on)
            loss += effects.get("both", 0) * (on["optimiser"] and on["rates"])
            rows += [
                {"seed": block, **on, "loss": loss + rng.normal(0, noise)} for _ in range(repeats)
            ]
    return pd.DataFrame(rows)


def test_a_mixed_model_finds_effects_below_the_spread_of_the_blocks():
    table = trials(optimiser=-0.02, both=-0.01)
    found = mixed_model(table, ["optimiser", "rates"], "loss", "seed").set_index("effect")
    assert list(found.index) == [
        "mean of all", "optimiser=False", "rates=False", "optimiser=False x rates=False", "block",
    ]  # fmt: skip
    # against the mean of both levels: half of -0.02 - 0.01 / 2, and a quarter of the interaction
    row = found.loc["optimiser=False"]
    assert row.estimate == pytest.approx(0.0125, abs=0.001)
    assert row.low < 0.0125 < row.high
    assert found.estimate["optimiser=False x rates=False"] == pytest.approx(-0.0025, abs=0.001)
    assert found.p["optimiser=False"] < 1e-6
    assert 0.02 < found.estimate["block"] < 0.1
    with pytest.raises(ValueError, match="seed has one value; a random intercept needs"):
        mixed_model(table[table.seed == 0], ["optimiser"], "loss", "seed")


def test_permutations_within_blocks_see_an_effect_and_none_where_there_is_none():
    table = trials(rates=0.005)
    within = ["seed", "optimiser", "neighbours", "selection"]
    assert permutation_test(table, "rates", "loss", within, permutations=499) == 1 / 500
    p = [
        permutation_test(trials(blocks=2, seed=s), "rates", "loss", within, permutations=99)
        for s in range(60)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.12)
    assert 0.3 < np.mean(p) < 0.7


def test_trials_that_diverged_count_as_the_worst_and_show_nothing_by_themselves():
    table = trials(blocks=4)
    table.loc[3, "loss"] = np.nan
    worst = table.assign(loss=table.loss.fillna(table.loss.max()))
    within = ["seed", "optimiser", "neighbours", "selection"]
    p = permutation_test(table, "rates", "loss", within, permutations=99)
    assert p == permutation_test(worst, "rates", "loss", within, permutations=99)
    factors = dict.fromkeys(FACTORS, (False, True))
    for found in (
        lambda t: mixed_model(t, ["optimiser"], "loss", "seed"),
        lambda t: shapley(t, factors, "loss", "seed"),
    ):
        pd.testing.assert_frame_equal(found(table), found(worst))


def test_shapley_values_by_hand():
    # a alone is worth 1, b alone 2, both 6: a has (1 + 4) / 2, b (2 + 5) / 2
    assert shares({(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 6}) == [2.5, 3.5]


def test_shapley_values_part_the_gap_and_split_an_interaction_evenly():
    found = shapley(trials(optimiser=-0.08, both=-0.02, neighbours=-0.01), FACTORS, "loss", "seed")
    parts = found.set_index("factor").value
    assert parts["whole gap"] == pytest.approx(parts[:-1].sum())
    assert parts[:-1].tolist() == pytest.approx([-0.09, -0.01, -0.01, 0.0], abs=0.002)
    assert ((found.low <= found.value) & (found.value <= found.high)).all()
    with pytest.raises(
        ValueError, match="at least two seeds are needed, each with all 16 corners of opti"
    ):
        shapley(trials().iloc[2:], FACTORS, "loss", "seed")


def test_trials_of_a_block_are_one_value_however_many():
    """Repeats that agree exactly do not make a test of two blocks significant."""
    table = trials(blocks=2, noise=0.001)
    many = pd.concat([table] * 20)
    p = [permutation_test(t, "rates", "loss", ["seed"], permutations=99) for t in (table, many)]
    assert p[0] == p[1]
    assert p[0] > 0.2  # two blocks of two levels cannot say more


def test_intervals_of_shapley_values_are_students_over_blocks():
    """Of how many blocks, and however few: those of the mean, which cover (test_statistics)."""
    for blocks in (2, 5, 10):
        table = trials(blocks=blocks, optimiser=-0.02, noise=0.01)
        found = shapley(table, FACTORS, "loss", "seed").set_index("factor")
        on = table[table[list(FACTORS)].all(axis=1)].groupby("seed").loss.mean()
        off = table[~table[list(FACTORS)].any(axis=1)].groupby("seed").loss.mean()
        whole = found.loc["whole gap"]
        expected = mean_interval(on - off, least=2)
        assert (whole.low, whole.high) == pytest.approx(expected)
        assert whole.value == pytest.approx((on - off).mean())
