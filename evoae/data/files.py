"""Readers of data files: an open file in, arrays out.

No file is trusted: none can run code, or take more memory than there is, however large or small it
claims to be. Whatever is wrong is `Refused`, or an exception of the library that reads.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import numpy as np
import scipy
import torch

from evoae.data import tables, text
from evoae.data.content import (
    Content,
    Handle,
    Options,
    Reader,
    check_array,
    of_parts,
    package,
    without_columns,
)
from evoae.messages import Refused, display, short
from evoae.resources import in_words, require

ABOUT = "about.json"  # what evoae keeps beside the arrays of rows that were in memory


def _npy(handle: IO[bytes], options: Options) -> Content:
    """One array, as numpy.save writes it."""
    size = handle.seek(0, io.SEEK_END)
    require(size, "its values")
    handle.seek(0)
    return Content({"data": _array(handle, size)})


def _npz(handle: IO[bytes], options: Options) -> Content:
    """Arrays as numpy.savez writes them: one, or train, validation and test, or Keras's x_train."""
    if not zipfile.is_zipfile(handle):
        raise Refused("is truncated or not an .npz archive")
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {}
    with zipfile.ZipFile(handle) as archive:
        members = archive.infolist()
        # A member is never unpacked beyond the size that it announces.
        require(sum(member.file_size for member in members), "its values")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused(
                    f"{short(member.filename)} is compressed in a way that numpy.savez does not use"
                )
            if member.filename == ABOUT:
                found = json.loads(archive.read(member))
                about = {k: found[k] for k in ("columns", "interactions", "left_out") if k in found}
                continue
            with archive.open(member) as unpacked:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(unpacked, member.file_size)
    if {"format", "shape", "data"} <= set(arrays):  # of scipy.sparse.save_npz
        handle.seek(0)
        return Content({"data": sound(scipy.sparse.load_npz(handle))})
    known: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in about.items()}
    return replace(of_parts(arrays, options.key), **known)


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _array(handle: IO[bytes], size: int) -> np.ndarray:
    """The array of an .npy file of `size` bytes, unless its header announces more than they hold.

    NumPy takes memory for what is announced.
    """
    version = np.lib.format.read_magic(handle)
    if version not in HEADERS:
        raise Refused("holds records with named fields; values must be real numbers")
    shape, _, kind = HEADERS[version](handle)
    announced, held = math.prod(shape) * kind.itemsize, size - handle.tell()
    if min(shape, default=0) < 0 or (announced > held and not kind.hasobject):
        raise Refused(
            f"is truncated: its header announces {in_words(announced)} of values, "
            f"it holds {in_words(held)}"
        )
    if kind.hasobject:
        raise Refused("holds Python objects, which need pickle; save numbers of one type")
    handle.seek(0)
    return np.lib.format.read_array(handle, allow_pickle=False)


def _pt(handle: IO[bytes], options: Options) -> Content:
    """A tensor, or a dict of train, validation and test, as torch.save writes them."""
    rule = "save a tensor, or a dict of the tensors train, validation and test"
    if zipfile.is_zipfile(handle):
        with zipfile.ZipFile(handle) as archive:  # as all but old versions of torch write it
            require(sum(member.file_size for member in archive.infolist()), "its records")
    handle.seek(0)
    try:
        loaded = torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Refused(f"is damaged, or needs pickle, which evoae never uses; {rule}") from error
    tensors = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            where = f" under {short(name)}" if isinstance(loaded, dict) else ""
            raise Refused(f"holds a {type(tensor).__name__}{where}; {rule}")
    return of_parts({str(name): of_tensor(t) for name, t in tensors.items()}, options.key)


