"""What follows a layer, and what `apoz` says where it sees no ReLU.

PYTEST_DONT_REWRITE: an `assert` in a forward must be one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evoae import Pruner
from evoae.modules.layers import find_layers

ROWS = torch.rand(64, 8, generator=torch.Generator().manual_seed(1)) - 0.5
ONCE = {"probability": 1.0, "amount": 1 / 9, "pruned_weights": "masked"}


class Model(nn.Module):
    """Something between two layers."""

    def __init__(self, between: Callable[[Model, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between, self.norm, self.drop = between, nn.LayerNorm(9), nn.Dropout(0.5)
        self.one, self.two = nn.Linear(8, 9), nn.Linear(9, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.between(self, self.one(x)))


def asserted(m: Model, h: Tensor) -> Tensor:
    assert h.shape[1] == 9 and h.dim() == 2, f"{h.shape}"  # noqa: PT018
    assert not h.isnan().any()
    return h.relu()


def raising(m: Model, h: Tensor) -> Tensor:
    if h.dim() != 2:
        raise ValueError("rows")
    return h.relu()


def as_statement(m: Model, h: Tensor) -> Tensor:
    torch.relu_(h)
    return h


# what makes exact zeros, and the same without what only hides it: dropout in training, and views
FOLLOWED = {
    "relu": (lambda m, h: h.relu(), lambda m, h: h.relu()),
    "in place": (lambda m, h: F.relu(h, inplace=True), lambda m, h: h.relu()),
    "a statement": (as_statement, lambda m, h: h.relu()),
    "relu6": (lambda m, h: F.relu6(9 * h), None),
    "hardtanh": (lambda m, h: F.hardtanh(h, 0, 0.1), lambda m, h: h.relu()),
    "clamp": (lambda m, h: h.clamp(min=0), lambda m, h: h.relu()),
    "threshold": (lambda m, h: F.threshold(h, 0, 0), lambda m, h: h.relu()),
    "dropout before": (lambda m, h: F.relu(m.drop(h)), lambda m, h: h.relu()),
    "dropout behind": (lambda m, h: m.drop(F.relu(h)), lambda m, h: h.relu()),
    "a norm": (lambda m, h: m.norm(h).relu(), lambda m, h: m.norm(h).relu()),
    "a view": (lambda m, h: F.relu(h.view(h.size(0), -1)), lambda m, h: h.relu()),
    "an assert": (asserted, lambda m, h: h.relu()),
    "a raise": (raising, lambda m, h: h.relu()),
    "a function that norms": (
        lambda m, h: F.layer_norm(h, (9,)).relu(), lambda m, h: F.layer_norm(h, (9,)).relu()
    ),
    "functions of values": (
        lambda m, h: torch.tanh(2 * h - 0.1).relu(), lambda m, h: (2 * h - 0.1).relu()
    ),
    "reshapes and a norm": (
        lambda m, h: F.layer_norm(h.unsqueeze(1).flip(-1), (9,)).flip(-1).relu().squeeze(1),
        lambda m, h: F.layer_norm(h, (9,)).relu(),
    ),
    "a norm and more": (
        lambda m, h: m.drop(m.norm(h)).reshape(len(ROWS), 9).relu(), lambda m, h: m.norm(h).relu()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, (_, same) in FOLLOWED.items() if same])
def test_the_unit_that_is_most_often_zero_is_pruned(name: str) -> None:
    call, same = FOLLOWED[name]
    module = Model(call)
    with torch.no_grad():
        share = (same(module, module.one(ROWS)) == 0).double().mean(0)
    assert share.sort().values.diff()[-1] > 0
    pruner = Pruner(module, "apoz", "fixed", 1, exclude=["two"], **ONCE)
    module(ROWS).sum().backward()
    assert torch.equal(pruner.observers[0].view(None).zero_share, share)
    assert pruner.epoch_end()
    assert (module.one.weight == 0).all(1).nonzero().flatten().tolist() == [int(share.argmax())]


UNSEEN = {
    "gelu": lambda m, h: F.gelu(h),
    "leaky": lambda m, h: F.leaky_relu(h),
    "hardtanh": lambda m, h: F.hardtanh(h),
    "nothing": lambda m, h: h,
    "a residual": lambda m, h: h.relu() + h,
    "what depends on data": lambda m, h: h.relu() if h.sum() > -1e9 else h,
    "a product": lambda m, h: 9 * h.relu() * m.one.bias - h,
}


@pytest.mark.parametrize("name", UNSEEN)
def test_where_no_relu_is_seen_apoz_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no ReLU after one.*: name the layers"):
        Pruner(Model(UNSEEN[name]), "apoz", "cubic", 3, target_sparsity=0.5)


def test_where_no_relu_is_seen_a_name_tells_and_no_target_needs_one() -> None:
    gelu = UNSEEN["gelu"]
    with pytest.warns(UserWarning, match="apoz finds no ReLU after one.* and prunes nothing there"):
        Pruner(Model(gelu), "apoz", "fixed", 3, **ONCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aim = {"target_sparsity": 0.5, "exclude": ["two"]}
        Pruner(Model(gelu), "apoz", "cubic", 3, relu=["one"], **aim)


def test_an_output_layer_is_warned_of_on_the_way_to_a_target() -> None:
    module = Model(lambda m, h: h.relu())
    with pytest.warns(UserWarning, match="no ReLU after the output layer two: .* at random"):
        Pruner(module, "apoz", "cubic", 3, target_sparsity=0.5)


CONVOLUTIONS = {
    "a pool": ([nn.MaxPool2d(2), nn.ReLU()], nn.Conv2d),
    "a mean pool": ([nn.AvgPool2d(2), nn.ReLU()], nn.AvgPool2d),
    "a norm and a pool": ([nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU()], nn.BatchNorm2d),
    "groups": ([nn.GroupNorm(2, 4), nn.ReLU6()], nn.GroupNorm),
    "dropped channels": ([nn.Dropout2d(), nn.ReLU()], nn.Conv2d),
    "a larger map": ([nn.Upsample(scale_factor=2), nn.ReLU()], nn.Upsample),
    "ELU": ([nn.ELU()], None),
    "a sigmoid behind a norm": ([nn.BatchNorm2d(4), nn.Sigmoid()], None),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_what_follows_a_convolution(name: str) -> None:
    between, end = CONVOLUTIONS[name]
    module = nn.Sequential(nn.Conv2d(1, 4, 3), *between, nn.Conv2d(4, 1, 3))
    first, last = find_layers(module, None, (), ())
    assert first.relu == (end is not None)
    assert type(first.end) is (end or type(between[0] if name.startswith("a sig") else module[0]))
    assert (last.relu, last.is_output, first.is_output) == (False, True, False)


def test_a_bounded_relu_bounds_what_units_are_seen_to_do() -> None:
    module = Model(FOLLOWED["relu6"][0])
    (first, _) = find_layers(module, None, (), ())
    assert not first.relu  # a product comes first
    module = Model(lambda m, h: F.hardtanh(h, 0, 0.1))
    pruner = Pruner(module, "variance-low", "fixed", 1, **ONCE)
    module(ROWS).sum().backward()
    seen = module.one(ROWS).detach().clamp(0, 0.1).double()
    view = pruner.observers[0].view(None)
    torch.testing.assert_close(view.deviation, seen.std(0, correction=0), rtol=1e-4, atol=1e-7)


def test_a_forward_that_keeps_what_it_sees_keeps_no_symbols() -> None:
    module = Model(lambda m, h: kept(m, h).relu())
    Pruner(module, "apoz", "fixed", 1, exclude=["two"], **ONCE)
    assert not hasattr(module, "last")


def kept(m: Model, h: Tensor) -> Tensor:
    m.last = h
    return h
