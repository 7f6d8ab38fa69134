"""What Ctrl-C and SIGTERM mean: training ends in order, and the same call resumes it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDINGS = (signal.SIGINT, signal.SIGTERM)  # a terminal's wish that a process ends, and a cluster's


class Terminated(SystemExit):
    """SIGTERM came: exit code 143. Whatever was training has saved what it reached."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def handled(handler: Callable[[int, Any], None] | signal.Handlers, *numbers: int) -> Iterator[None]:
    """Another handler of some signals, in the context. Only the main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def interrupts(stop: Any) -> Iterator[None]:
    """Ctrl-C or SIGTERM sets the event `stop`; a second one interrupts at once.

    Afterwards KeyboardInterrupt or Terminated is raised.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    try:
        with handled(handle, *ENDINGS):
            yield
    finally:
        if signal.SIGTERM in received:
            raise Terminated
        if received:
            raise KeyboardInterrupt


def ignore_all() -> None:
    """In a worker: its parent answers for it."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated wherever the process is."""

    def end(number: int, frame: Any) -> None:
        raise Terminated

    with handled(end, signal.SIGTERM):
        yield
