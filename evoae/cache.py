"""Where this machine keeps what is made once and used by every process; it may be deleted.

What nothing has used for a month goes when something new is made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

DAYS = 30  # that an entry is kept after its last use


def directory() -> Path:
    """`evoae` in the user's cache directory, or a temporary one where nothing can be written."""
    return _usable(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evoae")


def has(entry: Path) -> bool:
    """Whether an entry is there; it then counts as used now."""
    with contextlib.suppress(OSError):  # another's, or gone meanwhile
        os.utime(entry)
    return entry.exists()


def tidy() -> None:
    """Remove the entries that were not used for DAYS days."""
    oldest = time.time() - DAYS * 24 * 3600
    for entry in directory().iterdir():
        with contextlib.suppress(OSError):  # two processes may tidy at a time
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@cache
def _usable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        return Path(tempfile.mkdtemp(prefix="evoae-"))
