"""Rows of values in [0, 1]: drawn, built in, or from a file.

`binary-clusters` is the paper's data and is drawn anew in each trial. Everything else is one fixed
table that all trials share, split by the seed alone. Files are read without running any code in
them, and whatever is wrong with one becomes a ValueError of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoae.data import columns, tables
from evoae.data.built_in import BUILT_IN, Clusters, check_whole
from evoae.data.content import Content, Options
from evoae.data.files import SUFFIXES
from evoae.data.scaling import Scaling
from evoae.data.splits import BLOCK, SPLITS, Dataset, Size
from evoae.messages import Refused, display, file_errors, short
from evoae.randomness import stream
from evoae.resources import cache_directory, cached, require, tidy_cache
from evoae.rules import nearest

LARGE = 64 << 20  # bytes of rows above which processes share them
TOLERANCE = 1e-6  # what rounding may exceed [0, 1] by: eight steps of float32 at 1
TICK = 2_000_000_000  # ns: the coarsest clock by which file systems date a change


def load(dataset: str | os.PathLike[str], *, seed: int, trial: int, **options: Any) -> Dataset:
    """The dataset of one trial: a built-in name or a file's path.

    `options` are the fields of `Options`, which say how a file is read, and of `Clusters`, which
    shape binary-clusters and nothing else. Those data depend on (seed, trial). All other data are
    split 70/15/15 by `seed` alone, or used as they are if the file has its own splits. Values that
    lie beyond [0, 1] by rounding alone, at most 1e-6, become 0 or 1.

    Raises ValueError, one line, for an unknown name, a bad option or a bad file.
    """
    check_whole("seed", seed, least=0)
    check_whole("trial", trial, least=0)
    reading, clusters = _separated(dataset, options)
    if dataset == "binary-clusters":
        return Clusters(**clusters).draw(seed, trial)
    return _fixed_dataset(str(dataset), fingerprint(dataset), reading, int(seed))


@dataclass(frozen=True)
class Summary:
    """What is known of a dataset without its rows; `notes` are for the user, a line each."""

    size: Size
    scaling: Scaling | None = None
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def summary(dataset: str | os.PathLike[str], **options: Any) -> Summary:
    """What is known of a dataset after all checks of `load`: a file is read to its last value.

    Nothing is drawn. Raises ValueError as `load`.
    """
    reading, clusters = _separated(dataset, options)
    if dataset == "binary-clusters":
        return Summary(Clusters(**clusters).size)
    return _summary(str(dataset), fingerprint(dataset), reading)


def measure(dataset: str | os.PathLike[str], **options: Any) -> Size:
    """The number of rows and columns. Reads a file, and raises ValueError, as `summary`."""
    return summary(dataset, **options).size


def check(dataset: str | os.PathLike[str], **options: Any) -> int:
    """D, the number of columns. Reads a file, and raises ValueError, as `summary`."""
    return measure(dataset, **options).dimension


def described(dataset: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """What one has to know of the data to use a network that was trained on them, as JSON values.

    `columns`: the names of the columns; `scaling`: their minimum and maximum as scaled by. None
    where there are none. Reads a file, and raises ValueError, as `summary`.
    """
    known = summary(dataset, **options)
    return {
        "columns": known.columns and list(known.columns),
        "scaling": known.scaling and known.scaling.as_json(),
    }


def notes(dataset: str | os.PathLike[str], **options: Any) -> tuple[str, ...]:
    """What a user should know of a file, a line each with its name: whether it was taken for
    interactions, which columns are probably no measurements. Raises ValueError as `summary`."""
    return tuple(f"{display(dataset)}: {note}" for note in summary(dataset, **options).notes)


def fingerprint(dataset: str | os.PathLike[str]) -> str | None:
    """SHA-256 of a file's content in hexadecimal; None for a built-in name. Errors as `load`.

    A file that has not changed is not read again.
    """
    if _is_built_in(dataset):
        return None
    path, _ = _path_and_suffix(dataset)
    with file_errors(dataset):
        found = path.stat()
        times = found.st_mtime_ns, found.st_ctime_ns
        state = (str(path.resolve()), found.st_ino, found.st_size, *times)
        if state in _digests:
            return _digests[state]
        require(found.st_size, "its values")  # before every byte is looked at
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if time.time_ns() - max(times) > TICK:
            _digests[state] = digest
        return digest


_digests: dict[tuple[Any, ...], str] = {}


def kind_of(dataset: str | os.PathLike[str]) -> str:
    """The suffix of a file, which decides how it is read. Errors as `load`."""
    return _path_and_suffix(dataset)[1]


# From a name to validated rows


def _is_built_in(dataset: object) -> bool:
    return isinstance(dataset, str) and dataset in BUILT_IN


def _separated(
    dataset: str | os.PathLike[str], options: dict[str, Any]
) -> tuple[Options, dict[str, Any]]:
    """Options of files, and those of clusters. Raises ValueError for one that has no meaning."""
    names = [field.name for field in fields(Options)]
    reading = Options(**{name: options[name] for name in names if name in options})
    if _is_built_in(dataset):
        reading.refuse_header(f"{dataset}, which is built in")
        if reading.leave_out:
            raise Refused(
                f"leave_out applies to columns of files, not to {dataset}, which is built in"
            )
    return reading, {name: value for name, value in options.items() if name not in names}


def _path_and_suffix(dataset: str | os.PathLike[str]) -> tuple[Path, str]:
    """A file's path and suffix. Raises ValueError with the valid choices."""
    choices = f"built-in names: {', '.join(BUILT_IN)}; file suffixes: {', '.join(SUFFIXES)}"
    try:
        path = Path(os.path.expanduser(dataset))
        size = path.stat().st_size
    except PermissionError as error:
        raise Refused(f"{display(dataset)}: {error.strerror}") from error
    except (OSError, TypeError, ValueError):
        raise Refused(
            f"dataset {short(dataset)} is neither a built-in name nor an existing file"
            f"{nearest(dataset, BUILT_IN)} ({choices})"
        ) from None
    if not path.is_file():
        raise Refused(f"{short(dataset)} is a directory or a device, not a file ({choices})")
    suffix = next((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), None)
    if suffix is None:
        raise Refused(f"{display(dataset)}: the file has an unknown suffix ({choices})")
    if size == 0:
        raise Refused(f"{display(dataset)}: is empty")
    return path, suffix


