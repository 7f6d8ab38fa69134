"""Really smaller modules: units whose value is constant, or that nothing reads, are left out.

The chains of layers in a module are found here, and written anew; which of their units are needed
`networks.compaction` says. Whatever stands between layers and is not known here ends a chain: the
units before it are all kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from evoae.messages import one_line, shortened
from evoae.modules import masking, reading
from evoae.modules.plain import copied, global_hooks, why_not_a_module, why_not_plain
from evoae.modules.reading import is_chain
from evoae.modules.tracing import LAYERS
from evoae.networks.compaction import Link, analyse

# operations that map each unit by itself, and a constant to a constant; of what is at least 0 they
# make what is at least 0, except BOUNDS
EACH_UNIT = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish,
    nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.Hardsigmoid, nn.Hardswish,
)  # fmt: skip
BOUNDS = (nn.Hardtanh, nn.Softplus)  # which may lie below 0
UNCHANGED = (nn.Identity, nn.Dropout, nn.AlphaDropout)
# operations on a map of positions that leave a constant as it is, by the layer before
OVER_POSITIONS = {
    nn.Conv1d: (nn.Dropout1d, nn.Upsample, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    nn.Conv2d: (nn.Dropout2d, nn.Upsample, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NORM_OF = dict(zip(LAYERS, (nn.BatchNorm1d, *BATCH_NORMS), strict=True))
KNOWN = {*EACH_UNIT, *UNCHANGED, *OVER_POSITIONS[nn.Conv1d], *OVER_POSITIONS[nn.Conv2d], nn.Flatten}
REPORTED = (*LAYERS, *BATCH_NORMS, nn.BatchNorm3d)
TOLERANCE = 1e-3  # of outputs on an example, relative to the largest: more is not rounding
COARSE = 0.05  # where parameters are of half precision

Left = dict[str, tuple[str, str]]  # what is left as it is, by name: its type, and the reason


@dataclass
class Stage:
    """A layer of a chain, and the operations between it and the next layer."""

    name: str
    layer: nn.Module
    after: list[nn.Module] = field(default_factory=list)
    spread: int = 1  # inputs of the next layer for each unit: more than one behind Flatten

    @property
    def is_flat(self) -> bool:
        """Whether units and positions have become one axis."""
        return any(isinstance(part, nn.Flatten) for part in self.after)


def compact(module: nn.Module, example: Any = None) -> nn.Module:
    """A smaller copy with equal outputs, for every finite input, in evaluation mode.

    Masks are taken off. Of a module that is a Sequential, or holds some, layers Linear, Conv1d and
    Conv2d in it lose units; inputs and outputs of a Sequential stay as they are, and no layer is
    left without units. What cannot be proven to give equal outputs is left as it is: layers with
    hooks, with parametrizations, of classes of a user's, with parameters that others share, and
    layers of a Sequential that something else calls or reads. One warning, of one line, names them
    with the reasons.

    A forward is looked at with its optional arguments at their defaults, and with each of them
    changed alone.

    Args:
        module: left untouched.
        example: an input, or a tuple of inputs, of `module`. Needed where a forward depends on its
            input, which cannot be followed otherwise: it is followed on the example. The outputs
            of the copy are compared on it; without one, on random input where its shape can be
            guessed.

    Raises ValueError, in one line, if `module` is no module with values, or does not take
    `example`.
    """
    if type(module).__name__ == "OptimizedModule":
        module = module._orig_mod  # which is as good, and can be copied
    if problem := why_not_a_module(module):
        raise ValueError(f"the module to compact {problem}")
    whole = copied(module)
    for part in list(whole.modules()):
        for name in ("weight", "bias"):
            if isinstance(part, LAYERS):
                masking.remove(part, name)
    inputs = checked_example(whole, example)
    tried = inputs if inputs is not None else reading.guessed(whole)
    read, reason = read_outside(whole, inputs, tried)
    small, left = copied(whole), Left()
    found = list(chains(small, "", left, why_fixed(small, read)))
    for chain in found:
        why = reason or shrink(chain)
        left |= {stage.name: (kind_of(stage.layer), why) for stage in chain if why}
    if not reason and (gap := difference(whole, small, tried)):
        small, left = whole, {"the whole module": (type(whole).__name__, gap)}
    if left:
        warnings.warn(f"compact leaves as it is: {in_words(left)}", stacklevel=2)
    return small


def in_words(left: Left) -> str:
    """What is left, by reason: names and types, and why."""
    reasons = dict.fromkeys(why for _, why in left.values())
    return "; ".join(
        ", ".join(f"{name} ({kind})" for name, (kind, own) in left.items() if own == why)
        + f": {why}"
        for why in reasons
    )


def checked_example(module: nn.Module, example: Any) -> tuple[Any, ...] | None:
    """An example as a tuple of inputs. Raises ValueError if the module does not take it."""
    if example is None:
        return None
    inputs = tuple(example) if isinstance(example, tuple | list) else (example,)
    try:
        reading.outputs(module, inputs)
    except Exception as error:  # whatever a user's forward raises
        words = shortened(one_line(str(error)) or type(error).__name__)
        raise ValueError(f"the module does not take example=: {words}") from error
    return inputs


def read_outside(
    module: nn.Module, example: tuple[Any, ...] | None, tried: tuple[Any, ...] | None
) -> tuple[dict[str, str], str | None]:
    """What is read outside of Sequentials, by name; and why that cannot be said, if it cannot.

    On symbols, and on the inputs that are `tried`: the example, or some that were guessed.
    """
    if global_hooks():
        return {}, "hooks are registered on all modules at once"
    if any(is_lazy(parameter) for parameter in module.parameters()):
        return {}, "other layers are lazy: pass the module some data first"
    known = [part for part in module.modules() if isinstance(part, REPORTED)]
    held = [t for part in known for t in (*part.parameters(), *part.buffers())]
    if not all(tensor.isfinite().all() for tensor in held):  # zero times infinity is no constant
        return {}, "layers or norms hold NaN or infinity"
    read: dict[str, str] = {}
    try:
        read |= reading.read_on_symbols(module)
    except ValueError as error:
        if example is None:
            return {}, str(error)
    return read if tried is None else read | reading.read_on(module, tried), None


def difference(whole: nn.Module, small: nn.Module, inputs: tuple[Any, ...] | None) -> str | None:
    """How a smaller module differs by more than rounding, in words, if it does."""
    if reading.numbers_read(whole) != reading.numbers_read(small):
        return "its forward computes with how many units a layer has"
    if inputs is None:
        return None
    expected, again = (reading.outputs(whole, inputs) for _ in range(2))
    if reading.largest_difference(expected, again) > 0:
        return None  # it draws from a generator of its own: nothing can be compared
    try:
        gap = reading.largest_difference(expected, reading.outputs(small, inputs))
    except Exception as error:  # whatever a user's forward raises
        return f"the smaller one raises {type(error).__name__}: {shortened(one_line(str(error)))}"
    coarse = any(p.element_size() < 4 for p in whole.parameters())
    if gap <= (COARSE if coarse else TOLERANCE):
        return None
    return f"outputs would differ by {gap:.2g} of the largest"


# -- chains --------------------------------------------------------------------------------------


def why_fixed(module: nn.Module, read: dict[str, str]) -> dict[str, str]:
    """Why parts must stay as they are, by name; `read` is what is read outside of Sequentials."""
    fixed: dict[str, str] = {}
    owners: dict[int, str] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        why = why_not_plain(part)
        if not why and isinstance(part, LAYERS) and type(part) not in LAYERS:
            why = "it is of a class of its own"
        if why := why or read.get(name):
            fixed[name] = why
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None and owners.setdefault(id(tensor), name) != name:
                for each in (owners[id(tensor)], name):
                    fixed.setdefault(each, "others have its parameters or buffers")
    return fixed


def chains(
    module: nn.Module, name: str, left: Left, fixed: dict[str, str]
) -> Iterator[list[Stage]]:
    """The chains of layers in a module; what is in none is added to `left`."""
    if is_chain(module):
        called = list(leaves(module, name, fixed))
        yield from split(called, left, fixed)
        inside = [(where, part) for where, part in called if list(part.children())]
    else:
        inside = children(module, name)
    for where, child in inside:
        yield from chains(child, where, left, fixed)
    said = any(name == each or name.startswith(f"{each}.") for each in left)
    if not list(module.children()) and isinstance(module, REPORTED) and not said:
        left[name or "the module"] = kind_of(module), "it is in no plain Sequential"


def children(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The children by name; one that has two names comes twice, unlike in `named_children`."""
    parts = module._modules.items()
    return [(f"{name}.{key}".lstrip("."), child) for key, child in parts if child is not None]


