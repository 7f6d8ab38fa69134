"""A trained autoencoder as a file of its own, compacted: ONNX, or safetensors.

What is written is read again and compared with the original on the test data, before it takes its
name.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from evoae.data.scaling import Scaling
from evoae.modules.exports import Scale, Unscale
from evoae.modules.graph import silent
from evoae.networks import compaction
from evoae.networks.compaction import Compacted, Dense, Select
from evoae.rules import check_known
from evoae.study.runs.files import whole
from evoae.study.runs.run import Run

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-5
ENTRY = "evoae"  # of the metadata
Reconstruct = Callable[[Tensor], Tensor]
Writer = Callable[[Compacted, dict[str, Any], Path], None]
Reader = Callable[[Path], Reconstruct]
OPSET, IR_VERSION = 13, 8  # of 2021: readers that are not the newest know them, too


@dataclass(frozen=True)
class Exported:
    """What was written: a cell, of so many `parameters` before, compacted.

    `difference`: the largest between the reconstructions of the file and of the original on the
    test data, scaled if they were, None if they were not compared, for `reason`.
    """

    path: Path
    cell: int
    compacted: Compacted = field(repr=False)  # it would print every weight
    parameters: int
    difference: float | None
    reason: str | None = None


def export(
    run: Run,
    path: Path | str,
    trial: int = 0,
    cell: int | None = None,
    *,
    examples: Tensor | None = None,
) -> Exported:
    """Write a trial's cell (its best by default), compacted, to a file of a known suffix.

    It is compared with the original on the test data, or on `examples` [n, D] in [0, 1].

    If the data were scaled, what is written takes and gives values as they stand in the data file.
    Raises ValueError, before anything is written, if the suffix is unknown, its package is not
    installed, the folder is missing, or the run has no such trial or cell; RuntimeError, with
    nothing left behind, if what was written does not give the original's outputs.
    """
    path = Path(path)
    check_target(path)
    write, read = FORMATS[path.suffix]
    member = run.index(trial, cell)
    cell = member % run.setting("cells")
    population = run.population
    small = compaction.compact(compaction.chain(population, member))
    encoder_layers = len(population.encoder.widths) - 1
    about = {
        "run": run.folder.resolve().name,
        "trial": trial,
        "cell": cell,
        "inputs": population.encoder.widths[0],
        "encoder_layers": encoder_layers,
        "code_relu": population.encoder.last_relu,
        "parameters": population.parameters,
        **small.sizes,
    }
    scaling = run.scaling
    if scaling is not None:
        about["scaling"] = scaling.as_json()
    difference, reason = None, None
    with whole(path) as part:
        write(small, about, part)
        try:
            examples = run.data(trial).test if examples is None else examples
            reconstruct = read(part)
        except ImportError as error:
            reason = f"{error.name} is not installed"
        except ValueError as error:  # a file that was trained on may lie elsewhere by now
            reason = str(error)
        else:
            with torch.no_grad():
                original = nn.Sequential(*population.member(member))
                difference = largest_difference(original, reconstruct, examples, scaling)
            if not difference <= TOLERANCE:
                raise RuntimeError(f"{path}: outputs differ by {difference:.1e}; not written")
    return Exported(path, cell, small, population.parameters, difference, reason)


def largest_difference(
    original: Reconstruct,
    exported: Reconstruct,
    examples: Tensor,
    scaling: Scaling | None,
) -> float:
    """Of any reconstruction of examples [n, D] in [0, 1]; raw values are given to the export."""
    if scaling is None:
        return float((exported(examples) - original(examples)).abs().max())
    raw = scaling.raw(examples.numpy()).astype(np.float32 if scaling.single else np.float64)
    expected = original(torch.from_numpy(scaling.scaled(raw)))
    gap = np.abs(exported(torch.from_numpy(raw)).numpy() - scaling.raw(expected.numpy()))
    rounding = np.spacing(np.abs(scaling.raw(expected.numpy())).astype(raw.dtype))
    return float((np.maximum(0, gap - rounding) / scaling.divisor).max())


def check_target(path: Path) -> None:
    """Raise ValueError unless the suffix is known, and its package and the file's folder there."""
    check_known(path.suffix, FORMATS, f"{path}: cannot export to the suffix {path.suffix!r}")
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
        except ImportError:
            raise ValueError(f"{path}: this needs onnx; pip install 'evoae[export]'") from None
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")


# -- safetensors ---------------------------------------------------------------------------------