@dataclass(frozen=True)
class Ready:
    """A fixed dataset's rows, checked, [rows, D] each, and how they become float32 in [0, 1]."""

    content: Content
    scaling: Scaling | None
    clipped: bool

    @property
    def size(self) -> int:
        """Bytes of the rows as float32."""
        return 4 * sum(rows.size for rows in self.content.parts.values())

    def convert(self, rows: np.ndarray) -> np.ndarray:
        """Some of the rows as float32 in [0, 1]."""
        if self.scaling is not None:
            return self.scaling.scaled(rows)
        values = np.ascontiguousarray(rows, dtype=np.float32)
        return values.clip(0, 1) if self.clipped else values


def _ready(dataset: str, digest: str | None, options: Options) -> Ready:
    """Read once for every state of a file; large data are not held in memory in between."""
    found = _read(dataset, digest, options)
    if found.size >= LARGE:
        _read.cache_clear()
    return found


@lru_cache(maxsize=1)
def _read(dataset: str, digest: str | None, options: Options) -> Ready:
    if digest is None:
        with file_errors(dataset):
            return _validated(Content({"data": BUILT_IN[dataset]()}), options.scale)
    path, suffix = _path_and_suffix(dataset)
    with file_errors(dataset, f"cannot be read as {suffix}"), path.open("rb") as handle:
        return _validated(SUFFIXES[suffix](handle, options), options.scale)


def _validated(content: Content, scale: bool | str) -> Ready:
    parts = content.parts
    if set(parts) != set(SPLITS) and len(parts) != 1:
        found = display(", ".join(sorted(parts)) or "nothing")
        raise Refused(
            f"holds {found}; it must hold one array, or exactly the three {', '.join(SPLITS)}"
        )
    prefixes = {name: f"{name} " if len(parts) > 1 else "" for name in parts}
    for name, array in parts.items():
        _check_array(array, prefixes[name])
    shapes = {name: array.shape[1:] for name, array in parts.items()}
    if len(set(shapes.values())) > 1:
        raise Refused(f"splits differ in the shape of a row: {shapes}")
    if len(parts) == 1 and len(next(iter(parts.values()))) < 3:
        raise Refused("has fewer than 3 rows; training, validation and test need at least one each")
    shape = next(iter(shapes.values()))
    # beside what was read: the rows ready, split, and what checking and scaling need on the way
    require(sum(array.size for array in parts.values()) * (25 if scale else 9), "its values")
    flat = {name: array.reshape(len(array), -1) for name, array in parts.items()}
    clipped = [_check_values(rows, prefixes[n], scale, content) for n, rows in flat.items()]
    ready = replace(content, parts=flat, image_shape=shape if len(shape) == 2 else None)
    # of interactions nothing is to be scaled: they are 0 or 1
    scaling = _scaling(flat, scale, content) if scale and not content.interactions else None
    return Ready(ready, scaling, any(clipped))


