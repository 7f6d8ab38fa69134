"""What operators see of a module's layers, against the same worked out in full."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evoae import Pruner
from evoae.modules.observing import Observer

IMAGES = torch.randn(10, 2, 6, 5, generator=torch.Generator().manual_seed(1))


def everything(layer, rng, settings):
    layer.mean, layer.deviation, layer.zero_share, layer.input_norm, layer.gradients()
    return layer.active, layer.active_bias


def observed(module: nn.Module, batches: list[Tensor], **options: object) -> dict[str, Observer]:
    pruner = Pruner(module, everything, "fixed", 1, probability=1.0, **options)
    for batch in batches:
        module(batch).sum().backward()
    return {observer.target.name: observer for observer in pruner.observers}


def assert_seen(observer: Observer, activation: Tensor) -> None:
    """`activation`: [examples, units, positions]."""
    view = observer.view(None)
    rows = activation.detach().double().transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(view.mean, rows.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(view.deviation, rows.std(0, correction=0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(view.zero_share, (rows == 0).double().mean(0), rtol=0, atol=1e-12)


class Functional(nn.Module):
    """ReLU as a module, a function and a method; batch normalisation; a sum of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.two, self.three = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.act, self.last = nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)

    def parts(self, x: Tensor) -> list[Tensor]:
        one = F.relu(self.norm(self.one(x)))
        two = self.act(self.two(one))
        three = self.three(two)
        return [one, two, three, self.last((three + one).relu()).relu()]

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)[-1]


def test_units_are_seen_after_normalisation_and_relu() -> None:
    module = Functional()
    seen = observed(module, list(IMAGES.split(5)))
    parts = [[part.flatten(2) for part in module.parts(batch)] for batch in IMAGES.split(5)]
    whole = [torch.cat(part) for part in zip(*parts, strict=True)]
    assert (whole[1] == 0).any()
    for name, activation in zip(("one", "two", "three", "last"), whole, strict=True):
        assert_seen(seen[name], activation)
    assert [seen[name].target.relu for name in ("one", "two", "three", "last")] == [
        True, True, False, True,
    ]  # fmt: skip


class Undecided(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > -1e9 else x


def test_where_tracing_fails_the_user_says_what_relu_follows() -> None:
    assert not observed(Undecided(), [])["two"].target.relu
    assert observed(Undecided(), [], relu=["two"])["two"].target.relu
    with pytest.raises(ValueError, match="there is no layer 'four'"):
        observed(Undecided(), [], relu=["four"])
    inside = Undecided()
    inside.add_module("block", nn.Sequential(nn.Linear(2, 2), nn.ReLU()))  # a part that it can
    assert observed(inside, [])["block.0"].target.relu


def test_inputs_of_dense_convolutional_and_grouped_layers() -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(2), nn.Linear(12, 3), nn.ReLU()
    )
    seen = observed(module, [IMAGES])
    norms = IMAGES.double().square().mean((0, 2, 3)).sqrt()
    first = seen["0"].view(None)
    assert first.weight.shape == (4, 9)
    expected = norms.repeat_interleave(2)[:, None].expand(4, 9)
    torch.testing.assert_close(first.input_norm, expected, rtol=1e-6, atol=0)
    x = module[:3](IMAGES).detach()  # [examples, channels, positions], the last are inputs
    norms = x.double().square().mean((0, 1)).sqrt()
    torch.testing.assert_close(seen["3"].view(None).input_norm, norms, rtol=1e-6, atol=0)
    assert_seen(seen["3"], module(IMAGES).mT)
    assert (seen["0"].positions, seen["3"].positions) == (12, 4)


def test_a_constant_unit_has_no_deviation_and_a_small_one_is_found() -> None:
    module = nn.Linear(1, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0], [1e-3]]))
        module.bias.fill_(1000.3)
    rows = torch.linspace(-1, 1, 64)[:, None]
    view = observed(module, list(rows.split(16)))[""].view(None)
    assert view.deviation[0] < 1e-4
    exact = module(rows)[:, 1].double().std(correction=0).item()
    assert view.deviation[1].item() == pytest.approx(exact, rel=1e-2)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(torch.relu(self.layer(x))))


