"""Where a target sparsity is reached: shares of layers, and the one selector of all scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from evoae.pruning.layer import Layer, Masks, OperatorSettings

if TYPE_CHECKING:
    from torch import Tensor

ALLOCATIONS = ("layer", "erk", "global")


def spread(total: int, weights: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to `total`, in proportion to weights [n] and none above most [n].

    By largest remainder. Raises ValueError if `most` does not hold so many.
    """
    if total > most.sum():
        raise ValueError(f"{total} entries do not fit into {int(most.sum())}")
    low, high = 0.0, 1.0
    while np.minimum(high * weights, most).sum() < total and high < 1e30:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        below = np.minimum(middle * weights, most).sum() < total
        low, high = (middle, high) if below else (low, middle)
    exact = np.minimum(high * weights, most)
    found = np.floor(exact + 1e-9).astype(np.int64)
    by_remainder = np.argsort(-(exact - found), kind="stable")
    with_room = [n for n in by_remainder if found[n] < most[n]]
    for n in with_room[: total - int(found.sum())]:
        found[n] += 1
    return found


def density(allocation: str, shape: Sequence[int]) -> float:
    """How densely a layer of weights [out, in] is kept, up to a common factor.

    "erk" is Erdos-Renyi (Mocanu et al. 2018, Evci et al. 2020): (in + out) / (in out).
    """
    out, fan_in = shape
    return (out + fan_in) / (out * fan_in) if allocation == "erk" else 1.0


def parameters_to_prune(share: float, layers: list[Layer]) -> int:
    """round(share * N) of all N parameters, biases included."""
    return round(share * sum(layer.weight.numel() + layer.bias.numel() for layer in layers))


def groups_of(layers: list[Layer], s: OperatorSettings, units: bool) -> list[list[tuple[int, int]]]:
    """Which tensors are ranked together, as (layer, 0 for weight or 1 for bias) pairs.

    All of them for a global allocation; else each tensor on its own, but that units take their
    biases with them.
    """
    parts = (0, 1) if s.prune_biases else (0,)
    by_layer = [[(number, part) for part in parts] for number in range(len(layers))]
    if s.allocation == "global":
        return [[tensor for group in by_layer for tensor in group]]
    return by_layer if units else [[tensor] for group in by_layer for tensor in group]


def flat(tensors: list[Masks], group: list[tuple[int, int]]) -> np.ndarray:
    """The tensors of a group side by side, [n]."""
    return np.concatenate([tensors[number][part].numpy().ravel() for number, part in group])


def put(tensors: list[Masks], group: list[tuple[int, int]], values: np.ndarray) -> None:
    """Overwrite the tensors of a group by values [n]."""
    start = 0
    for number, part in group:
        tensor = tensors[number][part]
        own = values[start : start + tensor.numel()]
        tensor.copy_(torch.from_numpy(own.reshape(tensor.shape)))
        start += tensor.numel()


def select(
    layers: list[Layer],
    scores: list[Masks],
    rng: np.random.Generator,
    s: OperatorSettings,
    units: bool = False,
) -> list[Masks]:
    """Keep-masks with exactly round(amount * N) entries pruned, what is pruned already included.

    Of all N parameters of the layers; with `prune_biases=False` biases stay, and the weights give
    the whole number. Entries go in the order of their scores, ties by a draw; `units` says that the
    scores are those of `by_unit`. If more are pruned already, nothing changes. Raises ValueError
    if that many may not be pruned.
    """
    masks = [(layer.active.clone(), layer.active_bias.clone()) for layer in layers]
    groups = groups_of(layers, s, units)
    there = [flat(masks, group) for group in groups]
    size = np.array([len(each) for each in there])
    left = np.array([np.count_nonzero(each) for each in there])
    pruned = sum(int((~part).sum()) for mask in masks for part in mask)
    more = max(0, parameters_to_prune(s.amount, layers) - pruned)
    if more > left.sum():
        raise ValueError(
            f"{pruned + more} parameters are to be pruned, and only {pruned + left.sum()} may be"
        )
    dense = [density(s.allocation, layers[g[0][0]].weight.shape) for g in groups]
    kept = spread(int(left.sum()) - more, np.array(dense) * size, left)
    for group, active, quota in zip(groups, there, left - kept, strict=True):
        chosen = lowest(flat(scores, group), active, int(quota), rng)
        put(masks, group, active & ~chosen)
    return masks


def lowest(
    worth: np.ndarray, active: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Marks the `count` active entries of lowest worth, [n]; among equal ones, a uniform draw."""
    chosen = np.zeros(len(worth), dtype=bool)
    if count <= 0:
        return chosen
    values = np.where(active, np.nan_to_num(worth, nan=-np.inf), np.inf)
    border = np.partition(values, count - 1)[count - 1]
    chosen[active & (values < border)] = True
    tied = np.flatnonzero(active & (values == border))
    missing = count - np.count_nonzero(chosen)
    chosen[rng.choice(tied, missing, replace=False) if missing < len(tied) else tied] = True
    return chosen


def by_unit(layer: Layer, score: Tensor, rng: np.random.Generator) -> Masks:
    """Scores of entries that take units [out] whole, in their order, the smallest weights first.

    An entry's score is its unit's rank, plus its own rank within the unit as a fraction.
    """
    order = torch.from_numpy(np.lexsort((rng.random(len(score)), score.double().numpy())))
    rank = torch.empty(len(score), dtype=torch.float64)
    rank[order] = torch.arange(len(score), dtype=torch.float64)
    entries = torch.cat([layer.weight.abs(), layer.bias.abs()[:, None]], dim=1)
    within = entries.argsort(dim=1, stable=True).argsort(dim=1, stable=True).double()
    worth = rank[:, None] + within / entries.shape[1]
    return worth[:, :-1], worth[:, -1]


def exchange(
    layers: list[Layer],
    masks: list[Masks],
    scores: list[Masks],
    rng: np.random.Generator,
    s: OperatorSettings,
) -> list[Masks]:
    """Masks with as many entries opened as closed: a share `drop_fraction` of the kept ones.

    The lowest scores close, and those of the largest absolute gradient open (Evci et al. 2020). An
    entry that is not there (a layer without bias) has no gradient, nan, and does not open.
    """
    gradients = [layer.gradients() for layer in layers]
    slopes = [(found.weight.abs(), found.bias.abs()) for found in gradients]
    for group in groups_of(layers, s, units=False):
        keep, slope = flat(masks, group), flat(slopes, group)
        shut = ~keep & ~np.isnan(slope)
        count = min(round(s.drop_fraction * np.count_nonzero(keep)), int(np.count_nonzero(shut)))
        closed = lowest(flat(scores, group), keep, count, rng)
        opened = lowest(-slope, shut, count, rng)
        put(masks, group, (keep & ~closed) | opened)
    return masks
