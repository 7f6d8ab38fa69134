"""Effect sizes, intervals, tests and Holm's adjustment, against cases worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evoae.analysis.statistics import a12, bootstrap_interval, compare, holm, summary


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trials(**groups) -> pd.DataFrame:
    rows = [(name, k, v) for name, values in groups.items() for k, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["operator", "trial", "loss"])


def test_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(3).normal(size=12)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        method="percentile",
        random_state=np.random.default_rng(5),
    ).confidence_interval
    assert bootstrap_interval(values, seed=5) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_interval_holds_the_mean_repeats_and_narrows_with_confidence():
    values = np.random.default_rng(0).exponential(size=30)
    low, high = bootstrap_interval(values)
    assert min(values) < low < values.mean() < high < max(values)
    assert (low, high) == bootstrap_interval(values)
    narrow_low, narrow_high = bootstrap_interval(values, confidence=0.5)
    assert low < narrow_low < narrow_high < high


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    covered = [
        low < 0 < high
        for low, high in (bootstrap_interval(random.normal(size=30)) for _ in range(300))
    ]
    assert 0.89 < np.mean(covered) < 0.99


@pytest.mark.parametrize("values", [[], [0.3], [0.3, np.nan]])
def test_interval_of_fewer_than_two_values_is_nan(values):
    assert np.isnan(bootstrap_interval(values)).all()


def test_interval_of_equal_values_is_that_value_exactly():
    assert bootstrap_interval([0.1] * 7) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([4, 5], [1, 2, 3], 1.0),
        ([1, 2], [3], 0.0),
        ([1, 2, 3], [1, 2, 3], 0.5),
        ([2, 4], [1, 2], 0.875),  # 2>1, 2=2, 4>1, 4>2: 3.5 of 4
        ([2, np.nan], [1], 1.0),
    ],
)
def test_a12_by_hand(x, y, expected):
    assert a12(x, y) == expected
    assert a12(y, x) == 1 - expected


def test_a12_of_an_empty_sample_is_nan():
    assert np.isnan(a12([], [1]))


def test_a12_is_mann_whitneys_u_as_a_share():
    random = np.random.default_rng(2)
    x, y = random.normal(size=9), random.normal(1, 1, size=7)
    assert a12(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / (9 * 7))


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (raised to 0.06), 0.4 * 1.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_holm_leaves_nan_out_of_the_family():
    assert holm([np.nan, 0.02, 0.5]) == pytest.approx([np.nan, 0.04, 0.5], nan_ok=True)
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_holm_refuses_what_is_not_a_probability(wrong):
    with pytest.raises(ValueError, match=r"is not a p-value; it must be in \[0, 1\]"):
        holm([0.5, wrong])


def test_compare_all_pairs_with_mann_whitney():
    table = trials(none=[1, 2, 3, 4], random=[5, 6, 7, 8], wanda=[1.5, 2.5, 3.5, 4.5, 9])
    before = table.copy()
    found = compare(table, by="operator", value="loss")
    pd.testing.assert_frame_equal(table, before)
    pairs = [("none", "random"), ("none", "wanda"), ("random", "wanda")]
    assert list(zip(found["a"], found["b"], strict=True)) == pairs
    first = found.iloc[0]
    assert (first["n_a"], first["mean_a"], first["median_b"]) == (4, 2.5, 6.5)
    assert (first["difference"], first["a12"], first["test"]) == (-4.0, 0.0, "mann-whitney")
    assert first["p"] == pytest.approx(2 / 70)  # one of the C(8, 4) = 70 orders, two-sided
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]).tolist())
    assert found.loc[1, "n_b"] == 5


def test_compare_with_a_baseline_makes_a_smaller_family():
    table = trials(none=[1, 2, 3, 4], random=[5, 6, 7, 8], wanda=[9, 10, 11, 12])
    found = compare(table, by="operator", value="loss", baseline="none")
    assert list(found["a"]) == ["random", "wanda"]
    assert set(found["b"]) == {"none"}
    assert found["a12"].tolist() == [1.0, 1.0]
    assert found["p_holm"].tolist() == pytest.approx([4 / 70, 4 / 70])


def test_pairs_are_matched_by_key_and_not_by_place():
    table = trials(none=[1, 2, 3, 4, 5, 6], random=[1.1, 2.2, 3.3, 4.4, 5.5, 6.6])
    shuffled = table.sample(frac=1, random_state=np.random.default_rng(0))
    for rows in (table, shuffled):
        found = compare(rows, by="operator", value="loss", paired_by="trial").iloc[0]
        assert found["test"] == "wilcoxon"
        assert found["p"] == pytest.approx(2 / 2**6)  # all six signs agree
    assert compare(table, by="operator", value="loss").loc[0, "p"] > 0.5


def test_pairs_without_any_difference_give_p_one():
    table = trials(none=[1, 2, 3], random=[1, 2, 3])
    found = compare(table, by="operator", value="loss", paired_by="trial").iloc[0]
    assert (found["p"], found["test"]) == (1.0, "wilcoxon")
    assert compare(trials(a=[1, 1], b=[1, 1]), by="operator", value="loss").loc[0, "p"] == 1.0


def test_unequal_keys_fall_back_to_mann_whitney_and_say_so():
    table = trials(none=[1, 2, 3], random=[1, 2, np.nan])
    found = compare(table, by="operator", value="loss", paired_by="trial").iloc[0]
    assert (found["test"], found["n_b"]) == ("mann-whitney", 2)


def test_a_key_twice_is_refused():
    table = pd.concat([trials(none=[1, 2], random=[3, 4])] * 2)
    with pytest.raises(ValueError, match="operator none has trial 0 twice"):
        compare(table, by="operator", value="loss", paired_by="trial")


@pytest.mark.parametrize("paired_by", [None, "trial"])
def test_one_trial_per_group_has_no_p(paired_by):
    table = trials(none=[1.0], random=[2.0])
    found = compare(table, by="operator", value="loss", paired_by=paired_by).iloc[0]
    assert np.isnan(found["p"])
    assert np.isnan(found["p_holm"])
    assert found["difference"] == -1.0


def test_a_small_group_does_not_enlarge_the_family():
    table = trials(none=[1, 2, 3, 4], random=[5, 6, 7, 8], wanda=[9])
    found = compare(table, by="operator", value="loss", baseline="none")
    assert found["p_holm"].tolist() == pytest.approx([2 / 70, np.nan], nan_ok=True)


def test_a_group_without_values_is_reported_empty():
    found = compare(trials(none=[1, 2], random=[np.nan, np.nan]), by="operator", value="loss")
    assert found.loc[0, "n_b"] == 0
    assert found.loc[0, ["mean_b", "a12", "p"]].isna().all()


def test_one_group_gives_no_rows_but_all_columns():
    found = compare(trials(none=[1, 2]), by="operator", value="loss")
    assert len(found) == 0
    assert {"a", "b", "a12", "p", "p_holm"} <= set(found.columns)


def test_errors_name_the_choices():
    table = trials(none=[1, 2], random=[3, 4])
    with pytest.raises(ValueError, match="lacks the column 'lost'; it has: operator, trial, loss"):
        compare(table, by="operator", value="lost")
    with pytest.raises(ValueError, match="the groups are: none, random"):
        compare(table, by="operator", value="loss", baseline="rnadom")
    with pytest.raises(ValueError, match="lacks the column 'op'"):
        summary(table, "op", "loss")


def test_summary_by_one_column_and_by_two():
    table = trials(random=[1, 2, 6], none=[4, np.nan])
    found = summary(table, "operator", "loss")
    assert found["operator"].tolist() == ["random", "none"]
    assert found["n"].tolist() == [3, 1]
    assert found["mean"].tolist() == [3.0, 4.0]
    assert found["median"].tolist() == [2.0, 4.0]
    assert 1 <= found.loc[0, "low"] < 3 < found.loc[0, "high"] <= 6
    assert found.loc[1, ["low", "high"]].isna().all()
    both = summary(table.assign(schedule="fixed"), ["operator", "schedule"], "loss")
    assert both.columns[:3].tolist() == ["operator", "schedule", "n"]
    assert both["mean"].tolist() == [3.0, 4.0]
