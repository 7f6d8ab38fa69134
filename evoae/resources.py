"""How much memory there is, and the refusal of what would need more."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from evoae.messages import Refused

# Where control groups tell of memory, by version: the root, the limit, what is used.
UNIFIED = ("/sys/fs/cgroup", "memory.max", "memory.current")
LEGACY = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, of its container or cluster job, and
    of its own limit (`ulimit -v`)."""
    found = [psutil.virtual_memory().available, *granted_by_groups()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(found))


def granted_by_groups(membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What is left of the limit of each control group that holds this process; none, none."""
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, limit, used = LEGACY if controllers else UNIFIED
        inside = PurePosixPath(group.lstrip("/"))
        for folder in (Path(root) / each for each in (inside, *inside.parents)):
            try:
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                told = (folder / "memory.stat").read_text()
            except (OSError, ValueError):  # the group is not to be seen, or has no limit ("max")
                continue
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", told, re.MULTILINE)
            yield left + (int(cached[1]) if cached else 0)  # what files are cached in is given back


def require(needed: int, what: str) -> None:
    """Refuse `what`, "its values", say, if it takes more bytes of memory than are available."""
    available = available_memory()
    if needed > available:
        raise Refused(
            f"{what} take {in_words(needed)} of memory, and {in_words(available)} are available"
        )


def in_words(count: int) -> str:
    """A number of bytes as people read it."""
    if count < 2**20:
        return f"{count:,} bytes"
    return f"{min(count, 10**30) / 2**30:,.1f} GiB"  # beyond that no digit says anything
