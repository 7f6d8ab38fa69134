"""A population of autoencoders is one more axis on the tensors.

`Networks` holds P encoders (or P decoders) of one shape. All weights and biases of a network lie in
one row, so `weights` is [P, parameters] and selecting, copying, pruning and counting zeros are
indexing and elementwise work; `layers()` gives views [P, out, in] and [P, out]. Whatever belongs to
a network (optimiser moments, statistics of its units, masks) is a further tensor with the same
first axis and travels with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import torch
from safetensors import safe_open

from evoae.messages import Refused, file_errors, short
from evoae.resources import require
from evoae.rules import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

MODELS: dict[str, tuple[int, ...]] = {"standard": (30, 10), "small": (30, 2), "large": (60, 30, 10)}
KINDS = ("plain", "denoising", "variational")
RESULT, WEIGHTS = "result.json", "weights.safetensors"  # of a run's folder
TRIES = 50  # a tenth of a second each, to read weights that are just being replaced
Array = TypeVar("Array", "Tensor", np.ndarray)
Index: TypeAlias = "Tensor | np.ndarray | Sequence[int]"


def hidden_widths(model: str) -> tuple[int, ...]:
    """Widths after the input, code last: of a named model, or of a list such as "50-20-5"."""
    if model in MODELS:
        return MODELS[model]
    parts = model.split("-")
    # more digits than Python reads, or memory holds, are no width either
    if not all(p.isdecimal() and len(p) < 19 and int(p) > 0 for p in parts):
        raise ValueError(
            f"unknown model {short(model)}{nearest(model, MODELS)}; choose one of "
            f"{', '.join(MODELS)} or positive widths from the input to the code, such as 50-20-5"
        )
    return tuple(int(p) for p in parts)


def parameter_count(widths: Sequence[int]) -> int:
    """Weights and biases of a network of these widths, input first."""
    return sum((i + 1) * o for i, o in pairwise(widths))


@dataclass
class Networks:
    """P networks of the same widths (input first).

    `tensors` holds what belongs to networks and travels with them, [P, ...]: always `weights`, else
    masks, moments of a persistent Adam, statistics of units and scores. `last_relu` says whether
    the last layer is followed by ReLU (encoders) or not (decoders, whose output is before the
    sigmoid, and variational encoders).
    """

    widths: tuple[int, ...]
    last_relu: bool
    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def weights(self) -> Tensor:
        """All weights and biases, [P, parameters]."""
        return self.tensors["weights"]

    @property
    def parameters(self) -> int:
        """Weights and biases of one network."""
        return self.weights.shape[1]

    def views(self, flat: Array) -> list[tuple[Array, Array]]:
        """Views of a [..., parameters] tensor or array, by layer: [..., out, in] and [..., out]."""
        found, end, leading = [], 0, flat.shape[:-1]
        for fan_in, fan_out in pairwise(self.widths):
            start, middle = end, end + fan_in * fan_out
            end = middle + fan_out
            weight = flat[..., start:middle].reshape(*leading, fan_out, fan_in)
            found.append((weight, flat[..., middle:end]))
        return found

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Views of weights [P, out, in] and biases [P, out], by layer."""
        return self.views(self.weights)

    def activations(
        self, x: Tensor, layers: list[tuple[Tensor, Tensor]] | None = None
    ) -> list[Tensor]:
        """Activations of every layer, [P, batch, out] each, for inputs [P, batch, in].

        After ReLU; of the output layer before the sigmoid. `layers` replaces the own weights.
        """
        found = []
        layers = layers or self.layers()
        for number, (weight, bias) in enumerate(layers, start=1):
            x = torch.baddbmm(bias[:, None], x, weight.mT)
            if number < len(layers) or self.last_relu:
                x = x.relu()
            found.append(x)
        return found

    def take(self, index: Index) -> Networks:
        """Copies of the networks at `index` [M], with all that belongs to them."""
        index = torch.as_tensor(index)
        return Networks(self.widths, self.last_relu, {k: t[index] for k, t in self.tensors.items()})

    def put(self, index: Index, other: Networks) -> None:
        """Overwrite the networks at `index` [M] by the M networks of `other`."""
        index = torch.as_tensor(index)
        for key, tensor in self.tensors.items():
            tensor[index] = other.tensors[key].to(tensor.device)

    def soft_threshold(self, amount: Tensor) -> None:
        """Move the weights of each network towards zero by amount [P], not beyond; biases stay."""
        for i, by in enumerate(amount.tolist()):
            for weight, _ in self.layers():
                weight[i] = torch.nn.functional.softshrink(weight[i], by)

    def zeros(self) -> np.ndarray:
        """Number of weights and biases that are zero, or masked where there are masks, [P]."""
        if "keep" in self.tensors:  # an entry that regrew at zero is not pruned
            return (~self.tensors["keep"]).sum(1).cpu().numpy()
        if self.weights.device.type != "cpu":
            return (self.weights == 0).sum(1).cpu().numpy()
        rows = self.weights.numpy()  # counted row by row: it stays in cache
        return np.array([np.count_nonzero(row == 0) for row in rows], dtype=int)

    def module(self, i: int) -> nn.Sequential:
        """Network i as a plain module (a copy), without the decoder's sigmoid."""
        from torch import nn

        parts: list[nn.Module] = []
        for weight, bias in self.layers():
            linear = nn.Linear(weight.shape[2], weight.shape[1])
            linear.load_state_dict({"weight": weight[i].clone(), "bias": bias[i].clone()})
            parts += [linear, nn.ReLU()]
        return nn.Sequential(*(parts if self.last_relu else parts[:-1])).to(self.weights.device)


