"""What several test modules share: tiny experiments, engines of this machine, same-bits checks."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from evoae import Experiment, Run, State, evolve
from evoae.cli import main
from evoae.data import datasets
from evoae.networks import kernel
from evoae.study.runs.jobs import RunSpec, train_job
from evoae.study.runs.merge import history_rows

ENGINES = ["batched", *([] if kernel.reason_unavailable() else ["fused"])]
FILES = {"config.json", "history.parquet", "result.json", "weights.safetensors"}
# 8 rows in batches of 3: the last batch of an epoch is partial.
TINY = {
    "clusters": 2,
    "bits": 12,
    "examples": 4,
    "model": "5-3",
    "epochs": 4,
    "batch_size": 3,
    "learning_rate": 0.01,
    "rate_sigma": 0.002,
}


def tiny(preset: str = "canonical", **settings: Any) -> Experiment:
    return Experiment.preset(preset, **(TINY | settings))


def evolved(
    experiment: Experiment, trials: int | list[int] = 1, seed: int = 1, engine: str = "batched"
) -> tuple[pd.DataFrame, State]:
    """The whole history, sorted by trial, epoch and cell, and the last state."""
    frames, state = [], None
    for state in evolve(experiment, trials, seed, engine=engine):
        frames.append(pd.DataFrame(history_rows(state)))
    history = pd.concat(frames).sort_values(["trial", "epoch", "cell"], ignore_index=True)
    return history, state


def assert_same_bits(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        one.reset_index(drop=True), other.reset_index(drop=True), check_exact=True
    )


def weights_of(trained: State | Run) -> torch.Tensor:
    """Encoder and decoder side by side, [P, parameters]."""
    return torch.cat([side.weights for side in trained.population.sides], dim=1)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """A run's files, but for `result.json`, which says how long it took."""
    return {name: (folder / name).read_bytes() for name in FILES - {"result.json"}}


def begun(e: Experiment, trials: range, out: Path, seed: int = 1, engine: str = "auto") -> RunSpec:
    """What is asked for of a run whose folder has been made."""
    spec = RunSpec(e, seed, trials.start, trials.stop, out, engine=engine)
    spec.open()
    return spec


def stopped(spec: RunSpec, after: int = 1) -> None:
    """Train a job until it is asked to stop in an epoch: it leaves a checkpoint."""
    stop, epochs = threading.Event(), []

    def tell(more: float, steps: int) -> None:
        epochs.append(more)
        if len(epochs) == after:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        train_job(spec, spec.trials, tell, stop)


def refusal(call: Callable, *given: Any, **options: Any) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are matched)
        call(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused; it prints nothing else."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert not printed.out
    return printed.err


def unusable(dataset: Any, **options: Any) -> str:
    """The one line with which a data set is refused, whether it is looked at or loaded."""
    load = functools.partial(datasets.load, seed=0, trial=0)
    (line,) = {refusal(call, dataset, **options) for call in (datasets.summary, load)}
    return line


def rows_of(dataset: Any, **options: Any) -> list[list[float]]:
    """All rows of a data set, sorted."""
    data = datasets.load(dataset, seed=0, trial=0, **options)
    return sorted(torch.cat([data.train, data.validation, data.test]).tolist())
