"""The loop of the paper: select, train, prune, replace (SPEC 3).

Canonical training is a population of one cell. `evolve` is a generator, one epoch a step; progress
bars, checkpoints and widgets consume it, and none of them is inside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evoae import activations, datasets, operators, population, topology, training
from evoae.experiment import Experiment
from evoae.population import Population
from evoae.randomness import stream

CONCEPTS = {"best": np.min, "worst": np.max, "mean": np.mean}
RATE_BOUNDS = (1e-9, 10.0)
EXAMPLES = 100  # drawn by the conjunctive operator
LOSS_COLUMNS = ("selection_loss", "replacement_loss", "test_loss", "train_l1")
ZERO_COLUMNS = (
    "encoder_zeros",
    "decoder_zeros",
    "encoder_zeros_at_last_prune",
    "decoder_zeros_at_last_prune",
)
MAY_CHANGE = [
    "operator",
    "amount",
    "threshold",
    "conjunctive_examples",
    "schedule",
    "probability",
    "pruning_clock",
    "decrease",
    "steepness",
    "last_share",
    "target_sparsity",
    "learning_rate",
    "rate_policy",
    "rate_sigma",
]


@dataclass
class State:
    """A run after an epoch. Networks of trial s (by position) and cell c lie at s * cells + c.

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
        for name in settings:
            if name not in MAY_CHANGE:
                raise ValueError(f"{name} cannot change while training; {MAY_CHANGE} can")
        new = self.experiment.replace(**settings)
        for name in settings:
            old_value, new_value = getattr(self.experiment, name), getattr(new, name)
            if old_value != new_value:
                self.changes.append((self.epoch + 1, name, old_value, new_value))
        self.experiment = new
        if "learning_rate" in settings:
            self.learning_rate[:] = new.learning_rate


def evolve(
    experiment: Experiment,
    trials: int | Sequence[int] = 1,
    seed: int = 1,
    *,
    device: str = "cpu",
    engine: str = "auto",
    state: State | None = None,
) -> Iterator[State]:
    """Yield the state after each epoch; it is updated in place. `state` continues a run."""
    if state is None:
        trials = list(range(trials)) if isinstance(trials, int) else list(trials)
        state = initial(experiment, trials, seed, device, engine)
    while state.epoch + 1 < state.experiment.epochs:
        with training.one_thread():
            run_epoch(state)
        yield state


def run_epoch(state: State) -> None:
    """Every cell of every trial makes one pass over its training data."""
    e = state.experiment
    state.epoch += 1
    state.records = empty_records(state)
    if e.pairing == "all-pairs":
        train_all_pairs(state)
    for places in visiting_order(state):
        visit(state, places)
    record_centres(state)
    next_rates(state)


def visit(state: State, places: Places) -> None:
    """Visit cells that do not depend on each other: select, train, prune, replace."""
    e = state.experiment
    if e.pairing == "all-pairs":
        pair = state.population.take(places.centre, places.centre)
    else:
        pair = TRAIN[e.pairing](state, places, *select(state, places))
    if e.prune_then_evaluate:
        pruned = prune(state, places, pair)
        loss = replacement_loss(state, places, pair)
    else:
        loss = replacement_loss(state, places, pair)
        pruned = prune(state, places, pair)
    replace(state, places, pair, loss, pruned)


# -- select --------------------------------------------------------------------------------------


