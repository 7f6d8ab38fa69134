"""Rows that a program holds already: arrays, tensors, frames, sparse matrices, sets of items.

They go by a name made of their values, and are kept in a file beside the runs that learn from them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch.utils import data as torch_data

from evoae.data import tables
from evoae.data.content import Content, Options, check_array, without_columns
from evoae.data.files import ABOUT, SUFFIXES
from evoae.data.splits import BLOCK, SPLITS
from evoae.messages import Refused, file_errors, short
from evoae.resources import require

ACCEPTED = (
    "an array, a tensor, a DataFrame, a sparse matrix, a torch Dataset, or a dict or tuple of "
    "train, validation and test"
)
NAME = re.compile(r"rows-[0-9a-f]{16}")
FRAMES = ("polars", "pyarrow", "datasets", "modin", "cudf")  # packages with a `to_pandas`


class Rows(str):
    """The name of rows in memory, which holds them: equal for equal values, whatever their type.

    `content` is what is learnt from. Rows of a run are read from the file that keeps them when they
    are needed; pickled, they are that file's path.
    """

    words: str  # what they are called in messages
    leave_out: str
    path: Path | None
    raw: Any

    def __new__(cls, name: str, words: str = "", **known: Any) -> Rows:
        """The one object of this name, as long as anybody holds it."""
        found = HELD.get(name)
        if found is None:
            found = super().__new__(cls, name)
            vars(found).update({"leave_out": "", "path": None, "raw": None}, words=words or name)
            HELD[name] = found
        vars(found).update({k: v for k, v in known.items() if v is not None})
        return found

    def __reduce__(self) -> tuple[Callable[..., Rows], tuple[Any, ...]]:
        if self.path is None:
            return unpacked, (str(self), {"content": self.held, "words": self.words})
        return unpacked, (str(self), {"path": self.path, "leave_out": self.leave_out})

    @property
    def read(self) -> bool:
        """Whether they are in memory."""
        return "content" in vars(self)

    @property
    def held(self) -> Content:
        """The rows. Raises ValueError if they have to be read and the file is not what it was."""
        if not self.read:
            assert self.path is not None
            with file_errors(self.path, "cannot be read"):
                if not self.path.exists():
                    raise Refused(
                        "the rows of the runs beside it are not there (any more); was a run moved "
                        "without them? Pass the rows again"
                    )
                with self.path.open("rb") as handle:
                    content = SUFFIXES[".npz"](handle, Options())
                if name_of(content) != self:
                    raise Refused("damaged: it holds other rows than its name says")
            vars(self).update(content=content, raw=content)
        return vars(self)["content"]


HELD: WeakValueDictionary[str, Rows] = WeakValueDictionary()


def unpacked(name: str, known: dict[str, Any]) -> Rows:
    """Rows that were pickled."""
    return Rows(name, **known)


def named(value: Any, leave_out: str = "") -> Any:
    """Rows in memory by their name; a name or a path of a data set as it is.

    Raises ValueError, one line, for what holds no rows.
    """
    if isinstance(value, Rows):
        if value.leave_out == leave_out:
            return value
        value = value.held and value.raw
    if isinstance(value, str):
        return HELD.get(value, value)
    if not any(hasattr(value, name) for name in ("__len__", "__getitem__", "shape", "collect")):
        rule = f"str or a path, or {ACCEPTED}"
        raise ValueError(f"dataset={short(value)} is a {type(value).__name__}; it must be {rule}")
    words = described(value)
    with file_errors(words, "cannot be used as rows"):
        content = content_of(value, Options(leave_out=leave_out))
        for name, array in content.parts.items():
            check_array(array, f"{name} " if len(content.parts) > 1 else "")
        content = Content(**{**vars(content), "parts": owned(content.parts)})
    raw = value.copy() if isinstance(value, pd.DataFrame) else content
    return Rows(name_of(content), words, content=content, raw=raw, leave_out=leave_out)


def described(value: Any) -> str:
    """What a message calls it: its type, and its shape if it has one."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{kind} {list(shape)}" if isinstance(shape, tuple) else kind


def name_of(content: Content) -> str:
    """`rows-` and a digest of the values, splits, shapes and columns: the same for all types."""
    found = hashlib.sha256(repr((content.columns, content.interactions)).encode())
    for name, rows in sorted(content.parts.items()):
        found.update(repr((name, tuple(map(int, rows.shape)))).encode())
        for block in blocks(rows):
            # double precision holds all; and there is one zero
            found.update((np.ascontiguousarray(block, dtype=np.float64) + 0.0).data)
    return f"rows-{found.hexdigest()[:16]}"


def blocks(rows: Any) -> Any:
    """Some rows after the other, dense."""
    for start in range(0, rows.shape[0], BLOCK):
        block = rows[start : start + BLOCK]
        yield block.toarray() if sparse.issparse(block) else block


