"""Locks between processes, on one machine or on several that share a file system.

A lock is a file. The system drops it when its holder ends, however that ends, and the holder
removes the file while it still has it: what a killed process leaves is removed by the next holder.
Everybody may take a lock whose folder they can reach: its file is empty, and open to all.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout, UnixFileLock, lock_descriptor

from evoae.messages import say_once

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)  # what a file system says without any
NO_SERVICE = (  # ENOLCK: it has them, others may hold some, and nobody can tell
    "no locks are available, for the file system's lock service does not answer; choose a folder "
    "on another file system, such as a local disk"
)
HELD: set[BaseFileLock] = set()  # which would release itself if nothing referred to it


class Lock:
    """A lock on a path, held from a successful `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self, wait: bool) -> bool:
        """Take the lock; whether it was free. With `wait` it is waited for. Raises OSError."""
        folder = self.path.parent
        try:
            kind = FileLock if has_locks(folder, folder.stat().st_dev) else SoftFileLock
            self.lock = kind(self.path, mode=0o666, thread_local=False, fallback_to_soft=False)
            self.lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError as error:
            if error.errno == errno.ENOLCK:
                raise OSError(error.errno, NO_SERVICE, str(folder)) from error
            raise
        HELD.add(self.lock)
        return True

    def release(self) -> None:
        """Remove the file and let others have the lock."""
        if isinstance(self.lock, UnixFileLock):  # the other kinds remove their files
            with contextlib.suppress(OSError):  # the folder is gone, or can only be read
                self.path.unlink()
        self.lock.release()
        HELD.discard(self.lock)


@cache
def has_locks(folder: Path, device: int) -> bool:
    """Whether a folder's file system has locks that end with their holder. Raises OSError."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            lock_descriptor(file.fileno())
    except OSError as error:
        if error.errno not in NO_LOCKS:
            if error.errno == errno.ENOLCK:
                raise
            return True  # nothing can be written: whoever made its locks could
        say_once(
            f"{folder.parent}: this file system has no locks, so lock files are used; if a process "
            "on another machine is killed, remove the .lock and .trials-*.lock files it leaves"
        )
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, waiting for it."""
    lock = Lock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
