"""Positions of random pruning: exact counts, even margins, whole lines, and how uneven they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import evolved, tiny

from evoae.pruning.layer import Layer, OperatorSettings
from evoae.pruning.operators import random
from evoae.pruning.positions import POSITIONS, even, independent, inputs, moves, units

SHAPES = [(30, 50), (10, 30), (1, 7), (7, 1), (1, 1), (40, 3), (5, 5)]


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_counts_are_exact_wherever_positions_lie(name, shape, share) -> None:
    count = round(share * shape[0] * shape[1])
    rng = np.random.default_rng(1)
    draws = [POSITIONS[name](shape, count, rng) for _ in range(5)]
    assert {(taken.shape, taken.dtype, int(taken.sum())) for taken in draws} == {
        (shape, np.dtype(bool), count)
    }
    if name == "even":
        assert all(np.ptp(taken.sum(axis)) <= 1 for taken in draws for axis in (0, 1))
    if name in ("units", "inputs"):  # all lines but one are full or empty
        axis = 1 if name == "units" else 0
        whole = [np.isin(taken.sum(axis), (0, shape[axis])).sum() for taken in draws]
        assert min(whole) >= shape[1 - axis] - 1


def test_every_entry_is_taken_equally_often() -> None:
    rng = np.random.default_rng(0)
    for draw in POSITIONS.values():
        counts = sum(draw((6, 8), 12, rng).astype(int) for _ in range(2000))
        assert abs(counts / 2000 - 0.25).max() < 0.05  # five standard deviations


def test_even_positions_do_not_repeat_a_pattern() -> None:
    """Two rows share no more columns than chance allows, unlike those of a shifted pattern."""
    rng = np.random.default_rng(2)
    common = [
        np.triu(taken @ taken.T, 1).max()
        for taken in (even((30, 50), 150, rng).astype(int) for _ in range(20))
    ]
    assert max(common) < 5  # of five columns in each row


def test_moves_by_hand() -> None:
    taken = np.zeros((2, 20), dtype=bool)
    taken[0, :15] = taken[1, :5] = True
    assert moves(taken, 0) == 0.25  # 15 and 5, where 10 and 10 are even
    assert moves(taken, 1) == 0.25  # five columns have two; to be even, each has one
    assert moves(np.stack([taken, taken[::-1]]), 0).tolist() == [0.25, 0.25]
    assert np.isnan(moves(np.zeros((2, 3), dtype=bool), 0))


def test_lines_are_uneven_along_themselves_and_even_across() -> None:
    rng = np.random.default_rng(3)
    rows, columns = units((10, 40), 40, rng), inputs((10, 40), 40, rng)
    assert (moves(rows, 0), moves(rows, 1)) == (0.9, 0)
    assert (moves(columns, 0), moves(columns, 1)) == (0, 0.9)
    assert moves(even((10, 40), 40, rng), 0) == 0 < moves(independent((10, 40), 40, rng), 0)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("amount", [0.0, 0.1, 0.25, 1.0])
def test_layers_lose_equally_many_weights_and_biases(name, amount) -> None:
    layer = Layer(torch.zeros(8, 12), torch.zeros(8), {}.__getitem__)
    settings = OperatorSettings(amount, positions=name)
    keep, keep_bias = random(layer, np.random.default_rng(0), settings)
    assert (~keep).sum() == round(amount * 96)
    assert (~keep_bias).sum() == round(amount * 8)
    if name == "units" and amount == 0.25:  # whole units with their biases
        assert torch.equal(keep.any(1), keep_bias)
        assert torch.equal(keep.all(1), keep_bias)


@pytest.mark.parametrize("shared", ["nothing", "epochs", "positions"])
def test_cells_share_epochs_and_positions_as_they_are_told(shared) -> None:
    e = tiny(
        "lipi-ae-s", cells=4, operator="random", amount=0.3, schedule="fixed", probability=0.4,
        epochs=12, shared_pruning=shared, topology="isolated", learning_rate=0.0,
        rate_policy="constant",
    )  # fmt: skip
    history, state = evolved(e, trials=2)
    when = [tuple(rows.epoch[rows.pruned]) for _, rows in history.groupby(["trial", "cell"])]
    assert (len(set(when[:4])) == 1) == (shared != "nothing")
    assert when[:4] != when[4:]  # of another trial
    zeros = state.population.encoder.weights == 0  # nothing moves, so nothing grows again
    alike = all(torch.equal(zeros[0], zeros[cell]) for cell in range(4))
    assert alike == (shared == "positions")
    assert not torch.equal(zeros[0], zeros[4])


def test_what_cells_share_is_no_matter_of_how_many_trials_run() -> None:
    e = tiny("lipi-ae-s", cells=3, operator="random", shared_pruning="positions", prune_count=2)
    both, _ = evolved(e, trials=2)
    one, _ = evolved(e, trials=[1])
    assert both[both.trial == 1].reset_index(drop=True).equals(one)


@pytest.mark.parametrize(
    "settings",
    [{"operator": "magnitude"}, {"operator": "none"}, {"operator": "random", "schedule": "cubic"}],
)
def test_positions_of_anything_but_random_pruning_are_refused(settings) -> None:
    with pytest.raises(ValueError, match="positions=even needs operator=random or noise"):
        tiny(positions="even", **settings)
    with pytest.raises(ValueError, match="unknown positions 'evn'"):
        tiny(operator="random", positions="evn")
    assert tiny(operator="noise", positions="even").positions == "even"
