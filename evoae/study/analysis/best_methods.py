"""The best methods of the frontier: who is alive, tests among the best, comparisons at equal size.

A table has a row per trial, as of `frontier.trials`: dataset, method, target, trial, the losses,
and the sizes macs and compact_parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from evoae.study.analysis import statistics
from evoae.study.analysis.sentences import Answer, against, lowest
from evoae.study.analysis.statistics import require_columns

POINT = ["dataset", "method", "target"]
LOSSES = ["validation_l1", "test_l1", "constant_test_l1"]
OURS = "frontier"  # what the names of the recipe and its variants begin with
# shares of the largest size that any method has, at which methods are compared
SHARES = {"macs": (0.4, 0.2, 0.1), "compact_parameters": (0.7, 0.5, 0.3)}
BEST = 4  # methods that are compared with each other, and with the best baseline
FAMILY = 10  # tests: six pairs of these, and four with the baseline


def at_size(table: pd.DataFrame, size: str, share: float) -> pd.DataFrame:
    """The trials of `trials` brought to one size: losses between their targets, interpolated.

    `size` is macs or compact_parameters, and the size wanted is a `share` of the largest that any
    method has on a data set. In each trial of a method the losses at its targets are joined by
    straight lines over the logarithm of the size. A row per data set, method and trial, with
    `target` the share; methods that do not reach the size in every trial are left out.
    """
    require_columns(table, [size, *LOSSES])
    found, wanted = [], share * table.groupby("dataset")[size].max()
    for (dataset, method), rows in table.groupby(["dataset", "method"], sort=False):
        at, reached = wanted[dataset], []
        for trial, own in rows.groupby("trial", sort=False):
            own = own[own[size] > 0].sort_values(size)
            if own[size].min() <= at <= own[size].max():
                losses = {
                    name: np.interp(np.log(at), np.log(own[size]), own[name].fillna(np.inf))
                    for name in LOSSES
                }
                which = {"dataset": dataset, "method": method, "trial": trial}
                reached.append(which | {"target": share, size: at} | losses)
        if len(reached) == rows.trial.nunique():
            found += reached
    return pd.DataFrame(found, columns=[*POINT, "trial", size, *LOSSES])


def living(rows: pd.DataFrame) -> list[str]:
    """The methods that beat the constant predictor and compute something, the best first.

    By their mean validation loss; `rows` are trials of one data set and target. A dead network is
    no yardstick for others. Below LEAST trials, the mean decides whether a method beats a constant.
    """
    found = {}
    for method, own in rows.groupby("method", sort=False):
        better = statistics.beats(own.test_l1, own.constant_test_l1)
        if better is None:
            better = statistics.mean_loss(own.test_l1) < own.constant_test_l1.mean()
        if better and ("macs" not in own or own.macs.mean() > 0):
            found[method] = own.validation_l1.fillna(np.inf).mean()
    return sorted(found, key=found.__getitem__)


def best_baseline(known: Sequence[str]) -> str | None:
    """The first of some methods that is neither the recipe nor a variant of it."""
    return next((name for name in known if not name.startswith(OURS)), None)


def among_best(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired tests of the test loss among the BEST methods, and of each with the best baseline.

    `rows` are trials of one data set and target; which are the best is asked on validation, among
    `living`. Columns as of `statistics.compare`, where the best baseline is always b; Holm's
    correction always counts FAMILY tests.
    """
    known = living(rows)
    first, rival = known[:BEST], best_baseline(known)
    pairs = [(b, a) if a == rival else (a, b) for a, b in combinations(first, 2)]
    pairs += [(name, rival) for name in first if rival and rival not in first]
    samples = statistics.samples_of(rows, "method", "test_l1", "trial")
    found = [{"a": a, "b": b} | statistics.paired(samples[a], samples[b]) for a, b in pairs]
    table = pd.DataFrame(found, columns=statistics.COLUMNS)
    return table.assign(p_holm=statistics.holm(table["p"].astype(float), FAMILY))


def at_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """`among_best` at each of SHARES of both sizes and each data set: named in the first columns.

    `table` is of `trials`; a size that no two living methods reach has no row.
    """
    found = [
        among_best(rows).assign(dataset=dataset, size=size, share=share)
        for size, shares in SHARES.items()
        for share in shares
        for dataset, rows in at_size(table, size, share).groupby("dataset", sort=False)
    ]
    columns = ["dataset", "size", "share", *statistics.COLUMNS, "p_holm"]
    return pd.concat([pd.DataFrame(columns=columns), *(f for f in found if len(f))])[columns]


def answer(rows: pd.DataFrame) -> Answer:
    """What `among_best` says of the best methods and the best baseline, in a sentence."""
    known = living(rows)
    if not known:
        return Answer("No method beats the constant predictor.")
    tests, rival = among_best(rows), best_baseline(known)
    sides = tests[tests.b == rival]
    if sides.empty:
        means = rows[rows.method.isin(known)].groupby("method").test_l1.mean()
        return Answer(f"{lowest(means.to_dict(), 'mean test loss')}.")
    return against(sides, "test loss", "method", family=FAMILY)
