"""Which layers of a module can be pruned, and what follows each of them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
RELU = (torch.relu, nn.functional.relu, "relu", "relu_")
Chosen = Sequence[str | type[nn.Module]]


@dataclass(frozen=True)
class Place:
    """A layer of a module by its name; `units` are outputs, or output channels.

    `end` is the module whose output counts as the units' activation (the layer, or the batch
    normalisation right after it), and `relu` says whether ReLU follows that.
    """

    name: str
    layer: nn.Module
    end: nn.Module
    relu: bool

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


def find_layers(
    module: nn.Module, chosen: Chosen | None, excluded: Chosen, relu: Collection[str]
) -> list[Place]:
    """The layers to be pruned, in the module's order. Raises ValueError, in one line.

    `chosen` and `excluded` name layers, or modules with layers in them, or types of layers; `relu`
    names layers that ReLU follows where tracing does not see it.
    """
    there = {name: part for name, part in module.named_modules() if isinstance(part, LAYERS)}
    # attention reads this one's weights and never calls it
    there = {
        n: p for n, p in there.items() if type(p).__name__ != "NonDynamicallyQuantizableLinear"
    }
    if not there:
        raise ValueError(
            f"{type(module).__name__} has no layers to prune: Linear, Conv1d and Conv2d can be"
        )
    for key in [*(chosen or ()), *excluded, *relu]:
        if not any(matches(name, part, key) for name, part in there.items()):
            raise ValueError(f"there is no layer {key!r} to prune; there are {', '.join(there)}")
    found = {
        name: part
        for name, part in there.items()
        if (chosen is None or any(matches(name, part, key) for key in chosen))
        and not any(matches(name, part, key) for key in excluded)
    }
    if not found:
        raise ValueError(f"all layers are excluded; there are {', '.join(there)}")
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
    places = []
    for name, part in found.items():
        end, has_relu = followers.get(part, (part, False))
        says = any(matches(name, part, key) for key in relu)
        places.append(Place(name, part, end, has_relu or says))
    return places


def matches(name: str, part: nn.Module, key: str | type[nn.Module]) -> bool:
    """Whether a layer is of a type, has a name, or lies in the module of that name."""
    if isinstance(key, type):
        return isinstance(part, key)
    return name == key or name.startswith(f"{key}.")


def check_plain(name: str, part: nn.Module, key: str) -> None:
    """Raise ValueError for a tensor that cannot be pruned as it is."""
    if is_lazy(getattr(part, key, None)):
        raise ValueError(f"layer {name} is lazy and has no {key} yet: pass it some data first")
    if parametrize.is_parametrized(part, key) or key not in part._parameters:
        raise ValueError(f"the {key} of layer {name} is computed from others: exclude the layer")


# -- what follows a layer ------------------------------------------------------------------------


class Tracer(fx.Tracer):
    """Layers are looked at from outside, those of a user's class too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers are not looked into, masked or not."""
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)


def follow(module: nn.Module) -> dict[nn.Module, tuple[nn.Module, bool]]:
    """For each layer that is seen: the module at whose output its units end, and if ReLU follows.

    `torch.fx` traces the module, or where it cannot, each part of it that it can.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = Tracer().trace(module)
    except Exception:  # whatever a forward of a user raises that is given no data
        parts = [follow(child) for child in module.children() if not isinstance(child, LAYERS)]
        return {layer: found for part in parts for layer, found in part.items()}
    named = dict(module.named_modules())
    found: dict[nn.Module, tuple[nn.Module, bool]] = {}
    for node in graph.nodes:
        layer = named.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, LAYERS):
            end, relu = end_of(node, layer, named)
            if layer in found and found[layer] != (end, relu):  # called twice, in two ways
                end, relu = layer, False
            found[layer] = end, relu
    return found


def end_of(node: fx.Node, layer: nn.Module, named: dict[str, nn.Module]) -> tuple[nn.Module, bool]:
    """Follow a layer's output, as long as one operation alone reads it."""
    end, users = layer, list(node.users)
    if len(users) == 1 and isinstance(called(users[0], named), _BatchNorm):
        end, users = called(users[0], named), list(users[0].users)
    return end, len(users) == 1 and is_relu(users[0], named)


def called(node: fx.Node, named: dict[str, nn.Module]) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return named.get(node.target) if node.op == "call_module" else None


def is_relu(node: fx.Node, named: dict[str, nn.Module]) -> bool:
    """Whether a node is a ReLU, as a module, a function or a method."""
    if node.op in ("call_function", "call_method"):
        return node.target in RELU
    return isinstance(called(node, named), nn.ReLU)
