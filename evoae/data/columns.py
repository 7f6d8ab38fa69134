"""Columns that are probably no measurements: row numbers, identifiers, labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from evoae.data.content import Content, leaving_out
from evoae.data.tables import LABELS, evenly_spaced, plain
from evoae.messages import short, shortened

ROWS = 10  # fewer are too few to judge by


def doubtful(content: Content) -> Iterator[str]:
    """Sentences about columns that a user may want to leave out."""
    if content.interactions or content.image_shape or len(content.parts) > 1:
        return
    (rows,) = content.parts.values()
    names = content.columns or [str(column) for column in range(rows.shape[1])]
    known = {plain(name) for name in names}
    numbers = [names[column] for column in counting(rows)]
    others = [
        name
        for name in content.columns or ()
        if name not in numbers
        and (plain(name) in LABELS or is_id(name) or (plain(name) == "y" and "x" not in known))
    ]
    if len(numbers) < len(names):  # else the whole table is like that
        yield from sentence(numbers, "counts", "count", "up from row to row, as row numbers do")
    if len(others) < len(names):
        yield from sentence(others, "is", "are", "trained on like all others")


def sentence(names: Sequence[str], one: str, many: str, what: str) -> Iterator[str]:
    """A sentence about some columns, if there are any, that says how to leave them out."""
    held = shortened(", ".join(map(short, names)))
    start, unless = f"columns {held} {many}", "they are no measurements, leave them"
    if len(names) == 1:
        start, unless = f"column {held} {one}", "it is no measurement, leave it"
    if names:
        yield f"{start} {what}; if {unless} out: {leaving_out(names)}"


def is_id(name: str) -> bool:
    """Whether a name ends in "id" as a word of its own: patient_id, userId, visitID."""
    return name.endswith(("_id", "_ID", " id", " ID", "-id", "-ID", "Id", "ID")) and len(name) > 2


def counting(rows: np.ndarray) -> list[int]:
    """Columns of [n, D] that rise by equal steps, or hold n whole numbers in a row in any order."""
    count = len(rows)
    if count < ROWS:
        return []
    found = []
    first = rows[:ROWS].astype(np.float64)
    low, high = rows.min(0).astype(np.float64), rows.max(0).astype(np.float64)
    for column in np.flatnonzero((high - low == count - 1) | _rise_evenly(first)):
        values = rows[:, column].astype(np.float64)
        in_a_row = (np.sort(values) == np.arange(count) + low[column]).all()
        if in_a_row or _rise_evenly(values[:, None])[0]:
            found.append(int(column))
    return found


def _rise_evenly(rows: np.ndarray) -> np.ndarray:
    """Which columns of [n, D] rise by the same step from row to row, booleans [D]."""
    return evenly_spaced(rows.T) & (rows[-1] > rows[0])
