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

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evoae.modules import masking
from evoae.modules.tracing import LAYERS

# operations that map each unit by itself, and a constant to a constant
EACH_UNIT = (
    nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus,
)  # fmt: skip
UNCHANGED = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Upsample,
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


@dataclass
class Link:
    """A layer of a chain, and the operations between it and the next layer."""

    layer: nn.Module
    after: list[nn.Module] = field(default_factory=list)
    places: int = 1  # inputs of the next layer for each unit: more than one behind Flatten


def compact(module: nn.Module) -> nn.Module:
    """A smaller copy with equal outputs, for every input, in evaluation mode. Masks are taken off.

    Of a module that is a Sequential, or holds some, layers Linear, Conv1d and Conv2d in it lose
    units; inputs and outputs of a Sequential stay as they are. Warns, in one line, of what cannot
    be traced and is left as it is.
    """
    small = copy.deepcopy(module)
    for part in list(small.modules()):
        for name in ("weight", "bias"):
            if isinstance(part, LAYERS):
                masking.remove(part, name)
    left: list[str] = []
    shared = shared_tensors(small)
    for chain in chains(small, "", left, shared):
        shrink(chain)
    if left:
        warnings.warn(f"compact leaves as it is: {', '.join(left)}", stacklevel=2)
    return small


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


def chains(module: nn.Module, name: str, left: list[str], shared: set[int]) -> Iterator[list[Link]]:
    """The chains of layers in a module; names of what is in none are added to `left`."""
    if is_chain(module):
        yield from split(list(leaves(module, name)), left, shared)
        return
    for key, child in children(module):
        yield from chains(child, f"{name}.{key}" if name else key, left, shared)
    if not list(module.children()) and isinstance(module, (*LAYERS, _BatchNorm)):
        left.append(f"{name or 'the module'} ({type(module).__name__})")


def is_chain(module: nn.Module) -> bool:
    """Whether a module calls its children one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children by name; one that has two names comes twice, unlike in `named_children`."""
    return [(key, child) for key, child in module._modules.items() if child is not None]


def leaves(module: nn.Sequential, name: str) -> Iterator[tuple[str, nn.Module]]:
    """What a Sequential calls one after the other, those inside it taken apart."""
    for key, child in children(module):
        where = f"{name}.{key}" if name else key
        if is_chain(child):
            yield from leaves(child, where)
        else:
            yield where, child


def split(
    called: list[tuple[str, nn.Module]], left: list[str], shared: set[int]
) -> Iterator[list[Link]]:
    """Chains of layers whose next is reached through known operations only."""
    chain: list[Link] = []
    for where, part in called:
        if isinstance(part, LAYERS) and can_shrink(part, shared):
            if chain and not follows(chain[-1], part):
                yield chain
                chain = []
            chain.append(Link(part))
        elif chain and is_known(part, chain[-1].layer) and are_own(part, shared):
            chain[-1].after.append(part)
        else:
            if not isinstance(part, (*EACH_UNIT, *UNCHANGED, nn.Flatten)):
                left.append(f"{where} ({type(part).__name__})")
            if chain:
                yield chain
            chain = []
    if chain:
        yield chain


def can_shrink(layer: nn.Module, shared: set[int]) -> bool:
    """Whether units of a layer may be left out: its parameters are its own, its groups one."""
    plain = getattr(layer, "groups", 1) == 1 and type(layer) in LAYERS
    return plain and are_own(layer, shared)


def are_own(part: nn.Module, shared: set[int]) -> bool:
    """Whether nothing else has the parameters and buffers of a part."""
    return all(id(tensor) not in shared for tensor in (*part.parameters(), *part.buffers()))


def is_known(part: nn.Module, layer: nn.Module) -> bool:
    """Whether what a part does to a layer's units is known, so that a constant can be followed."""
    if isinstance(part, _BatchNorm):
        return part.track_running_stats and part.num_features == layer.weight.shape[0]
    if isinstance(part, nn.Flatten):
        return part.start_dim == 1 and part.end_dim == -1
    return isinstance(part, (*EACH_UNIT, *UNCHANGED))


def follows(link: Link, layer: nn.Module) -> bool:
    """Whether the units of a link are the inputs of the layer; sets how many each of them makes."""
    flat = any(isinstance(part, nn.Flatten) for part in link.after)
    before, units = isinstance(link.layer, nn.Linear), link.layer.weight.shape[0]
    inputs = layer.weight.shape[1]
    link.places = inputs // units
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
        if sees_border(following):
            idle &= (values == 0).cpu()
        fold(following, values, idle, link.places)
        kept[number] &= ~idle
        constant = idle.repeat_interleave(link.places)
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
            if isinstance(part, _BatchNorm):
                select_channels(part, units)
        inputs = units.repeat_interleave(link.places)


def bias_of(layer: nn.Module) -> Tensor:
    """A copy of the bias, zeros where there is none, [out]."""
    if layer.bias is None:
        return torch.zeros_like(layer.weight.flatten(1)[:, 0])
    return layer.bias.detach().clone()


def mapped(part: nn.Module, values: Tensor) -> Tensor:
    """What an operation makes of constant units, [units]."""
    if isinstance(part, _BatchNorm):
        scale = (part.running_var + part.eps).rsqrt()
        values = (values - part.running_mean) * scale
        return values * part.weight + part.bias if part.affine else values
    return copy_of(part)(values) if isinstance(part, EACH_UNIT) else values


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


def fold(layer: nn.Module, values: Tensor, constant: Tensor, places: int) -> None:
    """Add what constant inputs give to the biases, and take their weights away."""
    inputs, values = constant.repeat_interleave(places), values.repeat_interleave(places)
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


def select_channels(norm: _BatchNorm, units: Tensor) -> None:
    """Keep some channels of a batch normalisation."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.dim():
            part = values.detach()[units].clone()
            is_weight = isinstance(values, nn.Parameter)
            setattr(norm, name, nn.Parameter(part, values.requires_grad) if is_weight else part)
    norm.num_features = int(units.sum())