def write_safetensors(small: Compacted, about: dict[str, Any], path: Path) -> None:
    """`inputs` [K], the indices of those that are read, and `0.weight` [out, in], `0.bias`, ..."""
    tensors = {"inputs": small.inputs}
    for number, layer in enumerate(small.layers):
        tensors[f"{number}.weight"] = layer.weight.contiguous()
        tensors[f"{number}.bias"] = layer.bias.contiguous()
    save_file(tensors, path, metadata={ENTRY: json.dumps(about)})


def load(path: Path | str) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder of an exported `.safetensors`. Raises ValueError if it is none.

    If the data were scaled, the encoder begins with `Scale` and the decoder ends with `Unscale`:
    values go in and come out as they stand in the data file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[ENTRY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        count = len(tensors) // 2
        no_relu = {count - 1} | (set() if about["code_relu"] else {about["encoder_layers"] - 1})
        layers = [
            Dense(tensors[f"{n}.weight"], tensors[f"{n}.bias"], n not in no_relu)
            for n in range(count)
        ]
        encoder, decoder = compaction.modules(layers, about["encoder_layers"], tensors["inputs"])
        if "scaling" in about:
            scaling = Scaling.from_json(about["scaling"])
            encoder = nn.Sequential(Scale(scaling), *encoder)
            decoder.append(Unscale(scaling))
        return encoder, decoder
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not an exported autoencoder ({error})") from error


def read_safetensors(path: Path) -> Reconstruct:
    """Reconstructions as the file's network computes them."""
    return nn.Sequential(*load(path))


# -- ONNX ----------------------------------------------------------------------------------------


class Both(nn.Module):
    """An autoencoder that gives its code and its reconstruction."""

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code [n, K] and the reconstruction [n, D] of rows [n, D]."""
        code = self.encoder(x)
        return code, self.decoder(code)


def onnx_model(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    dimension: int,
    about: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """The graph of an autoencoder of `dimension` inputs, checked.

    From `x` [batch, D] to `code` [batch, K] and `reconstruction` [batch, D]. `about` is kept in the
    metadata, as JSON. If it holds a `scaling`, the first nodes scale `x` and the last ones undo it;
    both are float64 where float32 is too coarse for such values, else float32. Raises ImportError
    where onnx is not installed.
    """
    import onnx

    kind = torch.float32
    # a choice of inputs that leaves none out does nothing
    parts: list[nn.Module] = [
        part for part in encoder if not (isinstance(part, Select) and len(part.index) == dimension)
    ]
    if about and "scaling" in about:
        scaling = Scaling.from_json(about["scaling"])
        kind = torch.float32 if scaling.single else torch.float64
        parts, decoder = [Scale(scaling), *parts], nn.Sequential(*decoder, Unscale(scaling))
    names = ["x", "code", "reconstruction"]
    written: Any = io.BytesIO()
    with warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Both(nn.Sequential(*parts), decoder).eval(), (torch.zeros(2, dimension, dtype=kind),),
            written, dynamo=False, opset_version=OPSET, input_names=names[:1],
            output_names=names[1:], dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
    model = onnx.load_from_string(written.getvalue())
    model.ir_version, model.producer_name = IR_VERSION, "evoae"
    if about:
        onnx.helper.set_model_props(model, {ENTRY: json.dumps(about)})
    onnx.checker.check_model(model, full_check=True)
    return model


def write_onnx(small: Compacted, about: dict[str, Any], path: Path) -> None:
    """Write the compacted network as a graph of ONNX."""
    pair = compaction.modules(small.layers, about["encoder_layers"], small.inputs)
    path.write_bytes(onnx_model(*pair, about["inputs"], about).SerializeToString())


def read_onnx(path: Path) -> Reconstruct:
    """Reconstructions as onnxruntime computes them."""
    return session(path.read_bytes())


def session(model: bytes, threads: int = 0) -> Reconstruct:
    """Reconstructions as onnxruntime computes them, with so many threads (0: one per core).

    Raises ImportError where onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    running = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def reconstruct(x: Tensor) -> Tensor:
        (found,) = running.run(["reconstruction"], {"x": x.numpy()})
        return torch.from_numpy(found)

    return reconstruct


# how a kind of file is written, and read back to be compared
FORMATS: dict[str, tuple[Writer, Reader]] = {
    ".onnx": (write_onnx, read_onnx),
    ".safetensors": (write_safetensors, read_safetensors),
}
