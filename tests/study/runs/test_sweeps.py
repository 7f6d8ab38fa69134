"""Many runs: grids, tables, failures, claims on trials, users' functions in worker processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, assert_same_bits, begun, evolved, refusal, tiny, weights_of

import evoae
from evoae import Experiment, Study, SweepError, grid, one_at_a_time, sweep
from evoae.evolution import footprint
from evoae.networks import kernel
from evoae.pruning import operators, schedules
from evoae.study.runs import checkpoints, workers
from evoae.study.runs import sweeps as study
from evoae.study.runs.jobs import RunSpec, train_job
from evoae.study.runs.merge import COLUMNS

QUIET: dict[str, Any] = {"workers": 1, "engine": "batched", "progress": False}


def small(**settings: Any) -> Experiment:
    return tiny("lipi-ae-s", **({"cells": 3, "operator": "random"} | settings))


# -- grids ----------------------------------------------------------------------------------------


def test_a_grid_holds_every_combination() -> None:
    found = grid("canonical", operator=["random", "magnitude"], amount=[0.1, 0.2], epochs=3)
    assert list(found) == ["random 0.1", "random 0.2", "magnitude 0.1", "magnitude 0.2"]
    assert found["magnitude 0.2"] == Experiment.preset(
        "canonical", operator="magnitude", amount=0.2, epochs=3
    )


def test_labels_of_a_grid() -> None:
    assert list(grid("canonical")) == ["canonical"]
    assert list(grid("canonical", epochs=3)) == ["canonical"]
    assert list(grid("canonical", operator=["random"])) == ["random"]
    assert list(grid("canonical", "lipi-ae-s", operator=["none", "random"])) == [
        "canonical none", "canonical random", "lipi-ae-s none", "lipi-ae-s random",
    ]  # fmt: skip


def test_an_axis_may_be_an_array_or_hold_numpy_s_numbers_and_paths(tmp_path: Path) -> None:
    assert list(grid("canonical", epochs=range(1, 3))) == ["1", "2"]
    assert list(grid("canonical", learning_rate=pd.Series([0.1, 0.2]))) == ["0.1", "0.2"]
    np.save(tmp_path / "a.npy", np.eye(9))
    found = grid(
        "canonical",
        amount=np.array([0.1, 0.2]),
        epochs=[np.int64(3)],
        scale=[np.bool_(False), "columns"],
        dataset=tmp_path / "a.npy",
    )
    expected = grid(
        "canonical",
        amount=[0.1, 0.2],
        epochs=[3],
        scale=[False, "columns"],
        dataset=str(tmp_path / "a.npy"),
    )
    assert found == expected
    assert next(iter(found)) == "0.1 3 scale=False"
    assert len(grid("canonical", dataset=[tmp_path / "a.npy", "digits"])) == 2


def make(amount: float) -> Callable:
    return lambda layer, rng, s: operators.none(layer, rng, s)


@pytest.mark.parametrize(
    ("presets", "settings", "words"),
    [
        (["canonical"], {"operator": ["random", "axe"]}, "'axe'"),
        (["canonical"], {"operatr": ["random"]}, "'operatr'"),
        (["lipi"], {}, "'lipi'"),
        (["canonical"], {"epochs": []}, "epochs has no values"),
        (
            ["canonical"],
            {"operator": [make(0.1), make(0.2)]},
            "two experiments of the grid are called '<lambda>'",
        ),
    ],
)
def test_what_a_grid_refuses(presets: list[str], settings: dict[str, Any], words: str) -> None:
    assert words in refusal(grid, *presets, **settings)


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    assert "run: 'canonical' must be an Experiment" in refusal(
        evoae.run, "canonical", out=tmp_path / "new"
    )
    assert refusal(sweep, {}, out=tmp_path / "new") == "no experiments to run"
    assert not (tmp_path / "new").exists()


def test_one_difference_at_a_time_is_all_that_the_readings_differ_in() -> None:
    found = dict(one_at_a_time("lipi-ae-s", operator="variance", schedule="decrease", cells=5))
    released, intended = found.pop("as released"), found.pop("as intended")
    assert released == Experiment.preset(
        "lipi-ae-s", operator="variance", schedule="decrease", cells=5
    )
    assert not intended.as_released
    assert (released.operator, intended.operator) == ("variance-high", "variance-low")
    for name, one in found.items():
        assert getattr(one, name) == getattr(intended, name) != getattr(released, name)
        assert one.replace(**{name: getattr(released, name)}) == released
    assert sorted(found) == sorted(
        ["centroid_density", "optimiser", "operator", "decrease", "pruned_weights"]
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"operator": "none"}, "centroid_density optimiser"),
        ({"operator": "random"}, "centroid_density optimiser pruned_weights"),
        ({"operator": "random", "dataset": "digits"}, "optimiser pruned_weights"),
        (
            {"operator": "conjunctive"},
            "centroid_density shared_test_noise optimiser conjunctive_examples pruned_weights",
        ),
    ],
)
def test_differences_that_a_training_cannot_feel_are_left_out(
    settings: dict[str, Any], expected: str
) -> None:
    wanted = ["as released", "as intended", *expected.split()]
    found = one_at_a_time("lipi-ae-s", prefix="a", **settings)
    assert sorted(found) == sorted(f"a: {name}" for name in wanted)


# -- tables ---------------------------------------------------------------------------------------


def test_tables_have_the_settings_that_differ(tmp_path: Path) -> None:
    found = sweep(
        {"a": small(), "b": small(operator="none"), "c": small(amount=0.3)},
        2,
        out=tmp_path,
        **QUIET,
    )
    history, results = found.history, found.results
    assert len(history) == 3 * 2 * 4 * 3
    assert len(results) == 3 * 2
    for table in (history, results):
        assert {"label", "operator", "schedule", "amount"} <= set(table)
        assert "threshold" not in table
        by_label = table.groupby("label")[["operator", "amount"]].first()
        assert by_label.operator.to_dict() == {"a": "random", "b": "none", "c": "random"}
        assert by_label.amount.to_dict() == {"a": 0.1, "b": 0.1, "c": 0.3}
        assert list(table.label.unique()) == ["a", "b", "c"]
    for label, one in found.runs.items():
        part = history[history.label == label][list(one.history)]
        assert_same_bits(part, one.history)
    assert pd.api.types.is_float_dtype(history.amount)


def test_settings_named_like_columns_do_not_replace_them(tmp_path: Path) -> None:
    """Runs that differ in learning_rate and best_cell, both also columns of the tables."""
    found = sweep(
        {"a": small(), "b": small(learning_rate=0.02, best_cell="first")}, 1, out=tmp_path, **QUIET
    )
    both = [one.history.learning_rate for one in found.runs.values()]
    expected = pd.concat(both).tolist()
    assert found.history["learning_rate"].tolist() == expected
    cells = [row["best_cell"] for one in found.runs.values() for row in one.result["trials"]]
    assert found.results["best_cell"].tolist() == cells


def test_labels_may_share_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    found = sweep({"one": small(), "same": small()}, 1, out=tmp_path, **QUIET)
    assert len(calls) == 1
    assert found.runs["one"].folder == found.runs["same"].folder
    assert list(found.results.label) == ["one", "same"]


# -- failures -------------------------------------------------------------------------------------


def breaking(layer: Any, rng: Any, s: Any) -> Any:
    raise ZeroDivisionError("the axe broke")


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = small(operator=breaking, schedule="fixed", probability=1.0)
    runs = {"first": small(), "broken": bad, "last": small(amount=0.2)}
    with pytest.raises(SweepError, match=r"broken.*the axe broke") as caught:
        sweep(runs, 2, out=tmp_path, **QUIET)
    assert list(caught.value.failures) == ["broken"]
    assert isinstance(caught.value.failures["broken"], ZeroDivisionError)
    assert len(list(tmp_path.glob("*/result.json"))) == 2
    with pytest.raises(ZeroDivisionError, match="the axe broke"):
        evoae.run(bad, 2, out=tmp_path, **QUIET)
    good = sweep({k: v for k, v in runs.items() if k != "broken"}, 2, out=tmp_path, **QUIET)
    assert len(good.results) == 4


def test_one_worker_finishes_a_run_before_it_begins_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    for home, name in ((workers, "train_job"), (study, "finish")):
        original = getattr(home, name)

        def noted(*args: Any, name: str = name, original: Any = original) -> Any:
            order.append(name)
            return original(*args)

        monkeypatch.setattr(home, name, noted)
    sweep({"a": small(), "b": small(amount=0.2)}, 1, out=tmp_path, workers=1, progress=False)
    assert order == ["train_job", "finish"] * 2


def test_leftovers_of_a_finished_run_are_cleared_away(tmp_path: Path) -> None:
    folder = evoae.run(small(), 1, out=tmp_path, **QUIET).folder
    before = {path.name for path in folder.iterdir()}
    for name in ("checkpoint-0-1.safetensors", ".half.part", ".tmpAbC", ".lock"):
        (folder / name).write_bytes(b"left by a process that was killed")
    evoae.run(small(), 1, out=tmp_path, **QUIET)
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.skipif(len(ENGINES) == 1, reason="no kernel here")
def test_a_run_says_which_engines_it_was_trained_by(tmp_path: Path) -> None:
    for engine, block in (("fused", range(1)), ("batched", range(1, 2))):
        train_job(begun(small(), range(2), tmp_path, engine=engine), block)
    found = evoae.run(small(), 2, out=tmp_path, workers=1, progress=False)
    assert found.result["engine"] == "batched and fused"


# -- claims on trials ----------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, slow: float = 0.0) -> list[RunSpec]:
    """Blocks that are trained in this process."""
    calls, original = [], train_job

    def train(spec: RunSpec, *rest: Any) -> Any:
        calls.append(spec.folder)
        time.sleep(slow)
        return original(spec, *rest)

    monkeypatch.setattr(workers, "train_job", train)
    return calls


def test_two_sweeps_at_once_compute_a_shared_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, start = counted(monkeypatch, slow=0.3), threading.Barrier(2)

    def work(amount: float) -> Study:
        start.wait()
        return sweep({"shared": small(), "own": small(amount=amount)}, 1, out=tmp_path, **QUIET)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, [0.2, 0.3])
    assert len(calls) == len(set(calls)) == 3
    assert_same_bits(one.runs["shared"].history, other.runs["shared"].history)
    assert not list(tmp_path.glob("*/.lock"))


def test_progress_counts_every_epoch_of_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    monkeypatch.setattr(study.Progress, "__call__", lambda self, *more: reports.append(more))
    sweep({"a": small(), "b": small(amount=0.2)}, 3, out=tmp_path, **QUIET)
    assert sum(epochs for epochs, _ in reports) == 2 * 3 * 4
    assert sum(steps for _, steps in reports) == 2 * 3 * 4 * 3 * 3  # ... cells, batches


def test_an_executor_of_the_users(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        found = sweep(
            {"a": small()}, 3, out=tmp_path, workers=2, engine="batched", executor=executor,
            progress=False,
        )  # fmt: skip
    assert_same_bits(found.runs["a"].history, evolved(small(), 3)[0])


# -- functions of the user ------------------------------------------------------------------------


def test_functions_and_registered_names_reach_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two workers give the bits of one."""
    share = 0.5

    def half(layer: Any, rng: Any, s: Any) -> Any:  # travels by value, with what it holds
        return operators.random(layer, rng, operators.OperatorSettings(share))

    def late(t: int, final: int, s: Any) -> float:
        return float(t >= 2)

    operators.register("half", half)
    schedules.register("to a third", lambda t, final, s: t / final / 3, target=True)
    runs = {
        "function": small(operator=half, schedule=late),
        "name": small(operator="half", schedule=late),
        "target": small(schedule="to a third"),
        "plain": small(),
    }
    options = {"engine": "batched", "progress": False}
    spread = sweep(runs, 3, out=tmp_path / "two", workers=2, **options)
    alone = sweep(runs, 3, out=tmp_path / "one", workers=1, **options)
    assert_same_bits(spread.history, alone.history)
    history = spread.history
    assert_same_bits(
        history[history.label == "function"][list(COLUMNS)],
        history[history.label == "name"][list(COLUMNS)],
    )
    pruned = history[history.label == "function"].groupby("epoch").pruned.mean()
    assert pruned.tolist() == [0, 0, 1, 1]
    for label, one in spread.runs.items():
        assert torch.equal(weights_of(one), weights_of(alone.runs[label]))


