"""What this process may use: memory, processors, and a cache folder.

The cache may be deleted at any time. Entries that were not used for a month are removed when a new
one is made.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_path

from evoae.messages import Refused

CGROUPS, MEMBERSHIP = "/sys/fs/cgroup", "/proc/self/cgroup"  # limits by group; a process's groups
# What a cluster's scheduler grants a task, and what joblib's users set. Not OMP_NUM_THREADS, which
# is the number of threads in a process: a worker here has one.
GRANTS = (
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "PBS_NUM_PPN",
    "NCPUS",
    "NSLOTS",
    "LSB_DJOB_NUMPROC",
    "LOKY_MAX_CPU_COUNT",
)
DAYS = 30  # from its last use until an entry of the cache is removed


# -- memory --------------------------------------------------------------------------------------


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, of its container or cluster job, and
    of its own limit (`ulimit -v`)."""
    found = [sys.maxsize, *granted_memory()]
    with contextlib.suppress(ImportError):  # on Linux psutil needs `resource`, too
        import psutil

        found.append(psutil.virtual_memory().available)
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            found.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(found))


def groups_of(controller: str) -> Iterator[tuple[bool, Path]]:
    """The control groups that limit this process, innermost first; whether each is of version 2."""
    with contextlib.suppress(OSError):
        for line in Path(MEMBERSHIP).read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = Path(CGROUPS, controller) if controllers else Path(CGROUPS)
            inside = PurePosixPath(group.lstrip("/"))
            yield from ((not controllers, root / each) for each in (inside, *inside.parents))


def granted_memory() -> Iterator[int]:
    """What is left of the limit of each control group that holds this process; none, none."""
    for unified, folder in groups_of("memory"):
        limit, used = ("max", "current") if unified else ("limit_in_bytes", "usage_in_bytes")
        try:
            left = int((folder / f"memory.{limit}").read_text())
            left -= int((folder / f"memory.{used}").read_text())
            report = (folder / "memory.stat").read_text()
        except (OSError, ValueError):  # the group is not to be seen, or has no limit ("max")
            continue
        cached = re.search(r"^(?:total_)?inactive_file (\d+)$", report, re.MULTILINE)
        yield left + (int(cached[1]) if cached else 0)  # what files are cached in is given back


def require(needed: int, what: str) -> None:
    """Refuse `what` (say, "its values") if it needs more bytes of memory than are available."""
    available = available_memory()
    if needed > available:
        raise Refused(
            f"{what} need {in_words(needed)} of memory, and {in_words(available)} are available"
        )


def in_words(count: int) -> str:
    """A number of bytes, in GiB if it is large."""
    if count < 2**20:
        return f"{count:,} bytes"
    return f"{min(count, 10**30) / 2**30:,.1f} GiB"  # more digits mean nothing


# -- processors ----------------------------------------------------------------------------------


def available_cpus() -> int:
    """How many processors this process may use, at least 1.

    The fewest of: those that it may run on, the quotas of its control groups (rounded up), and what
    the environment grants (GRANTS; values that are no positive whole number are ignored).
    """
    if sys.version_info >= (3, 13):
        found = [os.process_cpu_count() or 1]
    elif hasattr(os, "sched_getaffinity"):
        found = [len(os.sched_getaffinity(0))]
    else:
        found = [os.cpu_count() or 1]
    found += (math.ceil(quota) for quota in cpu_quotas())
    values = (os.environ.get(name, "").strip() for name in GRANTS)
    found += (int(value) for value in values if re.fullmatch("[0-9]{1,9}", value) and int(value))
    return max(1, min(found))


def cpu_quotas() -> Iterator[float]:
    """Processors that each control group of this process grants it; none, none."""
    for unified, folder in groups_of("cpu"):
        try:
            if unified:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = (
                    (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
                )
            granted = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # not to be seen, or no limit ("max")
            continue
        if granted > 0:  # version 1 says -1 where there is no limit
            yield granted


# -- cache ---------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """`evoae` in the user's cache directory; where that cannot be written, the user's own folder
    in the temporary one, which all processes share.

    Raises OSError, with the cure, if neither can be used.
    """
    try:
        directory = user_cache_path("evoae", appauthor=False)
    except RuntimeError:  # nobody knows of a home directory
        directory = Path("~")
    return _usable(directory, Path(tempfile.gettempdir()))


def cached(entry: Path) -> bool:
    """Whether an entry is there; it then counts as used now."""
    with contextlib.suppress(OSError):  # another's, or gone meanwhile
        os.utime(entry)
    return entry.exists()


def tidy_cache() -> None:
    """Remove the entries that were not used for DAYS days."""
    oldest = time.time() - DAYS * 24 * 3600
    for entry in cache_directory().iterdir():
        with contextlib.suppress(OSError):  # two processes may tidy at a time
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@cache
def _usable(directory: Path, temporary: Path) -> Path:
    with contextlib.suppress(OSError):
        if directory.is_absolute():
            directory.mkdir(parents=True, exist_ok=True)
            _check_writable(directory)
            return directory
    user = os.getuid() if hasattr(os, "getuid") else None
    own = temporary / ("evoae" if user is None else f"evoae-{user}")
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
        # code is loaded from there: nobody else may have put it there
        private = user is None or (found.st_uid == user and not found.st_mode & 0o077)
        if not stat.S_ISDIR(found.st_mode) or not private:
            raise PermissionError(0, "it is not a folder of this user alone", str(own))
        _check_writable(own)
    except OSError as error:
        raise OSError(
            f"{directory} and {own} cannot be written to ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that can be"
        ) from error
    return own


def _check_writable(directory: Path) -> None:
    with tempfile.TemporaryFile(dir=directory):
        pass


def attended() -> bool:
    """Whether somebody runs this cell of a notebook: a batch says that nobody can answer."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def to_root() -> None:
    """Go where commands are given, if somebody has opened a notebook of the folder `notebooks`.

    JupyterLab starts a kernel beside its notebook, one folder below; from the root, a path means
    the same here as in `evoae run` and `evoae reproduce`.
    """
    here = Path.cwd()
    if attended() and here.name == "notebooks" and (here / "explore.ipynb").exists():
        os.chdir(here.parent)
