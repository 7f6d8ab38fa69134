"""How fast evoae trains, side by side with a plain loop: python tests/benchmarks/speed.py [--short]

A model step is one autoencoder, one batch, one update. The plain loop is what a PyTorch user
writes: nn.Sequential, Adam, one thread, one model; `compiled` is the same loop with torch.compile.
JAX (extra `bench`) compiles a whole epoch of the same model and Adam: no statistics, no evaluation.
Every row measures the plain loop again, in the same minute, since a shared machine's speed drifts,
and the ratios are to that. One core's tables are in processor time, so that the work of others
disturbs them less.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from evoae import Experiment, run
from evoae.evolution import loop
from evoae.networks import activations, kernel, population, training
from evoae.networks.batches import Batches
from evoae.study.runs import checkpoints, jobs
from evoae.study.runs import sweeps as study

ROWS, BITS = 12_000, 784  # of the data that one core's tables train on
BATCHES = (1, 5, 16, 32, 64, 128, 256)
STEPS = 200  # of a measurement of PyTorch


def loss_of(output: Tensor, y: Tensor, kind: str) -> Tensor:
    return (
        functional.binary_cross_entropy(output, y)
        if kind == "variational"
        else (output - y).abs().mean()
    )


class Variational(nn.Module):
    """As people write it: the divergence is kept beside the output."""

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        self.divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp())


def plain_loop(
    batch: int, kind: str = "plain", model: str = "standard", optimiser: str = "adam",
    compiled: bool = False, bits: int = BITS, steps: int = STEPS,
) -> float:  # fmt: skip
    """Processor seconds of one step."""
    networks = population.initialise(bits, model, kind, [np.random.default_rng(0)], "cpu")
    encoder, decoder = networks.member(0)
    network: nn.Module = nn.Sequential(*encoder, *decoder)
    if kind == "variational":
        network = Variational(encoder[:-1], decoder)
    parameters = list(network.parameters())
    apply = torch.compile(network) if compiled else network
    data = (torch.rand(ROWS, bits) < 0.3).float()
    order = torch.randperm(ROWS)

    def adam() -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999))

    kept = adam()

    def step(number: int) -> None:
        rows = order[torch.arange(number * batch, (number + 1) * batch) % ROWS]
        x = y = data[rows]
        if kind == "denoising":
            x = y + 0.4 * torch.randn_like(y)
        moving = kept if optimiser == "adam" else adam()
        moving.zero_grad()
        loss = loss_of(apply(x), y, kind)
        if kind == "variational":
            loss = loss * y.numel() + network.divergence
        loss.backward()
        moving.step()

    for number in range(5):
        step(number)
    begun = time.process_time()
    for number in range(steps):
        step(number)
    return (time.process_time() - begun) / steps


def jax_loop(batch: int, rows: int = ROWS * 7 // 10, steps: int = STEPS) -> float:
    """Processor seconds of one step of epochs that XLA compiled: the standard model, one thread.

    Raises RuntimeError where its first epoch ends at another loss than the kernel's.
    """
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # before the import
    )
    import jax
    from jax import numpy as jnp

    networks = population.initialise(BITS, "standard", "plain", [np.random.default_rng(0)], "cpu")
    weights = [
        [jnp.array(part[0].numpy().T) for part in layer]
        for side in networks.sides
        for layer in side.layers()
    ]
    rows -= rows % batch  # every step is of as many
    data = np.random.default_rng(1).random((rows, BITS), np.float32).round()
    order = np.random.default_rng(2).permutation(rows)
    table = jnp.array(data)

    def loss(weights: list, x: jax.Array) -> jax.Array:
        y = x
        for number, (weight, bias) in enumerate(weights):
            y = y @ weight + bias
            y = jax.nn.relu(y) if number + 1 < len(weights) else jax.nn.sigmoid(y)
        return jnp.abs(y - x).mean()

    def step(state: tuple, batch_rows: jax.Array) -> tuple:
        weights, first, second, t = state
        gradients = jax.grad(loss)(weights, table[batch_rows])
        t += 1
        first = jax.tree.map(lambda m, g: m + (g - m) * 0.5, first, gradients)
        second = jax.tree.map(lambda s, g: s * 0.999 + g * g * 0.001, second, gradients)
        rate, correction = 1e-3 / (1 - 0.5**t), 1 / jnp.sqrt(1 - 0.999**t)
        weights = jax.tree.map(
            lambda w, m, s: w - rate * m / (jnp.sqrt(s) * correction + 1e-8), weights, first, second
        )
        return (weights, first, second, t), None

    @jax.jit
    def epoch(state: tuple, order: jax.Array) -> tuple:
        return jax.lax.scan(step, state, order.reshape(-1, batch))[0]

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = jax.block_until_ready(epoch((weights, zeros, zeros, jnp.float32(0)), jnp.array(order)))
    training.prepare(networks, "adam", masked=False)
    pairs = torch.zeros(1, rows // batch, 1, 2, dtype=torch.int64)
    tables, rates = [torch.from_numpy(data)], torch.tensor([1e-3], dtype=torch.float64)
    training.train(
        networks,
        Batches(pairs, tables, tables, torch.from_numpy(order)[None], rates, batch, "l1", "adam"),
        "fused",
    )
    own = float(training.data_losses(networks, tables, "fused")[0])
    if abs(own - float(loss(state[0], table))) > 0.01 * own:
        raise RuntimeError(f"batch {batch}: JAX reaches {loss(state[0], table)}, the kernel {own}")
    epochs = max(1, steps * batch // rows)
    begun = time.process_time()
    for _ in range(epochs):
        state = epoch(state, jnp.array(order))
    jax.block_until_ready(state)
    return (time.process_time() - begun) / (epochs * (rows // batch))


@functools.cache
def own_data() -> str:
    """A file of rows: to draw the paper's data anew takes as long as thousands of steps."""
    path = Path(tempfile.mkdtemp()) / "rows.npy"
    atexit.register(shutil.rmtree, path.parent)
    np.save(path, (np.random.default_rng(0).random((ROWS, BITS)) < 0.3).astype(np.float32))
    return str(path)


