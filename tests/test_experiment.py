"""Settings: every bad one refused with value, rule and choices; presets; readings; the hash."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, evolved, refusal, tiny
from PIL import Image

from evoae import Experiment, experiment, run
from evoae.experiment import DIFFERENCES, FILE_OPTIONS, LATER, PRESETS, RENAMED, SETTINGS, meaning
from evoae.networks import population
from evoae.pruning import operators, schedules
from evoae.rules import Choice

# -- presets --------------------------------------------------------------------------------------

# DESIGN's table, and the paper's settings
ROWS: dict[str, dict[str, Any]] = {
    "canonical": {
        "cells": 1, "pairing": "selected", "optimiser": "adam", "rate_policy": "step-decay",
        "pruning_clock": "epochs", "statistics_window": "since-prune",
    },
    "lipi-ae-s": {
        "cells": 10, "topology": "ring", "radius": 1, "update_order": "asynchronous",
        "pairing": "selected", "solution_concept": "best", "selection": "joint",
        "optimiser": "adam-per-batch", "rate_policy": "mutated", "pruning_clock": "last-epoch",
        "statistics_window": "visit",
    },
    "lipi-ae": {
        "cells": 5, "topology": "ring", "radius": 1, "update_order": "asynchronous",
        "pairing": "random-partner", "solution_concept": "best", "optimiser": "adam-per-batch",
        "rate_policy": "mutated",
    },
    "all-vs-all": {
        "cells": 5, "topology": "complete", "update_order": "synchronous", "pairing": "all-pairs",
        "solution_concept": "best", "optimiser": "adam-per-batch", "rate_policy": "mutated",
    },
}  # fmt: skip
PAPER = {
    "dataset": "binary-clusters", "clusters": 10, "bits": 1000, "examples": 100, "noise": 0.05,
    "model": "standard", "kind": "plain", "loss": "l1", "epochs": 400, "batch_size": 5,
    "learning_rate": 1e-5, "rate_sigma": 1e-5, "operator": "none", "amount": 0.1,
    "threshold": 0.1, "tournament_size": 2, "replacement": "always", "input_noise": 0.4,
    "prune_then_evaluate": False, "pruned_weights": "regrow", "centroid_density": 0.75,
    "shared_test_noise": True, "decrease": "released", "conjunctive_examples": "test",
    "probability": 0.5, "steepness": 2.0, "last_share": 0.25, "as_released": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_presets_are_the_rows_of_the_paper(name: str) -> None:
    e = Experiment.preset(name)
    for key, value in {**PAPER, **ROWS[name]}.items():
        assert getattr(e, key) == value, key
    assert set(PRESETS) == {*ROWS, "frontier"}


def test_the_default_experiment_is_the_canonical_one() -> None:
    assert Experiment() == Experiment.preset("canonical")


def test_presets_take_settings() -> None:
    e = Experiment.preset("lipi-ae-s", cells=7, optimiser="adam", model=(50, 20))
    assert (e.cells, e.optimiser, e.model) == (7, "adam", "50-20")
    assert e.rate_policy == "mutated"


def test_as_released_false_turns_every_difference() -> None:
    for name, row in PRESETS.items():
        released, intended = (Experiment.preset(name, as_released=r) for r in (True, False))
        for field in DIFFERENCES.keys() - row.settings.keys():
            assert (getattr(released, field), getattr(intended, field)) == DIFFERENCES[field]
        alone = name in ("canonical", "frontier")
        assert released.optimiser == ("adam" if alone else "adam-per-batch")
        kept = {"canonical", "lipi-ae-s", "frontier"}  # the text in question is of 2025
        assert intended.optimiser == ("adam" if name in kept else "adam-per-batch")
        assert released.replace(as_released=False) == intended
        assert intended.replace(as_released=True) == released
    intended = Experiment.preset("canonical", as_released=False)
    assert intended.centroid_density == 0.5
    assert intended.shared_test_noise is False
    assert intended.decrease == "intended"
    assert intended.conjunctive_examples == "train"
    assert intended.pruned_weights == "masked"
    assert intended.pruning_clock == "last-epoch"


def test_each_difference_is_a_setting_of_its_own() -> None:
    for field, (released, intended) in DIFFERENCES.items():
        assert getattr(Experiment(**{field: intended}), field) == intended
        assert getattr(Experiment(as_released=False, **{field: released}), field) == released


@pytest.mark.parametrize(("released", "operator"), [(True, "high"), (False, "low")])
def test_variance_follows_the_reading(released: bool, operator: str) -> None:
    e = Experiment.preset("lipi-ae-s", as_released=released, operator="variance")
    assert e.operator == f"variance-{operator}"
    assert e.probability == 0.1  # the others ran with 0.5
    assert Experiment(operator="random").probability == 0.5
    assert Experiment(operator="variance", probability=0.4).probability == 0.4


def test_prune_after_has_probability_one_and_fires_only_as_intended() -> None:
    for operator in ("random", "variance"):
        released = Experiment(operator=operator, schedule="prune-after")
        assert released.probability == 1.0
        assert max(map(released.pruning_at, range(400))) == 0
        intended = Experiment(operator=operator, schedule="prune-after", as_released=False)
        assert [intended.pruning_at(t) for t in (398, 399)] == [0, 1]
        coevolved = Experiment.preset("lipi-ae-s", operator=operator, schedule="prune-after")
        assert [coevolved.pruning_at(t) for t in (398, 399)] == [0, 1]


def test_the_population_schedule_divides_by_the_sub_population() -> None:
    for settings, n in (({}, 1), ({"cells": 10}, 3), ({"cells": 10, "radius": 2}, 5)):
        e = Experiment(schedule="population", probability=0.6, epochs=8, **settings)
        assert e.subpopulation == n
        assert e.pruning_at(4) == pytest.approx(0.3 / n)


def test_quality_epochs() -> None:
    assert Experiment().quality_epochs == (0, 100, 200, 300, 399)
    assert Experiment(epochs=1).quality_epochs == (0,)
    assert Experiment(epochs=3).quality_epochs == (0, 1, 2)


# -- what is refused ------------------------------------------------------------------------------

NAN, INFINITE = float("nan"), float("inf")
REFUSED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"operatr": "random"}, ("'operatr'", "did you mean operator?", "`evoae list` lists all")),
    ({"nonsense": 1}, ("'nonsense'", "`evoae list` lists all")),
    ({"operator": "axe"}, ("'axe'", *operators.OPERATORS)),
    ({"schedule": "now"}, ("'now'", *schedules.SCHEDULES)),
    ({"model": "huge"}, ("'huge'", *population.MODELS)),
    ({"model": (30, 0)}, ("'30-0'", "positive")),
    ({"model": [5.5]}, ("'5.5'", "positive")),
    ({"topology": "star"}, ("'star'", "ring", "torus", "complete")),
    ({"solution_concept": "median"}, ("'median'", "best", "worst", "mean")),
    *(
        ({name: "other"}, (name, "'other'", *s.rule.names))
        for name, s in SETTINGS.items()
        if isinstance(s.rule, Choice)
    ),
    *(
        ({name: value}, (f"{name}={value}", "at least 1"))
        for name in ("epochs", "batch_size", "cells", "tournament_size", "clusters", "bits")
        for value in (0, -1)
    ),
    ({"examples": 0}, ("examples=0", "at least 1")),
    *(
        ({name: value}, (f"{name}={value}", "[0, 1]"))
        for name in ("amount", "probability", "threshold", "noise", "last_share", "target_sparsity")
        for value in (-0.1, 1.1)
    ),
    *(
        ({name: value}, (f"{name}={value}", "finite"))
        for name in ("amount", "probability", "threshold", "learning_rate", "noise")
        for value in (NAN, INFINITE)
    ),
    *(
        ({name: -1.0}, (f"{name}=-1.0", "not be negative"))
        for name in ("learning_rate", "rate_sigma", "input_noise", "steepness")
    ),
    ({"data_share": 0.0}, ("data_share=0.0", "(0, 1]")),
    ({"data_share": 1.5}, ("data_share=1.5", "(0, 1]")),
    ({"centroid_density": 1.5}, ("centroid_density", "1.5", "[0, 1]")),
    ({"cells": 10, "radius": 0}, ("radius=0", "at least 1")),
    ({"radius": -1}, ("radius=-1",)),
    ({"cells": 10, "radius": 5}, ("radius=5", "cells=10", "at most 4")),
    ({"cells": 10, "topology": "torus"}, ("cells=10", "2 x 5", "at least 3")),
    ({"kind": "variational", "loss": "l1"}, ("variational", "bce", "l1")),
    ({"pairing": "all-pairs", "cells": 5}, ("all-pairs", "ring", "complete")),
    (
        {"pairing": "all-pairs", "topology": "complete", "cells": 3},
        ("all-pairs", "update_order=asynchronous", "must be synchronous"),
    ),
    *(
        (
            {"pairing": "all-pairs", "topology": "complete", "update_order": "synchronous"}
            | {name: value},
            ("all-pairs", f"{name}={value}"),
        )
        for name, value in {
            "replacement": "better",
            "selection": "separate",
            "solution_concept": "mean",
            "tournament_size": 3,
        }.items()
    ),
    ({"rate_policy": "mutated", "learning_rate": 11.0}, ("learning_rate=11.0", "[1e-09, 10]")),
    ({"rate_policy": "mutated", "learning_rate": 0.0}, ("learning_rate=0.0", "[1e-09, 10]")),
    ({"initial_weights": "w.safetensors", "identical_start": True}, ("identical_start=True",)),
    ({"cells": 2, "radius": 2}, ("radius=2", "cells=2", "at most 1")),
    (
        {"operator": "apoz", "schedule": "cubic", "allocation": "global"},
        ("global", "apoz", "magnitude", "obd", "layer", "erk"),
    ),
    ({"operator": "set", "pruned_weights": "regrow"}, ("operator=set", "must be masked")),
    ({"schedule": lambda t, final, s: 2.0}, ("2.0", "epoch 0", "[0, 1]")),
    ({"schedule": lambda t, final, s: -0.5 * (t == 3)}, ("-0.5", "epoch 3", "[0, 1]")),
    ({"schedule": lambda t, final, s: NAN}, ("nan", "epoch 0", "[0, 1]")),
    # wrong types
    ({"epochs": "many"}, ("epochs='many'", "int")),
    ({"epochs": 3.0}, ("epochs=3.0", "int")),
    ({"epochs": True}, ("epochs=True", "int")),
    ({"epochs": None}, ("epochs=None", "int")),
    ({"amount": "0.1"}, ("amount='0.1'", "float")),
    ({"amount": True}, ("amount=True", "float")),
    ({"learning_rate": 10**400}, ("learning_rate is too large to be a float",)),
    ({"amount": [0.1, 0.2]}, ("amount=[0.1, 0.2]", "float")),
    ({"operator": 3}, ("operator=3", "str")),
    ({"operator": None}, ("operator=None", "str or a function")),
    ({"operator": lambda layer: layer}, ("operator <lambda> must take", "layer, rng, settings")),
    ({"schedule": lambda t, /, final: 0.5}, ("must take three arguments: t, final, settings",)),
    ({"schedule": ["fixed"]}, ("schedule=['fixed']", "str")),
    ({"dataset": 5}, ("dataset=5", "str")),
    ({"dataset": b"a.npy"}, ("dataset=", "str")),
    ({"dataset": Path("a.npy")}, ("a.npy", "neither")),
    ({"operator": Path("random")}, ("operator=", "str")),
    ({"scale": "rows"}, ("scale='rows'", "bool or columns")),
    ({"scale": 1}, ("scale=1", "bool or columns")),
    ({"header": True}, ("header=True", "str")),
    ({"leave_out": 3}, ("leave_out=3", "str")),
    ({"dataset": "digits", "leave_out": "3"}, ("leave_out", "digits")),
    ({"header": "yes"}, ("header=yes", "binary-clusters")),
    ({"epochs": np.float64(3)}, ("epochs=3.0", "int")),
    ({"amount": np.array([0.1, 0.2])}, ("amount=", "float")),
    ({"prune_then_evaluate": 1}, ("prune_then_evaluate=1", "bool")),
    ({"shared_test_noise": "yes"}, ("shared_test_noise='yes'", "bool")),
    ({"as_released": "no"}, ("as_released='no'", "bool")),
    ({"model": 30}, ("model=30", "str")),
    ({"topology": None}, ("topology=None", "str")),
    # what only the data can tell
    ({"clusters": 3}, ("clusters", "3", "examples", "100", "divisible")),
    ({"dataset": "ducks"}, ("ducks", "digits", "patches", "binary-clusters")),
    ({"dataset": "missing.npy"}, ("missing.npy",)),
    ({"initial_weights": "missing.safetensors"}, ("missing.safetensors",)),
]


def named(value: Any) -> str:
    """Alike in every process: without the address of a function."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))[:50]


