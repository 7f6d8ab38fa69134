"""Rows of values in [0, 1]: drawn, built in, from memory, or from a file.

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
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoae.data import columns, memory, pictures
from evoae.data.built_in import BUILT_IN, Clusters, check_whole
from evoae.data.content import Content, Options, without_columns
from evoae.data.files import SUFFIXES
from evoae.data.memory import Rows
from evoae.data.ready import Ready, validated
from evoae.data.scaling import Scaling
from evoae.data.splits import SPLITS, Dataset, Size
from evoae.messages import Refused, count, display, file_errors, short
from evoae.randomness import stream
from evoae.resources import cache_directory, cached, require, tidy_cache
from evoae.rules import nearest

FOLDER = "folder"
LARGE = 64 << 20  # bytes of rows above which processes share them
MOST_SUMMARIES = 64
TICK = 2_000_000_000  # ns: the coarsest clock by which file systems date a change


def load(dataset: Any, *, seed: int, trial: int, **options: Any) -> Dataset:
    """The dataset of one trial: a built-in name, a file's path, or rows in memory.

    `options` are the fields of `Options`, which say how a file is read, and of `Clusters`, which
    shape binary-clusters and nothing else. Those data depend on (seed, trial). All other data are
    split 70/15/15 by `seed` alone, or used as they are if the file has its own splits. Values that
    lie beyond [0, 1] by rounding alone, at most 1e-6, become 0 or 1.

    Raises ValueError, one line, for an unknown name, a bad option or a bad file.
    """
    check_whole("seed", seed, least=0)
    check_whole("trial", trial, least=0)
    dataset, reading, clusters = _separated(dataset, options)
    if dataset == "binary-clusters":
        return Clusters(**clusters).draw(seed, trial)
    return _fixed_dataset(str(dataset), _state(dataset), reading, int(seed))


@dataclass(frozen=True)
class Summary:
    """What is known of a dataset without its rows; `notes` are for the user, a line each.

    `digest`, in hexadecimal, is of the rows as float32 [N, D] in [0, 1], and of how they are split
    and scaled: the same from memory and from any kind of file. None for a built-in name.
    """

    size: Size
    digest: str | None = None
    scaling: Scaling | None = None
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """How many rows are for what, and what was done to their values."""
        size, done = self.size, self.scaling.words if self.scaling else "values as they are"
        return (
            f"{count(size.train, 'row')} of {count(size.dimension, 'column')} to train on, "
            f"{size.rows - size.train:,} for validation and test; {done}"
        )

    @property
    def described(self) -> dict[str, Any]:
        """What one has to know to use a network that was trained on them, as JSON values: names of
        columns, and the minimum and maximum that they were scaled by. None where there are none."""
        return {
            "columns": self.columns and list(self.columns),
            "scaling": self.scaling and self.scaling.as_json(),
        }


def summary(dataset: Any, **options: Any) -> Summary:
    """What is known of a dataset after all checks of `load`: a file is read to its last value.

    Nothing is drawn. Raises ValueError as `load`.
    """
    dataset, reading, clusters = _separated(dataset, options)
    if dataset == "binary-clusters":
        return Summary(Clusters(**clusters).size)
    key = (str(dataset), _state(dataset), reading)
    if key not in summaries:
        if len(summaries) >= MOST_SUMMARIES:
            del summaries[next(iter(summaries))]
        summaries[key] = _summary(*key)
    return summaries[key]


summaries: dict[tuple[str, str | None, Options], Summary] = {}  # workers are given them


def check_there(dataset: Any) -> None:
    """Raise ValueError for what is no data set, as `load` would, without reading it."""
    if not (_is_built_in(dataset) or isinstance(dataset, Rows)):
        _path_and_suffix(dataset)


def _state(dataset: Any) -> str | None:
    """What tells a file's content from that of before, or rows in memory from others; None for a
    built-in name. A file that has not changed is not read again."""
    if _is_built_in(dataset):
        return None
    if isinstance(dataset, Rows):
        return str(dataset)
    path, suffix = _path_and_suffix(dataset)
    with file_errors(dataset):
        if suffix != FOLDER:
            return _digest(path) + suffix
        states = [f"{name} {_digest(path / name)}" for name in pictures.listed(path)]
        return hashlib.sha256("\n".join(states).encode()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
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


# From a name to validated rows


def _is_built_in(dataset: object) -> bool:
    return isinstance(dataset, str) and dataset in BUILT_IN


def _separated(dataset: Any, options: dict[str, Any]) -> tuple[Any, Options, dict[str, Any]]:
    """The data set, rows in memory by their name; the options of reading; those of clusters.

    Raises ValueError for one that has no meaning.
    """
    names = [field.name for field in fields(Options)]
    reading = Options(**{name: options[name] for name in names if name in options})
    if not isinstance(dataset, str | os.PathLike) and hasattr(dataset, "__len__"):
        dataset = memory.named(dataset, reading.leave_out)
    if _is_built_in(dataset):
        reading.only(f"{dataset}, which is built in")
    return dataset, reading, {name: v for name, v in options.items() if name not in names}


def _path_and_suffix(dataset: Any) -> tuple[Path, str]:
    """A file's path and suffix. Raises ValueError with the valid choices."""
    choices = (
        f"built-in names: {', '.join(BUILT_IN)}; file suffixes: {', '.join(SUFFIXES)}; or a folder "
        "of pictures"
    )
    try:
        path = Path(os.path.expanduser(dataset) or "\0")  # nothing is no folder
        found = path.stat()
    except PermissionError as error:
        raise Refused(f"{display(dataset)}: {error.strerror}") from error
    except (OSError, TypeError, ValueError):
        raise Refused(
            f"dataset {short(dataset)} is neither a built-in name nor an existing file"
            f"{nearest(dataset, BUILT_IN)} ({choices})"
        ) from None
    if stat.S_ISDIR(found.st_mode):
        return path, FOLDER
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{short(dataset)} is a device, not a file ({choices})")
    suffix = next((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), None)
    if suffix is None:
        raise Refused(
            f"{display(dataset)}: the file has an unknown suffix; save it as one of these, or read "
            f"it in Python and pass the rows as dataset ({choices})"
        )
    if not found.st_size:
        raise Refused(f"{display(dataset)}: is empty")
    return path, suffix


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
            return validated(Content({"data": BUILT_IN[dataset]()}), options.scale)
    if dataset in memory.HELD:
        rows = memory.HELD[dataset]
        with file_errors(rows.words):
            options.only(rows.words, "leave_out")
            return validated(without_columns(rows.content, options), options.scale)
    path, suffix = _path_and_suffix(dataset)
    if suffix == FOLDER:
        with file_errors(dataset, "cannot be read as a folder of data"):
            return validated(pictures.read(path, options), options.scale)
    with file_errors(dataset, f"cannot be read as {suffix}"), path.open("rb") as handle:
        return validated(SUFFIXES[suffix](handle, options), options.scale)


