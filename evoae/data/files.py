"""Readers of data files: an open file in, arrays out.

No file is trusted to be what its name says, to be as large as it says, or to be small because it
lies packed: none can run code, none takes more memory than there is, whatever is wrong is `Refused`
or an exception of the library that reads.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import parquet

from evoae.messages import Refused, shown
from evoae.resources import in_words, require

NUMBERS = "values must be numbers"


@dataclass(frozen=True)
class Content:
    """Arrays named train, validation and test, or a single array of any name, yet to be split."""

    parts: dict[str, np.ndarray]
    image_shape: tuple[int, int] | None = None
    interactions: bool = False


def _npy(handle: BinaryIO) -> Content:
    """One array, as numpy.save writes it."""
    size = handle.seek(0, io.SEEK_END)
    require(size, "its values")
    handle.seek(0)
    return Content({"data": _array(handle, size)})


def _npz(handle: BinaryIO) -> Content:
    """One array, or train, validation and test, as numpy.savez writes them."""
    if not zipfile.is_zipfile(handle):
        raise Refused("is truncated or not an .npz archive")
    with zipfile.ZipFile(handle) as archive:
        members = archive.infolist()
        # A member is never unpacked beyond the size that it announces.
        require(sum(member.file_size for member in members), "its values")
        arrays = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused(f"{shown(member.filename)} is packed as np.savez never does it")
            with archive.open(member) as unpacked:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(unpacked, member.file_size)
    return Content(arrays)


HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _array(handle: BinaryIO, size: int) -> np.ndarray:
    """The array of an .npy file of `size` bytes, unless its header announces more than they hold.

    NumPy takes memory for what is announced.
    """
    version = np.lib.format.read_magic(handle)
    if version not in HEADERS:
        raise Refused("holds records with names; values must be real numbers")
    shape, _, kind = HEADERS[version](handle)
    announced, held = math.prod(shape) * kind.itemsize, size - handle.tell()
    if min(shape, default=0) < 0 or (announced > held and not kind.hasobject):
        raise Refused(
            f"is truncated: its header announces {in_words(announced)} of values, "
            f"it holds {in_words(held)}"
        )
    handle.seek(0)
    return np.lib.format.read_array(handle, allow_pickle=False)


def _pt(handle: BinaryIO) -> Content:
    """A tensor, or a dict of train, validation and test, as torch.save writes them."""
    rule = "save a tensor, or a dict of the tensors train, validation and test"
    if zipfile.is_zipfile(handle):
        with zipfile.ZipFile(handle) as archive:  # as all but old versions of torch write it
            require(sum(member.file_size for member in archive.infolist()), "its records")
    handle.seek(0)
    try:
        loaded = torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Refused(
            f"is damaged, or needs pickle to be read, which is never done; {rule}"
        ) from error
    tensors = loaded if isinstance(loaded, dict) else {"data": loaded}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise Refused(f"holds {type(tensor).__name__} under {shown(name)}; {rule}")
    # Strides may let one stored value stand for any number of values.
    require(sum(t.numel() * max(4, t.itemsize) for t in tensors.values()), "its values")
    return Content({str(name): _as_array(tensor) for name, tensor in tensors.items()})


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    # NumPy has no bfloat16, and half precision widens without loss.
    return (
        tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    ).numpy()


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _idx(handle: BinaryIO) -> Content:
    """One array of numbers in the format of MNIST.

    Of a packed file no more is unpacked than its header announces, and one byte.
    """
    head = handle.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise Refused("is not an IDX file: it must start with 0, 0, a type code and a rank")
    kind, rank = np.dtype(IDX_TYPES[head[2]]), head[3]
    sizes = handle.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise Refused(f"is truncated: {rank} sizes are announced, the file ends before the last")
    shape = struct.unpack(f">{rank}I", sizes)
    announced = math.prod(shape) * kind.itemsize
    require(announced, "its values")
    content = handle.read(announced + 1)
    if len(content) > announced:
        raise Refused(f"holds more bytes of data than the {announced} that its header says")
    if len(content) < announced:
        raise Refused(f"holds {len(content)} bytes of data; its header says {announced}")
    return Content({"data": np.frombuffer(content, kind).reshape(shape)})


def _idx_gz(handle: BinaryIO) -> Content:
    """One array of numbers in the format of MNIST, packed by gzip."""
    with gzip.open(handle) as unpacked:
        return _idx(unpacked)


def _parquet(handle: BinaryIO) -> Content:
    """A table of numbers, or of users and items.

    Columns are read if their types and number of rows say that they fit. A text that stands in many
    rows lies in the file once, and is read once.
    """
    metadata = parquet.read_metadata(handle)
    schema = metadata.schema.to_arrow_schema()
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    kinds = {field.name: field.type for field in schema if field.name not in index}
    if not metadata.num_rows:
        raise Refused("holds no rows")
    interactions = {"user", "item"} <= kinds.keys()
    if interactions:
        kinds = {name: kinds[name] for name in ("user", "item")}
    texts = [name for name, kind in kinds.items() if interactions and _is_text(kind)]
    for name, kind in kinds.items():
        if name not in texts and not _is_numeric(kind):
            rule = "users and items must be numbers or text" if interactions else NUMBERS
            raise Refused(f"column {shown(name)} holds values of type {shown(str(kind))}; {rule}")
    rows = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    # as arrow reads it, as pandas holds it, and as one table
    require(24 * max(rows, metadata.num_rows) * len(kinds), "its values")
    handle.seek(0)
    file = parquet.ParquetFile(handle, metadata=metadata, read_dictionary=texts)
    return _table(file.read(columns=[*kinds] if interactions or index else None).to_pandas())


def _is_text(kind: pa.DataType) -> bool:
    of_texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return any(is_kind(kind) for is_kind in of_texts)


def _is_numeric(kind: pa.DataType) -> bool:
    of_numbers = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return any(is_kind(kind) for is_kind in of_numbers)


def _csv(handle: BinaryIO) -> Content:
    """A table of numbers, or of users and items, with a line of names or without.

    Read twice: once to see that all rows are as wide as the first, then by pandas. Only a first
    line without a single number is a header: a first row with one bad cell must be refused as data,
    not dropped.
    """
    lines = csv.reader(_lines(handle), skipinitialspace=True)
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
    count = 0 if header_lines else 1
    for row in rows:
        if len(row) != len(first):
            raise Refused(f"row {count} has {len(row)} cells; the first line has {len(first)}")
        count += 1
    # the text, where each of its cells begins, and its numbers, as pandas holds them and as a table
    require(2 * handle.tell() + 32 * count * len(first), "its values")
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


def _lines(handle: BinaryIO) -> Iterator[str]:
    """The lines of a text; a text wrapper would close the file it wraps."""
    for line in handle:
        if len(line) > 2**20:
            require(30 * len(line), "the cells of one line")
        yield line.decode("utf-8-sig")


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
            raise Refused(f"row {row}, column {shown(name)} holds {shown(value)}; {NUMBERS}")
    _refuse_missing(frame)
    return Content({"data": frame.to_numpy(dtype=np.float64)})


def _interactions(pairs: pd.DataFrame) -> Content:
    """Users by items, both sorted: 1 where a user has an item. Repeated pairs count once."""
    _refuse_missing(pairs)
    (users, height), (items, width) = _ranked(pairs["user"]), _ranked(pairs["item"])
    require(4 * height * width, f"the values of {height} users by {width} items")
    rows = np.zeros((height, width), dtype=np.float32)
    rows[users, items] = 1
    return Content({"data": rows}, interactions=True)


def _ranked(column: pd.Series) -> tuple[np.ndarray, int]:
    """The place of each entry among the sorted distinct ones, and the number of these."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = column.cat.remove_unused_categories().cat
        ranks, _ = pd.factorize(names.categories, sort=True)
        return ranks[names.codes], len(ranks)
    places, distinct = pd.factorize(column, sort=True)
    return places, len(distinct)


def _refuse_missing(frame: pd.DataFrame) -> None:
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = divmod(int(missing.argmax()), missing.shape[1])
        raise Refused(f"row {row}, column {shown(list(frame)[column])} is empty or NaN")


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
