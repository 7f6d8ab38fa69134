"""Where rows of values in [0, 1] come from: drawn, built in, or a file.

`binary-clusters` is the paper's data and is drawn anew in each trial. Everything else is
one fixed table that all trials share, split by the seed alone. Files are read without running any
code they hold, and whatever is wrong with one becomes a ValueError of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoae.data.built_in import BUILT_IN, Clusters, check_flag, check_whole
from evoae.data.files import SUFFIXES, Content
from evoae.data.splits import BLOCK, SPLITS, Dataset, Size
from evoae.messages import Refused, named, reading, shown
from evoae.randomness import stream
from evoae.resources import cache_directory, cached, require, tidy_cache

LARGE = 64 << 20  # bytes of rows from which on they are shared between processes


def load(dataset: str, *, seed: int, trial: int, scale: bool = False, **clusters: Any) -> Dataset:
    """The dataset of one trial: a built-in name or a file's path.

    `clusters` are fields of `Clusters`: they shape binary-clusters and touch nothing else; those
    data depend on (seed, trial). All other data are split 70/15/15 by `seed` alone, or used as they
    stand if the file has its own splits; `scale` maps their minimum to 0 and their maximum to 1.
    ValueError, one line, for an unknown name, a bad option or a bad file.
    """
    check_whole("seed", seed, least=0)
    check_whole("trial", trial, least=0)
    check_flag("scale", scale)
    if dataset == "binary-clusters":
        return Clusters(**clusters).draw(seed, trial)
    return _fixed_dataset(dataset, _stamp(dataset), scale, int(seed))


def measure(dataset: str, *, scale: bool = False, **clusters: Any) -> Size:
    """The size of a dataset after checking all that `load` would: a file is read to its last value.

    Nothing is drawn. ValueError as in `load`.
    """
    check_flag("scale", scale)
    if dataset == "binary-clusters":
        return Clusters(**clusters).size
    return _fixed_size(dataset, _stamp(dataset), scale)


def check(dataset: str, *, scale: bool = False, **clusters: Any) -> int:
    """D, the dimension, after checking all that `load` would. ValueError as in `load`."""
    return measure(dataset, scale=scale, **clusters).dimension


def fingerprint(dataset: str) -> str | None:
    """SHA-256 of a file's content in hexadecimal; None for a built-in name. Errors as `load`."""
    if _is_built_in(dataset):
        return None
    path, _ = _path_and_suffix(dataset)
    with reading(dataset), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# From a name to validated rows


def _is_built_in(dataset: str) -> bool:
    return isinstance(dataset, str) and dataset in BUILT_IN


def _path_and_suffix(dataset: str) -> tuple[Path, str]:
    """Where a file is and how its name ends, or ValueError with the valid choices."""
    choices = f"built-in names: {', '.join(BUILT_IN)}; file suffixes: {', '.join(SUFFIXES)}"
    try:
        path = Path(dataset)
        size = path.stat().st_size
    except PermissionError as error:
        raise Refused(f"{named(dataset)}: {error.strerror}") from error
    except (OSError, TypeError, ValueError):
        raise Refused(
            f"dataset {shown(dataset)} is neither a built-in name nor an existing file ({choices})"
        ) from None
    if not path.is_file():
        raise Refused(f"{shown(dataset)} is a directory or a device, not a file ({choices})")
    suffix = next((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), None)
    if suffix is None:
        raise Refused(f"{named(dataset)}: the file's name ends in no known suffix ({choices})")
    if size == 0:
        raise Refused(f"{named(dataset)}: is empty")
    return path, suffix


def _stamp(dataset: str) -> tuple[str, int, int] | None:
    """What tells one state of a file from another in the caches; None for built-in names."""
    if _is_built_in(dataset):
        return None
    path, _ = _path_and_suffix(dataset)
    state = path.stat()
    return str(path.resolve()), state.st_mtime_ns, state.st_size


Converter = Callable[[np.ndarray], np.ndarray]


def _content(dataset: str, scale: bool) -> tuple[Content, Converter]:
    """A fixed dataset's rows, checked, [rows, D] each, and what makes float32 in [0, 1] of some."""
    if _is_built_in(dataset):
        with reading(dataset):
            return _validated(Content({"data": BUILT_IN[dataset]()}), scale)
    path, suffix = _path_and_suffix(dataset)
    with reading(dataset, f"cannot be read as {suffix}"), path.open("rb") as handle:
        return _validated(SUFFIXES[suffix](handle), scale)


def _validated(content: Content, scale: bool) -> tuple[Content, Converter]:
    parts = content.parts
    if set(parts) != set(SPLITS) and len(parts) != 1:
        found = named(", ".join(sorted(parts)) or "nothing")
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
        raise Refused("has fewer than 3 rows, and train, validation and test need one each")
    shape = next(iter(shapes.values()))
    # beside what was read: the rows ready, split, and what checking and scaling need on the way
    require(sum(array.size for array in parts.values()) * (25 if scale else 9), "its values")
    flat = {name: array.reshape(len(array), -1) for name, array in parts.items()}
    for name, rows in flat.items():
        _check_values(rows, prefixes[name], scale)
    ready = replace(content, parts=flat, image_shape=shape if len(shape) == 2 else None)
    return ready, _scaler(flat) if scale else _as_float32


