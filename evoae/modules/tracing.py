"""Which layers of a module can be pruned, and what follows each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from evoae.modules import masking
from evoae.modules.plain import Hook, sharing_parameters, why_computed
from evoae.modules.reading import Tracer, Whole, decided, quiet, ways_to_call

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
Prunable = nn.Linear | nn.Conv1d | nn.Conv2d
Chosen = Sequence[str | type[nn.Module]]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """A layer of a module by its name; `units` are outputs, or output channels.

    `end` is the module whose output counts as the units' activation (the layer, or what normalises
    or pools it), and `activation` is the ReLU that follows that, if one is seen. `is_output`:
    nothing but the module's output follows.
    """

    name: str
    layer: Prunable
    end: nn.Module
    activation: Activation | None
    is_output: bool = False

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows, which makes exact zeros."""
        return self.activation is not None

    def activate(self, values: Tensor) -> Tensor:
        """The units' activation, from what `end` gives."""
        return self.activation(values) if self.activation else values

    @cached_property
    def units(self) -> int:
        """Units of the layer: outputs, or output channels."""
        return self.layer.weight.shape[0]

    @cached_property
    def axis(self) -> int:
        """Where the units lie in an output, counted from the end."""
        return -1 if isinstance(self.layer, nn.Linear) else 1 - self.layer.weight.dim()

    @cached_property
    def tensors(self) -> list[str]:
        """Names of what can be pruned: weight, and bias if there is one."""
        return ["weight"] if self.layer.bias is None else ["weight", "bias"]


Part = tuple[Target, str]  # a tensor of a layer: its weight or its bias


def find_layers(
    module: nn.Module,
    chosen: Chosen | None,
    excluded: Chosen,
    relu: Collection[str],
    exported: Mapping[str, Follower] | None = None,
) -> list[Target]:
    """The layers to be pruned, in the module's order. Raises ValueError, in one line.

    `chosen` and `excluded` name layers, or modules with layers in them, or types of layers; `relu`
    names layers that ReLU follows where tracing does not see it. `exported`: what a graph of
    `torch.export` shows behind layers, by name, where `torch.fx` shows no ReLU.
    """
    there = {name: part for name, part in module.named_modules() if isinstance(part, LAYERS)}
    # attention reads this one's weights and never calls it
    there = {
        n: p for n, p in there.items() if type(p).__name__ != "NonDynamicallyQuantizableLinear"
    }
    if not there:
        raise ValueError(
            f"{type(module).__name__} has no layers to prune: no Linear, Conv1d or Conv2d"
        )
    for key in [*(chosen or ()), *excluded, *relu]:
        if not any(matches(name, part, key) for name, part in there.items()):
            raise ValueError(
                f"there is no layer {key!r} to prune; the layers are {', '.join(there)}"
            )
    found = {
        name: part
        for name, part in there.items()
        if (chosen is None or any(matches(name, part, key) for key in chosen))
        and not any(matches(name, part, key) for key in excluded)
    }
    if not found:
        raise ValueError(f"all layers are excluded; the layers are {', '.join(there)}")
    owners: dict[int, str] = {}
    for name, part in found.items():
        for key in ("weight", "bias"):
            check_plain(name, part, key)
            tensor = getattr(part, key)
            if tensor is not None and owners.setdefault(id(tensor), name) != name:
                raise ValueError(
                    f"layers {owners[id(tensor)]} and {name} share a {key}; exclude one"
                )
    followers = follow(module)
    for name, shown in (exported or {}).items():
        if name not in followers or followers[name].activation is None:
            followers[name] = shown
    targets = []
    for name, part in found.items():
        seen = followers.get(name, Follower(name))
        says = any(matches(name, part, key) for key in relu)
        activation = seen.activation or (torch.relu if says else None)
        end = module.get_submodule(seen.end)
        targets.append(Target(name, part, end, activation, seen.is_output))
    return targets


def matches(name: str, part: nn.Module, key: str | type[nn.Module]) -> bool:
    """Whether a layer is of a type, has a name, or lies in the module of that name."""
    if isinstance(key, type):
        return isinstance(part, key)
    return name == key or name.startswith(f"{key}.")


