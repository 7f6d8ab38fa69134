"""Readers of data files: an open file in, arrays out.

No file is trusted to be what its name says, and none can run code: whatever is wrong is `Refused`.
"""

from __future__ import annotations

import csv
import gzip
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch


class Refused(ValueError):
    """What is wrong with a file's content; `_read` and `_content` put the file's name before it."""


@dataclass(frozen=True)
class Content:
    """Arrays named train, validation and test, or a single array of any name, yet to be split."""

    parts: dict[str, np.ndarray]
    image_shape: tuple[int, int] | None = None
    interactions: bool = False


def _npy(handle: BinaryIO) -> Content:
    return Content({"data": np.lib.format.read_array(handle, allow_pickle=False)})


def _npz(handle: BinaryIO) -> Content:
    if not zipfile.is_zipfile(handle):
        raise Refused("is truncated or not an .npz archive")
    handle.seek(0)
    with np.load(handle, allow_pickle=False) as archive:
        return Content({key: np.asarray(archive[key]) for key in archive.files})


def _pt(handle: BinaryIO) -> Content:
    rule = "save a tensor, or a dict of the tensors train, validation and test"
    try:
        loaded = torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Refused(
            f"is damaged, or needs pickle to be read, which is never done; {rule}"
        ) from error
    tensors = loaded if isinstance(loaded, dict) else {"data": loaded}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise Refused(f"holds {type(tensor).__name__} under {name!r}; {rule}")
    return Content({str(name): _as_array(tensor) for name, tensor in tensors.items()})


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    # NumPy has no bfloat16, and half precision widens without loss.
    return (
        tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    ).numpy()


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _idx(handle: BinaryIO) -> Content:
    content = handle.read()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise Refused("is not an IDX file: it must start with 0, 0, a type code and a rank")
    kind, rank = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise Refused(f"is truncated: {rank} sizes are announced, the file ends before the last")
    shape = struct.unpack(f">{rank}I", content[4:start])
    announced = math.prod(shape) * kind.itemsize
    if len(content) - start != announced:
        raise Refused(f"holds {len(content) - start} bytes of data; its header says {announced}")
    return Content({"data": np.frombuffer(content, kind, offset=start).reshape(shape)})


def _idx_gz(handle: BinaryIO) -> Content:
    with gzip.open(handle) as unpacked:
        return _idx(unpacked)


def _parquet(handle: BinaryIO) -> Content:
    return _table(pd.read_parquet(handle, engine="pyarrow"))


def _csv(handle: BinaryIO) -> Content:
    """Read twice: once to see that all rows are as wide as the first, then by pandas.

    Only a first line without a single number is a header: a first row with one bad cell must be
    refused as data, not dropped.
    """
    # Decoded line by line, because a text wrapper would close the file it wraps.
    lines = csv.reader((line.decode("utf-8-sig") for line in handle), skipinitialspace=True)
    rows = (row for row in lines if row not in ([], [""]))
    first = next(rows, None)
    if first is None:
        raise Refused("holds no rows")
    if len(first) > 2 and first == [str(column) for column in range(len(first))]:
        raise Refused("begins with a line of column numbers; leave it out (pandas: header=False)")
    if not first[0].strip() and not {"user", "item"} <= set(first):
        raise Refused(
            "begins with an empty cell, as where row numbers were written, too; leave them out "
            "(pandas: index=False)"
        )
    header_lines = 0 if any(map(_is_number, first)) else lines.line_num
    for index, row in enumerate(rows, start=0 if header_lines else 1):
        if len(row) != len(first):
            raise Refused(f"row {index} has {len(row)} cells; the first line has {len(first)}")
    handle.seek(0)
    try:
        frame = pd.read_csv(
            handle,
            header=None,
            skiprows=header_lines,
            encoding="utf-8-sig",
            skipinitialspace=True,
            keep_default_na=False,  # an item may well be called NA
            na_values=[""],
            low_memory=False,
        )
    except pd.errors.EmptyDataError:
        raise Refused("holds no rows") from None
    return _table(frame.set_axis(first, axis=1) if header_lines else frame)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false")
    return True


def _table(frame: pd.DataFrame) -> Content:
    if frame.empty:
        raise Refused("holds no rows")
    if {"user", "item"} <= set(frame.columns):
        return _interactions(frame[["user", "item"]])
    for name in frame:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
            row = int(text.to_numpy().argmax())
            value = column.iloc[row]
            raise Refused(f"row {row}, column {name!r} holds {value!r}; values must be numbers")
    _refuse_missing(frame)
    return Content({"data": frame.to_numpy(dtype=np.float64)})


def _interactions(pairs: pd.DataFrame) -> Content:
    """Users by items, both sorted: 1 where a user has an item. Repeated pairs count once."""
    _refuse_missing(pairs)
    users, user_names = pd.factorize(pairs["user"], sort=True)
    items, item_names = pd.factorize(pairs["item"], sort=True)
    rows = np.zeros((len(user_names), len(item_names)), dtype=np.float32)
    rows[users, items] = 1
    return Content({"data": rows}, interactions=True)


def _refuse_missing(frame: pd.DataFrame) -> None:
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = divmod(int(missing.argmax()), missing.shape[1])
        raise Refused(f"row {row}, column {list(frame)[column]!r} is empty or NaN")


SUFFIXES: dict[str, Callable[[BinaryIO], Content]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
    ".pt": _pt,
    ".idx": _idx,
    ".idx.gz": _idx_gz,
    "-ubyte": _idx,
    "-ubyte.gz": _idx_gz,
}
