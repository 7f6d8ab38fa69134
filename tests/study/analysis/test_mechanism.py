"""Design A', guided against random, schedules at equal dose: what they vary, and their tables."""

from __future__ import annotations

from functools import reduce
from operator import or_

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from evoae import Experiment, sweep
from evoae.study.analysis import blocks, dose, mechanism, plan, results

SMALL = {k: v for k, v in TINY.items() if k not in ("bits", "epochs", "learning_rate")}
TUNED = {(a, p, 20): 1e-3 for a in mechanism.ARRANGEMENTS for p in mechanism.PRUNINGS}


def test_the_mechanism_crosses_places_prunings_and_rates() -> None:
    design = mechanism.mechanism(20, TUNED, 0.03, epochs=4, cells=3, **SMALL)
    assert len(design) == 3 * 4 * 5
    policies = {f["rate"]: design[label].rate_policy for label, f in design.factors.items()}
    assert set(policies.values()) == {"constant", "mutated", "step-decay", "cosine"}
    assert {e.optimiser for e in design.values()} == {"adam-per-batch"}
    amounts = {f["pruning"]: design[label].amount for label, f in design.factors.items()}
    assert (amounts["random"], amounts["random at equal dose"]) == (0.1, 0.03)
    assert {e.conjunctive_examples for e in design.values() if e.operator == "conjunctive"} == {
        "train"
    }
    assert all(e.data_seed is None for e in design.values())  # each block has its own


def test_an_equal_dose_is_what_is_newly_zero() -> None:
    e = Experiment.preset(
        "lipi-ae-s", cells=3, operator="random", amount=0.25, schedule="fixed", probability=1.0,
        epochs=4, bits=20, learning_rate=0.0, rate_policy="constant", topology="isolated", **SMALL,
    )  # fmt: skip
    # nothing grows again, and the first prune is not measured
    shares = [0.25 * 0.75**n for n in (1, 2, 3)]
    assert mechanism.dose_of(e, 1000) == pytest.approx(np.mean(shares), abs=0.02)
    with pytest.raises(ValueError, match="never prunes"):
        mechanism.dose_of(e.replace(operator="none"), 1000)


@pytest.mark.parametrize("name", plan.WHEN)
def test_prunes_of_a_schedule_are_so_many_and_where_it_has_its_weight(name) -> None:
    epochs = sorted(dose.prune_epochs(name, 199, 25, 0.95))
    assert len(epochs) == 25
    assert epochs[0] >= 0
    assert epochs[-1] <= 0.95 * 199
    middle = np.mean(epochs)
    assert {
        "decrease": middle < 70, "fixed": 85 < middle < 105, "increase": middle > 115,
        "exponential": 95 < middle < 125, "final-n": min(epochs) >= 139,
    }[name]  # fmt: skip


def test_every_operator_and_schedule_has_the_same_dose() -> None:
    places, names = {"ring": {"cells": 3, **mechanism.CONSTANT}}, ["final-n"]
    design = mechanism.schedules(
        {"bits": 20}, places, plan.CHOSEN, names, 2, 0.2, epochs=12, **SMALL
    )
    assert len(design) == 1 + len(plan.CHOSEN)
    study = sweep(design, 1, progress=False, workers=1)
    pruned = study.history[study.history.pruned]
    zeros = pruned.encoder_zeros + pruned.decoder_zeros
    run = study.runs[next(iter(study.runs))]
    assert set(zeros) == {round(0.2 * run.population.parameters)}
    counts = pruned.groupby(["label", "cell"]).size()
    assert set(counts) == {2}
    table = blocks.table_of(study, mechanism.FACTORS["schedules"])
    assert set(table.when) == {"never", *names}


def test_guided_and_random_end_equally_sparse() -> None:
    sizes = [(20, 5), (30, 5)]
    small = {k: v for k, v in SMALL.items() if k != "model"}
    design = mechanism.guided_alone(sizes, [0.5], epochs=4, **small)
    alone, few = {"alone": mechanism.CONSTANT}, ["random"]
    design |= mechanism.guided(
        {"dataset": "digits"}, 5, [0.5], alone, few, **{**small, "epochs": 4}
    )
    study = sweep(design, 1, progress=False, workers=1)
    assert study.results.preserved.to_numpy() == pytest.approx(0.5, abs=0.01)
    table = blocks.table_of(study, mechanism.FACTORS["guided"])
    sizes += [(64, 5)]  # of digits, whose setting `bits` means nothing
    assert [*map(tuple, table[["bits", "width"]].drop_duplicates().to_numpy())] == sizes


