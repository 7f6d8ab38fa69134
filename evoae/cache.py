"""Where this machine keeps what is made once and used by every process; it may be deleted."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


def directory() -> Path:
    """`evoae` in the user's cache directory, or a temporary one where nothing can be written."""
    return _usable(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evoae")


@cache
def _usable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        return Path(tempfile.mkdtemp(prefix="evoae-"))
