"""Compacted networks compute the same with nothing in them that could be left out."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from evoae.networks import compaction, population, training
from evoae.networks.compaction import Dense, Select, chain, compact
from evoae.networks.population import KINDS, Population


def dense(weight: list[list[float]], bias: list[float], relu: bool = True) -> Dense:
    return Dense(torch.tensor(weight), torch.tensor(bias), relu)


def outputs(layers: list[Dense], x: Tensor) -> Tensor:
    """What the layers compute for x [batch, in], in double precision."""
    x = x.double()
    for layer in layers:
        x = x @ layer.weight.double().T + layer.bias.double()
        x = x.relu() if layer.relu else x
    return x


def pruned(kind: str, density: float, seed: int = 0, model: str = "6-4") -> Population:
    """Two autoencoders of 9 inputs of which about so many entries are not zero."""
    generators = [np.random.default_rng([seed, i]) for i in range(2)]
    found = population.initialise(9, model, kind, generators, "cpu")
    for side in found.sides:
        drawn = np.random.default_rng(seed).random(side.weights.shape) < density
        side.weights.mul_(torch.from_numpy(drawn))
    return found


def test_by_hand() -> None:
    layers = [
        # unit 0 reads inputs 0 and 2; 1 is silent, 2 always gives 3, 3 is read by nobody
        dense([[1, 0, 2], [0, 0, 0], [0, 0, 0], [0, 5, 0]], [0.5, -1, 3, 0]),
        # unit 1 reads the silent and the constant one: 2 * 3 - 4 = 2, constant in turn;
        # unit 2 has no positive weight, and what it reads is never negative: -1 * 3 + 2 = -1
        dense([[1, 7, 1, 0], [0, 9, 2, 0], [-2, 0, -1, 0]], [0, -4, 2]),
        # output 1 reads the constant unit alone
        dense([[1, 3, 4], [0, -1, 4]], [1, 1], relu=False),
    ]
    found = compact(layers)
    assert [each.tolist() for each in found.units] == [[0, 2], [0], [0], [0, 1]]
    assert [each.weight.tolist() for each in found.layers] == [[[1, 2]], [[1]], [[1], [0]]]
    assert [each.bias.tolist() for each in found.layers] == [[0.5], [3], [7, -1]]
    assert found.sizes == {"effective_parameters": 8, "macs": 4, "compact_parameters": 9}
    x = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 1.0]])
    assert outputs(layers, x).tolist() == [[17.5, -1], [10, -1]]
    assert outputs(found.layers, x[:, [0, 2]]).tolist() == [[17.5, -1], [10, -1]]


def test_inputs_may_be_negative_so_signs_say_nothing_in_the_first_layer() -> None:
    layers = [dense([[-1]], [0]), dense([[1]], [0], relu=False)]
    found = compact(layers)
    assert [len(each) for each in found.units] == [1, 1, 1]
    assert outputs(found.layers, torch.tensor([[-2.0]])).item() == 2


def test_after_a_layer_without_relu_signs_say_nothing_either() -> None:
    layers = [dense([[1]], [0], False), dense([[-1]], [0]), dense([[1]], [0], False)]
    assert [len(each) for each in compact(layers).units] == [1, 1, 1, 1]


def test_without_relu_a_unit_of_negative_bias_is_constant_and_not_silent() -> None:
    layers = [dense([[0], [1]], [-2, 0], relu=False), dense([[3, 1]], [0], relu=False)]
    found = compact(layers)
    assert [each.tolist() for each in found.units] == [[0], [1], [0]]
    assert found.layers[1].bias.tolist() == [-6]


def test_a_positive_bias_keeps_a_unit_of_negative_weights() -> None:
    layers = [dense([[1]], [0]), dense([[-1]], [1]), dense([[1]], [0], False)]
    assert [len(each) for each in compact(layers).units] == [1, 1, 1, 1]


@training.one_thread()  # a pool of threads takes longer to wake than so little to compute
@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    density=st.sampled_from([0, 0.03, 0.1, 0.2, 0.4, 0.8, 1]),
    model=st.sampled_from(["6-4", "5", "7-5-3", "1-1"]),
    seed=st.integers(0, 10_000),
)
def test_same_outputs_and_nothing_left_to_leave_out(
    kind: str, density: float, model: str, seed: int
) -> None:
    found = pruned(kind, density, seed, model)
    layers = chain(found, 1)
    small = compact(layers)
    x = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (20, 9)))
    torch.testing.assert_close(
        outputs(small.layers, x[:, small.inputs]), outputs(layers, x), atol=1e-6, rtol=0
    )
    encoder, decoder = compaction.compact_member(found, 1)
    whole = nn.Sequential(*found.member(1))
    with torch.no_grad():
        difference = decoder(encoder(x.float())) - whole(x.float())
    assert difference.abs().max() <= 1e-6
    # every input and hidden unit is reached, and is read
    for layer in small.layers[:-1]:
        assert (layer.weight != 0).any(1).all()
    for layer in small.layers:
        assert (layer.weight != 0).any(0).all()
    again = compact(small.layers)
    assert [len(each) for each in again.units] == [len(each) for each in small.units]
    assert again.sizes == small.sizes
    assert sum(int(layer.weight.count_nonzero()) for layer in small.layers) == small.sizes["macs"]
    for layer, left, (before, after) in zip(
        layers, small.layers, pairwise(small.units), strict=True
    ):
        assert torch.equal(layer.weight[after][:, before], left.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_code_units_are_left_out_on_both_sides(kind: str) -> None:
    found = pruned(kind, 1)
    found.encoder.layers()[-1][0][0, 2] = 0  # nothing comes in
    found.encoder.layers()[-1][1][0, 2] = 1.0
    found.decoder.layers()[0][0][0, :, 0] = 0  # nothing reads
    with torch.no_grad():  # all else is kept whatever the signs
        for side in found.sides:
            side.weights[0] = side.weights[0].abs()
    encoder, decoder = compaction.compact_member(found, 0)
    x = torch.rand(5, 9)
    with torch.no_grad():
        before, after = found.member(0)[0](x), encoder(x)
    assert before.shape == (5, 4)
    assert after.shape == (5, 2)
    torch.testing.assert_close(after, before[:, [1, 3]])
    assert decoder[0].in_features == 2
    assert isinstance(decoder[-1], nn.Sigmoid)


def test_log_variances_do_not_count() -> None:
    found = pruned("variational", 1)
    sizes = compact(chain(found, 0)).sizes
    weight, bias = found.encoder.layers()[-1]
    weight[0, 4:], bias[0, 4:] = 0, 0
    assert compact(chain(found, 0)).sizes == sizes


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_network_has_its_output_biases_alone(kind: str) -> None:
    found = pruned(kind, 1)
    found.encoder.layers()[0][0][0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder, decoder = compaction.compact_member(found, 0)
    small = compact(chain(found, 0))
    assert [len(each) for each in small.units] == [0, 0, 0, 0, 9]
    assert small.sizes == {"effective_parameters": 9, "macs": 0, "compact_parameters": 9}
    x = torch.rand(3, 9)
    assert encoder(x).shape == (3, 0)
    torch.testing.assert_close(decoder(encoder(x)), nn.Sequential(*found.member(0))(x))


def test_outputs_are_never_left_out() -> None:
    found = pruned("plain", 0)
    small = compact(chain(found, 0))
    assert small.sizes == {"effective_parameters": 0, "macs": 0, "compact_parameters": 9}
    _, decoder = compaction.compact_member(found, 0)
    assert decoder(torch.zeros(2, 0)).tolist() == [[0.5] * 9] * 2


def test_a_network_of_which_all_is_needed_stays_as_it_is() -> None:
    found = pruned("plain", 1)
    for side in found.sides:
        side.weights.abs_()
    small = compact(chain(found, 1))
    for one, other in zip(small.layers, chain(found, 1), strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)
        assert one.relu == other.relu
    assert small.sizes["compact_parameters"] == found.parameters


def test_a_diverged_network_is_left_alone() -> None:
    found = pruned("plain", 1)
    for side in found.sides:
        side.weights[0] = torch.nan
    assert compact(chain(found, 0)).sizes["compact_parameters"] == found.parameters


def test_compacted_modules_are_copies_and_draw_nothing() -> None:
    found = pruned("plain", 0.6)
    before = [side.weights.clone() for side in found.sides]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    encoder, decoder = compaction.compact_member(found, 0)
    assert torch.equal(torch.rand(1), expected)
    for module in (encoder, decoder):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    for side, weights in zip(found.sides, before, strict=True):
        assert torch.equal(side.weights, weights)


def test_select_picks_inputs_and_is_saved() -> None:
    select = Select(torch.tensor([0, 3]))
    assert select(torch.arange(8.0).reshape(2, 4)).tolist() == [[0, 3], [4, 7]]
    assert select(torch.arange(4.0)).tolist() == [0, 3]
    assert select.state_dict()["index"].tolist() == [0, 3]
    assert repr(select) == "Select(2 inputs)"