@dataclass
class Population:
    """P encoders and P decoders; encoder i and decoder i are member i."""

    encoder: Networks
    decoder: Networks
    variational: bool = False

    def __len__(self) -> int:
        return len(self.encoder)

    @property
    def sides(self) -> tuple[Networks, Networks]:
        """Encoders and decoders."""
        return self.encoder, self.decoder

    @property
    def parameters(self) -> int:
        """Weights and biases of one autoencoder."""
        return self.encoder.parameters + self.decoder.parameters

    def take(self, encoders: Index, decoders: Index | None = None) -> Population:
        """Copies: the encoders at one index, the decoders at another, or at the same."""
        decoders = encoders if decoders is None else decoders
        return Population(
            self.encoder.take(encoders), self.decoder.take(decoders), self.variational
        )

    def put(self, index: Index, other: Population) -> None:
        """Overwrite the autoencoders at `index` [M] by the M of `other`."""
        for mine, theirs in zip(self.sides, other.sides, strict=True):
            mine.put(index, theirs)

    def soft_threshold(self, amount: Tensor) -> None:
        """Move all weights towards zero by amount [P] for each autoencoder; biases stay."""
        for side in self.sides:
            side.soft_threshold(amount)

    def cpu(self) -> Population:
        """In the CPU's memory: itself if it lies there, else a copy."""
        encoder, decoder = (
            Networks(s.widths, s.last_relu, {key: t.cpu() for key, t in s.tensors.items()})
            for s in self.sides
        )
        return Population(encoder, decoder, self.variational)

    def member(self, i: int) -> tuple[nn.Sequential, nn.Sequential]:
        """Encoder and decoder i as plain `nn.Sequential`; the decoder ends in the sigmoid."""
        from torch import nn

        encoder, decoder = self.encoder.module(i), self.decoder.module(i)
        if self.variational:
            from evoae.networks.variational import MeanOfCode

            encoder.append(MeanOfCode())
        return encoder, decoder.append(nn.Sigmoid())

    def code(self, encoded: Tensor) -> Tensor:
        """What the decoder sees when not training: variational encoders give their mean."""
        return encoded.chunk(2, dim=-1)[0] if self.variational else encoded

    def activations(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Activations of all layers of encoders and decoders for inputs [P, batch, D]."""
        encoded = self.encoder.activations(x)
        return encoded, self.decoder.activations(self.code(encoded[-1]))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions [P, batch, D], after the sigmoid, of inputs [P, batch, D]."""
        return self.activations(x)[1][-1].sigmoid()


def widths_of(dimension: int, model: str, kind: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layer widths of encoder and decoder. A variational code layer holds mean and variance."""
    hidden = hidden_widths(model)
    encoder = (dimension, *hidden)
    if kind == "variational":
        encoder = (*encoder[:-1], 2 * hidden[-1])
    return encoder, (*hidden[::-1], dimension)


def initial_bounds(widths: Sequence[int]) -> np.ndarray:
    """Initial values are uniform within these, [parameters]: 1 / sqrt(fan in), as in PyTorch."""
    return np.concatenate(
        [np.full((i + 1) * o, 1 / np.sqrt(i), dtype=np.float32) for i, o in pairwise(widths)]
    )


def initialise(
    dimension: int, model: str, kind: str, generators: Sequence[np.random.Generator], device: str
) -> Population:
    """One autoencoder per generator, with PyTorch's default: uniform within 1 / sqrt(fan in)."""
    sides = []
    for widths in widths_of(dimension, model, kind):
        bounds = initial_bounds(widths)
        flat = np.stack([(2 * g.random(len(bounds), np.float32) - 1) * bounds for g in generators])
        sides.append({"weights": torch.from_numpy(flat).to(device)})
    return of_tensors(dimension, model, kind, *sides)


def of_tensors(
    dimension: int, model: str, kind: str, encoder: dict[str, Tensor], decoder: dict[str, Tensor]
) -> Population:
    """A population of the tensors that `Networks` holds for each side."""
    widths, variational = widths_of(dimension, model, kind), kind == "variational"
    sides = (Networks(widths[0], not variational, encoder), Networks(widths[1], False, decoder))
    return Population(*sides, variational=variational)


def save(population: Population, path: Path) -> None:
    """Write all layers as safetensors: `encoder.0.weight` [P, out, in], `encoder.0.bias` ..."""
    tensors = {
        f"{side}.{number}.{part}": view.contiguous()
        for side, networks in zip(("encoder", "decoder"), population.sides, strict=True)
        for number, layer in enumerate(networks.layers())
        for part, view in zip(("weight", "bias"), layer, strict=True)
    }
    # one entry only: several would be written in any order, and equal populations as other bytes
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"variational": str(population.variational)})


