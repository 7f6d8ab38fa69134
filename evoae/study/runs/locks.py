"""Locks between processes, on one machine or on several that share a file system.

A lock is a file. The system drops it when its holder ends, however that ends, and the holder
removes the file while it still has it: what a killed process leaves is removed by the next holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Lock:
    """A lock on a path, held from a successful `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path, self.handle = path, -1

    def acquire(self, wait: bool) -> bool:
        """Take the lock; whether it was free. With `wait` it is waited for. Raises OSError."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    self.handle, handle = handle, -1
                    return True
            except BlockingIOError:
                return False
            except FileNotFoundError:
                pass  # the holder before has just removed it: lock the file that comes after it
            finally:
                if handle >= 0:
                    os.close(handle)

    def release(self) -> None:
        """Remove the file and let others have the lock."""
        with contextlib.suppress(OSError):  # the folder is gone, or can only be read
            self.path.unlink()
        os.close(self.handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, waiting for it."""
    lock = Lock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
