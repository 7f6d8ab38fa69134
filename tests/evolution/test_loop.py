"""The loop: bits depend on settings, seed and trial alone; records; learning rates; changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, assert_same_bits, evolved, tiny, weights_of

from evoae import Experiment, evolve, run
from evoae.evolution.cells import MAY_CHANGE, initial, rows_of
from evoae.evolution.loop import EXAMPLES, batch_count, steps_of_an_epoch
from evoae.networks import population
from evoae.pruning import members, operators
from evoae.randomness import stream
from evoae.study.runs.merge import COLUMNS

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("canonical", {"operator": "variance", "probability": 0.6}),
    ("lipi-ae-s", {"operator": "random", "cells": 5}),
    ("lipi-ae-s", {"operator": "conjunctive", "cells": 9, "topology": "torus", "epochs": 3}),
    ("lipi-ae-s", {"operator": "magnitude", "schedule": "cubic", "kind": "denoising", "cells": 4}),
    ("lipi-ae", {"operator": "apoz", "data_share": 0.7, "optimiser": "adam"}),
    ("all-vs-all", {"operator": "wanda", "cells": 3}),
    ("lipi-ae-s", {"kind": "variational", "cells": 3, "operator": "variance-low"}),
]


# -- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("preset", "settings"), SETTINGS)
def test_a_trial_does_not_depend_on_its_companions(
    preset: str, settings: dict[str, Any], engine: str
) -> None:
    if settings.get("kind") == "variational" and engine == "fused":
        engine = "auto"
    e = tiny(preset, **settings)
    together, state = evolved(e, 3, engine=engine)
    again, _ = evolved(e, 3, engine=engine)
    assert_same_bits(together, again)
    assert_same_bits(together, evolved(e, [2, 0, 1], engine=engine)[0])
    for trials in ([0], [2], [1, 2]):
        apart, alone = evolved(e, trials, engine=engine)
        assert_same_bits(together[together.trial.isin(trials)], apart)
        places = [trial * e.cells + cell for trial in trials for cell in range(e.cells)]
        assert torch.equal(weights_of(state)[places], weights_of(alone))


def test_seeds_and_trials_differ() -> None:
    e = tiny("lipi-ae-s", cells=3)
    found = [evolved(e, [trial], seed)[0].test_loss for trial, seed in ((0, 1), (1, 1), (0, 2))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(found[one], found[other])


def test_the_number_of_threads_changes_nothing() -> None:
    before, e = torch.get_num_threads(), tiny("lipi-ae-s", cells=5, bits=64)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(evolved(e)[0])
    finally:
        torch.set_num_threads(before)
    assert_same_bits(*found)


def test_a_state_continues() -> None:
    e = tiny("lipi-ae-s", cells=5, operator="random", epochs=6)
    whole, _ = evolved(e, 2)
    running = evolve(e, 2, engine="batched")
    for _ in range(3):
        state = next(running)
    assert state.epoch == 2
    *_, state = evolve(e, state=state)
    assert state.epoch == 5
    last = whole[whole.epoch == 5]
    for name, values in state.records.items():
        assert np.array_equal(values, last[name], equal_nan=True), name


# -- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["canonical", "lipi-ae-s", "lipi-ae", "all-vs-all"])
def test_every_epoch_records_every_cell(preset: str) -> None:
    e = tiny(preset, operator="random", probability=1.0, epochs=8)
    history, state = evolved(e, 2)
    assert list(history) == COLUMNS
    expected = pd.MultiIndex.from_product([range(2), range(8), range(e.cells)])
    assert pd.MultiIndex.from_frame(history[["trial", "epoch", "cell"]]).equals(expected)
    assert set(history.epoch[history.train_l1.notna()]) == {0, 2, 4, 6, 7}
    selects = preset != "all-vs-all"
    assert history.selection_loss.notna().all() == selects
    assert history.selection_loss.isna().all() != selects
    for name in ("learning_rate", "replacement_loss", "test_loss"):
        assert history[name].notna().all()
    assert history[["replacement_loss", "test_loss"]].stack().between(0, 1).all()
    assert history.pruned.dtype == bool
    pruned = history[history.pruned]
    for side, networks in zip(("encoder", "decoder"), state.population.sides, strict=True):
        now, then = history[f"{side}_zeros"], history[f"{side}_zeros_at_last_prune"]
        assert (pruned[f"{side}_zeros"] == pruned[f"{side}_zeros_at_last_prune"]).all()
        assert now.dtype.kind == then.dtype.kind == "i"
        counted = (networks.weights == 0).sum(1).numpy()
        assert np.array_equal(now[history.epoch == 7], counted)
    assert not history.pruned[history.epoch == 0].any()  # exponential starts at 0
    assert len(pruned) > 0


def test_train_l1_is_the_mean_over_the_training_data() -> None:
    e = tiny("lipi-ae-s", cells=3, loss="bce")
    history, state = evolved(e, 2)
    last = history[history.epoch == 3].train_l1.to_numpy()
    for place in range(6):
        encoder, decoder = state.population.member(place)
        x = state.data[place // 3].train
        assert (decoder(encoder(x)) - x).abs().mean().item() == pytest.approx(last[place], abs=1e-6)


def test_model_steps_count_models_times_batches_times_updates() -> None:
    for preset, per_epoch in (
        ("canonical", 3),  # 8 rows in batches of 3
        ("lipi-ae-s", 5 * 3),
        ("lipi-ae", 5 * 3 * 2),
        ("all-vs-all", 25 * 3 * 2),
    ):
        cells = {} if preset == "canonical" else {"cells": 5}
        for state in evolve(tiny(preset, **cells), 2, engine="batched"):
            assert state.model_steps == (state.epoch + 1) * 2 * per_epoch
            assert steps_of_an_epoch(state) == 2 * per_epoch


def test_the_control_prunes_nothing() -> None:
    history, _ = evolved(tiny("lipi-ae-s", operator="none", schedule="fixed", probability=1.0))
    assert not history.pruned.any()
    assert (history.encoder_zeros_at_last_prune == 0).all()


# -- learning rates -------------------------------------------------------------------------------


def test_step_decay_multiplies_every_quarter() -> None:
    history, _ = evolved(tiny(epochs=8, learning_rate=0.5))
    expected = [0.5, 0.5, 0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
    assert history.learning_rate.tolist() == pytest.approx(expected)


def test_step_decay_of_runs_shorter_than_four_epochs() -> None:
    history, _ = evolved(tiny(epochs=3, learning_rate=1.0))
    assert history.learning_rate.tolist() == pytest.approx([1, 0.1, 0.01])


def test_constant_rates_stay() -> None:
    history, _ = evolved(tiny("lipi-ae-s", rate_policy="constant"))
    assert (history.learning_rate == 0.01).all()


def test_mutated_rates_wander_in_each_cell_within_bounds() -> None:
    e = tiny("lipi-ae-s", cells=5, epochs=6, learning_rate=1e-5, rate_sigma=1e-5)
    history, _ = evolved(e, 2, seed=3)
    table = history.pivot(index="epoch", columns=["trial", "cell"], values="learning_rate")
    assert (table.loc[0] == 1e-5).all()
    assert table.loc[1].nunique() > 5
    assert table.min().min() == 1e-9  # clipped
    for t in range(5):
        for trial, cell in table:
            move = stream(3, trial, t, cell, "learning rate").normal(0, 1e-5)
            expected = min(10.0, max(1e-9, table.loc[t, (trial, cell)] + move))
            assert table.loc[t + 1, (trial, cell)] == expected
    high, _ = evolved(tiny("lipi-ae-s", cells=5, rate_sigma=1000.0, learning_rate=1e-9, epochs=2))
    assert set(high[high.epoch == 1].learning_rate) == {1e-9, 10.0}


def test_all_versus_all_has_one_rate() -> None:
    history, _ = evolved(tiny("all-vs-all", cells=3), 2)
    assert (history.groupby(["trial", "epoch"]).learning_rate.nunique() == 1).all()
    assert history.learning_rate.nunique() > 4


# -- settings of the loop -------------------------------------------------------------------------


def test_identical_start() -> None:
    weights = weights_of(initial(tiny("lipi-ae-s", identical_start=True), [0, 1], 1, "cpu", "auto"))
    assert (weights[:10] == weights[0]).all()
    assert (weights[10:] == weights[10]).all()
    assert not torch.equal(weights[0], weights[10])
    weights = weights_of(initial(tiny("lipi-ae-s"), [0], 1, "cpu", "auto"))
    assert len(weights.unique(dim=0)) == 10


def test_saved_networks_are_the_start(tmp_path: Path) -> None:
    _, state = evolved(tiny("lipi-ae-s", cells=3))
    path = tmp_path / "start.safetensors"
    population.save(state.population, path)
    e = tiny("lipi-ae-s", cells=5, initial_weights=str(path))
    found = weights_of(initial(e, [0], 1, "cpu", "auto"))
    assert torch.equal(found, weights_of(state)[[0, 1, 2, 0, 1]])


def test_saved_networks_that_come_pruned_count_as_pruned(tmp_path: Path) -> None:
    _, state = evolved(tiny(operator="random", schedule="fixed", probability=1.0, epochs=1))
    path = tmp_path / "start.safetensors"
    population.save(state.population, path)
    for side in initial(tiny(initial_weights=str(path)), [0], 1, "cpu", "auto").population.sides:
        assert side.tensors["zeros_at_last_prune"].tolist() == side.zeros().tolist() != [0]


def test_a_share_of_the_data_is_drawn_with_replacement_for_each_cell_and_kept() -> None:
    state = initial(tiny("lipi-ae-s", data_share=0.6, examples=50), [0, 1], 1, "cpu", "auto")
    first, second = rows_of(state, 0, 0), rows_of(state, 0, 1)
    assert len(first) == 60
    assert batch_count(state) == 20
    assert len(set(first.tolist())) < 60
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows_of(state, 1, 0))
    state.epoch = 5
    assert np.array_equal(first, rows_of(state, 0, 0))
    whole = initial(tiny(), [0], 1, "cpu", "auto")
    assert rows_of(whole, 0, 0).tolist() == list(range(8))


@pytest.mark.parametrize("source", ["test", "train"])
def test_conjunctive_examples_come_from_the_chosen_split(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def prune(pair: Any, index: Any, operator: Any, rngs: Any, s: Any, examples: Any, *_: Any):
        seen.extend(map(examples, index))

    monkeypatch.setattr(members, "prune", prune)
    e = tiny(
        operator="conjunctive", schedule="fixed", probability=1.0, conjunctive_examples=source,
        bits=24,
    )  # fmt: skip
    _, state = evolved(e)
    assert len(seen) == 4
    rows = {split: set(map(tuple, getattr(state.data[0], split).tolist())) for split in
            ("test", "train")}  # fmt: skip
    for examples in seen:
        assert examples.shape == (EXAMPLES, 24)
        drawn = set(map(tuple, examples.tolist()))
        assert drawn <= rows[source]
        assert len(drawn) > 1


def test_replacement_if_better_never_gets_worse_on_its_batch() -> None:
    e = tiny("lipi-ae-s", cells=4, replacement="better", learning_rate=0.3, epochs=6, examples=10)
    history, _ = evolved(e)
    always, _ = evolved(e.replace(replacement="always"))
    assert (history.replacement_loss[:4] <= always.replacement_loss[:4]).all()
    assert not history.equals(always)


def test_a_target_is_reached_and_held(monkeypatch: pytest.MonkeyPatch) -> None:
    e = tiny(
        operator="magnitude", schedule="cubic", target_sparsity=0.6, pruned_weights="masked",
        epochs=6, pruning_clock="last-epoch",
    )  # fmt: skip
    history, _ = evolved(e)
    sizes = [12 * 5, 5, 5 * 3, 3, 3 * 5, 5, 5 * 12, 12]
    zeros = (history.encoder_zeros + history.decoder_zeros).tolist()
    expected = [round(e.pruning_at(t) * sum(sizes)) for t in range(6)]
    assert zeros == expected
    assert history.pruned.tolist() == [False] + [True] * 5


def test_the_target_of_a_registered_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    from evoae.pruning import schedules

    schedules.register("a quarter", lambda t, final, s: 0.25, target=True)
    history, _ = evolved(tiny(operator="random", schedule="a quarter", pruned_weights="masked"))
    sizes = [12 * 5, 5, 5 * 3, 3, 3 * 5, 5, 5 * 12, 12]
    assert set(history.encoder_zeros + history.decoder_zeros) == {sum(round(s / 4) for s in sizes)}


def test_pruning_happens_with_the_schedules_probability() -> None:
    e = tiny("lipi-ae-s", operator="random", schedule="fixed", probability=0.3, epochs=10)
    history, _ = evolved(e, 5, engine=ENGINES[-1])
    assert history.pruned.mean() == pytest.approx(0.3, abs=0.07)  # 500 draws, sd 0.02


@pytest.mark.parametrize("learning_rate", [0.003, 0.01])
def test_the_frontier_is_below_plain_magnitude_at_the_same_size_and_steps(
    learning_rate: float,
) -> None:
    small = {"clusters": 4, "bits": 60, "examples": 40, "model": "12-4", "epochs": 40}
    plain = {"operator": "magnitude", "schedule": "cubic", "pruned_weights": "masked"}
    small |= {"target_sparsity": 0.8}
    best = run(Experiment.preset("frontier", **small), 2, workers=1, progress=False)
    plain |= {"learning_rate": learning_rate}
    other = run(Experiment.preset("canonical", **plain, **small), 2, workers=1, progress=False)
    assert best.result["model_steps"] == other.result["model_steps"]
    assert best.trials.preserved.equals(other.trials.preserved)
    assert (best.trials.test_l1 < other.trials.test_l1 - 0.03).all()
    assert (best.trials.test_l1 < best.trials.constant_test_l1 - 0.05).all()


# -- changes on the way ---------------------------------------------------------------------------


def test_settings_change_between_epochs_and_the_state_says_so() -> None:
    e = tiny("lipi-ae-s", cells=3, operator="none", schedule="fixed", probability=1.0, epochs=5)
    pruned = []
    for state in evolve(e, engine="batched"):
        pruned.append(bool(state.records["pruned"].all()))
        if state.epoch == 1:
            state.change(operator="random", learning_rate=0.5, rate_policy="constant")
    assert pruned == [False, False, True, True, True]
    assert sorted(state.changes) == [
        (2, "learning_rate", 0.01, 0.5),
        (2, "operator", "none", "random"),
        (2, "rate_policy", "mutated", "constant"),
    ]
    assert (state.records["learning_rate"] == 0.5).all()
    assert e.operator == "none"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": 2**64}, "seed=18446744073709551616 must be a whole number, 0 or more, below"),
        ({"seed": "1"}, "seed='1' must be a whole number"),
        ({"trials": 1.5}, "trials=1.5 must be a number, or a list of numbers"),
        ({"trials": [0, 2**64]}, "trial=18446744073709551616 must be a whole number"),
        ({"trials": [0, -1]}, "trial=-1 must be a whole number"),
        ({"trials": 0}, "there are no trials to run"),
        ({"device": "tpu"}, "unknown device 'tpu'; choose cpu, cuda or cuda:N"),
        ({"engine": "slow"}, "unknown engine 'slow'"),
    ],
)
def test_what_cannot_be_trained_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        next(evolve(tiny(), **given))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_that_cannot_be_are_refused_and_change_nothing() -> None:
    state = next(evolve(tiny(), engine="batched"))
    before = state.experiment
    with pytest.raises(ValueError, match=r"cells cannot change.*learning_rate"):
        state.change(cells=3)
    with pytest.raises(ValueError, match=r"amount=2\.0.*\[0, 1\]"):
        state.change(operator="random", amount=2.0)
    with pytest.raises(ValueError, match="unknown operator 'axe'"):
        state.change(operator="axe")
    assert state.experiment == before
    assert state.changes == []
    assert "epochs" not in MAY_CHANGE


def test_what_a_change_implies_is_refused_or_recorded() -> None:
    state = next(evolve(tiny(operator="random"), engine="batched"))
    with pytest.raises(ValueError, match=r"pruned_weights cannot change.*regrow to masked"):
        state.change(operator="set")
    assert (state.experiment.operator, state.changes) == ("random", [])
    state.change(operator="variance-high")
    assert sorted(state.changes) == [
        (1, "operator", "random", "variance-high"),
        (1, "probability", 0.5, 0.1),
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pair_that_has_diverged_wins_nothing(engine: str) -> None:
    for replacement in ("always", "better"):
        e = tiny("lipi-ae-s", cells=5, replacement=replacement, epochs=6)
        state = initial(e, [0], 1, "cpu", engine)
        state.population.encoder.weights[2] = torch.nan
        *_, last = evolve(e, state=state)
        broken = last.population.encoder.weights.isnan().any(1)
        assert not broken.any(), replacement
        assert np.isfinite(last.records["replacement_loss"]).all()


def test_only_the_conjunctive_operator_reads_test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(on: Any, rng: Any, s: Any) -> Any:
        seen.extend(map(tuple, on.recall().tolist()))
        return operators.none(on, rng, s)

    monkeypatch.setattr(
        "evoae.networks.activations.record",
        lambda population, i, examples: dict(enumerate([examples] * 4)),
    )
    for operator in (look, "wanda"):
        e = tiny(
            operator=operator, schedule="fixed", probability=1.0, epochs=1, bits=24, noise=0.4,
            amount=0.4,
        )  # fmt: skip
        inputs = [
            {"conjunctive_examples": source, "operator": operator} for source in ("test", "train")
        ]
        bits = [weights_of(evolved(e.replace(**settings))[1]) for settings in inputs]
        assert torch.equal(*bits)
    _, state = evolved(e)
    assert set(seen) <= set(map(tuple, state.data[0].train.tolist()))


def test_the_state_is_one_epoch_a_step() -> None:
    running = evolve(tiny(epochs=3), engine="batched")
    assert [state.epoch for state in running] == [0, 1, 2]
    assert list(evolve(tiny(epochs=1), state=next(evolve(tiny(epochs=1))))) == []


@pytest.mark.parametrize("schedule", ["fixed", "increase", "final-n"])
def test_exactly_so_many_prunes_are_placed_by_the_schedule(schedule: str) -> None:
    e = tiny(
        "lipi-ae-s", cells=4, operator="random", schedule=schedule, prune_count=5, epochs=40,
        prune_until=0.95,
    )  # fmt: skip
    history, _ = evolved(e, trials=2)
    counts = history.groupby(["trial", "cell"]).pruned.sum()
    assert (counts == 5).all()
    assert not history.pruned[history.epoch > 0.95 * 39].any()
    when = history.epoch[history.pruned]
    if schedule == "final-n":
        assert when.min() >= 29
    if schedule == "increase":  # weights t: the mean of t is two thirds of the way
        assert when.mean() > 20
    alone, _ = evolved(e, trials=[1])
    assert_same_bits(alone, history[history.trial == 1])


def test_a_number_of_prunes_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prune_count=5.*final-n has 1"):
        tiny(operator="random", schedule="final-n", epochs=4, prune_count=5)
    with pytest.raises(ValueError, match="prune_count=2 needs a schedule whose probability is"):
        tiny(operator="random", schedule="cubic", prune_count=2)


def test_isolated_cells_are_as_many_trainings_alone() -> None:
    ring = tiny("lipi-ae-s", cells=3, topology="isolated", operator="random")
    history, state = evolved(ring)
    other, one = evolved(tiny("lipi-ae-s", cells=1, operator="random"))
    first = history[history.cell == 0].drop(columns="selection_loss")
    assert_same_bits(first, other.drop(columns="selection_loss"))
    assert torch.equal(weights_of(state)[:1], weights_of(one))


def test_data_with_a_seed_of_their_own_are_shared_by_trials() -> None:
    e = tiny(data_seed=7, learning_rate=0.0)
    states = [evolved(e, trials=2, seed=seed)[1] for seed in (1, 2)]
    drawn = [d.train for state in states for d in state.data]
    assert all(torch.equal(drawn[0], each) for each in drawn[1:])
    assert not torch.equal(*(weights_of(state) for state in states))
    assert not torch.equal(drawn[0], evolved(tiny(), seed=1)[1].data[0].train)


def test_bce_then_l1_and_cosine_rates() -> None:
    e = tiny(loss="bce-then-l1", loss_switch=0.5, rate_policy="cosine", rate_hold=0.5, epochs=8)
    assert [e.loss_at(t) for t in range(8)] == ["bce"] * 4 + ["l1"] * 4
    history, _ = evolved(e)
    rates = history.learning_rate.to_numpy() / e.learning_rate
    falling = [0.5 * (1 + np.cos(np.pi * k / 4)) for k in (1, 2, 3)]
    np.testing.assert_allclose(rates, [1, 1, 1, 1, 1, *falling], atol=1e-12)
    as_bce, _ = evolved(e.replace(loss="bce"))
    assert_same_bits(history[history.epoch < 4], as_bce[as_bce.epoch < 4])
    assert not history[history.epoch == 7].equals(as_bce[as_bce.epoch == 7])


def test_noise_gives_fresh_values_and_prunes_nothing() -> None:
    e = tiny(operator="noise", schedule="fixed", probability=1.0, amount=0.5, learning_rate=0.0)
    history, state = evolved(e)
    _, still = evolved(e.replace(operator="none"))
    assert (history.encoder_zeros == 0).all()
    moved = (weights_of(state) != weights_of(still)).float().mean()
    assert 0.8 < moved <= 1  # 1 - 0.5 ** 4 of them were drawn anew
    assert weights_of(state).abs().max() <= 1 / np.sqrt(3) + 1e-6  # the widest initial bound


def test_shrinkage_moves_weights_towards_zero_and_leaves_biases() -> None:
    e = tiny(learning_rate=1e-3, l1_penalty=1.0, epochs=1)
    _, state = evolved(e)
    _, free = evolved(e.replace(l1_penalty=0.0))
    step = 1e-3 * 3  # three batches
    for side, other in zip(state.population.sides, free.population.sides, strict=True):
        for (weight, bias), (free_weight, free_bias) in zip(
            side.layers(), other.layers(), strict=True
        ):
            expected = torch.nn.functional.softshrink(free_weight, step)
            torch.testing.assert_close(weight, expected)
            assert torch.equal(bias, free_bias)
