"""Scores, intervals and their coverage, paired tests, Holm's family, fronts: cases by hand."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import TINY
from scipy import stats
from statsmodels.stats.multitest import multipletests

from evoae import grid, sweep
from evoae.study.analysis import statistics
from evoae.study.analysis.statistics import (
    LEAST,
    beats,
    compare,
    differences,
    front,
    holm,
    mean_interval,
    pareto_front,
    score,
    scored,
    shift,
    signed_rank_null,
    summary,
)

SIMULATED = 6000


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trials(**groups) -> pd.DataFrame:
    rows = [(name, k, v) for name, values in groups.items() for k, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["operator", "trial", "loss"])


# -- scores --------------------------------------------------------------------------------------


def test_enough_trials_for_a_family_are_those_whose_smallest_p_can_be_below_the_level():
    for family in (1, 2, 9, 19, 22, 57):
        n = statistics.least(family)
        assert family * 2 / 2**n < statistics.LEVEL
        assert n == statistics.LEAST or family * 2 / 2 ** (n - 1) >= statistics.LEVEL
    assert statistics.least(22) == 10


def test_a_score_is_the_share_that_was_learnt_or_a_multiple_of_the_constants_loss():
    assert score([0.27, 0.05, 0.16, 0.38], 0.27, 0.05) == pytest.approx([0, 1, 0.5, -0.5])
    assert score([0.27, 0.135], [0.27, 0.27]) == pytest.approx([1, 0.5])


def test_results_are_scored_with_their_budget(tmp_path):
    experiments = grid("canonical", **TINY) | grid("lipi-ae-s", **TINY | {"cells": 3})
    study = sweep(experiments, 2, out=tmp_path, workers=1, progress=False)
    table = scored(study)
    pd.testing.assert_frame_equal(table[study.results.columns], study.results)
    steps = table.groupby("label").model_steps.first()
    assert steps["lipi-ae-s"] == 3 * steps["canonical"] == 3 * 4 * 3  # cells, epochs, batches
    row = table.iloc[0]
    assert row.score == pytest.approx(
        (row.constant_train_l1 - row.train_l1) / (row.constant_train_l1 - 0.05)
    )


# -- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 6, 10, 30])
def test_intervals_cover_what_they_say(n):
    """Student's within a point, however few; of a shift within two."""
    draws = np.random.default_rng(n).normal(size=(SIMULATED, n))
    means = np.array([mean_interval(values, least=2) for values in draws])
    assert np.mean((means[:, 0] <= 0) & (means[:, 1] >= 0)) == pytest.approx(0.95, abs=0.01)
    if n >= LEAST:
        covered = [found.low <= 0 <= found.high for found in map(shift, draws)]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("n", [6, 10])
def test_the_interval_of_a_shift_covers_by_counting_all_signs(n):
    """Exactly: of all signs of n differences about 0, those whose interval holds 0."""
    sizes = np.arange(1, n + 1) + 0.1 * np.sqrt(np.arange(n))
    found = [shift(sizes * signs) for signs in itertools.product((-1, 1), repeat=n)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.95 <= covered <= 0.97
    # the interval and the test say the same
    assert all((one.p < 0.05) == (not one.low <= 0 <= one.high) for one in found)


@pytest.mark.parametrize("values", [[], [0.3], [0.3] * (LEAST - 1), [0.1, np.inf] * 5])
def test_few_or_infinite_values_have_no_interval_of_the_mean(values):
    assert np.isnan(mean_interval(values)).all()


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=12)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high))
    assert mean_interval([0.1] * 7) == pytest.approx((0.1, 0.1))


def test_the_null_of_the_signed_rank_by_hand():
    # of 8 signs of the ranks 1, 2, 3: sums 0, 1, 2, 3 (twice), 4, 5, 6
    assert signed_rank_null(3) * 8 == pytest.approx([1, 1, 1, 2, 1, 1, 1])


def test_a_shift_by_hand():
    # six differences: the interval that covers 62 of 64 is that of all averages of pairs
    found = shift([1, 2, 3, 4, 5, 9])
    assert (found.low, found.high, found.n) == (1, 9, 6)
    averages = sorted(
        (a + b) / 2 for a, b in itertools.combinations_with_replacement([1, 2, 3, 4, 5, 9], 2)
    )
    assert found.estimate == np.median(averages)
    assert found.p == pytest.approx(2 / 64)
    few = shift([1, 2, 3])
    assert few.estimate == 2
    assert np.isnan([few.low, few.high, few.p]).all()
    assert np.isnan(shift([]).estimate)


