"""What an operator removes from a copy, and how that is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, tiny

from evoae import grid, sweep
from evoae.networks.population import parameter_count
from evoae.study.analysis import inspection
from evoae.study.analysis.inspection import HIDDEN, dead_coverage, overlap, prune_each, prune_once

LAYERS = ["encoder 1", "code", "decoder 1", "output"]
HIDDEN_LAYERS = LAYERS[:3]
NAMES = ["none", "random", "conjunctive", "magnitude"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    settings = TINY | {"bits": 40, "model": "12-6"}
    folder = tmp_path_factory.mktemp("runs")
    presets = grid("canonical", "lipi-ae-s", **settings)
    return sweep(presets, 2, out=folder, workers=1, progress=False).runs


def test_the_population_stays_and_the_copy_is_pruned(runs):
    run = runs["canonical"]
    networks, data = run.population, run.data()
    before = networks.encoder.weights.clone()
    found = prune_once(networks, 1, "random", data.train, data.test, amount=0.25)
    assert torch.equal(networks.encoder.weights, before)
    assert list(found.keep) == list(found.before) == list(found.after) == LAYERS
    # round(0.25 * size) of each weight matrix
    removed = {layer: int((~keep).sum()) for layer, keep in found.keep.items()}
    assert removed == {"encoder 1": 120, "code": 18, "decoder 1": 18, "output": 120}
    shares = found.removed_by_unit["encoder 1"]
    assert shares.shape == (12,)
    assert shares.mean() == pytest.approx(0.25)
    for layer, (weight, _) in zip(LAYERS[:2], found.population.encoder.layers(), strict=True):
        np.testing.assert_array_equal((weight[0] != 0).numpy(), found.keep[layer])


@pytest.mark.parametrize("operator", ["random", "set", "magnitude"])
def test_what_was_zero_before_is_not_removed(runs, operator):
    networks, data = runs["canonical"].population, runs["canonical"].data()
    halved = networks.take(torch.tensor([0]), torch.tensor([0]))
    for side in halved.sides:
        side.weights[:, ::2] = 0
    found = prune_once(halved, 0, operator, data.train, data.test, amount=0.25)
    before = [weight[0] for side in halved.sides for weight, _ in side.layers()]
    after = [weight[0] for side in found.population.sides for weight, _ in side.layers()]
    for keep, old, new in zip(found.keep.values(), before, after, strict=True):
        assert (~keep).any()
        assert np.array_equal(~keep, ((old != 0) & (new == 0)).numpy())


def silenced(run, unit: int):
    """The run's networks with one unit of the first layer that nothing activates."""
    index = torch.arange(len(run.population.encoder))
    networks = run.population.take(index, index)
    weight, bias = networks.encoder.layers()[0]
    weight[:, unit], bias[:, unit] = -1.0, -1.0
    return networks


def test_dead_units_are_those_that_no_example_activates(runs):
    data = runs["canonical"].data()
    networks = silenced(runs["canonical"], 3)
    found = prune_once(networks, 0, "none", data.train, data.test)
    assert found.dead["encoder 1"][3]
    assert found.deviation["encoder 1"][3] == 0
    hidden = networks.take([0], [0]).encoder.activations(data.train[None])[0][0]
    np.testing.assert_array_equal(found.dead["encoder 1"], (hidden == 0).all(0).numpy())
    np.testing.assert_allclose(
        found.deviation["encoder 1"], hidden.double().std(0, correction=0).numpy(), atol=1e-6
    )


def test_operators_draw_apart_and_again_the_same(runs):
    run = runs["lipi-ae-s"]
    one, again = (prune_each(run, ["random"], trial=1) for _ in range(2))
    np.testing.assert_array_equal(one["random"].keep["code"], again["random"].keep["code"])
    other = prune_each(run, ["random"], trial=1, seed=2)["random"]
    assert not np.array_equal(other.keep["encoder 1"], one["random"].keep["encoder 1"])
    first = prune_each(run, ["none", "random"])["random"].keep["encoder 1"]
    assert not np.array_equal(first, prune_each(run, ["random"])["random"].keep["encoder 1"])


def test_coverage_counts_weights_of_dead_units(runs):
    table = dead_coverage(runs, NAMES)
    assert len(table) == 2 * 2 * len(NAMES) * 4
    assert list(table.layer.unique()) == [*HIDDEN_LAYERS, HIDDEN]
    parts = ["units", "dead_units", "weights", "dead", "removed", "both"]
    for _, rows in table.groupby(["label", "trial", "operator"]):
        whole = rows[rows.layer == HIDDEN][parts].iloc[0]
        assert (rows[rows.layer != HIDDEN][parts].sum() == whole).all()
    assert (table.both <= table[["dead", "removed"]].min(axis=1)).all()
    none = table[table.operator == "none"]
    assert (none.removed == 0).all()
    assert none.aimed.isna().all()
    random = table[(table.operator == "random") & (table.dead > 0)]
    assert (random.covered_by_chance == random.removed / random.weights).all()


def test_conjunctive_covers_a_dead_unit_that_random_does_not(runs, monkeypatch):
    run = runs["canonical"]
    monkeypatch.setattr(run, "population", silenced(run, 3))
    table = dead_coverage({"x": run}, ["random", "conjunctive"]).query("layer == 'encoder 1'")
    by = table.groupby("operator").covered.mean()
    assert by["conjunctive"] == 1
    assert by["random"] < 0.5