def _summary(dataset: str, state: str | None, options: Options) -> Summary:
    ready = _ready(dataset, state, options)
    content = ready.content
    sizes = {name: len(rows) for name, rows in content.parts.items()}
    rows = sum(sizes.values())
    dimension = next(iter(content.parts.values())).shape[1]
    train = sizes.get("train", rows)
    if len(sizes) < 3:
        train -= _share(train) * (3 - len(sizes))
    size = Size(train, rows, dimension, held_out=content.interactions)
    drawn = ("validation is drawn from train, for there is none",) if len(sizes) == 2 else ()
    notes = (*content.notes, *drawn, *columns.doubtful(content))
    digest = None if state is None else ready.digest()
    return Summary(size, digest, ready.scaling, content.columns, notes)


@lru_cache(maxsize=4)
def _fixed_dataset(dataset: str, state: str | None, options: Options, seed: int) -> Dataset:
    shared = None if state is None else _shared_folder(state, options, seed)
    if shared is not None and cached(shared):
        with contextlib.suppress(ValueError, KeyError):  # a file that was cut short is made anew
            return _mapped(dataset, shared, seed)
        shutil.rmtree(shared, ignore_errors=True)
    ready = _ready(dataset, state, options)
    content = ready.content
    parts = {split: (rows, np.arange(len(rows))) for split, rows in content.parts.items()}
    if len(parts) < 3:
        source = "train" if len(parts) == 2 else next(iter(parts))
        rows, index = parts.pop(source)
        drawn = _split(len(index), seed, tuple(name for name in SPLITS if name not in parts))
        parts |= {split: (rows, index) for split, index in drawn.items()}
    known: dict[str, Any] = {
        "image_shape": content.image_shape,
        "interactions": content.interactions,
        "scaling": ready.scaling and ready.scaling.as_json(),
    }
    if shared is not None and ready.size >= LARGE:
        with contextlib.suppress(OSError):  # no room for the files: then each process has its own
            _write_shared(shared, ready, parts, known)
            tidy_cache()
            return _mapped(dataset, shared, seed)
    arrays = {split: ready.taken(rows, index) for split, (rows, index) in parts.items()}
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
        image_shape=tuple(image_shape) if image_shape else None,
        held_out=held_out,
        scaling=Scaling.from_json(scaling) if scaling else None,
    )


def _split(rows: int, seed: int, names: Sequence[str] = SPLITS) -> dict[str, np.ndarray]:
    """Indices: a random 15% each for validation and test, at least one row; the rest is train.

    Where the test rows are given, `names` has no test.
    """
    order = stream(seed, 0, 0, 0, "split").permutation(rows)
    share = _share(rows)
    held_out = names[1:]
    cuts = [share * (n + 1) for n in range(len(held_out))]
    *parts, train = np.split(order, cuts)
    return {names[0]: train, **dict(zip(held_out, parts, strict=True))}


# Large data: ready rows lie in files that all processes map into their memory


def _shared_folder(state: str, options: Options, seed: int) -> Path | None:
    how = hashlib.sha256(repr((state, options, seed)).encode()).hexdigest()
    name = f"data-{how[:48]}"
    with contextlib.suppress(OSError):  # there is no folder for them
        return cache_directory() / name
    return None


def _write_shared(
    folder: Path,
    ready: Ready,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    known: dict[str, Any],
) -> None:
    """Write the rows of each split, which are never in memory whole; the folder appears whole."""
    made = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for split, (rows, index) in parts.items():
            with (made / f"{split}.npy").open("wb") as file:
                shape = len(index), rows.shape[1]
                memory.write_array(file, np.dtype(np.float32), shape, ready.blocks(rows, index))
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
