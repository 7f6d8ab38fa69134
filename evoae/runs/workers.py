"""Where blocks of trials are trained: in this process, in local ones, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

import cloudpickle
import torch

from evoae.pruning import operators, schedules
from evoae.runs.blocks import RunSpec, train_block

Tell = Callable[[int, int], None]
Submit = Callable[[RunSpec, range], "Future[tuple[float, float, float]]"]


@contextmanager
def placed(local: bool, workers: int, executor: Executor | None, tell: Tell) -> Iterator[Submit]:
    """Where blocks are trained: here, in local processes, or by a given executor.

    The first interrupt stops every block after its epoch, with a checkpoint; the second at once.
    """
    if executor is not None:
        yield lambda spec, block: executor.submit(work, packed(spec, block))
        return
    if local:
        stop = threading.Event()
        with interrupts(stop):
            yield lambda spec, block: done(lambda: train_block(spec, block, tell, stop))
        return
    context = multiprocessing.get_context("spawn")
    stop, queue = context.Event(), context.Queue()
    reader = threading.Thread(target=read_progress, args=(queue, tell), daemon=True)
    reader.start()
    pool = ProcessPoolExecutor(workers, context, begin_worker, (queue, stop))
    try:
        with interrupts(stop), pool:
            yield lambda spec, block: submit_by_value(pool, packed(spec, block))
    finally:
        queue.put(None)
        reader.join()


def submit_by_value(pool: ProcessPoolExecutor, task: bytes) -> Future:
    """Submit a task whose functions travel as code: a new process need not import the caller's
    script, which would otherwise have to guard its calls by `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    # a new process inherits this: Ctrl-C while it starts is its parent's to answer
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if on_main_thread else None
    before = {name: vars(main).get(name) for name in ("__file__", "__spec__")}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        return pool.submit(work, task)
    finally:
        vars(main).update({k: v for k, v in before.items() if v is not None or k == "__spec__"})
        if on_main_thread:
            signal.signal(signal.SIGINT, handler)


def done(call: Callable[[], Any]) -> Future:
    """A future of something computed here and now."""
    future: Future = Future()
    try:
        future.set_result(call())
    except (Exception, KeyboardInterrupt) as error:
        future.set_exception(error)
    return future


@contextmanager
def interrupts(stop: Any) -> Iterator[None]:
    """Ctrl-C sets `stop`; a second one interrupts at once. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def read_progress(queue: Any, tell: Tell) -> None:
    while (told := queue.get()) is not None:
        tell(*told)


REGISTRIES = (operators.OPERATORS, schedules.SCHEDULES)


def packed(spec: RunSpec, block: range) -> bytes:
    """A block as bytes for another process, with the user's functions that it names."""
    names = [spec.experiment.operator, spec.experiment.schedule]
    return cloudpickle.dumps(([known.of_user(names) for known in REGISTRIES], spec, block))


# -- in a worker ---------------------------------------------------------------------------------

worker_tell: Tell = lambda epochs, steps: None  # noqa: E731
worker_stop: Any = None


def begin_worker(queue: Any, stop: Any) -> None:
    """One thread per worker; progress and the wish to stop pass between it and its parent."""
    global worker_tell, worker_stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    worker_tell = lambda epochs, steps: queue.put((epochs, steps))  # noqa: E731
    worker_stop = stop
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=follow, args=(parent,), daemon=True).start()


def follow(parent: int) -> None:
    """End with the parent: a worker that waits for tasks would outlive one that was killed."""
    connection.wait([parent])
    os._exit(1)


def work(task: bytes) -> tuple[float, float, float]:
    """Train one packed block."""
    torch.set_num_threads(1)
    named, spec, block = cloudpickle.loads(task)
    for known, theirs in zip(REGISTRIES, named, strict=True):
        known |= theirs  # also over older ones
    return train_block(spec, block, worker_tell, worker_stop)