@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=named)
def test_bad_settings_are_refused_before_any_work(
    settings: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    def asked() -> None:
        run(Experiment.preset("canonical", **settings), out=tmp_path / "out", progress=False)

    message = refusal(asked)
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


def test_replacing_settings_validates_again() -> None:
    assert "epochs=0 must be at least 1" in refusal(Experiment().replace, epochs=0)
    assert "did you mean operator?" in refusal(Experiment().replace, operatr="random")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    message = refusal(Experiment.preset, "lipi")
    assert all(name in message for name in ("'lipi'", *PRESETS))


def test_numbers_that_are_whole_are_floats_too() -> None:
    e = Experiment(amount=1, learning_rate=0)
    assert (type(e.amount), type(e.learning_rate)) == (float, float)
    assert e == Experiment(amount=1.0, learning_rate=0.0)
    assert e.hash() == Experiment(amount=1.0, learning_rate=0.0).hash()


def test_initial_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    _, state = evolved(tiny("lipi-ae-s", cells=3))
    path = str(tmp_path / "w.safetensors")
    population.save(state.population, path)
    tiny(initial_weights=path).check_files()
    for other in ({"bits": 13}, {"model": "5-4"}, {"model": "12-5-3"}, {"kind": "variational"}):
        message = refusal(tiny(initial_weights=path, **other).check_files)
        assert f"initial_weights={path} holds networks of widths ((12, 5, 3)" in message


def test_experiments_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Experiment().epochs = 3  # type: ignore[misc]


def test_set_implies_masked_weights() -> None:
    assert tiny(operator="set").pruned_weights == "masked"
    assert tiny(operator="set").replace(operator="random").pruned_weights == "regrow"
    assert tiny(operator="random").replace(operator="set").pruned_weights == "masked"


# -- the hash -------------------------------------------------------------------------------------


def prune_nothing(layer: Any, rng: Any, s: Any) -> Any:
    return operators.none(layer, rng, s)


def never(t: int, final: int, s: Any) -> float:
    return 0.0


OTHER: dict[str, Any] = {
    "dataset": "digits", "clusters": 4, "bits": 13, "examples": 8, "noise": 0.06,
    "centroid_density": 0.6, "shared_test_noise": False, "scale": True, "data_share": 0.5,
    "model": "6-3", "kind": "denoising", "loss": "bce", "input_noise": 0.3,
    "identical_start": True, "cells": 10, "topology": "torus", "radius": 2,
    "update_order": "synchronous", "pairing": "random-partner", "solution_concept": "worst",
    "tournament_size": 3, "selection": "separate", "replacement": "better",
    "prune_then_evaluate": True, "best_cell": "first", "epochs": 5, "batch_size": 4,
    "optimiser": "adam-per-batch", "learning_rate": 0.02, "rate_policy": "constant",
    "rate_sigma": 0.1, "operator": "random", "amount": 0.2, "threshold": 0.2,
    "conjunctive_examples": "train", "statistics_window": "visit", "schedule": "fixed",
    "probability": 0.4, "pruning_clock": "last-epoch", "decrease": "intended", "steepness": 3.0,
    "last_share": 0.5, "target_sparsity": 0.6, "pruned_weights": "masked", "as_released": False,
    "data_seed": 3, "loss_switch": 0.5, "rate_hold": 0.5, "prune_count": 2, "prune_until": 0.5,
    "header": "yes", "leave_out": "1", "key": "b", "size": "2", "colour": True,
    "allocation": "erk", "prune_biases": False,
    "drop_fraction": 0.3, "drop_until": 0.5, "l1_penalty": 0.01, "positions": "even",
    "shared_pruning": "epochs",
}  # fmt: skip
AIMING = {"operator": "magnitude", "schedule": "cubic", "pruned_weights": "masked"}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_hash_changes_with_every_field(name: str, tmp_path: Path) -> None:
    beside = AIMING if name == "drop_fraction" else {}
    beside = {"operator": "random"} if name == "positions" else beside
    base = tiny(cells=9, **beside)
    if name == "initial_weights":
        path = tmp_path / "w.safetensors"
        population.save(evolved(tiny())[1].population, path)
        other = base.replace(initial_weights=str(path))
    elif name in ("header", "leave_out"):  # of files: by the rows that they give
        (tmp_path / "a.csv").write_text("0,1\n" + "0,1\n1,0\n" * 9)
        base = base.replace(dataset=tmp_path / "a.csv", header="no")
        other = base.replace(**{name: OTHER[name]})
        beside = beside | {"dataset": base.dataset, "header": "no"}
    elif name == "key":
        np.savez(tmp_path / "a.npz", a=np.eye(5), b=1 - np.eye(5))
        beside = {"dataset": tmp_path / "a.npz", "key": "a"}
        base = base.replace(**beside)
        other = base.replace(key="b")
    elif name in ("size", "colour"):
        for number in range(4):
            red = np.full((3, 3, 3), [200, number, 0], np.uint8)
            Image.fromarray(red).save(tmp_path / f"{number}.png")
        beside = {"dataset": tmp_path}
        base = base.replace(**beside)
        other = base.replace(**{name: OTHER[name]})
    else:
        other = base.replace(**{name: OTHER[name]})
    assert other.hash() != base.hash()
    assert tiny(cells=9, **beside).hash() == base.hash()


def test_defaults_written_out_do_not_change_the_hash() -> None:
    written = Experiment(**Experiment().settings())
    assert written == Experiment()
    assert written.hash() == Experiment().hash()


def test_the_hash_holds_what_it_is_given_besides() -> None:
    e = tiny()
    found = [e.hash(), e.hash(seed=1), e.hash(seed=2), e.hash(seed=1, trials=[0, 1])]
    assert len(set(found)) == 4
    assert e.hash(seed=1) == e.hash(seed=1)
    assert all(value.isalnum() and len(value) == 16 for value in found)


def test_the_hash_reads_the_files_that_settings_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.eye(20))
    e = tiny(dataset=str(path))
    assert e.dimension == 20
    before = e.hash()
    np.save(path, 1 - np.eye(20))
    assert e.hash() != before
    np.save(path, np.eye(20))
    assert e.hash() == before


