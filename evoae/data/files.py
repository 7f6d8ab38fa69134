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
from typing import IO, Any

import numpy as np
import torch

from evoae.data import tables
from evoae.data.content import Content, Handle, Options, Reader, without_columns
from evoae.messages import Refused, short
from evoae.resources import in_words, require

ABOUT = "about.json"  # what evoae keeps beside the arrays of rows that were in memory


def _npy(handle: IO[bytes]) -> Content:
    """One array, as numpy.save writes it."""
    size = handle.seek(0, io.SEEK_END)
    require(size, "its values")
    handle.seek(0)
    return Content({"data": _array(handle, size)})


def _npz(handle: IO[bytes]) -> Content:
    """One array, or train, validation and test, as numpy.savez writes them."""
    if not zipfile.is_zipfile(handle):
        raise Refused("is truncated or not an .npz archive")
    with zipfile.ZipFile(handle) as archive:
        members = archive.infolist()
        # A member is never unpacked beyond the size that it announces.
        require(sum(member.file_size for member in members), "its values")
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {}
        for member in members:
            if member.filename == ABOUT:
                about = json.loads(archive.read(member))
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused(
                    f"{short(member.filename)} is compressed in a way that numpy.savez does not use"
                )
            with archive.open(member) as unpacked:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(unpacked, member.file_size)
    columns = about.get("columns")
    return Content(
        arrays,
        interactions=bool(about.get("interactions")),
        columns=tuple(columns) if columns else None,
    )


HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
    handle.seek(0)
    return np.lib.format.read_array(handle, allow_pickle=False)


def _pt(handle: IO[bytes]) -> Content:
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
    tensors = loaded if isinstance(loaded, dict) else {"data": loaded}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise Refused(f"holds {type(tensor).__name__} under {short(name)}; {rule}")
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


def _idx(handle: Handle) -> Content:
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


def _idx_gz(handle: IO[bytes]) -> Content:
    """One array of numbers in the format of MNIST, packed by gzip."""
    with gzip.open(handle) as unpacked:
        return _idx(unpacked)


ARRAYS: dict[str, Callable[[IO[bytes]], Content]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".idx": _idx,
    ".idx.gz": _idx_gz,
    "-ubyte": _idx,
    "-ubyte.gz": _idx_gz,
}


def _of_arrays(read: Callable[[IO[bytes]], Content], suffix: str) -> Reader:
    """A reader with options, of which arrays have `leave_out` only."""

    @functools.wraps(read)
    def reader(handle: IO[bytes], options: Options) -> Content:
        options.refuse_header(suffix)
        return without_columns(read(handle), options)

    return reader


# in the order in which messages list them
SUFFIXES: dict[str, Reader] = {
    **{suffix: _of_arrays(ARRAYS[suffix], suffix) for suffix in (".npy", ".npz")},
    **tables.READERS,
    **{suffix: _of_arrays(read, suffix) for suffix, read in ARRAYS.items()},
}
