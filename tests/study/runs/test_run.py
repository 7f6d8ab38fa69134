"""A run's directory: its files, numbers, damage, checkpoints; a killed or stopped run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import (
    ENGINES,
    FILES,
    TINY,
    assert_same_bits,
    begun,
    evolved,
    refusal,
    stopped,
    tiny,
    weights_of,
)
from torch import nn
from torch.nn import functional as F

import evoae
from evoae import Experiment, Run, messages
from evoae.evolution.cells import State, initial
from evoae.networks import kernel, population
from evoae.study.runs import checkpoints, files, jobs
from evoae.study.runs import sweeps as study
from evoae.study.runs.jobs import train_job
from evoae.study.runs.merge import COLUMNS

DESIGN_COLUMNS = [
    "trial", "epoch", "cell", "learning_rate", "selection_loss", "replacement_loss", "test_loss",
    "pruned", "encoder_zeros", "decoder_zeros", "encoder_zeros_at_last_prune",
    "decoder_zeros_at_last_prune", "train_l1",
]  # fmt: skip
DESIGN_KEYS = {
    "trial", "train_l1", "validation_l1", "test_l1", "preserved", "preserved_at_last_prune",
    "best_cell",
}  # fmt: skip


def small(**settings: Any) -> Experiment:
    return tiny("lipi-ae-s", **({"cells": 4, "operator": "random"} | settings))


def run(experiment: Experiment, out: Path, **options: Any) -> Run:
    chosen = {"trials": 2, "workers": 1, "engine": "batched", "progress": False} | options
    return evoae.run(experiment, out=out, **chosen)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three trials; tests that damage it copy it."""
    e = small(probability=0.9)
    return run(e, tmp_path_factory.mktemp("runs"), trials=range(1, 4), seed=5)


# -- what a run leaves behind ---------------------------------------------------------------------


def test_files_and_folder(finished: Run) -> None:
    assert {path.name for path in finished.folder.iterdir()} == FILES
    e = small(probability=0.9)
    assert finished.folder.name == e.hash(seed=5)
    config = json.loads((finished.folder / "config.json").read_text())
    assert config["experiment"] == e.settings()
    assert (config["seed"], config["preset"]) == (5, "lipi-ae-s")
    assert "trials" not in config
    assert {"python", "evoae", "torch", "numpy"} <= set(config["versions"])
    assert finished.experiment == e


def test_history_is_designs_table(finished: Run) -> None:
    assert COLUMNS == DESIGN_COLUMNS
    history = pd.read_parquet(finished.folder / "history.parquet")
    assert list(history) == DESIGN_COLUMNS
    assert_same_bits(history, finished.history)
    expected, _ = evolved(small(probability=0.9), [1, 2, 3], seed=5)
    assert_same_bits(history, expected)
    assert history.pruned.any()


def test_result_has_designs_keys(finished: Run) -> None:
    result = json.loads((finished.folder / "result.json").read_text())
    keys = {"trials", "mean", "seconds", "model_steps", "model_steps_per_second", "engine", "files"}
    assert set(result) == keys | {"sha256"}
    assert [row["trial"] for row in result["trials"]] == [1, 2, 3]
    for row in result["trials"]:
        assert set(row) >= DESIGN_KEYS
    assert set(result["mean"]) >= DESIGN_KEYS - {"trial"}
    for key, value in result["mean"].items():
        assert value == pytest.approx(np.mean([row[key] for row in result["trials"]]))
    assert result["model_steps"] == 3 * 4 * 4 * 3  # trials, cells, epochs, batches
    assert result["seconds"] > 0
    per_second = result["model_steps"] / result["seconds"]
    assert result["model_steps_per_second"] == pytest.approx(per_second)
    assert result["engine"] == "batched"
    assert list(finished.trials.trial) == [1, 2, 3]


