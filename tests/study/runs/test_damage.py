"""What can happen to files and processes: flipped bits, kills, full disks, folders that vanish.

Each has a small fixed part here; `pytest -m campaign` tries more of it, at random places.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import FILES, TINY, begun, bytes_of
from helpers import stopped as stop

import evoae
from evoae import Experiment, Run
from evoae.cli import main
from evoae.study.runs import jobs, locks, sweeps

SETTINGS = TINY | {"cells": 3, "operator": "random", "epochs": 3}
WORDS = ["run", "lipi-ae-s", *(f"{key}={value}" for key, value in SETTINGS.items())]
WORDS += ["--workers", "1", "--engine", "batched"]
CAMPAIGN = pytest.mark.campaign


def experiment() -> Experiment:
    return Experiment.preset("lipi-ae-s", **SETTINGS)


def command(out: Path, trials: int = 4) -> int:
    """The exit code of `evoae run`, in this process."""
    return main([*WORDS, "--trials", str(trials), "--out", str(out)])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line, beside progress bars, that was printed."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    (line,) = [line for line in text.replace("\r", "\n").splitlines() if line.startswith("evoae:")]
    return line


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of four trials."""
    out = tmp_path_factory.mktemp("four")
    assert command(out) == 0
    (folder,) = out.iterdir()
    return Run(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after an epoch: with a checkpoint."""
    spec = begun(experiment(), range(4), tmp_path_factory.mktemp("stopped"), engine="batched")
    stop(spec)
    return spec.folder


# -- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [6, pytest.param(100, marks=CAMPAIGN)])
@pytest.mark.parametrize("name", [*sorted(FILES), "checkpoint-0-4.safetensors"])
def test_a_damaged_file_is_refused_in_one_line(
    name: str, flips: int, four: Run, stopped: Path, tmp_path: Path, capsys: Any
) -> None:
    source = stopped if name.startswith("checkpoint") else four.folder
    folder = shutil.copytree(source, tmp_path / source.name)
    content, draw = (folder / name).read_bytes(), random.Random(f"{name} {flips}")
    damaged = [b"", content[: len(content) // 2], content[:-100], b"\x07noise" * 99]
    for _ in range(flips):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    for changed in damaged:
        (folder / name).write_bytes(changed)
        assert command(tmp_path) == 2, changed
        line = said(capsys)
        assert line.startswith(f"evoae: error: {folder / name}: ")
        assert "move it away" in line or "remove it" in line
        if source is four.folder:
            with pytest.raises(ValueError, match=str(folder / name)):
                Run(folder).check()
    (folder / name).write_bytes(content)
    assert command(tmp_path) == 0
    assert bytes_of(folder) == bytes_of(four.folder)


# -- kills ----------------------------------------------------------------------------------------

# Adds a trial at a time, and says when it is about to begin.
GROWING = """
    import sys
    from evoae import Experiment, run
    experiment = Experiment.preset("lipi-ae-s", **{settings})
    print("ready", flush=True)
    for trials in range(1, {most} + 1):
        run(experiment, trials, 1, out={out!r}, workers=1, engine="batched", progress=False)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=CAMPAIGN)])
def test_a_growing_run_that_is_killed_loses_and_repeats_nothing(kills: int, tmp_path: Path) -> None:
    out, draw, most = tmp_path / "out", random.Random(kills), 12 * kills
    environment = os.environ | {"EVOAE_CHECKPOINT_SECONDS": "0"}
    code = textwrap.dedent(GROWING).format(settings=SETTINGS, most=most, out=str(out))
    before: list[int] = []
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"ready\n"
        while not list(out.glob("*/result.json")):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.6))
        child.kill()
        child.wait()
        child.stdout.close()
        for result in out.glob("*/result.json"):
            found = Run(result.parent)
            found.check()
            assert set(before) <= set(found.numbers)
            assert sorted(found.history.trial.unique()) == found.numbers
            before = found.numbers
    grown = evoae.run(experiment(), most, out=out, workers=1, engine="batched", progress=False)
    whole = evoae.run(
        experiment(), most, out=tmp_path / "whole", workers=1, engine="batched", progress=False
    )
    assert [path.name for path in out.iterdir()] == [grown.folder.name]
    assert before
    assert bytes_of(grown.folder) == bytes_of(whole.folder)
    assert grown.result["trials"] == whole.result["trials"]
    assert grown.result["model_steps"] == whole.result["model_steps"]
    assert {path.name for path in grown.folder.iterdir()} == FILES


