"""Pruning operators: mutations that set weights and biases to zero (paper, section on operators).

An operator is a pure function `(layer, rng, settings) -> (keep weight, keep bias)`, two boolean
tensors shaped like the layer's weight [out, in] and bias [out]. It looks at one layer of one
network, changes nothing, and draws from the generator it is given. What else is known of it stands
beside it in an `Operator`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from evoae.messages import short
from evoae.pruning import scores
from evoae.pruning.layer import LASTING, STATISTICS, Layer, Masks, OperatorSettings
from evoae.pruning.positions import POSITIONS, independent
from evoae.pruning.registry import Registry, sentence
from evoae.pruning.scores import Score, keep_probability, rescaled
from evoae.rules import check_known

if TYPE_CHECKING:
    from torch import Tensor

ANY = tuple(name for name in STATISTICS if name not in LASTING)
Function = Callable[[Layer, np.random.Generator, OperatorSettings], Masks]


@dataclass(frozen=True)
class Operator:
    """An operator's function, and what else it can do.

    `score`: what to prune first where a target sparsity is aimed at; without one, the function is
    called with `settings.to_target` and may heed it. `compares`: scores of different layers can be
    ranked together (allocation "global"). `regrows`: its masks open pruned weights again, so that
    they must be masked, and its mask begins at the target. `needs`: the `layer.STATISTICS` that it
    reads; None if it does not say, and may read any but those of `layer.LASTING`, which are summed
    only where they are named.
    `renews`: what it takes away gets fresh initial values, and is not pruned.
    `probability`: of the paper's base probability p. `reads_test`: what it recalls is of the test
    data in the released code.
    """

    function: Function
    score: Score | None = None
    compares: bool = False
    regrows: bool = False
    needs: tuple[str, ...] | None = None
    renews: bool = False
    probability: float = 0.5
    reads_test: bool = False

    def __post_init__(self) -> None:
        for name in self.needs or ():
            check_known(name, STATISTICS, f"unknown statistic {short(name)}")

    def __call__(self, layer: Layer, rng: np.random.Generator, settings: OperatorSettings) -> Masks:
        """The masks of weights and biases to keep."""
        return self.function(layer, rng, settings)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Those that it reads, or may read."""
        return ANY if self.needs is None else self.needs

    @property
    def lasting(self) -> tuple[str, ...]:
        """The statistics that must be summed from the start of training."""
        return tuple(name for name in self.statistics if name in LASTING)

    @property
    def idle(self) -> bool:
        """Whether it prunes nothing."""
        return self.function is none

    @property
    def description(self) -> str:
        """One sentence."""
        return sentence(getattr(self.function, "score", self.function))

    def abilities(self) -> dict[str, Any]:
        """What it can do, by name."""
        return {
            "reaches_target": self.score is not None or self.regrows,
            "compares_layers": self.compares,
            "regrows": self.regrows,
            "needs": list(self.statistics),
            "renews": self.renews,
            "reads_test_as_released": self.reads_test,
        }