def test_results_follow_from_history_and_weights(finished: Run) -> None:
    total = finished.population.parameters
    last = finished.history[finished.history.epoch == 3]
    for row in finished.result["trials"]:
        trial, data = row["trial"], finished.data(row["trial"])
        ends = last[last.trial == trial]
        assert row["train_l1"] == pytest.approx(ends.train_l1.mean())
        zeros = (ends.encoder_zeros + ends.decoder_zeros).mean()
        assert row["preserved"] == pytest.approx(1 - zeros / total)
        zeros = (ends.encoder_zeros_at_last_prune + ends.decoder_zeros_at_last_prune).mean()
        assert row["preserved_at_last_prune"] == pytest.approx(1 - zeros / total)
        losses = {}
        for split in ("validation", "test"):
            x = getattr(data, split)
            for cell in range(4):
                encoder, decoder = finished.best(trial, cell)
                losses[split, cell] = F.l1_loss(decoder(encoder(x)), x).item()
        best = min(range(4), key=lambda cell: losses["validation", cell])
        assert row["best_cell"] == best
        assert row["validation_l1"] == pytest.approx(losses["validation", best], abs=1e-6)
        assert row["test_l1"] == pytest.approx(losses["test", best], abs=1e-6)
        mean = np.mean([losses["test", cell] for cell in range(4)])
        assert row["mean_test_l1"] == pytest.approx(mean, abs=1e-6)
    assert len({row["best_cell"] for row in finished.result["trials"]}) > 1


def test_best_returns_working_modules(finished: Run) -> None:
    for row in finished.result["trials"]:
        best, known = (finished.best(row["trial"], cell) for cell in (None, row["best_cell"]))
        assert [type(side) for side in best] == [nn.Sequential, nn.Sequential]
        x = finished.data(row["trial"]).test
        assert torch.equal(nn.Sequential(*best)(x), nn.Sequential(*known)(x))
    for trial, cell in ((0, None), (4, None), (1, 4), (1, -1)):
        assert "not in this run" in refusal(finished.index, trial, cell)


def test_the_best_cell_as_released_is_the_first(tmp_path: Path) -> None:
    found = run(small(best_cell="first"), tmp_path)
    assert [row["best_cell"] for row in found.result["trials"]] == [0, 0]
    encoder, decoder = found.population.member(4)
    x = found.data(1).test
    expected = F.l1_loss(decoder(encoder(x)), x).item()
    assert found.result["trials"][1]["test_l1"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["denoising", "variational"])
def test_runs_of_other_kinds_are_read_back(kind: str, tmp_path: Path) -> None:
    found = run(small(kind=kind), tmp_path, engine="auto")
    encoder, decoder = found.best(0)
    x = found.data(0).test
    expected = found.result["trials"][0]["test_l1"]
    assert F.l1_loss(decoder(encoder(x)), x).item() == pytest.approx(expected, abs=1e-6)


# -- finished runs are not run again --------------------------------------------------------------


def test_a_run_finished_by_another_engine_is_not_passed_off(tmp_path: Path) -> None:
    run(small(), tmp_path)
    with pytest.raises(ValueError, match="finished by engine batched, not fused"):
        run(small(), tmp_path, engine="fused")
    assert run(small(), tmp_path, engine="auto").result["engine"] == "batched"


