"""Any pruned or compacted module as a file of its own: ONNX, or safetensors.

What is written is read again and compared with the original before it takes its name.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from evoae.data.scaling import Scaling
from evoae.messages import words
from evoae.modules import reading
from evoae.modules.compaction import TOLERANCE, checked_example, take_off_norms
from evoae.modules.graph import Within, silent
from evoae.modules.plain import copied, unmasked, why_not_a_module
from evoae.modules.shrinking import owners_of, put, set_sizes
from evoae.rules import check_known

if TYPE_CHECKING:
    import onnx

ENTRY = "evoae"  # of the metadata


class Scale(nn.Module):
    """Values [..., D] as a data file holds them: float32 in [0, 1]."""

    minimum: Tensor
    divisor: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.from_numpy(scaling.minimum))
        self.register_buffer("divisor", torch.from_numpy(scaling.divisor))

    def forward(self, x: Tensor) -> Tensor:
        """(x - minimum) / divisor, in double precision."""
        return ((x.double() - self.minimum) / self.divisor).float()


class Unscale(nn.Module):
    """The way back: as float32, or as float64 if that is too coarse for the file's values."""

    minimum: Tensor
    width: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.from_numpy(scaling.minimum))
        self.register_buffer("width", torch.from_numpy(scaling.width))
        self.kind = torch.float32 if scaling.single else torch.float64

    def forward(self, x: Tensor) -> Tensor:
        """x * width + minimum, in double precision."""
        return (x.double() * self.width + self.minimum).to(self.kind)


