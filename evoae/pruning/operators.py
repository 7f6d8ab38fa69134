"""Pruning operators: mutations that set weights and biases to zero (paper, section on operators).

An operator is a pure function `(layer, rng, settings) -> (keep weight, keep bias)`, two boolean
tensors shaped like the layer's weight [out, in] and bias [out]. It looks at one layer of one
network, changes nothing, and draws from the generator it is given. What else is known of it stands
beside it in an `Operator`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evoae.networks.activations import UnitStatistics
from evoae.pruning.registry import Registry, sentence

Masks = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Layer:
    """What an operator may look at, all of it in the CPU's memory.

    `weight` [out, in] and `bias` [out], not to be changed. The rest is computed when asked for:
    `mean`, `deviation` and `zero_share` of the units' activations while training, [out] each;
    `input_norm` [in], the root mean square of each input; `recall()`, the activations [100, out] of
    drawn examples; and `active` [out, in] and `active_bias` [out], the entries that are not masked
    (or not zero, where pruned ones regrow).
    """

    weight: Tensor
    bias: Tensor
    seen: Callable[[], UnitStatistics]
    incoming: Callable[[], Tensor]
    recall: Callable[[], Tensor]
    masks: Masks | None = None

    @property
    def active(self) -> Tensor:
        return self.weight != 0 if self.masks is None else self.masks[0]

    @property
    def active_bias(self) -> Tensor:
        return self.bias != 0 if self.masks is None else self.masks[1]

    @property
    def mean(self) -> Tensor:
        return self.seen().mean

    @property
    def deviation(self) -> Tensor:
        return self.seen().deviation

    @property
    def zero_share(self) -> Tensor:
        return self.seen().zero_share

    @property
    def input_norm(self) -> Tensor:
        return self.incoming()


@dataclass(frozen=True)
class OperatorSettings:
    """`amount`: a share of all entries (`random`), of the active ones (`magnitude`, `wanda`, `set`)
    or of active units (`apoz`); `threshold`: of scaled activations, for `conjunctive`.

    `to_target`: the amount is a share of zeros to reach, zeros already there included.
    """

    amount: float = 0.1
    threshold: float = 0.1
    to_target: bool = False


Function = Callable[[Layer, np.random.Generator, OperatorSettings], Masks]


@dataclass(frozen=True)
class Operator:
    """An operator's function, and what it can do.

    `reaches_target`: it heeds `settings.to_target`. `regrows`: its masks open pruned weights again,
    so that its weights must be masked. `probability`: of the paper's base probability p.
    `reads_test`: what it recalls is of the test data in the released code.
    """

    function: Function
    reaches_target: bool = True
    regrows: bool = False
    probability: float = 0.5
    reads_test: bool = False

    def __call__(self, layer: Layer, rng: np.random.Generator, settings: OperatorSettings) -> Masks:
        return self.function(layer, rng, settings)

    @property
    def description(self) -> str:
        """One sentence."""
        return sentence(self.function)

    def abilities(self) -> dict[str, Any]:
        """What it can do, by name."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "function"]
        return {name: getattr(self, name) for name in names}


