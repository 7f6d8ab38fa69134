"""The frontier's methods: equal sizes, equal steps, rates by validation; what its tables say."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from evoae import figures, sweep
from evoae.evolution.cells import starting_networks
from evoae.experiment import PRESETS, Experiment
from evoae.networks.population import parameter_count
from evoae.pruning.operators import OPERATORS
from evoae.study.analysis import frontier, statistics
from evoae.study.runs import mask_controls, rewinding
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
    everywhere = frontier.configurations()[0]
    ranked = {name: frontier.fitted(name, s, everywhere) for name, s in known.items()}
    assert {n for n, s in ranked.items() if s.get("allocation") == "global"} >= {"obd", "lamp"}
    assert ranked["conjunctive"]["conjunctive_examples"] == "train"  # never the test set
    with pytest.raises(ValueError, match=r"unknown method 'magic'; choose from random, "):
        frontier.chosen(["magic"])


@pytest.mark.parametrize("method", list(frontier.methods()))
def test_methods_are_of_one_size_and_take_as_many_steps(
    method: str, rows: str, tmp_path: Path
) -> None:
    tried = frontier.configurations()[0]
    settings = frontier.fitted(method, frontier.methods()[method], tried)
    e = frontier.at(rows, settings, 0.7, steps=13 * 8)
    assert (e.target_sparsity, e.learning_rate) == (0.7, tried["learning_rate"])
    assert e.epochs * e.cells == 8
    design = Design({"one": e}, {"one": {"dataset": rows, "method": method}})
    study = frontier.compute(design, 1, out=tmp_path, workers=1, progress=False)
    ((_, row),) = frontier.trials(study).iterrows()
    assert row.steps == 13 * 8
    whole = frontier.parameters(Experiment(dataset=rows))
    dense = method.startswith("dense")
    within = 13 if dense else 1  # a unit more or less
    assert row.sparsity * whole == pytest.approx(0.7 * whole, abs=within)
    if dense:
        widths = (12, *map(int, e.model.split("-")))
        assert row.compact_parameters <= parameter_count(widths) + parameter_count(widths[::-1])


def test_every_two_values_of_the_search_meet_and_its_first_is_the_preset() -> None:
    found = pd.DataFrame(frontier.configurations())
    recipe = PRESETS["frontier"].settings
    assert len(found) == frontier.CONFIGURATIONS
    assert found.iloc[0].to_dict() == {name: recipe[name] for name in frontier.SEARCHED}
    for a, b in itertools.combinations(frontier.SEARCHED, 2):
        pairs = itertools.product(frontier.SEARCHED[a], frontier.SEARCHED[b])
        assert set(pairs) <= set(zip(found[a], found[b], strict=True))
    assert frontier.configurations(3) == frontier.configurations()[:3]


@pytest.mark.parametrize("method", list(frontier.methods()))
def test_every_method_can_be_run_with_every_configuration(method: str, rows: str) -> None:
    known = frontier.methods()[method]
    for tried in frontier.configurations():
        e = frontier.at(rows, frontier.fitted(method, known, tried), 0.7, steps=13 * 8)
        assert e.learning_rate == tried["learning_rate"]
        assert method.startswith("dense") or e.prune_until == tried["prune_until"]
        assert method != "soft" or e.l1_penalty > 0


@pytest.mark.parametrize("count", [2, 4])
def test_every_method_is_tuned_by_one_search_whose_cost_is_named(
    rows: str, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "AGAIN", 2)
    names = ["magnitude", "dense"]
    where = {"out": tmp_path, "workers": 1, "progress": False}
    found = frontier.search(names, [rows], 13 * 8, 0.8, count, range(1000, 1002), **where)
    assert set(found.method) == set(names)
    assert set(found.tuned_at) == {0.8}
    # all for a quarter of the steps; the best once more, in both trials
    epochs = count * 2 + (2 * 2 * 8 if count > 2 else 0)
    cost = found.set_index("method")["steps of tuning"]
    assert cost.magnitude == cost.dense == 13 * epochs
    assert found.validation_l1.is_monotonic_increasing
    design = frontier.points(found, [0.5, 0.8], 13 * 8)
    assert len(design) == 2 * len(names)
    for label, e in design.items():
        row = found[found.method == design.factors[label]["method"]].iloc[0]
        assert e.learning_rate == row.learning_rate


def test_a_target_takes_what_was_tuned_nearest(rows: str) -> None:
    found = pd.DataFrame({"dataset": rows, "method": "magnitude", "tuned_at": [0.94, 0.8]})
    found["configuration"] = [1, 2]
    rates = [frontier.configurations()[number]["learning_rate"] for number in (1, 2)]
    design = frontier.points(found, [0.5, 0.8, 0.86, 0.9, 0.97], steps=26)
    expected = [rates[1]] * 3 + [rates[0]] * 2
    assert [e.learning_rate for e in design.values()] == expected


def test_iterative_pruning_rewinds_to_the_start_and_ends_at_the_size(
    rows: str, tmp_path: Path
) -> None:
    settings = frontier.fitted("imp", frontier.methods()["imp"], frontier.configurations()[0])
    e = frontier.at(rows, settings, 0.8, 13 * 20)
    design = Design({"imp": e}, {"imp": {"dataset": rows, "method": "imp"}})
    study = frontier.compute(design, 2, out=tmp_path, workers=1, progress=False)
    run = study.runs["imp"]
    table = frontier.trials(study)
    assert table.trial.tolist() == [0, 1]
    assert table.sparsity.to_numpy() == pytest.approx(0.8, abs=1 / frontier.parameters(e))
    assert set(table.steps) == {13 * 20}  # of all rounds
    assert run.experiment.epochs == 20 - rewinding.ROUNDS * 2
    # what is left begins at the untrained network of the same trial
    start = starting_networks(e, [0, 1], 1, 12)
    begun = starting_networks(run.experiment, [0, 1], 1, 12)
    for ours, theirs in zip(begun.sides, start.sides, strict=True):
        left = ours.weights != 0
        assert (ours.weights[left] == theirs.weights[left]).all()
    again = frontier.compute(design, 2, out=tmp_path, workers=1, progress=False)
    assert again.runs["imp"].folder == run.folder
    # other trials begin with weights of their own
    others = frontier.compute(design, range(5, 7), out=tmp_path, workers=1, progress=False)
    begun = starting_networks(others.runs["imp"].experiment, [5, 6], 1, 12)
    for ours, theirs in zip(begun.sides, starting_networks(e, [5, 6], 1, 12).sides, strict=True):
        left = ours.weights != 0
        assert (ours.weights[left] == theirs.weights[left]).all()


def test_the_ablation_changes_one_part_at_a_time(rows: str) -> None:
    design = frontier.ablation([rows], 0.9, 13 * 10)
    shipped = design[f"{rows}, as shipped"]
    assert shipped == Experiment.preset("frontier", dataset=rows, epochs=10)
    for label, e in design.items():
        changed = {k for k, v in e.settings().items() if v != shipped.settings()[k]}
        assert changed == set(frontier.PARTS[design.factors[label]["method"]])


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
    rates = pd.DataFrame({"dataset": rows, "method": names, "tuned_at": 0.9, "configuration": 0})
    study = frontier.compute(
        frontier.points(rates, [0.5, 0.8], steps=52), 2, out=tmp_path, workers=1, progress=False
    )
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