def test_one_path_has_one_hash_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / "data"
    folder.mkdir(parents=True)
    np.save(folder / "rows.npy", np.eye(20))
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other.npy").symlink_to(folder / "rows.npy")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    spellings = [
        "rows.npy", "./rows.npy", "../data/rows.npy", "~/data/rows.npy", folder / "rows.npy",
        Path("rows.npy"), tmp_path / "link" / "rows.npy", str(tmp_path / "link/../data/rows.npy"),
    ]  # fmt: skip
    found = [tiny(dataset=path) for path in spellings]
    assert {e.dataset for e in found} == {str(folder / "rows.npy")}
    assert len(set(map(hash_of, found))) == 1
    assert tiny(dataset=tmp_path / "other.npy").hash() == found[0].hash()
    (tmp_path / "moved.npy").write_bytes((folder / "rows.npy").read_bytes())
    assert tiny(dataset=tmp_path / "moved.npy").hash() == found[0].hash()
    monkeypatch.chdir(tmp_path)
    assert found[0].dimension == 20
    assert Experiment(dataset="digits").dataset == "digits"


def hash_of(e: Experiment) -> str:
    return e.hash()


def test_weights_count_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = evolved(tiny())
    for name in ("a.safetensors", "b.safetensors"):
        population.save(state.population, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    paths = ["a.safetensors", tmp_path / "a.safetensors", "b.safetensors"]
    assert len({tiny(initial_weights=path).hash() for path in paths}) == 1


def test_hashes_of_runs_that_are_kept_stay() -> None:
    """Settings that came later are part of it where they say something else."""
    e = tiny(dataset="digits")
    older = {k: v for k, v in e.settings().items() if k not in FILE_OPTIONS and k not in LATER}
    before = {new: old for old, new in RENAMED.items()}
    older = {before.get(k, k): v for k, v in older.items()}
    text = json.dumps([meaning(older), older, {"seed": 1}, {"digits": None}], sort_keys=True)
    assert e.hash(seed=1) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("value", ["id,label", " label , id", "label,id,id", ["label", "id"]])
def test_columns_left_out_have_one_spelling(value: object) -> None:
    e = tiny(dataset="missing.csv", leave_out=value)
    assert e.leave_out == "id,label"
    assert Experiment(**e.settings()) == e


def test_numpy_s_numbers_and_flags_are_settings() -> None:
    given = {
        "epochs": np.int64(3), "batch_size": np.uint8(4), "amount": np.float32(0.1),
        "noise": np.float64(0.1), "probability": np.int32(1), "as_released": np.bool_(False),
        "scale": np.True_, "operator": np.str_("random"), "data_seed": np.int16(2),
        "threshold": np.array(0.25), "model": np.array([5, 3]), "learning_rate": np.float16(0.5),
    }  # fmt: skip
    plain = {
        "epochs": 3, "batch_size": 4, "amount": 0.1, "noise": 0.1, "probability": 1.0,
        "as_released": False, "scale": True, "operator": "random", "data_seed": 2,
        "threshold": 0.25, "model": "5-3", "learning_rate": 0.5,
    }  # fmt: skip
    e = Experiment(**given)
    assert e == Experiment(**plain)
    assert e.hash() == Experiment(**plain).hash()
    assert all(type(getattr(e, name)) is type(value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), ("columns", "columns")]
)
def test_scale_is_written_as_a_flag_or_columns(text: str, value: object) -> None:
    assert SETTINGS["scale"].parse(text) == value
    with pytest.raises(ValueError, match="scale='yes' must be true, false or columns"):
        SETTINGS["scale"].parse("yes")


