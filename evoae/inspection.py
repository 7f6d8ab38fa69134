"""Looking into one autoencoder: its activations, and what an operator would remove."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evoae import activations, operators
from evoae.activations import layer_names, record
from evoae.population import Population


@dataclass(frozen=True)
class Pruning:
    """One application of an operator to a copy of an autoencoder, by layer name.

    `before` and `after`: activations [examples, units]; `keep`: masks over weights [out, in];
    `pruned`: units of which every incoming weight and the bias were removed [units];
    `population`: the pruned copy, alone.
    """

    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    keep: dict[str, np.ndarray]
    pruned: dict[str, np.ndarray]
    population: Population

    @property
    def removed_share(self) -> float:
        """Share of weights (without biases) that the operator removed."""
        return 1 - sum(k.sum() for k in self.keep.values()) / sum(
            k.size for k in self.keep.values()
        )


def prune_once(
    population: Population,
    place: int,
    operator: str | operators.Operator,
    train: Tensor,
    examples: Tensor,
    *,
    amount: float = 0.1,
    threshold: float = 0.1,
    seed: int = 1,
) -> Pruning:
    """Prune a copy of the autoencoder at `place` once; the population stays as it is.

    Unit statistics are those of the finished autoencoder over `train` [rows, D]; `examples` [n, D]
    are what the activations are shown for.
    """
    index = torch.tensor([place])
    member = population.take(index, index)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        encoded = member.encoder.activations(train[None])
        decoded = member.decoder.activations(member.code(encoded[-1]))
    for side, seen in zip(member.sides, (encoded, decoded), strict=True):
        activations.reset(side)
        activations.observe(side, seen)
    pruned = member.take(torch.tensor([0]), torch.tensor([0]))
    drawn = train[torch.from_numpy(rng.integers(0, len(train), 100))]
    operators.prune(
        pruned,
        0,
        operators.find(operator),
        rng,
        operators.OperatorSettings(amount, threshold),
        drawn,
    )
    keep, units = {}, {}
    layers = [layer for side in member.sides for layer in side.layers()]
    after = [layer for side in pruned.sides for layer in side.layers()]
    for name, (weight, bias), (new_weight, new_bias) in zip(
        layer_names(member), layers, after, strict=True
    ):
        kept = (new_weight[0] != 0) | (weight[0] == 0)
        bias_kept = (new_bias[0] != 0) | (bias[0] == 0)
        keep[name] = kept.numpy()
        units[name] = ~(kept.any(1) | bias_kept).numpy()
    shown = [record(one, 0, examples) for one in (member, pruned)]
    before_after = [{k: v.numpy() for k, v in layers.items()} for layers in shown]
    return Pruning(*before_after, keep, units, pruned)
