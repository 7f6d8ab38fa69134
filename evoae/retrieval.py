"""The retrieval task of the prior work: which hidden items does an autoencoder rank first?

A user's known items go in, the reconstruction scores all items, and the hidden ones should come
before the rest. Scores, `known` and `hidden` are [users, items]; users without hidden items are
left out, and items that are known are never recommended.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evoae.datasets import Dataset
from evoae.population import Population

METRICS = {"recall_20": ("recall", 20), "recall_100": ("recall", 100), "ndcg_50": ("ndcg", 50)}


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


def evaluate(population: Population, place: int, data: Dataset) -> dict[str, float]:
    """Metrics on the test users of one autoencoder, and of ranking by popularity in train.

    Empty if the data set has no held-out interactions; nan if no user has hidden items.
    """
    if not data.held_out:
        return {}
    known, hidden = data.held_out["test"]
    if not (hidden.sum(1) > 0).any():
        return dict.fromkeys(METRICS, np.nan)
    index = torch.tensor([place])
    with torch.no_grad():
        scores = population.take(index, index).reconstruct(known[None].to(data.train))[0].cpu()
    popularity = data.train.cpu().mean(0).expand_as(scores)
    functions = {"recall": recall, "ndcg": ndcg}
    found = {}
    for name, (metric, k) in METRICS.items():
        found[name] = functions[metric](scores, known, hidden, k)
        found[f"popularity_{name}"] = functions[metric](popularity, known, hidden, k)
    return found
