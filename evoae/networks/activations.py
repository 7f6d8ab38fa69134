"""What the units of a network did: streamed statistics, and recorded activations for heatmaps.

Statistics are sums per unit, in double precision, over all layers of a network side by side, so
their memory does not depend on how long they are collected: `count` [P], and `total`, `squares` and
`zeros` [P, units]. Sums of two stretches add up. They live beside the weights and travel with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evoae.networks.population import Networks, Population

if TYPE_CHECKING:
    from torch import Tensor

SUMS = ("count", "total", "squares", "zeros")


def reset(networks: Networks, index: Tensor | slice = slice(None)) -> None:
    """Forget what was seen by the networks at `index` (all by default)."""
    if "count" not in networks.tensors:
        device, units = networks.weights.device, sum(networks.widths[1:])
        shape = {"count": (len(networks),)}
        for name in SUMS:
            zeros = torch.zeros(shape.get(name, (len(networks), units)), dtype=torch.float64)
            networks.tensors[name] = zeros.to(device)
    for name in SUMS:
        networks.tensors[name][index] = 0


def observe(networks: Networks, activations: list[Tensor]) -> None:
    """Add the activations of one batch, a list over layers of [P, batch, units]."""
    tensors, seen = networks.tensors, torch.cat(activations, 2)
    tensors["count"] += seen.shape[1]
    wide = seen.double()
    tensors["total"] += wide.sum(1)
    tensors["squares"] += wide.mul_(wide).sum(1)
    # as numbers: sums of booleans take five times as long
    tensors["zeros"] += torch.eq(seen, 0, out=seen).sum(1)


@dataclass(frozen=True)
class UnitStatistics:
    """Of one layer's units, [units]: mean, standard deviation (population form), share of zeros."""

    mean: Tensor
    deviation: Tensor
    zero_share: Tensor

    @property
    def norm(self) -> Tensor:
        """Root mean square of each unit's activation: its L2 norm over the square root of n."""
        return (self.mean.square() + self.deviation.square()).sqrt()


def statistics(networks: Networks, i: int) -> list[UnitStatistics]:
    """Of network i, layer by layer. All zero where nothing was observed."""
    count = networks.tensors["count"][i].clamp(min=1)
    mean = networks.tensors["total"][i] / count
    deviation = (networks.tensors["squares"][i] / count - mean.square()).clamp(min=0).sqrt()
    zero_share = networks.tensors["zeros"][i] / count
    widths = list(networks.widths[1:])
    parts = (part.split(widths) for part in (mean, deviation, zero_share))
    return [UnitStatistics(*layer) for layer in zip(*parts, strict=True)]


def layer_names(population: Population) -> list[str]:
    """Names from input to output: encoder 1, ..., code, decoder 1, ..., output."""
    hidden = [len(side.widths) - 2 for side in population.sides]
    return [
        *(f"encoder {n + 1}" for n in range(hidden[0])),
        "code",
        *(f"decoder {n + 1}" for n in range(hidden[1])),
        "output",
    ]


def record(population: Population, i: int, examples: Tensor) -> dict[str, Tensor]:
    """Activations of autoencoder i for examples [n, D]: layer name to [n, units].

    After ReLU; of the output layer before the sigmoid.
    """
    # a copy: where a row lies in memory, and so who its neighbours are, may change the last bits
    encoder, decoder = (side.views(side.weights[i : i + 1].clone()) for side in population.sides)
    with torch.no_grad():
        encoded = population.encoder.activations(examples[None], encoder)
        decoded = population.decoder.activations(population.code(encoded[-1]), decoder)
    return {
        name: layer[0]
        for name, layer in zip(layer_names(population), encoded + decoded, strict=True)
    }
