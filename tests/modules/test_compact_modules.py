"""Modules with fewer units and equal outputs."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
from torch import Tensor, nn

from evoae import Pruner, compact


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def without_units(module: nn.Sequential, share: float, biased: bool) -> nn.Sequential:
    """Some units lose all incoming weights, some all outgoing ones, some both."""
    layers = [m for m in module if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in layers[:-1]:
            dead = torch.rand(layer.weight.shape[0], generator=draw) < share
            layer.weight[dead] = 0
            if layer.bias is not None and not biased:
                layer.bias[dead] = 0
        for layer in layers[1:]:
            layer.weight[:, torch.rand(layer.weight.shape[1], generator=draw) < share] = 0
    for norm in (m for m in module if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 2)
    return module


def equal(module: nn.Module, x: torch.Tensor) -> nn.Module:
    small = compact(module)
    assert type(small) is type(module)
    torch.testing.assert_close(small.eval()(x), module.eval()(x), rtol=1e-5, atol=1e-5)
    return small


CHAINS = {
    "dense": (
        lambda: [nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 9),
                 nn.Sigmoid()],
        (7, 9),
    ),
    "normalised": (
        lambda: [nn.Linear(9, 20, bias=False), nn.BatchNorm1d(20), nn.LeakyReLU(), nn.Dropout(),
                 nn.Linear(20, 20), nn.BatchNorm1d(20, affine=False), nn.Linear(20, 5, bias=False)],
        (7, 9),
    ),
    "convolutions, padded": (
        lambda: [nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True),
                 nn.MaxPool2d(2), nn.Conv2d(12, 10, 3, padding="same", bias=False), nn.Sigmoid(),
                 nn.Upsample(scale_factor=2), nn.Conv2d(10, 2, 3, padding=1)],
        (3, 2, 8, 8),
    ),
    "convolutions, not padded": (
        lambda: [nn.Conv1d(2, 12, 3), nn.Tanh(), nn.Conv1d(12, 10, 3, bias=False), nn.ReLU(),
                 nn.Conv1d(10, 4, 1)],
        (3, 2, 12),
    ),
    "flattened": (
        lambda: [nn.Conv2d(1, 12, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(12 * 36, 16), nn.ReLU(),
                 nn.Linear(16, 5)],
        (3, 1, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", CHAINS)
def test_outputs_are_equal_and_parameters_fewer(name: str, share: float, biased: bool) -> None:
    torch.manual_seed(0)
    layers, shape = CHAINS[name]
    module = without_units(nn.Sequential(*layers()), share, biased)
    small = equal(module, torch.randn(shape))
    assert (parameters(small) < parameters(module)) == (share > 0)
    assert parameters(compact(small)) == parameters(small)


def test_a_chain_by_hand() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
        module[0].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
        module[2].weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [4.0, 3.0, 0.0]]))
        module[2].bias.zero_()
    small = compact(module)
    assert small[0].weight.tolist() == [[1.0, 2.0]]  # unit 1 is constant, nobody reads unit 2
    assert small[2].weight.tolist() == [[1.0], [4.0]]
    assert small[2].bias.tolist() == [10.0, 15.0]
    assert (small[0].out_features, small[2].in_features) == (1, 1)
    assert module[0].weight.shape == (3, 2)


def test_a_padded_convolution_keeps_a_constant_that_is_not_zero() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))
    with torch.no_grad():
        module[0].weight[:2] = 0
        module[0].bias.copy_(torch.tensor([2.0, -2.0, 0.0]))
    small = equal(module, torch.randn(2, 1, 5, 5))
    assert small[0].out_channels == 2  # the one that ReLU silences goes


def test_what_is_pruned_while_training_is_compacted() -> None:
    torch.manual_seed(0)
    layers, shape = CHAINS["convolutions, padded"]
    module = nn.Sequential(*layers())
    told = {"probability": 1.0, "amount": 0.5, "pruned_weights": "masked"}
    pruner = Pruner(module, "apoz", "fixed", 3, **told)
    module(torch.randn(shape)).sum().backward()
    assert pruner.epoch_end()
    small = equal(module, torch.randn(shape))
    assert parameters(small) < parameters(module)
    assert hasattr(module[0], "parametrizations")
    assert type(small[0]) is nn.Conv2d


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 4), nn.Softmax(1), nn.Linear(4, 4)
        )
        self.decoder = nn.Sequential(nn.Sequential(nn.Linear(4, 9), nn.ReLU()), nn.Linear(9, 8))
        self.own = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self.decoder(self.encoder(x)))


def test_what_cannot_be_traced_is_left_and_said() -> None:
    module = Parts()
    for chain in (module.encoder, nn.Sequential(module.decoder[0][0], module.decoder[1])):
        without_units(chain, 0.4, True)
    with pytest.warns(UserWarning, match=r"as it is: encoder.3 \(Softmax\), own \(Linear\)$"):
        small = compact(module)
    x = torch.randn(5, 8)
    torch.testing.assert_close(small(x), module(x), rtol=1e-5, atol=1e-5)
    assert small.encoder[2].out_features == 4
    assert small.encoder[0].out_features < 9
    assert small.decoder[0][0].out_features < 9


def test_tied_and_grouped_layers_are_left() -> None:
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    with torch.no_grad():
        one.weight[1] = 0
    with pytest.warns(UserWarning, match=r"0 \(Linear\), 2 \(Linear\)"):
        small = compact(nn.Sequential(one, nn.ReLU(), other))
    assert small[0].weight is small[2].weight
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3))
    with pytest.warns(UserWarning, match="0 "):
        assert compact(grouped)[0].weight.shape == (4, 2, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compact(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))


class Scaled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def dense(*widths: int) -> list[nn.Linear]:
    """Layers, each with a unit that is off for every input, and one that is constant."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for layer in layers:
            layer.weight[:2] = 0
            layer.bias[0], layer.bias[1] = -3, 0.7
    return layers


