"""A population of any modules: the paper's ring, with training steps of a user's.

A reference for those who leave the dense case, plain and slow: one visit after the other, on copies
of modules. Topology, order of visits, selection and streams are those of `evolution.loop`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from evoae import topology
from evoae.evolution.loop import tournament
from evoae.experiment import Experiment
from evoae.modules.pruner import PRUNING, Pruner
from evoae.randomness import stream
from evoae.rules import check_key, check_known

Pair = tuple[nn.Module, nn.Module]
# settings of an experiment that say who meets whom, and who wins
SELECTING = (
    "topology", "radius", "update_order", "solution_concept", "tournament_size", "selection",
    "replacement",
)  # fmt: skip


@dataclass
class ModulePopulation:
    """After an epoch: the (encoder, decoder) of every cell, and a row per epoch and cell.

    `history`: epoch, cell, selection_loss, replacement_loss, pruned, preserved.
    """

    pairs: list[Pair]
    epoch: int
    history: pd.DataFrame


def evolve_modules(
    factory: Callable[[], Pair],
    fit: Callable[[nn.Module, nn.Module, np.random.Generator], None],
    score: Callable[[nn.Module, nn.Module, np.random.Generator], float],
    cells: int,
    *,
    operator: str | Callable[..., Any],
    schedule: str | Callable[..., float],
    epochs: int,
    examples: Tensor | None = None,
    seed: int = 1,
    **settings: Any,
) -> Iterator[ModulePopulation]:
    """Yield a population of module pairs after each epoch: select, train, prune, replace.

    Args:
        factory: makes an encoder and a decoder, initialised by PyTorch's generator, which is seeded
            for each cell.
        fit: trains a pair, in place, by one pass over the data; draws from the generator.
        score: the loss of a pair on a batch drawn from the generator; lower is better.
        operator, schedule, epochs, examples, settings: as those of `Pruner`, and `SELECTING`.
            Pruned weights regrow, as released, and what units do is seen over one visit. A target
            sparsity is reached after the last epoch.

    Raises ValueError for a wrong setting, or modules that cannot be pruned, before any training.
    """
    for name in settings:
        check_known(name, (*PRUNING, *SELECTING), f"unknown setting {name!r}")
    check_key("seed", seed)
    e = Experiment(
        operator=operator, schedule=schedule, epochs=epochs, cells=cells,
        **{"pruning_clock": "last-epoch", **settings},
    )  # fmt: skip
    if e.pruned_weights != "regrow":
        raise ValueError(f"pruned_weights={e.pruned_weights} must be regrow in a population")
    neighbours = topology.neighbourhood(e.topology, cells, e.radius)
    pruning = {name: getattr(e, name) for name in PRUNING}

    def pruner_of(pair: Pair, cell: int) -> Pruner:
        module = Autoencoder(*pair)
        return Pruner(
            module, operator, schedule, epochs, examples=examples, seed=seed, cell=cell, **pruning
        )

    pairs = [made(factory, seed, cell) for cell in range(cells)]
    pruner_of(pairs[0], 0).release()
    return generations(e, pairs, neighbours, fit, score, pruner_of, seed)


def generations(
    e: Experiment,
    pairs: list[Pair],
    neighbours: np.ndarray,
    fit: Callable[..., None],
    score: Callable[..., float],
    pruner_of: Callable[[Pair, int], Pruner],
    seed: int,
) -> Iterator[ModulePopulation]:
    """The epochs of `evolve_modules`."""
    rows: list[dict[str, Any]] = []
    shares = np.ones(len(pairs))  # that are preserved
    for epoch in range(e.epochs):
        order = np.arange(e.cells)
        seen = list(pairs) if e.update_order == "synchronous" else pairs  # by their neighbours
        if epoch:
            stream(seed, 0, epoch, 0, "order").shuffle(order)
        for cell in order.tolist():
            near = neighbours[cell]
            losses = [
                [score(seen[i][0], seen[j][1], stream(seed, 0, epoch, cell, "selection batch"))
                 for j in near]
                for i in near
            ]  # fmt: skip
            winners, best = tournament(
                np.array([losses], float), [stream(seed, 0, epoch, cell, "tournament")], e
            )
            encoder, decoder = near[winners[:, 0]]
            pair = copy.deepcopy(seen[encoder][0]), copy.deepcopy(seen[decoder][1])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the first pair was warned of already
                pruner = pruner_of(pair, cell)
            pruner.go_on(epoch - 1)
            try:
                fit(*pair, stream(seed, 0, epoch, cell, "training batches"))
                loss = score(*pair, stream(seed, 0, epoch, cell, "replacement batch"))
                pruned = pruner.epoch_end()
                preserved = pruner.report().preserved.iloc[-1]
            finally:
                pruner.release()  # a visit is one epoch: the target is for later ones
            old = np.nan
            if e.replacement == "better":
                old = score(*pairs[cell], stream(seed, 0, epoch, cell, "replacement batch"))
            if np.isnan(old) or loss <= old:
                pairs[cell], shares[cell] = pair, preserved
            else:
                loss, pruned = old, False
            rows.append(
                {
                    "epoch": epoch,
                    "cell": cell,
                    "selection_loss": float(best[0]),
                    "replacement_loss": float(loss),
                    "pruned": pruned,
                    "preserved": shares[cell],
                }
            )
        yield ModulePopulation(pairs, epoch, pd.DataFrame(rows))


class Autoencoder(nn.Module):
    """An encoder and a decoder, one after the other."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x."""
        return self.decoder(self.encoder(x))


def made(factory: Callable[[], Pair], seed: int, cell: int) -> Pair:
    """A pair whose initial weights depend on the seed and the cell alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, 0, 0, cell, "initialise").integers(2**63)))
        return factory()