def check_plain(name: str, part: nn.Module, key: str) -> None:
    """Raise ValueError for a tensor that cannot be pruned as it is."""
    tensor = getattr(part, key, None)
    where = f"layer {name}" if name else "the module"
    if tensor is not None and is_lazy(tensor):
        raise ValueError(f"{where} is lazy and has no {key} yet: pass it some data first")
    hooks = part._forward_hooks.values()
    if masking.mask_of(part, key) or any(isinstance(h, Hook) and h.call for h in hooks):
        raise ValueError(
            f"{where} is pruned by another Pruner already: finish that one first (of a copy "
            "of such a module, torch.nn.utils.parametrize.remove_parametrizations takes masks off)"
        )
    if computed := why_computed(part):
        raise ValueError(f"{where} cannot be pruned: {computed}; exclude it")
    if tensor is None:
        return
    if not tensor.is_floating_point():
        raise ValueError(f"the {key} of {where} is {tensor.dtype}: exclude the layer")
    if not tensor.numel():
        shape = list(tensor.shape)
        raise ValueError(f"the {key} of {where} is empty, {shape}: exclude the layer")


# -- what follows a layer ------------------------------------------------------------------------

# exact zeros below zero
RELUS = {torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_", nn.ReLU}
RELUS_TO_SIX = {F.relu6, nn.ReLU6}
BOUNDED = {F.hardtanh, F.hardtanh_, nn.Hardtanh}
CLAMPS = {torch.clamp, torch.clip, torch.clamp_min, "clamp", "clamp_", "clip", "clip_", "clamp_min"}
THRESHOLDS = {F.threshold, nn.Threshold}
IN_PLACE = {torch.relu_, F.relu_, F.hardtanh_, "relu_", "clamp_", "clip_"}
# each unit by itself, at the same position of the output
KEEP_UNITS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LocalResponseNorm,
)  # fmt: skip
OVER_POSITIONS = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Upsample,
)  # fmt: skip
# ReLU before is as good as ReLU behind: what scales, drops, moves or picks values
COMMUTE_IN_PLACE = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, F.dropout, F.dropout1d, F.dropout2d,
    "contiguous", "clone", "float", "to", torch.clone,
}  # fmt: skip
COMMUTE_OVER_POSITIONS = {
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d,
}  # fmt: skip
COMMUTE = {
    nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.permute, torch.transpose,
    torch.squeeze, torch.unsqueeze, "view", "reshape", "flatten", "unflatten", "permute",
    "transpose", "squeeze", "unsqueeze", "view_as", "reshape_as", "t",
}  # fmt: skip
SHAPE = {"size", "dim", "numel", "ndimension", "nelement", "is_floating_point"}


@dataclass(frozen=True)
class Follower:
    """What follows a layer: see `Target`; `end` by name."""

    end: str
    activation: Activation | None = None
    is_output: bool = False


def follow(module: nn.Module) -> dict[str, Follower]:
    """What follows each layer that is seen, by name.

    `torch.fx` traces the module, or where it cannot, each part of it that it can. With an example,
    `following.followers` sees more.
    """
    try:
        return followers_in(module)
    except Exception:  # whatever a forward of a user raises that is given no data
        found: dict[str, Follower] = {}
        for key, child in module.named_children():
            for name, seen in follow(child).items() if not isinstance(child, LAYERS) else ():
                found[f"{key}.{name}"] = Follower(f"{key}.{seen.end}", seen.activation)
        return found


def followers_in(module: nn.Module) -> dict[str, Follower]:
    """What follows each layer of a module that can be traced."""
    positional, given = next(ways_to_call(module))

    def run(answers: list[bool]) -> tuple[fx.Graph, Whole]:
        try:
            probe = sharing_parameters(module)  # a forward may keep what it sees: symbols, here
        except Exception:  # whatever an attribute of a user raises that is copied
            probe = module
        whole = Whole(probe, positional, given)
        with quiet():
            return Tracer(answers).trace(whole), whole

    graph, whole = decided(run)
    named = dict(whole.named_modules())
    alive = reaching_output(graph)
    found: dict[str, Follower] = {}
    for node in graph.nodes:
        layer = called(node, named)
        if isinstance(layer, LAYERS):
            name = str(node.target).removeprefix("module.").removeprefix("module")
            seen = follower(node, name, layer, named, alive)
            if name in found:  # called more than once
                alike = (found[name].end, found[name].activation) == (seen.end, seen.activation)
                end, activation = (seen.end, seen.activation) if alike else (name, None)
                seen = Follower(end, activation, found[name].is_output and seen.is_output)
            found[name] = seen
    return found