def whole_run(batch: int, engine: str, kind: str, model: str, optimiser: str) -> float:
    """Processor seconds of one step of `evoae.run`, with all that a run does."""
    steps = 5000  # so many, and more of fast ones, that what a run does once weighs little
    if engine == "fused":
        steps = 40_000 if batch <= 16 else 10_000
    epochs = max(1, steps * batch // (ROWS * 7 // 10))
    experiment = Experiment.preset(
        "canonical", dataset=own_data(), batch_size=batch, kind=kind, model=model,
        optimiser=optimiser, learning_rate=1e-3, epochs=epochs,
    )  # fmt: skip
    begun = time.process_time()
    found = run(experiment, workers=1, engine=engine, progress=False).result
    return (time.process_time() - begun) / found["model_steps"]


def side_by_side(batch: int, kind: str, model: str, optimiser: str, compiled: bool) -> dict:
    """A row: microseconds of a step, and the ratios of whole runs to the plain loop."""
    settings = {"kind": kind, "model": model, "optimiser": optimiser}
    plain = [plain_loop(batch, **settings)]
    own = {name: whole_run(batch, name, **settings) for name in ("fused", "batched")}
    plain.append(plain_loop(batch, **settings))
    own = {name: min(seconds, whole_run(batch, name, **settings)) for name, seconds in own.items()}
    row = {"kind": kind, "model": model, "optimiser": optimiser, "batch": batch}
    row |= {"plain loop": 1e6 * min(plain), "kernel": 1e6 * own["fused"]}
    row["plain / kernel"] = min(plain) / own["fused"]
    row["plain / no compiler"] = min(plain) / own["batched"]
    if compiled:
        found = [plain_loop(batch, **settings, compiled=True) for _ in range(2)]
        row["torch.compile"] = 1e6 * min(found)
    if (kind, model, optimiser) == ("plain", "standard", "adam") and find_spec("jax"):
        row["JAX"] = 1e6 * min(jax_loop(batch) for _ in range(2))
        row["JAX / kernel"] = row["JAX"] / row["kernel"]
    print(".", end="", file=sys.stderr, flush=True)
    return row


def batches(short: bool) -> pd.DataFrame:
    """Whole runs of every batch size, kind and optimiser, and of other widths."""
    cases = [(b, "plain", "standard", "adam") for b in BATCHES]
    if not short:
        cases += [(b, "plain", "standard", "adam-per-batch") for b in (5, 64)]
        cases += [(b, k, "standard", "adam") for k in ("denoising", "variational") for b in (5, 64)]
        cases += [(b, "plain", m, "adam") for m in ("50-20-5", "256-64-16") for b in (5, 64)]
    rows = [side_by_side(*case, compiled=not short) for case in cases]
    print(file=sys.stderr)
    return pd.DataFrame(rows)


def masked(optimiser: str) -> pd.DataFrame:
    """The kernel's steps of five where a share of the weights is masked."""
    rows = []
    for zeros in (None, 0.0, 0.5, 0.9, 0.94):
        seconds = min(engine("fused", BITS, 1, 200, zeros, optimiser) for _ in range(10)) / 200
        row = {"zeros": "no masks" if zeros is None else f"{zeros:.0%}", "kernel": 1e6 * seconds}
        rows.append({"optimiser": optimiser} | row)
    return pd.DataFrame(rows)


def engine(
    name: str, dimension: int, count: int, number: int, zeros: float | None = None,
    optimiser: str = "adam-per-batch", *, statistics: bool = True,
) -> float:  # fmt: skip
    """Processor seconds in which `count` models make so many steps of five on an engine."""
    generators = [np.random.default_rng(i) for i in range(count)]
    networks = population.initialise(dimension, "standard", "plain", generators, "cpu")
    for side in networks.sides:
        side.weights.mul_(torch.rand(side.weights.shape) >= (zeros or 0.0))
    training.prepare(networks, optimiser, masked=zeros is not None)
    if not statistics:
        for side in networks.sides:
            for key in activations.SUMS:
                del side.tensors[key]
    data = (torch.rand(ROWS, dimension) < 0.3).float()
    rows = torch.stack([torch.randperm(ROWS)[: 5 * number] for _ in range(count)])
    pairs = torch.arange(count)[:, None, None, None].repeat(1, number, 1, 2)
    rates = torch.full((count,), 1e-5, dtype=torch.float64)
    batches = Batches(pairs, [data] * count, [data] * count, rows, rates, 5, "l1", optimiser)
    begun = time.process_time()
    training.train(networks, batches, name)
    return time.process_time() - begun


def whole_runs(short: bool) -> pd.DataFrame:
    """The paper's batches and new Adams: all cores, two workers, one, and the plain loop on one."""
    epochs = 10 if short else 40
    cases = {
        "lipi-ae-s, 4 trials": (Experiment.preset("lipi-ae-s", epochs=epochs), 4),
        "canonical, 30 trials": (Experiment.preset("canonical", epochs=epochs), 30),
        "lipi-ae-s, random": (
            Experiment.preset("lipi-ae-s", epochs=epochs, operator="random"),
            4,
        ),
    }

    def plain() -> float:
        begun = time.perf_counter()
        plain_loop(5, optimiser="adam-per-batch", bits=1000, steps=1000)
        return 1005 / (time.perf_counter() - begun)

    rows = []
    for name, (experiment, trials) in cases.items():
        before = plain()
        found = [run(experiment, trials, workers=w, progress=False).result for w in (2, 1)]
        loop_steps = (before + plain()) / 2
        two, one = (result["model_steps_per_second"] for result in found)
        row = {"run": name, "plain loop": loop_steps, "one worker": one, "two workers": two}
        rows.append(row | {"two / plain": two / loop_steps, "two / one": two / one})
    return pd.DataFrame(rows)


def large_data() -> pd.DataFrame:
    """60,000 x 784 from a file, one epoch: the first run makes the data ready for the second."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npy"
        np.save(path, np.random.default_rng(0).random((60_000, 784), np.float32))
        for number in range(2):
            code = (
                "import sys; sys.path.insert(0, 'tests/benchmarks'); import speed; "
                f"speed.one_large_run({str(path)!r})"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True,
                env=os.environ | {"XDG_CACHE_HOME": folder},
            )  # fmt: skip
            first, seconds, mebibytes = (float(word) for word in done.stdout.split())
            row = {"run": number + 1, "s to the first epoch": first, "s": seconds}
            rows.append(row | {"MiB": mebibytes})
    return pd.DataFrame(rows)


def one_large_run(path: str) -> None:
    """One run in this process; prints seconds to its first epoch, in all, and its peak in MiB."""
    kernel.reason_unavailable()  # compiled before
    began, original = [], loop.run_epoch
    loop.run_epoch = lambda state: began.append(time.perf_counter()) or original(state)
    settings = {"batch_size": 128, "optimiser": "adam", "learning_rate": 1e-3, "epochs": 1}
    begun = time.perf_counter()
    run(Experiment.preset("canonical", dataset=path, **settings), workers=1, progress=False)
    print(began[0] - begun, time.perf_counter() - begun, peak())


def peak() -> float:
    """Peak memory of this process in MiB."""
    # not getrusage: its peak is inherited from the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def where_time_goes(epochs: int, trials: int) -> pd.DataFrame:
    """Share of a coevolved run on one core, files and results included, by kind of work.

    What a part spends in another, inner one counts for the inner one. The statistics of activations
    are gathered within training: what they take is the difference to training without them.
    """
    parts = {
        "training": [(training, "train")],
        "evaluation": [(training, "batch_losses"), (jobs, "trial_results")],
        "pruning": [(loop, "to_be_pruned"), (loop, "prune")],
        "history": [(loop, "record_centres"), (jobs, "history_rows"), (study, "finish")],
        "checkpoints": [(checkpoints, "save")],
        "copying pairs": [(loop, "copies"), (loop, "replace")],
    }
    spent, inner = dict.fromkeys(parts, 0.0), [0.0]
    originals = {at: getattr(*at) for places in parts.values() for at in places}

    def timed(part: str, original: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            begun = time.perf_counter()
            inner.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - begun
                spent[part] += seconds - inner.pop()
                inner[-1] += seconds

        return call

    for part, places in parts.items():
        for at in places:
            setattr(*at, timed(part, originals[at]))
    experiment = Experiment.preset("lipi-ae-s", operator="random", epochs=epochs)
    try:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            run(experiment, trials, workers=1, progress=False, out=folder)
            total = time.perf_counter() - begun
    finally:
        for at, original in originals.items():
            setattr(*at, original)
    rounds = [
        [engine("fused", 1000, 10, 200, statistics=seen) for seen in (True, False)]
        for _ in range(10)
    ]
    with_statistics, without = (min(seconds) for seconds in zip(*rounds, strict=True))
    spent["statistics"] = spent["training"] * (1 - without / with_statistics)
    spent["training"] -= spent["statistics"]
    spent["everything else"] = total - sum(spent.values())
    table = pd.DataFrame({"part": list(spent), "share (%)": list(spent.values())})
    return table.assign(**{"share (%)": 100 * table["share (%)"] / total})


def growing(short: bool) -> pd.DataFrame:
    """Seconds and peak memory of runs of growing size, each in a process of its own."""
    cases = [{"cells": cells} for cells in (10, 30, 100, 300)]
    cases += [{"trials": trials} for trials in (3, 10)]
    cases += [{"epochs": epochs} for epochs in (2, 4, 8, 16)]
    cases += [{"bits": bits} for bits in (500, 2000, 4000)]
    cases += [] if short else [{"cells": 300, "bits": 4000}]
    rows = []
    for case in cases:
        code = (
            "import sys; sys.path.insert(0, 'tests/benchmarks'); import speed; "
            f"speed.one_run({case!r})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds, megabytes, steps = (float(word) for word in done.stdout.split())
        base = {"cells": 10, "trials": 1, "epochs": 1, "bits": 1000}
        rows.append(base | case | {"seconds": seconds, "MiB": megabytes})
        rows[-1]["microseconds per step"] = 1e6 * seconds / steps
    return pd.DataFrame(rows)


def one_run(case: dict[str, int]) -> None:
    """One run in this process; prints its seconds, peak memory in MiB, and model steps."""
    settings = {"cells": 10, "epochs": 1} | case
    trials = settings.pop("trials", 1)
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            Experiment.preset("lipi-ae-s", **settings),
            trials,
            workers=1,
            progress=False,
            out=folder,
        ).result
    print(found["seconds"], peak(), found["model_steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer rows, for a first look")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    pd.set_option("display.width", 160, "display.max_columns", 20, "display.precision", 1)
    print("Whole runs, one core, microseconds of a step; D = 784")
    print(batches(short).to_string(index=False))
    print("\nMasked weights, batches of five, one core, microseconds of a step; D = 784")
    tables = [masked(optimiser) for optimiser in training.OPTIMISERS]
    print(pd.concat(tables).to_string(index=False))
    print("\nThe paper's runs, steps per second; D = 1000")
    print(whole_runs(short).to_string(index=False))
    print("\n60,000 x 784 from a file, one epoch in batches of 128, one worker")
    print(large_data().to_string(index=False))
    print("\nWhere the time of a run goes (lipi-ae-s, random pruning, one core)")
    shares = where_time_goes(epochs=10 if short else 100, trials=2 if short else 15)
    print(shares.to_string(index=False))
    print("\nGrowth, one core (lipi-ae-s, one epoch of ten cells unless said)")
    print(growing(short).to_string(index=False))


if __name__ == "__main__":
    main()
