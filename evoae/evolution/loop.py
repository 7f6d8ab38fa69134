"""The loop of the paper: select, train, prune, replace.

Canonical training is a population of one cell. `evolve` is a generator, one epoch a step; progress
bars, checkpoints and widgets consume it, and none of them is inside it.

A *visit* is what the paper does at one cell. The visits of a `Wave` do not depend on each other and
are made together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from evoae.evolution.cells import (
    GRADIENT_ROWS,
    State,
    Wave,
    all_cells,
    batch_losses,
    check_continues,
    draw,
    draws,
    empty_records,
    initial,
    numbers_of,
    rows_of,
    visiting_order,
    wave_at,
)
from evoae.evolution.rates import next_rates
from evoae.experiment import Experiment
from evoae.networks import activations, gradients, training
from evoae.networks.population import Population
from evoae.pruning import driver, members, schedules
from evoae.pruning.layer import EXAMPLES
from evoae.randomness import normals

CONCEPTS: dict[str, Callable[..., np.ndarray]] = {"best": np.min, "worst": np.max, "mean": np.mean}


def evolve(
    experiment: Experiment,
    trials: int | Sequence[int] | None = None,
    seed: int | None = None,
    *,
    device: str | None = None,
    engine: str = "auto",
    state: State | None = None,
    abandon: Callable[[], bool] = lambda: False,
) -> Iterator[State]:
    """Yield the state after each epoch; it is updated in place. `state` continues a run.

    By default one trial, seed 1, on the CPU; or what the state has. `abandon` is asked between
    visits: if it says yes, the epoch under way is left unfinished, its state is of no further use,
    and nothing more is yielded. Raises ValueError for wrong settings, or others than the state's.
    """
    numbers = None if trials is None else numbers_of(trials)
    if state is not None:
        check_continues(state, experiment, trials=numbers, seed=seed, device=device, engine=engine)
    else:
        seed = 1 if seed is None else seed
        numbers = [0] if numbers is None else numbers
        state = initial(experiment, numbers, seed, device or "cpu", engine)
    while state.epoch + 1 < state.experiment.epochs:
        with training.one_thread():
            for _ in run_epoch(state):
                if abandon():
                    return
        yield state


def run_epoch(state: State) -> Iterator[None]:
    """Every cell of every trial makes one pass over its training data. Pauses between visits."""
    e = state.experiment
    state.epoch += 1
    state.records = empty_records(state)
    state.records["pruned"][:] = to_be_pruned(state)
    if e.pairing == "all-pairs":
        yield from train_all_pairs(state)
    for wave in visiting_order(state):
        visit(state, wave)
        yield
    record_centres(state)
    next_rates(state)


def visit(state: State, wave: Wave) -> None:
    """Visit a wave of cells: select, train, prune, replace."""
    if state.experiment.pairing == "all-pairs":  # trained already, and nobody is selected
        pair = state.population.take(wave.centre)
    else:
        encoders, decoders = select(state, wave)
        pair = TRAIN[state.experiment.pairing](state, wave, encoders, decoders)
    apply_l1_penalty(state, wave, pair)
    observe_movement(state, wave, pair)
    loss = prune_and_evaluate(state, wave, pair)
    replace(state, wave, pair, loss)


# -- select --------------------------------------------------------------------------------------


def select(state: State, wave: Wave) -> tuple[np.ndarray, np.ndarray]:
    """Tournament in each sub-population; the winning encoders and decoders as indices [V]."""
    near = wave.neighbourhood
    visits, n = near.shape
    # [V, n * n, 2]
    combinations = np.stack([np.repeat(near, n, axis=1), np.tile(near, (1, n))], axis=-1)
    loss = batch_losses(state, wave, state.population, combinations, "train", "selection batch")
    loss = loss.reshape(visits, n, n)  # encoder i with decoder j
    winners, best = tournament(loss, draws(state, wave, "tournament"), state.experiment)
    state.records["selection_loss"][wave.centre] = best
    encoders, decoders = np.take_along_axis(near[None], winners[..., None], axis=2)[..., 0]
    return encoders, decoders


def tournament(
    loss: np.ndarray, generators: Iterable[np.random.Generator], e: Experiment
) -> tuple[np.ndarray, np.ndarray]:
    """Winners [2, V], the encoder's and the decoder's position in each sub-population; fitness [V].

    `loss` [V, n, n] is that of encoder i with decoder j. Each sub-population draws from its
    generator; the fitness is that of the winning encoder.
    """
    concept, n = CONCEPTS[e.solution_concept], loss.shape[1]
    loss = np.nan_to_num(loss, nan=np.inf)  # a pair that has diverged wins nothing
    fitness = np.stack([concept(loss, axis=2), concept(loss, axis=1)])  # of encoders, of decoders
    entrants = np.stack([g.integers(0, n, (2, e.tournament_size)) for g in generators], axis=1)
    first = np.take_along_axis(fitness, entrants, axis=2).argmin(2)
    winners = np.take_along_axis(entrants, first[..., None], axis=2)[..., 0]  # [2, V]
    if e.selection == "joint":
        winners[1] = winners[0]
    return winners, fitness[0][np.arange(len(loss)), winners[0]]


# -- train ---------------------------------------------------------------------------------------


def train_selected(
    state: State, wave: Wave, encoders: np.ndarray, decoders: np.ndarray
) -> Population:
    """Train copies of the selected pairs together (canonical, Lipi-AE-S)."""
    pair = copies(state, encoders, decoders)
    own = np.arange(len(wave))[:, None, None, None]
    learn(state, wave, pair, np.broadcast_to(own, (len(wave), batch_count(state), 1, 2)))
    return pair


def train_with_random_partners(
    state: State, wave: Wave, encoders: np.ndarray, decoders: np.ndarray
) -> Population:
    """Lipi-AE (2024): per batch, the encoder with a random decoder of the sub-population, then the
    decoder with a random encoder. Partners move too, and are dropped after the visit.
    """
    visits, n = wave.neighbourhood.shape
    working = copies(
        state,
        np.column_stack([encoders, wave.neighbourhood]).ravel(),
        np.column_stack([decoders, wave.neighbourhood]).ravel(),
    )
    own = np.arange(visits) * (n + 1)
    partners = np.stack(
        [g.integers(1, n + 1, (batch_count(state), 2)) for g in draws(state, wave, "partners")]
    )
    pairs = np.broadcast_to(own[:, None, None, None], (visits, batch_count(state), 2, 2)).copy()
    pairs[:, :, 0, 1] += partners[..., 0]
    pairs[:, :, 1, 0] += partners[..., 1]
    learn(state, wave, working, pairs)
    return working.take(own)


TRAIN = {"selected": train_selected, "random-partner": train_with_random_partners}


def train_all_pairs(state: State) -> Iterator[None]:
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
        passes = wave_at(state, slots, i, stream_cell=i * e.cells + j)
        encoders, decoders = passes.centre, slots * e.cells + j
        working = state.population.take(np.repeat(encoders, 2), np.repeat(decoders, 2))
        real, copy = 2 * np.arange(len(passes)), 2 * np.arange(len(passes)) + 1
        steps = np.stack([np.stack([copy, real], -1), np.stack([real, copy], -1)], axis=1)
        learn(state, passes, working, np.repeat(steps[:, None], batch_count(state), axis=1))
        state.population.encoder.put(encoders, working.encoder.take(real))
        state.population.decoder.put(decoders, working.decoder.take(real))
        yield


def apply_l1_penalty(state: State, wave: Wave, pair: Population) -> None:
    """L1 regularisation of a visit's training pass, until the share `prune_until` of the run."""
    e = state.experiment
    if e.l1_penalty and schedules.elapsed(state.epoch, e.epochs - 1) <= e.prune_until:
        rates = state.learning_rate[wave.slot, wave.cell]
        pair.soft_threshold(torch.from_numpy(e.l1_penalty * rates * batch_count(state)))


