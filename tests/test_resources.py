"""What a process may use: memory, processors, and a cache that is found again."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from evoae import resources
from evoae.messages import Refused


def test_no_more_than_the_machine_has() -> None:
    assert 0 < resources.available_memory() <= psutil.virtual_memory().total


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict], None]:
    """Puts this process into control groups that are made of files."""
    monkeypatch.setattr(resources, "CGROUPS", str(tmp_path / "sys"))
    monkeypatch.setattr(resources, "MEMBERSHIP", str(tmp_path / "cgroup"))
    for name in resources.GRANTS:
        monkeypatch.delenv(name, raising=False)

    def make(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return make


@pytest.mark.parametrize(
    ("membership", "root", "limit", "used"),
    [
        ("0::/job/step\n", "", "memory.max", "memory.current"),
        (
            "7:blkio:/\n4:memory:/job/step\n",
            "memory/",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
    ],
)
def test_the_tightest_group_above_the_process_counts(
    membership: str, root: str, limit: str, used: str, groups: Callable
) -> None:
    files = {}
    for folder, *values in (("job", "5000", "3000", 500), ("job/step", "max", "10", 0)):
        files |= {
            f"{root}{folder}/{limit}": values[0],
            f"{root}{folder}/{used}": values[1],
            f"{root}{folder}/memory.stat": f"anon 7\ninactive_file {values[2]}",
        }
    groups(membership, files)
    assert list(resources.granted_memory()) == [2500]
    assert resources.available_memory() == 2500
    groups("", {})
    assert list(resources.granted_memory()) == []


# -- processors -----------------------------------------------------------------------------------


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 processors, all of which the process may run on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "cpu.max": "500000 100000"}, 4),
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpuset:/\n", {"cpu.max": "100000 100000"}, 8),
        ("0::/\n", {"cpu.max": "no numbers"}, 8),
    ],
)
def test_the_quotas_of_control_groups_count(
    membership: str, files: dict[str, str], expected: int, groups: Callable
) -> None:
    groups(membership, files)
    assert resources.available_cpus() == expected


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "6"}, 3),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"PBS_NUM_PPN": "4"}, 4),
        ({"NCPUS": " 4 "}, 4),
        ({"NSLOTS": "2"}, 2),
        ({"LSB_DJOB_NUMPROC": "64"}, 8),
        ({"LOKY_MAX_CPU_COUNT": "1"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 8),
        *(({"SLURM_CPUS_PER_TASK": wrong}, 8) for wrong in ("", "0", "-1", "4(x2)", "2.5", "many")),
    ],
)
def test_what_a_scheduler_grants_counts(
    variables: dict[str, str], expected: int, groups: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups("", {})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert resources.available_cpus() == expected


def test_the_processors_that_a_process_is_bound_to_count(
    groups: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups("", {})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 9}, raising=False)
    assert resources.available_cpus() == 2
    if sys.version_info < (3, 13):  # where nothing is known of it, as on macOS
        monkeypatch.delattr(os, "sched_getaffinity")
        assert resources.available_cpus() == 64


# -- memory ---------------------------------------------------------------------------------------


def test_the_process_s_own_limit_counts() -> None:
    code = "from evoae.resources import available_memory; print(available_memory())"
    limit = 3 << 30
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert 0 < int(found.stdout) < limit


def test_the_refusal_names_what_is_needed_and_what_is_available(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 3 << 30)
    resources.require(3 << 30, "its values")
    with pytest.raises(Refused) as caught:
        resources.require(5 << 40, "its values")
    assert str(caught.value) == "its values need 5,120.0 GiB of memory, and 3.0 GiB are available"
    with pytest.raises(Refused, match="GiB"):
        resources.require(10**5000, "its values")


# -- cache ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return resources.cache_directory()


def aged(entry: Path, days: float) -> Path:
    """The entry, last used so many days ago."""
    then = time.time() - days * 24 * 3600
    os.utime(entry, (then, then))
    return entry


def test_what_was_not_used_for_a_month_goes(folder: Path) -> None:
    for name in ("old", "recent"):
        (folder / f"{name}.so").touch()
        (folder / f"data-{name}").mkdir()
        (folder / f"data-{name}" / "train.npy").touch()
        for entry in (folder / f"{name}.so", folder / f"data-{name}"):
            aged(entry, resources.DAYS + (1 if name == "old" else -1))
    resources.tidy_cache()
    assert sorted(entry.name for entry in folder.iterdir()) == ["data-recent", "recent.so"]


def test_use_keeps_an_entry(folder: Path) -> None:
    (folder / "kernel.so").touch()
    entry = aged(folder / "kernel.so", 2 * resources.DAYS)
    assert resources.cached(entry)
    resources.tidy_cache()
    assert entry.exists()
    assert not resources.cached(folder / "another")
    assert not (folder / "another").exists()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, where the user's cache cannot be written."""
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_the_cache_lies_where_the_user_s_caches_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert resources.cache_directory() == tmp_path / "caches" / "evoae"
    for unset in (None, ""):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if unset is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert resources.cache_directory() == tmp_path / "home" / ".cache" / "evoae"


def test_without_one_all_processes_share_a_folder_of_the_user_s_own(temporary: Path) -> None:
    found = resources.cache_directory()
    assert found.parent == temporary
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    (found / "kernel.so").touch()
    resources._usable.cache_clear()  # as in another process
    assert resources.cache_directory() == found
    assert [path.name for path in temporary.iterdir()] == [f"evoae-{os.getuid()}"]


def test_a_home_that_is_unknown_makes_no_folder_of_that_name(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)  # for whom there is no entry
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="of this user alone"):  # who is not its owner either
        resources.cache_directory()
    assert not (tmp_path / "~").exists()


def open_to_others(own: Path) -> None:
    own.mkdir()
    own.chmod(0o777)


@pytest.mark.parametrize(
    "squat", [open_to_others, Path.touch, lambda own: own.symlink_to(own.parent)]
)
def test_a_folder_that_others_may_write_to_is_not_trusted(
    squat: Callable[[Path], None], temporary: Path
) -> None:
    squat(temporary / f"evoae-{os.getuid()}")
    with pytest.raises(OSError, match=r"cannot be written to.*; set XDG_CACHE_HOME to a folder"):
        resources.cache_directory()


def test_the_folder_of_another_user_is_not_trusted(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources.cache_directory()
    user = os.getuid()
    (temporary / f"evoae-{user}").rename(temporary / f"evoae-{user + 1}")
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    resources._usable.cache_clear()
    with pytest.raises(OSError, match="not a folder of this user alone"):
        resources.cache_directory()


def test_a_notebook_in_its_folder_works_from_the_root(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/explore.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path / "notebooks")
    resources.to_root()
    assert Path.cwd() == tmp_path / "notebooks"  # nobody is there: papermill was called here
    monkeypatch.setattr(resources, "attended", lambda: True)
    for _ in range(2):  # the cell may be run again
        resources.to_root()
        assert Path.cwd() == tmp_path


def test_without_a_kernel_nobody_is_there():
    assert resources.attended() is False
