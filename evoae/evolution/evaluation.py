"""What a finished trial is worth: losses of its cells; size of the best; retrieval, a mixture.

Retrieval is the task of the prior work: which hidden items does an autoencoder rank first? A user's
known items go in, the reconstruction scores all items, and the hidden ones should come before the
rest. Scores, `known` and `hidden` are [users, items]; users without hidden items are left out, and
items that are known are never recommended.

The mixture is what the Lipizzaner family returns beside the best pair: a weighted mean of the
reconstructions of a sub-population, whose weights are evolved by a (1+1) evolution strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from evoae import topology
from evoae.data.datasets import Dataset
from evoae.evolution.cells import State
from evoae.networks import compaction, training
from evoae.networks.population import Population
from evoae.randomness import stream

GENERATIONS = 100
SIGMA = 0.1
BLOCK = 1024  # rows that a mixture reconstructs and compares at once


def trial_results(state: State, history: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per trial: means over its cells after the last epoch, and its best cell.

    The best cell is chosen on validation (or is the first, as released) and reported on test.
    """
    e, total = state.experiment, state.population.parameters
    last = history[history.epoch == e.epochs - 1].set_index("trial")
    slots = np.arange(len(state.population)) // e.cells
    by_split = {}
    for split in ("validation", "test"):
        inputs = [getattr(state.data[slot], split) for slot in slots]
        losses = training.data_losses(state.population, inputs, state.engine).numpy()
        by_split[split] = losses.reshape(len(state.trials), e.cells)
    rows = []
    for slot, trial in enumerate(state.trials):
        ends, data = last.loc[[trial]], state.data[slot]
        validation, test = by_split["validation"][slot], by_split["test"][slot]
        best = int(np.nan_to_num(validation, nan=np.inf).argmin())
        best = best if e.best_cell == "validation" else 0
        member = slot * e.cells + best
        now = ends.encoder_zeros + ends.decoder_zeros
        at_prune = ends.encoder_zeros_at_last_prune + ends.decoder_zeros_at_last_prune
        rows.append(
            {
                "trial": trial,
                "train_l1": float(ends.train_l1.mean(skipna=False)),
                "validation_l1": float(validation[best]),
                "test_l1": float(test[best]),
                "preserved": float(1 - now.mean() / total),
                "preserved_at_last_prune": float(1 - at_prune.mean() / total),
                "best_cell": best,
                "best_preserved": float(1 - now.iloc[best] / total),
                "mean_test_l1": float(test.mean()),
                "constant_train_l1": data.constant_loss("l1", "train"),
                "constant_test_l1": data.constant_loss("l1", "test"),
            }
            | compaction.compact(compaction.chain(state.population, member)).sizes
            | retrieved(state.population, member, data)
        )
        if e.cells > 1:
            rows[-1] |= ensemble(state, slot, best)
    return rows


def ensemble(state: State, slot: int, cell: int) -> dict[str, Any]:
    """The mixture of a cell's sub-population, evolved on validation."""
    e, data = state.experiment, state.data[slot]
    cells = topology.neighbourhood(e.topology, e.cells, e.radius)[cell].tolist()
    rng = stream(state.seed, state.trials[slot], e.epochs - 1, cell, "ensemble")
    members = [slot * e.cells + neighbour for neighbour in cells]
    mixture = evolve_mixture(state.population, members, data.validation, data.test, rng)
    return {
        "ensemble_validation_l1": mixture.validation_l1,
        "ensemble_test_l1": mixture.test_l1,
        "ensemble": cells,
        "ensemble_weights": mixture.weights,
    }


# -- retrieval -----------------------------------------------------------------------------------


def ranked_hits(scores: Tensor, known: Tensor, hidden: Tensor, k: int) -> Tensor:
    """Whether the k best-scored unknown items are hidden ones, best first, [users, k or items]."""
    open_scores = scores.masked_fill(known > 0, -torch.inf)
    best = open_scores.topk(min(k, scores.shape[1]), dim=1).indices
    return hidden.gather(1, best) > 0


