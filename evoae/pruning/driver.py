"""One prune, of whatever has layers: an operator decides, and its masks are applied.

A `Source` is a member of a population (`pruning.members`) or a user's module (`modules.pruner`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evoae.messages import short
from evoae.pruning import allocation
from evoae.pruning.layer import Layer, Masks, OperatorSettings
from evoae.pruning.operators import Operator, scored
from evoae.pruning.scores import random as random_scores
from evoae.pruning.units import Units, select
from evoae.randomness import stream

AT_RANDOM = scored(random_scores, needs=())  # how `set` and `rigl` begin


class Source(Protocol):
    """What can be pruned. `size` counts its parameters; `absent` entries of its layers are none
    (a layer without a bias has one of zeros, which counts as pruned). `unit_groups`, if there are
    some, are pruned whole.
    """

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def absent(self) -> int: ...  # noqa: D102

    @property
    def unit_groups(self) -> Units | None: ...  # noqa: D102

    def layers(self) -> list[Layer]:
        """Its layers as operators see them."""
        ...

    def apply(self, masks: list[Masks], opens: bool, fresh: list[Masks] | None) -> list[Masks]:
        """Set what the masks do not keep to zero, or to `fresh` values, which lie in [-1, 1) and
        are yet to be scaled. Masked entries open again only if `opens`. Returns the masks.
        """
        ...


def prune(
    source: Source, operator: Operator, settings: OperatorSettings, rng: np.random.Generator
) -> list[Masks]:
    """Prune once; returns what was kept, layer by layer.

    Raises ValueError, before anything is changed, for masks that do not fit the layers.
    """
    layers = source.layers()
    settings_here = counting_absent(settings, operator, source)
    masks = decide(operator, layers, rng, settings_here, source.unit_groups)
    fresh = [drawn_like(layer, rng) for layer in layers] if operator.renews else None
    return source.apply(masks, operator.regrows or settings.drop_fraction > 0, fresh)


@functools.lru_cache(maxsize=4096)
def drawn_epochs(
    seed: int, trial: int, cell: int, count: int, weights: tuple[float, ...]
) -> frozenset[int]:
    """So many epochs drawn without replacement by their weights (Efraimidis and Spirakis 2006)."""
    draws = stream(seed, trial, 0, cell, "prune epochs").random(len(weights))
    with np.errstate(divide="ignore"):  # an epoch of weight 0 comes last
        keys = np.log(draws) / np.array(weights)
    return frozenset(np.argsort(-keys, kind="stable")[:count].tolist())


def is_reached(
    operator: Operator, settings: OperatorSettings, pruned: np.ndarray, parameters: int
) -> np.ndarray:
    """Of which counts of pruned parameters, of so many, a target is reached and nothing swaps."""
    if operator.regrows or settings.drop_fraction:
        return np.full_like(pruned, operator.regrows and settings.amount == 0, dtype=bool)
    return pruned >= round(settings.amount * parameters)


def decide(
    operator: Operator,
    layers: list[Layer],
    rng: np.random.Generator,
    s: OperatorSettings,
    units: Units | None = None,
) -> list[Masks]:
    """The keep-masks of all layers: by scores if there is a target, else layer by layer."""
    if units is not None and operator.score is not None:
        return select(layers, [operator.score(layer, rng, s) for layer in layers], units, rng, s)
    if s.to_target and operator.score is not None:
        found = [(layer, operator.score(layer, rng, s)) for layer in layers]
        whole = isinstance(found[0][1], Tensor)
        scores = [
            allocation.by_unit(layer, score, rng) if isinstance(score, Tensor) else score
            for layer, score in found
        ]
        masks = allocation.select(layers, scores, rng, s, whole)
        return allocation.exchange(layers, masks, scores, rng, s) if s.drop_fraction else masks
    masks = [checked(operator(layer, rng, s), layer, operator) for layer in layers]
    if s.prune_biases:
        return masks
    return [(mask, layer.active_bias) for (mask, _), layer in zip(masks, layers, strict=True)]


def counting_absent(s: OperatorSettings, operator: Operator, source: Source) -> OperatorSettings:
    """Settings whose target counts entries that are no parameters as pruned already."""
    if not (source.absent and s.to_target and operator.score):
        return s
    amount = (round(s.amount * source.size) + source.absent) / (source.size + source.absent)
    return dataclasses.replace(s, amount=amount)


def drawn_like(layer: Layer, rng: np.random.Generator) -> Masks:
    """Uniform numbers in [-1, 1), of the shapes of weight and bias."""
    weight, bias = (2 * rng.random(p.shape, np.float32) - 1 for p in (layer.weight, layer.bias))
    return torch.from_numpy(weight), torch.from_numpy(bias)


def checked(masks: Masks, layer: Layer, operator: Operator) -> Masks:
    """The two masks, if they fit the layer. Raises ValueError if they do not."""
    shapes = [tuple(layer.weight.shape), tuple(layer.bias.shape)]
    given = list(masks) if isinstance(masks, tuple | list) else [masks]
    if [(getattr(m, "dtype", None), getattr(m, "shape", None)) for m in given] != [
        (torch.bool, shape) for shape in shapes
    ]:
        name = getattr(operator.function, "__name__", operator.function)
        came = [f"{m.dtype} {tuple(m.shape)}" if isinstance(m, Tensor) else short(m) for m in given]
        raise ValueError(
            f"operator {name} must return two masks of torch.bool, of the weights {shapes[0]} and "
            f"of the biases {shapes[1]} to keep; it returned {' and '.join(came)}"
        )
    return masks
