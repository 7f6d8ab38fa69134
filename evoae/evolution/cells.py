"""The cells of a run: where they lie, what they draw, what they hold.

A run's trials lie side by side in one population; a *slot* is the position of a trial among them.
`State` is a run after an epoch, a `Wave` the cells that are visited together, for their visits do
not depend on each other. Every draw comes from the stream of its cell.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evoae import topology
from evoae.data import datasets
from evoae.evolution import footprint
from evoae.experiment import MAY_CHANGE, SETTINGS, Experiment
from evoae.messages import display, short
from evoae.networks import gradients, population, training
from evoae.networks.population import Population
from evoae.pruning import driver, members
from evoae.randomness import stream, streams
from evoae.rules import check_key, plain

GRADIENT_ROWS = 500  # at most, for operators that ask for gradients
# What the history says of every cell, in its order, and what stands there before it is known.
RECORDS = {
    **dict.fromkeys(("learning_rate", "selection_loss", "replacement_loss", "test_loss"), np.nan),
    "pruned": False,
    **dict.fromkeys(("encoder_zeros", "decoder_zeros"), 0),
    **dict.fromkeys(("encoder_zeros_at_last_prune", "decoder_zeros_at_last_prune"), 0),
    "train_l1": np.nan,
}


@dataclass
class State:
    """A run after an epoch. Networks of slot s and cell c lie at s * cells + c.

    `learning_rate` [trials, cells]; `records` holds a [trials * cells] array per history column;
    `changes` lists settings replaced on the way as (epoch, name, old, new).
    """

    experiment: Experiment
    seed: int
    trials: list[int]
    data: list[datasets.Dataset]
    population: Population
    learning_rate: np.ndarray
    engine: str
    epoch: int = -1
    model_steps: int = 0
    records: dict[str, np.ndarray] = field(default_factory=dict)
    changes: list[tuple[int, str, Any, Any]] = field(default_factory=list)

    def change(self, **settings: Any) -> None:
        """Replace settings from the next epoch on. Raises ValueError if one cannot change."""
        old, self.experiment = self.experiment, changed(self.experiment, **settings)
        for name in MAY_CHANGE:
            before, after = getattr(old, name), getattr(self.experiment, name)
            if before != after:
                self.changes.append((self.epoch + 1, name, before, after))
        if old.learning_rate != self.experiment.learning_rate:
            self.learning_rate[:] = self.experiment.learning_rate


def members_of(slots: Sequence[int], cells: int) -> np.ndarray:
    """Where the networks of these slots lie, [slots * cells]."""
    return np.add.outer(np.array(slots) * cells, np.arange(cells)).ravel()


def changed(experiment: Experiment, **settings: Any) -> Experiment:
    """An experiment as training may go on with it.

    Raises ValueError if a setting that cannot change would, be it implied by another.
    """
    new = experiment.replace(**settings)
    for name in SETTINGS:
        before, after = getattr(experiment, name), getattr(new, name)
        if before != after and name not in MAY_CHANGE:
            raise ValueError(
                f"{name} cannot change while training, from {before} to {after}; "
                f"{', '.join(MAY_CHANGE)} can"
            )
    return new


@dataclass(frozen=True)
class Wave:
    """V cells visited together: slots, cells, and the cells whose streams they draw from, [V] each;
    where the networks of their centres [V] and of their sub-populations [V, n] lie.
    """

    slot: np.ndarray
    cell: np.ndarray
    stream_cell: np.ndarray
    centre: np.ndarray
    neighbourhood: np.ndarray

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, index: np.ndarray) -> Wave:
        """Those at `index`."""
        return Wave(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))


def wave_at(
    state: State, slot: np.ndarray, cell: np.ndarray, stream_cell: np.ndarray | None = None
) -> Wave:
    """The wave of these slots and cells, [V] each."""
    e = state.experiment
    neighbours = topology.neighbourhood(e.topology, e.cells, e.radius)
    stream_cell = cell if stream_cell is None else stream_cell
    first = slot * e.cells
    return Wave(slot, cell, stream_cell, first + cell, first[:, None] + neighbours[cell])


def all_cells(state: State) -> Wave:
    """Every cell of every trial, in the order of the population."""
    slot, cell = np.divmod(np.arange(len(state.population)), state.experiment.cells)
    return wave_at(state, slot, cell)


def visiting_order(state: State) -> Iterator[Wave]:
    """The waves of an epoch: in the order of the cells at first, in a shuffled one later."""
    e = state.experiment
    orders = np.tile(np.arange(e.cells), (len(state.trials), 1))
    if state.epoch > 0:
        for order, trial in zip(orders, state.trials, strict=True):
            stream(state.seed, trial, state.epoch, 0, "order").shuffle(order)
    neighbours = None
    if e.update_order == "asynchronous" and e.pairing != "all-pairs":
        neighbours = topology.neighbourhood(e.topology, e.cells, e.radius)
    for slot, cell in topology.waves(orders, neighbours):
        yield wave_at(state, slot, cell)


def draw(state: State, wave: Wave, v: int, purpose: str) -> np.random.Generator:
    """The stream of one cell of a wave."""
    trial, cell = state.trials[wave.slot[v]], int(wave.stream_cell[v])
    return stream(state.seed, trial, state.epoch, cell, purpose)


def draws(state: State, wave: Wave, purpose: str) -> Iterator[np.random.Generator]:
    """The stream of each cell in turn, good until the next one is asked for."""
    trials = [state.trials[slot] for slot in wave.slot]
    at = zip(trials, wave.stream_cell.tolist(), strict=True)
    return streams(state.seed, at, state.epoch, purpose)


def numbers_of(trials: int | Sequence[int]) -> list[int]:
    """The numbers of so many trials, or of those that are listed. Raises ValueError for others."""
    trials = plain(trials)
    if isinstance(trials, str) or not (isinstance(trials, int) or hasattr(trials, "__iter__")):
        raise ValueError(f"trials={short(trials)} must be a number, or a list of numbers")
    return list(range(trials) if isinstance(trials, int) else trials)


def initial(
    experiment: Experiment, trials: Sequence[int], seed: int, device: str, engine: str
) -> State:
    """The state before the first epoch: data, random or saved networks, learning rates."""
    e = experiment
    if not trials:
        raise ValueError("there are no trials to run")
    check_key("seed", seed)
    for trial in trials:
        check_key("trial", trial)
    training.check_device(device)
    e.check_files()
    footprint.check(e, len(trials))
    data = load_data(e, trials, seed, device)
    networks = starting_networks(e, trials, seed, data[0].dimension, device)
    assert e.optimiser is not None  # Experiment has resolved it
    training.prepare(networks, e.optimiser, masked=e.pruned_weights == "masked")
    operator = e.resolved_operator
    widths = [side.widths for side in networks.sides]
    chosen = training.choose_engine(engine, widths, networks.encoder.weights.device.type)
    rates = np.full((len(trials), e.cells), e.learning_rate)
    for i, (trial, cell) in enumerate(itertools.product(trials, range(e.cells))):
        if operator.lasting:
            rows = data[i // e.cells].train[:GRADIENT_ROWS]
            gradients.keep(networks, i, operator.lasting, rows, e.loss_at(0))
        if operator.regrows and e.has_target:
            rng = stream(seed, trial, 0, cell, "first mask")
            settings = e.operator_settings(0, e.final_target)
            members.prune(networks, [i], driver.AT_RANDOM, [rng], settings)
    return State(e, seed, list(trials), data, networks, rates, chosen)


def check_continues(state: State, experiment: Experiment, **given: Any) -> None:
    """Raise ValueError for settings, or what else is given (not None), that are not the state's."""
    there = state.population.encoder.weights.device
    held = {
        "trials": state.trials,
        "seed": state.seed,
        "engine": state.engine,
        "device": str(there),
    }
    pairs = [
        (name, getattr(experiment, name), getattr(state.experiment, name)) for name in SETTINGS
    ]
    pairs += [(n, v, held[n]) for n, v in given.items() if v not in (None, "auto", there.type)]
    for name, value, own in pairs:
        if value != own:
            raise ValueError(f"{name}={short(value)} must be that of the state, {short(own)}")


