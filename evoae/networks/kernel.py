"""Training one autoencoder at a time with its weights in cache: the engine of the CPU.

The kernel is written in C (SOURCES), compiled once per machine with the user's compiler and kept in
the user's cache directory. It does what `training.py` does, in another order of summation, and uses
one core; calls release the interpreter lock, so visits can be shared out over threads.
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
from typing import TYPE_CHECKING

import torch

from evoae.networks.activations import SUMS
from evoae.networks.batches import LOSSES, OPTIMISERS, Batches
from evoae.networks.population import Networks, Population, parameter_count
from evoae.resources import cache_directory, cached, tidy_cache

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = ("first_moment", "second_moment", "steps")  # of the persistent Adam
MAX_LAYERS = 16
SOURCES = ("packing.c", "full.c", "thin.c", "kernel.c")  # one after the other
OUT_OF_MEMORY = 1  # what C returns, beside 0 and 2 for an index out of range
FLAGS = "-O3 -std=gnu11 -ffp-contract=fast -fno-math-errno -fno-trapping-math".split()
FLAGS += "-fno-strict-aliasing -shared -fPIC".split()


class _Side(ctypes.Structure):
    """Mirrors `Side` of packing.c."""

    _fields_ = (
        ("layers", ctypes.c_int64),
        ("widths", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("weights", "keep", *MOMENTS, *SUMS)),
        ("networks", ctypes.c_int64),
    )


@functools.cache
def reason_unavailable() -> str | None:
    """None when the kernel can be used here, otherwise one sentence that says why not."""
    try:
        _library()
    except RuntimeError as error:
        return str(error)
    return None


def train(population: Population, batches: Batches) -> None:
    """Train V visits one after the other, in place: each a pass over the rows in `order`.

    A visit's result has the same bits whatever others are in the call. Moments are those of the
    persistent Adam; `keep` holds for the whole update, so moments from before a prune move nothing.
    Statistics of units are added to, if there are any.

    Raises:
        ValueError: a shape, type, index or name is not as `Batches` says, or the optimiser is
            "adam" and a side lacks moments or steps.
        RuntimeError: the kernel is unavailable here (see `reason_unavailable`).
    """
    _named("loss", batches.loss, LOSSES)
    _named("optimiser", batches.optimiser, OPTIMISERS)
    if batches.batch_size < 1:
        raise ValueError(f"batch_size={batches.batch_size} must be at least 1")
    visits, n = batches.order.shape
    inputs, targets, pairs = batches.inputs, batches.targets, batches.pairs
    if len(inputs) != visits or len(targets) != visits:
        raise ValueError(
            f"{len(inputs)} inputs and {len(targets)} targets; must be one per visit, {visits}"
        )
    count, k = -(-n // batches.batch_size), pairs.shape[-2]
    _check_pairs(population, pairs, (visits, count, k, 2))
    _tensor("order", batches.order, torch.int64, (visits, n))
    _tensor("rates", batches.rates, torch.float64, (visits,))
    for x, y in zip(inputs, targets, strict=True):
        _tensor("inputs", x, torch.float32, (len(x), population.encoder.widths[0]))
        _tensor("targets", y, torch.float32, tuple(x.shape))
    noise = None
    if population.variational:
        noise = _pointer(_latent(batches, (visits, n, population.decoder.widths[0])))
    bce, persistent = batches.loss == "bce", batches.optimiser == "adam"
    encoders, decoders = (_checked(side, True, persistent) for side in population.sides)
    failed = _library().evoae_train(
        *(ctypes.byref(encoders), ctypes.byref(decoders), visits, count, k, _pointer(pairs)),
        *(_pointers(inputs), _pointers(targets), _sizes(inputs), _pointer(batches.order), n),
        *(batches.batch_size, _pointer(batches.rates)),
        *(noise, bce, persistent),
    )
    if failed:
        raise _error(failed, population, pairs, inputs, batches.order)


def losses(
    population: Population, pairs: Tensor, inputs: Sequence[Tensor], rows: Tensor, loss: str
) -> Tensor:
    """Mean loss of k encoder-decoder pairs for each of M items, on its own rows: float64 [M, k].

    Args:
        pairs: int64 [M, k, 2] (encoder, decoder), indices into the population.
        inputs: M float32 tensors [rows, D], which are the targets too.
        rows: int64 [M, n] row indices, at least one.
        loss: "l1" or "bce".

    Raises:
        ValueError, RuntimeError: as for `train`.
    """
    _named("loss", loss, LOSSES)
    items, n = len(inputs), rows.shape[-1]
    _check_pairs(population, pairs, (items, pairs.shape[-2], 2))
    _tensor("rows", rows, torch.int64, (items, max(1, n)))
    for x in inputs:
        _tensor("inputs", x, torch.float32, (len(x), population.encoder.widths[0]))
    result = torch.zeros(pairs.shape[:-1], dtype=torch.float64)
    encoders, decoders = (_checked(side) for side in population.sides)
    failed = _library().evoae_losses(
        *(ctypes.byref(encoders), ctypes.byref(decoders), items, pairs.shape[-2], _pointer(pairs)),
        *(_pointers(inputs), _sizes(inputs), _pointer(rows), n, loss == "bce", _pointer(result)),
    )
    if failed:
        raise _error(failed, population, pairs, inputs, rows)
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
    failed: int, population: Population, pairs: Tensor, inputs: Sequence[Tensor], rows: Tensor
) -> Exception:
    """Why C failed: no memory, or an index out of range."""
    if failed == OUT_OF_MEMORY:
        return MemoryError("the training kernel ran out of memory")
    indices = [("encoders of pairs", pairs[..., 0], len(population.encoder))]
    indices += [("decoders of pairs", pairs[..., 1], len(population.decoder))]
    indices += [("rows", r, len(x)) for r, x in zip(rows, inputs, strict=True)]
    wrong = [
        f"{name} hold {int(value.min())} to {int(value.max())}: must be 0 to {size - 1}"
        for name, value, size in indices
        if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < size)
    ]
    return ValueError("; ".join(wrong))


def _check_pairs(population: Population, pairs: Tensor, shape: tuple[int, ...]) -> None:
    encoder, decoder = (side.widths for side in population.sides)
    said = 2 * decoder[0] if population.variational else decoder[0]
    if encoder[-1] != said or encoder[0] != decoder[-1]:
        raise ValueError(
            f"widths {encoder} and {decoder}: the decoder must take the encoder's code and return "
            "its inputs"
        )
    if max(len(encoder), len(decoder)) > MAX_LAYERS + 1:
        raise ValueError(f"widths {encoder} and {decoder}: the kernel takes {MAX_LAYERS} layers")
    _tensor("pairs", pairs, torch.int64, shape)


def _latent(batches: Batches, shape: tuple[int, ...]) -> Tensor:
    """The latent noise, checked."""
    if batches.latent is None or batches.loss != "bce":
        raise ValueError("variational autoencoders train on latent noise and loss='bce'")
    _tensor("latent", batches.latent, torch.float32, shape)
    return batches.latent


def _checked(side: Networks, training: bool = False, persistent: bool = False) -> _Side:
    """The structure that C reads: for training with statistics, for a persistent Adam moments."""
    n, whole = len(side), (len(side), parameter_count(side.widths))
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"weights": (torch.float32, whole)}
    if training and "keep" in side.tensors:
        wanted["keep"] = (torch.bool, whole)
    if persistent:
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
def _library() -> ctypes.CDLL:
    """The kernel, compiled unless a cached one matches this machine exactly."""
    folder = importlib.resources.files("evoae.networks")
    source = "".join(folder.joinpath(name).read_text() for name in SOURCES)
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        raise RuntimeError(
            f"no C compiler: {compiler[0]!r} cannot be run ({error.strerror})"
        ) from None
    machine = (source, FLAGS, compiler, version, platform.machine(), _processor())
    name = f"kernel-{hashlib.sha256(repr(machine).encode()).hexdigest()[:16]}.so"
    try:
        path = cache_directory() / name
        if not cached(path):
            _compile(compiler, source, path)
            tidy_cache()
    except OSError as error:
        raise RuntimeError(f"the compiled kernel cannot be kept: {error}") from None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeError(f"the compiled kernel cannot be loaded: {error}") from None
    pointer, integer, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.evoae_train.argtypes = (
        *([pointer] * 2 + [integer] * 3 + [pointer] * 5),
        *(integer, integer, pointer, pointer, flag, flag),
    )
    library.evoae_losses.argtypes = (
        *([pointer] * 2 + [integer] * 2 + [pointer] * 4),
        *(integer, flag, pointer),
    )
    return library


def _compile(compiler: list[str], source: str, path: Path) -> None:
    print("evoae: compiling the training kernel (once per machine) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = Path(scratch) / "kernel.so"
        for tuning in (["-march=native"], ["-mcpu=native"], []):
            command = [*compiler, *FLAGS, *tuning]
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