def test_a_layer_that_is_called_twice_is_seen_in_both_calls() -> None:
    module, x = Twice(), torch.randn(20, 3)
    seen = observed(module, [x])["layer"]
    first = module.layer(x).relu()
    assert_seen(seen, torch.cat([first, module.layer(first).relu()])[..., None])


def test_only_training_passes_are_seen() -> None:
    module = Functional()
    seen = observed(module, [IMAGES])["one"]
    before = seen.state_dict()
    module.eval()(IMAGES)
    with torch.no_grad():
        module.train()(IMAGES)
    after = seen.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert before["units"] == 10 * 4 * 3


def test_gradients_are_means_over_backward_passes_also_of_masked_entries() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2, bias=False))
    options = {"probability": 1.0, "amount": 0.6, "pruned_weights": "masked"}
    pruner = Pruner(module, "rigl", "fixed", 2, **options)
    x = torch.randn(8, 4)
    module(x).sum().backward()
    pruner.epoch_end()
    module.zero_grad()
    found = []
    for batch in x.split(4):
        weight = module[0].weight.detach().requires_grad_()
        (F.linear(batch, weight, module[0].bias).relu() @ module[2].weight.T).sum().backward()
        found.append(weight.grad)
        module.zero_grad()
        module(batch).sum().backward()
        assert (module[0].parametrizations.weight.original.grad[module[0].weight == 0] == 0).all()
    view = pruner.observers[0].view(None)
    torch.testing.assert_close(view.gradients().weight, sum(found) / 2, rtol=1e-5, atol=1e-6)
    assert (view.gradients().weight[~view.active] != 0).any()


@pytest.mark.parametrize("scale", [torch.inf, torch.nan, 3e38])
def test_entries_of_a_gradient_that_overflows_count_as_zeros(scale: float) -> None:
    module = nn.Sequential(nn.Linear(3, 2, bias=False))
    pruner = Pruner(module, "obd", "fixed", 1, probability=1.0)
    factors = torch.tensor([[1.0], [scale]])
    for x in (torch.ones(2, 3), torch.ones(2, 3)):
        (module(x) @ factors).sum().backward()
        module.zero_grad()
    curvature, _ = pruner.observers[0].view(None).curvature()
    assert torch.equal(curvature[0], torch.full((3,), 4.0))
    assert (curvature[1] == 0).all()


class WithPenalty(nn.Linear):
    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(input), self.weight.abs().sum()


CALLS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "by keyword": lambda layer, x: layer(input=x),
    "row by row": lambda layer, x: torch.stack([layer(row) for row in x]),
    "gives two": lambda layer, x: layer(x)[0],
}


@pytest.mark.parametrize("operator", ["magnitude", "wanda", "variance-low"])
@pytest.mark.parametrize("way", CALLS)
def test_layers_are_seen_however_they_are_called(way: str, operator: str) -> None:
    found, x = [], torch.rand(9, 6, generator=torch.Generator().manual_seed(1))
    for kind, call in (
        (nn.Linear, nn.Module.__call__),
        (WithPenalty if way == "gives two" else nn.Linear, CALLS[way]),
    ):
        torch.manual_seed(2)
        layer = kind(6, 4)
        pruner = Pruner(layer, operator, "one-shot", 1, target_sparsity=0.5)
        call(layer, x).square().mean().backward()
        seen = pruner.observers[0].view(None)
        statistic = {"wanda": "input_norm", "variance-low": "deviation"}.get(operator, "weight")
        found.append(getattr(seen, statistic))
        assert pruner.epoch_end()
        assert pruner.report().macs.iloc[0] == (pruner.finish().weight != 0).sum()
    torch.testing.assert_close(*found)