def load_data(
    e: Experiment, trials: Sequence[int], seed: int, device: str
) -> list[datasets.Dataset]:
    """The data of each trial, on a device; what trials share is there once."""
    data = [e.load_data(seed, trial) for trial in trials]
    if device != "cpu":
        there = {}
        for d in {id(d): d for d in data}.values():
            splits = {split: getattr(d, split).to(device) for split in datasets.SPLITS}
            there[id(d)] = dataclasses.replace(d, **splits)
        data = [there[id(d)] for d in data]
    return data


def starting_networks(
    e: Experiment, trials: Sequence[int], seed: int, dimension: int, device: str = "cpu"
) -> Population:
    """The networks that trials begin with, random or saved, before anything is masked."""
    if e.initial_weights is not None:
        saved, numbers = population.saved(e.initial_weights, device)
        if numbers is None:
            # taken in turn by the trials' own numbers, whatever others run beside them
            return saved.take(members_of(trials, e.cells) % len(saved))
        if missing := sorted(set(trials) - set(numbers)):
            raise ValueError(
                f"initial_weights={display(e.initial_weights)} holds no trial {missing[0]} to "
                "begin from; run that trial of it first"
            )
        cells = len(saved) // len(numbers)
        own = np.arange(e.cells) % cells
        return saved.take(np.concatenate([numbers.index(t) * cells + own for t in trials]))
    generators = [
        stream(seed, trial, 0, 0 if e.identical_start else cell, "initialise")
        for trial in trials
        for cell in range(e.cells)
    ]
    return population.initialise(dimension, e.model, e.kind, generators, device)


def rows_of(state: State, slot: int, cell: int) -> np.ndarray:
    """Rows of the training data that a cell sees: all, or a share drawn with replacement."""
    e, rows = state.experiment, len(state.data[slot].train)
    if e.data_share == 1:
        return np.arange(rows)
    generator = stream(state.seed, state.trials[slot], 0, cell, "subsample")
    return generator.integers(0, rows, max(1, round(e.data_share * rows)))


def empty_records(state: State) -> dict[str, np.ndarray]:
    """The history's columns before an epoch, [trials * cells] each."""
    return {name: np.full(len(state.population), unknown) for name, unknown in RECORDS.items()}


def batch_losses(
    state: State, wave: Wave, networks: Population, pairs: np.ndarray, split: str, purpose: str
) -> np.ndarray:
    """Losses [V, k] of each cell's pairs [V, k, 2] on one random batch of its "train" or "test".

    `purpose` is that of the stream that draws the batch.
    """
    e, test = state.experiment, split == "test"
    data = [state.data[slot].test if test else state.data[slot].train for slot in wave.slot]
    drawn = []
    for g, slot, cell in zip(draws(state, wave, purpose), wave.slot, wave.cell, strict=True):
        rows = np.arange(len(state.data[slot].test)) if test else rows_of(state, slot, cell)
        drawn.append(g.choice(rows, min(e.batch_size, len(rows)), replace=False))
    return training.batch_losses(
        networks,
        torch.from_numpy(pairs),
        data,
        torch.from_numpy(np.array(drawn)),
        e.loss_at(max(0, state.epoch)),
        state.engine,
    ).numpy()