def called_twice() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    relu, norm, twice = nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 6)
    norm.running_mean += torch.rand(6)
    bare = nn.BatchNorm1d(6, affine=False)
    bare.running_mean += torch.rand(6)
    one, two, three = dense(5, 6, 6, 4)
    residual = Residual(dense(6, 6)[0], nn.ReLU())
    return {
        "a ReLU": nn.Sequential(one, relu, two, relu, three),
        "a layer": nn.Sequential(one, nn.ReLU(), twice, nn.ReLU(), twice, nn.ReLU(), three),
        "a BatchNorm": nn.Sequential(one, norm, nn.ReLU(), two, norm, nn.ReLU(), three),
        "a BatchNorm without parameters": nn.Sequential(
            one, bare, nn.ReLU(), two, bare, nn.ReLU(), three
        ),
        "a forward of its own": Scaled(one, nn.ReLU(), two, nn.ReLU(), three),
        "one inside": nn.Sequential(Scaled(one, nn.ReLU()), two, nn.ReLU(), three),
        "a residual": nn.Sequential(one, nn.ReLU(), residual, two, nn.ReLU(), three),
    }


@pytest.mark.filterwarnings("ignore:compact leaves")
@pytest.mark.parametrize("name", list(called_twice()))
def test_what_is_called_twice_or_in_another_way_gives_equal_outputs(name: str) -> None:
    module = called_twice()[name].eval()
    x = torch.randn(50, 5)
    torch.testing.assert_close(compact(module)(x), module(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a layer", "2 (Linear), 4 (Linear)"),
        ("a BatchNorm", "1 (BatchNorm1d), 4 (BatchNorm1d)"),
        ("a BatchNorm without parameters", "1 (BatchNorm1d), 4 (BatchNorm1d)"),
        ("a forward of its own", "0 (Linear), 2 (Linear), 4 (Linear)"),
        ("one inside", "0 (Scaled)"),
        ("a residual", "2 (Residual)"),
    ],
)
def test_what_is_called_twice_or_in_another_way_is_left_and_said(name: str, said: str) -> None:
    with pytest.warns(UserWarning, match=rf"as it is: {re.escape(said)}$"):
        compact(called_twice()[name])


def test_a_chain_goes_on_behind_an_activation_that_is_called_twice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compact(called_twice()["a ReLU"])
    assert [small[place].out_features for place in (0, 2, 4)] == [4, 4, 4]


def test_a_layer_of_two_names_is_said_twice_and_an_empty_place_passed_over() -> None:
    module = nn.Module()
    module.one = module.other = nn.Linear(3, 3)
    module.chain = nn.Sequential(*dense(3, 6, 3))
    module.add_module("nothing", None)
    module.chain.add_module("nothing", None)
    with pytest.warns(UserWarning, match=r"as it is: one \(Linear\), other \(Linear\)$"):
        small = compact(module)
    assert small.chain[0].out_features == 4
