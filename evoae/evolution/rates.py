"""Learning rates: how those of the cells move from epoch to epoch (the paper: a random walk)."""

from __future__ import annotations

import math

import numpy as np

from evoae.evolution.cells import State, all_cells, draws
from evoae.experiment import RATE_BOUNDS


def next_rates(state: State) -> None:
    """The learning rates of the next epoch: they belong to cells and are never copied."""
    state.learning_rate = RATES[state.experiment.rate_policy](state)


def step_decay(state: State) -> np.ndarray:
    """A tenth after every max(1, T // 4) epochs, as released."""
    last = (state.epoch + 1) % max(1, state.experiment.epochs // 4) == 0
    return state.learning_rate * (0.1 if last else 1.0)


def mutated(state: State) -> np.ndarray:
    """A random walk: each cell's rate wanders by a normal step, within bounds."""
    e, everyone = state.experiment, all_cells(state)
    steps = [g.normal(0, e.rate_sigma) for g in draws(state, everyone, "learning rate")]
    moves = np.reshape(steps, state.learning_rate.shape)
    if e.pairing == "all-pairs":  # no space: one rate for all
        moves = moves[:, :1]
    return (state.learning_rate + moves).clip(*RATE_BOUNDS)


def cosine(state: State) -> np.ndarray:
    """Held, then down half a cosine to 0 after the last epoch."""
    e = state.experiment
    share = (state.epoch + 1) / e.epochs
    falling = max(0.0, share - e.rate_hold) / (1 - e.rate_hold)
    rate = e.learning_rate * 0.5 * (1 + math.cos(math.pi * falling))
    return np.full_like(state.learning_rate, rate)


def constant(state: State) -> np.ndarray:
    """As they are."""
    return state.learning_rate


RATES = {"step-decay": step_decay, "mutated": mutated, "constant": constant, "cosine": cosine}