@pytest.mark.parametrize("n", [6, 9, 25])
def test_the_p_of_a_shift_is_wilcoxons_exact_one(n):
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.3, 1, n)
        assert shift(values).p == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    assert shift([0] * 3 + [1] * 6).p > shift([1] * 6).p  # zeros count against a difference


def test_a_shift_moves_and_turns_with_the_differences():
    values = np.random.default_rng(1).exponential(size=11)
    one, moved, turned = shift(values), shift(values + 3), shift(-values)
    assert moved.estimate == pytest.approx(one.estimate + 3)
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low))


# -- trials that diverged ------------------------------------------------------------------------


def test_a_trial_that_diverged_is_the_worst_and_stays():
    a = pd.Series([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, np.nan])
    b = pd.Series([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.2])
    gaps = differences(a, b)
    assert gaps.iloc[-1] == np.inf
    without, found = shift(gaps[:-1]), shift(gaps)
    assert found.n == 7
    assert found.p > without.p
    assert found.high == np.inf
    assert np.isfinite(found.estimate)
    assert differences(pd.Series([np.nan]), pd.Series([np.inf])).tolist() == [0.0]
    table = compare(trials(x=a, y=b), by="operator", value="loss").iloc[0]
    assert (table.n, table["mean a"], table["a lower in"]) == (7, np.inf, 6)
    means = summary(trials(x=a, y=b), "operator", "loss").set_index("operator")
    assert means.loc["x", "mean"] == np.inf
    assert np.isnan(means.loc["x", "low"])
    assert means.loc["x", "median"] == 0.1


def test_losses_beat_the_constant_only_if_told_apart():
    constant = pd.Series([0.27] * 8)
    spread = pd.Series(np.linspace(-0.004, 0.004, 8))
    assert beats(constant - 0.01 + spread, constant) is True
    assert beats(constant - 0.001 + spread, constant) is False
    assert beats(constant + 0.2, constant) is False
    assert beats(constant[:5] - 0.1, constant[:5]) is None


# -- comparing -----------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (raised to 0.06), 0.4 * 1.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_the_family_is_what_was_declared_run_or_not():
    assert holm([0.01, 0.02], family=10) == pytest.approx([0.1, 0.18])
    assert holm([np.nan, 0.02, 0.5]) == pytest.approx([np.nan, 0.06, 1.0], nan_ok=True)
    assert holm([]).shape == (0,)
    p = np.random.default_rng(1).random(30) ** 4
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_holm_refuses_what_is_not_a_probability(wrong):
    with pytest.raises(ValueError, match=r"is not a p-value; it must be in \[0, 1\]"):
        holm([0.5, wrong])


def test_compare_pairs_by_trial_and_not_by_place():
    table = trials(none=[1, 2, 3, 4, 5, 6], random=[1.1, 2.2, 3.3, 4.4, 5.5, 6.6])
    before = table.copy()
    for rows in (table, table.sample(frac=1, random_state=np.random.default_rng(0))):
        found = compare(rows, by="operator", value="loss", baseline="none").iloc[0]
        assert (found.a, found.b, found.n) == ("random", "none", 6)
        assert found.p == pytest.approx(2 / 2**6)  # all six signs agree
        assert found["shift"] == pytest.approx(0.35)
        assert (found.low, found.high) == pytest.approx((0.1, 0.6))
        assert found["a lower in"] == 0
    pd.testing.assert_frame_equal(table, before)


def test_compare_all_pairs_is_a_family_of_its_own():
    table = trials(none=range(8), random=np.arange(8) + 1.5, wanda=np.arange(8) * 1.01)
    found = compare(table, by="operator", value="loss")
    pairs = [("none", "random"), ("none", "wanda"), ("random", "wanda")]
    assert list(zip(found["a"], found["b"], strict=True)) == pairs
    assert found.p_holm.tolist() == pytest.approx(holm(found.p).tolist())