def fingerprint(path: Path | str) -> str:
    """SHA-256 of a weights file; of a run's folder its name, which trials of it do not change.

    Raises ValueError if it cannot be read.
    """
    if os.path.isdir(path):
        return os.path.basename(os.path.realpath(path))
    with file_errors(path), open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def pending(path: Path) -> Path:
    """Where a file of a run lies until it takes its place."""
    return path.with_name(f".{path.name}.next")


def saved(path: Path | str, device: str = "cpu") -> tuple[Population, list[int] | None]:
    """The networks in a weights file; of a run's folder also the numbers of the trials they are of.

    The run may get more trials meanwhile. Raises ValueError as `load`, or for another folder.
    """
    if not os.path.isdir(path):
        return load(path, device), None
    weights = Path(path, WEIGHTS)
    with file_errors(path, "is not the folder of a finished run"):
        for _ in range(TRIES):
            known = json.loads(Path(path, RESULT).read_text())
            for file in (weights, pending(weights)):
                if file.exists() and fingerprint(file) == known["files"][WEIGHTS]:
                    return load(file, device), [row["trial"] for row in known["trials"]]
            time.sleep(0.1)
        raise Refused(f"{WEIGHTS} is missing, or does not fit its digest")


def load(path: Path | str, device: str = "cpu") -> Population:
    """Read a population back: whatever `save` writes, also weights that are not finite.

    Raises ValueError, one line with the file's name, if it is missing, damaged, or holds no
    population: as many encoders as decoders, one at least, of float32 layers that chain.
    """
    with file_errors(path, "no readable weights of a population"):
        require(2 * os.path.getsize(path), "its weights")
        with safe_open(path, "pt", device=device) as file:
            variational = (file.metadata() or {}).get("variational") == "True"
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        encoder, decoder = (_layers_of(tensors, side) for side in ("encoder", "decoder"))
        if tensors:
            raise Refused(f"holds {short(next(iter(tensors)))}, which belongs to no layer")
        _check_layers(encoder, decoder, variational)
        return Population(
            _networks(encoder, not variational), _networks(decoder, False), variational
        )


def _networks(layers: list[tuple[Tensor, Tensor]], last_relu: bool) -> Networks:
    widths = (layers[0][0].shape[2], *(weight.shape[1] for weight, _ in layers))
    flat = torch.cat([part.flatten(1) for layer in layers for part in layer], dim=1)
    return Networks(widths, last_relu, {"weights": flat})


def _layers_of(tensors: dict[str, Tensor], side: str) -> list[tuple[Tensor, Tensor]]:
    """Take the layers of a side, weight and bias, out of a file's tensors."""
    layers: list[tuple[Tensor, Tensor]] = []
    while (prefix := f"{side}.{len(layers)}") + ".weight" in tensors:
        if f"{prefix}.bias" not in tensors:
            raise Refused(f"lacks {prefix}.bias")
        layers.append((tensors.pop(f"{prefix}.weight"), tensors.pop(f"{prefix}.bias")))
    if not layers:
        raise Refused(f"lacks {side}.0.weight")
    return layers


def _check_layers(
    encoder: list[tuple[Tensor, Tensor]], decoder: list[tuple[Tensor, Tensor]], variational: bool
) -> None:
    """Refuse layers that are no autoencoders: each takes what the one before gives."""
    named = {
        f"{side}.{number}": layer
        for side, layers in (("encoder", encoder), ("decoder", decoder))
        for number, layer in enumerate(layers)
    }
    networks = len(encoder[0][0])
    given = decoder[-1][0].shape[1:2]  # what goes into the encoder comes out of the decoder
    for name, (weight, bias) in named.items():
        if weight.dtype != torch.float32 or bias.dtype != torch.float32:
            raise Refused(f"{name} is of {weight.dtype} and {bias.dtype}; it must be torch.float32")
        if name == "decoder.0" and variational:  # means and log-variances are given, means taken
            if given[0] % 2:
                raise Refused(f"is variational, but its code has an odd width, {given[0]}")
            given = torch.Size([given[0] // 2])
        expected = (networks, *weight.shape[1:2], *given)
        if weight.ndim != 3 or weight.shape != expected or bias.shape != expected[:2]:
            raise Refused(
                f"{name} has weights {list(weight.shape)} and biases {list(bias.shape)}; they must "
                f"be [networks, out, in] and [networks, out], here with {networks} networks and "
                f"{given[0] if given else 'no'} inputs"
            )
        if not weight.numel():
            raise Refused(f"{name} has weights {list(weight.shape)}, which is empty")
        given = weight.shape[1:2]