def owned(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Copies that nobody else can change; contiguous, in types that every machine has."""
    found = {}
    for name, rows in parts.items():
        kind = np.dtype(np.float64) if rows.dtype.itemsize > 8 else rows.dtype.newbyteorder("=")
        if sparse.issparse(rows):
            found[name] = sparse.csr_array(rows, dtype=kind, copy=True)
            continue
        if rows.flags.writeable or not rows.flags.c_contiguous or rows.dtype != kind:
            require(rows.nbytes, "its values")
            rows = np.array(rows, dtype=kind, order="C")
        found[name] = rows
    return found


# -- what people have ----------------------------------------------------------------------------


def content_of(value: Any, options: Options) -> Content:
    """The rows that an object holds. Raises ValueError for what holds none."""
    if isinstance(value, Content):
        return without_columns(value, options)
    if isinstance(value, Mapping) or (isinstance(value, tuple) and any(map(is_rows, value))):
        return of_parts(value, options)
    if isinstance(value, pd.DataFrame):
        return tables.of_frame(value, options)
    if type(value).__module__.partition(".")[0] in FRAMES and hasattr(value, "to_pandas"):
        return tables.of_frame(value.to_pandas(), options)
    if hasattr(value, "collect") and hasattr(value, "lazy"):  # of polars
        return tables.of_frame(value.collect().to_pandas(), options)
    if hasattr(value, "obs_names") and hasattr(value, "X"):
        return of_anndata(value, options)
    if sparse.issparse(value):
        return without_columns(Content({"data": sparse.csr_array(value)}), options)
    return without_columns(Content({"data": array_of(value)}), options)


def is_rows(value: Any) -> bool:
    """Whether it is an object of rows itself, not a number or a list of some."""
    return hasattr(value, "shape") or isinstance(value, torch_data.Dataset | tuple)


def array_of(value: Any) -> np.ndarray:
    """An array [rows, ...] of anything that gives one."""
    if isinstance(value, torch_data.Dataset):
        return of_items(value)
    if isinstance(value, torch.Tensor):
        return of_tensor(value)
    if isinstance(value, torch_data.DataLoader):
        raise Refused("a DataLoader shuffles and cuts; pass its .dataset")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise Refused("masked values are gaps; fill them in (.filled(...)), or remove these rows")
    if not hasattr(value, "__array__") and not isinstance(value, list | tuple):
        raise Refused(f"dataset={short(value)} must be str or a path, or {ACCEPTED}")
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "O" else array  # of Python's numbers


def of_tensor(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values, wherever and however it holds them."""
    tensor = tensor.detach()
    require(tensor.numel() * max(4, tensor.element_size()), "its values")
    tensor = tensor.to_dense().cpu().resolve_conj().resolve_neg()
    # NumPy has no bfloat16, and half precision widens without loss
    small = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if small else tensor).numpy()


def of_items(items: torch_data.Dataset) -> np.ndarray:
    """The items of a torch Dataset as rows; of (item, label), the item."""
    if isinstance(items, torch_data.TensorDataset):
        return of_tensor(items.tensors[0])
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise Refused("its items cannot be counted; stack them into one tensor first")
    count, rows = len(items), None
    for number in range(count):
        item = items[number]
        item = item[0] if isinstance(item, tuple | list) else item
        item = of_tensor(item) if isinstance(item, torch.Tensor) else np.asarray(item)
        if rows is None:
            require(count * item.nbytes, "its items")
            rows = np.empty((count, *item.shape), item.dtype)
        if item.shape != rows.shape[1:]:
            raise Refused(
                f"item {number} has shape {item.shape}, and those before have {rows.shape[1:]}"
            )
        rows[number] = item
    return np.empty((0, 0)) if rows is None else rows


def of_anndata(value: Any, options: Options) -> Content:
    """The matrix X of an AnnData, whose columns are its variables."""
    names = tuple(map(str, value.var_names))
    return without_columns(content_of(value.X, Options()), options, names)


def of_parts(value: Any, options: Options) -> Content:
    """Train, validation and test; of (rows, labels), the rows."""
    if not isinstance(value, Mapping):
        if len(value) == 2 and getattr(value[1], "ndim", 2) == 1:
            raise Refused("two arrays of which the second has one dimension; pass rows alone")
        names = SPLITS if len(value) == 3 else ("train", "test")
        if len(value) not in (2, 3):
            raise Refused(f"{len(value)} parts; pass train and test, or train, validation and test")
        value = dict(zip(names, value, strict=True))
    contents = {}
    for name, part in value.items():
        if isinstance(part, tuple) and len(part) == 2:
            part = part[0]
        with file_errors(name):
            contents[str(name)] = content_of(part, options)
    columns = {content.columns for content in contents.values()}
    if len(columns) > 1:
        raise Refused("parts differ in their columns")
    parts = {name: rows for name, content in contents.items() for rows in content.parts.values()}
    return Content(parts, columns=columns.pop() if columns else None)


# -- beside the runs -----------------------------------------------------------------------------


def write(rows: Rows, path: Path) -> None:
    """Keep rows in a file, which numpy can read too. Raises OSError."""
    content = rows.held
    about = {"columns": content.columns, "interactions": content.interactions}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(ABOUT, json.dumps(about))
        for name, array in content.parts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_2_0(file, header)
                for block in blocks(array):
                    file.write(np.ascontiguousarray(block).data)