def test_settings_are_json_and_come_back() -> None:
    e = tiny("lipi-ae-s", operator="variance", as_released=False)
    assert Experiment(**json.loads(json.dumps(e.settings()))) == e


def test_functions_are_settings() -> None:
    e = tiny(operator=prune_nothing, schedule=never)
    assert e.hash() == tiny(operator=prune_nothing, schedule=never).hash()
    assert e.hash() != tiny(operator="none", schedule=never).hash()
    assert e.hash() != tiny(operator=prune_nothing).hash()
    assert "prune_nothing" in e.settings()["operator"]
    json.dumps(e.settings())


THRESHOLD = 0.3


def at_threshold(t: int, final: int, s: object) -> float:
    return below(t)


def below(t: int) -> float:
    return at_threshold(t, 0, None) if t < 0 else min(THRESHOLD, 1.0)  # and back: no endless hash


def test_what_a_function_reads_is_hashed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [Experiment(schedule=at_threshold).hash()]
    monkeypatch.setattr(sys.modules[__name__], "THRESHOLD", 0.4)
    hashes.append(Experiment(schedule=at_threshold).hash())
    monkeypatch.setattr(sys.modules[__name__], "THRESHOLD", 0.3)
    hashes.append(Experiment(schedule=at_threshold).hash())
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_target_beyond_the_weights_is_refused_before_training_where_biases_stay() -> None:
    aim = {"operator": "magnitude", "schedule": "cubic", "pruned_weights": "masked"}
    e = Experiment(bits=20, clusters=2, examples=20, model="3-2", target_sparsity=0.9, **aim)
    e.check_files()
    assert e.most_sparse == 1
    e = e.replace(prune_biases=False)
    biases, size = 3 + 2 + 3 + 20, 20 * 3 + 3 * 2 + 2 * 3 + 3 * 20 + 28
    assert e.most_sparse == pytest.approx(1 - biases / size)
    with pytest.raises(
        ValueError, match=r"target_sparsity=0.9 cannot be reached: 132 of 160 parameters"
    ):
        e.check_files()
    e.replace(target_sparsity=e.most_sparse).check_files()
    e.replace(operator="none").check_files()


