"""What trials say: scores, intervals that cover, and paired tests.

Trials of one study share their data and their start, so two settings are compared trial by trial:
Wilcoxon's signed-rank test, and beside it the shift (Hodges and Lehmann's median of the averages of
all pairs of differences) with the interval that inverts the test. Below `LEAST` trials there is
neither: no signed-rank test could reach `LEVEL`, and an interval would say little. A trial that
diverged (its loss is null or infinite) is the worst of all, and is never left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from evoae.study.runs.study import Study

LEAST = 6  # trials
CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
COLUMNS = ["a", "b", "n", "mean a", "mean b", "shift", "low", "high", "a lower in", "p"]


def require_columns(table: pd.DataFrame, columns: Iterable[str], name: str = "table") -> None:
    """Raise ValueError, listing the columns there are, if `table` lacks one of `columns`."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise ValueError(f"{name} has no column {missing[0]!r}; it has {there}")


# -- scores --------------------------------------------------------------------------------------


def score(loss: ArrayLike, constant: ArrayLike, floor: ArrayLike | None = None) -> np.ndarray:
    """Losses [n] on a scale that other data share.

    With a known noise floor the share of what can be learnt: 0 is the constant predictor's loss, 1
    the floor, below 0 is worse than no autoencoder. Without one, the loss as a multiple of the
    constant predictor's.
    """
    loss, constant = np.asarray(loss, dtype=float), np.asarray(constant, dtype=float)
    if floor is None:
        return loss / constant
    return (constant - loss) / (constant - np.asarray(floor, dtype=float))


def scored(study: Study, split: str = "train") -> pd.DataFrame:
    """`study.results` with what a mean needs beside it: the score and the budget of each trial.

    `score` is that of the split's L1 ("train" or "test"); `model_steps` counts one model, one
    batch, one update.
    """
    results = study.results
    steps = {k: run.result["model_steps"] / len(run.trials) for k, run in study.runs.items()}
    floor = study.references(split)["floor"]
    return results.assign(
        score=score(results[f"{split}_l1"], results[f"constant_{split}_l1"], floor),
        model_steps=results.label.map(steps),
    )


# -- intervals -----------------------------------------------------------------------------------


def mean_interval(values: ArrayLike, least: int = LEAST) -> tuple[float, float]:
    """Student's 95 % interval (low, high) of the mean of `values` [n], one for each trial.

    (nan, nan) below `least` values, or if one is not finite; equal values v give (v, v).
    """
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < least or not np.isfinite(values).all():
        return float("nan"), float("nan")
    half = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1)
    half /= np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


@dataclass(frozen=True)
class Shift:
    """Where differences are centred: estimate, 95 % interval, p that it is 0, their number."""

    estimate: float
    low: float
    high: float
    p: float
    n: int


def shift(differences: ArrayLike) -> Shift:
    """Hodges and Lehmann's (1963) centre of `differences` [n], one for each pair of trials.

    The interval inverts the exact signed-rank test: it covers at least as often as it says, however
    the differences are distributed about their centre. Infinite differences (one of a pair
    diverged) are the largest. Below LEAST differences, interval and p are nan.
    """
    values = np.asarray(differences, dtype=float).ravel()
    n = len(values)
    if not n:
        return Shift(math.nan, math.nan, math.nan, math.nan, 0)
    first, second = np.triu_indices(n)
    with np.errstate(invalid="ignore"):  # infinities of both signs: their average is in between
        averages = (values[first] + values[second]) / 2
        walsh = np.sort(np.where(np.isnan(averages), 0.0, averages))
        estimate = float(np.median(walsh))
    if n < LEAST:
        return Shift(estimate, math.nan, math.nan, math.nan, n)
    # Tukey: the signed-rank statistic is the number of averages above 0, so one table serves both
    tail = np.cumsum(signed_rank_null(n))
    left_out = int(np.searchsorted(tail, (1 - CONFIDENCE) / 2, "right"))
    low, high = walsh[left_out - 1], walsh[len(walsh) - left_out]
    fewer = min((walsh <= 0).sum(), (walsh >= 0).sum())  # zeros count against a difference
    return Shift(estimate, float(low), float(high), float(min(1, 2 * tail[fewer])), n)


