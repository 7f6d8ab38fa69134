"""Who computes which trials, where several processes share a folder of runs.

Before a process computes trials of a run it claims them, in slices: it holds the lock
`.trials-A-B.lock` until it is done with them or ends.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from evoae.study.runs import checkpoints
from evoae.study.runs.jobs import RunSpec
from evoae.study.runs.locks import Lock, locked
from evoae.study.runs.merge import present, recover
from evoae.study.runs.run import Run, slices_of

CLAIM = re.compile(r"\.trials-(\d+)-(\d+)\.lock")
HALF_WRITTEN = (".*.part", ".tmp*")  # ours, and those of safetensors
MOST_AT_ONCE = 500  # runs: each costs an open file


def missing(spec: RunSpec) -> list[int]:
    """The trials that are asked for and not there.

    ValueError if the directory is another run's, or damaged, or trained by another engine.
    """
    run = present(spec.folder)
    if run is None:
        return list(spec.trials)
    spec.open()
    engine = run.result["engine"]
    if spec.engine not in ("auto", engine):
        raise ValueError(
            f"{spec.folder}: finished by engine {engine}, not {spec.engine}; choose another folder"
        )
    return sorted(set(spec.trials) - set(run.numbers))


def busy(folder: Path) -> dict[range, Lock]:
    """The slices that are being computed; locks that a killed process left are removed."""
    found = {}
    for path in sorted(folder.glob(".trials-*.lock")):
        if not (match := CLAIM.fullmatch(path.name)):
            continue
        lock = Lock(path)
        with contextlib.suppress(PermissionError):  # it is gone, and only others may make another
            if lock.acquire(wait=False):
                lock.release()
            else:
                found[range(int(match[1]), int(match[2]))] = lock
    return found


@contextmanager
def claimed(
    specs: Iterable[RunSpec], most: int, failures: dict[Path, BaseException]
) -> Iterator[list[tuple[RunSpec, list[int]]]]:
    """Claim missing trials that nobody else computes, of up to `most` runs, while in the context.

    There may be none. Runs that cannot be begun, or are damaged, are added to `failures`.
    """
    held: list[Lock] = []
    mine: list[tuple[RunSpec, list[int]]] = []
    try:
        for spec in specs:
            if len(mine) == min(most, MOST_AT_ONCE):
                break
            try:
                if trials := claim(spec, held):
                    mine.append((spec, trials))
            except PermissionError as error:
                # another user's: who is at work on it, or has finished it meanwhile
                if not busy(spec.folder) and missing(spec):
                    failures[spec.folder] = error
            except (OSError, ValueError) as error:
                failures[spec.folder] = error
        yield mine
    finally:
        for lock in held:
            lock.release()


def claim(spec: RunSpec, held: list[Lock]) -> list[int]:
    """Claim the missing trials of one run that are free, and add their locks to those held."""
    spec.make_folder()
    mine: list[int] = []
    with locked(spec.lock):
        spec.open()
        recover(spec.folder)
        taken = {trial for trials in busy(spec.folder) for trial in trials}
        for part in slices_of(trial for trial in missing(spec) if trial not in taken):
            lock = Lock(spec.folder / f".trials-{part.start}-{part.stop}.lock")
            if lock.acquire(wait=False):
                held.append(lock)
                mine += part
    return mine


def wait_for_others(specs: Sequence[RunSpec]) -> None:
    """Wait until one of the processes that compute trials of these runs is done with some."""
    for spec in specs:
        for lock in busy(spec.folder).values():
            with contextlib.suppress(PermissionError):  # it is gone: another user is done
                lock.acquire(wait=True)
                lock.release()
            return


def tidy(spec: RunSpec) -> None:
    """Remove what only an unfinished run needs, or a process that was killed has left."""
    if not any(path.name.startswith((".", "checkpoint-")) for path in spec.folder.iterdir()):
        return
    # a folder that can only be read stays as it is
    with contextlib.suppress(OSError), locked(spec.lock):
        recover(spec.folder)
        checkpoints.remove_covered(spec.folder, set(Run(spec.folder).numbers))
        if not busy(spec.folder):
            for pattern in HALF_WRITTEN:
                for path in spec.folder.glob(pattern):
                    path.unlink(missing_ok=True)
