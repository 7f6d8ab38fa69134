"""Whole units instead of weights: a unit is all entries that go together, in whatever layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evoae.pruning.allocation import density, parameters_to_prune
from evoae.pruning.layer import Layer, Masks, OperatorSettings

NONE = -1  # the number of a unit where there is none


@dataclass(frozen=True)
class Units:
    """Which units the entries of layers are of, by numbers.

    `weights`: layer by layer, arrays [out, in] of units, as many as an entry may be of (one that is
    written, and one that is read). `rows`: layer by layer, the unit that a row writes, [out].
    `spaces` [units]: units of one space are in the same tensors, and compete with each other.
    """

    weights: list[list[np.ndarray]]
    rows: list[np.ndarray]
    spaces: np.ndarray

    def total(self, values: list[Masks | Tensor]) -> np.ndarray:
        """Values of entries summed over each unit, or those of rows over the rows, [units]."""
        found = np.zeros(len(self.spaces) + 1)
        for each, arrays, rows in zip(values, self.weights, self.rows, strict=True):
            parts = [(rows, each if isinstance(each, Tensor) else each[1])]
            if not isinstance(each, Tensor):
                parts += [(units, each[0]) for units in arrays]
            for units, of_entries in parts:
                worth = np.nan_to_num(of_entries.double().numpy()).ravel()
                found += np.bincount(units.ravel() + 1, worth, len(found))
        return found[1:]

    @property
    def largest(self) -> int:
        """Entries of the largest unit."""
        arrays = [each.ravel() + 1 for rows in (*self.weights, self.rows) for each in rows]
        return int(np.bincount(np.concatenate(arrays), minlength=len(self.spaces) + 1)[1:].max())

    def masks(self, layers: list[Layer], pruned: np.ndarray, s: OperatorSettings) -> list[Masks]:
        """Keep-masks without the units that are marked in `pruned` [units]."""
        keep, found = np.append(~pruned, True), []  # NONE is the last
        for layer, arrays, rows in zip(layers, self.weights, self.rows, strict=True):
            weight, bias = layer.active.clone(), layer.active_bias.clone()
            for units in arrays:
                weight &= torch.from_numpy(keep[units])
            if s.prune_biases:
                bias &= torch.from_numpy(keep[rows])
            found.append((weight, bias))
        return found

    def densities(self, layers: list[Layer], allocation: str) -> np.ndarray:
        """How densely each space is kept: as the layers that write it, by their mean, [spaces]."""
        of_layers = [density(allocation, layer.weight.shape) for layer in layers]
        sums, counts = np.zeros((2, self.spaces.max() + 1))
        for each, rows in zip(of_layers, self.rows, strict=True):
            written = np.unique(self.spaces[rows[rows != NONE]])
            sums[written] += each
            counts[written] += 1
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.mean(of_layers))


def select(
    layers: list[Layer],
    scores: list[Masks | Tensor],
    units: Units,
    rng: np.random.Generator,
    s: OperatorSettings,
) -> list[Masks]:
    """Keep-masks with round(amount * N) parameters pruned, to the nearest unit.

    Without a target, a share `amount` of the units that are left is pruned. Units go by their
    scores, summed over their entries, ties by a draw; one of each space goes last. If more are
    pruned already, nothing changes. Raises ValueError if all units together are too few.
    """
    left = units.total([(layer.active, layer.active_bias) for layer in layers]) > 0
    order = in_turn(units.total(scores), left, units, layers, rng, s)

    def after(count: int) -> list[Masks]:
        pruned = ~left
        pruned[order[:count]] = True
        return units.masks(layers, pruned, s)

    def zeros(count: int) -> int:
        return sum(int((~part).sum()) for mask in after(count) for part in mask)

    if not s.to_target:
        return after(round(s.amount * len(order)))
    goal, low, high = parameters_to_prune(s.amount, layers), 0, len(order)
    if zeros(high) < goal:
        raise ValueError(
            f"{goal} parameters are to be pruned, and units have only {zeros(high)}: those of "
            "inputs and outputs stay"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if zeros(middle) <= goal else (low, middle)
    return after(low if goal - zeros(low) <= zeros(high) - goal else high)


def in_turn(
    worth: np.ndarray,
    left: np.ndarray,
    units: Units,
    layers: list[Layer],
    rng: np.random.Generator,
    s: OperatorSettings,
) -> np.ndarray:
    """The units that are left, in the order in which they go.

    By their worth [units] over all spaces for a global allocation; else so that at any time shares
    of the spaces are left in proportion to the densities of their layers.
    """
    numbers = np.flatnonzero(left)
    dense = units.densities(layers, s.allocation)
    last, turn = np.zeros(len(left), dtype=bool), worth.copy()
    for space in np.unique(units.spaces[numbers]):
        there = np.flatnonzero(units.spaces == space)
        own = there[left[there]]
        own = own[np.lexsort((rng.random(len(own)), worth[own]))]
        last[own[-1]] = True
        if s.allocation != "global":
            turn[own] = -np.arange(len(own), 0, -1) / len(there) / dense[space]
    drawn = rng.random(len(numbers))
    return numbers[np.lexsort((drawn, turn[numbers], last[numbers]))]
