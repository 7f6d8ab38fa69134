"""Rows to train on, in three splits, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from evoae.data.content import SPLITS
from evoae.data.scaling import Scaling

BLOCK = 1024  # rows that are taken at once


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """How a row of this shape is drawn: (height, width), beside 3 or 4 colours first or last; or
    None, if it is no picture."""
    sides = tuple(size for size in shape if size != 1) if len(shape) == 3 else shape
    coloured = len(sides) == 3 and (sides[0] in (3, 4) or sides[2] in (3, 4))
    return sides if len(sides) == 2 or coloured else None


def pictures(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Rows [n, D] as pictures of an `image_shape`: [n, height, width], colours last."""
    found = rows.reshape(-1, *shape)
    # of 3 x 2 x 4 the 3 are colours: four are rare
    first = len(shape) == 3 and (shape[2] not in (3, 4) or (shape[0], shape[2]) == (3, 4))
    return np.moveaxis(found, 1, 3) if first else found


class Size(NamedTuple):
    """Rows of train and of all splits, and D, the columns; whether each trial has data of its own.

    `held_out`: whether rows of validation and test exist a second time, divided in two.
    """

    train: int
    rows: int
    dimension: int
    drawn: bool = False
    held_out: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows to learn from. Tensors may be shared between trials: read them, never write to them.

    `train`, `validation`, `test`: float32 [rows, D], contiguous, values in [0, 1].
    `noise_floor`: L1 of a perfect decoder of the centroids, known for binary-clusters only.
    `image_shape`: (height, width) if a row is an image; with its three colours, first or last.
    `held_out`: for interactions, under "validation" and "test": (known, hidden), float32 [rows, D]
    each, which add up to that split: a recommender sees `known` and should recommend `hidden`.
    `scaling`: how the file's values became these, if they were scaled.
    """

    name: str
    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    noise_floor: float | None = None
    image_shape: tuple[int, ...] | None = None
    held_out: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = None
    scaling: Scaling | None = None

    @property
    def dimension(self) -> int:
        """D, the number of columns."""
        return self.train.shape[1]

    def raw(self, split: str) -> np.ndarray:
        """The rows of a split in the units that they came in, [rows, D]."""
        rows = getattr(self, split).numpy()
        return rows if self.scaling is None else self.scaling.raw(rows)

    @cached_property
    def median(self) -> torch.Tensor:
        """Of each column of train, [D]; the lower one of two."""
        # one column at a time, for PyTorch copies what it sorts; and nothing small is allocated
        # between these copies, or their memory cannot be used again
        found = torch.empty_like(self.train[0])
        for number, column in enumerate(self.train.unbind(1)):
            found[number] = column.median()
        return found

    def constant_loss(self, loss: str = "l1", split: str = "train") -> float:
        """Mean loss on `split` of the best constant per column, fitted on train.

        The constant is the median for "l1" and the mean for "bce"; as in PyTorch, logarithms are
        held at -100 or above, so that a column unseen in train costs 100 and not infinity.
        ValueError for another loss or split.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        rows = getattr(self, split)
        if loss == "l1":
            some = rows.split(BLOCK // 8)  # which stay in a near cache
            blocks = ((block - self.median).abs_().sum(dtype=torch.float64) for block in some)
            return (sum(blocks) / rows.numel()).item()
        if loss == "bce":
            mean = self.train.mean(dim=0, dtype=torch.float64).float()
            return torch.nn.functional.binary_cross_entropy(mean.expand_as(rows), rows).item()
        raise ValueError(f"loss must be one of l1, bce, not {loss!r}")
