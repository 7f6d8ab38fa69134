"""A target is reached to the entry, wherever it is spread and by whatever score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import evolved, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from evoae import Experiment
from evoae.pruning import allocation, operators
from evoae.pruning.layer import Layer, OperatorSettings

SCORED = [name for name, known in operators.OPERATORS.items() if known.score is not None]


def layer(weight: list, bias: list, keep: list | None = None) -> Layer:
    weight, bias = torch.tensor(weight), torch.tensor(bias)
    masks = None if keep is None else (torch.tensor(keep), torch.ones(len(bias)) > 0)
    return Layer(weight, bias, lambda name: None, masks)


def chosen(layers: list[Layer], scores: list, **options: object) -> list[tuple[list, list]]:
    s = OperatorSettings(to_target=True, **options)
    rng, units = np.random.default_rng(0), scores[0].__class__ is torch.Tensor
    if units:
        scores = [allocation.by_unit(*each, rng) for each in zip(layers, scores, strict=True)]
    masks = allocation.select(layers, scores, rng, s, units)
    return [(weight.tolist(), bias.tolist()) for weight, bias in masks]


TWO = [
    layer([[1.0, -2.0], [3.0, 4.0]], [0.5, 6.0]),
    layer([[0.1, 0.2], [0.3, 0.4]], [0.5, 0.6]),
]
MAGNITUDES = [(each.weight.abs(), each.bias.abs()) for each in TWO]


def test_by_layer_each_tensor_gives_its_share() -> None:
    assert chosen(TWO, MAGNITUDES, amount=0.5) == [
        ([[False, False], [True, True]], [False, True]),
        ([[False, False], [True, True]], [False, True]),
    ]


def test_globally_one_ranking_decides() -> None:
    # the six smallest of all twelve are 0.1 to 0.4 and both 0.5
    assert chosen(TWO, MAGNITUDES, amount=0.5, allocation="global") == [
        ([[True, True], [True, True]], [False, True]),
        ([[False, False], [False, False]], [False, True]),
    ]


def test_biases_can_be_left_out_and_the_weights_give_the_whole_number() -> None:
    masks = chosen(TWO, MAGNITUDES, amount=0.5, prune_biases=False)
    assert all(all(bias) for _, bias in masks)
    assert sum(not kept for weight, _ in masks for kept in np.ravel(weight)) == 6


def test_erk_keeps_small_layers_denser() -> None:
    wide = layer(torch.rand(10, 90).tolist(), torch.rand(10).tolist())
    small = layer(torch.rand(10, 10).tolist(), torch.rand(10).tolist())
    scores = [(each.weight, each.bias) for each in (wide, small)]
    masks = chosen([wide, small], scores, amount=0.8, allocation="erk")
    dense = [np.mean(np.concatenate([np.ravel(w), b])) for w, b in masks]
    # (10 + 90) / 900 against 20 / 100: 1.8 times as dense, and 204 of 1,020 are left
    assert dense[1] / dense[0] == pytest.approx(1.8, rel=0.05)
    assert sum(np.sum(w) + np.sum(b) for w, b in masks) == round(0.2 * 1020)


def test_units_go_whole_and_of_the_last_the_smallest_weights() -> None:
    one = layer([[9.0, 8.0], [0.3, 0.1], [5.0, 6.0]], [7.0, 0.2, 4.0])
    ((weight, bias),) = chosen([one], [torch.tensor([1.0, 2.0, 0.0])], amount=5 / 9)
    # unit 2 whole, and of unit 0 the bias 7 and the weight 8
    assert weight == [[True, False], [True, True], [False, False]]
    assert bias == [False, True, False]


def test_what_is_masked_counts_and_is_never_opened() -> None:
    keep = [[False, True], [True, True]]
    one = layer([[0.0, 2.0], [3.0, 4.0]], [5.0, 6.0], keep)
    ((weight, bias),) = chosen(
        [one], [(one.weight.abs(), one.bias)], amount=0.5, allocation="global"
    )
    assert (weight, bias) == ([[False, False], [False, True]], [True, True])
    ((weight, _),) = chosen([one], [(one.weight.abs(), one.bias)], amount=0.1)
    assert weight == keep  # more is pruned already: nothing changes


def test_exchange_closes_the_lowest_and_opens_the_steepest() -> None:
    from evoae.networks.gradients import Gradients

    keep = torch.tensor([[True, True, True, True], [False, False, False, False]])
    slope = torch.tensor([[9.0, 9.0, 9.0, 9.0], [0.1, -0.5, 0.2, 0.3]])
    found = Gradients(slope, torch.zeros(2))
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    masks = (keep, torch.ones(2) > 0)
    one = Layer(weight, torch.ones(2), {"gradients": found}.get, masks)
    s = OperatorSettings(to_target=True, drop_fraction=0.25, prune_biases=False)
    ((after, _),) = allocation.exchange(
        [one], [masks], [(weight.abs(), torch.ones(2))], np.random.default_rng(0), s
    )
    assert after.tolist() == [[False, True, True, True], [False, True, False, False]]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 10)), min_size=1, max_size=8),
    st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_spread_is_exact_and_within_bounds(places: list, share: float) -> None:
    most = np.array([n for n, _ in places])
    weights = np.array([w for _, w in places])
    total = round(share * most.sum())
    found = allocation.spread(total, weights, most)
    assert found.sum() == total
    assert (found >= 0).all()
    assert (found <= most).all()


def test_spread_by_largest_remainder() -> None:
    assert allocation.spread(5, np.array([1.0, 1.0, 2.0]), np.array([9, 9, 9])).tolist() in (
        [1, 1, 3],
        [2, 1, 2],
    )
    assert allocation.spread(10, np.array([1.0, 1.0]), np.array([3, 9])).tolist() == [3, 7]
    with pytest.raises(ValueError, match="do not fit"):
        allocation.spread(13, np.array([1.0, 1.0]), np.array([3, 9]))


@pytest.mark.parametrize("allocated", allocation.ALLOCATIONS)
@pytest.mark.parametrize("operator", [*SCORED, "set", "rigl"])
def test_every_operator_ends_exactly_at_the_target(operator: str, allocated: str) -> None:
    known = operators.OPERATORS[operator]
    if allocated == "global" and not known.compares:
        with pytest.raises(
            ValueError, match=f"operator={operator} cannot be compared.*layer or erk"
        ):
            tiny(operator=operator, schedule="cubic", allocation=allocated)
        return
    for biases in (True, False):
        e = tiny(
            operator=operator, schedule="cubic", target_sparsity=0.7, allocation=allocated,
            pruned_weights="masked", prune_until=0.5, prune_biases=biases,
        )  # fmt: skip
        history, state = evolved(e)
        pruned = (history.encoder_zeros + history.decoder_zeros).to_numpy()
        total = state.population.parameters
        assert pruned[-1] == round(0.7 * total)
        for side in state.population.sides:
            assert (side.weights[~side.tensors["keep"]] == 0).all()
        if not known.regrows:
            assert (np.diff(pruned) >= 0).all()
            assert not history.pruned.to_numpy()[-1]  # it is left alone once it is there


@pytest.mark.parametrize("operator", ["obd", "magnitude", "taylor", "conjunctive", "apoz"])
def test_exchange_keeps_the_number_and_moves_the_places(operator: str) -> None:
    options = {"schedule": "cubic", "target_sparsity": 0.6, "prune_until": 0.3, "epochs": 8}
    moving = tiny(
        operator=operator,
        drop_fraction=0.5,
        pruned_weights="masked",
        **options,
        allocation="global" if operators.OPERATORS[operator].compares else "erk",
    )
    still = moving.replace(drop_fraction=0.0)
    (history, state), (_, other) = evolved(moving), evolved(still)
    total = state.population.parameters
    assert (history.encoder_zeros + history.decoder_zeros).to_numpy()[-1] == round(0.6 * total)
    keep = [
        torch.cat([s.tensors["keep"] for s in each.population.sides], 1) for each in (state, other)
    ]
    assert not torch.equal(*keep)


REFUSED = [
    ({"drop_fraction": 0.2}, "drop_fraction=0.2.*schedule with a target"),
    ({"prune_until": 0.0}, r"prune_until=0.0 must lie in \(0, 1\]"),
    ({"loss_switch": 1.0}, r"loss_switch=1.0 must lie in \(0, 1\)"),
    ({"loss_switch": 0.0}, r"loss_switch=0.0 must lie in \(0, 1\)"),
    ({"allocation": "uniform"}, "layer, erk, global"),
    ({"operator": "noise", "schedule": "cubic"}, "leaves no zeros"),
    ({"rate_hold": 1.0}, r"rate_hold=1.0 must lie in \[0, 1\)"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Experiment.preset("canonical", **wrong)
    assert "\n" not in str(caught.value)
