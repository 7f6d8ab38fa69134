"""Rows that a program holds already: arrays, tensors, frames, sparse matrices, sets of items.

They go by a name made of their values, and are kept in a file beside the runs that learn from them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
import scipy
import torch

from evoae.data import pictures, tables
from evoae.data.content import Content, Options, check_array, joined, of_parts
from evoae.data.files import ABOUT, SUFFIXES, of_tensor, sound
from evoae.data.splits import SPLITS
from evoae.messages import Refused, display, file_errors, short
from evoae.resources import require

ACCEPTED = (
    "an array, a tensor, a DataFrame, a sparse matrix, a torch Dataset, or a dict or tuple of "
    "train, validation and test"
)
OTHERS = f"str or a path, or {ACCEPTED}"
BLOCK = 1 << 20  # values that are looked at together
NAME = re.compile(r"rows-[0-9a-f]{16}")
FRAMES = ("polars", "pyarrow", "modin", "cudf")  # packages whose tables have `to_pandas`


class Rows(str):
    """The name of rows in memory, which holds them: equal for equal values, whatever their type.

    There is one object of a name, as long as anybody holds it. Rows that are kept in a file, at
    `path`, are read when they are needed, and pickled as that path.
    """

    words: str  # what messages call them
    path: Path | None
    frame: Any  # with the columns that were left out
    _content: Content | None

    def __new__(
        cls,
        name: str,
        path: Path | None = None,
        content: Content | None = None,
        frame: pd.DataFrame | None = None,
        words: str = "",
    ) -> Rows:
        """The rows of this name, which are known better now."""
        rows = HELD.setdefault(name, super().__new__(cls, name))
        given = {"words": words or name, "path": path, "_content": content, "frame": frame}
        vars(rows).update({k: v for k, v in given.items() if v is not None or k not in vars(rows)})
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        path = self.path if self.path and self.path.exists() else None
        return Rows, (str(self), path, None if path else self.content)

    @property
    def read(self) -> bool:
        """Whether they are in memory."""
        return self._content is not None

    @property
    def content(self) -> Content:
        """The rows. Raises ValueError if they have to be read and the file is not what it was."""
        if self._content is not None:
            return self._content
        assert self.path is not None
        with file_errors(self.path):
            if not self.path.exists():
                raise Refused(
                    "the rows of the runs beside it are not there (any more); was a run moved "
                    "without them? Pass the rows again"
                )
            with self.path.open("rb") as handle:
                found = SUFFIXES[".npz"](handle, Options())
            if name_of(found) != self:
                raise Refused("damaged: it holds other rows than its name says")
        return (
            found  # not held: workers have them from `datasets`, which lets them share large ones
        )


HELD: WeakValueDictionary[str, Rows] = WeakValueDictionary()


def named(value: Any, leave_out: str = "") -> Any:
    """Rows in memory by their name; a name or a path of a data set as it is.

    Raises ValueError, one line, for what holds no rows.
    """
    options = Options(leave_out=leave_out)
    if isinstance(value, Rows) and value.frame is not None:
        value = value if value.content.left_out == options.left_out else value.frame
    if isinstance(value, str):
        return HELD.get(value, value)
    if not any(hasattr(value, name) for name in ("__len__", "__getitem__", "shape", "collect")):
        kind = type(value).__name__
        raise ValueError(f"dataset={short(value)} is a {kind}; it must be {OTHERS}")
    words = described(value)
    with file_errors(words, "cannot be used as rows"):
        content = content_of(value, options)
        for name, array in content.parts.items():
            check_array(array, f"{name} " if len(content.parts) > 1 else "")
        require(4 * sum(math.prod(rows.shape) for rows in content.parts.values()), "its values")
        content = replace(content, parts=owned(content.parts))
    frame = value.copy() if isinstance(value, pd.DataFrame) else None
    return Rows(name_of(content), None, content, frame, words)


def described(value: Any) -> str:
    """What a message calls it: its type, and its shape if it has one."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{kind} {list(shape)}" if isinstance(shape, tuple) else kind


def name_of(content: Content) -> str:
    """`rows-` and a digest of the values, splits, shapes and columns: the same for all types."""
    about = (content.columns, content.interactions, content.left_out)
    found = hashlib.sha256(repr(about).encode())
    for name, rows in sorted(content.parts.items()):
        found.update(repr((name, tuple(map(int, rows.shape)))).encode())
        for block in blocks(rows):
            # double precision holds all; and there is one zero
            found.update((np.ascontiguousarray(block, dtype=np.float64) + 0.0).data)
    return f"rows-{found.hexdigest()[:16]}"


