"""Scores, each on a case worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evoae.pruning import operators, scores
from evoae.pruning.layer import Layer, OperatorSettings

WEIGHT = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
BIAS = torch.tensor([0.5, -1.0])
S = OperatorSettings()


def layer(**seen: object) -> Layer:
    known = {name: torch.tensor(values) for name, values in seen.items()}
    known["curvature"] = (torch.full_like(WEIGHT, 0.5), torch.full_like(BIAS, 2.0))
    known["movement"] = (WEIGHT, BIAS)
    return Layer(WEIGHT, BIAS, known.__getitem__)


def test_magnitude_and_obd() -> None:
    weight, bias = scores.magnitude(layer(), None, S)
    assert (weight.tolist(), bias.tolist()) == ([[1, 2], [3, 4]], [0.5, 1])
    weight, bias = scores.obd(layer(), None, S)
    assert (weight.tolist(), bias.tolist()) == ([[0.5, 2], [4.5, 8]], [0.5, 2])


def test_lamp_is_the_share_among_what_is_as_large() -> None:
    weight, bias = scores.lamp(layer(), None, S)
    expected = [[1 / 30, 4 / 29], [9 / 25, 1.0]]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(bias, torch.tensor([0.25 / 1.25, 1.0], dtype=torch.float64))


def test_wanda_ranks_within_each_row() -> None:
    weight, _ = scores.wanda(layer(input_norm=[10.0, 1.0]), None, S)
    assert weight.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_conjunctive_takes_the_largest_scaled_activation() -> None:
    recalled = [[0.0, 4.0], [5.0, 5.0], [1.0, 2.0]]  # the second example says nothing
    assert scores.conjunctive(layer(recall=recalled), None, S).tolist() == [0.0, 1.0]


def test_apoz_prunes_first_what_is_zero_most_often() -> None:
    assert scores.apoz(layer(zero_share=[0.25, 0.75]), None, S).tolist() == [-0.25, -0.75]


@pytest.mark.parametrize(("score", "first"), [(scores.variance_high, 0), (scores.variance_low, 1)])
def test_variance_draws_with_the_released_probabilities(score: scores.Score, first: int) -> None:
    """The unit that would always be pruned goes first, the one that never would last."""
    weight, bias = score(layer(deviation=[0.9, 0.1]), np.random.default_rng(0), S)
    assert torch.isinf(weight[1 - first]).all()
    assert torch.isinf(bias[1 - first])
    assert torch.isfinite(weight[first]).all()


def test_variance_keys_sample_in_proportion() -> None:
    """Of two units with probabilities 1 and 1/2, the first is pruned first two times of three."""
    wide = Layer(torch.zeros(3, 1), torch.zeros(3), lambda name: torch.tensor([0.0, 0.5, 1.0]))
    rng, wins = np.random.default_rng(1), 0
    for _ in range(3000):
        weight, _ = scores.variance_high(wide, rng, S)
        wins += bool(weight[2] < weight[1])
    assert wins / 3000 == pytest.approx(2 / 3, abs=0.03)


def test_an_operator_known_by_its_score_prunes_a_share_of_the_active() -> None:
    keep, bias = operators.OPERATORS["movement"](layer(), None, OperatorSettings(amount=0.5))
    assert keep.tolist() == [[True, False], [True, False]]  # the lowest, negative ones
    assert bias.tolist() == [True, False]