@cache
def signed_rank_null(n: int) -> np.ndarray:
    """The chance that the ranks with a plus sum to 0, 1, ..., n (n + 1) / 2, if signs are even."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        chances = np.convolve(chances, [0.5, *[0.0] * (rank - 1), 0.5])
    return chances


def differences(a: pd.Series, b: pd.Series) -> pd.Series:
    """Losses of `a` less those of `b`, by the keys (trials) that both have.

    A null is a loss that diverged: infinitely worse than any other, and equal to another such.
    """
    shared = a.index.intersection(b.index, sort=False)
    a, b = (side.loc[shared].astype(float).fillna(np.inf) for side in (a, b))
    return (a - b).fillna(0.0)  # of two that diverged


# -- comparing settings --------------------------------------------------------------------------


def holm(p: ArrayLike, family: int = 0) -> np.ndarray:
    """Holm's step-down adjustment (1979) of the p-values [n] of a family.

    `family` is the number of comparisons that were declared: those that were not run, or whose p is
    nan, count as p = 1. Raises ValueError for a p outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p = {p[(p < 0) | (p > 1)][0]} is not a p-value; it must be in [0, 1]")
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # nan comes last
    # statsmodels' multipletests does the same, and collects garbage for a tenth of a second
    steps = p[order] * (max(family, len(p)) - np.arange(len(order)))
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted


def least(family: int) -> int:
    """Trials from which the smallest p of so many comparisons can be below LEVEL after Holm.

    The signed-rank test of n pairs has no p below 2 / 2^n.
    """
    return max(LEAST, math.ceil(math.log2(2 * max(1, family) / LEVEL)))


def compare(
    table: pd.DataFrame,
    *,
    by: str,
    value: str,
    baseline: object = None,
    within: str | None = None,
    paired_by: str = "trial",
) -> pd.DataFrame:
    """Paired comparisons of `value` between groups of `by`: all pairs, or each with `baseline`.

    Trials that both groups have are paired by `paired_by`. `within` names a column of which each
    value is compared by itself. The comparisons returned are the family of Holm's adjustment, those
    without a p included. One row per pair, in the order of the table: a, b, n, mean a, mean b,
    shift (a - b), low, high (95 % of the shift), a lower in (of n trials), p, p_holm; with a
    baseline, b is the baseline. Raises ValueError for a column or a baseline that is not there, and
    for a trial that a group has twice.
    """
    require_columns(table, [by, value, paired_by, *([within] if within else [])])
    parts = []
    for group, rows in table.groupby(within, sort=False) if within else [("", table)]:
        part = compare_groups(samples_of(rows, by, value, paired_by), by, baseline)
        if within:
            part.insert(0, within, group)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    return found.assign(p_holm=holm(found["p"]))


def samples_of(table: pd.DataFrame, by: str, value: str, key: str) -> dict[object, pd.Series]:
    """The values of each group, by key. Raises ValueError for a key that a group has twice."""
    twice = table.loc[table.duplicated([by, key]), [by, key]]
    if len(twice):
        name, again = next(twice.itertuples(index=False))
        raise ValueError(f"{by} {name} has {key} {again} more than once; pairs need it once")
    groups = table.groupby(by, sort=False, observed=True)
    return {name: rows.set_index(key)[value].astype(float) for name, rows in groups}


