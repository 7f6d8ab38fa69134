"""Really smaller modules: units whose value is constant, or that nothing reads, are left out.

A chain of layers is looked at twice, as the autoencoders of `networks.compaction` are. Forward: a
unit without weights from varying ones is constant, and its value is folded into the biases of the
next layer; a padded convolution sees zeros beside it at the border, so only zeros are folded there.
Backward: a unit that the next layer gives no weight is not read. Whatever stands between layers and
is not known here ends a chain: the units before it are all kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
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

# operations that map each unit by itself, and a constant to a constant
EACH_UNIT = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish,
    nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.Hardsigmoid, nn.Hardswish,
)  # fmt: skip
UNCHANGED = (nn.Identity, nn.Dropout, nn.AlphaDropout)
# operations on a map of positions that leave a constant as it is, by the layer before
OVER_POSITIONS = {
    nn.Conv1d: (nn.Dropout1d, nn.Upsample, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    nn.Conv2d: (nn.Dropout2d, nn.Upsample, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
}
KNOWN = {*EACH_UNIT, *UNCHANGED, *OVER_POSITIONS[nn.Conv1d], *OVER_POSITIONS[nn.Conv2d], nn.Flatten}
TOLERANCE = 1e-3  # of outputs on an example, relative to the largest: more is not rounding
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
REPORTED = (*LAYERS, *BATCH_NORMS, nn.BatchNorm3d)
COARSE = 0.05  # where parameters are of half precision


Left = dict[str, tuple[str, str]]  # what is left as it is, by name: its type, and the reason


@dataclass
class Link:
    """A layer of a chain, and the operations between it and the next layer."""

    name: str
    layer: nn.Module
    after: list[nn.Module] = field(default_factory=list)
    positions: int = 1  # inputs of the next layer for each unit: more than one behind Flatten


def compact(module: nn.Module, example: Any = None) -> nn.Module:
    """A smaller copy with equal outputs, for every finite input, in evaluation mode.

    Masks are taken off. Of a module that is a Sequential, or holds some, layers Linear, Conv1d and
    Conv2d in it lose units; inputs and outputs of a Sequential stay as they are. What cannot be
    proven to give equal outputs is left as it is: layers with hooks, with parametrizations, of
    classes of a user's, with parameters that others share, and layers of a Sequential that
    something else calls or reads. One warning, of one line, names them with the reasons.

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
    left: Left = {}
    read, reason = read_outside(whole, inputs)
    small = copied(whole)
    found = list(chains(small, "", left, Grounds(shared_tensors(small), read)))
    if reason:
        left |= {link.name: (kind_of(link.layer), reason) for chain in found for link in chain}
    else:
        for chain in found:
            shrink(chain)
    tried = inputs if inputs is not None else reading.guessed(whole)
    if not reason and tried is not None and (gap := difference(whole, small, tried)):
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
    module: nn.Module, inputs: tuple[Any, ...] | None
) -> tuple[dict[str, str], str | None]:
    """What is read outside of Sequentials, by name; and why that cannot be said, if it cannot."""
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
        if inputs is None:
            return {}, str(error)
    tried = inputs if inputs is not None else reading.guessed(module)
    return (read | reading.read_on(module, tried) if tried is not None else read), None