def _as_float32(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.float32)


def _check_array(array: np.ndarray, prefix: str) -> None:
    if array.dtype.kind not in "biuf":
        raise Refused(f"{prefix}values are of type {array.dtype}; they must be real numbers")
    if array.ndim not in (2, 3):
        raise Refused(
            f"{prefix}shape is {array.shape}; it must be [rows, columns] or [rows, height, width]"
        )
    if array.size == 0:
        raise Refused(f"{prefix}shape is {array.shape}: no values")


def _check_values(rows: np.ndarray, prefix: str, scale: bool) -> None:
    if not scale and rows.min() >= 0 and rows.max() <= 1:
        return
    finite = np.isfinite(rows)
    valid = finite if scale or not finite.all() else (rows >= 0) & (rows <= 1)
    if valid.all():
        return
    row, column = divmod(int(valid.argmin()), rows.shape[1])
    rule = (
        "values must be finite"
        if valid is finite
        else "values must lie in [0, 1] (pass scale=True to scale them by minimum and maximum)"
    )
    raise Refused(f"{prefix}row {row} holds {rows[row, column]}; {rule}")


def _scaler(parts: dict[str, np.ndarray]) -> Converter:
    """(x - minimum) / (maximum - minimum), over all splits together."""
    low = min(float(rows.min()) for rows in parts.values())
    span = max(float(rows.max()) for rows in parts.values()) - low
    if span == 0 or not math.isfinite(span):
        raise Refused(f"cannot be scaled: maximum - minimum is {span}")
    return lambda rows: _as_float32((rows.astype(np.float64) - low) / span)


@lru_cache(maxsize=64)
def _fixed_size(dataset: str, stamp: tuple[str, int, int] | None, scale: bool) -> Size:
    content, _ = _content(dataset, scale)
    sizes = {name: len(rows) for name, rows in content.parts.items()}
    rows = sum(sizes.values())
    dimension = next(iter(content.parts.values())).shape[1]
    train = sizes["train"] if len(sizes) > 1 else rows - 2 * _share(rows)
    return Size(train, rows, dimension, held_out=content.interactions)


@lru_cache(maxsize=4)
def _fixed_dataset(
    dataset: str, stamp: tuple[str, int, int] | None, scale: bool, seed: int
) -> Dataset:
    shared = None if stamp is None else _shared_folder(stamp, scale, seed)
    if shared is not None and cached(shared):
        with contextlib.suppress(ValueError):  # a file that was cut short is made anew
            return _mapped(dataset, shared, seed)
        shutil.rmtree(shared, ignore_errors=True)
    content, convert = _content(dataset, scale)
    parts = {split: (rows, np.arange(len(rows))) for split, rows in content.parts.items()}
    if len(parts) == 1:
        rows = next(iter(content.parts.values()))
        parts = {split: (rows, index) for split, index in _split(len(rows), seed).items()}
    known = {"image_shape": content.image_shape, "interactions": content.interactions}
    if shared is not None and 4 * sum(len(i) * r.shape[1] for r, i in parts.values()) >= LARGE:
        with contextlib.suppress(OSError):  # no room for the files: then each process has its own
            _write_shared(shared, parts, convert, known)
            tidy_cache()
            return _mapped(dataset, shared, seed)
    arrays = {split: convert(rows[index]) for split, (rows, index) in parts.items()}
    return _assembled(dataset, arrays, seed, **known)


def _assembled(
    dataset: str,
    arrays: dict[str, np.ndarray],
    seed: int,
    image_shape: Sequence[int] | None,
    interactions: bool,
) -> Dataset:
    held_out = None
    if interactions:
        random = stream(seed, 0, 0, 0, "split")
        random.permutation(sum(map(len, arrays.values())))  # which the split has drawn
        held_out = {split: _hold_out(arrays[split], random) for split in ("validation", "test")}
    tensors = {split: torch.from_numpy(arrays[split]) for split in SPLITS}
    image_shape = tuple(image_shape) if image_shape else None
    return Dataset(str(dataset), **tensors, image_shape=image_shape, held_out=held_out)


def _split(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Indices: a random 15% each for validation and test, at least one row; the rest is train."""
    order = stream(seed, 0, 0, 0, "split").permutation(rows)
    share = _share(rows)
    validation, test, train = np.split(order, [share, 2 * share])
    return {"train": train, "validation": validation, "test": test}


# Large data: ready rows lie in files that all processes map into their memory


def _shared_folder(stamp: tuple[str, int, int], scale: bool, seed: int) -> Path | None:
    path, *state = stamp
    keys = (hashlib.sha256(repr(k).encode()).hexdigest()[:16] for k in (path, (state, scale, seed)))
    with contextlib.suppress(OSError):  # there is no folder for them
        return cache_directory() / "data-{}-{}".format(*keys)
    return None


def _write_shared(
    folder: Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    convert: Converter,
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
