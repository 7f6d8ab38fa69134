"""What a Pruner adds to a step of a plain loop: python tests/benchmarks/pruner.py

Batches of 64, Adam, one thread. "watched" is an epoch after which a prune comes: statistics are
gathered. "masked" is one with half of the weights masked and nothing to gather. Processor times,
each step beside one of the plain loop; the middle of all ratios, so that what else runs on the
machine hits both alike.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from evoae import Pruner
from evoae.networks.training import one_thread

OPERATORS = ("magnitude", "wanda", "variance-low", "obd", "movement", "rigl")
ROUNDS, STEPS, BATCH = 25, 10, 64
NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "dense, 210,000 parameters": lambda: (
        nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(),
            nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid(),
        ),
        (784,),
    ),
    "convolutional, 52,000 parameters": lambda: (
        nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid(),
        ),
        (1, 28, 28),
    ),
}  # fmt: skip


class Loop:
    """A plain loop of a network, with a Pruner if an operator is named."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], operator: str | None) -> None:
        self.network, self.shape = network, shape
        self.optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        self.pruner = None
        if operator:
            given = {"target_sparsity": 0.5, "examples": torch.rand(4, *shape)}
            self.pruner = Pruner(network, operator, "one-shot", 3, prune_until=0.5, **given)
        self.steps(STEPS)

    def steps(self, number: int) -> float:
        """Processor seconds of so many steps, without what makes their rows."""
        taken = 0.0
        for _ in range(number):
            x = torch.rand(BATCH, *self.shape)
            begun = time.process_time()
            self.step(x)
            taken += time.process_time() - begun
        return taken

    def step(self, x: Tensor) -> None:
        self.optimiser.zero_grad()
        (self.network(x) - x).square().mean().backward()
        self.optimiser.step()


def table() -> pd.DataFrame:
    """A row per network and operator: microseconds of a plain step, and what comes on top (%)."""
    rows = []
    for name, make in NETWORKS.items():
        begin, shape = make()
        for operator in OPERATORS:
            plain = Loop(copy.deepcopy(begin), shape, None)
            pruned = Loop(copy.deepcopy(begin), shape, operator)
            row = {"network": name, "operator": operator}
            for phase in ("watched", "masked"):
                times = np.array([(plain.steps(STEPS), pruned.steps(STEPS)) for _ in range(ROUNDS)])
                row["microseconds"] = round(1e6 * np.median(times[:, 0]) / STEPS)
                row[phase] = f"{100 * np.median(times[:, 1] / times[:, 0] - 1):+.0f} %"
                while phase == "watched" and not pruned.pruner.epoch_end():
                    pruned.steps(1)
            rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(table().to_string(index=False))