def test_the_loss_of_a_diverged_network_is_null_and_no_mean_hides_it(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    networks = population.initialise(
        12, "5-3", "plain", [np.random.default_rng(i) for i in range(4)], "cpu"
    )
    networks.decoder.weights[1] *= 1e38  # finite, but infinity minus infinity lies ahead
    population.save(networks, path)
    alone = {"cells": 4, "update_order": "synchronous", "tournament_size": 1, "radius": 1}
    e = small(initial_weights=str(path), operator="none", epochs=1, **alone)
    found = next(
        one
        for seed in range(1, 40)  # one in which the broken network is drawn, and others are
        if (one := run(e, tmp_path, trials=1, seed=seed)).history.train_l1.isna().mean()
        not in (0, 1)
    )

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (found.folder / "result.json").read_text()
    result = json.loads(text, parse_constant=strict)
    assert result["mean"]["train_l1"] is None
    assert np.isnan(found.trials.train_l1.item())
    assert np.isfinite(found.trials.validation_l1.item())  # of the best cell


def test_without_out_the_files_live_as_long_as_the_run() -> None:
    found = evoae.run(small(), workers=1, engine="batched", progress=False)
    folder = found.folder
    assert len(found.history) == 16
    assert folder.exists()
    del found
    assert not folder.exists()


# -- damage ---------------------------------------------------------------------------------------


def copied(finished: Run, tmp_path: Path) -> Path:
    return shutil.copytree(finished.folder, tmp_path / finished.folder.name)


@pytest.mark.parametrize("name", sorted(FILES - {"result.json"}))
def test_missing_files_are_named(finished: Run, tmp_path: Path, name: str) -> None:
    folder = copied(finished, tmp_path)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        Run(folder)
    with pytest.raises(ValueError, match="not a finished run"):
        Run(tmp_path / "nothing")


@pytest.mark.parametrize(("key", "value"), [("experiment", {"epochs": 3}), ("seed", 6)])
def test_a_directory_of_another_run_is_refused(
    finished: Run, tmp_path: Path, key: str, value: Any
) -> None:
    folder = copied(finished, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config[key] = config[key] | value if isinstance(value, dict) else value
    files.write_json(folder / "config.json", config)
    for result in (True, False):
        if not result:
            (folder / "result.json").unlink()
        with pytest.raises(
            ValueError, match=rf"{folder}/config\.json.*(another {key}|not the one)"
        ):
            run(small(probability=0.9), tmp_path, trials=range(1, 4), seed=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, ("0:0", "positive")),
        ({"trials": -1}, ("0:-1", "positive")),
        ({"trials": range(3, 3)}, ("3:3", "A < B")),
        ({"trials": range(-1, 2)}, ("-1:2",)),
        ({"trials": range(0, 6, 2)}, ("trials=range(0, 6, 2)", "step 1")),
        ({"seed": -1}, ("seed=-1", "0 or more")),
        ({"seed": 2**64}, ("seed=", "below 2**64")),
        ({"seed": 1.5}, ("seed=1.5", "whole number")),
        ({"seed": True}, ("seed=True", "whole number")),
        ({"workers": 0}, ("workers=0", "at least 1")),
        ({"workers": -2}, ("workers=-2", "at least 1")),
        ({"engine": "warp"}, ("'warp'", "auto", "fused", "batched")),
        ({"device": "tpu"}, ("'tpu'", "cpu", "cuda")),
    ],
)
def test_bad_options_are_refused_before_any_work(
    options: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    message = refusal(run, small(), tmp_path / "out", **options)
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


def test_training_without_the_kernel_is_said_once(tmp_path: Path, capsys: Any) -> None:
    messages.say_once.cache_clear()
    deep = "-".join(["3"] * (kernel.MAX_LAYERS + 1))
    for seed in (1, 2):
        e = small(model=deep, epochs=1)
        run(e, tmp_path, seed=seed, engine="auto", trials=1)
        assert run(e, tmp_path, seed=seed, engine="auto", trials=1).result["engine"] == "batched"
    said = [line for line in capsys.readouterr().err.splitlines() if "slower" in line]
    assert len(said) == 1
    assert f"it is not made for more than {kernel.MAX_LAYERS} layers" in said[0]
    run(small(epochs=1), tmp_path)  # asked for
    assert "slower" not in capsys.readouterr().err


# -- stopped and resumed --------------------------------------------------------------------------


def test_what_was_trained_before_counts_as_progress_and_not_as_speed(tmp_path: Path) -> None:
    spec, reports = begun(small(epochs=7), range(2), tmp_path), []
    stopped(spec, after=3)
    train_job(spec, spec.trials, lambda epochs, steps: reports.append((epochs, steps)))
    assert reports[0] == (6, 0)  # three epochs of two trials
    assert sum(epochs for epochs, _ in reports) == 14
    per_epoch = reports[1][1]
    assert sum(steps for _, steps in reports) == 4 * per_epoch > 0


def test_an_epoch_that_takes_long_tells_between_visits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN_REPORTS", 0.0)
    spec, reports = begun(small(epochs=2), range(2), tmp_path), []
    train_job(spec, spec.trials, lambda *more: reports.append(more))
    epochs, steps = (np.cumsum(column) for column in zip(*reports, strict=True))
    assert len(reports) > 2 * 2  # on the way, too
    assert epochs[-1] == pytest.approx(2 * 2)
    np.testing.assert_allclose(epochs / epochs[-1], steps / steps[-1])


@pytest.mark.parametrize("optimiser", ["adam", "adam-per-batch"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stopped_run_goes_on_with_the_same_bits(
    engine: str, optimiser: str, tmp_path: Path
) -> None:
    e = small(
        epochs=7, optimiser=optimiser, operator="variance", schedule="fixed", probability=0.5,
        pruned_weights="masked", statistics_window="since-prune",
    )  # fmt: skip
    whole = run(e, tmp_path / "whole", engine=engine)
    spec = begun(e, range(2), tmp_path / "parts", engine=engine)
    stopped(spec, after=2)
    path = checkpoints.path_of(spec.folder, range(2))
    assert {p.name for p in spec.folder.iterdir()} == {"config.json", path.name}
    state, *_ = checkpoints.load(path, e, range(0, 2), 1, "cpu")
    assert state.epoch == 1
    stopped(spec, after=3)  # one comes at once: what the checkpoint holds
    assert checkpoints.load(path, e, range(0, 2), 1, "cpu")[0].epoch == 3
    resumed = run(e, tmp_path / "parts", engine=engine)
    assert {p.name for p in resumed.folder.iterdir()} == FILES
    assert_same_bits(whole.history, resumed.history)
    timing = ("seconds", "model_steps_per_second", "sha256")
    one, other = ({k: v for k, v in r.result.items() if k not in timing} for r in (whole, resumed))
    assert one == other
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_a_checkpoint_holds_all_of_a_state(tmp_path: Path) -> None:
    e = small(optimiser="adam", pruned_weights="masked", epochs=6)
    spec = begun(e, range(2), tmp_path)
    stopped(spec, after=4)
    loaded, history, _ = checkpoints.load(
        checkpoints.path_of(spec.folder, range(2)), e, range(0, 2), 1, "cpu"
    )
    running = evoae.evolve(e, 2, engine=ENGINES[-1])
    for _ in range(4):
        expected = next(running)
    for mine, theirs in zip(loaded.population.sides, expected.population.sides, strict=True):
        assert mine.tensors.keys() == theirs.tensors.keys()
        for name, tensor in mine.tensors.items():
            assert torch.equal(tensor, theirs.tensors[name]), name
    assert np.array_equal(loaded.learning_rate, expected.learning_rate)
    assert (loaded.epoch, loaded.model_steps) == (expected.epoch, expected.model_steps)
    assert weights_of(loaded).shape[0] == 8
    assert sum(len(part["trial"]) for part in history) == 4 * 8


def test_checkpoints_are_written_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def save(path: Path, state: State, history: list[dict], seconds: float) -> dict:
        saved.append(state)
        return {key: np.concatenate([rows[key] for rows in history]) for key in history[0]}

    monkeypatch.setattr(checkpoints, "save", save)
    spec = begun(small(), range(1), tmp_path)
    train_job(spec, spec.trials)
    assert len(saved) == 1  # the last
    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0)
    train_job(spec, spec.trials)
    assert len(saved) == 1 + 4


def test_blocks_cover_every_trial_once_and_keep_what_checkpoints_hold(tmp_path: Path) -> None:
    spec = begun(small(), range(2, 12), tmp_path)
    asked = spec.trials
    assert spec.jobs(asked, 1) == [range(2, 12)]
    assert spec.jobs(asked, 3) == [range(2, 6), range(6, 9), range(9, 12)]
    assert spec.jobs([2, 3, 5], 1) == [range(2, 4), range(5, 6)]
    assert len(spec.jobs(asked, 100)) == 10
    checkpoints.path_of(spec.folder, range(4, 6)).touch()
    for parts in (1, 2, 3, 20):
        blocks = spec.jobs(asked, parts)
        assert range(4, 6) in blocks
        assert [trial for block in blocks for trial in block] == list(range(2, 12))


def test_files_are_written_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")

    def fail_halfway() -> None:
        with files.whole(tmp_path / "a.json") as part:
            part.write_text("half")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupt_leaves_a_checkpoint_and_the_same_call_goes_on(tmp_path: Path) -> None:
    e = small(epochs=6)
    whole = run(e, tmp_path / "whole")
    seen, original = [], study.Progress.__call__

    def call(self: study.Progress, epochs: int, steps: int) -> None:
        seen.append(epochs)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        original(self, epochs, steps)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.Progress, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            run(e, tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is handler
    (folder,) = (tmp_path / "parts").iterdir()
    assert not (folder / "result.json").exists()
    path = folder / "checkpoint-0-2.safetensors"
    assert checkpoints.load(path, e, range(2), 1, "cpu")[0].epoch == 2
    assert_same_bits(whole.history, run(e, tmp_path / "parts").history)


# A process of its own, to be killed once it has saved something.
KILLED = """
    import os, signal, threading, time
    from pathlib import Path

    from evoae import Experiment, run

    def watch():
        while not list(Path({out!r}).glob("*/checkpoint-*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    run(Experiment(**{settings}), 2, 1, out={out!r}, workers={workers}, engine={engine!r},
        progress=False)
"""


def processes_of(script: Path) -> list[int]:
    """Processes, of any parent, that run the script."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            environment = (entry / "environ").read_bytes() if line else b""
        except OSError:
            continue
        if str(script).encode() in line + environment:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize(("workers", "engine"), [(1, "batched"), (2, ENGINES[-1])])
def test_a_killed_run_goes_on_with_the_same_bits(workers: int, engine: str, tmp_path: Path) -> None:
    e = Experiment.preset(
        "lipi-ae-s", **TINY | {"cells": 4, "operator": "random", "epochs": 40, "optimiser": "adam"}
    )
    out, script = tmp_path / "out", tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent(KILLED).format(
            settings=e.settings(), out=str(out), workers=workers, engine=engine
        )
    )
    environment = os.environ | {"EVOAE_TEST": str(script), "EVOAE_CHECKPOINT_SECONDS": "0"}
    child = subprocess.run([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 300  # however busy the machine is
    while (left := processes_of(script)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert not left, "workers outlived their parent"
    (folder,) = out.iterdir()
    assert list(folder.glob("checkpoint-*"))
    assert not (folder / "result.json").exists()
    resumed = run(e, out, engine=engine)
    whole = run(e, tmp_path / "whole", engine=engine)
    assert_same_bits(whole.history, resumed.history)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert {path.name for path in resumed.folder.iterdir()} == FILES


def test_saved_weights_go_to_trials_by_their_number(tmp_path) -> None:
    """Whatever other trials run beside a trial, it starts from the same networks."""
    many = initial(tiny(), range(4), 1, "cpu", "batched").population
    path = tmp_path / "four.safetensors"
    population.save(many, path)
    e = tiny(initial_weights=str(path))
    together = initial(e, range(4), 1, "cpu", "batched").population.encoder.weights
    apart = initial(e, range(2, 4), 1, "cpu", "batched").population.encoder.weights
    assert torch.equal(together[2:], apart)
    assert torch.equal(together, many.encoder.weights)
