"""Rows that were read, checked and on their way to float32 in [0, 1]."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from evoae.data import tables
from evoae.data.content import Content, check_array
from evoae.data.scaling import Scaling
from evoae.data.splits import BLOCK, picture_shape
from evoae.messages import Refused, short
from evoae.resources import require

TOLERANCE = 1e-6  # what rounding may exceed [0, 1] by: eight steps of float32 at 1


@dataclass(frozen=True)
class Ready:
    """A fixed dataset's rows, checked, [rows, D] each, and how they become float32 in [0, 1]."""

    content: Content
    scaling: Scaling | None
    clipped: bool

    @property
    def size(self) -> int:
        """Bytes of the rows as float32."""
        return 4 * sum(rows.size for rows in self.content.parts.values())

    def convert(self, rows: np.ndarray) -> np.ndarray:
        """Some of the rows as float32 in [0, 1]."""
        if self.scaling is not None:
            return self.scaling.scaled(rows)
        # there is one zero, whatever its sign
        values = np.add(rows, 0.0, dtype=np.float32, casting="unsafe", order="C")
        return values.clip(0, 1) if self.clipped else values

    def blocks(self, rows: np.ndarray, index: np.ndarray) -> Iterator[np.ndarray]:
        """The rows at an index, converted, some after the other."""
        for start in range(0, len(index), BLOCK):
            yield self.convert(rows[index[start : start + BLOCK]])

    def taken(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The rows at an index, converted, with no other copy of them all."""
        found = np.empty((len(index), rows.shape[1]), np.float32)
        for number, block in enumerate(self.blocks(rows, index)):
            found[number * BLOCK :][: len(block)] = block
        return found

    def digest(self) -> str:
        """What tells these rows, their splits and their scaling from others."""
        scaling = self.scaling and self.scaling.as_json()
        found = hashlib.sha256(repr((scaling, self.content.interactions)).encode())
        for name, rows in sorted(self.content.parts.items()):
            alone = len(self.content.parts) == 1
            found.update(repr(("data" if alone else name, rows.shape)).encode())
            for start in range(0, len(rows), BLOCK):
                found.update(self.convert(rows[start : start + BLOCK]).data)
        return found.hexdigest()


def validated(content: Content, scale: bool | str) -> Ready:
    """The rows of one array or of several parts. Raises ValueError for what will not do."""
    parts = content.parts
    prefixes = {name: f"{name} " if len(parts) > 1 else "" for name in parts}
    for name, array in parts.items():
        check_array(array, prefixes[name])
    shapes = {name: array.shape[1:] for name, array in parts.items()}
    if len(set(shapes.values())) > 1:
        raise Refused(f"splits differ in the shape of a row: {shapes}")
    if len(parts) == 1 and next(iter(parts.values())).shape[0] < 3:
        raise Refused("has fewer than 3 rows; training, validation and test need at least one each")
    if len(parts) == 2 and len(parts["train"]) < 2:
        raise Refused("train has fewer than 2 rows; validation, which is drawn from it, needs one")
    shape = next(iter(shapes.values()))
    # beside what was read: the rows ready, split, and what checking and scaling need on the way
    count = sum(math.prod(array.shape) for array in parts.values())
    dense = {name: isinstance(array, np.ndarray) for name, array in parts.items()}
    require(count * (25 if scale else 9) + (0 if all(dense.values()) else count * 8), "its values")
    flat = {
        name: (array if dense[name] else array.toarray()).reshape(array.shape[0], -1)
        for name, array in parts.items()
    }
    ready = replace(content, parts=flat, image_shape=picture_shape(shape))
    clipped = [_check_values(rows, prefixes[n], scale, ready) for n, rows in flat.items()]
    # of interactions nothing is to be scaled: they are 0 or 1
    scaling = _scaling(flat, scale, content) if scale and not content.interactions else None
    return Ready(ready, scaling, any(clipped))


def _check_values(rows: np.ndarray, prefix: str, scale: bool | str, content: Content) -> bool:
    """Whether rounding has put values beyond [0, 1]. Raises ValueError for any farther away."""
    if not scale and rows.min() >= 0 and rows.max() <= 1:
        return False
    finite = np.isfinite(rows)
    within = finite if scale or not finite.all() else (rows >= -TOLERANCE) & (rows <= 1 + TOLERANCE)
    if within.all():
        return not scale
    row, column = divmod(int(within.argmin()), rows.shape[1])
    where = f"row {row}"
    if content.columns:
        where += f", column {short(content.columns[column])}"
    at = "" if content.columns or content.image_shape else f" (column {column})"
    hint = (content.doubt if row == 0 else "") or _hint(content)
    rule = (
        f"values must be finite; fill it in{at}, or remove the row"
        if within is finite
        else "values must lie in [0, 1] (pass scale=True to scale them by minimum and maximum, or "
        "scale=columns to scale each column by its own)"
    )
    raise Refused(f"{prefix}{where} holds {rows[row, column]}; {rule}{hint}")


def _hint(content: Content) -> str:
    """How to make it a table of interactions, if one of its columns suggests that it is one."""
    some = [name for name in content.columns or () if tables.plain(name) in tables.PEOPLE]
    if not some:
        return ""
    return (
        f"; if this is a table of interactions and {some[0]} identifies users or items, call the "
        "columns user and item"
    )


def _scaling(parts: dict[str, np.ndarray], scale: bool | str, content: Content) -> Scaling:
    """The minimum and maximum over all splits together, of all values or of each column."""
    axis = 0 if scale == "columns" else None
    bounds = [
        (rows.min(axis=axis).astype(np.float64), rows.max(axis=axis).astype(np.float64))
        for rows in parts.values()
    ]
    low = np.atleast_1d(np.min([low for low, _ in bounds], axis=0))
    high = np.atleast_1d(np.max([high for _, high in bounds], axis=0))
    with np.errstate(over="ignore"):
        span = high - low
    bad = ~np.isfinite(span) if scale == "columns" else (span == 0) | ~np.isfinite(span)
    if bad.any():
        column = int(bad.argmax())
        name = content.columns[column] if content.columns else column
        where = f"column {short(name)} " if scale == "columns" else ""
        raise Refused(f"{where}cannot be scaled: maximum - minimum is {span[column]}")
    return Scaling(low, high)
