"""The estimate of a run's memory: near what is measured, and what cannot be is refused at once."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import tiny

from evoae import Experiment
from evoae.evolution import footprint
from evoae.study.runs.jobs import RunSpec

MEASURE = """
from pathlib import Path
import psutil
from evoae import Experiment, run
from evoae.evolution import footprint
lines = lambda: Path("/proc/self/status").read_text().splitlines()
peak = lambda: next(int(line.split()[1]) for line in lines() if line.startswith("VmHWM")) * 1024
small = {"clusters": 2, "bits": 12, "examples": 4, "epochs": 1}
options = {"workers": 1, "progress": False}
run(Experiment(**small), **options)  # what any run takes
before, experiment = psutil.Process().memory_info().rss, Experiment(**small | {SETTINGS})
run(experiment, **options)
print(sum(footprint.estimate(experiment, 1).values()) / (peak() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak")
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "1500-10", "bits": 4000, "examples": 20},
        {"examples": 2000, "bits": 2000, "model": "2"},
    ],
)
def test_the_estimate_is_right_within_a_factor_of_two(settings: dict) -> None:
    code = MEASURE.replace("{SETTINGS}", repr(settings))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.5 < float(done.stdout) < 2


TOO_LARGE = [
    ({"cells": 100_000}, "networks: cells=100000"),
    ({"bits": 10**7}, "bits=10000000"),
    ({"bits": 10**9}, "bits=1000000000"),
    ({"examples": 10**7}, "data: dataset=binary-clusters"),
    ({"examples": 10**12}, "examples=1000000000000"),
    ({"model": "10000000"}, "model=10000000"),
    ({"tournament_size": 10**9}, "selection: cells=1"),
    ({"tournament_size": 10**9}, "tournament_size=1000000000"),
    ({"epochs": 10**12}, "history: epochs=1000000000000"),
    ({"cells": 10**5, "topology": "complete", "model": "1", "bits": 1}, "topology=complete"),
    ({"cells": 10**12, "topology": "torus"}, "cells=1000000000000"),
]


@contextmanager
def few_bytes() -> Iterator[None]:
    """An estimate makes nothing of the size that it estimates."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(("settings", "said"), TOO_LARGE)
def test_what_does_not_fit_is_refused_at_once_with_both_numbers(
    settings: dict, said: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "available_memory", lambda: 4 << 30)
    with (
        few_bytes(),
        pytest.raises(ValueError, match=r"of memory, but 4\.0 GiB are available") as caught,
    ):
        RunSpec(Experiment(**settings), 1, 0, 1, tmp_path / "out")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_many_trials_are_refused_as_many_cells_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "available_memory", lambda: 4 << 30)
    footprint.check(tiny(), 10)
    with pytest.raises(ValueError, match=r"^trials=1000000000 of"):
        footprint.check(tiny(), 10**9)


def test_long_is_not_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million epochs of tiny data are many rows of history, no more."""
    with few_bytes():
        needed = footprint.estimate(tiny(epochs=10**7), 1)
    assert needed["history"] == 10**7 * footprint.HISTORY_ROW
    assert sum(needed.values()) - needed["history"] < 1 << 20


@pytest.mark.parametrize("name", ["cells", "tournament_size", "epochs", "examples", "bits"])
def test_more_of_anything_takes_no_less(name: str) -> None:
    few = sum(footprint.estimate(tiny("lipi-ae-s", cells=4), 1).values())
    base = {"cells": 4, "tournament_size": 2, "epochs": 4, "examples": 4, "bits": 12}
    many = {name: base[name] * 50}
    assert sum(footprint.estimate(tiny("lipi-ae-s", **{"cells": 4} | many), 1).values()) > few
