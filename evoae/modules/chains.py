"""Chains of layers in a module's Sequentials, of which the units in between are nobody else's.

They are found and made smaller without an example input. Whatever stands between layers and is not
known here ends a chain: the units before it are all kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from evoae.modules.plain import kind_of, why_not_plain
from evoae.modules.reading import is_chain
from evoae.modules.shrinking import put, set_sizes
from evoae.modules.tracing import LAYERS, Prunable
from evoae.networks.compaction import Known, Link, analyse, constants, plus, rising, scaled

# operations that map each unit by itself, and a constant to a constant
LEAST = {nn.ReLU: 0.0, nn.ReLU6: 0.0, nn.Sigmoid: 0.0, nn.Hardsigmoid: 0.0, nn.Softplus: 0.0,
         nn.Tanh: -1.0, nn.Softsign: -1.0, nn.ELU: -math.inf, nn.SELU: -math.inf,
         nn.CELU: -math.inf}  # fmt: skip
EACH_UNIT = (*LEAST, nn.LeakyReLU, nn.Hardtanh, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
UNCHANGED = (nn.Identity, nn.Dropout, nn.AlphaDropout)
# operations on a map of positions that leave a constant as it is, by the layer before
OVER_POSITIONS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.Conv1d: (nn.Dropout1d, nn.Upsample, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    nn.Conv2d: (nn.Dropout2d, nn.Upsample, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NORM_OF = dict(zip(LAYERS, (nn.BatchNorm1d, *BATCH_NORMS), strict=True))
KNOWN = {*EACH_UNIT, *UNCHANGED, *OVER_POSITIONS[nn.Conv1d], *OVER_POSITIONS[nn.Conv2d], nn.Flatten}
REPORTED = (*LAYERS, *BATCH_NORMS, nn.BatchNorm3d)

Left = dict[str, tuple[str, str]]  # what is left as it is, by name: its type, and the reason


@dataclass
class Stage:
    """A layer of a chain, and the operations between it and the next layer."""

    name: str
    layer: Prunable
    after: list[nn.Module] = field(default_factory=list)
    spread: int = 1  # inputs of the next layer for each unit: more than one behind Flatten

    @property
    def is_flat(self) -> bool:
        """Whether units and positions have become one axis."""
        return any(isinstance(part, nn.Flatten) for part in self.after)


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
        assert isinstance(part, BATCH_NORMS)
        there = part.track_running_stats and part.running_mean is not None
        return there and part.num_features == layer.weight.shape[0]
    if type(part) is nn.Flatten:
        return part.start_dim == 1 and part.end_dim == -1
    if kind in OVER_POSITIONS.get(type(layer), ()):
        return not getattr(part, "return_indices", False)
    return False


def inputs_of_each_unit(stage: Stage, layer: Prunable) -> int:
    """How many inputs of the next layer each unit of a stage makes; 0 if it is not its input."""
    units, inputs = stage.layer.weight.shape[0], layer.weight.shape[1]
    before, now = (isinstance(each, nn.Linear) for each in (stage.layer, layer))
    if now and not before:
        return inputs // units if stage.is_flat and inputs % units == 0 else 0
    return int(before == now and inputs == units and not stage.is_flat)


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

    def after(units: Known) -> Known:
        for part in stage.after:
            units = through(part, units, stage.layer.weight)
        return units

    return Link(weight, bias, after, stage.spread, sees_border(stage.layer))


def through(part: nn.Module, units: Known, like: Tensor) -> Known:
    """What is known of units [1, n] behind an operation, computed as the module does."""

    def function(values: Tensor) -> Tensor:
        # a copy, as some operations write over their input
        return copy.copy(part)(values.to(like)).cpu().double()

    kind = type(part)
    if isinstance(part, BATCH_NORMS):
        assert part.running_mean is not None  # see is_known
        assert part.running_var is not None
        scale = (part.running_var + part.eps).double().cpu().rsqrt()
        centred = plus(units, constants(-part.running_mean.double().cpu()))
        if not part.affine:
            return scaled(centred, scale)
        made = scaled(centred, scale * part.weight.double().cpu())
        return plus(made, constants(part.bias.double().cpu()))
    if kind in LEAST:
        return rising(units, function, LEAST[kind])
    if type(part) is nn.Hardtanh:
        return rising(units, function, part.min_val)
    if type(part) is nn.LeakyReLU and part.negative_slope >= 0:
        return rising(units, function)
    if kind in EACH_UNIT:  # not below 0 where their input is not, nor above
        value = function(units.value).where(units.constant, 0)
        value, fixed = value.nan_to_num(0, 0, 0), units.constant & value.isfinite()
        signs = kind is not nn.LeakyReLU
        return Known(value, fixed | (units.positive & signs), fixed | (units.negative & signs))
    if type(part) is nn.Upsample and part.mode == "bicubic":  # it overshoots
        return Known(units.value, units.constant, units.constant)
    return units


def sees_border(layer: Prunable) -> bool:
    """Whether a layer sees zeros where its inputs have ended."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding != "valid" and any(layer.padding)


def write(layer: Prunable, weight: Tensor, bias: Tensor) -> None:
    """Set the weight and bias of a layer; a bias of zeros only where there was one."""
    if layer.bias is not None or bias.any():
        put([(layer, "bias")], bias, layer.weight if layer.bias is None else layer.bias)
    put([(layer, "weight")], weight, layer.weight)
    set_sizes(layer, {})


def select_channels(norm: nn.BatchNorm1d | nn.BatchNorm2d, units: Tensor) -> None:
    """Keep some channels of a batch normalisation."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.dim():
            put([(norm, name)], values.detach()[units], values)
    set_sizes(norm, {})
