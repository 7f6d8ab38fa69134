"""What networks are trained on: the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


LOSSES = ("l1", "bce")
OPTIMISERS = ("adam-per-batch", "adam")


@dataclass(frozen=True)
class Batches:
    """What V visits train on, one pass over their data.

    `pairs` int64 [V, batches, k, 2]: the k (encoder, decoder) pairs that take a step on each batch,
    one after the other, as indices into the population; no two visits share a network.
    `inputs` and `targets`: V float32 tensors [rows, D], the same ones unless denoising;
    `order` int64 [V, n]: rows in training order, the last of the batches may be partial;
    `rates` float64 [V]; `loss` one of LOSSES, `optimiser` one of OPTIMISERS;
    `latent`: noise float32 [V, n, code] of variational autoencoders.
    """

    pairs: Tensor
    inputs: Sequence[Tensor]
    targets: Sequence[Tensor]
    order: Tensor
    rates: Tensor
    batch_size: int
    loss: str
    optimiser: str
    latent: Tensor | None = None

    @property
    def model_steps(self) -> int:
        """One model, one batch, one update each."""
        return self.pairs.shape[0] * self.pairs.shape[1] * self.pairs.shape[2]
