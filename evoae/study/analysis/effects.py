"""What each of several factors does: a mixed model, permutations within blocks, Shapley values.

A table has a row per trial, columns for the factors, one for the loss, and one for the block:
trials of a block share their data (a data seed), so that only differences within a block count.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import statsmodels.formula.api as formulas
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from evoae.study.analysis.statistics import CONFIDENCE, mean_interval, require_columns


def diverged_as_worst(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """The table, its trials that diverged (null) as bad as the worst of the others."""
    return table.assign(**{value: table[value].fillna(table[value].max())})


def mixed_model(
    table: pd.DataFrame, factors: Sequence[str], value: str, block: str
) -> pd.DataFrame:
    """A linear model of `value` with all interactions of the factors, and an intercept per block.

    Factors are coded by the sum (each level against the mean of all), so that a main effect is the
    one averaged over the others. Rows: effect, estimate, low, high (95 %), p; the last, "block",
    has the standard deviation of the blocks' intercepts. Raises ValueError for a missing column or
    fewer than two blocks.
    """
    require_columns(table, [*factors, value, block])
    if table[block].nunique() < 2:
        raise ValueError(f"{block} has one value; a random intercept needs at least two")
    named = {name: f"factor{i}" for i, name in enumerate(factors)}
    rows = diverged_as_worst(table, value).rename(
        columns=named | {value: "value_", block: "block_"}
    )
    terms = " * ".join(f"C({column}, Sum)" for column in named.values())
    model = formulas.mixedlm(f"value_ ~ {terms}", rows, groups="block_")
    with warnings.catch_warnings():  # blocks that are alike: their variance is at its bound, 0
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = model.fit(reml=True)
    bounds = fitted.conf_int(1 - CONFIDENCE)
    found = [
        (effect_name(term, named), fitted.params[term], *bounds.loc[term], fitted.pvalues[term])
        for term in fitted.fe_params.index
    ]
    spread = float(np.sqrt(fitted.cov_re.iloc[0, 0]))
    found.append(("block", spread, *[float("nan")] * 3))
    return pd.DataFrame(found, columns=["effect", "estimate", "low", "high", "p"])


def effect_name(term: str, named: Mapping[str, str]) -> str:
    """A term of the model in the words of the table: "rate=constant x ring=True"."""
    words = term.replace(":", " x ").replace("Intercept", "mean of all")
    for name, column in named.items():
        words = words.replace(f"C({column}, Sum)", name)
    return words.replace("[S.", "=").replace("]", "")


def permutation_test(
    table: pd.DataFrame,
    factor: str,
    value: str,
    within: Sequence[str],
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> float:
    """p that the factor changes nothing: its labels are exchanged within blocks.

    A block is a combination of `within` (the data seed, and the other factors). Trials of a block
    and a level are not independent: their mean counts, once. The statistic is the sum of squares
    between the levels' means of what is left when each block's mean is taken off. The p counts the
    labelling that was seen, so it is never 0 (Phipson and Smyth 2010).
    """
    require_columns(table, [factor, value, *within])
    table = diverged_as_worst(table, value)
    table = table.groupby([*within, factor], sort=False)[value].mean().reset_index()
    blocks = table.groupby(list(within), sort=False).ngroup().to_numpy()
    levels = pd.get_dummies(table[factor]).to_numpy(float)
    centred = table[value] - table.groupby(list(within))[value].transform("mean")
    left = centred.to_numpy(float)
    order, sizes = np.argsort(blocks, kind="stable"), levels.sum(0)
    left, levels, blocks = left[order], levels[order], blocks[order]

    def between(values: np.ndarray) -> np.ndarray:
        return ((values @ levels) ** 2 / sizes).sum(-1)

    # a block's number and a draw below 1: sorted, values stay in their blocks
    draws = np.random.default_rng(seed).random((permutations, len(left)))
    shuffled = left[np.argsort(blocks + draws, axis=1)]
    as_large = np.count_nonzero(between(shuffled) >= between(left) * (1 - 1e-12))
    return (1 + as_large) / (1 + permutations)


def shapley(
    table: pd.DataFrame, factors: Mapping[str, tuple[object, object]], value: str, block: str
) -> pd.DataFrame:
    """What each factor has of the gap between all factors off and all on: exact Shapley values.

    `factors` maps a column to its (off, on) values; all corners (16 of four factors) must be in
    every block. A factor's value is the mean change of the corner means as it is turned on, over
    all orders of turning them on; the values sum to the gap. Rows: factor, value, low, high, and
    "whole gap" last. The intervals are Student's over blocks. Raises ValueError for a corner that a
    block lacks, or a single block.
    """
    names = list(factors)
    require_columns(table, [*names, value, block])
    table = diverged_as_worst(table, value)
    corners = list(itertools.product((0, 1), repeat=len(names)))
    columns = {}
    for corner in corners:
        wanted = {name: factors[name][bit] for name, bit in zip(names, corner, strict=True)}
        rows = table[np.logical_and.reduce([table[k] == v for k, v in wanted.items()])]
        columns[corner] = rows.groupby(block)[value].mean()
    means = pd.DataFrame(columns).reindex(table[block].unique())
    if means.isna().any(axis=None) or len(means) < 2:
        raise ValueError(
            f"at least two {block}s are needed, each with all {len(corners)} corners of "
            f"{', '.join(names)}"
        )
    parts = np.array([shares(dict(zip(corners, row, strict=True))) for row in means.to_numpy()])
    parts = np.column_stack([parts, parts.sum(1)])  # a row per block
    low, high = zip(*(mean_interval(part, least=2) for part in parts.T), strict=True)
    found = {"factor": [*names, "whole gap"], "value": parts.mean(0), "low": low, "high": high}
    return pd.DataFrame(found)


def shares(worth: Mapping[tuple[int, ...], float]) -> list[float]:
    """Shapley value of each player of a game, from the worth of every coalition (0s and 1s)."""
    players = len(next(iter(worth)))
    values = []
    for player in range(players):
        value = 0.0
        for corner, without in worth.items():
            if not corner[player]:
                joined = (*corner[:player], 1, *corner[player + 1 :])
                weight = 1 / (players * math.comb(players - 1, sum(corner)))
                value += weight * (worth[joined] - without)
        values.append(value)
    return values
