"""What an operator sees of a layer, and the settings it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from evoae.networks.gradients import Gradients

if TYPE_CHECKING:
    from torch import Tensor

Masks: TypeAlias = "tuple[Tensor, Tensor]"
EXAMPLES = 100  # drawn for an operator that recalls some
# Statistics by name. Those of LASTING are summed from the start of training, for operators that
# declare them; the others are of the time since the last prune, or of the moment of the prune.
LASTING = ("movement", "sensitivity")
STATISTICS = (
    "mean", "deviation", "zero_share", "input_norm", "recall", "gradients", "curvature", *LASTING,
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """What an operator may look at, all of it in the CPU's memory.

    `weight` [out, in] and `bias` [out] must not be changed. `statistic(name)` gives one of
    `STATISTICS`, computed when it is asked for; the properties and methods below call it. `masks`
    are the entries that are not masked, None where pruned weights regrow.
    """

    weight: Tensor
    bias: Tensor
    statistic: Callable[[str], Any]
    masks: Masks | None = None

    @property
    def active(self) -> Tensor:
        """Which weights are not pruned (not zero, where pruned ones regrow), [out, in]."""
        return self.weight != 0 if self.masks is None else self.masks[0]

    @property
    def active_bias(self) -> Tensor:
        """Which biases are not pruned, [out]."""
        return self.bias != 0 if self.masks is None else self.masks[1]

    @property
    def mean(self) -> Tensor:
        """Mean activation of each unit while training, [out]."""
        return self.statistic("mean")

    @property
    def deviation(self) -> Tensor:
        """Standard deviation (population form) of each unit's activation, [out]."""
        return self.statistic("deviation")

    @property
    def zero_share(self) -> Tensor:
        """Share of examples on which a unit's activation is exactly zero, [out]."""
        return self.statistic("zero_share")

    @property
    def input_norm(self) -> Tensor:
        """Root mean square of each input, [in]."""
        return self.statistic("input_norm")

    @property
    def movement(self) -> Masks:
        """Sums of -w g over the epochs, of weight and bias: how far they moved away from zero."""
        return self.statistic("movement")

    @property
    def sensitivity(self) -> Masks:
        """|w g| of weight and bias before the first step."""
        return self.statistic("sensitivity")

    def recall(self) -> Tensor:
        """Activations of drawn examples, [100, out]."""
        return self.statistic("recall")

    def gradients(self) -> Gradients:
        """Mean gradients of the training loss on drawn rows."""
        return self.statistic("gradients")

    def curvature(self) -> Masks:
        """Mean square gradients of weight and bias: those that Adam keeps, else on drawn rows."""
        return self.statistic("curvature")


@dataclass(frozen=True)
class OperatorSettings:
    """`amount`: a share of all entries (`random`), of the active ones (`magnitude`, `wanda`, `set`)
    or of active units (`apoz`); `threshold`: of scaled activations, for `conjunctive`.

    `to_target`: the amount is a share of parameters to have pruned, those already pruned included.
    How it is spread: `allocation` over layers ("layer", "erk" or "global"), `prune_biases` or
    weights alone, and `drop_fraction`, the share of active entries swapped for masked ones with the
    largest gradients. `positions`: how `random` spreads a prune over units and inputs.
    """

    amount: float = 0.1
    threshold: float = 0.1
    to_target: bool = False
    allocation: str = "layer"
    prune_biases: bool = True
    drop_fraction: float = 0.0
    positions: str = "independent"
