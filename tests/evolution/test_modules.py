"""A population of modules follows the loop, and takes any module."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import tiny
from torch import nn
from torch.nn import functional as F

from evoae import evolve, evolve_modules
from evoae.evolution.cells import initial
from evoae.evolution.loop import tournament
from evoae.evolution.modules import made
from evoae.networks import training
from evoae.networks.training import one_thread
from evoae.pruning import driver

SEED = 4


def test_dense_modules_go_the_way_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks, data and draws; only the training step is written out.

    A large epsilon makes steps in proportion to slopes. With the real one a step has the slope's
    sign alone, and the rounding of a slope near zero, which is the processor's, decides it.
    """
    monkeypatch.setattr(training, "EPSILON", 0.01)
    options = {"operator": "variance-high", "schedule": "fixed", "probability": 0.5, "epochs": 4}
    e = tiny("lipi-ae-s", cells=4, rate_policy="constant", **options)
    begin = initial(e, [0], SEED, "cpu", "batched")
    rows = begin.data[0].train
    members = iter([begin.population.member(i) for i in range(4)])

    def fit(encoder, decoder, rng) -> None:
        parameters = [*encoder.parameters(), *decoder.parameters()]
        for batch in torch.from_numpy(rng.permutation(len(rows))).split(e.batch_size):
            loss = F.l1_loss(decoder(encoder(rows[batch])), rows[batch])
            for parameter, slope in zip(
                parameters, torch.autograd.grad(loss, parameters), strict=True
            ):
                parameter.data -= e.learning_rate * slope / (slope.abs() + training.EPSILON)

    def score(encoder, decoder, rng) -> float:
        x = rows[torch.from_numpy(rng.choice(len(rows), e.batch_size, replace=False))]
        with torch.no_grad():
            return F.l1_loss(decoder(encoder(x)), x).item()

    ours = evolve_modules(lambda: next(members), fit, score, 4, seed=SEED, **options)
    theirs = evolve(e, 1, SEED, engine="batched")
    pruned = 0
    with one_thread():
        for ring, state in zip(ours, theirs, strict=True):
            now = ring.history[ring.history.epoch == ring.epoch].sort_values("cell")
            assert now.pruned.tolist() == state.records["pruned"].tolist()
            for column in ("selection_loss", "replacement_loss"):
                assert now[column].tolist() == pytest.approx(state.records[column], abs=1e-6)
            for cell, pair in enumerate(ring.pairs):
                for mine, own in zip(pair, state.population.member(cell), strict=True):
                    for a, b in zip(mine.parameters(), own.parameters(), strict=True):
                        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
            pruned += now.pruned.sum()
    assert pruned >= 4


def convolutional() -> tuple[nn.Module, nn.Module]:
    return (
        nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 3, padding=1), nn.Sigmoid()),
    )


IMAGES = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def learn(encoder, decoder, rng) -> None:
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.02)
    for batch in torch.from_numpy(rng.permutation(24)).split(8):
        optimiser.zero_grad()
        F.l1_loss(decoder(encoder(IMAGES[batch])), IMAGES[batch]).backward()
        optimiser.step()


def loss(encoder, decoder, rng) -> float:
    x = IMAGES[torch.from_numpy(rng.choice(24, 8, replace=False))]
    with torch.no_grad():
        return F.l1_loss(decoder(encoder(x)), x).item()


def ring(**options):
    given = {"operator": "apoz", "schedule": "cubic", "epochs": 3, "target_sparsity": 0.5}
    return evolve_modules(convolutional, learn, loss, 3, **(given | options))


def test_convolutions_are_evolved_pruned_and_the_same_again() -> None:
    with one_thread():
        first, again = ([*ring()][-1] for _ in range(2))
        other = [*ring(seed=2)][-1]
    assert first.history.equals(again.history)
    assert not first.history.equals(other.history)
    assert len(first.history) == 9
    last = first.history[first.history.epoch == 2]
    assert last.preserved.tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert last.replacement_loss.mean() < first.history[:3].selection_loss.mean()
    for pair, part in itertools.product(first.pairs, range(2)):
        assert not any(module._forward_hooks for module in pair[part].modules())
    assert first.pairs[0][0] is not first.pairs[1][0]