def leaves(module: nn.Module, name: str, fixed: dict[str, str]) -> Iterator[tuple[str, nn.Module]]:
    """What a Sequential calls one after the other, plain ones inside it taken apart."""
    for where, child in children(module, name):
        if is_chain(child) and where not in fixed:
            yield from leaves(child, where, fixed)
        else:
            yield where, child


def split(
    called: list[tuple[str, nn.Module]], left: Left, fixed: dict[str, str]
) -> Iterator[list[Stage]]:
    """Chains of layers whose next is reached through known operations only."""
    chain: list[Stage] = []
    for where, part in called:
        why = fixed.get(where) or why_unknown(part, chain[-1] if chain else None)
        if why:
            looked_into = list(part.children()) or type(part) is nn.Flatten
            if (where in fixed or not looked_into) and (chain or type(part) not in KNOWN):
                left[where] = kind_of(part), why
            if chain:
                yield chain
            chain = []
        elif isinstance(part, LAYERS):
            if chain and not (spread := inputs_of_each_unit(chain[-1], part)):
                yield chain
                chain = []
            if chain:
                chain[-1].spread = spread
            chain.append(Stage(where, part))
        elif chain:
            chain[-1].after.append(part)
    if chain:
        yield chain


def why_unknown(part: nn.Module, before: Stage | None) -> str | None:
    """Why a part cannot follow a stage, or begin a chain, if it cannot."""
    if not isinstance(part, LAYERS):
        known = type(part) in KNOWN if before is None else is_known(part, before)
        return None if known else "what it does to the units before it is not known"
    if getattr(part, "groups", 1) != 1:
        return "it has groups"
    if not part.weight.numel():
        return "it has no weights"
    if not part.weight.is_floating_point():
        return f"its weights are {part.weight.dtype}"
    return None


