"""Runs command lines with little memory and time: a JSON list of words a line in, a result out.

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

from evoae.cli import main
from evoae.study.report import execution  # noqa: F401  (imported before the first fork)

MEMORY = 4 << 30
SECONDS = 20  # after which what has not said a word is killed, and what has is interrupted


def child(words: list[str]) -> int:
    """The exit code of a command line; 99 for a traceback."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        return main(words)
    except SystemExit as stopped:
        return stopped.code or 0
    except BaseException:
        traceback.print_exc()
        return 99


def guarded(words: list[str]) -> dict:
    """Exit code (negative: the signal that killed it), what was printed, and the seconds."""
    begun, printed = time.monotonic(), ("out.txt", "err.txt")
    pid = os.fork()
    if pid == 0:
        for stream, name in enumerate(printed, start=1):
            os.dup2(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
        code = child(words)
        sys.stdout.flush()
        os._exit(code)
    status = wait(pid, SECONDS)
    silent = False
    if status is None:
        silent = os.path.getsize("err.txt") == 0
        os.kill(pid, signal.SIGKILL if silent else signal.SIGINT)
        status = wait(pid, 600)
    code = os.waitstatus_to_exitcode(status)
    texts = [Path(name).read_text(errors="replace") for name in printed]
    seconds = time.monotonic() - begun
    return {"code": code, "out": texts[0], "err": texts[1], "seconds": seconds, "silent": silent}


def wait(pid: int, seconds: float) -> int | None:
    """The status of a child that ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.005)
    return None


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(guarded(json.loads(line))), flush=True)
