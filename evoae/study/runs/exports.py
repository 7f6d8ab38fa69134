"""A trained autoencoder as a file of its own, compacted: ONNX, or safetensors.

What is written is read again and compared with the original on the test data, before it takes its
name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from evoae.networks import compaction
from evoae.networks.compaction import Compacted, Dense, Select
from evoae.rules import check_known
from evoae.study.runs.files import whole
from evoae.study.runs.run import Run

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-5
ENTRY = "evoae"  # of the metadata
OPSET, IR_VERSION = 13, 8  # of 2021: readers that are not the newest know them, too


@dataclass(frozen=True)
class Exported:
    """What was written: a cell, of so many `parameters` before, compacted.

    `difference`: the largest between the reconstructions of the file and of the original on the
    test data, None if they were not compared, for `reason`.
    """

    path: Path
    cell: int
    compacted: Compacted
    parameters: int
    difference: float | None
    reason: str | None = None


def export(run: Run, path: Path | str, trial: int = 0, cell: int | None = None) -> Exported:
    """Write a trial's cell (its best by default), compacted, to a file of a known suffix.

    Raises ValueError, before anything is written, if the suffix is unknown, its package is not
    installed, the folder is missing, or the run has no such trial or cell; RuntimeError, with
    nothing left behind, if what was written does not give the original's outputs.
    """
    path = Path(path)
    check_target(path)
    writer = FORMATS[path.suffix]
    place = run.index(trial, cell)
    cell = place % run.setting("cells")
    population = run.population
    small = compaction.compact(compaction.chain(population, place))
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
    difference, reason = None, None
    with whole(path) as part:
        writer.write(small, about, part)
        try:
            examples, reconstruct = run.data(trial).test, writer.read(part)
        except ImportError as error:
            reason = f"{error.name} is not installed"
        except ValueError as error:  # a file that was trained on may lie elsewhere by now
            reason = str(error)
        else:
            with torch.no_grad():
                expected = nn.Sequential(*population.member(place))(examples)
                difference = float((reconstruct(examples) - expected).abs().max())
            if not difference <= TOLERANCE:
                raise RuntimeError(f"{path}: outputs differ by {difference:.1e}; not written")
    return Exported(path, cell, small, population.parameters, difference, reason)


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
    """Encoder and decoder of an exported `.safetensors`. Raises ValueError if it is none."""
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
        return compaction.modules(layers, about["encoder_layers"], tensors["inputs"])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: no exported autoencoder ({error})") from error


def read_safetensors(path: Path) -> Callable[[Tensor], Tensor]:
    """Reconstructions as the file's network computes them."""
    return nn.Sequential(*load(path))


# -- ONNX ----------------------------------------------------------------------------------------


def onnx_model(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    dimension: int,
    about: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """The graph of an autoencoder of plain layers and `dimension` inputs, checked.

    From `x` [batch, D] to `code` [batch, K] and `reconstruction` [batch, D]. `about` is kept in the
    metadata, as JSON. Raises ImportError where onnx is not installed.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants, flow = [], [], "x"

    def constant(values: Tensor, name: str) -> str:
        constants.append(numpy_helper.from_array(values.detach().cpu().numpy(), name))
        return name

    widths = {"x": dimension}
    for side, end, parts in (("encoder", "code", encoder), ("decoder", "reconstruction", decoder)):
        for number, part in enumerate(parts):
            place = f"{side}.{number}"
            out = end if number == len(parts) - 1 else place
            match part:
                case Select() if len(part.index) == dimension:
                    continue  # there is nothing to pick
                case Select():
                    # turned round: whole rows are copied at once, and not number after number
                    index, rows, some = (f"{place}.{name}" for name in ("index", "rows", "some"))
                    constant(part.index, index)
                    nodes += [
                        helper.make_node("Transpose", [flow], [rows], perm=[1, 0]),
                        helper.make_node("Gather", [rows, index], [some], axis=0),
                        helper.make_node("Transpose", [some], [out], perm=[1, 0]),
                    ]
                case nn.Linear():
                    weight = constant(part.weight, f"{place}.weight")
                    bias = constant(part.bias, f"{place}.bias")
                    node = helper.make_node("Gemm", [flow, weight, bias], [out], transB=1)
                    nodes.append(node)
                    widths[end] = part.out_features
                case nn.ReLU() | nn.Sigmoid():
                    nodes.append(helper.make_node(type(part).__name__.capitalize(), [flow], [out]))
                case _:
                    raise TypeError(f"{type(part).__name__} is no layer of an autoencoder here")
            flow = out
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in widths.items()
    }
    graph = helper.make_graph(
        nodes, "autoencoder", [values["x"]], [values["code"], values["reconstruction"]], constants
    )
    model = helper.make_model(
        graph,
        producer_name="evoae",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    if about:
        helper.set_model_props(model, {ENTRY: json.dumps(about)})
    checker.check_model(model, full_check=True)
    return model


def write_onnx(small: Compacted, about: dict[str, Any], path: Path) -> None:
    """Write the compacted network as a graph of ONNX."""
    pair = compaction.modules(small.layers, about["encoder_layers"], small.inputs)
    path.write_bytes(onnx_model(*pair, about["inputs"], about).SerializeToString())


def read_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Reconstructions as onnxruntime computes them."""
    return session(path.read_bytes())


def session(model: bytes, threads: int = 0) -> Callable[[Tensor], Tensor]:
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


@dataclass(frozen=True)
class Format:
    """How a kind of file is written, and read back to be compared."""

    write: Callable[[Compacted, dict[str, Any], Path], None]
    read: Callable[[Path], Callable[[Tensor], Tensor]]


FORMATS = {
    ".onnx": Format(write_onnx, read_onnx),
    ".safetensors": Format(write_safetensors, read_safetensors),
}
