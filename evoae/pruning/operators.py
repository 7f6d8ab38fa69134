"""Pruning operators: mutations that set weights and biases to zero (paper, section on operators).

An operator is a pure function `operator(layer, rng, settings) -> (keep weight, keep bias)`, two
boolean tensors shaped like the layer's weight [out, in] and bias [out]. It looks at one layer of
one network, changes nothing, and draws from the generator it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evoae.networks.activations import UnitStatistics

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


Operator = Callable[[Layer, np.random.Generator, OperatorSettings], Masks]


def none(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Keep everything: the control."""
    return without_units(layer, torch.zeros(len(layer.bias), dtype=torch.bool))


def random(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """round(amount * size) entries of the weight and of the bias, uniformly from all entries."""

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
    """As released: the higher a unit's deviation, the likelier its weights are pruned."""
    return keep_with(1 - layer.deviation, layer, rng)


def variance_low(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """As the paper's text says: the lower a unit's deviation, the likelier."""
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
    """Baseline: the smallest absolute weights, and biases, of the layer."""
    bias = without_lowest(layer.bias.abs(), layer.active_bias, s)
    return without_lowest(layer.weight.abs(), layer.active, s), bias


def wanda(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Sun et al. 2024): the smallest |weight| times norm of its input."""
    bias = without_lowest(layer.bias.abs(), layer.active_bias, s)
    return without_lowest(layer.weight.abs() * layer.input_norm, layer.active, s), bias


def apoz(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Hu et al. 2016): of the units not yet pruned, those most often zero.

    A unit that was never zero is not pruned, so the output layer is left alone.
    """
    share = layer.zero_share
    there = layer.active.any(1) | layer.active_bias  # what is left of the units
    chosen = ~lowest(-share.masked_fill(~there, -1), round(s.amount * int(there.sum())))
    return without_units(layer, chosen & (share > 0))


def prune_and_regrow(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (SET, Mocanu et al. 2018): sparse from the first prune on, in ever other places.

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


prune_and_regrow.regrows = True  # its masks open weights again; a user's operator may say so, too


OPERATORS: dict[str, Operator] = {
    "none": none,
    "random": random,
    "variance-high": variance_high,
    "variance-low": variance_low,
    "conjunctive": conjunctive,
    "magnitude": magnitude,
    "wanda": wanda,
    "apoz": apoz,
    "set": prune_and_regrow,
}
REACH_A_TARGET = ("random", "magnitude", "wanda")


def regrows(operator: str | Operator) -> bool:
    """Whether an operator's masks open pruned weights again; then its weights must be masked."""
    function = OPERATORS.get(operator) if isinstance(operator, str) else operator
    return getattr(function, "regrows", False)


def names() -> list[str]:
    return list(OPERATORS)


def register(name: str, operator: Operator) -> None:
    """Give a user's operator a name. Raises ValueError if it is none, or the name is taken."""
    if not callable(operator) or not name:
        raise ValueError(f"operator {name!r}: {operator!r} must be a function, and have a name")
    if name in OPERATORS:
        raise ValueError(f"operator {name!r} exists already; choose another than {list(OPERATORS)}")
    OPERATORS[name] = operator


def find(name: str | Operator) -> Operator:
    """The function behind a name; a callable is its own. Raises ValueError with the names."""
    if callable(name):
        return name
    if name not in OPERATORS:
        raise ValueError(f"unknown operator {name!r}; choose one of {', '.join(OPERATORS)}")
    return OPERATORS[name]