def test_only_trials_of_both_are_compared_and_few_have_no_test():
    table = trials(none=[1] * 8, random=[2] * 6, wanda=[0.5] * 3)
    found = compare(table, by="operator", value="loss", baseline="none").set_index("a")
    assert found.n.tolist() == [6, 3]
    assert found["mean b"].tolist() == [1, 1]
    assert found.loc["wanda", ["low", "high", "p", "p_holm"]].isna().all()
    assert found.loc["wanda", "shift"] == -0.5
    # the comparison without a test was declared, too
    assert found.p_holm["random"] == pytest.approx(2 * found.p["random"])


def test_pairs_without_any_difference_give_p_one():
    table = trials(none=range(7), random=range(7))
    assert compare(table, by="operator", value="loss").loc[0, ["shift", "p"]].tolist() == [0, 1]


def test_errors_name_the_choices():
    table = trials(none=[1, 2], random=[3, 4])
    with pytest.raises(ValueError, match="has no column 'lost'; it has operator, trial, loss"):
        compare(table, by="operator", value="lost")
    with pytest.raises(ValueError, match="the groups are: none, random"):
        compare(table, by="operator", value="loss", baseline="rnadom")
    with pytest.raises(ValueError, match="operator none has trial 0 more than once"):
        compare(pd.concat([table] * 2), by="operator", value="loss")
    with pytest.raises(ValueError, match="has no column 'op'"):
        summary(table, "op", "loss")


def test_summary_has_means_intervals_and_budgets():
    table = trials(random=np.arange(7), none=[4, 5]).assign(model_steps=100.0, schedule="fixed")
    found = summary(table, ["operator", "schedule"], "loss")
    assert found.columns.tolist() == [
        "operator", "schedule", "n", "mean", "low", "high", "median", "model_steps",
    ]  # fmt: skip
    assert found[["n", "mean", "median", "model_steps"]].to_numpy().tolist() == [
        [7, 3, 3, 100],
        [2, 4.5, 4.5, 100],
    ]
    assert found.low[0] < 3 < found.high[0]
    assert found.loc[1, ["low", "high"]].isna().all()


# -- fronts --------------------------------------------------------------------------------------


def test_pareto_front_by_hand():
    sparsity = [10, 20, 30, 30, 5, 40, np.nan, 50]
    loss = [0.2, 0.1, 0.3, 0.2, 0.1, 0.4, 0.0, np.inf]
    # (20, 0.1) beats (10, 0.2) and (5, 0.1); (30, 0.2) beats (30, 0.3).
    assert pareto_front(sparsity, loss).tolist() == [1, 3, 5]


def test_pareto_front_keeps_equal_points_and_may_be_empty():
    assert pareto_front([1, 1, 0], [2, 2, 2]).tolist() == [0, 1]
    assert pareto_front([], []).tolist() == []


def test_no_point_is_better_than_the_front_and_each_other_point_is_worse():
    x, y = np.random.default_rng(0).random((2, 60))
    chosen = pareto_front(x, y)
    assert np.all(np.diff(x[chosen]) > 0)
    assert np.all(np.diff(y[chosen]) > 0)
    for k in set(range(60)) - set(chosen.tolist()):
        assert np.any((x[chosen] >= x[k]) & (y[chosen] <= y[k]))


def test_a_front_is_of_means_and_chosen_on_validation():
    table = pd.DataFrame(
        {
            "operator": ["none", "none", "random", "random", "wanda", "wanda", "nan", "nan"],
            "best_preserved": [1, 1, 0.8, 0.6, 0.7, 0.7, 0.1, 0.1],
            "validation_l1": [0.1, 0.1, 0.2, 0.2, 0.1, 0.2, 0.1, np.nan],
            # one trial of random is the best of all on test, and by chance
            "test_l1": [0.1, 0.1, 0.0, 0.3, 0.3, 0.3, 0.1, 0.1],
        }
    )
    found = front(table, ["operator"]).set_index("operator")
    assert found.sparsity.to_dict() == pytest.approx(
        {"none": 0, "random": 0.3, "wanda": 0.3, "nan": 0.9}
    )
    assert found.on_front.to_dict() == {"none": True, "random": False, "wanda": True, "nan": False}
    assert found.test_l1["wanda"] == pytest.approx(0.3)