def test_a_workers_registry_follows_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that lives on, as a cluster's do, must not keep an older function of the name."""
    operators.OPERATORS["mine"] = operators.find(
        lambda layer, rng, s: operators.random(layer, rng, s)
    )
    e = small(operator="mine", schedule="fixed", probability=1.0)
    spec = begun(e, range(1), tmp_path, engine="batched")
    task = workers.packed(spec, spec.trials)
    operators.OPERATORS["mine"] = operators.find(
        lambda layer, rng, s: operators.none(layer, rng, s)
    )
    workers.work(task)
    state, *_ = checkpoints.load(
        checkpoints.path_of(spec.folder, spec.trials), e, spec.trials, 1, "cpu"
    )
    assert (state.population.encoder.zeros() > 0).all()


def test_a_users_function_makes_a_run_of_its_own(tmp_path: Path) -> None:
    def mine(layer: Any, rng: Any, settings: Any) -> Any:
        return operators.random(layer, rng, settings)

    first = evoae.run(small(operator=mine), 1, out=tmp_path, **QUIET)
    named = evoae.run(small(operator="random"), 1, out=tmp_path, **QUIET)
    assert first.folder != named.folder
    assert_same_bits(first.history, named.history)
    assert first.data(0).dimension == 12
    with pytest.raises(ValueError, match="mine"):
        _ = first.experiment  # a function cannot be read back


