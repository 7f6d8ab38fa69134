"""A GPU beside a core of its machine, many autoencoders: python tests/benchmarks/gpu.py

Of training alone, 784 inputs, the standard model, a kept Adam: microseconds a model step (one
autoencoder, one batch, one update), by the number of autoencoders that are trained together, beside
the kernel on one core. All is measured in one call, each the better of two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from evoae.networks import population, training
from evoae.networks.batches import Batches

ROWS, BITS, STEPS = 5_000, 784, 15
BATCHES, POPULATIONS = (5, 64, 256), (1, 16, 128, 512, 2048, 8192)


def best_of_two(work: Callable[[], None]) -> float:
    """Wall-clock seconds."""
    seconds = []
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def model_step(together: int, batch: int, device: str, engine: str) -> float:
    """Microseconds a model step of so many autoencoders, all on the same data."""
    draw = torch.Generator().manual_seed(0)
    data = [(torch.rand(ROWS, BITS, generator=draw) < 0.75).float().to(device)] * together
    generators = [np.random.default_rng(i) for i in range(together)]
    found = population.initialise(BITS, "standard", "plain", generators, device)
    training.prepare(found, "adam", masked=False)
    order = torch.stack([torch.randperm(ROWS, generator=draw)[: batch * STEPS]] * together)
    pairs = torch.arange(together)[:, None, None, None].repeat(1, STEPS, 1, 2)
    rates = torch.full((together,), 1e-4, dtype=torch.float64)
    batches = Batches(pairs, data, data, order, rates, batch, "l1", "adam")
    training.train(found, batches, engine)  # compiles, loads, warms up
    seconds = best_of_two(lambda: training.train(found, batches, engine))
    return 1e6 * seconds / (together * STEPS)


def steps_table() -> pd.DataFrame:
    rows = {}
    for batch in BATCHES:
        rows[batch] = {"one core": model_step(1, batch, "cpu", "fused")}
        for together in POPULATIONS:
            rows[batch][f"GPU, {together:,}"] = model_step(together, batch, "cuda", "batched")
    return pd.DataFrame(rows).T.rename_axis("batch")


def main() -> None:
    torch.set_num_threads(1)
    print(torch.cuda.get_device_name(0), os.cpu_count(), "cores", torch.__version__)
    print(steps_table().round(2).to_string(), flush=True)


if __name__ == "__main__":
    main()