def of_tensor(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values, wherever and however it holds them."""
    tensor = tensor.detach()
    # strides, and what is sparse, may let one stored value stand for any number of values
    require(tensor.numel() * max(4, tensor.itemsize), "its values")
    tensor = tensor.to_dense().cpu().resolve_conj().resolve_neg()
    # NumPy has no bfloat16, and half precision widens without loss
    small = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.float() if small else tensor).numpy()


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _idx(handle: Handle, options: Options) -> Content:
    """One array of numbers in the format of MNIST.

    Of a packed file no more is unpacked than its header announces, and one byte.
    """
    head = handle.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise Refused("is not an IDX file: it must start with 0, 0, a type code and a rank")
    kind, rank = np.dtype(IDX_TYPES[head[2]]), head[3]
    sizes = handle.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise Refused(
            f"is truncated: its header announces {rank} sizes, but the file ends before the last"
        )
    shape = struct.unpack(f">{rank}I", sizes)
    announced = math.prod(shape) * kind.itemsize
    require(announced, "its values")
    content = handle.read(announced + 1)
    if len(content) > announced:
        raise Refused(f"holds more bytes of data than the {announced} that its header announces")
    if len(content) < announced:
        raise Refused(f"holds {len(content)} bytes of data; its header announces {announced}")
    return Content({"data": np.frombuffer(content, kind).reshape(shape)})


def sound(matrix: Any) -> scipy.sparse.csr_array:
    """A sparse matrix by rows, none of whose entries lies outside."""
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    return scipy.sparse.csr_array(matrix)


# -- HDF5 ----------------------------------------------------------------------------------------


def _hdf5(handle: IO[bytes], options: Options) -> Content:
    """One array, or train, validation and test, of an HDF5 file; `key` takes one of several."""
    with package("h5py").File(handle, "r") as file:
        found: dict[str, Any] = {}
        lists: list[str] = []

        def visit(name: str, entry: Any) -> None:
            if getattr(entry, "ndim", 0) > 1 or (name == options.key and hasattr(entry, "shape")):
                found[name] = entry
            elif hasattr(entry, "shape"):
                lists.append(name)

        file.visititems(visit)  # which follows no link out of the file
        content = of_parts(found, options.key)
        for array in content.parts.values():  # before it is read
            check_array(array)
            require(array.size * array.dtype.itemsize, "its values")
        if lists and not options.key:
            note = f"left out, as they are no tables: {display(', '.join(lists))}"
            content = replace(content, notes=(*content.notes, note))
        return replace(content, parts={name: array[()] for name, array in content.parts.items()})


def _h5ad(handle: IO[bytes], options: Options) -> Content:
    """The matrix X of an AnnData, dense or sparse; its columns are the variables."""
    read = package("anndata.io", "bio").read_elem
    with package("h5py", "bio").File(handle, "r") as file:
        if "X" not in file or "var" not in file:
            raise Refused("holds no AnnData with a matrix X")
        stored = file["X"]
        values = stored["data"] if hasattr(stored, "keys") else stored
        require(values.size * (values.dtype.itemsize + 8), "its values")
        matrix, names = read(stored), tuple(map(str, read(file["var"]).index))
    return Content(
        {"data": sound(matrix) if scipy.sparse.issparse(matrix) else matrix}, columns=names
    )


# -- all -----------------------------------------------------------------------------------------


def _reading(suffix: str, read: Callable[..., Content]) -> Reader:
    """A reader that refuses options that it does not take; of arrays, it leaves out columns."""
    taken = ("leave_out", *TAKES.get(read, ()))

    @functools.wraps(read)
    def reader(handle: IO[bytes], options: Options) -> Content:
        options.only(suffix, *taken)
        if not suffix.endswith(".gz"):
            content = read(handle, options)
        else:
            with gzip.open(handle) as unpacked:
                content = read(unpacked, options)
        return without_columns(content, options) if read in ARRAYS.values() else content

    return reader


ARRAYS: dict[str, Callable[..., Content]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".h5ad": _h5ad,
    ".pt": _pt,
    ".idx": _idx,
    "-ubyte": _idx,
}
TABLES: dict[str, Callable[..., Content]] = {
    ".csv": text.text,
    ".tsv": text.text,
    ".txt": text.text,
    ".jsonl": tables.json_lines,
    ".parquet": tables.from_parquet,
}
TAKES = {text.text: ("header",), _npz: ("key",), _pt: ("key",), _hdf5: ("key",)}
PACKED = (text.text, tables.json_lines, _idx)  # by gzip
SUFFIXES: dict[str, Reader] = {}
for _suffix, _read in (TABLES | ARRAYS).items():
    for _name in (_suffix, f"{_suffix}.gz") if _read in PACKED else (_suffix,):
        SUFFIXES[_name] = _reading(_name, _read)