def compare_groups(samples: dict[object, pd.Series], by: str, baseline: object) -> pd.DataFrame:
    """A row for each pair of samples, or of each with the baseline: COLUMNS."""
    if baseline is not None and baseline not in samples:
        names = ", ".join(map(str, samples))
        raise ValueError(f"baseline {baseline!r} is not a group of {by}; the groups are: {names}")
    pairs = [(name, baseline) for name in samples if name != baseline]
    pairs = list(combinations(samples, 2)) if baseline is None else pairs
    rows = [(a, b, *paired(samples[a], samples[b]).values()) for a, b in pairs]
    return pd.DataFrame(rows, columns=COLUMNS)


def paired(a: pd.Series, b: pd.Series) -> dict[str, float | int]:
    """Two samples of losses compared by the trials that both have: COLUMNS, from n on."""
    gaps = differences(a, b)
    found = shift(gaps)
    means = {"mean a": mean_loss(a[gaps.index]), "mean b": mean_loss(b[gaps.index])}
    ends = {"shift": found.estimate, "low": found.low, "high": found.high}
    return {"n": found.n} | means | ends | {"a lower in": int((gaps < 0).sum()), "p": found.p}


def beats(losses: pd.Series, constants: pd.Series) -> bool | None:
    """Whether losses, trial by trial, are significantly lower than the constant predictor's.

    None below LEAST trials: they do not say.
    """
    found = shift(differences(losses, constants))
    return None if found.n < LEAST else found.high < 0


def mean_loss(losses: pd.Series) -> float:
    """The mean of losses; infinite if one diverged, nan of none."""
    return float(losses.fillna(np.inf).mean())


def summary(
    table: pd.DataFrame, by: str | Sequence[str], value: str | Sequence[str]
) -> pd.DataFrame:
    """One row per group of `by`, in the order of the table: n, mean, low, high, median of `value`.

    low and high bound the mean (`mean_interval`). Of further values, and of `score` and
    `model_steps` where the table has them, the mean alone. Raises ValueError for a missing column.
    """
    by, values = ([names] if isinstance(names, str) else list(names) for names in (by, value))
    require_columns(table, [*by, *values])
    beside = [*values[1:], *(name for name in ("score", "model_steps") if name in table)]
    rows = []
    for names, group in table.groupby(by, sort=False, observed=True):
        sample = group[values[0]]
        middle = (mean_loss(sample), *mean_interval(sample), sample.fillna(np.inf).median())
        rows.append((*names, len(sample), *middle, *group[beside].mean()))
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "median", *beside])


# -- fronts --------------------------------------------------------------------------------------


def pareto_front(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Indices of the points that no other beats, where x is best large and y is best small.

    A point is beaten by one that is as good in both and better in one; equal points are both kept.
    Ordered by x, so y rises too. Points with a nan or an infinity are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    better = (x >= x[:, None]) & (y <= y[:, None]) & ((x > x[:, None]) | (y < y[:, None]))
    front = np.flatnonzero(~better.any(axis=1) & np.isfinite(x + y))
    return front[np.argsort(x[front], kind="stable")]


def front(
    results: pd.DataFrame,
    by: Sequence[str],
    x: str = "best_preserved",
    y: str = "test_l1",
    chosen_on: str = "validation_l1",
) -> pd.DataFrame:
    """Means over the trials of each setting, and which settings are on the front.

    `by` are the columns that tell settings apart. A row per setting: n, sparsity (1 - the mean of
    the share `x`), the means of `chosen_on` and of `y`, `on_front`. The front is chosen on
    `chosen_on` (validation), so that `y` (test) is used once, to report it.
    """
    by = list(by)
    require_columns(results, [*by, x, y, chosen_on], "results")
    losses = list(dict.fromkeys([chosen_on, y]))
    table = results.assign(**{name: results[name].fillna(np.inf) for name in losses})
    groups = table.groupby(by, sort=False, observed=True)
    means = groups[[x, *losses]].mean().assign(n=groups.size()).reset_index()
    means["sparsity"] = 1 - means[x]
    chosen = pareto_front(means["sparsity"], means[chosen_on])
    means["on_front"] = means.index.isin(chosen)
    return means[[*by, "n", "sparsity", *losses, "on_front"]]