def test_a_users_operator_may_prune_to_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(layer: Any, rng: Any, s: Any) -> Any:
        return operators.magnitude(layer, rng, s)

    operators.register("mine", mine)
    for operator in (mine, "mine"):
        assert Experiment(operator=operator, schedule="cubic").has_target
    with pytest.raises(ValueError, match="operator=mine cannot be compared between layers"):
        Experiment(operator="mine", schedule="cubic", allocation="global")


# fmt: off
low, high = lambda t, final, s: 0.1, lambda t, final, s: 0.9  # two functions, one line
# fmt: on


def probability_of(values: np.ndarray, t: int, final: int, s: object) -> float:
    return float(values[1000])


MANY = [0.0] * 1000


class Holding:
    __slots__ = ()

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, t: int, final: int, s: object) -> float:
        return self.p

    def less(self, t: int, final: int, s: object) -> float:
        return self.p / 2


class Held(Holding):
    """In a dict of its own."""


class Slotted(Holding):
    __slots__ = ("p",)


def closed_over(p: float) -> Callable:
    return lambda t, final, s: p


@pytest.mark.parametrize(
    "given",
    [
        [low, low, high],
        *(
            [functools.partial(probability_of, make([*MANY, p, *MANY])) for p in (0.1, 0.1, 0.2)]
            for make in (np.array, torch.tensor, list)
        ),
        *([make(p) for p in (0.1, 0.1, 0.2)] for make in (closed_over, Held, Slotted)),
        [Held(p).__call__ for p in (0.1, 0.1, 0.2)],
        [Held(0.1).__call__, Held(0.1).__call__, Held(0.1).less],
    ],
    ids=[
        *("lambdas", "array", "tensor", "list", "closure", "object", "slots"),
        *("method", "another method"),
    ],
)
def test_functions_that_do_something_else_have_another_hash(given: list[Callable]) -> None:
    """A run must not be taken for another one whose function holds another value."""
    hashes = [Experiment(schedule=schedule).hash() for schedule in given]
    assert hashes[0] == hashes[1] != hashes[2]


