"""A run grows: by more trials, by several processes at once, and whenever one of them is killed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, FILES, assert_same_bits, begun, bytes_of, stopped, tiny, weights_of

import evoae
from evoae import Experiment, Run
from evoae.cli import main
from evoae.evolution.cells import initial
from evoae.study.runs import checkpoints, claims, jobs, locks, merge, workers
from evoae.study.runs.jobs import RunSpec, train_job
from evoae.study.runs.study import collect


def small(**settings: Any) -> Experiment:
    return tiny("lipi-ae-s", **({"cells": 3, "operator": "random", "epochs": 3} | settings))


def run(trials: int | range, out: Path, experiment: Experiment | None = None) -> Run:
    e = experiment or small()
    return evoae.run(e, trials, out=out, workers=1, engine="batched", progress=False)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight trials, computed at once."""
    return run(8, tmp_path_factory.mktemp("eight"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trials that are trained from here on."""
    trained: list[int] = []

    def noted(spec: RunSpec, block: range, *rest: Any) -> Any:
        trained.extend(block)
        return train_job(spec, block, *rest)

    monkeypatch.setattr(workers, "train_job", noted)
    return trained


# -- more trials ----------------------------------------------------------------------------------


def test_more_trials_are_added_with_the_bits_of_all_at_once(
    eight: Run, computed: list[int], tmp_path: Path
) -> None:
    first = run(4, tmp_path)
    before = bytes_of(first.folder)
    grown = run(8, tmp_path)
    assert computed == list(range(8))
    assert grown.folder == first.folder
    assert {path.name for path in grown.folder.iterdir()} == FILES
    assert grown.result["model_steps"] == 2 * first.result["model_steps"]
    assert grown.result["seconds"] > first.result["seconds"]
    assert bytes_of(grown.folder) == bytes_of(eight.folder)
    assert bytes_of(grown.folder)["config.json"] == before["config.json"]
    assert grown.result["trials"] == eight.result["trials"]
    assert grown.result["mean"] == eight.result["mean"]


def test_slices_in_any_order_land_in_the_same_run(eight: Run, tmp_path: Path) -> None:
    for trials in (range(5, 7), range(1), range(7, 8), range(1, 5)):
        found = run(trials, tmp_path)
        assert found.numbers == list(trials)
    assert len(list(tmp_path.iterdir())) == 1
    assert bytes_of(found.folder) == bytes_of(eight.folder)


def test_fewer_trials_than_there_are_compute_nothing(eight: Run, computed: list[int]) -> None:
    before = {path: path.stat().st_mtime_ns for path in eight.folder.iterdir()}
    part = run(range(2, 5), eight.folder.parent)
    assert computed == []
    assert {path: path.stat().st_mtime_ns for path in eight.folder.iterdir()} == before
    assert part.numbers == [2, 3, 4]
    assert sorted(part.history.trial.unique()) == [2, 3, 4]
    assert list(part.trials.trial) == [2, 3, 4]
    expected = np.mean([row["train_l1"] for row in eight.result["trials"][2:5]])
    assert part.result["mean"]["train_l1"] == expected != eight.result["mean"]["train_l1"]
    assert len(part.population) == 3 * 3
    for trial in (2, 4):
        for mine, theirs in zip(part.best(trial), eight.best(trial), strict=True):
            for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
                assert torch.equal(one, other)
    with pytest.raises(ValueError, match="trial 5 is not in this run; it holds 2 to 4"):
        part.index(5)


def test_trials_may_have_gaps(eight: Run, tmp_path: Path) -> None:
    run(range(0, 2), tmp_path)
    run(range(6, 8), tmp_path)
    (folder,) = tmp_path.iterdir()
    found = Run(folder)
    assert found.numbers == [0, 1, 6, 7]
    assert found.index(6, 1) == 2 * 3 + 1
    expected = eight.history[eight.history.trial.isin(found.numbers)]
    assert_same_bits(found.history, expected)
    assert torch.equal(weights_of(found), weights_of(eight)[[0, 1, 2, 3, 4, 5, *range(18, 24)]])
    with pytest.raises(ValueError, match="trial 3 is not in this run; it holds 0 to 1, 6 to 7"):
        found.index(3)
    with pytest.raises(ValueError, match="holds no trial 4; it holds 0 to 1, 6 to 7"):
        Run(folder, [1, 4])


def test_the_command_line_adds_trials_and_tells_means_over_those_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = "run canonical clusters=2 bits=12 examples=4 model=5-3 epochs=3 --workers 1".split()
    printed = []
    for trials in ("2", "5", "2", "3:5"):
        assert main([*words, "--trials", trials, "--out", str(tmp_path)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] != printed[1]
    means = [[line for line in text.splitlines() if "l1" in line] for text in printed]
    assert means[0] == means[2]
    assert means[0] != means[3]
    assert "means over 2 trials" in printed[3]
    assert printed[0].startswith(
        "data: 8 rows of 12 columns to train on, 16 for validation and test;"
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_keeps_the_preset_that_it_was_first_made_of(tmp_path: Path) -> None:
    of_preset = tiny(rate_policy="constant")
    assert run(1, tmp_path, of_preset).algorithm == "canonical"
    by_hand = Experiment(**of_preset.settings())
    assert by_hand == of_preset
    assert by_hand.preset_name is None
    assert run(2, tmp_path, by_hand).config["preset"] == "canonical"
    assert run(1, tmp_path / "hand", by_hand).config["preset"] is None
    assert of_preset.replace(epochs=2).preset_name == "canonical"
    assert run(1, tmp_path, small(cells=1)).algorithm == "one cell"


# -- several processes ----------------------------------------------------------------------------


def test_two_slices_at_once(eight: Run, computed: list[int], tmp_path: Path) -> None:
    both, slices = threading.Barrier(2), [range(0, 5), range(3, 8)]

    def work(trials: range) -> list[int]:
        both.wait()
        return run(trials, tmp_path).numbers

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, slices)) == [list(trials) for trials in slices]
    assert sorted(computed) == list(range(8))  # none of them twice
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == FILES
    assert bytes_of(folder) == bytes_of(eight.folder)


def test_trials_that_another_process_computes_are_waited_for(tmp_path: Path) -> None:
    spec = RunSpec(small(), 1, 0, 4, tmp_path, engine="batched")
    with claims.claimed([spec], 1, {}) as mine:
        assert [trials for _, trials in mine] == [[0, 1, 2, 3]]
        more = RunSpec(small(), 1, 2, 6, tmp_path, engine="batched")
        with claims.claimed([more], 1, {}) as theirs:
            assert [trials for _, trials in theirs] == [[4, 5]]
        waiting = threading.Thread(target=run, args=(range(2, 6), tmp_path))
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        *_, rows = train_job(spec, spec.trials)
        jobs.finish(spec, [spec.trials], 1.0, rows)
    waiting.join(60)
    (folder,) = tmp_path.iterdir()
    assert Run(folder).numbers == [0, 1, 2, 3, 4, 5]
    assert {path.name for path in folder.iterdir()} == FILES


def test_a_lock_is_free_when_its_holder_is_gone_and_leaves_no_file(tmp_path: Path) -> None:
    first, second = locks.Lock(tmp_path / "a"), locks.Lock(tmp_path / "a")
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    order: list[str] = []

    def wait() -> None:
        second.acquire(wait=True)
        order.append("second")
        second.release()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.2)
    order.append("first")
    first.release()
    thread.join(10)
    assert order == ["first", "second"]
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").touch()  # of a process that was killed
    assert first.acquire(wait=False)
    first.release()
    assert not list(tmp_path.iterdir())


# -- checkpoints ----------------------------------------------------------------------------------


def test_some_trials_of_a_checkpoint_go_on_alone(
    eight: Run, computed: list[int], tmp_path: Path
) -> None:
    """Eight trials were stopped; three of them are asked for, and then the others."""
    spec = begun(small(), range(8), tmp_path, engine="batched")
    stopped(spec)
    steps: list[int] = []
    original = jobs.history_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "history_rows", lambda s: steps.append(s.epoch) or original(s))
        some = run(range(2, 5), tmp_path)
        assert steps == [1, 2]  # the first epoch was done before
        assert checkpoints.found_in(spec.folder) == [range(8)]
        run(8, tmp_path)
    assert sorted(computed) == list(range(8))
    assert some.result["trials"] == eight.result["trials"][2:5]
    assert bytes_of(spec.folder) == bytes_of(eight.folder)
    assert Run(spec.folder).result["model_steps"] == eight.result["model_steps"]
    assert {path.name for path in spec.folder.iterdir()} == FILES


def test_a_finished_checkpoint_of_more_trials_than_are_asked_for(
    tmp_path: Path, eight: Run
) -> None:
    spec = begun(small(), range(8), tmp_path, engine="batched")
    train_job(spec, spec.trials)  # killed before its trials were added
    part = run(range(3, 5), tmp_path)
    assert part.result["trials"] == eight.result["trials"][3:5]
    assert bytes_of(run(8, tmp_path).folder) == bytes_of(eight.folder)


@pytest.mark.parametrize(("seed", "trials"), [(9, range(0, 2)), (1, range(2, 4))])
def test_the_checkpoint_of_another_run_is_refused(seed: int, trials: range, tmp_path: Path) -> None:
    other = begun(small(), trials, tmp_path, seed, engine="batched")
    mine = begun(small(), range(2), tmp_path, engine="batched")
    train_job(other, trials)
    source = checkpoints.path_of(other.folder, trials)
    target = checkpoints.path_of(mine.folder, range(0, 2))
    shutil.copy(source, target)
    with pytest.raises(ValueError, match=f"{target}: a checkpoint of another run; remove it"):
        run(2, tmp_path)
    target.unlink()
    assert run(2, tmp_path).numbers == [0, 1]


@pytest.mark.skipif(len(ENGINES) == 1, reason="no kernel here")
def test_a_checkpoint_of_another_engine_is_not_passed_off(tmp_path: Path) -> None:
    spec = begun(small(), range(2), tmp_path, engine="fused")
    train_job(spec, spec.trials)
    with pytest.raises(ValueError, match="begun by engine fused, not batched"):
        run(2, tmp_path)


# -- never half of a merge ------------------------------------------------------------------------


def moments(folder: Path, keep: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of a run's folder as it was before each change of a name in it: what a process that
    was killed there would leave behind.
    """
    copies: list[Path] = []

    def before(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if Path(args[0]).parent == folder and folder.exists():
                copies.append(keep / str(len(copies)) / folder.name)
                shutil.copytree(folder, copies[-1])
            return original(*args, **options)

        return call

    monkeypatch.setattr(os, "replace", before(os.replace))
    monkeypatch.setattr(Path, "unlink", before(Path.unlink))
    return copies


@pytest.mark.parametrize("grown", [False, True])
def test_at_every_moment_of_a_merge_a_reader_sees_all_of_it_or_nothing(
    grown: bool, eight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if grown:
        run(4, out)
    folder = out / eight.folder.name
    with monkeypatch.context() as patch:
        copies = moments(folder, tmp_path / "moments", patch)
        run(8, out)
    seen = []
    for copy in copies:
        if not (copy / "result.json").exists():
            with pytest.raises(ValueError, match="not a finished run"):
                Run(copy)
            seen.append(0)
            continue
        found = Run(copy)
        found.check()
        seen.append(len(found.numbers))
        expected = eight.history[eight.history.trial.isin(found.numbers)]
        assert_same_bits(found.history, expected)
        count = len(found.numbers) * 3
        assert torch.equal(weights_of(found), weights_of(eight)[:count])
    assert seen == sorted(seen)
    assert set(seen) == {4 if grown else 0, 8}
    assert len(seen) > 8
    for copy in copies:  # and each of them goes on to the same end
        run(8, copy.parent)
        assert {path.name for path in copy.iterdir()} == FILES
        assert bytes_of(copy) == bytes_of(eight.folder)
        assert Run(copy).result["model_steps"] == eight.result["model_steps"]


def test_trials_that_are_there_are_not_added_again(eight: Run, tmp_path: Path) -> None:
    run(2, tmp_path)
    kept = merge.save_training(tmp_path, *trained(small(), 3, trials=3), seconds=2.0)
    assert kept.numbers == [0, 1, 2]
    assert kept.result["model_steps"] * 8 == eight.result["model_steps"] * 3
    assert_same_bits(kept.history, eight.history[eight.history.trial < 3])
    assert torch.equal(weights_of(kept), weights_of(eight)[: 3 * 3])


def test_a_file_replaced_while_it_is_read_is_read_again(
    eight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(1, tmp_path)
    (folder,) = tmp_path.iterdir()
    found, read, tries = Run(folder), pd.read_parquet, []

    def torn(path: Path) -> pd.DataFrame:
        tries.append(path)
        if len(tries) == 1:  # half of the old file, half of the new
            run(2, tmp_path)
            raise OSError("unexpected end of stream")
        return read(path)

    monkeypatch.setattr(pd, "read_parquet", torn)
    assert_same_bits(found.history, eight.history[eight.history.trial == 0])
    assert len(tries) > 1


def test_a_reader_of_a_growing_run_always_reads_it(eight: Run, tmp_path: Path) -> None:
    run(1, tmp_path)
    (folder,) = tmp_path.iterdir()
    early, failures, done = Run(folder), [], threading.Event()
    lengths: set[int] = set()

    def read() -> None:
        while not done.is_set():
            try:
                found = Run(folder)
                assert sorted(found.history.trial.unique()) == found.numbers
                assert len(found.population) == 3 * len(found.numbers)
                lengths.add(len(found.numbers))
            except (ValueError, AssertionError) as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for trials in range(2, 9):
        run(trials, tmp_path)
    done.set()
    for reader in readers:
        reader.join(60)
    assert not failures
    assert len(lengths) > 1
    assert early.numbers == [0]  # what was opened before is still read, as it was
    assert_same_bits(early.history, eight.history[eight.history.trial == 0])
    assert len(early.population) == 3


# -- files that were taken away -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_a_file_held_is_computed_again_once_it_is_moved_away(
    name: str, eight: Run, computed: list[int], tmp_path: Path
) -> None:
    folder = shutil.copytree(eight.folder, tmp_path / eight.folder.name)
    (folder / name).write_bytes(b"\0" + (folder / name).read_bytes()[1:])
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{folder / name}: .*move it away") as refused:
            run(8, tmp_path)
        assert "\n" not in str(refused.value)
    assert computed == []
    (folder / name).unlink()
    run(8, tmp_path)
    assert bytes_of(folder) == bytes_of(eight.folder)


def test_a_damaged_run_is_left_out_and_named(eight: Run, tmp_path: Path) -> None:
    good = run(2, tmp_path, small(amount=0.2))
    folder = shutil.copytree(eight.folder, tmp_path / eight.folder.name)
    with (folder / "history.parquet").open("r+b") as file:
        file.seek(400)
        file.write(bytes([file.read(1)[0] ^ 1]))
    with pytest.warns(UserWarning, match=rf"left out: {folder}/history\.parquet: damaged"):
        found = collect(tmp_path)
    assert [one.folder for one in found.runs.values()] == [good.folder]


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_file_without_its_digest_is_refused(name: str, eight: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(eight.folder, tmp_path / eight.folder.name)
    value = json.loads((folder / name).read_text())
    del value["sha256"]
    (folder / name).write_text(json.dumps(value))
    with pytest.raises(ValueError, match="holds no digest"):
        Run(folder)


# -- a training kept as a run ---------------------------------------------------------------------


def trained(e: Experiment, epochs: int, trials: int = 1, **change: Any) -> tuple[Any, list[dict]]:
    """The state after some epochs, settings changed after the first, and the history."""
    rows: list[dict] = []
    for state in evoae.evolve(e, trials, engine="batched"):
        rows.append(merge.history_rows(state))
        if len(rows) == epochs:
            break
        if len(rows) == 1 and change:
            state.change(**change)
    return state, rows


def test_a_training_as_it_was_asked_for_is_the_run_of_its_settings(
    eight: Run, computed: list[int], tmp_path: Path
) -> None:
    kept = merge.save_training(tmp_path, *trained(small(), 3), seconds=2.0)
    assert kept.folder.name == eight.folder.name
    assert kept.changes == []
    assert kept.result["trials"] == eight.result["trials"][:1]
    assert kept.result["seconds"] == 2.0
    assert bytes_of(run(8, tmp_path).folder) == bytes_of(eight.folder)
    assert computed == list(range(1, 8))
    merge.save_training(tmp_path, *trained(small(), 3), seconds=2.0)  # it is there
    assert bytes_of(kept.folder) == bytes_of(eight.folder)


def test_a_training_that_was_changed_and_stopped_is_a_run_of_its_own(tmp_path: Path) -> None:
    e = small(epochs=8)
    state, rows = trained(e, 3, operator="magnitude", amount=0.3)
    kept = merge.save_training(tmp_path, state, rows, seconds=1.0)
    assert state.experiment.epochs == 8
    assert kept.folder.name not in (e.hash(seed=1), kept.experiment.hash(seed=1))
    assert kept.changes == [
        [1, "operator", "random", "magnitude"],
        [1, "amount", 0.1, 0.3],
        [3, "epochs", 8, 3],
    ]
    assert (kept.setting("epochs"), kept.setting("operator")) == (3, "magnitude")
    assert kept.algorithm == "lipi-ae-s"
    pd.testing.assert_series_equal(kept.history.encoder_zeros, merge.history_of(rows).encoder_zeros)
    last = kept.history[kept.history.epoch == 2]
    assert last.train_l1.notna().all()
    assert kept.result["mean"]["train_l1"] == pytest.approx(last.train_l1.mean())
    encoder, decoder = kept.best(0)
    x = kept.data(0).train
    loss = (decoder(encoder(x)) - x).abs().mean().item()
    best = kept.result["trials"][0]["best_cell"]
    assert loss == pytest.approx(last.train_l1.iloc[best], abs=1e-6)
    assert list(collect(tmp_path).runs) == [kept.folder.name]


def test_nothing_is_kept_of_a_training_that_did_nothing(tmp_path: Path) -> None:
    state = initial(small(), [0], 1, "cpu", "batched")
    with pytest.raises(ValueError, match="no epoch is done"):
        merge.save_training(tmp_path / "new", state, [], 0.0)
    assert not (tmp_path / "new").exists()
