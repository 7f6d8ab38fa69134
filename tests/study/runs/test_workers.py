"""Where runs are computed and read: moved folders, other users, other systems, other processes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import FILES, assert_same_bits, tiny

import evoae
from evoae import Run, messages
from evoae.cli import main
from evoae.study.runs import files, locks, sweeps
from evoae.study.runs.study import collect

WORDS = "run canonical clusters=2 bits=12 examples=4 model=5-3 epochs=2 --workers 1".split()


def run(out: Path | str, trials: int = 1, workers: int | None = 1, **settings: Any) -> Run:
    return evoae.run(tiny(**settings), trials, out=out, workers=workers, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("finished"), 2)


# -- moved ----------------------------------------------------------------------------------------


def read_all(found: Run) -> tuple[Any, ...]:
    return found.history, found.population, found.result, found.trials, found.best(0)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree, lambda a, b: os.symlink(a, b)])
def test_a_run_is_read_under_any_name_and_anywhere(
    how: Callable, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.folder, tmp_path / "out" / finished.folder.name)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    how(tmp_path / "out" / finished.folder.name, tmp_path / "deep" / "er" / "my best run")
    monkeypatch.chdir(tmp_path / "deep")
    found = Run("er/my best run")
    monkeypatch.chdir(tmp_path)  # what is read below is read only now
    found.check()
    assert_same_bits(read_all(found)[0], finished.history)
    if not found.folder.is_symlink():
        assert list(collect("deep").runs) == ["my best run"]


def test_a_run_below_the_home_directory(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = run("~/runs")
    assert found.folder.parent == tmp_path / "runs"
    assert_same_bits(Run(f"~/runs/{found.folder.name}").history, found.history)
    assert len(collect("~/runs").runs) == 1


def test_a_run_that_is_moved_after_it_was_opened_is_not_called_damaged(
    finished: Run, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "here")
    found = Run(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(ValueError, match=r"is not there.*was its folder moved") as caught:
        _ = found.history
    assert "damaged" not in str(caught.value)
    (tmp_path / "there").rename(tmp_path / "here")
    (tmp_path / "here" / "history.parquet").unlink()
    with pytest.raises(ValueError, match=r"history\.parquet: is not there"):
        _ = found.history


# -- permissions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*sorted(FILES), "."])
def test_what_cannot_be_read_is_called_that(name: str, finished: Run) -> None:
    folder = Path(tempfile.mkdtemp())
    copy = folder / finished.folder.name
    shutil.copytree(finished.folder, copy)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534", str(folder)], check=True)
        os.seteuid(65534)
    try:
        (copy / name).chmod(0)
        with pytest.raises(ValueError, match="cannot be read \\(Permission denied\\)") as caught:
            read_all(Run(copy))
        assert "damaged" not in str(caught.value)
        assert "move" not in str(caught.value)
        with pytest.raises(ValueError, match="Permission denied"):
            run(folder, 2)
        with (
            pytest.warns(UserWarning, match="left out: .*Permission denied"),
            pytest.raises(ValueError, match="holds no finished runs"),
        ):
            collect(folder)
    finally:
        (copy / name).chmod(0o755)
        if os.geteuid() != os.getuid():
            os.seteuid(os.getuid())
        shutil.rmtree(folder)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_files_and_folders_have_the_rights_that_the_umask_leaves(
    umask: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        folder = run(tmp_path / "out").folder
    finally:
        os.umask(before)
    for path in (folder.parent, folder, *folder.iterdir()):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_lock_is_open_to_whoever_reaches_its_folder(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = locks.Lock(tmp_path / ".lock")
        assert lock.acquire(wait=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o666
    lock.release()


# Two users, each a fork with an identity of its own; the folder is the group's.
def as_user(user: int, group: int, umask: int, work: Callable[[], None]) -> int:
    """A process of the user; it ends with 0 if all goes well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            os.umask(umask)
            work()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(code)
    return child


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
@pytest.mark.parametrize("umask", [0o002, 0o022])
def test_a_second_user_waits_for_the_first_and_finds_the_run(umask: int) -> None:
    experiment = tiny(cells=1)
    out = Path(tempfile.mkdtemp())
    os.chown(out, -1, 4321)
    out.chmod(0o2775)

    def first() -> None:
        original = sweeps.finish

        def slow(*arguments: Any) -> Any:
            (out / "working").touch()
            while not (out / "go").exists():
                time.sleep(0.02)
            return original(*arguments)

        sweeps.finish = slow
        evoae.run(experiment, 1, out=out, workers=1, engine="batched", progress=False)

    def second() -> None:
        found = evoae.run(experiment, 1, out=out, workers=1, engine="batched", progress=False)
        assert len(found.history) > 0

    def third() -> None:  # more trials than there are
        evoae.run(experiment, 2, out=out, workers=1, engine="batched", progress=False)

    try:
        one = as_user(1001, 4321, umask, first)
        while not (out / "working").exists():
            time.sleep(0.02)
        other = as_user(1002, 4321, umask, second)
        time.sleep(0.5)
        assert os.waitpid(other, os.WNOHANG) == (0, 0)  # it waits
        (out / "go").touch()
        assert code_of(one) == 0
        assert code_of(other) == 0
        (folder,) = (path for path in out.iterdir() if path.is_dir())
        assert {path.name for path in folder.iterdir()} == FILES
        assert code_of(as_user(1002, 4321, umask, third)) == (0 if umask == 0o002 else 1)
    finally:
        shutil.rmtree(out)