def blocks(rows: Any) -> Any:
    """Some rows after the other, dense."""
    step = max(1, BLOCK // math.prod(rows.shape[1:]))
    for start in range(0, rows.shape[0], step):
        block = rows[start : start + step]
        yield block.toarray() if scipy.sparse.issparse(block) else block


def owned(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Copies that nobody else can change; contiguous, in types that every machine has."""
    found = {}
    for name, rows in parts.items():
        kind = np.dtype(np.float64) if rows.dtype.itemsize > 8 else rows.dtype.newbyteorder("=")
        if scipy.sparse.issparse(rows):
            found[name] = scipy.sparse.csr_array(rows, dtype=kind, copy=True)
            continue
        if rows.flags.writeable or not rows.flags.c_contiguous or rows.dtype != kind:
            require(rows.nbytes, "its values")
            rows = np.array(rows, dtype=kind, order="C")
        found[name] = rows
    return found


# -- what people have ----------------------------------------------------------------------------


def content_of(value: Any, options: Options) -> Content:
    """The rows that an object holds; of a frame, without the columns that are left out.

    Raises ValueError for what holds none.
    """
    if scipy.sparse.issparse(value):
        return Content({"data": sound(value)})
    if isinstance(value, Mapping) or (isinstance(value, tuple) and any(map(is_rows, value))):
        return of_several(value, options)
    if hasattr(value, "features") and hasattr(value, "to_pandas"):
        return pictures.of_hub(value, options)
    if (frame := frame_of(value)) is not None:
        return tables.of_frame(frame, options)
    if hasattr(value, "var_names") and hasattr(value, "X"):  # of anndata
        return replace(content_of(value.X, options), columns=tuple(map(str, value.var_names)))
    return Content({"data": array_of(value)})


def frame_of(value: Any) -> pd.DataFrame | None:
    """A table of pandas, polars, Arrow and the like, or a list of dicts; None for all else."""
    value = value.collect() if hasattr(value, "collect") else value  # of polars
    if isinstance(value, np.ndarray) and value.dtype.names and value.ndim == 1:
        value = pd.DataFrame(value)
    if type(value).__module__.partition(".")[0] in FRAMES and hasattr(value, "columns"):
        value = value.to_pandas()
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        value = pd.DataFrame(value)
    return value if isinstance(value, pd.DataFrame) else None


def is_rows(value: Any) -> bool:
    """Whether it is an object of rows itself, not a number or a list of some."""
    return hasattr(value, "shape") or isinstance(value, torch.utils.data.Dataset | tuple)


def array_of(value: Any, rule: str = f"dataset={{}} must be {OTHERS}") -> np.ndarray:
    """An array [rows, ...] of anything that gives one; `rule` is the message for what does not."""
    if isinstance(value, torch.utils.data.Dataset):
        return of_items(value)
    if isinstance(value, torch.Tensor):
        return of_tensor(value)
    if isinstance(value, torch.utils.data.DataLoader):
        raise Refused("a DataLoader shuffles and cuts; pass its .dataset")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise Refused("masked values are gaps; fill them in (.filled(...)), or remove these rows")
    if not hasattr(value, "__array__") and not isinstance(value, list | tuple):
        raise Refused(rule.format(short(value)))
    try:
        array = np.asarray(value)
    except ValueError as error:
        ragged = "inhomogeneous" in str(error)
        raise (Refused("rows differ in length, or hold lists") if ragged else error) from None
    return array.astype(np.float64) if array.dtype.kind == "O" else array  # of Python's numbers


def of_items(items: torch.utils.data.Dataset) -> np.ndarray:
    """The items of a torch Dataset as rows; of (item, label), the item."""
    if isinstance(items, torch.utils.data.TensorDataset):
        return of_tensor(items.tensors[0])
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise Refused("its items cannot be counted; stack them into one tensor first")
    count, rows = len(items), None
    for number in range(count):
        item = items[number]
        item = item[0] if isinstance(item, tuple | list) else item
        if isinstance(item, Mapping):
            names = ", ".join(map(str, item))
            raise Refused(f"its items are dicts of {display(names)}; let them be the rows alone")
        item = of_tensor(item) if isinstance(item, torch.Tensor) else np.asarray(item)
        if rows is None:
            require(count * item.nbytes, "its items")
            rows = np.empty((count, *item.shape), item.dtype)
        if item.shape != rows.shape[1:]:
            raise Refused(
                f"item {number} has shape {item.shape}, and those before have {rows.shape[1:]}"
            )
        if not np.can_cast(item.dtype, rows.dtype):
            rows = rows.astype(np.result_type(item, rows))
        rows[number] = item
    return np.empty((0, 0)) if rows is None else rows


def of_several(parts: Any, options: Options) -> Content:
    """Train, validation and test; of (rows, labels), the rows."""
    if isinstance(parts, tuple):
        if len(parts) == 2 and getattr(parts[1], "ndim", 2) == 1:
            raise Refused("the second has one dimension, as labels have; pass the rows alone")
        names = SPLITS if len(parts) == 3 else ("train", "test")
        if len(parts) not in (2, 3):
            raise Refused(f"{len(parts)} parts; pass train and test, or train, validation and test")
        parts = dict(zip(names, parts, strict=True))
    known = of_parts(parts)
    found = {}
    for name, part in known.parts.items():
        part = part[0] if isinstance(part, tuple) and len(part) == 2 else part
        with file_errors(name, "cannot be used as rows"):
            found[name] = content_of(part, options)
    return replace(joined(found), notes=known.notes)


# -- beside the runs -----------------------------------------------------------------------------


def write(rows: Rows, path: Path) -> None:
    """Keep rows in a file, which numpy can read too. Raises OSError."""
    content = rows.content
    about = {
        name: getattr(content, name)
        for name in ("columns", "interactions", "left_out")
        if getattr(content, name)
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(ABOUT, json.dumps(about))
        for name, array in content.parts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                write_array(file, array.dtype, array.shape, blocks(array))


def write_array(file: IO[bytes], kind: np.dtype, shape: tuple[int, ...], blocks: Any) -> None:
    """Write an array as numpy does, some rows after the other. Raises OSError."""
    header = {"descr": kind.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    for block in blocks:
        file.write(np.ascontiguousarray(block).data)
