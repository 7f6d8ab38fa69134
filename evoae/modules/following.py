"""What follows each layer of a module, read from the graph that `torch.export` makes of it.

A ReLU counts if nothing but norms, pooling, dropout, reshapes and functions of single values stand
between it and the layer. What they do is computed again where activations are looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evoae.modules import graph as graphs
from evoae.modules import reading
from evoae.modules.graph import Graph, Node, name_of, shape_of
from evoae.modules.groups import along, firsts, run_moved
from evoae.modules.plain import WEIGHTED
from evoae.modules.reading import Inputs
from evoae.modules.tracing import Activation, Follower, reached

LAYERS = {"linear", "convolution", "addmm", "mm", "lstm", "gru"}
NORMS = set("batch_norm layer_norm group_norm instance_norm rms_norm".split()) | {
    "_native_batch_norm_legit_no_training"
}


def followers_on(module: nn.Module, inputs: Inputs | None) -> dict[str, Follower]:
    """What follows each layer on an example; nothing where `torch.export` cannot read the module.

    Without an example, one is guessed from the shape of the first layer.
    """
    inputs = reading.guessed(module) if inputs is None else inputs
    try:
        return {} if inputs is None else followers(module, graphs.exported(module, inputs))
    except ValueError:
        return {}


def followers(module: nn.Module, graph: Graph) -> dict[str, Follower]:
    """What follows each layer, by its name; of one called twice, what follows both calls."""
    found: dict[str, Follower] = {}
    for node in graph.nodes:
        name = graph.parts.get(node, "")
        if name_of(node.target) not in ("linear", "convolution"):
            continue
        if not isinstance(module.get_submodule(name), WEIGHTED):
            continue
        seen = Path(module, graph, node, name).follower()
        if (first := found.get(name)) is not None:
            both = first.end == seen.end and first.activation and seen.activation
            last = first.is_output and seen.is_output
            seen = Follower(seen.end, seen.activation, last) if both else Follower(name, None, last)
        found[name] = seen
    return found


class Path:
    """The operations behind a call of a layer, up to a ReLU."""

    def __init__(self, module: nn.Module, graph: Graph, node: Node, name: str) -> None:
        self.module, self.graph, self.node, self.name = module, graph, node, name
        self.axis = -1 if name_of(node.target) == "linear" else 1 - len(shape_of(node))

    def follower(self) -> Follower:
        """What follows the layer."""
        shape = shape_of(self.node)
        after = reached(self.node.users, lambda node: node.users)
        is_output = LAYERS.isdisjoint(name_of(node.target) for node in after)
        unseen = Follower(self.name, None, is_output)
        end, at, steps = self.name, self.node, list[Node]()
        units = along(torch.arange(shape[self.axis]), self.axis, shape)
        while True:
            # others are checks, or statistics that nothing reads
            users = [user for user in at.users if user.users or user.op == "output"]
            if len(users) != 1:
                return unseen
            at = users[0]
            name = name_of(at.target)
            if name in graphs.MOVES and name not in ("cat", "stack"):
                moved = run_moved(at, units)
                if not isinstance(moved, Tensor) or moved.numel() != units.numel():
                    return unseen
                units = moved
            elif self.keeps_units(at, name):
                now = graphs.shapes_of(at)[0]
                changed = [k for k, size in enumerate(now) if size != units.shape[k]]
                units = firsts(units, changed).expand(now)
            elif name != "getitem":
                return unseen
            steps.append(at)
            place = self.place(units)
            if is_relu(at, name):
                if place is None:
                    return unseen
                return Follower(end, self.replay(steps, place), is_output)
            where = self.graph.parts.get(at, "")
            leaf = where and not list(self.module.get_submodule(where).children())
            ends = not any(self.graph.parts.get(user) == where for user in at.users)
            here = place == self.axis and units.dim() == len(shape)
            if leaf and ends and here and where != self.name:
                end, steps = where, []

    def keeps_units(self, node: Node, name: str) -> bool:
        """Whether an operation works on one tensor from the layer, and on parameters."""
        others = [each for each in node.all_input_nodes if each not in self.graph.values]
        known = name in NORMS or name in graphs.POOLS or name in ("prelu", "pad")
        return len(others) == 1 and (known or graphs.is_pointwise(node))

    def place(self, units: Tensor) -> int | None:
        """Along which dimension, from the end, the units lie in their order; None if along none."""
        for dim in range(units.dim()):
            one = units.movedim(dim, -1).flatten(0, -2) if units.dim() > 1 else units[None]
            if one.shape[-1] == units.max() + 1 and (one == torch.arange(one.shape[-1])).all():
                return dim - units.dim()
        return None

    def replay(self, steps: list[Node], place: int) -> Activation:
        """A function that does the steps again, with the module's values of then."""

        def activation(values: Tensor) -> Tensor:
            for step in steps:
                values = self.step(step, values)
            return values.movedim(place, self.axis)

        return activation

    def step(self, node: Node, made: Any) -> Any:
        """One step, of a batch of any size."""
        if name_of(node.target) == "getitem":
            return made[node.args[1]]

        def value(each: Node) -> Any:
            if each in self.graph.tensors:
                where, _, last = self.graph.tensors[each].rpartition(".")
                return getattr(self.module.get_submodule(where), last)
            return self.graph.values.get(each, made)

        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value)
        if name_of(node.target) in ("view", "reshape", "_unsafe_view", "expand"):
            sizes, rows = list(args[1]), shape_of(self.node)[0]
            if sizes and sizes[0] % rows == 0 and len(made) != rows:
                sizes[0] = sizes[0] // rows * len(made)
            return made.reshape(sizes) if "expand" not in str(node.target) else made.expand(sizes)
        return node.target(*args, **kwargs)


def is_relu(node: Node, name: str) -> bool:
    """Whether an operation gives exact zeros below 0, as ReLU does."""
    given = [each for each in node.args[1:] if each is not None]
    if name in ("relu", "relu6"):
        return True
    if name in ("hardtanh", "clamp", "clamp_min"):
        named = node.kwargs.get("min", node.kwargs.get("min_val"))
        return bool((node.args[1] if len(node.args) > 1 else named) == 0)
    return name == "threshold" and given == [0, 0]