def test_nothing_global_is_drawn_from() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    next(ring())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pair_that_has_diverged_wins_nothing() -> None:
    e, nan = tiny("lipi-ae-s", cells=4, tournament_size=2), float("nan")
    loss = np.array([[[nan, nan, nan], [nan, 0.2, 0.3], [nan, 0.1, 0.4]]])
    draws = [np.random.default_rng(n) for n in range(30)]
    winners, best = tournament(np.repeat(loss, 30, axis=0), draws, e)
    assert np.isfinite(best[winners[0] != 0]).all()
    assert (winners[0] != 0).sum() > 20  # the first wins where it meets itself


def test_the_better_pair_is_taken() -> None:
    """Scores say which pair of a neighbourhood is best: with many entrants it wins everywhere."""
    marks = itertools.count()

    def numbered() -> tuple[nn.Module, nn.Module]:
        pair = nn.Linear(2, 2), nn.Linear(2, 2)
        pair[0].mark = next(marks)
        return pair

    def look(encoder, decoder, rng) -> None:
        decoder(encoder(torch.ones(1, 2)))

    def by_mark(encoder, decoder, rng) -> float:
        return float(encoder.mark)

    options = {"operator": "none", "schedule": "fixed", "epochs": 2, "tournament_size": 50}
    population = [*evolve_modules(numbered, look, by_mark, 3, **options)][-1]
    assert [encoder.mark for encoder, _ in population.pairs] == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruned_weights": "masked"}, "pruned_weights=masked must be regrow in a population"),
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'"),
        ({"radius": 5}, "radius=5"),
        ({"operator": "conjunctive"}, "recalls examples"),
        ({"seed": -2}, "seed=-2 must be a whole number, 0 or more, below"),
        ({"seed": "two"}, "seed='two' must be a whole number"),
    ],
)
def test_bad_settings_are_refused_before_training(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ring(**options)


def history_of(**options):
    """The whole history of a ring whose pairs differ in their scores."""
    options = {"operator": "random", "schedule": "fixed", "epochs": 6, "cells": 4} | options
    cells = options.pop("cells")
    return [*evolve_modules(convolutional, learn, loss, cells, **options)][-1].history


def test_so_many_prunes_as_are_asked_for_in_the_epochs_of_the_loop() -> None:
    with one_thread():
        history = history_of(prune_count=2, seed=3, probability=0.5)
    for cell, rows in history.groupby("cell"):
        drawn = driver.drawn_epochs(3, 0, cell, 2, (0.5,) * 6)
        assert set(rows.epoch[rows.pruned]) == drawn


def test_a_pair_that_is_worse_does_not_replace_a_centre() -> None:
    def forget(encoder, decoder, rng) -> None:
        learn(encoder, decoder, rng)
        with torch.no_grad():
            decoder[1].bias.add_(9.0)

    options = {"operator": "none", "schedule": "fixed", "epochs": 3, "replacement": "better"}
    with one_thread():
        first = [made(convolutional, 1, cell) for cell in range(3)]
        pairs = [*evolve_modules(convolutional, forget, loss, 3, **options)][-1].pairs
    for mine, begun in zip(pairs, first, strict=True):
        assert torch.equal(mine[1][1].bias, begun[1][1].bias)


def test_synchronous_cells_see_what_their_neighbours_were() -> None:
    """A mark grows with every training: seen late, it grows once in an epoch."""

    def marked() -> tuple[nn.Module, nn.Module]:
        pair = nn.Linear(2, 2), nn.Linear(2, 2)
        pair[0].mark = 0
        return pair

    def grow(encoder, decoder, rng) -> None:
        encoder.mark += 1
        decoder(encoder(torch.ones(1, 2)))

    options = {"operator": "none", "schedule": "fixed", "epochs": 3, "tournament_size": 50}
    marks = {}
    for order in ("synchronous", "asynchronous"):
        ring = evolve_modules(
            marked, grow, lambda e, d, rng: -float(e.mark), 5, update_order=order, **options
        )
        marks[order] = [encoder.mark for encoder, _ in [*ring][-1].pairs]
    assert marks["synchronous"] == [3] * 5
    assert max(marks["asynchronous"]) > 3
