"""Random streams keyed by (seed, trial, epoch, cell, purpose).

Philox is a counter-based generator: its output is a function of a key and a counter. The key is
(seed, trial) and the counter starts at (purpose, cell, epoch), so two streams never meet, no stream
depends on what was drawn before, and nothing reads a global generator. Draws are made on the CPU
whatever the device, so a seed means the same numbers everywhere; `normals` says what it leaves of
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

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
    "gradient rows",
    "first mask",
    "prune epochs",
    "shuffled mask",
    "search",
)


def stream(seed: int, trial: int, epoch: int, cell: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose, in one cell, epoch and trial. All integers are at least 0."""
    key, counter = _position(seed, trial, epoch, cell, purpose)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def streams(
    seed: int, cells: Iterable[tuple[int, int]], epoch: int, purpose: str
) -> Iterator[np.random.Generator]:
    """The streams of several (trial, cell), one after the other.

    It is one generator, set anew for each cell: under a third of the time of making one. Draw
    from it before asking for the next.
    """
    key, counter = _position(seed, 0, epoch, 0, purpose)
    bits = np.random.Philox(key=key, counter=counter)
    state, generator = bits.state, np.random.Generator(bits)
    for trial, cell in cells:
        key[1], counter[2] = trial, cell
        state["state"] = {"key": key, "counter": counter}
        bits.state = state
        yield generator


def normals(rng: np.random.Generator, shape: Iterable[int], deviation: float) -> Tensor:
    """Gaussian float32 numbers of mean 0, where there are many of them.

    PyTorch draws them from a seed of 32 bits, in a third of NumPy's time. So the same noise can
    come twice (in 4,000 draws, a ring's, with a chance of 0.2 %), and its last bits may be others
    on a processor of another family and in another version of PyTorch.
    """
    bits = torch.Generator("cpu").manual_seed(int(rng.integers(2**32)))
    numbers = torch.empty(*shape, dtype=torch.float32, device="cpu")
    return numbers.normal_(0, deviation, generator=bits)


def _position(
    seed: int, trial: int, epoch: int, cell: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    counter = [0, PURPOSES.index(purpose), cell, epoch]
    return np.array([seed, trial], dtype=np.uint64), np.array(counter, dtype=np.uint64)