def test_registered_functions_count_by_what_they_do() -> None:
    found = []
    for function in (prune_nothing, operators.random):
        operators.OPERATORS["mine"] = operators.find(function)
        found.append(tiny(operator="mine").hash())
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["mine", "binary-clusters", "rows", "*"])
def test_names_that_collide_are_told_apart_in_the_hash(name: str, tmp_path: Path) -> None:
    """An operator is not taken for a schedule of its name, nor for the rows or weights."""
    _, state = evolved(tiny())
    population.save(state.population, tmp_path / "a.safetensors")
    own = {"operator": name, "initial_weights": tmp_path / "a.safetensors"}
    operators.register(name, prune_nothing)
    found = [tiny(**own).hash()]
    schedules.register(name, never)
    assert tiny(**own).hash() == found[0]  # the schedule that it does not use
    found += [tiny(**own, schedule=name).hash(), tiny(**own, dataset="digits").hash()]
    operators.OPERATORS[name] = operators.Operator(operators.random)
    again = [e.hash() for e in (tiny(**own), tiny(**own, schedule=name))]
    schedules.SCHEDULES[name] = schedules.Schedule(at_threshold)
    assert len({*found, *again, tiny(**own, schedule=name).hash()}) == 6


def worth(layer: Any, rng: Any, s: Any) -> Any:
    return layer.weight.abs(), layer.bias.abs()


