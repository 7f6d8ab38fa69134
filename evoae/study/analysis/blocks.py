"""Blocks: data and training that all settings share, and what differs between blocks.

A block is a trial of a run without `data_seed`: its number keys its data and its training streams,
so that no two blocks share either. A setting has one value per block (a mean over its runs there),
and every interval is Student's over blocks. Differences are tested against 0, and, so that nothing
found can be told from nothing there, against a margin on both sides (TOST, Schuirmann 1987).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from evoae.study.analysis import statistics
from evoae.study.analysis.statistics import CONFIDENCE, LEVEL
from evoae.study.runs.study import Study

PLANNED = 10  # blocks of every design, fixed before its first run; with fewer nothing is tested
MARGIN = 0.01  # of L1; a smaller difference counts as none
TUNING = range(1000, 1001)  # the trial on which rates are chosen: no block has its data
SEED = 1
SEEDS = ["data_seed", "training_seed"]
BLOCK = SEEDS[0]
OUTCOMES = {"train_l1": "mean over cells", "test_l1": "best cell"}
LOSSES = ["train_l1", "validation_l1", "test_l1", "constant_train_l1", "constant_test_l1"]


@dataclass(frozen=True)
class Effect:
    """A difference over n blocks: its mean, 95 % interval, and two p-values.

    `p`: that it is 0; `p_equal`: that it is as large as the margin or larger, on either side. nan
    with fewer than two blocks, or where a run diverged.
    """

    estimate: float
    low: float
    high: float
    p: float
    p_equal: float
    n: int


def effect(differences: ArrayLike, margin: float = MARGIN) -> Effect:
    """Student's interval and tests of differences [n], one for each block."""
    values = np.asarray(differences, dtype=float).ravel()
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    if n < 2 or not np.isfinite(values).all():
        return Effect(mean, np.nan, np.nan, np.nan, np.nan, n)
    error = max(float(values.std(ddof=1)) / np.sqrt(n), np.finfo(float).tiny)
    half = special.stdtrit(n - 1, (1 + CONFIDENCE) / 2) * error
    p = 2 * special.stdtr(n - 1, -abs(mean) / error)
    p_equal = special.stdtr(n - 1, (abs(mean) - margin) / error)
    return Effect(mean, mean - half, mean + half, float(p), float(p_equal), n)


def means(table: pd.DataFrame, value: str, **levels: Any) -> pd.Series:
    """The mean of `value` in each block, of the rows with these levels.

    A null is a run that diverged: infinite. Blocks without such rows are left out.
    """
    for name, level in levels.items():
        table = table[table[name] == level]
    return table[value].fillna(np.inf).groupby(table[BLOCK]).mean()


def compared(
    rows: Iterable[tuple[dict[str, Any], pd.Series]],
    margin: float = MARGIN,
    tested: Sequence[bool] | None = None,
    family: int = 0,
) -> pd.DataFrame:
    """Effects as a table: what each is of, the columns of `Effect`, Holm's p, and what it `says`.

    The rows are the family of both of Holm's corrections, those without a p included, or `family`
    rows if these are more. Rows that are not `tested` are shown and say "nothing learnt".
    """
    found = [about | asdict(effect(gap.dropna(), margin)) for about, gap in rows]
    if not found:
        return pd.DataFrame(columns=[*Effect.__annotations__, "p_holm", "p_equal_holm", "says"])
    table = pd.DataFrame(found)
    enough = table.n >= PLANNED  # an earlier look would be one more test
    known = pd.Series(True if tested is None else list(tested), table.index)
    for name in ("p", "p_equal"):
        table[f"{name}_holm"] = statistics.holm(table[name].where(enough & known), family)
    words = pd.Series([says(row) for row in table.itertuples()], table.index)
    return table.assign(says=words.mask(enough & ~known, "nothing learnt"))


def says(row: Any) -> str:
    """What a row of `compared` allows to say of its first side."""
    if row.n < PLANNED:
        return "too few blocks"
    if np.isnan(row.p_holm):
        return "diverged"
    equal = "no difference as large as the margin" if row.p_equal_holm < LEVEL else ""
    if row.p_holm < LEVEL:
        side = "lower" if row.estimate < 0 else "higher"
        return f"{side}, by less than the margin" if equal else side
    return equal or "open"


def table_of(study: Study, factors: list[str]) -> pd.DataFrame:
    """A row per run and block: the factors of its design, the seeds of the block, the losses.

    `train_l1` is the mean over cells; `validation_l1` and `test_l1` are of the best cell, chosen
    on validation.
    """
    results = study.results
    seeds = {"data_seed": results.trial, "training_seed": results.trial}
    own = pd.DataFrame.from_dict(dict(study.factors), orient="index")  # before settings of the name
    named = {name: results.label.map(own[name]) for name in own.columns.intersection(factors)}
    return results.assign(**seeds, **named)[["label", *factors, *seeds, *LOSSES]]


def rates_by(table: pd.DataFrame, arms: list[str]) -> pd.Series:
    """The learning rate of the lowest mean validation loss in each arm, by the arm's levels."""
    mean = table.assign(validation_l1=table.validation_l1.fillna(np.inf))
    mean = mean.groupby([*arms, "learning_rate"], sort=False).validation_l1.mean().reset_index()
    best = mean.loc[mean.groupby(arms, sort=False).validation_l1.idxmin()]
    return best.set_index(arms).learning_rate