def _check_array(array: np.ndarray, prefix: str) -> None:
    if array.dtype.kind not in "biuf":
        raise Refused(f"{prefix}values are of type {array.dtype}; they must be real numbers")
    if array.ndim not in (2, 3):
        raise Refused(
            f"{prefix}shape is {array.shape}; it must be [rows, columns] or [rows, height, width]"
        )
    if array.size == 0:
        raise Refused(f"{prefix}shape is {array.shape}: no values")


def _check_values(rows: np.ndarray, prefix: str, scale: bool | str, content: Content) -> bool:
    """Whether rounding has put values beyond [0, 1]. Raises ValueError for any farther away."""
    if not scale and rows.min() >= 0 and rows.max() <= 1:
        return False
    finite = np.isfinite(rows)
    within = finite if scale or not finite.all() else (rows >= -TOLERANCE) & (rows <= 1 + TOLERANCE)
    if within.all():
        return not scale
    row, column = divmod(int(within.argmin()), rows.shape[1])
    where = f"row {row}"
    if content.columns:
        where += f", column {short(content.columns[column])}"
    hint = (content.doubt if row == 0 else "") or _hint(content)
    rule = (
        "values must be finite"
        if within is finite
        else "values must lie in [0, 1] (pass scale=True to scale them by minimum and maximum, or "
        "scale=columns to scale each column by its own)"
    )
    raise Refused(f"{prefix}{where} holds {rows[row, column]}; {rule}{hint}")


def _hint(content: Content) -> str:
    """How to make it a table of interactions, if one of its columns suggests that it is one."""
    some = [name for name in content.columns or () if tables.plain(name) in tables.PEOPLE]
    if not some:
        return ""
    return (
        f"; if this is a table of interactions and {some[0]} identifies users or items, call the "
        "columns user and item"
    )


def _scaling(parts: dict[str, np.ndarray], scale: bool | str, content: Content) -> Scaling:
    """The minimum and maximum over all splits together, of all values or of each column."""
    axis = 0 if scale == "columns" else None
    bounds = [
        (rows.min(axis=axis).astype(np.float64), rows.max(axis=axis).astype(np.float64))
        for rows in parts.values()
    ]
    low = np.atleast_1d(np.min([low for low, _ in bounds], axis=0))
    high = np.atleast_1d(np.max([high for _, high in bounds], axis=0))
    with np.errstate(over="ignore"):
        span = high - low
    bad = ~np.isfinite(span) if scale == "columns" else (span == 0) | ~np.isfinite(span)
    if bad.any():
        column = int(bad.argmax())
        name = content.columns[column] if content.columns else column
        where = f"column {short(name)} " if scale == "columns" else ""
        raise Refused(f"{where}cannot be scaled: maximum - minimum is {span[column]}")
    return Scaling(low, high)


@lru_cache(maxsize=64)
def _summary(dataset: str, digest: str | None, options: Options) -> Summary:
    ready = _ready(dataset, digest, options)
    content = ready.content
    sizes = {name: len(rows) for name, rows in content.parts.items()}
    rows = sum(sizes.values())
    dimension = next(iter(content.parts.values())).shape[1]
    train = sizes["train"] if len(sizes) > 1 else rows - 2 * _share(rows)
    size = Size(train, rows, dimension, held_out=content.interactions)
    notes = (*content.notes, *columns.doubtful(content))
    return Summary(size, ready.scaling, content.columns, notes)