def difference(whole: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> str | None:
    """How outputs differ, in words, if they do by more than rounding."""
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


def shared_tensors(module: nn.Module) -> set[int]:
    """Ids of the parameters and buffers that several layers have, or one layer in two places."""
    seen: set[int] = set()
    shared: set[int] = set()
    for _, part in module.named_modules(remove_duplicate=False):
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                (shared if id(tensor) in seen else seen).add(id(tensor))
    return shared


# -- chains --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grounds:
    """Why parts cannot be changed: ids of tensors that are shared, and what is read, by name."""

    shared: set[int]
    read: dict[str, str]

    def against(self, part: nn.Module, name: str) -> str | None:
        """Why a part must stay as it is, if it must."""
        if reason := why_not_plain(part) or self.read.get(name):
            return reason
        if any(id(tensor) in self.shared for tensor in (*part.parameters(), *part.buffers())):
            return "others have its parameters or buffers"
        return None


def chains(module: nn.Module, name: str, left: Left, grounds: Grounds) -> Iterator[list[Link]]:
    """The chains of layers in a module; what is in none is added to `left`."""
    if is_chain(module):
        called = list(leaves(module, name, grounds))
        yield from split(called, left, grounds)
        inside = [(where, part) for where, part in called if list(part.children())]
    else:
        inside = [(within(name, key), child) for key, child in children(module)]
    for where, child in inside:
        yield from chains(child, where, left, grounds)
    said = any(name == each or name.startswith(f"{each}.") for each in left)
    if not list(module.children()) and isinstance(module, REPORTED) and not said:
        left[name or "the module"] = kind_of(module), "it is in no plain Sequential"


def within(name: str, key: str) -> str:
    """The name of a child."""
    return f"{name}.{key}" if name else key


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children by name; one that has two names comes twice, unlike in `named_children`."""
    return [(key, child) for key, child in module._modules.items() if child is not None]


def leaves(module: nn.Sequential, name: str, grounds: Grounds) -> Iterator[tuple[str, nn.Module]]:
    """What a Sequential calls one after the other, plain ones inside it taken apart."""
    for key, child in children(module):
        where = within(name, key)
        if is_chain(child) and why_not_plain(child) is None and where not in grounds.read:
            yield from leaves(child, where, grounds)
        else:
            yield where, child


def split(
    called: list[tuple[str, nn.Module]], left: Left, grounds: Grounds
) -> Iterator[list[Link]]:
    """Chains of layers whose next is reached through known operations only."""
    chain: list[Link] = []
    for where, part in called:
        if isinstance(part, LAYERS) and not (why := against_layer(part, where, grounds)):
            if chain and not follows(chain[-1], part):
                yield chain
                chain = []
            chain.append(Link(where, part))
        elif chain and is_known(part, chain[-1].layer) and not grounds.against(part, where):
            chain[-1].after.append(part)
        else:
            if why := against(part, where, grounds, chain[-1].layer if chain else None):
                left[where] = kind_of(part), why
            if chain:
                yield chain
            chain = []
    if chain:
        yield chain


def against_layer(layer: nn.Module, name: str, grounds: Grounds) -> str | None:
    """Why units of a layer cannot be left out, if they cannot."""
    if why := why_not_plain(layer):
        return why
    if type(layer) not in LAYERS:
        return "it is of a class of its own"
    if why := grounds.against(layer, name):
        return why
    if getattr(layer, "groups", 1) != 1:
        return "it has groups"
    if not layer.weight.numel():
        return "it has no weights"
    if not layer.weight.is_floating_point():
        return f"its weights are {layer.weight.dtype}"
    return None


def against(part: nn.Module, name: str, grounds: Grounds, before: nn.Module | None) -> str | None:
    """Why a part ends a chain, in words for a warning; nothing for what is known, or looked into.

    `before` is the layer that the chain ends with.
    """
    if isinstance(part, LAYERS):
        return against_layer(part, name, grounds)
    if type(part) in KNOWN and before is None:
        return None
    why = grounds.against(part, name)
    if why or list(part.children()):
        return why
    if type(part) in KNOWN:
        after = "" if before is None else f" to units of a {type(before).__name__}"
        return None if type(part) is nn.Flatten else f"what it does{after} is not known"
    return "what it does is not known"


def kind_of(part: nn.Module) -> str:
    """The name of a part's class, which parametrizations change."""
    kind = type(part)
    return (kind.__bases__[0] if parametrize.is_parametrized(part) else kind).__name__


def is_known(part: nn.Module, layer: nn.Module) -> bool:
    """Whether what a part does to a layer's units is known, so that a constant can be followed."""
    kind = type(part)
    if kind is NORMS[type(layer)]:
        there = part.track_running_stats and part.running_mean is not None
        return there and part.num_features == layer.weight.shape[0]
    if kind is nn.Flatten:
        return part.start_dim == 1 and part.end_dim == -1
    if kind in OVER_POSITIONS.get(type(layer), ()):
        return not getattr(part, "return_indices", False)
    return kind in (*EACH_UNIT, *UNCHANGED)


def follows(link: Link, layer: nn.Module) -> bool:
    """Whether the units of a link are the inputs of the layer; sets how many each of them makes."""
    flat = any(isinstance(part, nn.Flatten) for part in link.after)
    before, units = isinstance(link.layer, nn.Linear), link.layer.weight.shape[0]
    inputs = layer.weight.shape[1]
    link.positions = inputs // units
    if isinstance(layer, nn.Linear) and not before:
        return flat and inputs % units == 0
    return not flat and inputs == units and isinstance(layer, nn.Linear) == before


# -- fewer units ---------------------------------------------------------------------------------


@torch.no_grad()
def shrink(chain: list[Link]) -> None:
    """Leave out of a chain, in place, all units that its outputs do not depend on."""
    kept = [torch.ones(link.layer.weight.shape[0], dtype=torch.bool) for link in chain]
    constant = torch.zeros(chain[0].layer.weight.shape[1], dtype=torch.bool)
    for number, link in enumerate(chain[:-1]):
        weight, following = link.layer.weight, chain[number + 1].layer
        idle = (weight[:, ~constant].flatten(1) == 0).all(1).cpu()
        values = bias_of(link.layer)  # with what was constant before folded in
        for part in link.after:
            values = mapped(part, values)
        idle &= values.isfinite().cpu()  # half precision may overflow
        if sees_border(following):
            idle &= (values == 0).cpu()
        fold(following, values, idle, link.positions)
        kept[number] &= ~idle
        constant = idle.repeat_interleave(link.positions)
    for number in range(len(chain) - 2, -1, -1):
        link, following = chain[number], chain[number + 1].layer
        entries = following.weight[kept[number + 1]] != 0
        read = entries.any(0).reshape(len(kept[number]), -1).any(1).cpu()
        kept[number] &= read
        if not kept[number].any():
            kept[number][0] = True  # no layer is left without units; this one gives nothing
    inputs = torch.ones(chain[0].layer.weight.shape[1], dtype=torch.bool)
    for link, units in zip(chain, kept, strict=True):
        select(link.layer, units, inputs)
        for part in link.after:
            if isinstance(part, BATCH_NORMS):
                select_channels(part, units)
        inputs = units.repeat_interleave(link.positions)


def bias_of(layer: nn.Module) -> Tensor:
    """A copy of the bias, zeros where there is none, [out]."""
    if layer.bias is None:
        return torch.zeros_like(layer.weight.flatten(1)[:, 0])
    return layer.bias.detach().clone()


def mapped(part: nn.Module, values: Tensor) -> Tensor:
    """What an operation makes of constant units, [units]."""
    if isinstance(part, BATCH_NORMS):
        scale = (part.running_var + part.eps).rsqrt()
        values = (values - part.running_mean) * scale
        return values * part.weight + part.bias if part.affine else values
    return copy_of(part)(values) if type(part) in EACH_UNIT else values


def copy_of(part: nn.Module) -> nn.Module:
    """One that does not write over its input."""
    part = copy.copy(part)
    if hasattr(part, "inplace"):
        part.inplace = False
    return part


def sees_border(layer: nn.Module) -> bool:
    """Whether a layer sees zeros where its inputs have ended."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding == "same" or any(layer.padding)


def fold(layer: nn.Module, values: Tensor, constant: Tensor, positions: int) -> None:
    """Add what constant inputs give to the biases, and take their weights away."""
    inputs, values = constant.repeat_interleave(positions), values.repeat_interleave(positions)
    weight = layer.weight.double()
    weight = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    more = (weight[:, inputs] @ values[inputs].double()).to(layer.weight)
    if layer.bias is not None:
        layer.bias += more
    elif more.any():
        layer.bias = nn.Parameter(more)
    layer.weight[:, inputs] = 0


def select(layer: nn.Module, units: Tensor, inputs: Tensor) -> None:
    """Keep some units, and some inputs, of a layer."""
    needs = layer.weight.requires_grad
    layer.weight = nn.Parameter(layer.weight.detach()[units][:, inputs].clone(), needs)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[units].clone(), layer.bias.requires_grad)
    out, fan_in = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out, fan_in
    else:
        layer.out_channels, layer.in_channels = out, fan_in


def select_channels(norm: nn.Module, units: Tensor) -> None:
    """Keep some channels of a batch normalisation."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.dim():
            part = values.detach()[units].clone()
            is_weight = isinstance(values, nn.Parameter)
            setattr(norm, name, nn.Parameter(part, values.requires_grad) if is_weight else part)
    norm.num_features = int(units.sum())
