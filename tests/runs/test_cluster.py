"""The sweep on a Dask cluster of separate processes, and shared by the jobs of an array."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evoae import grid, sweep
from evoae.runs import sweeps as study

pytest.importorskip("dask.distributed", reason="needs the extra: pip install 'evoae[cluster]'")

SETTINGS = {"clusters": 2, "bits": 300, "examples": 50, "cells": 4, "epochs": 40}
EXPERIMENTS = grid("lipi-ae-s", operator=["none", "random"], **SETTINGS)


def files(folder: Path) -> dict[str, bytes]:
    names = ("config.json", "history.parquet", "weights.safetensors")
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name in names
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local")
    sweep(EXPERIMENTS, 4, out=out, workers=1, progress=False)
    return files(out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers as processes of their own; yields its address and the workers."""
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    place = ["--host", "127.0.0.1", "--no-dashboard"]
    port = address.rpartition(":")[2]
    processes = [subprocess.Popen([*command, "scheduler", *place, "--port", port], **quiet)]
    one = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--no-dashboard"]
    processes += [subprocess.Popen([*command, "worker", address, *one], **quiet) for _ in range(2)]
    yield address, processes[1:]
    for process in reversed(processes):
        process.kill()
        process.wait()


def test_a_cluster_gives_the_files_of_local_workers_though_a_worker_is_killed(
    cluster, expected, tmp_path, monkeypatch
):
    from dask.distributed import Client

    address, workers = cluster
    with Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    monkeypatch.setenv("EVOAE_DASK", address)
    out = tmp_path / "runs"
    killer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, pathlib, signal, sys, time\n"
            "while not list(pathlib.Path(sys.argv[1]).glob('*/config.json')): time.sleep(0.02)\n"
            "time.sleep(1.5)\n"
            "os.kill(int(sys.argv[2]), signal.SIGKILL)\n",
            str(out),
            str(workers[0].pid),
        ]
    )
    sweep(EXPERIMENTS, 4, out=out, workers=4, progress=False)
    assert killer.wait(timeout=30) == 0
    assert workers[0].wait(timeout=30) == -signal.SIGKILL
    assert files(out) == expected


def test_jobs_of_an_array_share_the_runs(expected, tmp_path):
    code = (
        "from test_cluster import EXPERIMENTS\n"
        "from evoae import sweep\n"
        f"sweep(EXPERIMENTS, 4, out={str(tmp_path)!r}, workers=1, progress=False)\n"
    )
    root = Path(__file__).parent
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"EVOAE_SHARE": f"{i}/2"}, cwd=root
        )
        for i in range(2)
    ]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    assert files(tmp_path) == expected


def test_each_job_begins_with_its_own_share(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(study, "compute", lambda specs, *_: begun.extend(specs) or {})
    many = grid("canonical", operator=["none", "random", "magnitude", "wanda"], **SETTINGS)
    orders = []
    for index in range(2):
        monkeypatch.setenv("EVOAE_SHARE", f"{index}/2")
        begun.clear()
        with pytest.raises(ValueError, match="no finished run"):
            sweep(many, 1, out=tmp_path, workers=1, progress=False)
        orders.append([spec.folder.name for spec in begun])
    assert sorted(orders[0]) == sorted(orders[1])
    assert set(orders[0][:2]) == set(orders[1][2:])


@pytest.mark.parametrize("share", ["2/2", "x/2", "-1/2", "1"])
def test_a_share_that_is_none_is_refused(share, tmp_path, monkeypatch):
    monkeypatch.setenv("EVOAE_SHARE", share)
    with pytest.raises(ValueError, match="EVOAE_SHARE"):
        sweep(EXPERIMENTS, 1, out=tmp_path, progress=False)
