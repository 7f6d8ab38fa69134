"""What follows each layer of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from evoae.modules.plain import sharing_parameters
from evoae.modules.reading import Tracer, Whole, decided, quiet, ways_to_call

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
Prunable = nn.Linear | nn.Conv1d | nn.Conv2d
Activation = Callable[[Tensor], Tensor]


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
    for node in graph.nodes:  # the part that it calls, if it calls one
        node.meta["part"] = named.get(str(node.target)) if node.op == "call_module" else None
    outputs = [node for node in graph.nodes if node.op == "output"]
    alive = reached(outputs, lambda node: node.all_input_nodes)
    found: dict[str, Follower] = {}
    for node in graph.nodes:
        if isinstance(node.meta["part"], LAYERS):
            name = str(node.target).removeprefix("module.").removeprefix("module")
            seen = follower(node, name, alive)
            if name in found:  # called more than once
                alike = (found[name].end, found[name].activation) == (seen.end, seen.activation)
                end, activation = (seen.end, seen.activation) if alike else (name, None)
                seen = Follower(end, activation, found[name].is_output and seen.is_output)
            found[name] = seen
    return found


def follower(node: fx.Node, name: str, alive: set[fx.Node]) -> Follower:
    """Follow a layer's output, as long as one operation alone reads it."""
    after = reached(node.users, lambda each: each.users)
    is_output = not any(isinstance(each.meta["part"], LAYERS) for each in after)
    conv = not isinstance(node.meta["part"], nn.Linear)
    end, at, behind_norm = name, node, name
    in_place = True  # units lie where the layer puts them
    while True:
        users = [user for user in at.users if reads_values(user, alive)]
        if users and is_in_place(users[0]):
            users = users[:1]
        found = [relu_of(user) for user in users]
        if found and found[0] and all(each is found[0] for each in found):
            return Follower(end, found[0], is_output)
        if len(users) != 1:
            return Follower(behind_norm, None, is_output)
        user = users[0]
        kind = kind_of(user)
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


def reached(begin: Iterable[fx.Node], step: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """These nodes, and all that steps from one to others lead to."""
    found, left = set[fx.Node](), list(begin)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left.extend(step(node))
    return found


def reads_values(node: fx.Node, alive: set[fx.Node]) -> bool:
    """Whether the output depends on a node, and not by its input's shape or type alone."""
    if node.target is getattr or (node.op == "call_method" and node.target in SHAPE):
        return False
    return node in alive or is_in_place(node)


def kind_of(node: fx.Node) -> Any:
    """What a node does: the type of a module, a function, or the name of a method."""
    part = node.meta["part"]
    return node.target if part is None else type(part)


def argument(node: fx.Node, position: int, name: str) -> Any:
    """An argument of a function, or what a module has by that name."""
    part = node.meta["part"]
    if part is not None:
        return getattr(part, name)
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def is_in_place(node: fx.Node) -> bool:
    """Whether a node writes what it makes over its input."""
    part = node.meta["part"]
    inplace = node.kwargs.get("inplace", False) if part is None else getattr(part, "inplace", False)
    return bool(inplace) or kind_of(node) in IN_PLACE


def relu_of(node: fx.Node) -> Activation | None:
    """What a node does if it is a ReLU, or one that is bounded above."""
    kind = kind_of(node)
    if kind in RELUS:
        return torch.relu
    if kind in RELUS_TO_SIX:
        return F.relu6
    if kind in BOUNDED and argument(node, 1, "min_val") == 0:
        return torch.relu if (top := argument(node, 2, "max_val")) is None else bounded(top)
    if kind in CLAMPS and argument(node, 1, "min") == 0:
        top = argument(node, 2, "max")
        return torch.relu if top is None else bounded(top)
    if kind in THRESHOLDS and not any(
        argument(node, n, name) for n, name in ((1, "threshold"), (2, "value"))
    ):
        return torch.relu
    return None


@cache
def bounded(top: float) -> Activation:
    """ReLU with an upper bound."""
    return partial(torch.clamp, min=0, max=top)