def follower(
    node: fx.Node, name: str, layer: nn.Module, named: dict[str, nn.Module], alive: set[fx.Node]
) -> Follower:
    """Follow a layer's output, as long as one operation alone reads it."""
    is_output = not any(isinstance(called(n, named), LAYERS) for n in after(node))
    conv = not isinstance(layer, nn.Linear)
    end, at, behind_norm = name, node, name
    in_place = True  # units lie where the layer puts them
    while True:
        users = [user for user in at.users if reads_values(user, alive, named)]
        if users and is_in_place(users[0], named):
            users = users[:1]
        found = [relu_of(user, named) for user in users]
        if found and found[0] and all(each is found[0] for each in found):
            return Follower(end, found[0], is_output)
        if len(users) != 1:
            return Follower(behind_norm, None, is_output)
        user = users[0]
        kind = kind_of(user, named)
        keeps = kind in KEEP_UNITS or (conv and kind in OVER_POSITIONS)
        if keeps and in_place:
            end = str(user.target).removeprefix("module.")
            if at is node and kind in KEEP_UNITS[:3]:
                behind_norm = end
        elif kind in COMMUTE_OVER_POSITIONS:
            in_place = in_place and conv
        elif kind in COMMUTE:
            in_place = False
        elif kind not in COMMUTE_IN_PLACE:
            return Follower(behind_norm, None, is_output)
        at = user


def reaching_output(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output is made of."""
    found: set[fx.Node] = set()
    left = [node for node in graph.nodes if node.op == "output"]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left.extend(node.all_input_nodes)
    return found


def after(node: fx.Node) -> Iterator[fx.Node]:
    """All nodes that a node's value goes into, directly or not."""
    found: set[fx.Node] = set()
    left = list(node.users)
    while left:
        at = left.pop()
        if at not in found:
            found.add(at)
            yield at
            left.extend(at.users)


def reads_values(node: fx.Node, alive: set[fx.Node], named: dict[str, nn.Module]) -> bool:
    """Whether the output depends on a node, and not by its input's shape or type alone."""
    if node.target is getattr or (node.op == "call_method" and node.target in SHAPE):
        return False
    return node in alive or is_in_place(node, named)


def called(node: fx.Node, named: dict[str, nn.Module]) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return named.get(str(node.target)) if node.op == "call_module" else None


def kind_of(node: fx.Node, named: dict[str, nn.Module]) -> Any:
    """What a node does: the type of a module, a function, or the name of a method."""
    part = called(node, named)
    return node.target if part is None else type(part)


def argument(node: fx.Node, position: int, name: str, named: dict[str, nn.Module]) -> Any:
    """An argument of a function, or what a module has by that name."""
    part = called(node, named)
    if part is not None:
        return getattr(part, name)
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def is_in_place(node: fx.Node, named: dict[str, nn.Module]) -> bool:
    """Whether a node writes what it makes over its input."""
    part = called(node, named)
    inplace = node.kwargs.get("inplace", False) if part is None else getattr(part, "inplace", False)
    return bool(inplace) or kind_of(node, named) in IN_PLACE


def relu_of(node: fx.Node, named: dict[str, nn.Module]) -> Activation | None:
    """What a node does if it is a ReLU, or one that is bounded above."""
    kind = kind_of(node, named)
    if kind in RELUS:
        return torch.relu
    if kind in RELUS_TO_SIX:
        return F.relu6
    if kind in BOUNDED and argument(node, 1, "min_val", named) == 0:
        return torch.relu if (top := argument(node, 2, "max_val", named)) is None else bounded(top)
    if kind in CLAMPS and argument(node, 1, "min", named) == 0:
        top = argument(node, 2, "max", named)
        return torch.relu if top is None else bounded(top)
    if kind in THRESHOLDS and not any(
        argument(node, n, name, named) for n, name in ((1, "threshold"), (2, "value"))
    ):
        return torch.relu
    return None


@cache
def bounded(top: float) -> Activation:
    """ReLU with an upper bound."""
    return partial(torch.clamp, min=0, max=top)
