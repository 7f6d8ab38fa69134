"""The sweep on a Dask cluster of separate processes, and shared by the jobs of an array."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import bytes_of

from evoae import SweepError, grid, sweep
from evoae.study.runs import sweeps as study

Client = pytest.importorskip(
    "dask.distributed", reason="needs the extra: pip install 'evoae[cluster]'"
).Client

SETTINGS = {"clusters": 2, "bits": 300, "examples": 50, "cells": 4, "epochs": 40}
EXPERIMENTS = grid("lipi-ae-s", operator=["none", "random"], **SETTINGS)


def files(folder: Path) -> dict[str, bytes]:
    return {
        f"{run.parent.name}/{name}": content
        for run in folder.rglob("config.json")
        for name, content in bytes_of(run.parent).items()
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
    """A scheduler and two workers as processes of their own: its address, it, and they."""
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    quiet["env"] = os.environ | {"EVOAE_CHECKPOINT_SECONDS": "0.2"}
    place = ["--host", "127.0.0.1", "--no-dashboard"]
    port = address.rpartition(":")[2]
    processes = [subprocess.Popen([*command, "scheduler", *place, "--port", port], **quiet)]
    one = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--no-dashboard"]
    processes += [subprocess.Popen([*command, "worker", address, *one], **quiet) for _ in range(2)]
    yield address, processes[0], processes[1:]
    for process in reversed(processes):
        process.kill()
        process.wait()


def sweep_in_the_background(out: Path) -> tuple[threading.Thread, list[BaseException | None]]:
    """Begin the sweep; the list holds how it ended, once it has."""
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            sweep(EXPERIMENTS, 4, out=out, workers=4, progress=False)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, ended


def freeze_in_mid_task(client: Client, workers: list[subprocess.Popen]) -> subprocess.Popen:
    """Stop a worker that is at a task: what the scheduler says of it then stays true."""
    pids = {pid: address for address, pid in client.run(os.getpid).items()}
    for _ in range(3000):
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(0.1)  # for what it had said before to arrive
            if client.processing()[pids[worker.pid]]:
                return worker
            os.kill(worker.pid, signal.SIGCONT)
    raise TimeoutError("no worker was ever at a task")


def test_a_cluster_gives_the_files_of_local_workers_though_a_worker_is_killed_in_mid_task(
    cluster, expected, tmp_path, monkeypatch
):
    address, _, workers = cluster
    monkeypatch.setenv("EVOAE_DASK", address)
    out = tmp_path / "runs"
    with Client(address, timeout=600) as client:
        client.wait_for_workers(2, timeout=600)
        thread, ended = sweep_in_the_background(out)
        while not list(out.glob("*/checkpoint-*")):
            time.sleep(0.02)
        frozen = freeze_in_mid_task(client, workers)
        unfinished = [path for path in out.iterdir() if not (path / "result.json").exists()]
        assert unfinished
        frozen.kill()
        assert frozen.wait(timeout=600) == -signal.SIGKILL
    thread.join(600)
    assert ended == [None]
    assert files(out) == expected


def test_a_lost_scheduler_is_said_in_one_line_and_the_same_call_resumes(
    cluster, expected, tmp_path, monkeypatch
):
    address, scheduler, _ = cluster
    monkeypatch.setenv("EVOAE_DASK", address)
    out = tmp_path / "runs"
    thread, ended = sweep_in_the_background(out)
    while not list(out.glob("*/checkpoint-*")):
        time.sleep(0.02)
    scheduler.kill()
    thread.join(600)
    (error,) = ended
    assert isinstance(error, SweepError)
    for failure in error.failures.values():
        assert str(failure) == "the cluster was lost; the same command resumes"
    monkeypatch.delenv("EVOAE_DASK")
    sweep(EXPERIMENTS, 4, out=out, workers=1, progress=False)
    assert files(out) == expected


def test_jobs_of_an_array_share_the_runs(expected, tmp_path):
    code = (
        "from evoae import grid, sweep\n"
        f"experiments = grid('lipi-ae-s', operator=['none', 'random'], **{SETTINGS})\n"
        f"sweep(experiments, 4, out={str(tmp_path)!r}, workers=1, progress=False)\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"EVOAE_SHARE": f"{i}/2"})
        for i in range(2)
    ]
    assert [job.wait(timeout=6000) for job in jobs] == [0, 0]
    assert files(tmp_path) == expected


def test_each_job_begins_with_its_own_share(tmp_path, monkeypatch):
    many = grid("canonical", operator=["none", "random", "magnitude", "wanda"], **SETTINGS)
    begun: list[str] = []

    def refuse(claims, *_):
        begun.extend(spec.folder.name for spec, _ in claims)
        return {spec.folder: RuntimeError("not now") for spec, _ in claims}

    monkeypatch.setattr(study, "compute", refuse)
    orders = []
    for index in range(2):
        monkeypatch.setenv("EVOAE_SHARE", f"{index}/2")
        begun.clear()
        with pytest.raises(SweepError):
            sweep(many, 1, out=tmp_path, workers=1, progress=False)
        orders.append(list(begun))
    assert sorted(orders[0]) == sorted(orders[1])
    assert set(orders[0][:2]) == set(orders[1][2:])


@pytest.mark.parametrize("share", ["2/2", "x/2", "-1/2", "1"])
def test_a_share_that_is_none_is_refused(share, tmp_path, monkeypatch):
    monkeypatch.setenv("EVOAE_SHARE", share)
    with pytest.raises(ValueError, match="EVOAE_SHARE"):
        sweep(EXPERIMENTS, 1, out=tmp_path, progress=False)
