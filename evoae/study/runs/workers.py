"""Where jobs of trials are trained: in this process, in local ones, or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from queue import Empty
from typing import Any

import cloudpickle
import torch
from loky import ProcessPoolExecutor
from loky.backend import get_context

from evoae.data import datasets
from evoae.messages import DataWarning
from evoae.pruning import operators, schedules
from evoae.study.runs.jobs import RunSpec, Trained, train_job
from evoae.study.runs.signals import ENDINGS, handled, ignore_all, interrupts

Report = Callable[[float, int], None]
Submit = Callable[[RunSpec, range], "Future[Trained]"]
WAIT = 5.0  # seconds for the last words of workers; one that was killed may have left half of one


@contextmanager
def placed(
    local: bool, workers: int, executor: Executor | None, report: Report
) -> Iterator[Submit]:
    """Where jobs are trained: here, in local processes, or by a given executor.

    The first interrupt stops every job after its epoch, with a checkpoint; the second at once.
    """
    if executor is not None:
        yield lambda spec, job: executor.submit(work, packed(spec, job))
        return
    if local:
        stop = threading.Event()
        with interrupts(stop):
            yield lambda spec, job: done(lambda: train_job(spec, job, report, stop))
        return
    context = get_context("loky")  # new interpreters, which need not import the caller's script
    stop, queue, ended = context.Event(), context.Queue(), threading.Event()
    reader = threading.Thread(target=read_progress, args=(queue, report, ended), daemon=True)
    reader.start()
    pool = ProcessPoolExecutor(
        workers,
        context=context,
        initializer=begin_worker,
        initargs=(queue, stop, os.getpid()),
        env={"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"},  # a large run is no leak
    )

    def submit(spec: RunSpec, job: range) -> Future:
        if spec.experiment.dataset != "binary-clusters":
            spec.experiment.load_data(spec.seed, 0)  # if large, into files that all workers map
        with handled(
            signal.SIG_IGN, *ENDINGS
        ):  # which new processes inherit: what comes meanwhile is ours to answer
            return pool.submit(work, packed(spec, job))

    finished = False
    try:
        with interrupts(stop):
            yield submit
            finished = True
    finally:
        pool.shutdown(wait=True, kill_workers=not finished)
        ended.set()  # not a word in the queue, which a killed worker may have locked
        reader.join(timeout=WAIT)


def done(call: Callable[[], Any]) -> Future:
    """A future of something computed here and now."""
    future: Future = Future()
    try:
        future.set_result(call())
    except (Exception, KeyboardInterrupt) as error:
        future.set_exception(error)
    return future


def read_progress(queue: Any, report: Report, ended: threading.Event) -> None:
    """Pass on what workers report, until they have ended and nothing is left."""
    while True:
        try:
            report(*queue.get(timeout=0.1))
        except Empty:
            if ended.is_set():
                return


REGISTRIES = (operators.OPERATORS, schedules.SCHEDULES)


def packed(spec: RunSpec, job: range) -> bytes:
    """A job as bytes for another process, with the user's functions that it names and what is known
    of its data, which need not be read again."""
    names = [spec.experiment.operator, spec.experiment.schedule]
    named = [known.of_user(names) for known in REGISTRIES]
    about = {k: v for k, v in datasets.summaries.items() if k[0] == spec.experiment.dataset}
    return cloudpickle.dumps((named, about, spec, job))


# -- in a worker ---------------------------------------------------------------------------------

worker_report: Report = lambda epochs, steps: None  # noqa: E731
worker_stop: Any = None


def begin_worker(queue: Any, stop: Any, parent: int) -> None:
    """One thread per worker; progress and the wish to stop pass between it and its parent."""
    global worker_report, worker_stop
    ignore_all()
    torch.set_num_threads(1)
    worker_report = lambda epochs, steps: queue.put((epochs, steps))  # noqa: E731
    worker_stop = stop
    threading.Thread(target=follow, args=(parent,), daemon=True).start()


def follow(parent: int) -> None:
    """End with the parent: a worker that waits for tasks would outlive one that was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def work(task: bytes) -> Trained:
    """Train one packed job."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataWarning)  # whoever began the run was warned
    named, about, spec, job = cloudpickle.loads(task)
    datasets.summaries |= about
    for known, theirs in zip(REGISTRIES, named, strict=True):
        known |= theirs  # also over older ones
    return train_job(spec, job, worker_report, worker_stop)