def recall(scores: Tensor, known: Tensor, hidden: Tensor, k: int) -> float:
    """Mean share of the hidden items (at most k of them) among the k best-scored."""
    users = hidden.sum(1) > 0
    hits = ranked_hits(scores[users], known[users], hidden[users], k).sum(1)
    return float((hits / hidden[users].sum(1).clamp(max=k)).mean())


def ndcg(scores: Tensor, known: Tensor, hidden: Tensor, k: int) -> float:
    """Mean normalised discounted cumulative gain of the k best-scored, with relevance 0 or 1."""
    users = hidden.sum(1) > 0
    hits = ranked_hits(scores[users], known[users], hidden[users], k)
    discount = 1 / torch.log2(torch.arange(hits.shape[1]) + 2.0).to(scores)
    best = discount.cumsum(0)[hidden[users].sum(1).clamp(max=hits.shape[1]).long() - 1]
    return float(((hits * discount).sum(1) / best).mean())


METRICS = {"recall_20": (recall, 20), "recall_100": (recall, 100), "ndcg_50": (ndcg, 50)}


def retrieved(population: Population, member: int, data: Dataset) -> dict[str, float]:
    """Metrics on the test users of one autoencoder, and of ranking by popularity in train.

    Empty if the data set has no held-out interactions; nan if no user has hidden items.
    """
    if not data.held_out:
        return {}
    known, hidden = data.held_out["test"]
    if not (hidden.sum(1) > 0).any():
        return dict.fromkeys(METRICS, np.nan)
    with torch.no_grad():
        scores = population.take([member]).reconstruct(known[None].to(data.train))[0].cpu()
    popularity = data.train.cpu().mean(0).expand_as(scores)
    found = {}
    for name, (metric, k) in METRICS.items():
        found[name] = metric(scores, known, hidden, k)
        found[f"popularity_{name}"] = metric(popularity, known, hidden, k)
    return found


# -- mixtures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """Members of a population, their weights (sum 1), and the L1 reached [0, 1]."""

    members: list[int]
    weights: list[float]
    validation_l1: float
    test_l1: float


def mutated(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian steps, folded back above 0 and scaled to sum 1."""
    moved = np.abs(weights + rng.normal(0, SIGMA, len(weights)))
    return moved / moved.sum()


def evolve_mixture(
    population: Population,
    members: list[int],
    validation: Tensor,
    test: Tensor,
    rng: np.random.Generator,
    generations: int = GENERATIONS,
) -> Mixture:
    """Evolve mixture weights on validation [rows, D], from equal ones; report on test [rows, D].

    A mutant replaces its parent if its loss is not larger, so validation never gets worse.
    """

    def reconstructions(rows: Tensor) -> list[Tensor]:
        """[members, rows, D] for each block of rows."""
        chosen = [population.take([i]) for i in members]
        with torch.no_grad():
            blocks = [
                [one.reconstruct(block[None]) for one in chosen] for block in rows.split(BLOCK)
            ]
        return [torch.cat(block) for block in blocks]

    def loss(outputs: list[Tensor], rows: Tensor, weights: np.ndarray) -> float:
        total, factors = 0.0, torch.from_numpy(weights).to(rows)
        for output, block in zip(outputs, rows.split(BLOCK), strict=True):
            mixed = torch.einsum("n,nrd->rd", factors, output)
            total += float(mixed.sub_(block).abs_().mean()) * len(block)
        return total / len(rows)

    outputs = reconstructions(validation)
    weights = np.full(len(members), 1 / len(members))
    best = loss(outputs, validation, weights)
    for _ in range(generations):
        mutant = mutated(weights, rng)
        found = loss(outputs, validation, mutant)
        if found <= best:
            weights, best = mutant, found
    return Mixture(
        list(members), weights.tolist(), best, loss(reconstructions(test), test, weights)
    )