class Scaled(nn.Module):
    """A module that takes values as they stand in a data file, and gives its first output so."""

    def __init__(self, module: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.scale, self.module, self.unscale = Scale(scaling), module, Unscale(scaling)

    def forward(self, x: Tensor) -> Any:
        """The module's output, the first one in the units of the file."""
        first, *others = reading.tensors_of(self.module(self.scale(x)))
        return (self.unscale(first), *others) if others else self.unscale(first)


def export(
    module: nn.Module,
    path: Path | str,
    example: Any,
    *,
    original: nn.Module | None = None,
    scaling: tuple[Any, Any] | None = None,
) -> float:
    """Write a module, pruned or compacted, to a file `.onnx` or `.safetensors`.

    Returns the largest difference between the outputs of the file and of the original on the
    example, relative to the largest output. Masks are taken off; the module is left untouched.

    Args:
        module: the module, which is written in evaluation mode.
        path: the file; its suffix says which format. A `.safetensors` holds the state dict and is
            read by `load_compact`. An `.onnx` has the inputs and outputs of the module, of any
            batch size where the module takes that; it needs the extra `export`.
        example: an input, or a tuple of inputs, as for `compact`.
        original: what the file must agree with: the module before it was compacted, say. By
            default it is the module itself.
        scaling: minimum and maximum of the data before they were scaled to [0, 1]: numbers, or one
            number for each column. An ONNX file then takes and gives (as its first output) values
            in the units of the data; both bounds are in the metadata of either file.

    Raises ValueError, before anything is written, if the suffix is unknown, its package is not
    installed, the folder is missing, or the module does not take the example; RuntimeError, with
    nothing left behind, if the file does not give the original's outputs.
    """
    path = Path(path)
    check_known(path.suffix, FORMATS, f"{path}: cannot export to the suffix {path.suffix!r}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    if path.suffix == ".onnx":
        check_onnx(path)
    for each in (module, module if original is None else original):
        if problem := why_not_a_module(each):
            raise ValueError(f"the module to export {problem}")
    plain = unmasked(module).eval()
    inputs = checked_example(plain, example)
    if path.suffix == ".onnx" and not all(isinstance(x, Tensor) for x in inputs):
        raise ValueError(f"{path}: a file of ONNX takes tensors; the example is of other types")
    whole = copied(plain if original is None else original).eval()
    about: dict[str, Any] = {"parameters": sum(p.numel() for p in plain.parameters())}
    if scaling is not None:
        bounds = Scaling(*(np.atleast_1d(np.asarray(each, np.float64)) for each in scaling))
        about["scaling"] = bounds.as_json()
        if path.suffix == ".onnx":
            plain, whole = Scaled(plain, bounds).eval(), Scaled(whole, bounds).eval()
            kind = np.float32 if bounds.single else np.float64
            inputs = tuple(torch.from_numpy(bounds.raw(x.numpy()).astype(kind)) for x in inputs)
    part = path.with_name(f"{path.name}.part")
    try:
        found = FORMATS[path.suffix](plain, inputs, about, part, whole)
        gap = reading.largest_difference(reading.outputs(whole, inputs), found)
        if not gap <= TOLERANCE:
            raise RuntimeError(f"{path}: outputs differ by {gap:.1e} of the largest; not written")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return gap


# -- safetensors ---------------------------------------------------------------------------------


def write_safetensors(
    module: nn.Module, inputs: reading.Inputs, about: dict[str, Any], path: Path, whole: nn.Module
) -> list[Tensor]:
    """Write the state dict, and numbers that modules hold. Returns what the file's module gives."""
    state = {
        name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()
    }
    about = about | {"numbers": {n: numbers_of(part) for n, part in module.named_modules()}}
    save_file(state, path, metadata={ENTRY: json.dumps(about)})
    return reading.outputs(load_compact(whole, path), inputs)


def numbers_of(part: nn.Module) -> dict[str, Any]:
    """The whole numbers, and tuples of them, that a module holds."""

    def is_number(value: Any) -> bool:
        return type(value) is int or (
            isinstance(value, tuple) and all(type(each) is int for each in value)
        )

    return {name: value for name, value in vars(part).items() if is_number(value)}


def load_compact(module: nn.Module | Callable[[], nn.Module], path: Path | str) -> nn.Module:
    """A module with the tensors of a `.safetensors`, which may be smaller than its own.

    Args:
        module: the module as it was before it was compacted, or a function that makes one. It is
            left untouched, and its values do not matter. A norm of a weight goes where the file
            has the plain weight, as it is after a Pruner's `finish`.
        path: what `export` wrote, or `safetensors.torch.save_file` of a state dict. The latter does
            not say how many groups a convolution has, which its shape does not always tell, and how
            an `Unflatten` shapes what it is given.

    Raises ValueError, in one line, if the file cannot be read, or its names are not the module's.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a file of safetensors ({error})") from error
    fresh = module if isinstance(module, nn.Module) else module()
    if problem := why_not_a_module(fresh):
        raise ValueError(f"the module to load into {problem}")
    made = unmasked(fresh)
    take_off_norms(made, tensors)
    own, owners = made.state_dict(keep_vars=True), owners_of(made)
    for name in tensors.keys() - own.keys():
        where, _, last = name.rpartition(".")
        part = dict(made.named_modules()).get(where)
        if last != "bias" or part is None or getattr(part, "bias", "") is not None:
            raise ValueError(f"{path}: {type(made).__name__} has no {name}")
        part.bias = nn.Parameter(tensors[name])  # what constants were folded into
    if missing := own.keys() - tensors.keys():
        raise ValueError(f"{path}: there is no {min(missing)}, which {type(made).__name__} has")
    sizes: dict[int, dict[int, int]] = {}
    for name, tensor in own.items():
        new = tensors[name].to(tensor)
        if new.dim() != tensor.dim():
            raise ValueError(f"{path}: {name} is {list(new.shape)}, not like {list(tensor.shape)}")
        for part, _ in owners[id(tensor)]:
            sizes.setdefault(id(part), {}).update(zip(tensor.shape, new.shape, strict=True))
        put(owners[id(tensor)], new, tensor)
    widths = {part: getattr(part, "out_features", None) for part in made.modules()}
    for name, part in made.named_modules():
        guess_groups(part)
        set_sizes(part, sizes.get(id(part), {}))
        for key, value in about.get("numbers", {}).get(name, {}).items():
            setattr(part, key, tuple(value) if isinstance(value, list) else value)
    grown = {old: cast(nn.Linear, p).out_features for p, old in widths.items() if old}
    for part in made.modules() if "numbers" not in about else ():
        if isinstance(part, nn.Unflatten):
            first, *rest = cast(Sequence[int], part.unflattened_size)
            new_width = grown.get(first * math.prod(rest), first * math.prod(rest))
            part.unflattened_size = (new_width // math.prod(rest), *rest)
    return made


def guess_groups(part: nn.Module) -> None:
    """Set how many groups a layer has, from its weight, and the numbers that it still holds."""
    if isinstance(part, nn.modules.conv._ConvNd) and part.groups > 1:
        first, second = part.weight.shape[:2]
        rows, columns = part.out_channels, part.in_channels
        rows, columns = (columns, rows) if part.transposed else (rows, columns)
        if second == columns // part.groups:  # whole ones are gone
            part.groups = first * part.groups // rows
    elif isinstance(part, nn.GroupNorm) and part.weight is not None:
        part.num_groups = part.num_groups * len(part.weight) // part.num_channels


# -- ONNX ----------------------------------------------------------------------------------------


def check_onnx(path: Path) -> None:
    """Raise ValueError if a package that ONNX needs is not installed."""
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise ValueError(f"{path}: this needs {name}; pip install 'evoae[export]'") from None


def write_onnx(
    module: nn.Module, inputs: reading.Inputs, about: dict[str, Any], path: Path, whole: nn.Module
) -> list[Tensor]:
    """Write a graph of ONNX. Returns what onnxruntime computes with it."""
    import onnx

    names = list(inspect.signature(module.forward).parameters)[: len(inputs)]
    if len(names) != len(inputs):
        names = [f"input{number}" for number in range(len(inputs))]
    outputs = reading.outputs(module, inputs)
    given = ["output"] if len(outputs) == 1 else [f"output{n}" for n in range(len(outputs))]
    batches = {name: {0: "batch"} for name, x in zip(names, inputs, strict=True) if x.dim()}
    batches |= {name: {0: "batch"} for name, y in zip(given, outputs, strict=True) if y.dim()}
    errors = []
    # of any batch size, or of the example's; what gives no plain tensors, as a list of them
    for each, axes in [(m, axes) for m in (module, Within(module)) for axes in (batches, None)]:
        try:
            with reading.quiet(), silent():
                torch.onnx.export(
                    each, inputs, str(path), dynamo=False, input_names=names,
                    output_names=given, dynamic_axes=axes,
                )  # fmt: skip
            break
        except Exception as error:  # whatever the exporter raises for what it does not know
            errors.append(error)
    else:
        raise RuntimeError(
            f"{path.stem}: ONNX cannot hold the module ({words(errors[0])}); not written"
        )
    model: onnx.ModelProto = onnx.load(str(path))
    onnx.helper.set_model_props(model, {ENTRY: json.dumps(about)})
    onnx.save(model, str(path))
    try:
        return run_onnx(path, inputs)
    except Exception as error:  # what onnxruntime has no code for: bfloat16, say
        raise RuntimeError(
            f"{path.stem}: onnxruntime cannot run it ({words(error)}); not written"
        ) from error


def run_onnx(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a file, as onnxruntime computes them."""
    import onnxruntime

    running = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [each.name for each in running.get_inputs()]
    found = running.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))
    return [torch.from_numpy(np.asarray(each)) for each in found]


FORMATS = {".onnx": write_onnx, ".safetensors": write_safetensors}
