"""Numbers and tables as the page of results writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from evoae.study.analysis.sentences import decimals, interval


def number(value: float, sign: bool = False) -> str:
    """Three decimals, without a minus before zero; a dash where there is no number."""
    return "–" if pd.isna(value) else decimals(round(value, 9), sign)


def with_interval(value: float, low: float, high: float, sign: bool = False) -> str:
    """A number and its 95 % interval, if there is one."""
    return number(value, sign) + interval(round(low, 9), round(high, 9), sign)


def estimates(found: pd.DataFrame, value: str = "estimate", sign: bool = True) -> list[str]:
    """Of each row of a frame a number and its interval, low to high."""
    rows = zip(found[value], found["low"], found["high"], strict=True)
    return [with_interval(*row, sign) for row in rows]


def tested(tests: pd.DataFrame) -> list[str]:
    """The shift and Holm's p of a test, the only row of these; dashes for none."""
    return [*estimates(tests, "shift"), *tests.p_holm.map(probability)] or ["–", "–"]


def by_place(found: pd.DataFrame, keys: list[str], places: Iterable[str]) -> pd.DataFrame:
    """The mean over cells and the best cell: a row per combination of keys, a column per place."""
    means = found.groupby([*keys, "place"])[["train_l1", "test_l1"]].mean().map(number)
    words = (means.train_l1 + " / " + means.test_l1).unstack().reindex(columns=list(places))
    return words.fillna("–").reset_index()


def probability(p: float) -> str:
    """A p-value."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else decimals(p)


def share(value: float) -> str:
    """A share as a percentage: "94 %"."""
    return f"{100 * value:.4g} %"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, "" of no rows; columns of words are aligned to the left, others right.

    Cells that are floats become a `number`.
    """
    lines = [[number(cell) if isinstance(cell, float) else str(cell) for cell in r] for r in rows]
    if not lines:
        return ""
    words = [any(c.isalpha() for c in "".join(column)) for column in zip(*lines, strict=True)]
    rule = [":---" if word else "---:" for word in words]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def by_method(cells: Mapping[tuple[str, float, str], str], methods: Iterable[str]) -> str:
    """A table of cells by data set, target and method: a column per method, a dash for none."""
    names = list(methods)
    rows = [
        [dataset, share(target), *(cells.get((dataset, target, name), "–") for name in names)]
        for dataset, target in sorted({key[:2] for key in cells})
    ]
    return table(["data", "zeros", *(f"`{name}`" for name in names)], rows)


def of_frame(found: pd.DataFrame) -> str:
    """The `table` of a frame."""
    return table(list(found), found.itertuples(index=False, name=None))