def select(state: State, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Tournament in each sub-population; the winning encoders and decoders as indices [V]."""
    e, subpopulation = state.experiment, places.subpopulation
    visits, n = subpopulation.shape
    pairs = np.stack([np.repeat(subpopulation, n, axis=1), np.tile(subpopulation, (1, n))], axis=-1)
    loss = batch_losses(state, places, state.population, pairs, "selection batch")
    loss = loss.reshape(visits, n, n)  # encoder i with decoder j
    concept = CONCEPTS[e.solution_concept]
    chosen, tournaments = [], draws(state, places, "tournament")
    for fitness in (concept(loss, axis=2), concept(loss, axis=1)):
        if chosen and e.selection == "joint":
            chosen.append(chosen[0])
            break
        entrants = np.stack([g.integers(0, n, e.tournament_size) for g in tournaments])
        scores = np.take_along_axis(fitness, entrants, axis=1)
        winner = np.take_along_axis(entrants, scores.argmin(1)[:, None], axis=1)
        if not chosen:
            best = np.take_along_axis(fitness, winner, axis=1)[:, 0]
            state.records["selection_loss"][places.centre] = best
        chosen.append(np.take_along_axis(subpopulation, winner, axis=1)[:, 0])
    return chosen[0], chosen[1]


# -- train ---------------------------------------------------------------------------------------


def train_selected(
    state: State, places: Places, encoders: np.ndarray, decoders: np.ndarray
) -> Population:
    """Train copies of the selected pairs together (canonical, Lipi-AE-S)."""
    pair = copies(state, encoders, decoders)
    own = np.arange(len(places))[:, None, None, None]
    learn(state, places, pair, np.broadcast_to(own, (len(places), batches(state), 1, 2)))
    return pair


def train_with_random_partners(
    state: State, places: Places, encoders: np.ndarray, decoders: np.ndarray
) -> Population:
    """Lipi-AE (2024): per batch, the encoder with a random decoder of the sub-population, then the
    decoder with a random encoder. Partners move too, and are dropped after the visit.
    """
    visits, n = places.subpopulation.shape
    working = copies(
        state,
        np.column_stack([encoders, places.subpopulation]).ravel(),
        np.column_stack([decoders, places.subpopulation]).ravel(),
    )
    own = np.arange(visits) * (n + 1)
    partners = np.stack(
        [g.integers(1, n + 1, (batches(state), 2)) for g in draws(state, places, "partners")]
    )
    pairs = np.broadcast_to(own[:, None, None, None], (visits, batches(state), 2, 2)).copy()
    pairs[:, :, 0, 1] += partners[..., 0]
    pairs[:, :, 1, 0] += partners[..., 1]
    learn(state, places, working, pairs)
    return working.take(own, own)


TRAIN = {"selected": train_selected, "random-partner": train_with_random_partners}


def train_all_pairs(state: State) -> None:
    """All versus all (2024): every encoder i and decoder j make a pass over the data, pair after
    pair. Per batch, decoder j learns with a copy of encoder i, then encoder i with a copy of
    decoder j; the copies are dropped after the pass. Passes that share no network run together.
    """
    e = state.experiment
    if e.statistics_window == "visit":
        for side in state.population.sides:
            activations.reset(side)
    for diagonal in range(2 * e.cells - 1):
        i = np.arange(max(0, diagonal - e.cells + 1), min(diagonal, e.cells - 1) + 1)
        slots = np.repeat(np.arange(len(state.trials)), len(i))
        i = np.tile(i, len(state.trials))
        j = diagonal - i
        # a pass draws from the stream of "cell" i * cells + j
        passes = places_at(state, slots, i, stream_cell=i * e.cells + j)
        encoders, decoders = passes.centre, slots * e.cells + j
        working = state.population.take(np.repeat(encoders, 2), np.repeat(decoders, 2))
        real, copy = 2 * np.arange(len(passes)), 2 * np.arange(len(passes)) + 1
        steps = np.stack([np.stack([copy, real], -1), np.stack([real, copy], -1)], axis=1)
        learn(state, passes, working, np.repeat(steps[:, None], batches(state), axis=1))
        state.population.encoder.put(encoders, working.encoder.take(real))
        state.population.decoder.put(decoders, working.decoder.take(real))


def copies(state: State, encoders: np.ndarray, decoders: np.ndarray) -> Population:
    """Copies to be trained; statistics of a visit start anew."""
    taken = state.population.take(encoders, decoders)
    if state.experiment.statistics_window == "visit":
        for side in taken.sides:
            activations.reset(side)
    return taken


def batches(state: State) -> int:
    return -(-len(rows_of(state, 0, 0)) // state.experiment.batch_size)


def learn(state: State, places: Places, working: Population, pairs: np.ndarray) -> None:
    """One pass over each place's training data, in an order of its own."""
    e, data = state.experiment, [state.data[slot].train for slot in places.slot]
    order = torch.from_numpy(
        np.stack(
            [
                g.permutation(rows_of(state, slot, cell))
                for g, slot, cell in zip(
                    draws(state, places, "training batches"), places.slot, places.cell, strict=True
                )
            ]
        )
    )
    inputs, latent = data, None
    if e.kind == "denoising":
        noises = draws(state, places, "input noise")
        inputs = [
            x + e.input_noise * torch.from_numpy(g.standard_normal(x.shape, np.float32)).to(x)
            for x, g in zip(data, noises, strict=True)
        ]
    if e.kind == "variational":
        shape = (order.shape[1], working.decoder.widths[0])
        noises = draws(state, places, "latent noise")
        latent = torch.from_numpy(np.stack([g.standard_normal(shape, np.float32) for g in noises]))
    rates = torch.from_numpy(state.learning_rate[places.slot, places.cell])
    lesson = training.Lesson(
        torch.tensor(pairs), inputs, data, order, rates, e.batch_size, e.loss, e.optimiser, latent
    )
    training.train(working, lesson, state.engine)
    state.model_steps += lesson.model_steps


# -- prune ---------------------------------------------------------------------------------------


def prune(state: State, places: Places, pair: Population) -> np.ndarray:
    """Prune each pair with the schedule's probability, or up to its target. Which ones, [V]."""
    e, pruned = state.experiment, np.zeros(len(places), dtype=bool)
    if e.operator == "none":
        return pruned
    value = e.pruning_at(state.epoch)
    settings = operators.OperatorSettings(
        value if e.has_target else e.amount, e.threshold, to_target=e.has_target
    )
    chances = [g.random() for g in draws(state, places, "prune or not")]
    for v, chance in enumerate(chances):
        if value == 0 or (chance >= value and not e.has_target):
            continue
        place = places.only(v)
        data = state.data[place.slot[0]]
        source = data.test if e.conjunctive_examples == "test" else data.train
        rows = draws(state, place, "examples")[0].integers(0, len(source), EXAMPLES)
        operators.prune(
            pair,
            v,
            operators.find(e.operator),
            draws(state, place, "operator")[0],
            settings,
            source[torch.from_numpy(rows).to(source.device)],
        )
        if e.statistics_window == "since-prune":
            for side in pair.sides:
                activations.reset(side, v)
        pruned[v] = True
    return pruned


# -- replace, record -----------------------------------------------------------------------------


def replacement_loss(state: State, places: Places, pair: Population) -> np.ndarray:
    """Loss of each trained pair on one random training batch, [V]."""
    own = np.tile(np.arange(len(places))[:, None, None], (1, 1, 2))
    return batch_losses(state, places, pair, own, "replacement batch")[:, 0]


def replace(
    state: State, places: Places, pair: Population, loss: np.ndarray, pruned: np.ndarray
) -> None:
    """The trained pair becomes the centre: always, or if not worse than the old centre."""
    kept = np.ones(len(places), dtype=bool)
    if state.experiment.replacement == "better":
        centre = np.tile(places.centre[:, None, None], (1, 1, 2))
        old = batch_losses(state, places, state.population, centre, "replacement batch")[:, 0]
        kept = loss <= old
        loss = np.minimum(loss, old)
    index = np.flatnonzero(kept)
    state.population.put(places.centre[index], pair.take(index, index))
    state.records["replacement_loss"][places.centre] = loss
    state.records["pruned"][places.centre] = pruned & kept


def record_centres(state: State) -> None:
    """What the history says of every centre after an epoch (SPEC 6)."""
    e, everyone = state.experiment, all_places(state)
    own = np.tile(everyone.centre[:, None, None], (1, 1, 2))
    records = state.records
    records["learning_rate"][:] = state.learning_rate.ravel()
    records["test_loss"][:] = batch_losses(state, everyone, state.population, own, "test batch")[
        :, 0
    ]
    for name, side in zip(("encoder", "decoder"), state.population.sides, strict=True):
        records[f"{name}_zeros"][:] = side.zeros()
        last = side.tensors["zeros_at_last_prune"].cpu().numpy()
        records[f"{name}_zeros_at_last_prune"][:] = last
    if state.epoch in e.quality_epochs:
        data = [state.data[slot].train for slot in everyone.slot]
        records["train_l1"][:] = training.data_losses(state.population, data, state.engine)


def next_rates(state: State) -> None:
    """The learning rates of the next epoch: they belong to cells and are never copied."""
    e = state.experiment
    if e.rate_policy == "step-decay" and (state.epoch + 1) % max(1, e.epochs // 4) == 0:
        state.learning_rate *= 0.1
    if e.rate_policy == "mutated":
        everyone = all_places(state)
        moves = np.array(
            [g.normal(0, e.rate_sigma) for g in draws(state, everyone, "learning rate")]
        )
        moves = moves.reshape(state.learning_rate.shape)
        if e.pairing == "all-pairs":  # no space: one rate for all
            moves = moves[:, :1]
        state.learning_rate = (state.learning_rate + moves).clip(*RATE_BOUNDS)


def empty_records(state: State) -> dict[str, np.ndarray]:
    places = len(state.population)
    records = {name: np.full(places, np.nan) for name in ("learning_rate", *LOSS_COLUMNS)}
    records["pruned"] = np.zeros(places, dtype=bool)
    records |= {name: np.zeros(places, dtype=np.int64) for name in ZERO_COLUMNS}
    return records


def batch_losses(
    state: State, places: Places, networks: Population, pairs: np.ndarray, purpose: str
) -> np.ndarray:
    """Losses [V, k] of each place's pairs [V, k, 2] on one random batch of its data."""
    e, test = state.experiment, purpose == "test batch"
    data = [state.data[slot].test if test else state.data[slot].train for slot in places.slot]
    rows = []
    for g, slot, cell in zip(draws(state, places, purpose), places.slot, places.cell, strict=True):
        among = len(state.data[slot].test) if test else rows_of(state, slot, cell)
        size = min(e.batch_size, among if test else len(among))
        rows.append(g.choice(among, size, replace=False))
    rows = torch.from_numpy(np.stack(rows))
    pairs = torch.from_numpy(pairs)
    return training.batch_losses(networks, pairs, data, rows, e.loss, state.engine).numpy()


def rows_of(state: State, slot: int, cell: int) -> np.ndarray:
    """Rows of the training data that a cell sees: all, or a share drawn with replacement."""
    e, rows = state.experiment, len(state.data[slot].train)
    if e.data_share == 1:
        return np.arange(rows)
    generator = stream(state.seed, state.trials[slot], 0, cell, "subsample")
    return generator.integers(0, rows, max(1, round(e.data_share * rows)))


# -- places and draws ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """V cells visited together: positions of their trials, their cells, the cell number of their
    streams, [V] each; flat indices of their centres [V] and sub-populations [V, n].
    """

    slot: np.ndarray
    cell: np.ndarray
    stream_cell: np.ndarray
    centre: np.ndarray
    subpopulation: np.ndarray

    def __len__(self) -> int:
        return len(self.slot)

    def only(self, v: int) -> Places:
        one = slice(v, v + 1)
        parts = (self.slot, self.cell, self.stream_cell, self.centre, self.subpopulation)
        return Places(*(part[one] for part in parts))


def places_at(
    state: State, slot: np.ndarray, cell: np.ndarray, stream_cell: np.ndarray | None = None
) -> Places:
    e = state.experiment
    neighbours = topology.neighbourhood(e.topology, e.cells, e.radius)
    subpopulation = slot[:, None] * e.cells + neighbours[cell]
    return Places(
        slot,
        cell,
        cell if stream_cell is None else stream_cell,
        slot * e.cells + cell,
        subpopulation,
    )


def all_places(state: State) -> Places:
    slot, cell = np.divmod(np.arange(len(state.population)), state.experiment.cells)
    return places_at(state, slot, cell)


def visiting_order(state: State) -> Iterator[Places]:
    """Waves of places. Epoch 0 visits cells in their order, later epochs in a shuffled one."""
    e = state.experiment
    orders = np.tile(np.arange(e.cells), (len(state.trials), 1))
    if state.epoch > 0:
        for order, trial in zip(orders, state.trials, strict=True):
            stream(state.seed, trial, state.epoch, 0, "order").shuffle(order)
    neighbours = None
    if e.update_order == "asynchronous" and e.pairing != "all-pairs":
        neighbours = topology.neighbourhood(e.topology, e.cells, e.radius)
    for slot, cell in topology.waves(orders, neighbours):
        yield places_at(state, slot, cell)


def draws(state: State, places: Places, purpose: str) -> list[np.random.Generator]:
    """One stream for each place."""
    return [
        stream(state.seed, state.trials[slot], state.epoch, cell, purpose)
        for slot, cell in zip(places.slot.tolist(), places.stream_cell.tolist(), strict=True)
    ]


def initial(
    experiment: Experiment, trials: Sequence[int], seed: int, device: str, engine: str
) -> State:
    """The state before the first epoch: data, random or saved networks, learning rates."""
    e = experiment
    e.check_files()
    data = [datasets.load(e.dataset, seed=seed, trial=trial, **e.data_options) for trial in trials]
    if device != "cpu":
        data = [on_device(d, device) for d in data]
    if e.initial_weights:
        saved = population.load(e.initial_weights, device)
        index = np.arange(len(trials) * e.cells) % len(saved)
        networks = saved.take(index, index)
    else:
        generators = [
            stream(seed, trial, 0, 0 if e.identical_start else cell, "initialise")
            for trial in trials
            for cell in range(e.cells)
        ]
        networks = population.initialise(data[0].dimension, e.model, e.kind, generators, device)
    training.prepare(networks, e.optimiser, masked=e.pruned_weights == "masked")
    chosen = training.choose_engine(engine, networks, e.batch_size)
    rates = np.full((len(trials), e.cells), e.learning_rate)
    return State(e, seed, list(trials), data, networks, rates, chosen)


def on_device(data: datasets.Dataset, device: str) -> datasets.Dataset:
    splits = ("train", "validation", "test")
    return dataclasses.replace(data, **{s: getattr(data, s).to(device) for s in splits})