def test_a_score_counts_by_what_it_does() -> None:
    """Not by where it lies in memory, which another process would not find again."""

    def hash_with(score: Callable) -> str:
        operators.OPERATORS["mine"] = operators.Operator(prune_nothing, score)
        return tiny(operator="mine").hash()

    source = "lambda layer, rng, s: (layer.weight.abs(), layer.bias.abs())"
    assert hash_with(eval(source)) == hash_with(eval(source)) != hash_with(worth)


def test_a_function_counts_with_the_abilities_it_is_registered_with() -> None:
    plain = tiny(operator=prune_nothing).hash(), tiny(schedule=never).hash()
    operators.register("able", prune_nothing, compares=True)
    schedules.register("goal", never, target=True)
    assert tiny(operator=prune_nothing).hash() != plain[0]
    assert tiny(schedule=never).hash() != plain[1]


def test_positions_need_the_operators_that_heed_them() -> None:
    """By what they do, and not by what they are called."""
    operators.register("mine", operators.random)
    for operator in ("random", operators.noise, operators.Operator(operators.random), "mine"):
        assert Experiment(operator=operator, positions="even").positions == "even"

    def random(layer: Any, rng: Any, s: Any) -> Any:
        return operators.none(layer, rng, s)

    for operator in ("magnitude", random):
        with pytest.raises(ValueError, match="positions=even needs operator=random or noise"):
            Experiment(operator=operator, positions="even")


