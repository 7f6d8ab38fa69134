"""The designs change what they say, and the answers follow from the numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from evoae import sweep
from evoae.study.analysis import confounds, findings
from evoae.study.runs.study import Study

SMALL = {k: v for k, v in TINY.items() if k not in ("epochs", "learning_rate")}
TARGET = {"target_sparsity": 0.5, "prune_until": 0.8}


def test_the_gap_crosses_its_factors() -> None:
    design = confounds.gap(["none", "random"], cells=3, epochs=4, **SMALL)
    seen = {
        (e.optimiser, e.rate_policy, e.topology, e.tournament_size, e.operator)
        for e in design.values()
    }
    assert len(design) == len(seen) == 2 * 3 * 3 * 2
    assert {(where, size) for _, _, where, size, _ in seen} == {
        ("isolated", 2), ("ring", 1), ("ring", 2),
    }  # fmt: skip


def test_weights_that_stay_pruned_are_a_pruning_of_their_own() -> None:
    size = SMALL | {"cells": 3, "epochs": 2}
    design = confounds.gap(["none", "random"], ["random"], **size)
    kept = {label: e.pruned_weights for label, e in design.items() if e.operator == "random"}
    assert len(design) == 3 * len([e for e in design.values() if e.operator == "none"])
    assert {label for label, value in kept.items() if value == "masked"} == {
        label for label in kept if " masked " in label
    }
    few = {label: e for label, e in design.items() if "adam-per-batch mutated" in label}
    always = confounds.gap(["rigl"], ["rigl"], **size | {"schedule": "cubic"} | TARGET)
    assert len(always) == 18  # what always stays pruned is not run twice
    with pytest.raises(ValueError, match="must name operators that prune"):
        confounds.gap(["random"], ["none"], **size)
    table = confounds.table_of(sweep(few, 1, progress=False, workers=1))
    counts = {"none": 3, "random": 3, "random, masked": 3}  # a row each for every place
    assert table.pruning.value_counts().to_dict() == counts


def test_all_populations_train_as_many_steps() -> None:
    design = confounds.populations([1, 3, 4], 12, **SMALL)
    steps = {label: e.cells * e.epochs for label, e in design.items()}
    assert set(steps.values()) == {12}
    assert len(design) == 5  # one cell has no neighbours


def test_timing_has_as_many_prunes_whenever_they_are_and_a_control() -> None:
    design = confounds.timing(["random", "noise"], 2, epochs=20, **SMALL)
    study = sweep(design, 1, progress=False, workers=1)
    counts = study.history.groupby("label").pruned.sum()
    assert counts.pop("when none") == 0
    assert (counts == 2).all()
    assert len(counts) == 8
    table = confounds.table_of(study)
    assert (table.operator[table.when == "never"] == "none").all()
    assert table.when.value_counts().to_dict() == dict.fromkeys(confounds.WHEN, 2) | {"never": 1}
    # the control is no time at which is pruned
    pruned = table[table.when != "never"]
    found = confounds.when_matters(table)
    pd.testing.assert_frame_equal(found, confounds.when_matters(pruned))
    assert found.operator.tolist() == ["random", "noise"]


def test_operators_of_opposite_best_times_are_told_apart_and_not_averaged_out() -> None:
    rng, rows = np.random.default_rng(0), []
    slopes = {"random": 0.01, "magnitude": -0.01, "noise": 0.0}
    for (operator, slope), seed, (k, when) in itertools.product(
        slopes.items(), range(5), enumerate(confounds.WHEN)
    ):
        loss = 0.2 + 0.05 * seed + slope * k + rng.normal(0, 0.001)
        rows += [{"operator": operator, "data_seed": seed, "when": when, "train_l1": loss}] * 2
    found = confounds.when_matters(pd.DataFrame(rows)).set_index("operator")
    assert found.best[["random", "magnitude"]].tolist() == ["early", "last quarter"]
    assert (found.p_holm < 0.05).to_dict() == {"random": True, "magnitude": True, "noise": False}


def test_trials_of_a_data_seed_count_once() -> None:
    """Ten trials of one data seed that all agree are one block, and no evidence."""
    rng = np.random.default_rng(0)
    rows = [
        {"cells": 3, "place": place, "data_seed": seed, "test_l1": 0.2 - 0.1 * (place == "ring")}
        for place in ("isolated", "ring")
        for seed in range(5)
        for _ in range(10)
    ]
    table = pd.DataFrame(rows)
    table["test_l1"] += rng.normal(0, 0.01, len(table))
    found = confounds.against_restarts(table).iloc[0]
    assert found.n == 5
    assert np.isnan(found.p)
    noise = table.assign(operator=table.place.map({"isolated": "noise", "ring": "random"}))
    noise = noise.assign(when="early", train_l1=noise.test_l1)
    assert confounds.against_noise(noise).n.tolist() == [5]


def crossed(effect: dict[str, float], blocks: int = 6) -> pd.DataFrame:
    """Losses that are sums of effects, with some noise and an intercept for each data seed."""
    rng, rows = np.random.default_rng(0), []
    places = [
        ("isolated", False, False),
        ("ring without selection", True, False),
        ("ring", True, True),
    ]
    for seed, optimiser, policy, (place, neighbours, selection) in itertools.product(
        range(blocks), confounds.OPTIMISERS, confounds.POLICIES, places
    ):
        loss = 0.27 + 0.02 * seed + rng.normal(0, 1e-4)
        loss += effect["optimiser"] * (optimiser == "adam-per-batch")
        loss += effect["rate_policy"] * (policy == "mutated")
        loss += effect["neighbours"] * neighbours + effect["selection"] * selection
        rows.append(
            {
                "optimiser": optimiser, "rate_policy": policy, "place": place,
                "neighbours": neighbours, "selection": selection, "pruning": "none",
                "data_seed": seed, "train_l1": loss,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_rate_at_which_a_trial_diverges_is_not_the_best() -> None:
    rest = {"optimiser": "adam", "rate_policy": "constant", "loss": "l1"}
    table = pd.DataFrame(
        {"learning_rate": [0.1, 0.1, 0.01, 0.01], "validation_l1": [0.1, None, 0.2, 0.2]}
    ).assign(**rest)
    assert confounds.best_rate(table).learning_rate.tolist() == [0.01, 0.1]


def test_the_gap_is_shared_out_as_it_was_made() -> None:
    effect = {"optimiser": -0.08, "rate_policy": -0.02, "neighbours": 0.0, "selection": 0.0}
    parts = confounds.parts_of_gap(crossed(effect)).set_index("factor")
    for name, value in effect.items():
        assert parts.value[name] == pytest.approx(value, abs=1e-3)
        assert parts.low[name] <= parts.value[name] <= parts.high[name]
    assert parts.value["whole gap"] == pytest.approx(-0.1, abs=1e-3)
    few = confounds.parts_of_gap(crossed(effect, blocks=4))
    assert few[["low", "high"]].isna().all(axis=None)
    assert few.value.notna().all()


def test_each_operator_has_a_gap_of_its_own() -> None:
    effect = {"optimiser": -0.08, "rate_policy": -0.02, "neighbours": 0.0, "selection": 0.0}
    other = crossed(effect | {"optimiser": 0.04}).assign(pruning="random")
    parts = confounds.parts_of_gap(pd.concat([crossed(effect), other]))
    found = parts[parts.factor == "whole gap"].set_index("pruning").value
    assert found["none"] == pytest.approx(-0.1, abs=1e-3)
    assert found["random"] == pytest.approx(0.02, abs=1e-3)


def test_selection_without_neighbours_is_nothing() -> None:
    """What selection does in the ring is shared with the neighbours that it needs."""
    effect = {"optimiser": 0.0, "rate_policy": 0.0, "neighbours": 0.0, "selection": -0.04}
    parts = confounds.parts_of_gap(crossed(effect)).set_index("factor").value
    assert parts["neighbours"] == pytest.approx(-0.02, abs=1e-3)
    assert parts["selection"] == pytest.approx(-0.02, abs=1e-3)


def test_a_study_is_read_into_factors_and_its_restarts_are_paired() -> None:
    design = confounds.populations([1, 3], 6, learning_rate=1e-3, **SMALL)
    table = confounds.table_of(sweep(design, 2, progress=False, workers=1))
    assert set(table.place) == {"isolated", "ring"}
    found = confounds.against_restarts(table)
    assert found.cells.tolist() == [3]
    assert found.n.tolist() == [2]
    three = table[table.cells == 3].set_index(["place", "data_seed"]).test_l1
    gaps = three["ring"] - three["isolated"]
    assert gaps.min() <= found["shift"].iloc[0] <= gaps.max()


def test_the_report_tells_the_parts_where_the_design_was_run() -> None:
    design = confounds.gap(["none"], cells=3, epochs=2, learning_rate=1e-3, **SMALL)
    study = sweep(design, 2, progress=False, workers=1)
    assert "optimiser" in findings.apart(study)
    assert "2 epochs and 3 cells" in findings.apart(study)
    partly = Study({label: run for label, run in study.runs.items() if "adam-per" in label})
    assert "not run" in findings.apart(partly)
    digits = {"dataset": "digits", "model": "5-3", "batch_size": 100}
    other = confounds.gap(["none"], cells=3, epochs=1, **digits)
    assert "not run" in findings.apart(sweep(other, 1, progress=False, workers=1))


def test_the_paragraph_says_every_number_and_what_it_is_of() -> None:
    names = ["optimiser", "rate_policy", "neighbours", "selection", "whole gap"]
    parts = pd.DataFrame({"factor": names, "value": [-0.03, -0.06, -0.01, 0.0, -0.1]})
    parts = parts.assign(low=parts.value - 0.001, high=parts.value + 0.001)
    shift = {"low": [0.1, np.nan], "high": [0.3, np.nan]}
    restarts = pd.DataFrame({"cells": [3, 10], "shift": [0.2, -0.004], **shift})
    noise = pd.DataFrame({"when": ["early", "late"], "shift": [0.2, 0.0], **shift})
    tuned = pd.Series(
        {"optimiser": "adam", "rate_policy": "constant", "loss": "l1", "learning_rate": 0.001,
         "mean": 0.06}
    )  # fmt: skip
    ends = pd.Series({"none": 0.21, "random": 0.07, "noise": 0.06})
    turned = parts.assign(pruning="random, masked", value=-parts.value, low=np.nan)
    both = pd.concat([parts.assign(pruning="none"), turned])
    when = pd.DataFrame({"operator": ["random", "noise"], "p_holm": [1e-4, 0.2]})
    assert confounds.sentences(both, restarts, when, ends, noise, tuned) == (
        "Without pruning, training in the ring has a lower training loss than training alone "
        "(by 0.100 [0.099, 0.101]); its parts are rate policy -0.060 [-0.061, -0.059], optimiser "
        "-0.030 [-0.031, -0.029], neighbours -0.010 [-0.011, -0.009] and selection 0.000 [-0.001, "
        "+0.001]. Pruned by random, masked, training in the ring has a higher training loss than "
        "training alone (by 0.100); its parts are rate policy +0.060, optimiser +0.030, neighbours "
        "+0.010 and selection 0.000. At equal steps, the best of a ring has a higher test loss "
        "than the best of as many restarts with three cells (by 0.200 [0.100, 0.300]); the best of "
        "a ring has a lower test loss than the best of as many restarts with ten cells (by 0.004). "
        "The time of a fixed number of prunes changes the training loss significantly with random "
        "(p < 0.001). The time of a fixed number of prunes does not change the training loss "
        "significantly with noise (p = 0.200). Alone, noise has the lowest final training loss, "
        "0.060; random has 0.070 and no pruning has 0.210. Random pruning has a higher training "
        "loss than noise with early prunes "
        "(by 0.200 [0.100, 0.300]); random pruning and noise have the same training loss to three "
        "decimals with late prunes. Tuned on its own (adam, constant, l1, rate 0.001), one "
        "autoencoder reaches 0.060 on validation data."
    )
