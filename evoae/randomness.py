"""Random streams keyed by (seed, trial, epoch, cell, purpose).

Philox is a counter-based generator: its output is a function of a key and a counter. The key is
(seed, trial) and the counter starts at (purpose, cell, epoch), so two streams never meet, no stream
depends on what was drawn before, and nothing reads a global generator. Draws are made on the CPU
whatever the device, so a seed means the same numbers everywhere.
"""

from __future__ import annotations

import numpy as np

PURPOSES = (
    "data",
    "split",
    "initialise",
    "order",
    "selection batch",
    "tournament",
    "partners",
    "training batches",
    "input noise",
    "replacement batch",
    "test batch",
    "prune or not",
    "examples",
    "operator",
    "learning rate",
    "subsample",
    "ensemble",
    "latent noise",
)


def stream(seed: int, trial: int, epoch: int, cell: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose, in one cell, epoch and trial. All integers are at least 0."""
    key = np.array([seed, trial], dtype=np.uint64)
    counter = np.array([0, PURPOSES.index(purpose), cell, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