@lru_cache(maxsize=4)
def _fixed_dataset(dataset: str, digest: str | None, options: Options, seed: int) -> Dataset:
    shared = None if digest is None else _shared_folder(dataset, digest, options, seed)
    if shared is not None and cached(shared):
        with contextlib.suppress(ValueError, KeyError):  # a file that was cut short is made anew
            return _mapped(dataset, shared, seed)
        shutil.rmtree(shared, ignore_errors=True)
    ready = _ready(dataset, digest, options)
    content = ready.content
    parts = {split: (rows, np.arange(len(rows))) for split, rows in content.parts.items()}
    if len(parts) == 1:
        ((rows, _),) = parts.values()
        parts = {split: (rows, index) for split, index in _split(len(rows), seed).items()}
    known: dict[str, Any] = {
        "image_shape": content.image_shape,
        "interactions": content.interactions,
        "scaling": ready.scaling and ready.scaling.as_json(),
    }
    if shared is not None and ready.size >= LARGE:
        with contextlib.suppress(OSError):  # no room for the files: then each process has its own
            _write_shared(shared, parts, ready.convert, known)
            tidy_cache()
            return _mapped(dataset, shared, seed)
    arrays = {split: ready.convert(rows[index]) for split, (rows, index) in parts.items()}
    return _assembled(dataset, arrays, seed, **known)


def _assembled(
    dataset: str,
    arrays: dict[str, np.ndarray],
    seed: int,
    image_shape: Sequence[int] | None,
    interactions: bool,
    scaling: dict[str, list[float]] | None,
) -> Dataset:
    held_out = None
    if interactions:
        random = stream(seed, 0, 0, 0, "split")
        random.permutation(sum(map(len, arrays.values())))  # which the split has drawn
        held_out = {split: _hold_out(arrays[split], random) for split in ("validation", "test")}
    train, validation, test = (torch.from_numpy(arrays[split]) for split in SPLITS)
    return Dataset(
        dataset,
        train,
        validation,
        test,
        image_shape=(image_shape[0], image_shape[1]) if image_shape else None,
        held_out=held_out,
        scaling=Scaling.from_json(scaling) if scaling else None,
    )


def _split(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Indices: a random 15% each for validation and test, at least one row; the rest is train."""
    order = stream(seed, 0, 0, 0, "split").permutation(rows)
    share = _share(rows)
    validation, test, train = np.split(order, [share, 2 * share])
    return {"train": train, "validation": validation, "test": test}


# Large data: ready rows lie in files that all processes map into their memory


def _shared_folder(dataset: str, digest: str, options: Options, seed: int) -> Path | None:
    how = repr((kind_of(dataset), options, seed))
    name = f"data-{digest[:32]}-{hashlib.sha256(how.encode()).hexdigest()[:16]}"
    with contextlib.suppress(OSError):  # there is no folder for them
        return cache_directory() / name
    return None


def _write_shared(
    folder: Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    convert: Callable[[np.ndarray], np.ndarray],
    known: dict[str, Any],
) -> None:
    """Write the rows at the indices of each split, a block at a time; the folder appears whole."""
    made = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for split, (rows, index) in parts.items():
            kind = np.lib.format.dtype_to_descr(np.dtype(np.float32))
            shape = (len(index), rows.shape[1])
            with (made / f"{split}.npy").open("wb") as file:  # a mapped one would be held at once
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
                for start in range(0, len(index), BLOCK):
                    file.write(convert(rows[index[start : start + BLOCK]]).data)
        (made / "known.json").write_text(json.dumps(known))
        made.rename(folder)
    except OSError:
        if not folder.exists():  # else another process has made the same meanwhile
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _mapped(dataset: str, folder: Path, seed: int) -> Dataset:
    """From files: pages that are only read are shared by all processes that map them."""
    arrays = {split: np.load(folder / f"{split}.npy", mmap_mode="c") for split in SPLITS}
    return _assembled(dataset, arrays, seed, **json.loads((folder / "known.json").read_text()))


def _share(rows: int) -> int:
    """How many of the rows are for validation, and as many for test."""
    return max(1, rows * 15 // 100)


def _hold_out(rows: np.ndarray, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For each user a random 80% of the items, rounded down but at least one; and the rest."""
    known = np.zeros_like(rows)
    for user, row in enumerate(rows):
        items = random.permutation(np.flatnonzero(row))
        known[user, items[: max(1, len(items) * 8 // 10)]] = 1
    return torch.from_numpy(known), torch.from_numpy(rows - known)
