"""From values as a file holds them to [0, 1], and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Scaling:
    """x becomes (x - minimum) / (maximum - minimum).

    `minimum`, `maximum`: float64 [1] if all columns share them, or [D], one for each column. Where
    they are equal, x becomes x - minimum: a constant column becomes 0, and 0 becomes the constant.
    """

    minimum: np.ndarray
    maximum: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """maximum - minimum, [1] or [D]."""
        return self.maximum - self.minimum

    @property
    def divisor(self) -> np.ndarray:
        """The width, and 1 where that is 0: [1] or [D]."""
        return np.where(self.width == 0, 1.0, self.width)

    @property
    def single(self) -> bool:
        """Whether float32 holds the file's values well: to 1e-4 of what they range over."""
        largest = np.maximum(np.abs(self.minimum), np.abs(self.maximum))
        limits = np.finfo(np.float32)
        within = (largest <= limits.max) & (self.divisor >= limits.tiny)
        return bool((within & (largest * 2.0**-24 <= 1e-4 * self.divisor)).all())

    @property
    def words(self) -> str:
        """What is done to the values."""
        how = "each column by its own minimum and maximum"
        return f"scaled to 0 to 1, {'all columns together' if len(self.minimum) == 1 else how}"

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n, D] as a network sees them: float32."""
        values = (rows.astype(np.float64) - self.minimum) / self.divisor
        return np.ascontiguousarray(values, dtype=np.float32)

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Scaled rows [n, D] in the units of the file: float64."""
        return rows.astype(np.float64) * self.width + self.minimum

    def as_json(self) -> dict[str, list[float]]:
        """Both bounds as lists of 1 or D numbers."""
        return {"minimum": self.minimum.tolist(), "maximum": self.maximum.tolist()}

    @classmethod
    def from_json(cls, bounds: Mapping[str, Any]) -> Scaling:
        """What `as_json` wrote. Raises KeyError or ValueError for anything else."""
        return cls(*(np.array(bounds[k], dtype=np.float64) for k in ("minimum", "maximum")))
