"""What several test modules share: tiny experiments, engines of this machine, same-bits checks."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from evoae import Experiment, State, evolve
from evoae.networks import kernel
from evoae.study.runs.merge import history_rows

ENGINES = ["batched", *([] if kernel.reason_unavailable() else ["fused"])]
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


def weights_of(state: State) -> torch.Tensor:
    """Encoder and decoder side by side, [P, parameters]."""
    return torch.cat([side.weights for side in state.population.sides], dim=1)