def test_hand_worked_probability_of_the_papers_default() -> None:
    e = Experiment(**TINY | {"epochs": 8})
    assert e.pruning_at(4) == pytest.approx(0.5 * (1 - math.exp(-1)))
    last = e.replace(pruning_clock="last-epoch")
    assert last.pruning_at(7) == pytest.approx(0.5 * (1 - math.exp(-2)))


def test_of_a_long_run_a_thousand_epochs_are_asked_first_and_last_among_them() -> None:
    asked = []

    def noting(t: int, final: int, settings: Any) -> float:
        asked.append(t)
        return 0.5

    Experiment(schedule=noting, epochs=10**9)
    assert len(asked) == 1000
    assert (asked[0], asked[-1]) == (0, 10**9 - 1)
    asked.clear()
    Experiment(schedule=noting, epochs=7)
    assert asked == list(range(7))


def test_what_a_schedule_gives_is_checked_when_its_epoch_comes() -> None:
    e = Experiment(schedule=lambda t, final, settings: 2.0 if t == 7_654_321 else 0.5, epochs=10**9)
    assert e.pruning_at(7_654_320) == 0.5
    with pytest.raises(ValueError, match=r"gives 2\.0 at epoch 7654321; it must lie in \[0, 1\]"):
        e.pruning_at(7_654_321)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_initial_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    networks = population.initialise(12, "5-3", "plain", [np.random.default_rng(0)], "cpu")
    networks.decoder.weights[0, 3] = value
    path = tmp_path / "start.safetensors"
    population.save(networks, path)
    e = Experiment(clusters=2, bits=12, examples=4, model="5-3", initial_weights=str(path))
    with pytest.raises(ValueError, match=r"start\.safetensors holds weights that are not finite"):
        e.check_files()


def test_initial_weights_need_a_name() -> None:
    assert refusal(Experiment(initial_weights="").check_files).startswith("'': no readable weights")


@pytest.mark.parametrize(("old", "new"), experiment.RENAMED.items())
def test_a_setting_that_had_another_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(ValueError, match=f"setting '{old}' is now called {new}"):
        Experiment.preset("canonical", **{old: 0.5})
    with pytest.raises(ValueError, match=f"setting '{old}' is now called {new}"):
        Experiment().replace(**{old: 0.5})


def test_a_run_of_before_is_found_under_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    e = Experiment.preset("frontier", l1_penalty=0.01)
    settings = {old: e.settings()[new] for old, new in experiment.RENAMED.items()}
    rest = {k: v for k, v in e.settings().items() if k not in experiment.RENAMED.values()}
    assert experiment.with_new_names(settings | rest) == e.settings()
    found = e.hash(seed=1)
    monkeypatch.setattr(experiment, "RENAMED", {})
    assert e.hash(seed=1) != found
    monkeypatch.setattr(Experiment, "settings", lambda self: settings | rest)
    assert e.hash(seed=1) == found