def observe_movement(state: State, wave: Wave, pair: Population) -> None:
    """Add to the sums of -w g, if the operator asks for them."""
    e = state.experiment
    if "movement" in e.resolved_operator.lasting:
        for v in range(len(wave)):
            rows = rows_of_gradients(state, wave, v)
            gradients.observe_movement(pair, v, rows, e.loss_at(state.epoch))


def copies(state: State, encoders: np.ndarray, decoders: np.ndarray) -> Population:
    """Copies to be trained; statistics of a visit start anew."""
    taken = state.population.take(encoders, decoders)
    if state.experiment.statistics_window == "visit":
        for side in taken.sides:
            activations.reset(side)
    return taken


def batch_count(state: State) -> int:
    """Batches in one pass over the training data of a cell."""
    return -(-len(rows_of(state, 0, 0)) // state.experiment.batch_size)


def steps_of_an_epoch(state: State) -> int:
    """Model steps of all trials."""
    cells = state.experiment.cells
    visits = {"selected": cells, "random-partner": 2 * cells, "all-pairs": 2 * cells**2}
    return len(state.trials) * visits[state.experiment.pairing] * batch_count(state)


def learn(state: State, wave: Wave, working: Population, pairs: np.ndarray) -> None:
    """One pass over each cell's training data, in an order of its own.

    `pairs` [V, batches, k, 2] are the (encoder, decoder) pairs that take a step on each batch of a
    visit, one after the other, as indices into the working networks.
    """
    e, data = state.experiment, [state.data[slot].train for slot in wave.slot]
    at = zip(draws(state, wave, "training batches"), wave.slot, wave.cell, strict=True)
    orders = [g.permutation(rows_of(state, slot, cell)) for g, slot, cell in at]
    order = torch.from_numpy(np.stack(orders))
    inputs, latent = data, None
    if e.kind == "denoising":
        noises = draws(state, wave, "input noise")
        inputs = [
            normals(g, x.shape, e.input_noise).to(x).add_(x)
            for x, g in zip(data, noises, strict=True)
        ]
    if e.kind == "variational":
        shape = (order.shape[1], working.decoder.widths[0])
        noises = draws(state, wave, "latent noise")
        latent = torch.from_numpy(np.stack([g.standard_normal(shape, np.float32) for g in noises]))
    rates = torch.from_numpy(state.learning_rate[wave.slot, wave.cell])
    assert e.optimiser is not None  # Experiment has resolved it
    batches = training.Batches(
        torch.tensor(pairs),
        inputs,
        data,
        order,
        rates,
        e.batch_size,
        e.loss_at(state.epoch),
        e.optimiser,
        latent,
    )
    training.train(working, batches, state.engine)
    state.model_steps += batches.model_steps


# -- prune ---------------------------------------------------------------------------------------


def to_be_pruned(state: State) -> np.ndarray:
    """Whose autoencoder will be pruned in this epoch, [trials * cells]: the schedule's draw."""
    e, everyone = state.experiment, all_cells(state)
    if e.shared_pruning != "nothing":
        everyone = with_one_stream(everyone)
    value = 0 if e.resolved_operator.idle else e.pruning_at(state.epoch)
    if value == 0 or e.has_target:  # a target is aimed at in every epoch
        return np.full(len(everyone), value != 0)
    if e.prune_count is not None:
        at = zip(everyone.slot, everyone.stream_cell, strict=True)
        return np.array([state.epoch in prune_epochs(state, slot, cell) for slot, cell in at])
    return np.array([g.random() < value for g in draws(state, everyone, "prune or not")])


def with_one_stream(wave: Wave) -> Wave:
    """The wave, all of whose cells draw from the streams of the first cell."""
    return dataclasses.replace(wave, stream_cell=np.zeros_like(wave.stream_cell))


def prune_epochs(state: State, slot: int, cell: int) -> frozenset[int]:
    """The epochs after which a cell is pruned, where their number is given."""
    e = state.experiment
    where = (state.seed, state.trials[slot], int(cell))
    return driver.drawn_epochs(*where, e.prune_count, tuple(e.pruning_probabilities))


def prune_and_evaluate(state: State, wave: Wave, pair: Population) -> np.ndarray:
    """Prune the trained pairs; their losses [V] are those of before, or after if so set."""
    first, index = state.experiment.prune_then_evaluate, np.arange(len(wave))
    if first:
        prune(state, wave, pair)
    loss = own_losses(state, wave, pair, index, "train", "replacement batch")
    if not first:
        prune(state, wave, pair)
    return loss


def prune(state: State, wave: Wave, pair: Population) -> None:
    """Prune the trained pairs of those whose turn it is."""
    e, index = state.experiment, np.flatnonzero(state.records["pruned"][wave.centre])
    operator, settings = e.resolved_operator, e.operator_settings(state.epoch)
    if e.has_target and e.pruned_weights == "masked":
        there = members.at_target(pair, operator, settings)[index]  # is left alone
        state.records["pruned"][wave.centre[index[there]]] = False
        index = index[~there]
    if not len(index):
        return
    pruned = wave.take(index)
    if e.shared_pruning == "positions":
        pruned = with_one_stream(pruned)
    members.prune(
        pair,
        index,
        operator,
        draws(state, pruned, "operator"),
        settings,
        functools.partial(examples_of, state, wave),
        functools.partial(rows_of_gradients, state, wave),
        e.loss_at(state.epoch),
    )
    if e.statistics_window == "since-prune":
        for side in pair.sides:
            activations.reset(side, torch.from_numpy(index))


def examples_of(state: State, wave: Wave, v: int) -> torch.Tensor:
    """The examples that an operator may recall at one cell, [100, D], drawn with replacement.

    From the training data, but for the operator that reads the test data as released.
    """
    e, data = state.experiment, state.data[wave.slot[v]]
    reads_test = e.resolved_operator.reads_test and e.conjunctive_examples == "test"
    source = data.test if reads_test else data.train
    rows = draw(state, wave, v, "examples").integers(0, len(source), EXAMPLES)
    return source[torch.from_numpy(rows).to(source.device)]


def rows_of_gradients(state: State, wave: Wave, v: int) -> torch.Tensor:
    """The training rows on which an operator sees gradients at one cell, [at most 500, D]."""
    source = state.data[wave.slot[v]].train
    if len(source) <= GRADIENT_ROWS:
        return source
    rows = draw(state, wave, v, "gradient rows").choice(len(source), GRADIENT_ROWS, replace=False)
    return source[torch.from_numpy(rows).to(source.device)]


# -- replace, record -----------------------------------------------------------------------------


def own_losses(
    state: State, wave: Wave, networks: Population, index: np.ndarray, split: str, purpose: str
) -> np.ndarray:
    """Loss of each cell's autoencoder, at `index` [V] of the networks, on one random batch of its
    "train" or "test". The same purpose draws the same batch again.
    """
    pairs = np.tile(index[:, None, None], (1, 1, 2))
    return batch_losses(state, wave, networks, pairs, split, purpose)[:, 0]


def replace(state: State, wave: Wave, pair: Population, loss: np.ndarray) -> None:
    """The trained pair becomes the centre: always, or if not worse than the old centre."""
    centre = wave.centre
    if state.experiment.replacement == "better":
        # on the batch that the trained pairs were measured on
        old = own_losses(state, wave, state.population, centre, "train", "replacement batch")
        kept = (loss <= old) | np.isnan(old)
        loss = np.fmin(loss, old)
        pair, centre = pair.take(kept), centre[kept]
        state.records["pruned"][wave.centre[~kept]] = False
    state.records["replacement_loss"][wave.centre] = loss
    state.population.put(centre, pair)


def record_centres(state: State) -> None:
    """What the history says of every centre after an epoch."""
    e, everyone = state.experiment, all_cells(state)
    records = state.records
    records["learning_rate"][:] = state.learning_rate.ravel()
    everywhere = state.population, everyone.centre
    records["test_loss"][:] = own_losses(state, everyone, *everywhere, "test", "test batch")
    for name, side in zip(("encoder", "decoder"), state.population.sides, strict=True):
        records[f"{name}_zeros"][:] = side.zeros()
        last = side.tensors["zeros_at_last_prune"].cpu().numpy()
        records[f"{name}_zeros_at_last_prune"][:] = last
    if state.epoch in e.quality_epochs:
        data = [state.data[slot].train for slot in everyone.slot]
        records["train_l1"][:] = training.data_losses(state.population, data, state.engine)