def a_table(blocks_: int = 10) -> pd.DataFrame:
    """A ring that is 0.05 better by its mean where rates wander, and as good by its best cell."""
    rng, rows = np.random.default_rng(0), []
    for block in range(blocks_):
        for place in mechanism.ARRANGEMENTS:
            for rate in ("mutated", "constant tuned"):
                gain = -0.05 * (place == "ring") * (rate == "mutated")
                noise = rng.normal(0, 0.001, 2)
                rows.append({
                    "bits": 20, "pruning": "random", "rate": rate, "place": place,
                    "data_seed": block, "training_seed": block,
                    "train_l1": 0.1 + gain + noise[0], "test_l1": 0.1 + noise[1],
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_a_rings_advantage_is_of_the_mean_or_of_the_best_cell() -> None:
    found = mechanism.advantages(a_table()).set_index(["rate", "contrast", "outcome"])
    ring = found.xs("ring less isolated", level="contrast")
    assert ring.says["mutated", "mean over cells"] == "lower"
    assert ring.estimate["mutated", "mean over cells"] == pytest.approx(-0.05, abs=0.002)
    others = ring.drop(("mutated", "mean over cells")).says
    assert set(others) == {"no difference as large as the margin"}
    change = mechanism.of_rates(a_table()).set_index("outcome")
    assert change.says["mean over cells"] == "lower"
    assert "margin" in change.says["best cell"]


def test_the_luck_of_rates_is_what_they_explain_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    cells = pd.DataFrame({"data_seed": np.repeat(np.arange(10), 10), "mean_rate": 0.0})
    cells["mean_rate"] = np.exp(rng.normal(-9, 0.5, 100))
    cells = cells.assign(bits=20, pruning="random", place="isolated")
    all_of_it = cells.assign(train_l1=-np.log(cells.mean_rate))
    nothing = cells.assign(train_l1=rng.normal(0.1, 0.01, 100))
    assert mechanism.luck(all_of_it).estimate[0] == pytest.approx(1 - 1 / 9)
    assert mechanism.luck(nothing).estimate[0] == pytest.approx(0, abs=0.12)
    assert np.isnan(mechanism.explained(cells[:10].assign(train_l1=0.1)))
    assert np.isnan(mechanism.explained(cells[:2].assign(train_l1=[0.1, 0.2])))


def test_the_set_that_is_not_told_from_the_best() -> None:
    rng, rows = np.random.default_rng(2), []
    means = {"random": 0.1, "conjunctive": 0.1005, "magnitude": 0.2}
    for block in range(10):
        shared = rng.normal(0, 0.02)
        for operator, mean in means.items():
            loss = mean + shared + rng.normal(0, 0.002)
            rows.append({"dataset": "d", "bits": 20, "place": "alone", "operator": operator,
                         "when": "fixed", "data_seed": block, "test_l1": loss})  # fmt: skip
    found = mechanism.best_pairs(pd.DataFrame(rows)).set_index("operator")
    assert found.says.value_counts().to_dict()["best"] == 1
    assert found.says["magnitude"] == "higher"
    assert (found.says == "best").idxmax() in ("random", "conjunctive")
    assert found["mean"].is_monotonic_increasing


def test_guided_less_random_is_a_row_per_setting_and_outcome() -> None:
    table = a_table().rename(columns={"rate": "operator"})
    table["operator"] = table.operator.map({"mutated": "conjunctive", "constant tuned": "random"})
    table = table.assign(dataset="d", width=5, sparsity=0.5)
    constant = {"constant_train_l1": 0.3, "constant_test_l1": 0.3}
    found = mechanism.guided_less_random(table.assign(**constant)).set_index(["place", "outcome"])
    assert found.says["ring", "mean over cells"] == "lower"
    assert found["mean guided"]["ring", "mean over cells"] == pytest.approx(0.05, abs=0.002)
    best = {"constant_train_l1": 0.3, "constant_test_l1": 0.01}  # better than both by the best cell
    found = mechanism.guided_less_random(table.assign(**best)).set_index(["place", "outcome"])
    assert found.says["ring", "mean over cells"] == "lower"
    assert found.says["ring", "best cell"] == "nothing learnt"
    missing = table[(table.place != "ring") | (table.operator == "random")].assign(**constant)
    assert "ring" not in set(mechanism.guided_less_random(missing).place)


# -- the plan -------------------------------------------------------------------------------------


def test_the_plan_is_made_of_arms_that_are_run_once() -> None:
    def tuned(design: object, trials: object) -> object:
        raise AssertionError("nothing is tuned for these")

    released = plan.u_part(tuned, 6)
    assert {e.dimension for e in released.values()} == {1000}
    guided = reduce(or_, plan.guided_parts())
    for design in (released, guided, plan.schedules_part()):
        assert len(set(design.values())) == len(design)
        assert all(e.data_seed is None for e in design.values())
    with pytest.raises(ValueError, match="unknown design 'unifrmity'"):
        plan.compute("unifrmity", 1, "x")
    with pytest.raises(ValueError, match="blocks=0 must be at least 1"):
        plan.compute("guided", 0, "x")


def test_what_is_computed_is_kept_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    table = a_table().assign(validation_l1=0.1)
    results.keep("mechanism", table[table.data_seed < 4])
    results.keep("mechanism", table)
    found = results.in_blocks("mechanism")
    keys = [*mechanism.FACTORS["mechanism"], "data_seed", "training_seed"]
    assert len(found) == len(table)
    assert not found.duplicated(keys).any()
    assert list(found.columns[: len(keys)]) == keys
