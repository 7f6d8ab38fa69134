"""Comparing groups of trials: intervals, effect sizes and tests that assume no distribution.

A table holds one row per trial and one column that names its group. Values that are null are left
out and never counted. Samples of fewer than two values have no interval and no p: they give nan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2000
COLUMNS = ["a", "b", "n_a", "n_b", "mean_a", "mean_b", "median_a", "median_b"]
COLUMNS += ["difference", "a12", "test", "p"]


def require_columns(table: pd.DataFrame, columns: Iterable[str], name: str = "table") -> None:
    """Raise ValueError, listing the columns there are, if `table` lacks one of `columns`."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise ValueError(f"{name} lacks the column {missing[0]!r}; it has: {there}")


def _values(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[~np.isnan(values)]


def bootstrap_interval(
    values: ArrayLike,
    confidence: float = 0.95,
    seed: int = 0,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean, or another statistic, of `values`.

    `values` are [n], or [n, m] whose n rows are drawn again whole. The same values and seed give
    the same interval. With about ten trials or fewer it is too narrow. One value or none gives
    (nan, nan); equal values v give (v, v).
    """
    values = np.asarray(values, dtype=float)
    values = _values(values) if values.ndim == 1 else values
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values.flat[0]), float(values.flat[0])
    # The draws of scipy.stats.bootstrap, without its overhead: a curve has an interval per epoch.
    random = np.random.default_rng(seed)
    resampled = values[random.integers(0, len(values), (RESAMPLES, len(values)))]
    resampled = resampled.reshape(RESAMPLES, -1)
    low, high = np.quantile(
        statistic(resampled, axis=1), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    return float(low), float(high)


def a12(x: ArrayLike, y: ArrayLike) -> float:
    """Vargha and Delaney's A (2000): P(X > Y) + P(X = Y) / 2, for one draw of `x` and one of `y`.

    0.5 means no effect, 1 that every x is larger than every y, 0 that every x is smaller: for a
    loss, a value below 0.5 favours x. A small, medium and large effect is 0.56, 0.64 and 0.71, or
    as far below 0.5. An empty sample gives nan.
    """
    x, y = _values(x), _values(y)
    if not len(x) or not len(y):
        return float("nan")
    return float(np.mean(np.sign(x[:, None] - y) + 1) / 2)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down adjustment (1979) of a family of p-values [n].

    nan stays nan and is not of the family. Raises ValueError for a p outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p = {p[(p < 0) | (p > 1)][0]} is not a p-value; it must be in [0, 1]")
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def _p(x: pd.Series, y: pd.Series, paired: bool) -> float:
    if min(len(x), len(y)) < 2:
        return float("nan")
    if paired:
        differences = (x - y.loc[x.index]).to_numpy()
        return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    return float(stats.mannwhitneyu(x, y, alternative="two-sided").pvalue)


def compare(
    table: pd.DataFrame,
    *,
    by: str,
    value: str,
    baseline: object = None,
    paired_by: str | None = None,
) -> pd.DataFrame:
    """Two-sided tests of `value` between the groups of `by`: all pairs, or each against `baseline`.

    The test is Mann-Whitney's U. With `paired_by` (such as "trial"), if every group has a value for
    the same keys, it is Wilcoxon's signed-rank test of the pairs; differences that are all 0 give
    p = 1. The column `test` says which it was. The comparisons returned are the family of Holm's
    adjustment; those with p = nan (fewer than two values in a group) are not of it.

    Returns one row per pair, in the order of the table: a, b, n_a, n_b, mean_a, mean_b, median_a,
    median_b, difference (mean_a - mean_b), a12 (above 0.5 when a is larger), test, p, p_holm.
    With a baseline, b is the baseline. Raises ValueError for a column or a baseline that is not
    there, and for a key that a group has twice.
    """
    require_columns(table, [by, value, *([paired_by] if paired_by else [])])
    samples = {}
    for name, rows in table.groupby(by, sort=False, observed=True):
        sample = rows.dropna(subset=[value]).set_index(paired_by or by)[value].astype(float)
        if paired_by and sample.index.has_duplicates:
            key = sample.index[sample.index.duplicated()][0]
            raise ValueError(f"{by} {name} has {paired_by} {key} twice; pairs need it once")
        samples[name] = sample
    if baseline is not None and baseline not in samples:
        names = ", ".join(map(str, samples))
        raise ValueError(f"baseline {baseline!r} is not a group of {by}; the groups are: {names}")
    paired = paired_by is not None and len({frozenset(s.index) for s in samples.values()}) == 1
    if baseline is None:
        pairs = list(combinations(samples, 2))
    else:
        pairs = [(name, baseline) for name in samples if name != baseline]
    rows = []
    for a, b in pairs:
        x, y = samples[a], samples[b]
        sizes = (len(x), len(y), x.mean(), y.mean(), x.median(), y.median(), x.mean() - y.mean())
        test = "wilcoxon" if paired else "mann-whitney"
        rows.append((a, b, *sizes, a12(x, y), test, _p(x, y, paired)))
    compared = pd.DataFrame(rows, columns=COLUMNS)
    return compared.assign(p_holm=holm(compared["p"]))


def summary(table: pd.DataFrame, by: str | Sequence[str], value: str) -> pd.DataFrame:
    """One row per group of `by`, in the order of the table: n, mean, low, high, median of `value`.

    low and high bound the mean (`bootstrap_interval`). Raises ValueError for a missing column.
    """
    by = [by] if isinstance(by, str) else list(by)
    require_columns(table, [*by, value])
    rows = []
    for names, sample in table.groupby(by, sort=False, observed=True)[value]:
        low, high = bootstrap_interval(sample)
        rows.append((*names, sample.count(), sample.mean(), low, high, sample.median()))
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "median"])