# -- file systems without locks -------------------------------------------------------------------


@pytest.fixture
def flock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the system refuse every lock, with an error's number."""
    import fcntl

    messages.say_once.cache_clear()

    def refuse(number: int) -> None:
        def call(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", call)

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_files_stand_for_them(
    number: int, flock: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flock(number)
    one, other = (locks.Lock(tmp_path / "run" / ".lock") for _ in range(2))
    (tmp_path / "run").mkdir()
    assert one.acquire(wait=False)
    assert not other.acquire(wait=False)
    waiting = threading.Thread(target=other.acquire, args=(True,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    one.release()
    waiting.join(10)
    other.release()
    assert not list((tmp_path / "run").iterdir())
    assert main([*WORDS, "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in next((tmp_path / "out").iterdir()).iterdir()} == FILES
    said = [line for line in capsys.readouterr().err.splitlines() if "has no locks" in line]
    assert len(said) == 2  # once for each of the two folders


def test_where_the_lock_service_is_down_the_folder_and_the_cure_are_named(
    flock: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flock(errno.ENOLCK)
    assert main([*WORDS, "--out", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text
    (line,) = [line for line in text.replace("\r", "\n").splitlines() if "evoae:" in line]
    assert "choose a folder on another file system" in line + text
    assert str(tmp_path / "out") in text


# -- systems that lack what Unix has --------------------------------------------------------------

BARE = """
    import os, sys

    for name in ("fcntl", "resource", "grp", "termios"):
        sys.modules[name] = None
    for name in ("fork", "forkpty", "getuid", "getppid", "sched_getaffinity", "umask"):
        if hasattr(os, name):
            delattr(os, name)

    import evoae
    from evoae.cli import main

    words = "run lipi-ae-s cells=3 clusters=2 bits=12 examples=4 model=5-3 epochs=2".split()
    sys.exit(main([*words, "--trials", "2", "--workers", "1", "--out", sys.argv[1]]))
"""


def test_what_only_unix_has_is_not_needed_with_one_worker(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BARE), str(tmp_path / "out")],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == FILES
    again = evoae.run(
        tiny("lipi-ae-s", cells=3, epochs=2), 1, out=tmp_path / "here", progress=False
    )
    assert json.loads((folder / "config.json").read_text())["seed"] == again.config["seed"]


def test_a_file_that_windows_does_not_give_up_at_once_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, refusals = os.replace, [5, 32]

    def busy(source: Any, target: Any) -> None:
        if refusals:
            error = PermissionError(errno.EACCES, "The process cannot access the file")
            error.winerror = refusals.pop()
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    with files.whole(tmp_path / "a") as part:
        part.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    monkeypatch.setattr(files, "PATIENCE", -1.0)
    refusals.append(5)
    with pytest.raises(PermissionError), files.whole(tmp_path / "a") as part:
        part.write_text("newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# -- processes that may not have children ---------------------------------------------------------


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_a_daemonic_process_trains_by_itself(
    workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As those of multiprocessing.Pool and of Dask are."""
    messages.say_once.cache_clear()
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    monkeypatch.setattr(sweeps, "START", 0.0)
    found = run(tmp_path, 3, workers=workers)
    assert found.numbers == [0, 1, 2]
    said = capsys.readouterr().err
    assert (f"workers={workers}: using one" in said) == (workers == 3)


def test_a_worker_of_another_program_starts_no_others_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeps, "available_cpus", lambda: 8)
    assert sweeps.default_workers([], here=False) == 8
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert sweeps.default_workers([], here=True) == 1
    assert sweeps.default_workers([], here=False) == 8


POOL = """
    import multiprocessing
    from evoae import Experiment, run

    def work(seed):
        e = Experiment.preset("canonical", clusters=2, bits=12, examples=4, epochs=2)
        return run(e, 2, seed, workers=2, progress=False).numbers

    if __name__ == "__main__":
        work(9)
        with multiprocessing.get_context("{how}").Pool(1) as pool:
            print("found", pool.map(work, [1]))
"""


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_run_in_a_pool(how: str, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(textwrap.dedent(POOL).format(how=how))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "found [[0, 1]]\n", done.stderr


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.campaign)])
def test_runs_in_threads(workers: int, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        each = pool.map(lambda epochs: run(tmp_path, 2, workers=workers, epochs=epochs), [2, 3])
        assert [found.numbers for found in each] == [[0, 1], [0, 1]]


def test_python_m_evoae_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evoae", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"evoae {evoae.__version__}\n"
