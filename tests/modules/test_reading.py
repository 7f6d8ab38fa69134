"""What is read or called outside of the Sequential that holds it is left as it is by `compact`.

PYTEST_DONT_REWRITE: an `assert` in a forward must be one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_compact_modules import dense
from torch import Tensor, nn
from torch.nn import functional as F

from evoae import compact

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))


def chain(*widths: int) -> nn.Sequential:
    """Layers with ReLU in between, each with a silent and a constant unit."""
    parts = [part for layer in dense(*widths) for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


class Model(nn.Module):
    """With a forward that is given."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.call, self.net = call, chain(8, 9, 6, 5)
        self.held = [self.net[2]]  # not registered

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def collected(m: Model, x: Tensor) -> list[Tensor]:
    seen = []
    for part in m.net:
        x = part(x)
        seen.append(x)
    return seen


def tied(m: Model, x: Tensor) -> Tensor:
    h = F.linear(m.net(x), m.net[4].weight.t()).relu()
    return F.linear(F.linear(h, m.net[2].weight.t()), m.net[0].weight.t())


def isinstance_of_tensor(m: Model, x: Tensor) -> Tensor:
    return m.net(x) + m.net[2].weight.sum() if isinstance(x, Tensor) else m.net(x)


def in_training(m: Model, x: Tensor) -> Tensor:
    return m.net[0](x) if m.training else m.net(x)


OUTSIDE = {
    "a tied decoder": (tied, "net.0 (Linear), net.2 (Linear), net.4 (Linear): read outside"),
    "data": (lambda m, x: m.net(x) + m.net[2].weight.data.sum(), "net.2 (Linear): read outside"),
    "all parameters": (
        lambda m, x: m.net(x) + sum(p.abs().sum() for p in m.parameters()), "net.4 (Linear): read"
    ),
    "a state dict": (
        lambda m, x: m.net(x) @ m.net.state_dict()["4.weight"], "net.4 (Linear): read outside"
    ),
    "an index": (lambda m, x: (m.net(x), m.net[0](x)), "net.0 (Linear): called outside"),
    "a slice": (lambda m, x: (m.net(x), m.net[:3](x)), "net.0 (Linear), net.2 (Linear): called"),
    "what each layer gives": (collected, "net.0 (Linear), net.2 (Linear), net.4 (Linear): called"),
    "forward itself": (lambda m, x: m.net.forward(x), "called outside its Sequential"),
    "a width": (
        lambda m, x: m.net(x) / m.net[0].out_features,
        "the whole module (Model): its forward computes with how many units a layer has",
    ),
    "a reference": (lambda m, x: m.net(x) + m.held[0].bias.sum(), "net.2 (Linear): read outside"),
    "other weights": (
        lambda m, x: torch.func.functional_call(
            m.net, {k: 2 * v for k, v in m.net.named_parameters()}, (x,)
        ),
        "read outside its Sequential",
    ),
    "for tensors alone": (isinstance_of_tensor, "net.2 (Linear): read outside its Sequential"),
    "in training alone": (in_training, "net.0 (Linear): called outside its Sequential"),
}  # fmt: skip


