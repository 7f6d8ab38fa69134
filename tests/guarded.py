"""Runs command lines with little memory and work: a JSON list of words a line in, a result out.

Each runs in a fork of this process, which has evoae imported: a refusal takes milliseconds. Usage:
`python guarded.py FOLDER`, where what they write lands.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import psutil

from evoae.cli import main
from evoae.networks import kernel
from evoae.study.report import execution  # noqa: F401  (imported before the first fork)
from evoae.study.runs import sweeps  # noqa: F401

MEMORY = 4 << 30
# Seconds of work on the processor, so that it does not matter how busy the machine is. A refusal
# takes a hundredth of one; whatever has said nothing after so many is killed.
WORK = 10
SEEN_TO_WORK = 1  # after which a command that shows progress is interrupted
PATIENCE = 600  # seconds on the wall for what neither works nor ends: it hangs


def child(words: list[str]) -> int:
    """The exit code of a command line; 99 for a traceback."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (WORK, WORK))
    try:
        return main(words)
    except SystemExit as stopped:
        return stopped.code or 0
    except BaseException:
        traceback.print_exc()
        return 99


def guarded(words: list[str]) -> dict:
    """Exit code (negative: the signal that killed it), what was printed, and MiB of memory used."""
    printed = ("out.txt", "err.txt")
    for name in printed:
        Path(name).write_text("")
    pid = os.fork()
    if pid == 0:
        for stream, name in enumerate(printed, start=1):
            os.dup2(os.open(name, os.O_WRONLY), stream)
        code = child(words)
        sys.stdout.flush()
        os._exit(code)
    status, peak = watch(pid)
    texts = [Path(name).read_text(errors="replace") for name in printed]
    used = (peak - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "out": texts[0], "err": texts[1], "used": used}


def watch(pid: int) -> tuple[int, int]:
    """The status of a child that has ended, and its most memory in KiB.

    A child that shows progress is interrupted, and one that hangs is killed.
    """
    process, until, interrupted = psutil.Process(pid), time.monotonic() + PATIENCE, False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage.ru_maxrss
        worked = process.cpu_times().user > SEEN_TO_WORK
        if worked and not interrupted and b"epoch" in Path("err.txt").read_bytes():
            os.kill(pid, signal.SIGINT)
            interrupted = True
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    kernel.reason_unavailable()  # compiled before the first fork
    for line in sys.stdin:
        print(json.dumps(guarded(json.loads(line))), flush=True)
