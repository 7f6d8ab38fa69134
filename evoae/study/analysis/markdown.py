"""Numbers and tables as the page of results writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from evoae.study.analysis.sentences import decimals, interval


def number(value: float, sign: bool = False) -> str:
    """Three decimals, without a minus before zero; a dash where there is no number."""
    return "–" if pd.isna(value) else decimals(round(value, 9), sign)


def with_interval(value: float, low: float, high: float, sign: bool = False) -> str:
    """A number and its 95 % interval, if there is one."""
    return number(value, sign) + interval(round(low, 9), round(high, 9), sign)


def share(value: float) -> str:
    """A share as a percentage: "94 %"."""
    return f"{100 * value:.4g} %"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, "" of no rows; columns of words are aligned to the left, others right."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        return ""
    words = [any(c.isalpha() for c in "".join(column)) for column in zip(*lines, strict=True)]
    rule = [":---" if word else "---:" for word in words]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))