def test_a_process_that_is_killed_while_it_holds_the_locks_stops_nobody(
    four: Run, tmp_path: Path
) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from evoae.study.runs.locks import Lock
        for name in (".lock", ".trials-0-4.lock"):
            assert Lock(Path(sys.argv[1]) / name).acquire(wait=False)
        print("held", flush=True)
        time.sleep(60)
    """)
    folder = tmp_path / four.folder.name
    folder.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert not locks.Lock(folder / ".lock").acquire(wait=False)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert {path.name for path in folder.iterdir()} == {".lock", ".trials-0-4.lock"}
    assert command(tmp_path) == 0
    assert {path.name for path in folder.iterdir()} == FILES
    assert bytes_of(folder) == bytes_of(four.folder)


# -- folders --------------------------------------------------------------------------------------


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something after the first epoch."""
    done: list[int] = []

    def call(self: sweeps.Progress, epochs: int, steps: int) -> None:
        done.append(epochs)
        if len(done) == 1:
            act()

    monkeypatch.setattr(sweeps.Progress, "__call__", call)


def test_a_folder_that_is_removed_in_the_middle(
    four: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with monkeypatch.context() as patch:
        in_the_middle(patch, lambda: shutil.rmtree(tmp_path / four.folder.name))
        assert command(tmp_path) == 1
    assert "No such file or directory" in said(capsys)
    assert command(tmp_path) == 0
    assert bytes_of(tmp_path / four.folder.name) == bytes_of(four.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(["mount", *options], stderr=-3).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_folder_that_can_only_be_read_from_the_middle_on(
    four: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    disk = str(small_disk)

    def forbid_writing() -> None:  # by a second view of the disk over the first
        subprocess.run(["mount", "--bind", disk, disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)

    def allow_writing() -> None:
        subprocess.run(["umount", "-l", disk], check=True)

    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patch:
        in_the_middle(patch, forbid_writing)
        assert command(small_disk) == 1
    assert "Read-only file system" in said(capsys)
    assert command(small_disk) == 1
    assert "Read-only file system" in said(capsys)
    allow_writing()
    assert command(small_disk) == 0
    forbid_writing()
    assert command(small_disk) == 0  # a finished run is only read
    assert bytes_of(small_disk / four.folder.name) == bytes_of(four.folder)
    allow_writing()


@pytest.mark.parametrize("pages", [5, pytest.param(1, marks=CAMPAIGN)])
def test_a_full_disk_is_said_in_one_line_and_the_same_command_resumes(
    pages: int, four: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Tried with every amount of free space up to what is needed, in steps of some pages."""
    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0)
    free, codes = 0, []
    while not codes or codes[-1] != 0:
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            file.write(bytes(max(0, room - free)))
        codes.append(command(small_disk))
        if codes[-1]:
            assert "No space left on device" in said(capsys) or codes[-1] == 2
        ballast.unlink()
        assert command(small_disk) == 0
        capsys.readouterr()
        (folder,) = small_disk.iterdir()
        assert {path.name for path in folder.iterdir()} == FILES
        assert bytes_of(folder) == bytes_of(four.folder)
        shutil.rmtree(folder)
        free += pages * 4096
    assert set(codes) == {1, 0}
    assert codes.count(1) > 1