def test_overlap_of_an_operator_with_itself_and_of_random_ones(runs):
    table = overlap(runs, NAMES)
    assert len(table) == 2 * 2 * len(NAMES) ** 2
    pairs = table.groupby(["a", "b"])[["jaccard", "expected"]].mean()
    assert pairs.jaccard["magnitude", "magnitude"] == 1
    assert pairs.jaccard["none", "magnitude"] == 0
    assert np.isnan(pairs.jaccard["none", "none"])
    # Two draws of a tenth share a hundredth of all weights, of the nineteen that either has.
    assert pairs.expected["random", "random"] == pytest.approx(1 / 19, abs=0.01)
    assert pairs.jaccard["random", "random"] == pytest.approx(1 / 19, abs=0.04)


def test_outputs_are_those_of_the_best_autoencoders(runs):
    run = runs["lipi-ae-s"]
    shown = run.data().test[:3]
    encoder, decoder = run.best(1)
    with torch.no_grad():
        expected = decoder(encoder(shown)).numpy()
    found = inspection.outputs(runs, shown, trial=1)
    assert list(found) == ["canonical", "lipi-ae-s"]
    np.testing.assert_allclose(found["lipi-ae-s"], expected, atol=1e-6)


def test_probabilities_are_the_schedules():
    experiments = {
        "a": tiny(operator="random", schedule="increase", epochs=3),
        "b": tiny(operator="variance", schedule="fixed", epochs=2),
    }
    table = inspection.pruning_probabilities(experiments)
    assert table.label.tolist() == list("aaabb")
    assert table.operator.tolist() == ["random"] * 3 + ["variance-high"] * 2
    assert table.epoch.tolist() == [0, 1, 2, 0, 1]
    expected = [experiments["a"].pruning_at(t) for t in range(3)] + [0.1, 0.1]
    assert table.probability.tolist() == pytest.approx(expected)


def test_the_change_of_loss_is_beside_that_of_as_many_weights_at_random(runs):
    table = inspection.change_of_loss({"x": runs["canonical"]}, [*NAMES, "variance-high"])
    assert len(table) == 2 * 5
    none = table[table.operator == "none"]
    assert none[["removed", "change", "change_by_chance"]].eq(0).all(axis=None)
    random = table[table.operator == "random"]
    assert random.removed.to_numpy() == pytest.approx([0.1] * 2, abs=0.01)
    by = table.groupby("operator")[["change", "change_by_chance"]].mean()
    # the smallest weights are missed less than as many at random
    assert abs(by.change["magnitude"]) < abs(by.change_by_chance["magnitude"])


def test_what_was_zero_before_is_not_removed_again_by_chance(runs, monkeypatch):
    run = runs["canonical"]
    index = torch.arange(len(run.population.encoder))
    halved = run.population.take(index, index)
    for side in halved.sides:
        side.weights[:, ::2] = 0
    monkeypatch.setattr(run, "population", halved)
    table = inspection.change_of_loss({"x": run}, ["random"])
    # of the half that is left, a tenth
    assert table.removed.to_numpy() == pytest.approx([0.05] * 2, abs=0.02)


def test_a_dense_model_has_as_many_parameters_as_a_run_preserves(runs):
    run = runs["canonical"]  # 40-12-6-12-40
    halves = {"preserved": [0.5, 0.5]}

    class Halved:
        setting, data, population = run.setting, run.data, run.population
        experiment = run.experiment
        trials = pd.DataFrame(halves)

    assert inspection.equal_widths(40, "12-6", run.population.parameters) == "12-6"
    ((label, experiment),) = inspection.dense({"x": run}).items()
    assert label == "dense 12-6, x"
    assert (experiment.model, experiment.operator) == ("12-6", "none")
    assert experiment.replace(model="12-6").settings() == experiment.settings()
    ((label, _),) = inspection.dense({"x": Halved}).items()
    widths = [int(width) for width in label.removeprefix("dense ").removesuffix(", x").split("-")]
    encoder = (40, *widths)
    parameters = parameter_count(encoder) + parameter_count(encoder[::-1])
    total = run.population.parameters
    assert parameters == pytest.approx(total / 2, abs=81)  # one hidden unit is 81


def test_a_run_that_ends_at_the_constant_says_so():
    class Ended:
        def __init__(self, loss, trained_on="l1"):
            self.trials = pd.DataFrame({"train_l1": loss, "constant_train_l1": [0.03] * 2})
            self.setting = {"loss": trained_on}.get

    assert inspection.ending(Ended([0.02, 0.02])) is None
    assert inspection.ending(Ended([0.04, 0.04], "bce")) is None  # the constant is not its own
    assert inspection.ending(Ended([0.04, 0.04], "bce-then-l1")).startswith("nothing was learnt")
    for losses in ([0.03, 0.03], [0.5, 0.5]):
        assert inspection.ending(Ended(losses)).startswith("nothing was learnt: the training loss")
    assert "1 of 2 trials diverged" in inspection.ending(Ended([0.01, np.nan]))
    assert "0.0300" in inspection.ending(Ended([0.03, 0.03]))
    assert "loss=bce" in inspection.ending(Ended([0.03, 0.03]))
