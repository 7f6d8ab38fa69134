"""The frontier's methods: equal sizes, equal steps, rates by validation; what its tables say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from evoae import figures, sweep
from evoae.experiment import Experiment
from evoae.networks.population import parameter_count
from evoae.pruning.operators import OPERATORS
from evoae.study.analysis import frontier, statistics
from evoae.study.runs import mask_controls
from evoae.study.runs.grids import Design


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of 64 rows to train on, 12 columns."""
    path = tmp_path_factory.mktemp("data") / "rows.npz"
    rng = np.random.default_rng(1)
    splits = {"train": 64, "validation": 10, "test": 10}
    np.savez(path, **{name: rng.random((n, 12), dtype=np.float32) for name, n in splits.items()})
    return str(path)


def test_every_operator_that_can_aim_is_a_method() -> None:
    known = frontier.methods()
    assert set(OPERATORS.own) - set(known) == {"none", "noise"}
    assert {name for name, s in known.items() if s.get("allocation") == "global"} >= {"obd", "lamp"}
    with pytest.raises(ValueError, match=r"unknown method 'magic'; choose from random, "):
        frontier.chosen(["magic"])


@pytest.mark.parametrize("method", list(frontier.methods()))
def test_methods_are_of_one_size_and_take_as_many_steps(method: str, rows: str) -> None:
    settings = frontier.methods()[method]
    e = frontier.at(rows, settings, 0.7, steps=13 * 8, learning_rate=0.003)
    assert (e.target_sparsity, e.learning_rate) == (0.7, 0.003)
    assert e.epochs * e.cells == 8
    design = Design({"one": e}, {"one": {"dataset": rows, "method": method}})
    study = sweep(design, 1, workers=1, progress=False)
    ((_, row),) = frontier.trials(study).iterrows()
    assert row.steps == 13 * 8
    whole = frontier.parameters(Experiment(dataset=rows))
    within = 1 if method != "dense" else 13  # a unit more or less
    assert row.sparsity * whole == pytest.approx(0.7 * whole, abs=within)
    if method == "dense":
        widths = (12, *map(int, e.model.split("-")))
        assert row.compact_parameters <= parameter_count(widths) + parameter_count(widths[::-1])


def test_rates_are_chosen_on_validation_and_their_cost_is_named(rows: str, tmp_path: Path) -> None:
    tuning = frontier.tuning(["magnitude", "dense"], [rows], 26, 0.9)
    assert len(tuning) == 2 * len(frontier.RATES)
    study = sweep(tuning, range(1000, 1002), out=tmp_path, workers=1, progress=False)
    rates = frontier.tuned(study)
    assert rates.method.tolist() == ["magnitude", "dense"]
    assert set(rates.tuned_at) == {0.9}
    assert set(rates["steps of tuning"]) == {26 * 2 * len(frontier.RATES)}
    for row in rates.itertuples():
        losses = {
            rate: study.runs[f"{rows}, {row.method}, {rate:g}"].trials.validation_l1.mean()
            for rate in frontier.RATES
        }
        assert row.learning_rate == min(losses, key=losses.get)
    found = frontier.points(["magnitude", "dense"], [0.5, 0.9], rates, steps=26)
    assert list(found) == [f"{rows}, {m}, {s}" for m in ("magnitude", "dense") for s in (0.5, 0.9)]
    assert found[f"{rows}, magnitude, 0.9"].learning_rate == rates.learning_rate[0]


def test_a_target_takes_the_rate_that_was_tuned_nearest(rows: str) -> None:
    rates = pd.DataFrame(
        {
            "dataset": rows,
            "method": "magnitude",
            "tuned_at": [0.94, 0.9],
            "learning_rate": [1.0, 2.0],
        }
    )
    found = frontier.points(["magnitude"], [0.5, 0.9, 0.91, 0.93, 0.97], rates, steps=26)
    assert [e.learning_rate for e in found.values()] == [2.0, 2.0, 2.0, 1.0, 1.0]


def table_of(**columns: list) -> pd.DataFrame:
    return pd.DataFrame({"dataset": "d", "label": "x", "trial": 0} | columns)


def test_each_size_has_a_front_of_its_own() -> None:
    table = table_of(
        method=["a", "b", "c"], target=[0.5, 0.5, 0.5], sparsity=[0.5, 0.5, 0.6],
        macs=[10, 5, 20], validation_l1=[0.1, 0.2, 0.3], test_l1=[0.3, 0.2, 0.1],
    )  # fmt: skip
    on = {
        size: set(means[means.on_front].method)
        for size in ("sparsity", "macs")
        for means in [frontier.fronts(table, size)]
    }
    assert on == {"sparsity": {"a", "c"}, "macs": {"a", "b"}}
    with pytest.raises(ValueError, match="has no column 'watts'"):
        frontier.fronts(table, "watts")


def test_the_best_that_prunes_is_chosen_on_validation_among_single_networks() -> None:
    table = table_of(
        method=["dense", "frontier-ring", "obd", "magnitude"], target=0.9,
        validation_l1=[0.1, 0.1, 0.2, 0.3], test_l1=[0.1, 0.1, 0.9, 0.3],
    )  # fmt: skip
    assert frontier.best_pruned(table, 0.9, "d") == "obd"
    diverged = table[table.method == "obd"].assign(trial=1, validation_l1=None)
    assert frontier.best_pruned(pd.concat([table, diverged]), 0.9, "d") == "magnitude"


def test_figures_of_a_small_study(rows: str, tmp_path: Path) -> None:
    names = ["frontier", "magnitude", "dense"]
    chosen = {"dataset": rows, "method": names, "tuned_at": 0.9, "learning_rate": 0.003}
    rates = pd.DataFrame(chosen)
    study = sweep(
        frontier.points(names, [0.5, 0.8], rates, steps=52), 2, out=tmp_path, workers=1,
        progress=False,
    )  # fmt: skip
    table = frontier.trials(study)
    for size in ("sparsity", "macs", "compact_parameters"):
        figure = figures.fronts(table, frontier.fronts(table, size), size, ["magnitude"])
        assert isinstance(figure, Figure)
    compared = frontier.at_target(study, rows, 0.8)
    assert list(compared) == ["frontier", "magnitude"]
    left, sizes = frontier.left_by_layer(compared), frontier.layer_sizes(compared["frontier"])
    assert sum(sizes.values()) == frontier.parameters(Experiment(dataset=rows))
    assert left.sum(axis=1).to_numpy() == pytest.approx(0.2 * sum(sizes.values()), abs=1)
    figures.left_by_layer(left, sizes)
    figures.mask_pictures({name: frontier.masks_of(run) for name, run in compared.items()})
    winner = compared["frontier"]
    controls = sweep(mask_controls.controls(winner, tmp_path), 2, workers=1, progress=False)
    beside = frontier.beside_controls(winner, controls, "frontier")
    tests = statistics.compare(beside, by="method", value="test_l1", baseline="frontier")
    assert tests.a.tolist() == list(mask_controls.CONTROLS)
