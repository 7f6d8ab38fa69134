"""Neighbourhoods worked out by hand; waves keep the order of visits that depend on each other."""

from __future__ import annotations

import re

import numpy as np
import pytest

from evoae.topology import TOPOLOGIES, neighbourhood, subpopulation, waves


@pytest.mark.parametrize(
    ("topology", "cells", "radius", "rows"),
    [
        ("ring", 5, 1, [[0, 4, 1], [1, 0, 2], [2, 1, 3], [3, 2, 4], [4, 3, 0]]),
        ("ring", 1, 1, [[0]]),  # the smallest hold each cell once
        ("ring", 2, 1, [[0, 1], [1, 0]]),
        ("ring", 3, 1, [[0, 2, 1], [1, 0, 2], [2, 1, 0]]),
        ("ring", 7, 2, {0: [0, 6, 1, 5, 2], 6: [6, 5, 0, 4, 1]}),
        ("complete", 3, 1, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]),
        ("torus", 1, 1, [[0]]),
        # the centre: above, left, right, below; a corner: edges meet
        ("torus", 9, 1, {4: [4, 1, 3, 5, 7], 0: [0, 6, 2, 1, 3]}),
        ("torus", 12, 1, {0: [0, 8, 3, 1, 4]}),  # the squarest grid: 3 rows of 4
        ("torus", 25, 2, {12: [12, 7, 11, 13, 17, 2, 6, 8, 10, 14, 16, 18, 22]}),  # a diamond
    ],
)
def test_neighbourhoods_by_hand(
    topology: str, cells: int, radius: int, rows: list[list[int]] | dict[int, list[int]]
) -> None:
    found = neighbourhood(topology, cells, radius)
    known = rows if isinstance(rows, dict) else dict(enumerate(rows))
    assert {cell: found[cell].tolist() for cell in known} == known
    assert found.shape == (cells, len(next(iter(known.values()))))


@pytest.mark.parametrize(
    ("topology", "cells", "radius"),
    [("ring", 10, 1), ("ring", 10, 3), ("torus", 12, 1), ("torus", 30, 2), ("complete", 6, 1)],
)
def test_neighbourhoods_are_symmetric_hold_no_cell_twice_and_start_with_the_cell(
    topology: str, cells: int, radius: int
) -> None:
    found = neighbourhood(topology, cells, radius)
    assert found[:, 0].tolist() == list(range(cells))
    sets = [set(row.tolist()) for row in found]
    assert all(len(members) == found.shape[1] for members in sets)
    assert all((a in sets[b]) == (b in sets[a]) for a in range(cells) for b in range(cells))


@pytest.mark.parametrize(
    ("topology", "cells", "radius", "words"),
    [
        ("ring", 4, 2, ("radius=2", "cells=4", "at most 1")),
        ("ring", 10, 5, ("radius=5", "cells=10", "at most 4")),
        ("ring", 10, 0, ("radius=0", "cells=10", "at least 1")),
        ("torus", 9, 0, ("radius=0", "cells=9", "at least 1")),
        ("ring", 10, -1, ("radius=-1", "at least 1")),
        ("torus", 10, 1, ("cells=10", "2 x 5", "at least 3")),
        ("torus", 7, 1, ("cells=7", "1 x 7", "at least 3")),
        ("torus", 16, 2, ("cells=16", "4 x 4", "at least 5")),
        ("star", 5, 1, ("'star'", *TOPOLOGIES)),
    ],
)
def test_errors_name_value_rule_and_choices(
    topology: str, cells: int, radius: int, words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are the match)
        neighbourhood(topology, cells, radius)
    for word in words:
        assert word in str(caught.value)


WORLDS = [("ring", 10, 1), ("ring", 11, 2), ("torus", 9, 1), ("torus", 25, 2), ("complete", 5, 1)]


@pytest.mark.parametrize(("topology", "cells", "radius"), WORLDS)
def test_waves_keep_the_order_of_neighbours(topology: str, cells: int, radius: int) -> None:
    rng, trials = np.random.default_rng(0), 6
    orders = np.stack([rng.permutation(cells) for _ in range(trials)])
    neighbours = neighbourhood(topology, cells, radius)
    wave_of = np.full((trials, cells), -1)
    for number, (trial, cell) in enumerate(waves(orders, neighbours)):
        assert (wave_of[trial, cell] == -1).all()
        wave_of[trial, cell] = number
    assert (wave_of >= 0).all()  # with the line above: every cell exactly once
    for trial in range(trials):
        position = np.argsort(orders[trial])
        for cell in range(cells):
            for other in neighbours[cell, 1:]:
                earlier = position[other] < position[cell]
                assert (wave_of[trial, other] < wave_of[trial, cell]) == earlier


def test_waves_by_hand() -> None:
    # Ring of 5 in order 0, 2, 1, 3, 4: 0 and 2 are strangers; 1 waits for both, 3 for 2, 4 for 3.
    found = list(waves(np.array([[0, 2, 1, 3, 4]]), neighbourhood("ring", 5, 1)))
    assert [cell.tolist() for _, cell in found] == [[0, 2], [1, 3], [4]]


def test_a_trials_waves_do_not_depend_on_its_companions() -> None:
    rng, neighbours = np.random.default_rng(1), neighbourhood("ring", 10, 1)
    orders = np.stack([rng.permutation(10) for _ in range(4)])
    together = [cell[trial == 2].tolist() for trial, cell in waves(orders, neighbours)]
    alone = [cell.tolist() for _, cell in waves(orders[2:3], neighbours)]
    assert [cells for cells in together if cells] == alone


def test_without_neighbours_all_cells_form_one_wave() -> None:
    ((trial, cell),) = waves(np.array([[2, 0, 1], [1, 2, 0]]), None)
    assert trial.tolist() == [0, 0, 0, 1, 1, 1]
    assert cell.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("topology", [*TOPOLOGIES])
@pytest.mark.parametrize("cells", [1, 2, 9, 25, 36])
@pytest.mark.parametrize("radius", [1, 2])
def test_the_size_of_a_sub_population_is_known_without_making_it(
    topology: str, cells: int, radius: int
) -> None:
    try:
        found = neighbourhood(topology, cells, radius)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            subpopulation(topology, cells, radius)
    else:
        assert found.shape == (cells, subpopulation(topology, cells, radius))
