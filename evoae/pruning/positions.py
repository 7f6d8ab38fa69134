"""Which entries of a matrix random pruning takes: by themselves, evenly, or in whole lines.

Every function takes `count` entries of a matrix of a given shape (out, in) and returns them as a
boolean array; they differ in nothing but how the entries are spread over rows and columns.
"""

from __future__ import annotations

import numpy as np

Shape = tuple[int, int]


def independent(shape: Shape, count: int, rng: np.random.Generator) -> np.ndarray:
    """Entries drawn uniformly without replacement."""
    taken = np.zeros(shape[0] * shape[1], dtype=bool)
    taken[rng.choice(taken.size, count, replace=False, shuffle=False)] = True
    return taken.reshape(shape)


def even(shape: Shape, count: int, rng: np.random.Generator) -> np.ndarray:
    """As many entries in every row, and in every column, or one more or less; at random otherwise.

    Each row takes its entries in the columns that still lack most (as Gale and Ryser build a matrix
    of given sums); ties are drawn.
    """
    if shape[0] > shape[1]:  # the shorter side has fewer steps
        return even(shape[::-1], count, rng).T
    rows, columns = (quotas(size, count, rng) for size in shape)
    taken = np.zeros(shape, dtype=bool)
    for row in rng.permutation(shape[0]):
        lacking = np.lexsort((rng.random(shape[1]), -columns))[: rows[row]]
        taken[row, lacking] = True
        columns[lacking] -= 1
    return taken


def quotas(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` shared out among so many lines as evenly as can be, [size]; who has more is drawn."""
    found = np.full(size, count // size)
    found[rng.choice(size, count % size, replace=False)] += 1
    return found


def units(shape: Shape, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole rows, drawn uniformly; what is left over falls into one more row."""
    whole, rest = divmod(count, shape[1])
    order = rng.permutation(shape[0])
    taken = np.zeros(shape, dtype=bool)
    taken[order[:whole]] = True
    if rest:
        taken[order[whole], rng.choice(shape[1], rest, replace=False)] = True
    return taken


def inputs(shape: Shape, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole columns, drawn uniformly; what is left over falls into one more column."""
    return units(shape[::-1], count, rng).T


POSITIONS = {"independent": independent, "even": even, "units": units, "inputs": inputs}


def moves(taken: np.ndarray, axis: int) -> float:
    """The least share of the entries [..., out, in] that must change their line to be even, [...].

    Lines are rows with axis 0 and columns with axis 1. Even means that the numbers of two lines
    differ by one at most. nan where nothing is taken.
    """
    counts = np.sort(taken.sum(-1 if axis == 0 else -2), axis=-1)
    total = counts.sum(-1, keepdims=True)
    size = counts.shape[-1]
    wanted = total // size + (np.arange(size) >= size - total % size)  # the fullest keep one more
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(counts - wanted, 0).sum(-1) / total[..., 0]