def is_known(part: nn.Module, before: Stage) -> bool:
    """Whether what a part does to a stage's units is known, so that a constant can be followed."""
    kind, layer = type(part), before.layer
    if kind in (*EACH_UNIT, *UNCHANGED):
        return True
    if before.is_flat:
        return False
    if kind is NORM_OF[type(layer)]:
        there = part.track_running_stats and part.running_mean is not None
        return there and part.num_features == layer.weight.shape[0]
    if kind is nn.Flatten:
        return part.start_dim == 1 and part.end_dim == -1
    if kind in OVER_POSITIONS.get(type(layer), ()):
        return not getattr(part, "return_indices", False)
    return False


def inputs_of_each_unit(stage: Stage, layer: nn.Module) -> int:
    """How many inputs of the next layer each unit of a stage makes; 0 if it is not its input."""
    units, inputs = stage.layer.weight.shape[0], layer.weight.shape[1]
    before, now = (isinstance(each, nn.Linear) for each in (stage.layer, layer))
    if now and not before:
        return inputs // units if stage.is_flat and inputs % units == 0 else 0
    return int(before == now and inputs == units and not stage.is_flat)


def kind_of(part: nn.Module) -> str:
    """The name of a part's class, which parametrizations change."""
    kind = type(part)
    return (kind.__bases__[0] if parametrize.is_parametrized(part) else kind).__name__


# -- fewer units ---------------------------------------------------------------------------------