@dataclass(frozen=True)
class PruneLowest:
    """The function of an operator that is known by its score: a share `amount` of the active."""

    score: Score

    def __call__(self, layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
        """The masks of weights and biases to keep."""
        weight, bias = self.score(layer, rng, s)
        return (
            without_lowest_share(weight, layer.active, s),
            without_lowest_share(bias, layer.active_bias, s),
        )


magnitude = PruneLowest(scores.magnitude)


def none(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune nothing: the control."""
    return without_units(layer, torch.zeros(len(layer.bias), dtype=torch.bool))


def random(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune a share of each layer's weights and biases, drawn from all entries.

    Uniformly, or as the setting `positions` spreads weights over units and inputs; with whole units
    go their biases.
    """
    shape, count = tuple(layer.weight.shape), round(s.amount * layer.weight.numel())
    taken = POSITIONS[s.positions]((shape[0], shape[1]), count, rng)
    of_biases = independent((1, len(layer.bias)), round(s.amount * len(layer.bias)), rng)[0]
    if s.positions == "units":  # the fullest rows, as many biases as elsewhere
        of_biases = np.zeros_like(of_biases)
        fullest = np.argsort(-taken.sum(1), kind="stable")
        of_biases[fullest[: round(s.amount * len(of_biases))]] = True
    return torch.from_numpy(~taken), torch.from_numpy(~of_biases)


def noise(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Control: as many entries as `random` would prune get fresh initial values instead of zero."""
    return random(layer, rng, s)


def draw_masks(probability: Tensor, layer: Layer, rng: np.random.Generator) -> Masks:
    """Keep each incoming weight of a unit, and its bias, with the unit's probability [out].

    Rescaled over the units first, unless all are equal.
    """
    out, fan_in = layer.weight.shape
    draws = torch.from_numpy(rng.random((out, fan_in + 1), np.float32))
    keep = draws < keep_probability(probability)[:, None]
    return keep[:, :-1], keep[:, -1]


def variance_high(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune units whose activation varies most, the more the likelier (as released)."""
    return draw_masks(1 - layer.deviation, layer, rng)


def variance_low(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune units whose activation varies least, the less the likelier (the paper's text)."""
    return draw_masks(layer.deviation, layer, rng)


def conjunctive(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune whole units that are low on every example ("lexicase" in the released code).

    On each example a unit is a candidate if its scaled activation is below the threshold (none is
    if all units are equal). Candidate sets are intersected until at most one unit is left.
    """
    candidates = (rescaled(layer.recall()) < s.threshold).numpy()  # equal units: NaN, so none
    left = np.logical_and.accumulate(candidates, axis=0)  # after each example, [examples, units]
    few = np.flatnonzero(left.sum(1) <= 1)
    return without_units(layer, torch.from_numpy(left[few[0] if len(few) else -1]))


def without_units(layer: Layer, pruned: Tensor) -> Masks:
    """Prune all incoming weights and the bias of the units marked in `pruned` [out]."""
    keep = ~pruned
    return keep[:, None].expand_as(layer.weight), keep


def all_but_lowest(scores: Tensor, count: int) -> Tensor:
    """Keep-mask without the `count` lowest scores."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.flatten().topk(count, largest=False).indices] = False
    return keep.view(scores.shape)


def without_lowest_share(worth: Tensor, active: Tensor, s: OperatorSettings) -> Tensor:
    """Keep-mask without the lowest scores, a share `amount` of the active entries."""
    return all_but_lowest(
        worth.masked_fill(~active, torch.inf), round(s.amount * int(active.sum()))
    )


def wanda(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Sun et al. 2024): prune the smallest |weight| times norm of its input in each row.

    A share `amount` of the layer's active weights goes; of equally many weights, rows lose equally
    many, or one more or less.
    """
    active = layer.active
    worth, rank = scores.ranked_in_rows(layer, torch.inf)
    share = (rank / active.sum(1, keepdim=True)).masked_fill(~active, torch.inf)
    order = torch.from_numpy(np.lexsort((worth.flatten(), share.flatten())))
    keep = torch.ones(active.numel(), dtype=torch.bool)
    keep[order[: round(s.amount * int(active.sum()))]] = False
    bias = without_lowest_share(layer.bias.abs(), layer.active_bias, s)
    return keep.view(active.shape), bias


def apoz(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (Hu et al. 2016): prune those of the units left that are most often zero.

    A unit that was never zero is not pruned, so the output layer is left alone.
    """
    share = layer.zero_share
    there = layer.active.any(1) | layer.active_bias  # what is left of the units
    chosen = ~all_but_lowest(-share.masked_fill(~there, -1), round(s.amount * int(there.sum())))
    return without_units(layer, chosen & (share > 0))


def drop_smallest(layer: Layer, s: OperatorSettings) -> tuple[Tensor, int]:
    """The active weights without the smallest, [out, in], and how many were dropped: a share
    `amount`, at a target no more than can open.
    """
    active = layer.active
    count = round(s.amount * int(active.sum()))
    if s.to_target:
        count = min(count, int((~active).sum()))
    worth = layer.weight.abs().masked_fill(~active, torch.inf)
    return active & all_but_lowest(worth, count), count


def set_(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (SET, Mocanu et al. 2018): prune the smallest, and regrow as many at random.

    The smallest of the active weights are pruned, a share `amount` of them, and as many that were
    not active, drawn at random, may be trained again. They begin at zero, and count as zeros until
    training has moved them. Biases stay as they are.
    """
    keep, count = drop_smallest(layer, s)
    idle = np.flatnonzero(~layer.active.numpy())
    regrown = rng.choice(idle, min(count, len(idle)), replace=False)
    keep.view(-1)[torch.from_numpy(regrown)] = True
    return keep, layer.active_bias


def rigl(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline (RigL, Evci et al. 2020): prune the smallest, regrow the largest gradients.

    As `set`, but the weights that open are those of the largest absolute gradient.
    """
    active = layer.active
    keep, count = drop_smallest(layer, s)
    slope = layer.gradients().weight.abs().masked_fill(active, -1.0)
    opened = slope.flatten().topk(min(count, int((~active).sum()))).indices
    keep.view(-1)[opened] = True
    return keep, layer.active_bias


def scored(score: Score, needs: tuple[str, ...]) -> Operator:
    """An operator that is known by its score, which compares between layers."""
    return Operator(PruneLowest(score), score, compares=True, needs=needs)


OPERATORS: Registry[Operator] = Registry(
    "operator",
    {
        "none": Operator(none, needs=()),
        "random": Operator(random, scores.random, compares=True, needs=()),
        "noise": Operator(noise, renews=True, needs=()),
        "variance-high": Operator(
            variance_high, scores.variance_high, needs=("deviation",), probability=0.1
        ),
        "variance-low": Operator(
            variance_low, scores.variance_low, needs=("deviation",), probability=0.1
        ),
        "conjunctive": Operator(
            conjunctive, scores.conjunctive, needs=("recall",), reads_test=True
        ),
        "magnitude": scored(scores.magnitude, needs=()),
        "wanda": Operator(wanda, scores.wanda, needs=("input_norm",)),
        "apoz": Operator(apoz, scores.apoz, needs=("zero_share",)),
        "lamp": scored(scores.lamp, needs=()),
        "taylor": scored(scores.taylor, needs=("gradients",)),
        "obd": scored(scores.obd, needs=("curvature",)),
        "movement": scored(scores.movement, needs=("movement",)),
        "snip": scored(scores.snip, needs=("sensitivity",)),
        "set": Operator(set_, regrows=True, needs=()),
        "rigl": Operator(rigl, regrows=True, needs=("gradients",)),
    },
)


def register(name: str, function: Function | None = None, **abilities: Any) -> None:
    """Give a user's operator a name; `abilities` are the other fields of `Operator`.

    Of an operator that is known by its `score`, the function may be left out. Raises ValueError if
    it is no function, or the name is taken.
    """
    if function is None and callable(abilities.get("score")):
        function = PruneLowest(abilities["score"])
    OPERATORS.add(name, Operator(cast(Function, function), **abilities))  # which refuses None


def find(operator: str | Function) -> Operator:
    """The operator behind a name, or of a function. Raises ValueError with the names."""
    if isinstance(operator, Operator):
        return operator
    if not callable(operator):
        return OPERATORS.named(operator)
    OPERATORS.check(operator)
    return OPERATORS.of(operator) or Operator(operator)