def as_list(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_used_outside_is_left_and_said(name: str) -> None:
    call, said = OUTSIDE[name]
    module = Model(call)
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        small = compact(module)
    assert len(caught) == 1
    for one, other in zip(as_list(small.eval()(X)), as_list(module.eval()(X)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    small.train()(X)  # training goes on


def checked(m: Model, x: Tensor) -> Tensor:
    assert x.shape[1] == 8 and x.dim() == 2, "8 columns"  # noqa: PT018
    if x.dim() != 2 or not x.isfinite().all():
        raise ValueError(f"of {x.shape}")
    return m.net(x)


def checked_again(m: Model, x: Tensor) -> Tensor:
    if x.dim() == 2:
        y = m.net(x)
    else:
        raise ValueError(f"{x.dim()} dimensions")
    while not y.isfinite().all():
        raise ArithmeticError("not finite")
    return y


def looped(m: Model, x: Tensor) -> Tensor:
    for part in m.net:
        if not isinstance(part, nn.ReLU) and bool(x.isnan().any()):
            raise RuntimeError(f"not a number in {x.shape}")
    return m.net(x)


def handled(m: Model, x: Tensor) -> Tensor:
    try:
        assert x.dim() == 2
    except TypeError as error:
        raise ValueError("no tensor") from error
    return m.net(x)


WITHIN = {
    "a call": lambda m, x: m.net(x),
    "two calls": lambda m, x: m.net(x) + m.net(x.flip(1)),
    "with a check after a check": checked_again,
    "with a check in a loop": looped,
    "with an exception that it handles": handled,
    "with noise": lambda m, x: m.net(x) + torch.randn_like(x[:, :5]),
    "with noise that is not seeded": lambda m, x: m.net(x) + torch.rand(1, generator=NOISE),
    "with checks": checked,
    "with checkpoints": lambda m, x: torch.utils.checkpoint.checkpoint(
        m.net, x, use_reentrant=False
    ),
}
NOISE = torch.Generator()


@pytest.mark.parametrize("name", WITHIN)
def test_what_is_used_through_its_sequential_alone_gets_smaller(name: str) -> None:
    module = Model(WITHIN[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compact(module)
    assert [small.net[n].out_features for n in (0, 2, 4)] == [7, 4, 5]
    torch.testing.assert_close(small.net(X), module.net(X), atol=1e-6, rtol=0)


GOES_ON = {
    "a condition": lambda m, x: m.net(x) if x.sum() > -1e9 else m.net[0](x),
    "a condition after a check": lambda m, x: m.net(x) if positive(x) > 0 else m.net[0](x),
    "a value that is used": lambda m, x: m.net(x) * int(x.sum() < 1e9),
    "a count": lambda m, x: m.net(x) / len(x),
    "a count of dimensions": lambda m, x: m.net(x) * len([0 for _ in range(x.ndim)]),
    "a number in words": lambda m, x: m.net(x) if f"{x.shape[1]:d}" else x,
    "a loop over rows": lambda m, x: torch.stack([m.net(row) for row in x]),
    "a handled exception": lambda m, x: otherwise(m, x),
}


ON_VALUES = {
    *("a condition", "a condition after a check", "a value that is used"),
    "a handled exception",
}


def positive(x: Tensor) -> Tensor:
    assert x.dim() == 2
    return x.sum().abs()


def otherwise(m: Model, x: Tensor) -> Tensor:
    try:
        assert x.sum() < -1e9
    except AssertionError:
        return m.net(x)
    return m.net[0](x)


@pytest.mark.parametrize("name", GOES_ON)
def test_what_depends_on_its_input_needs_an_example(name: str) -> None:
    module = Model(GOES_ON[name])
    with pytest.warns(UserWarning, match="net.4 .* cannot be followed without example="):
        same = compact(module)
    assert same.net[0].out_features == 9
    if name in ON_VALUES:  # an example shows one way only, and other rows may go another
        with pytest.warns(UserWarning, match="leaves as it is: the whole module"):
            small = compact(module, example=X)
    elif name == "a loop over rows":  # it is unrolled, and a layer has many readers then
        with pytest.warns(UserWarning, match="silent units stay"):
            small = compact(module, example=X)
        torch.testing.assert_close(small(X[:7]), module(X[:7]), atol=1e-6, rtol=0)
    else:
        small = compact(module, example=X)
    left = 9 if name in ON_VALUES else 8 if name == "a loop over rows" else 7
    assert small.net[0].out_features == left
    torch.testing.assert_close(small(X), module(X), atol=1e-6, rtol=0)


def test_a_forward_that_refuses_either_way_is_not_followed() -> None:
    def refusing(m: Model, x: Tensor) -> Tensor:
        y = m.net(x)
        if y.sum() > 0:
            raise ValueError("above")
        raise ValueError("below")

    with pytest.warns(UserWarning, match=r"cannot be followed without example= \(above\)"):
        compact(Model(refusing))


def test_many_checks_are_followed_quickly() -> None:
    calls = []

    def checks(m: Model, x: Tensor) -> Tensor:
        calls.append(0)
        for number in range(8):
            assert x.shape[1] > number - 8
        return m.net(x)

    assert compact(Model(checks)).net[0].out_features == 7
    assert len(calls) < 100


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = chain(8, 9, 6, 5)

    def forward(self, x: Tensor, hidden: bool = False, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask
        return self.net[0](x) if hidden else self.net(x)


def test_all_ways_of_calling_a_forward_are_looked_at() -> None:
    module = Optional()
    with pytest.warns(UserWarning, match=r"is: net.0 \(Linear\): called outside its Sequential$"):
        small = compact(module)
    assert [small.net[n].out_features for n in (0, 2, 4)] == [9, 4, 5]
    for given in ({}, {"hidden": True}, {"mask": X > 0}):
        torch.testing.assert_close(small(X, **given), module(X, **given), atol=1e-6, rtol=0)


def test_an_example_that_the_module_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="the module does not take example=: "):
        compact(Model(GOES_ON["a condition"]), example=X[:, :3])


def test_blocks_inside_a_sequential_get_smaller_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain(8, 9, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.net(x)

    module = nn.Sequential(Block(), nn.ReLU(), Block())
    small = compact(module)
    assert (small[0].net[0].out_features, small[2].net[0].out_features) == (7, 7)
    torch.testing.assert_close(small(X), module(X), atol=1e-5, rtol=0)


def test_a_module_is_left_as_it_was_and_nothing_global_is_drawn() -> None:
    module = Model(lambda m, x: keep(m, m.net(x)))
    module(X)
    state, held = torch.get_rng_state(), module.last
    compact(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.last is held
    assert [type(part) for part in module.net] == [type(part) for part in chain(8, 9, 6, 5)]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def keep(m: Model, y: Tensor) -> Tensor:
    m.last = y
    return y
