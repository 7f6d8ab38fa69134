"""Model steps per second, side by side: python tests/benchmarks/speed.py [--short]

A model step is one autoencoder, one batch of five, one update. The plain loop is what a PyTorch
user writes: nn.Sequential and a new Adam for every batch, one thread, one model. Every row measures
the plain loop again, in the same minute, since a shared machine's speed drifts; the ratios are to
that. Then come whole runs (`evoae.run`, both cores, all the loop's work included), where their time
goes, and how time and memory grow.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from evoae import Experiment, run
from evoae.evolution import loop
from evoae.networks import activations, population, training
from evoae.runs import blocks, checkpoints, growth
from evoae.runs import sweeps as study

SECONDS = 1.5  # of measuring, for each entry
ROWS = 1000


def plain_loop(dimension: int, model: str, steps: int) -> float:
    """Seconds for so many steps of nn.Sequential with a new Adam for every batch."""
    networks = population.initialise(dimension, model, "plain", [np.random.default_rng(0)], "cpu")
    network = nn.Sequential(*networks.member(0))
    data = (torch.rand(ROWS, dimension) < 0.75).float()
    order = torch.randperm(ROWS)
    begun = time.perf_counter()
    for number in range(steps):
        batch = data[order[torch.arange(5 * number, 5 * number + 5) % ROWS]]
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-5, betas=(0.5, 0.999))
        loss = (network(batch) - batch).abs().mean()
        loss.backward()
        optimiser.step()
    return time.perf_counter() - begun


def engine(
    name: str, dimension: int, model: str, count: int, batches: int, *, statistics: bool = True
) -> float:
    """Seconds in which `count` models make `batches` steps each on an engine, on one core."""
    generators = [np.random.default_rng(i) for i in range(count)]
    networks = population.initialise(dimension, model, "plain", generators, "cpu")
    training.prepare(networks, "adam-per-batch", masked=False)
    if not statistics:
        for side in networks.sides:
            for key in activations.SUMS:
                del side.tensors[key]
    data = (torch.rand(ROWS, dimension) < 0.75).float()
    rows = torch.stack([torch.randperm(ROWS)[: 5 * batches] for _ in range(count)])
    pairs = torch.arange(count)[:, None, None, None].repeat(1, batches, 1, 2)
    rates = torch.full((count,), 1e-5, dtype=torch.float64)
    lesson = training.Lesson(
        pairs, [data] * count, [data] * count, rows, rates, 5, "l1", "adam-per-batch"
    )
    begun = time.perf_counter()
    training.train(networks, lesson, name)
    return time.perf_counter() - begun


def rate(measure: Callable[[int], float], models: int, most: int) -> float:
    """Steps per second: `measure(n)` takes n steps of each model, in rounds of about SECONDS."""
    n = min(most, max(1, 20 // models + 1))
    seconds = measure(n)
    n = int(min(most, max(1, n * SECONDS / max(seconds, 1e-6))))
    return models * n / min(measure(n) for _ in range(2))


def engines(models: list[str], dimensions: list[int], counts: list[int]) -> pd.DataFrame:
    rows = []
    for model in models:
        for dimension in dimensions:
            for count in counts:
                plain = rate(lambda n, d=dimension, m=model: plain_loop(d, m, n), 1, 2000)
                row = {"model": model, "D": dimension, "models": count, "plain loop": plain}
                for name in ("batched", "fused"):
                    row[name] = rate(
                        lambda n, d=dimension, m=model, c=count, e=name: engine(e, d, m, c, n),
                        count,
                        ROWS // 5,
                    )
                    row[f"{name} / plain"] = row[name] / plain
                rows.append(row)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return pd.DataFrame(rows)


def whole_runs(short: bool) -> pd.DataFrame:
    """`evoae.run` on all cores against the plain loop on one, measured before and after."""
    cases = {
        "lipi-ae-s, 4 trials": (Experiment.preset("lipi-ae-s", epochs=10 if short else 40), 4),
        "canonical, 30 trials": (Experiment.preset("canonical", epochs=10 if short else 40), 30),
        "lipi-ae-s, random": (
            Experiment.preset("lipi-ae-s", epochs=10 if short else 40, operator="random"),
            4,
        ),
    }
    rows = []
    for name, (experiment, trials) in cases.items():
        before = rate(lambda n: plain_loop(1000, "standard", n), 1, 2000)
        found = run(experiment, trials, progress=False).result
        after = rate(lambda n: plain_loop(1000, "standard", n), 1, 2000)
        plain, fast = (before + after) / 2, found["model_steps_per_second"]
        rows.append({"run": name, "plain loop": plain, "run, all cores": fast})
        rows[-1] |= {"run / plain": fast / plain, "engine": found["engine"]}
    return pd.DataFrame(rows)


def where_time_goes(epochs: int, trials: int) -> pd.DataFrame:
    """Share of a coevolved run on one core, files and results included, by kind of work.

    What a part spends in another, inner one counts for the inner one. The statistics of activations
    are gathered within training: what they take is the difference to training without them.
    """
    parts = {
        "training": [(training, "train")],
        "evaluation": [(training, "batch_losses"), (growth, "trial_results")],
        "pruning": [(loop, "to_be_pruned"), (loop, "prune")],
        "history": [(loop, "record_centres"), (blocks, "history_rows"), (study, "finish")],
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
        [engine("fused", 1000, "standard", 10, 200, statistics=seen) for seen in (True, False)]
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
    # not getrusage: its peak is inherited from the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(found["seconds"], int(status["VmHWM"].split()[0]) / 1024, found["model_steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer rows, for a first look")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    pd.set_option("display.width", 160, "display.max_columns", 20, "display.precision", 1)
    print("Engines, one core, model steps per second")
    if short:
        print(engines(["standard"], [1000], [1, 10, 30]).to_string(index=False))
    else:
        print(
            engines(["standard", "small", "large"], [1000, 4000], [1, 10, 30, 100, 300]).to_string(
                index=False
            )
        )
    print("\nWhole runs, all cores")
    print(whole_runs(short).to_string(index=False))
    print("\nWhere the time of a run goes (lipi-ae-s, random pruning, one core)")
    shares = where_time_goes(epochs=10 if short else 100, trials=2 if short else 15)
    print(shares.to_string(index=False))
    print("\nGrowth, one core (lipi-ae-s, one epoch of ten cells unless said)")
    print(growing(short).to_string(index=False))


if __name__ == "__main__":
    main()
