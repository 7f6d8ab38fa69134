"""What a population ends with: a mixture of the autoencoders of a sub-population.

The Lipizzaner family returns, beside the best pair, a weighted mean of reconstructions whose
weights are evolved by a (1+1) evolution strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evoae.population import Population

GENERATIONS = 100
SIGMA = 0.1


@dataclass(frozen=True)
class Mixture:
    """Places of autoencoders in a population, their weights (sum 1), and the L1 reached [0, 1]."""

    places: list[int]
    weights: list[float]
    validation_l1: float
    test_l1: float


def mutated(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian steps, folded back above 0 and scaled to sum 1."""
    moved = np.abs(weights + rng.normal(0, SIGMA, len(weights)))
    return moved / moved.sum()


def evolve_mixture(
    population: Population,
    places: list[int],
    validation: Tensor,
    test: Tensor,
    rng: np.random.Generator,
    generations: int = GENERATIONS,
) -> Mixture:
    """Evolve mixture weights on validation [rows, D], from equal ones; report on test [rows, D].

    A mutant replaces its parent if its loss is not larger, so validation never gets worse.
    """
    index = torch.tensor(places)
    members = population.take(index, index)

    def reconstructions(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([members.take(i, i).reconstruct(rows[None]) for i in each])

    def loss(outputs: Tensor, rows: Tensor, weights: np.ndarray) -> float:
        mixed = torch.einsum("n,nrd->rd", torch.from_numpy(weights).to(outputs), outputs)
        return float((mixed - rows).abs().mean())

    each = torch.arange(len(places)).split(1)
    outputs = reconstructions(validation)
    weights = np.full(len(places), 1 / len(places))
    best = loss(outputs, validation, weights)
    for _ in range(generations):
        mutant = mutated(weights, rng)
        found = loss(outputs, validation, mutant)
        if found <= best:
            weights, best = mutant, found
    return Mixture(list(places), weights.tolist(), best, loss(reconstructions(test), test, weights))
