"""What an operator is shown of a layer, and the settings it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from evoae.networks.activations import UnitStatistics
from evoae.networks.gradients import Gradients

Masks = tuple[Tensor, Tensor]
EXAMPLES = 100  # drawn for an operator that recalls some


@dataclass(frozen=True)
class Layer:
    """What an operator may look at, all of it in the CPU's memory.

    `weight` [out, in] and `bias` [out], not to be changed. The rest is computed when asked for:
    `mean`, `deviation` and `zero_share` of the units' activations while training, [out] each;
    `input_norm` [in], the root mean square of each input; `recall()`, the activations [100, out] of
    drawn examples; `gradients()` of the training loss on drawn rows; `curvature()`, the mean square
    gradients of weight and bias that Adam keeps, else those on the drawn rows; `movement` and
    `sensitivity` of weight and bias (see `Operator.keeps`); and `active` [out, in] and
    `active_bias` [out], the entries that are not masked (or not zero, where pruned ones regrow).
    """

    weight: Tensor
    bias: Tensor
    seen: Callable[[], UnitStatistics]
    incoming: Callable[[], Tensor]
    recall: Callable[[], Tensor]
    masks: Masks | None = None
    gradients: Callable[[], Gradients] | None = None
    curvature: Callable[[], Masks] | None = None
    movement: Masks | None = None
    sensitivity: Masks | None = None

    @property
    def active(self) -> Tensor:
        """Which weights are not pruned, [out, in]."""
        return self.weight != 0 if self.masks is None else self.masks[0]

    @property
    def active_bias(self) -> Tensor:
        """Which biases are not pruned, [out]."""
        return self.bias != 0 if self.masks is None else self.masks[1]

    @property
    def mean(self) -> Tensor:
        """Mean activation of each unit, [out]."""
        return self.seen().mean

    @property
    def deviation(self) -> Tensor:
        """Standard deviation (population form) of each unit's activation, [out]."""
        return self.seen().deviation

    @property
    def zero_share(self) -> Tensor:
        """Share of examples on which a unit's activation is exactly zero, [out]."""
        return self.seen().zero_share

    @property
    def input_norm(self) -> Tensor:
        """Root mean square of each input, [in]."""
        return self.incoming()


@dataclass(frozen=True)
class OperatorSettings:
    """`amount`: a share of all entries (`random`), of the active ones (`magnitude`, `wanda`, `set`)
    or of active units (`apoz`); `threshold`: of scaled activations, for `conjunctive`.

    `to_target`: the amount is a share of parameters to have pruned, those already pruned included.
    How it is spread: `allocation` over layers ("layer", "erk" or "global"), `prune_biases` or
    weights alone, and `exchange`, the share of active entries swapped for masked ones with the
    largest gradients.
    """

    amount: float = 0.1
    threshold: float = 0.1
    to_target: bool = False
    allocation: str = "layer"
    prune_biases: bool = True
    exchange: float = 0.0
