"""Scores: how much each entry, or each unit, is worth; the lowest is pruned first.

A score is a pure function `(layer, rng, settings)`. It returns scores of entries, for the weight
[out, in] and the bias [out]; or of whole units, [out]. A target sparsity is reached by a score and
`allocation.select`, which is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from evoae.pruning.layer import Layer, Masks, OperatorSettings

if TYPE_CHECKING:
    from torch import Tensor

Score: TypeAlias = "Callable[[Layer, np.random.Generator, OperatorSettings], Masks | Tensor]"


def rescaled(values: Tensor) -> Tensor:
    """Values [..., units] scaled over units to [0, 1] by minimum and maximum."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low)


def keep_probability(probability: Tensor) -> Tensor:
    """The released probability of keeping a unit's weights, [out]: rescaled unless all equal."""
    if probability.amin() == probability.amax():
        return probability
    return rescaled(probability)


def random(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Prune entries drawn uniformly."""
    return (
        torch.from_numpy(rng.random(tuple(layer.weight.shape))),
        torch.from_numpy(rng.random(len(layer.bias))),
    )


def magnitude(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Baseline: prune the smallest absolute weights and biases."""
    return layer.weight.abs(), layer.bias.abs()


def ranked_in_rows(layer: Layer, pruned: float) -> tuple[Tensor, Tensor]:
    """|weight| times norm of its input, or `pruned` where it is pruned, and ranks in its row
    from 0, [out, in] each.
    """
    worth = (layer.weight.abs() * layer.input_norm).masked_fill(~layer.active, pruned)
    return worth, worth.argsort(dim=1, stable=True).argsort(dim=1, stable=True)


def wanda(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Sun et al. (2024): the smallest |weight| times norm of its input, equally many in each row.

    The score is the rank within the row, from 0 to 1: as published, rows are not compared.
    """
    _, rank = ranked_in_rows(layer, -1.0)
    return rank / max(1, rank.shape[1]), layer.bias.abs()


def variance_key(probability: Tensor, layer: Layer, rng: np.random.Generator) -> Masks:
    """Keys that prune entries in the released random order, with the probability [out] of a unit.

    Efraimidis and Spirakis (2006): the largest log(U) / p are a weighted sample without
    replacement. `probability` is that of keeping, before it is rescaled.
    """
    pruned = (1 - keep_probability(probability)).clamp(min=0).double()[:, None]
    out, fan_in = layer.weight.shape
    draws = torch.from_numpy(np.log1p(-rng.random((out, fan_in + 1))))
    keys = torch.where(pruned > 0, -draws / pruned, torch.inf)
    return keys[:, :-1], keys[:, -1]


def variance_high(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Entries of units whose activation varies most are pruned first, at random as released."""
    return variance_key(1 - layer.deviation, layer, rng)


def variance_low(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Entries of units whose activation varies least are pruned first, at random as in the text."""
    return variance_key(layer.deviation, layer, rng)


def conjunctive(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Tensor:
    """Units by their largest scaled activation over examples.

    A unit is below a threshold on every example exactly if its largest is. Examples on which all
    units are equal say nothing and are left out.
    """
    scaled = rescaled(layer.recall())
    return scaled.nan_to_num(nan=0.0).amax(0)


def apoz(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Tensor:
    """Units by how seldom they are zero (Hu et al. 2016)."""
    return -layer.zero_share


def lamp(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Lee et al. (2021): prune the smallest w^2 over the sum of larger w^2; layers compare."""

    def worth(values: Tensor) -> Tensor:
        squares, order = values.double().square().flatten().sort()
        larger = squares.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(torch.float64).tiny)
        found = torch.empty_like(squares)
        found[order] = squares / larger
        return found.view(values.shape)

    return worth(layer.weight), worth(layer.bias)


def taylor(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Molchanov et al. (2019): prune the smallest |w g|, the loss that zeroing would cost."""
    found = layer.gradients()
    return (layer.weight * found.weight).abs(), (layer.bias * found.bias).abs()


def obd(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Le Cun et al. (1990): prune the smallest w^2 E[g^2]; E is a persistent Adam's moment."""
    weight, bias = layer.curvature()
    return layer.weight.square() * weight, layer.bias.square() * bias


def movement(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Sanh et al. (2020): prune what moved towards zero most, by the sum of -w g while training."""
    return layer.movement


def snip(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> Masks:
    """Lee et al. (2019): prune the smallest |w g| of the network as it was before training."""
    return layer.sensitivity
