"""Where cells lie, who their neighbours are, and which may be visited together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np


def ring(cells: int, radius: int) -> np.ndarray:
    """Each cell and its `radius` neighbours on each side, [cells, 2 * radius + 1].

    One or two cells, the smallest populations of the prior work, hold each cell once.
    """
    offsets = [0] + [side * step for step in range(1, radius + 1) for side in (-1, 1)]
    offsets = offsets[: ring_size(cells, radius)]
    return (np.arange(cells)[:, None] + np.array(offsets)[None]) % cells


def ring_size(cells: int, radius: int) -> int:
    """Cells in a sub-population of the ring. Raises ValueError if the ring does not hold them."""
    if 2 * radius + 1 > max(cells, 3):
        raise ValueError(
            f"radius={radius} gives {2 * radius} neighbours, more than a ring of cells={cells} "
            f"holds; the radius must be at most {max(1, (cells - 1) // 2)}"
        )
    return min(2 * radius + 1, cells)


def torus(cells: int, radius: int) -> np.ndarray:
    """Cells on the squarest 2-D grid whose edges meet; neighbours within `radius` steps.

    Radius 1 is the five-cell cross.
    """
    if torus_size(cells, radius) == 1:
        return np.arange(cells)[:, None]
    rows, columns = sides(cells)
    reach = range(-radius, radius + 1)
    offsets = [(dy, dx) for dy in reach for dx in reach if abs(dy) + abs(dx) <= radius]
    offsets.sort(key=lambda o: (abs(o[0]) + abs(o[1]), o))
    y, x = np.divmod(np.arange(cells), columns)
    return np.stack([(y + dy) % rows * columns + (x + dx) % columns for dy, dx in offsets], axis=1)


def torus_size(cells: int, radius: int) -> int:
    """Cells in a sub-population of the torus. Raises ValueError if a side is shorter than
    2 * radius + 1, where a cell would be its own neighbour twice."""
    rows, columns = sides(cells)
    if cells > 1 and rows < 2 * radius + 1:
        raise ValueError(
            f"a torus of cells={cells} has sides {rows} x {columns}, too short for "
            f"radius={radius}; each side must be at least {2 * radius + 1}"
        )
    return 1 if cells == 1 else 2 * radius * (radius + 1) + 1


def sides(cells: int) -> tuple[int, int]:
    """Rows and columns of the squarest grid, the shorter side first."""
    rows = max(side for side in range(1, math.isqrt(cells) + 1) if cells % side == 0)
    return rows, cells // rows


def complete(cells: int, radius: int) -> np.ndarray:
    """Every cell sees every cell, itself first, [cells, cells]; the radius has no meaning."""
    return (np.arange(cells)[:, None] + np.arange(cells)[None]) % cells


def isolated(cells: int, radius: int) -> np.ndarray:
    """Every cell sees itself only, [cells, 1]: as many trainings alone, whatever the radius."""
    return np.arange(cells)[:, None]


TOPOLOGIES: dict[str, Callable[[int, int], np.ndarray]] = {
    "ring": ring,
    "torus": torus,
    "complete": complete,
    "isolated": isolated,
}
# The size of their sub-populations, known without making them.
SIZES: dict[str, Callable[[int, int], int]] = {
    "ring": ring_size,
    "torus": torus_size,
    "complete": lambda cells, radius: cells,
    "isolated": lambda cells, radius: 1,
}


def subpopulation(topology: str, cells: int, radius: int) -> int:
    """Number of cells in a sub-population.

    Raises ValueError for an unknown topology or a radius that the cells cannot hold.
    """
    if topology not in TOPOLOGIES:
        raise ValueError(f"unknown topology {topology!r}; choose one of {', '.join(TOPOLOGIES)}")
    if radius < 1 and cells > 1 and topology not in ("complete", "isolated"):
        raise ValueError(
            f"radius={radius} with cells={cells}: without neighbours nothing coevolves; "
            "the radius must be at least 1"
        )
    return SIZES[topology](cells, radius)


def neighbourhood(topology: str, cells: int, radius: int) -> np.ndarray:
    """The sub-population of every cell as indices, [cells, n], the cell itself first.

    Raises ValueError as `subpopulation`.
    """
    subpopulation(topology, cells, radius)
    return TOPOLOGIES[topology](cells, radius)


def waves(
    orders: np.ndarray, neighbours: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Group asynchronous visits into waves that give the same result as one visit at a time.

    `orders` [trials, cells] is the order of visits in each trial, `neighbours` [cells, n]. A cell's
    wave is the first after those of all its neighbours that come earlier in the order, so it sees
    their new centres, and the old centres of those that come later. Without `neighbours` all cells
    form one wave (synchronous update). Yields (trial, cell) index arrays, trial by trial.
    """
    trials, cells = orders.shape
    wave = np.full((trials, cells), -1)
    if neighbours is None:
        wave[:] = 0
    else:
        for position in range(cells):
            for trial in range(trials):
                cell = orders[trial, position]
                wave[trial, cell] = wave[trial, neighbours[cell]].max() + 1
    for number in range(wave.max() + 1):
        of_trials, of_cells = np.nonzero(wave == number)
        yield of_trials, of_cells
