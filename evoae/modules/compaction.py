"""Really smaller modules: units whose value is constant, or that nothing reads, are left out.

`modules.chains` finds chains of layers in a module, `networks.compaction` says which of their units
are needed, and here the others are left out.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from evoae.messages import one_line, shortened
from evoae.modules import masking, reading
from evoae.modules.chains import (
    BATCH_NORMS,
    BOUNDS,
    EACH_UNIT,
    REPORTED,
    Left,
    Stage,
    chains,
    kind_of,
    why_fixed,
)  # fmt: skip
from evoae.modules.plain import copied, global_hooks, why_not_a_module
from evoae.modules.tracing import LAYERS, Prunable
from evoae.networks.compaction import Link, analyse

TOLERANCE = 1e-3  # of outputs on an example, relative to the largest: more is not rounding
COARSE = 0.05  # where parameters are of half precision


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
        module = cast(nn.Module, module._orig_mod)  # which is as good, and can be copied
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
        assert part.running_mean is not None  # see is_known
        assert part.running_var is not None
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
        cuts = kind in (nn.ReLU, nn.ReLU6) or (type(part) is nn.Hardtanh and part.min_val == 0)
        silences |= cuts and as_given
        overshoots = type(part) is nn.Upsample and part.mode == "bicubic"
        as_given &= kind not in (*EACH_UNIT, *BATCH_NORMS) and not overshoots
        if cuts or kind in (nn.Sigmoid, nn.Hardsigmoid):
            positive = True
        elif kind in (*BATCH_NORMS, *BOUNDS) or overshoots:
            positive = False
    return silences, positive


def sees_border(layer: Prunable) -> bool:
    """Whether a layer sees zeros where its inputs have ended."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding != "valid" and any(layer.padding)


def write(layer: Prunable, weight: Tensor, bias: Tensor) -> None:
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


def select_channels(norm: nn.BatchNorm1d | nn.BatchNorm2d, units: Tensor) -> None:
    """Keep some channels of a batch normalisation."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.dim():
            part = values.detach()[units].clone()
            is_weight = isinstance(values, nn.Parameter)
            setattr(norm, name, nn.Parameter(part, values.requires_grad) if is_weight else part)
    norm.num_features = int(units.sum())