def test_a_script_needs_no_guard(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from evoae import Experiment, run\n"
        "def keep_all(layer, rng, settings):\n"
        "    return layer.weight == layer.weight, layer.bias == layer.bias\n"
        "e = Experiment.preset('canonical', clusters=2, bits=12, examples=4, epochs=2,\n"
        "                      operator=keep_all, schedule='fixed')\n"
        "for seed in (1, 2):\n"
        "    made = run(e, 2, seed, workers=2, progress=False)\n"
        "    print('trials', len(made.result['trials']))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout == 2 * "trials 2\n", done.stderr
    assert "leaked" not in done.stderr


def test_a_users_function_is_called_by_its_name_in_tables(tmp_path: Path) -> None:
    def quietest(layer: Any, rng: Any, s: Any) -> Any:
        return operators.none(layer, rng, s)

    study = sweep({"a": small(operator=quietest), "b": small()}, 1, out=tmp_path, **QUIET)
    assert set(study.results.operator) == {"quietest", small().operator}
    others = [lambda layer, rng, s, n=n: operators.none(layer, rng, s) for n in (1, 2)]
    same = {str(n): small(operator=each) for n, each in enumerate(others)}
    assert sweep(same, 1, out=tmp_path, **QUIET).results.operator.nunique() == 2


@pytest.mark.parametrize(
    ("experiment", "options", "workers"),
    [
        (small(), {}, 1),
        (small(), {"engine": "batched"}, 8),  # for which nobody knows how long it takes
        (Experiment.preset("lipi-ae-s"), {}, 8),
    ],
)
def test_short_work_is_done_before_processes_would_have_begun(
    experiment: Experiment, options: dict, workers: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 8)
    monkeypatch.setattr(kernel, "reason_unavailable", lambda: None)
    spec = RunSpec(experiment, 1, 0, 2, tmp_path, **options)
    assert study.default_workers([spec], here=True) == workers
    assert study.default_workers([spec], here=False) == 8
    assert study.default_workers(1000 * [spec], here=True) == 8
    monkeypatch.setattr(kernel, "reason_unavailable", lambda: "no compiler")
    assert study.default_workers([spec], here=True) == 8


def test_time_is_estimated_by_what_takes_it() -> None:
    few = footprint.seconds(small(epochs=10), 1)
    more = [small(epochs=100), small(epochs=10, examples=40), small(epochs=10, bits=1000)]
    assert all(footprint.seconds(e, 1) > few for e in more)
    assert footprint.seconds(small(epochs=10), 50) > few
    assert 5 < footprint.seconds(Experiment.preset("lipi-ae-s"), 1) < 100  # measured: 30
