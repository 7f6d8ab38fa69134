"""The loop against a plain one written from the paper's rules: one visit at a time, the same bits.

The slow loop keeps Python lists of single networks. Orders, sub-populations, fitness, tournaments,
pruning decisions, replacement and learning rates are its own; the arithmetic of a visit, the masks
of an operator and the streams are the package's.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ENGINES, evolved, tiny

from evoae import Experiment
from evoae.data import datasets
from evoae.networks import population as populations
from evoae.networks import training
from evoae.networks.activations import SUMS
from evoae.networks.activations import statistics as unit_statistics
from evoae.networks.population import Networks, Population
from evoae.pruning import operators
from evoae.randomness import stream

FIRST = torch.tensor([0])


def stacked(networks: list[Networks]) -> Networks:
    keys = networks[0].tensors
    tensors = {key: torch.cat([one.tensors[key] for one in networks]) for key in keys}
    return Networks(networks[0].widths, networks[0].last_relu, tensors)


def copied(networks: Networks) -> Networks:
    return networks.take(FIRST)


def forget(networks: Networks) -> None:
    for name in SUMS:
        networks.tensors[name].zero_()


class SlowLoop:
    """One trial, visited cell by cell."""

    def __init__(self, e: Experiment, trial: int, seed: int, engine: str) -> None:
        self.e, self.trial, self.seed, self.engine = e, trial, seed, engine
        self.data = datasets.load("binary-clusters", seed=seed, trial=trial, **e.data_options)
        self.encoders: list[Networks] = []
        self.decoders: list[Networks] = []
        for cell in range(e.cells):
            generator = stream(seed, trial, 0, cell, "initialise")
            one = populations.initialise(e.bits, e.model, e.kind, [generator], "cpu")
            training.prepare(one, e.optimiser, e.pruned_weights == "masked")
            self.encoders.append(one.encoder)
            self.decoders.append(one.decoder)
        self.rates = [e.learning_rate] * e.cells
        self.rows: list[dict[str, Any]] = []

    def draw(self, t: int, cell: int, purpose: str) -> np.random.Generator:
        return stream(self.seed, self.trial, t, cell, purpose)

    def run(self) -> list[dict[str, Any]]:
        for t in range(self.e.epochs):
            self.epoch(t)
        return self.rows

    def epoch(self, t: int) -> None:
        e = self.e
        order = np.arange(e.cells)
        if t > 0:
            self.draw(t, 0, "order").shuffle(order)
        rows = {cell: {"trial": self.trial, "epoch": t, "cell": cell} for cell in range(e.cells)}
        if e.pairing == "all-pairs":
            self.train_every_pair(t)
        before = [copied(n) for n in self.encoders], [copied(n) for n in self.decoders]
        for cell in order.tolist():
            seen = (self.encoders, self.decoders) if e.update_order == "asynchronous" else before
            self.visit(t, cell, seen, rows[cell])
        for cell, row in rows.items():
            row["learning_rate"] = self.rates[cell]
            pair = Population(self.encoders[cell], self.decoders[cell])
            row["test_loss"] = self.loss(t, cell, pair, "test batch")
            row["encoder_zeros"] = int((self.encoders[cell].weights == 0).sum())
            row["decoder_zeros"] = int((self.decoders[cell].weights == 0).sum())
            row["weights"] = torch.cat([side.weights[0] for side in pair.sides])
            self.rows.append(row)
        self.change_rates(t)

    def visit(
        self, t: int, cell: int, seen: tuple[list[Networks], list[Networks]], row: dict[str, Any]
    ) -> None:
        e = self.e
        if e.pairing == "all-pairs":
            row["selection_loss"] = math.nan
            pair = Population(copied(self.encoders[cell]), copied(self.decoders[cell]))
        else:
            members = self.members(cell)
            encoders = [copied(seen[0][member]) for member in members]
            decoders = [copied(seen[1][member]) for member in members]
            i, j, row["selection_loss"] = self.select(t, cell, encoders, decoders)
            train = self.train_together if e.pairing == "selected" else self.train_apart
            pair = train(t, cell, encoders, decoders, i, j)
        if e.prune_then_evaluate:
            row["pruned"] = self.prune(t, cell, pair)
            loss = self.loss(t, cell, pair, "replacement batch")
        else:
            loss = self.loss(t, cell, pair, "replacement batch")
            row["pruned"] = self.prune(t, cell, pair)
        if e.replacement == "better":
            old = Population(self.encoders[cell], self.decoders[cell])
            old_loss = self.loss(t, cell, old, "replacement batch")
            if old_loss < loss:
                row["replacement_loss"], row["pruned"] = old_loss, False
                return
        row["replacement_loss"] = loss
        self.encoders[cell], self.decoders[cell] = pair.encoder, pair.decoder

    def members(self, cell: int) -> list[int]:
        """The cell first, then its neighbours from near to far."""
        cells, radius = self.e.cells, self.e.radius
        if self.e.topology == "complete":
            return [(cell + step) % cells for step in range(cells)]
        if self.e.topology == "ring":
            found = [cell]
            for step in range(1, radius + 1):
                found += [(cell - step) % cells, (cell + step) % cells]
            return found
        side = math.isqrt(cells)  # square tori
        y, x = divmod(cell, side)
        steps = [
            (abs(down) + abs(right), down, right)
            for down in range(-radius, radius + 1)
            for right in range(-radius, radius + 1)
            if abs(down) + abs(right) <= radius
        ]
        return [(y + down) % side * side + (x + right) % side for _, down, right in sorted(steps)]

    def select(
        self, t: int, cell: int, encoders: list[Networks], decoders: list[Networks]
    ) -> tuple[int, int, float]:
        e, n = self.e, len(encoders)
        every = torch.tensor([[[i, j] for i in range(n) for j in range(n)]])
        losses = training.batch_losses(
            Population(stacked(encoders), stacked(decoders)), every, [self.data.train],
            self.batch(t, cell, "selection batch"), e.loss, self.engine,
        )[0].tolist()  # fmt: skip
        loss = {(i, j): losses[i * n + j] for i in range(n) for j in range(n)}
        concept = {"best": min, "worst": max, "mean": np.mean}[e.solution_concept]
        generator = self.draw(t, cell, "tournament")

        def tournament(fitness: list[float]) -> int:
            winner = None
            for entrant in generator.integers(0, n, e.tournament_size).tolist():
                if winner is None or fitness[entrant] < fitness[winner]:
                    winner = entrant
            return winner

        encoder_fitness = [concept([loss[i, j] for j in range(n)]) for i in range(n)]
        i = j = tournament(encoder_fitness)
        if e.selection == "separate":
            j = tournament([concept([loss[i, j] for i in range(n)]) for j in range(n)])
        return i, j, encoder_fitness[i]

    def train_together(
        self, t: int, cell: int, encoders: list[Networks], decoders: list[Networks], i: int, j: int
    ) -> Population:
        pair = Population(copied(encoders[i]), copied(decoders[j]))
        self.learn(t, cell, pair, [[(0, 0)]] * self.batches, cell)
        return pair

    def train_apart(
        self, t: int, cell: int, encoders: list[Networks], decoders: list[Networks], i: int, j: int
    ) -> Population:
        """Lipi-AE: copies 0 are trained, with random partners 1 ... n, which move and are lost."""
        working = Population(stacked([encoders[i], *encoders]), stacked([decoders[j], *decoders]))
        generator, n = self.draw(t, cell, "partners"), len(encoders)
        partners = generator.integers(1, n + 1, (self.batches, 2)).tolist()
        self.learn(t, cell, working, [[(0, d), (e, 0)] for d, e in partners], cell)
        return Population(copied(working.encoder), copied(working.decoder))

    def train_every_pair(self, t: int) -> None:
        """All versus all, encoder by encoder and within it decoder by decoder."""
        if self.e.statistics_window == "visit":
            for networks in self.encoders + self.decoders:
                forget(networks)
        for i in range(self.e.cells):
            for j in range(self.e.cells):
                working = Population(
                    stacked([self.encoders[i], self.encoders[i]]),
                    stacked([self.decoders[j], self.decoders[j]]),
                )
                # 0 learns, 1 is the copy: decoder j with a copy of i, encoder i with a copy of j
                steps = [[(1, 0), (0, 1)]] * self.batches
                self.learn(t, i * self.e.cells + j, working, steps, i, fresh=False)
                self.encoders[i] = copied(working.encoder)
                self.decoders[j] = copied(working.decoder)

    def learn(
        self, t: int, draws_of: int, working: Population, steps: list, cell: int, fresh: bool = True
    ) -> None:
        if fresh and self.e.statistics_window == "visit":
            for side in working.sides:
                forget(side)
        x = self.data.train
        order = self.draw(t, draws_of, "training batches").permutation(len(x))
        batches = training.Batches(
            torch.tensor([steps]), [x], [x], torch.from_numpy(order)[None],
            torch.tensor([self.rates[cell]], dtype=torch.float64),
            self.e.batch_size, self.e.loss, self.e.optimiser,
        )  # fmt: skip
        training.train(working, batches, self.engine)

    def prune(self, t: int, cell: int, pair: Population) -> bool:
        e = self.e
        if self.draw(t, cell, "prune or not").random() >= self.probability(t):
            return False
        generator = self.draw(t, cell, "operator")
        settings = operators.OperatorSettings(e.amount)
        for side in pair.sides:
            keep = side.tensors.get("keep", torch.ones_like(side.weights, dtype=torch.bool))
            for (weight, bias), (kept, kept_bias), seen in zip(
                side.layers(), side.views(keep), unit_statistics(side, 0), strict=True
            ):
                layer = operators.Layer(weight[0], bias[0], functools.partial(getattr, seen))
                keep_weight, keep_bias = operators.find(e.operator)(layer, generator, settings)
                weight[0][~keep_weight] = 0
                bias[0][~keep_bias] = 0
                kept[0] &= keep_weight
                kept_bias[0] &= keep_bias
            if e.pruned_weights == "masked" and e.optimiser == "adam":
                side.tensors["first_moment"][~keep] = 0
                side.tensors["second_moment"][~keep] = 0
        return True

    def probability(self, t: int) -> float:
        final = self.e.epochs - 1
        if self.e.schedule == "exponential":
            return self.e.probability * (1 - math.exp(-2 * t / final))
        assert self.e.schedule == "fixed"
        return self.e.probability

    def loss(self, t: int, cell: int, pair: Population, purpose: str) -> float:
        data = self.data.test if purpose == "test batch" else self.data.train
        own, rows = torch.zeros(1, 1, 2, dtype=torch.int64), self.batch(t, cell, purpose)
        return training.batch_losses(pair, own, [data], rows, self.e.loss, self.engine).item()

    def batch(self, t: int, cell: int, purpose: str) -> torch.Tensor:
        generator, rows = self.draw(t, cell, purpose), len(self.data.train)
        return torch.from_numpy(generator.choice(rows, self.e.batch_size, replace=False))[None]

    @property
    def batches(self) -> int:
        return math.ceil(len(self.data.train) / self.e.batch_size)

    def change_rates(self, t: int) -> None:
        moves = [
            self.draw(t, cell, "learning rate").normal(0, self.e.rate_sigma)
            for cell in range(self.e.cells)
        ]
        if self.e.pairing == "all-pairs":
            moves = moves[:1] * self.e.cells
        self.rates = [
            min(10.0, max(1e-9, rate + move)) for rate, move in zip(self.rates, moves, strict=True)
        ]


def assert_same_as_slow_loop(e: Experiment, trials: int, seed: int, engine: str) -> None:
    rows = []
    with training.one_thread():
        for trial in range(trials):
            rows += SlowLoop(e, trial, seed, engine).run()
    history, state = evolved(e, trials, seed, engine)
    assert len(history) == len(rows) == trials * e.cells * e.epochs
    ends = [row.pop("weights") for row in rows]
    for name in rows[0]:
        expected = np.array([row[name] for row in rows])
        np.testing.assert_array_equal(history[name].to_numpy(), expected, err_msg=name)
    last = [w for w, row in zip(ends, rows, strict=True) if row["epoch"] == e.epochs - 1]
    actual = torch.cat([side.weights for side in state.population.sides], 1)
    assert torch.equal(actual, torch.stack(last))
    if e.operator != "none":
        assert history.pruned.any()
        assert not history.pruned.all()


PRUNING = {"operator": "random", "probability": 0.8}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("cells", "radius"), [(10, 1), (7, 2), (3, 1)])
def test_lipi_ae_s_on_a_ring(cells: int, radius: int, seed: int, engine: str) -> None:
    e = tiny("lipi-ae-s", cells=cells, radius=radius, **PRUNING)
    assert_same_as_slow_loop(e, 2, seed, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cells", "radius", "seed"), [(9, 1, 1), (9, 1, 2), (25, 2, 1)])
def test_lipi_ae_s_on_a_torus(cells: int, radius: int, seed: int, engine: str) -> None:
    e = tiny("lipi-ae-s", topology="torus", cells=cells, radius=radius, epochs=3, **PRUNING)
    assert_same_as_slow_loop(e, 1, seed, engine)


VARIANTS = [
    {"solution_concept": "worst"},
    {"solution_concept": "mean"},
    {"tournament_size": 3},
    {"selection": "separate"},
    {"replacement": "better", "learning_rate": 0.05},
    {"replacement": "better", "learning_rate": 0.05, "prune_then_evaluate": True, "amount": 0.4},
    {"prune_then_evaluate": True, "amount": 0.4},
    {"update_order": "synchronous"},
    {"topology": "complete", "cells": 4},
    {"optimiser": "adam"},
    {"optimiser": "adam", "pruned_weights": "masked", "schedule": "fixed", "amount": 0.3},
    {"loss": "bce"},
    {"operator": "variance-high", "schedule": "fixed", "probability": 0.5},
    {"operator": "variance-low", "schedule": "fixed", "probability": 0.5},
    {"operator": "apoz", "amount": 0.4},
    {"replacement": "better", "learning_rate": 10.0},  # in some waves none is replaced
    {"batch_size": 1},
    {"batch_size": 7, "optimiser": "adam"},
    {"batch_size": 64, "examples": 80},  # 160 rows: the last batch is a part of one
    {"batch_size": 100, "examples": 80},
    {"batch_size": 256, "examples": 200, "optimiser": "adam"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: " ".join(map(str, v.values())))
def test_variants_of_lipi_ae_s(variant: dict[str, Any]) -> None:
    e = tiny(
        "lipi-ae-s",
        **({"cells": 5, "epochs": 3, "probability": 0.8, "operator": "random"} | variant),
    )
    for engine in ENGINES:
        assert_same_as_slow_loop(e, 2, 4, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_lipi_ae_with_random_partners(engine: str) -> None:
    assert_same_as_slow_loop(tiny("lipi-ae", **PRUNING), 2, 1, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_versus_all(engine: str) -> None:
    assert_same_as_slow_loop(tiny("all-vs-all", cells=4, **PRUNING), 2, 1, engine)


def test_the_slow_loop_notices_other_rules() -> None:
    """The comparison can fail: another order, another concept, another rate."""
    e = tiny("lipi-ae-s", cells=5, **PRUNING)
    expected, _ = evolved(e)
    for change in (
        {"update_order": "synchronous"},
        {"solution_concept": "worst"},
        {"rate_sigma": 0.001},
        {"prune_then_evaluate": True},
    ):
        other, _ = evolved(e.replace(**change))
        assert not expected.equals(other), change