@torch.no_grad()
def shrink(chain: list[Stage]) -> str | None:
    """Leave out of a chain, in place, all units that its outputs do not depend on.

    Returns why nothing was done, if nothing was.
    """
    biases, (_, *left) = analyse([link_of(stage) for stage in chain])
    layers = [stage.layer for stage in chain]
    biases = [bias.to(layer.weight) for bias, layer in zip(biases, layers, strict=True)]
    if not all(bias.isfinite().all() for bias in biases):
        return f"what is constant overflows {layers[0].weight.dtype}"
    inputs, are_read = torch.ones(layers[0].weight.shape[1], dtype=torch.bool), True
    for stage, bias, units in zip(chain, biases, left, strict=True):
        units_are_read = bool(units.any())
        units[0] |= not units_are_read  # no layer is left without units; nothing reads this one
        write(stage.layer, stage.layer.weight[units][:, inputs] * are_read, bias[units])
        for part in stage.after:
            if isinstance(part, BATCH_NORMS):
                select_channels(part, units)
        inputs, are_read = units.repeat_interleave(stage.spread), units_are_read
    return None


def link_of(stage: Stage) -> Link:
    """A stage as the analysis sees it, in the CPU's memory."""
    weight, bias = stage.layer.weight.cpu(), stage.layer.bias
    bias = torch.zeros(len(weight)) if bias is None else bias.cpu()
    silences, positive = signs(stage.after)
    pads = sees_border(stage.layer)
    return Link(weight, bias, constants_after(stage), silences, positive, stage.spread, pads)


def constants_after(stage: Stage) -> Callable[[Tensor], Tensor]:
    """What the operations of a stage make of constant units, as the module computes it, [units]."""

    def follow(values: Tensor) -> Tensor:
        values = values.to(stage.layer.weight)
        for part in stage.after:
            values = mapped(part, values)
        return values.cpu().double()

    return follow


def mapped(part: nn.Module, values: Tensor) -> Tensor:
    """What an operation makes of constant units, [units]."""
    if isinstance(part, BATCH_NORMS):
        scale = (part.running_var + part.eps).rsqrt()
        values = (values - part.running_mean) * scale
        return values * part.weight + part.bias if part.affine else values
    # a copy, as some operations write over their input
    return copy.copy(part)(values.clone()) if type(part) in EACH_UNIT else values


def signs(after: list[nn.Module]) -> tuple[bool, bool]:
    """Whether operations silence units that are not above 0; and let nothing below 0 through."""
    silences = positive = False
    as_given = True  # signs are still those that the layer gives
    for part in after:
        kind = type(part)
        cuts = kind in (nn.ReLU, nn.ReLU6) or (kind is nn.Hardtanh and part.min_val == 0)
        silences |= cuts and as_given
        overshoots = kind is nn.Upsample and part.mode == "bicubic"
        as_given &= kind not in (*EACH_UNIT, *BATCH_NORMS) and not overshoots
        if cuts or kind in (nn.Sigmoid, nn.Hardsigmoid):
            positive = True
        elif kind in (*BATCH_NORMS, *BOUNDS) or overshoots:
            positive = False
    return silences, positive


def sees_border(layer: nn.Module) -> bool:
    """Whether a layer sees zeros where its inputs have ended."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding != "valid" and any(layer.padding)


def write(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Set the weight and bias of a layer; a bias of zeros only where there was one."""
    needs = layer.weight.requires_grad
    layer.weight = nn.Parameter(weight, needs)
    if layer.bias is not None:
        layer.bias = nn.Parameter(bias, layer.bias.requires_grad)
    elif bias.any():
        layer.bias = nn.Parameter(bias, needs)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    else:
        layer.out_channels, layer.in_channels = weight.shape[:2]


def select_channels(norm: nn.Module, units: Tensor) -> None:
    """Keep some channels of a batch normalisation."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.dim():
            part = values.detach()[units].clone()
            is_weight = isinstance(values, nn.Parameter)
            setattr(norm, name, nn.Parameter(part, values.requires_grad) if is_weight else part)
    norm.num_features = int(units.sum())
