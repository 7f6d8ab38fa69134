"""Training one autoencoder at a time with its weights in cache: the CPU engine for small batches.

The kernel is `kernel.c`, compiled once per machine and batch size with the user's C compiler and
kept in the user's cache directory. It does what `training.py` does, in another order of summation,
and uses one core; calls release the interpreter lock, so visits can be shared out over threads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.resources
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from evoae.networks.activations import SUMS
from evoae.networks.population import Networks, parameter_count

LOSSES = ("l1", "bce")
OPTIMISERS = ("adam-per-batch", "adam")
MOMENTS = ("first_moment", "second_moment", "steps")  # of the kept Adam
MAX_BATCH = 32
MAX_LAYERS = 16
# Scoring takes any number of rows, in blocks of one size, so that its bits depend on no batch size.
SCORING_BATCH = 5
OUT_OF_MEMORY = 1  # what C returns, beside 0 and 2 for an index out of range
FLAGS = "-O3 -std=gnu11 -ffp-contract=fast -fno-math-errno -fno-trapping-math".split()
FLAGS += "-fno-strict-aliasing -shared -fPIC".split()


class _Side(ctypes.Structure):
    """Mirrors `Side` of kernel.c."""

    _fields_ = (
        ("layers", ctypes.c_int64),
        ("widths", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("weights", "keep", *MOMENTS, *SUMS)),
        ("networks", ctypes.c_int64),
    )


@functools.cache
def reason_unavailable(batch_size: int = SCORING_BATCH) -> str | None:
    """None when the kernel can be used here, otherwise one sentence that says why not."""
    try:
        for size in {batch_size, SCORING_BATCH}:
            _library(size)
    except RuntimeError as error:
        return str(error)
    return None


def supports(encoder_widths: Sequence[int], decoder_widths: Sequence[int], batch_size: int) -> bool:
    """Whether `train` takes these networks and this batch size."""
    layers = max(len(encoder_widths), len(decoder_widths)) - 1
    return layers <= MAX_LAYERS and 1 <= batch_size <= MAX_BATCH


def train(
    *,
    encoder: Networks,
    decoder: Networks,
    pairs: Tensor,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    order: Tensor,
    batch_size: int,
    rates: Tensor,
    loss: str,
    optimiser: str,
) -> None:
    """Train V visits one after the other, in place: each a pass over the rows in `order`.

    Step j of batch b of visit v trains encoder `pairs[v, b, j, 0]` with decoder
    `pairs[v, b, j, 1]`.
    Visits must not share a network; a visit's result is the same bits whatever others are in the
    call. Moments are those of the kept Adam; `keep` holds for the whole update, so moments from
    before a prune move nothing either. Statistics of units are added to, if there are any.

    Args:
        pairs: int64 [V, batches, k, 2]; batches = ceil(n / batch_size), the last may be partial.
        inputs, targets: V float32 tensors [rows, D]; the same ones unless denoising.
        order: int64 [V, n] row indices.
        rates: float64 [V] learning rates.
        loss: "l1" or "bce".
        optimiser: "adam-per-batch", or "adam" with the moments and steps of both sides.

    Raises:
        ValueError: a shape, type, index or name is not as above.
        RuntimeError: the kernel is unavailable here (see `reason_unavailable`).
    """
    if not supports(encoder.widths, decoder.widths, batch_size):
        raise ValueError(
            f"batch_size={batch_size}: the kernel takes 1 to {MAX_BATCH} and {MAX_LAYERS} layers"
        )
    _named("loss", loss, LOSSES)
    _named("optimiser", optimiser, OPTIMISERS)
    visits, n = order.shape
    batches = -(-n // batch_size)
    if len(inputs) != visits or len(targets) != visits:
        raise ValueError(
            f"{len(inputs)} inputs and {len(targets)} targets: must be one per visit, {visits}"
        )
    _check_pairs(encoder, decoder, pairs, (visits, batches, pairs.shape[-2], 2))
    _tensor("order", order, torch.int64, (visits, n))
    _tensor("rates", rates, torch.float64, (visits,))
    for x, y in zip(inputs, targets, strict=True):
        _tensor("inputs", x, torch.float32, (len(x), encoder.widths[0]))
        _tensor("targets", y, torch.float32, tuple(x.shape))
    kept = optimiser == "adam"
    encoders, decoders = _checked(encoder, True, kept), _checked(decoder, True, kept)
    failed = _library(batch_size).evoae_train(
        *(ctypes.byref(encoders), ctypes.byref(decoders)),
        *(visits, batches, pairs.shape[-2], _pointer(pairs)),
        *(_pointers(inputs), _pointers(targets), _sizes(inputs), _pointer(order), n),
        *(_pointer(rates), loss == "bce", kept),
    )
    if failed:
        raise _error(failed, encoder, decoder, pairs, inputs, order)


def losses(
    *,
    encoder: Networks,
    decoder: Networks,
    pairs: Tensor,
    inputs: Sequence[Tensor],
    rows: Tensor,
    loss: str,
) -> Tensor:
    """Mean loss of k encoder-decoder pairs for each of M items, on its own rows: float64 [M, k].

    Args:
        pairs: int64 [M, k, 2].
        inputs: M float32 tensors [rows, D], which are the targets too.
        rows: int64 [M, n] row indices, at least one.
        loss: "l1" or "bce".

    Raises:
        ValueError, RuntimeError: as for `train`.
    """
    _named("loss", loss, LOSSES)
    items, n = len(inputs), rows.shape[-1]
    _check_pairs(encoder, decoder, pairs, (items, pairs.shape[-2], 2))
    _tensor("rows", rows, torch.int64, (items, max(1, n)))
    for x in inputs:
        _tensor("inputs", x, torch.float32, (len(x), encoder.widths[0]))
    result = torch.zeros(pairs.shape[:-1], dtype=torch.float64)
    encoders, decoders = _checked(encoder), _checked(decoder)
    failed = _library(SCORING_BATCH).evoae_losses(
        *(ctypes.byref(encoders), ctypes.byref(decoders), items, pairs.shape[-2], _pointer(pairs)),
        *(_pointers(inputs), _sizes(inputs), _pointer(rows), n, loss == "bce", _pointer(result)),
    )
    if failed:
        raise _error(failed, encoder, decoder, pairs, inputs, rows)
    return result


# ---- checks: C would crash, or read another's memory, where these raise ----


def _named(what: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"{what}={value!r}: must be one of {', '.join(valid)}")


def _tensor(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if value.dtype != dtype or tuple(value.shape) != shape:
        raise ValueError(
            f"{name} is {value.dtype} {list(value.shape)}: must be {dtype} {list(shape)}"
        )
    if value.device.type != "cpu" or not value.is_contiguous():
        raise ValueError(f"{name}: must be contiguous and on the CPU")


def _error(
    failed: int,
    encoder: Networks,
    decoder: Networks,
    pairs: Tensor,
    inputs: Sequence[Tensor],
    rows: Tensor,
) -> Exception:
    """Why C failed: no memory, or an index out of range."""
    if failed == OUT_OF_MEMORY:
        return MemoryError("the training kernel ran out of memory")
    indices = [("encoders of pairs", pairs[..., 0], len(encoder.weights))]
    indices += [("decoders of pairs", pairs[..., 1], len(decoder.weights))]
    indices += [("rows", r, len(x)) for r, x in zip(rows, inputs, strict=True)]
    wrong = [
        f"{name} hold {int(value.min())} to {int(value.max())}: must be 0 to {size - 1}"
        for name, value, size in indices
        if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < size)
    ]
    return ValueError("; ".join(wrong))


def _check_pairs(
    encoder: Networks, decoder: Networks, pairs: Tensor, shape: tuple[int, ...]
) -> None:
    if encoder.widths[-1] != decoder.widths[0] or encoder.widths[0] != decoder.widths[-1]:
        raise ValueError(
            f"widths {encoder.widths} and {decoder.widths}: the decoder must take the encoder's"
            " code and return its inputs"
        )
    _tensor("pairs", pairs, torch.int64, shape)


def _checked(side: Networks, training: bool = False, kept: bool = False) -> _Side:
    """The structure that C reads; masks and statistics for training, moments for a kept Adam."""
    n, whole = len(side), (len(side), parameter_count(side.widths))
    wanted = {"weights": (torch.float32, whole)}
    if training and "keep" in side.tensors:
        wanted["keep"] = (torch.bool, whole)
    if kept:
        wanted |= dict.fromkeys(MOMENTS, (torch.float32, whole))
        wanted["steps"] = (torch.int64, (n,))
    if training and not side.tensors.keys().isdisjoint(SUMS):
        wanted |= dict.fromkeys(SUMS, (torch.float64, (n, sum(side.widths[1:]))))
        wanted["count"] = (torch.float64, (n,))
    for name, (dtype, shape) in wanted.items():
        if name not in side.tensors:
            others = MOMENTS if name in MOMENTS else SUMS
            raise ValueError(f"this needs {name}: {', '.join(others)} go together")
        _tensor(name, side.tensors[name], dtype, shape)
    widths = (ctypes.c_int64 * len(side.widths))(*side.widths)
    result = _Side(
        layers=len(side.widths) - 1,
        widths=ctypes.addressof(widths),
        networks=n,
        **{name: side.tensors[name].data_ptr() for name in wanted},
    )
    result.widths_owner = widths  # alive for as long as the structure is
    return result


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _sizes(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_int64 * len(tensors))(*map(len, tensors))


# ---- compiling ----


@functools.cache
def _library(batch_size: int) -> ctypes.CDLL:
    """The kernel for one batch size, compiled unless a cached one matches this machine exactly."""
    source = importlib.resources.files("evoae.networks").joinpath("kernel.c").read_text()
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        raise RuntimeError(
            f"no C compiler: {compiler[0]!r} cannot be run ({error.strerror})"
        ) from None
    machine = (source, FLAGS, compiler, version, platform.machine(), _processor(), batch_size)
    name = f"fused-{hashlib.sha256(repr(machine).encode()).hexdigest()[:16]}.so"
    directory = _cache_directory()
    path = directory / name
    if not path.exists():
        _compile(compiler, source, batch_size, path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeError(f"the compiled kernel cannot be loaded: {error}") from None
    pointer, integer, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.evoae_train.argtypes = (
        *([pointer] * 2 + [integer] * 3 + [pointer] * 5),
        *(integer, pointer, flag, flag),
    )
    library.evoae_losses.argtypes = (
        *([pointer] * 2 + [integer] * 2 + [pointer] * 4),
        *(integer, flag, pointer),
    )
    library.evoae_sigmoid.argtypes = (pointer, pointer, integer)
    library.evoae_sigmoid.restype = None
    return library


def _compile(compiler: list[str], source: str, batch_size: int, path: Path) -> None:
    print(
        f"evoae: compiling the training kernel for batch size {batch_size} (once per machine) ...",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = Path(scratch) / "kernel.so"
        for tuning in (["-march=native"], ["-mcpu=native"], []):
            command = [*compiler, *FLAGS, *tuning, f"-DB={batch_size}"]
            done = subprocess.run(
                [*command, "-x", "c", "-", "-o", str(built), "-lm"],
                input=source,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                os.replace(built, path)
                return
    lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()]
    raise RuntimeError(f"the training kernel does not compile: {lines[0]}")


def _processor() -> str:
    """The processor's model: another that shares the directory may not run the same code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "CPU part", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _cache_directory() -> Path:
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evoae"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        return Path(tempfile.mkdtemp(prefix="evoae-"))