def none(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune nothing: the control."""
    return without_units(layer, torch.zeros(len(layer.bias), dtype=torch.bool))


def random(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune a share of each layer's weights and biases, drawn uniformly from all entries."""

    def draw(tensor: Tensor) -> Tensor:
        keep, count = np.ones(tensor.numel(), dtype=bool), round(s.amount * tensor.numel())
        if s.to_target:
            zero = (tensor == 0).numpy().ravel()
            candidates, count = np.flatnonzero(~zero), max(0, count - int(zero.sum()))
        else:
            candidates = tensor.numel()
        keep[rng.choice(candidates, count, replace=False, shuffle=False)] = False
        return torch.from_numpy(keep.reshape(tensor.shape))

    return draw(layer.weight), draw(layer.bias)


def rescaled(values: Tensor) -> Tensor:
    """Values [..., units] scaled over units to [0, 1] by minimum and maximum."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low)


def keep_with(probability: Tensor, layer: Layer, rng: np.random.Generator) -> Masks:
    """Keep each incoming weight of a unit, and its bias, with the unit's probability [out].

    Rescaled over the units first, unless all are equal.
    """
    if probability.amin() != probability.amax():
        probability = rescaled(probability)
    out, fan_in = layer.weight.shape
    keep = torch.from_numpy(rng.random((out, fan_in + 1), np.float32)) < probability[:, None]
    return keep[:, :-1], keep[:, -1]


def variance_high(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune units whose activation varies most, the more the likelier (as released)."""
    return keep_with(1 - layer.deviation, layer, rng)


def variance_low(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune units whose activation varies least, the less the likelier (the paper's text)."""
    return keep_with(layer.deviation, layer, rng)


def conjunctive(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune whole units that are low on every example ("lexicase" in the released code).

    On each example a unit is a candidate if its scaled activation is below the threshold (none is
    if all units are equal). Candidate sets are intersected until at most one unit is left.
    """
    candidates = (rescaled(layer.recall()) < s.threshold).numpy()  # equal units: NaN, so none
    last = len(candidates) - 1
    ruled_out = np.where(candidates.all(0), last + 1, candidates.argmin(0))  # by which example
    one_left = np.sort(np.append(ruled_out, 0))[-2]  # after this example, at most
    return without_units(layer, torch.from_numpy(ruled_out > min(one_left, last)))


def without_units(layer: Layer, pruned: Tensor) -> Masks:
    """Prune all incoming weights and the bias of the units marked in `pruned` [out]."""
    keep = ~pruned
    return keep[:, None].expand_as(layer.weight), keep


def lowest(scores: Tensor, count: int) -> Tensor:
    """Keep-mask without the `count` lowest scores."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.flatten().topk(count, largest=False).indices] = False
    return keep.view(scores.shape)


def without_lowest(scores: Tensor, active: Tensor, s: OperatorSettings) -> Tensor:
    """Keep-mask without the lowest scores (0 or more): a share of the active, or up to a target."""
    if s.to_target:  # what is not active counts towards it
        return lowest(scores.masked_fill(~active, -1.0), round(s.amount * scores.numel()))
    return lowest(scores.masked_fill(~active, torch.inf), round(s.amount * int(active.sum())))


def magnitude(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline: prune the smallest absolute weights, and biases, of each layer."""
    bias = without_lowest(layer.bias.abs(), layer.active_bias, s)
    return without_lowest(layer.weight.abs(), layer.active, s), bias


def wanda(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Sun et al. 2024): prune the smallest |weight| times norm of its input."""
    bias = without_lowest(layer.bias.abs(), layer.active_bias, s)
    return without_lowest(layer.weight.abs() * layer.input_norm, layer.active, s), bias


def apoz(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Hu et al. 2016): prune those of the units left that are most often zero.

    A unit that was never zero is not pruned, so the output layer is left alone.
    """
    share = layer.zero_share
    there = layer.active.any(1) | layer.active_bias  # what is left of the units
    chosen = ~lowest(-share.masked_fill(~there, -1), round(s.amount * int(there.sum())))
    return without_units(layer, chosen & (share > 0))


def prune_and_regrow(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (SET, Mocanu et al. 2018): prune the smallest, and regrow as many at random.

    The smallest of the active weights are pruned, a share `amount` of them, and as many that were
    not active, drawn at random, may be trained again. They begin at zero, and count as zeros until
    training has moved them. Biases stay as they are.
    """
    active = layer.active
    count = round(s.amount * int(active.sum()))
    keep = active & lowest(layer.weight.abs().masked_fill(~active, torch.inf), count)
    idle = np.flatnonzero(~active.numpy())
    regrown = rng.choice(idle, min(count, len(idle)), replace=False)
    keep.view(-1)[torch.from_numpy(regrown)] = True
    return keep, layer.active_bias


OPERATORS: Registry[Operator] = Registry(
    "operator",
    {
        "none": Operator(none),
        "random": Operator(random),
        "variance-high": Operator(variance_high, reaches_target=False, probability=0.1),
        "variance-low": Operator(variance_low, reaches_target=False, probability=0.1),
        "conjunctive": Operator(conjunctive, reaches_target=False, reads_test=True),
        "magnitude": Operator(magnitude),
        "wanda": Operator(wanda),
        "apoz": Operator(apoz, reaches_target=False),
        "set": Operator(prune_and_regrow, reaches_target=False, regrows=True),
    },
)


def register(name: str, function: Function, **abilities: Any) -> None:
    """Give a user's operator a name; `abilities` are the other fields of `Operator`.

    Raises ValueError if it is no function, or the name is taken.
    """
    OPERATORS.add(name, Operator(function, **abilities))


def find(operator: str | Function) -> Operator:
    """The operator behind a name, or of a function. Raises ValueError with the names."""
    if isinstance(operator, Operator):
        return operator
    if not callable(operator):
        return OPERATORS.named(operator)
    own = [known for known in OPERATORS.values() if known.function is operator]
    return own[0] if own else Operator(operator)
