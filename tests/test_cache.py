"""What is made once and kept: found again, and removed when nothing has used it for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from evoae import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.directory()


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
            aged(entry, cache.DAYS + (1 if name == "old" else -1))
    cache.tidy()
    assert sorted(entry.name for entry in folder.iterdir()) == ["data-recent", "recent.so"]


def test_use_keeps_an_entry(folder: Path) -> None:
    (folder / "kernel.so").touch()
    entry = aged(folder / "kernel.so", 2 * cache.DAYS)
    assert cache.has(entry)
    cache.tidy()
    assert entry.exists()
    assert not cache.has(folder / "another")
    assert not (folder / "another").exists()
