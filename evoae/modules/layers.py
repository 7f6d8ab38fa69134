"""The layers of a module that can be pruned: each weight of two or more dimensions is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from evoae.messages import shortened
from evoae.modules import masking
from evoae.modules.masking import Mask, Maskable
from evoae.modules.plain import Hook, computed_of, why_computed
from evoae.modules.tracing import Activation, Follower, follow

Chosen = Sequence[str | type[nn.Module]]
NORMS = (
    batchnorm._NormBase, instancenorm._InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How a layer has its weight, and what its calls show.

    `transposed`: the weight is [in, out, ...]. `units`: the output is the units' activation.
    `inputs`: how inputs are seen, as "values" or, of a lookup, as "indices".
    """

    transposed: bool = False
    units: bool = True
    inputs: str | None = "values"


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(),
    nn.Embedding: Kind(transposed=True, inputs="indices"),
    nn.EmbeddingBag: Kind(transposed=True, inputs=None),
    conv._ConvTransposeNd: Kind(transposed=True),
    conv._ConvNd: Kind(),
}
OF_ACTIVATIONS = ("mean", "deviation", "zero_share", "recall")  # statistics of units
UNSEEN = Kind(units=False, inputs=None)  # recurrent gates, attention, parameters of a user's own


def kind_of(part: nn.Module, weight: Tensor, biases: list[Maskable]) -> Kind:
    """The kind of layer that a weight is of."""
    if type(part).__name__ == "NonDynamicallyQuantizableLinear":
        return UNSEEN  # attention reads its weight and never calls it
    if type(part).__name__ == "Conv1D" and weight.dim() == 2:  # Hugging Face's linear layer
        return Kind(transposed=True)
    known = next((kind for cls, kind in KINDS.items() if isinstance(part, cls)), UNSEEN)
    if known is UNSEEN and any(bias.shape != weight.shape[:1] for bias in biases):
        return replace(UNSEEN, transposed=True)
    return known


@dataclass(frozen=True)
class Target:
    """A layer of a module by its name; `units` are outputs, or output channels.

    `tensors` are what can be pruned, "weight" and "bias" if there is one. `layers` are the parts of
    the module that have the weight and are called as one layer. `end` is the module whose output
    counts as the units' activation (the layer, or what normalises or pools it), and `activation` is
    the ReLU that follows that, if one is seen. `is_output`: nothing but the module's output
    follows.
    """

    name: str
    tensors: dict[str, Maskable]
    kind: Kind
    layers: list[nn.Module]
    end: nn.Module
    activation: Activation | None = None
    is_output: bool = False

    @property
    def layer(self) -> nn.Module:
        """The first part of the module that has the weight."""
        return self.layers[0]

    @property
    def weight(self) -> Maskable:
        """The weight."""
        return self.tensors["weight"]

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows, which makes exact zeros."""
        return self.activation is not None

    def activate(self, values: Tensor) -> Tensor:
        """The units' activation, from what `end` gives."""
        return self.activation(values) if self.activation else values

    @cached_property
    def groups(self) -> int:
        """Into how many groups a convolution divides its channels."""
        return getattr(self.layer, "groups", 1) if isinstance(self.layer, conv._ConvNd) else 1

    @cached_property
    def units(self) -> int:
        """Units of the layer: outputs, or output channels."""
        shape = self.weight.shape
        return shape[1] * self.groups if self.kind.transposed else shape[0]

    @cached_property
    def inputs(self) -> int:
        """Inputs of the layer, or input channels."""
        shape = self.weight.shape
        return shape[0] if self.kind.transposed else shape[1] * self.groups

    @cached_property
    def axis(self) -> int:
        """Where the units lie in an output, and inputs in an input, counted from the end."""
        is_conv = isinstance(self.layer, conv._ConvNd)
        return 1 - len(self.weight.shape) if is_conv else -1

    def matrix(self, weight: Tensor) -> Tensor:
        """Values of the weight's shape as operators see them: [out, in], positions flat."""
        if not self.kind.transposed:
            return weight.flatten(1)
        into, out = weight.shape[:2]
        grouped = weight.reshape(self.groups, into // self.groups, out, -1)
        return grouped.transpose(1, 2).reshape(self.units, -1)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The opposite of `matrix`."""
        shape = self.weight.shape
        if not self.kind.transposed:
            return matrix.view(shape)
        grouped = matrix.view(self.groups, shape[1], shape[0] // self.groups, -1)
        return grouped.transpose(1, 2).reshape(shape)

    def as_seen(self, part: str, values: Tensor) -> Tensor:
        """Values of a tensor as operators see them, on the CPU."""
        return (self.matrix(values) if part == "weight" else values).cpu().contiguous()

    def as_stored(self, part: str, values: Tensor) -> Tensor:
        """The opposite of `as_seen`, but on the CPU."""
        return self.from_matrix(values) if part == "weight" else values

    def sees(self, statistic: str) -> bool:
        """Whether calls of the layer show what a statistic is made of."""
        if statistic in OF_ACTIVATIONS:
            return self.kind.units
        return self.kind.inputs is not None or statistic != "input_norm"

    def by_entry(self, values: Tensor) -> Tensor:
        """Values of inputs [in] by entries of the matrix: [in], or [out, in] in groups."""
        if self.groups > 1:
            each = self.units // self.groups
            values = values.view(self.groups, -1).repeat_interleave(each, 0)
        return values.repeat_interleave(self.weight.shape[2:].numel(), -1)


Part = tuple[Target, str]  # a tensor of a layer: its weight or its bias


def find_layers(
    module: nn.Module,
    chosen: Chosen | None,
    excluded: Chosen,
    relu: Collection[str],
    exported: Mapping[str, Follower] | None = None,
    followed: bool = True,
) -> list[Target]:
    """The layers to be pruned, in the module's order. Raises ValueError, in one line.

    `chosen` and `excluded` name layers, or modules with layers in them, or types of layers; `relu`
    names layers that ReLU follows where tracing does not see it. `exported`: what a graph of
    `torch.export` shows behind layers, by name, where `torch.fx` shows no ReLU. Without `followed`,
    what follows a layer is not looked for.
    """
    there = weights_of(module)
    if not there:
        raise ValueError(
            f"{type(module).__name__} has no layers to prune: no Linear, no convolution and no "
            "other parameter of two or more dimensions"
        )
    for key in [*(chosen or ()), *excluded, *relu]:
        if not any(matches(name, held[0], key) for name, held in there.items()):
            raise ValueError(
                f"there is no layer {key!r} to prune; the layers are {', '.join(there)}"
            )
    found = {
        name: held
        for name, held in there.items()
        if (chosen is None or any(matches(name, held[0], key) for key in chosen))
        and not any(matches(name, held[0], key) for key in excluded)
    }
    if not found:
        raise ValueError(f"all layers are excluded; the layers are {', '.join(there)}")
    for name, held in found.items():
        for tensor in held:
            check_plain(name, tensor)
    followers, targets = follow(module) if followed else {}, list[Target]()
    for name, shown in (exported or {}).items():
        if name not in followers or followers[name].activation is None:
            followers[name] = shown
    for name, (weight, *biases) in found.items():
        if any(bias is target.tensors.get("bias") for bias in biases for target in targets):
            biases = []  # of layers that share one, the first has it
        target = target_of(name, weight, biases, followers, module)
        if target.activation is None and any(matches(name, weight, key) for key in relu):
            target = replace(target, activation=torch.relu)
        targets.append(target)
    return targets


def target_of(
    name: str,
    weight: Maskable,
    biases: list[Maskable],
    followers: dict[str, Follower],
    module: nn.Module,
) -> Target:
    """A layer. Of a lookup that is a linear layer too (tied embeddings), the latter is seen."""
    kinds = [kind_of(part, weight.value, biases) for part, _ in weight.holders]
    kind = min(kinds, key=lambda each: (not each.units, each.inputs != "values"))
    alike = [number for number, each in enumerate(kinds) if each == kind]
    where = weight.names[alike[0]].rpartition(".")[0]
    seen = followers.get(where) if len(alike) == 1 else None
    seen = seen or Follower(where)
    tensors = dict(zip(("weight", "bias"), (weight, *biases), strict=False))
    layers = [weight.holders[number][0] for number in alike]
    end = module.get_submodule(seen.end)
    return Target(name, tensors, kind, layers, end, seen.activation, seen.is_output)


def tensors_of(module: nn.Module) -> dict[tuple[nn.Module, str], Maskable]:
    """Every parameter, and what is computed from some, by the part that has it and its name there.

    One that several parts have is one, with all its names.
    """
    found: dict[tuple[nn.Module, str], Maskable] = {}
    known: dict[Any, Maskable] = {}
    for where, part in module.named_modules():
        if isinstance(part, parametrize.ParametrizationList):
            continue
        computed = computed_of(part)
        behind = tuple(f"{name}_" for name in computed)  # weight_g and weight_v, or weight_orig
        for name in (*computed, *part._parameters):
            parameter = part._parameters.get(name)
            if name not in computed and (parameter is None or name.startswith(behind)):
                continue
            key = (id(part), name) if parameter is None else id(parameter)
            tensor = known.setdefault(key, Maskable([], []))
            tensor.names.append(f"{where}.{name}".lstrip("."))
            tensor.holders.append((part, name))
            found[part, name] = tensor
    return found


def weights_of(module: nn.Module) -> dict[str, list[Maskable]]:
    """Every weight of two or more dimensions, and its bias if there is one, by its layer's name.

    That is the name of the part of the module that has it, or its own if it is not its `weight`.
    """
    tensors = tensors_of(module)
    found: dict[str, list[Maskable]] = {}
    for tensor in dict.fromkeys(tensors.values()):
        (part, name), (where, _, own) = tensor.holders[0], tensor.names[0].rpartition(".")
        if isinstance(part, NORMS) or not (is_lazy(tensor.value) or tensor.value.dim() > 1):
            continue
        bias = tensors.get((part, name.replace("weight", "bias")))
        found[where if own == "weight" else tensor.names[0]] = (
            [tensor] if bias is None or bias is tensor else [tensor, bias]
        )
    return found


def coverage(module: nn.Module, targets: list[Target]) -> tuple[str, float]:
    """How much of a module layers cover, in words; and the share left out that nobody chose to.

    Norms are not counted in the latter: they scale what others compute.
    """
    known = [each for each in tensors_of(module).values() if isinstance(each.holders[0][0], NORMS)]
    known += [each for held in weights_of(module).values() for each in held]
    within = [each for target in targets for each in target.tensors.values()]
    covered, considered = (
        {id(parameter) for each in kind for parameter in each.behind} for kind in (within, known)
    )
    sizes = {name: (id(p), p.numel()) for name, p in module.named_parameters()}
    total = sum(size for _, size in sizes.values())
    left = {name: size for name, (key, size) in sizes.items() if key not in covered}
    unasked = sum(size for key, size in sizes.values() if key not in considered)
    done = total - sum(left.values())
    words = f"covers {done:,} of {total:,} parameters ({done / total:.1%})"
    names = (name.replace("parametrizations.", "") for name in left)
    return words + (f"; left out: {shortened(', '.join(names))}" if left else ""), unasked / total


def mask_all(module: nn.Module, targets: list[Target]) -> list[tuple[nn.Module, str]]:
    """Add masks that keep everything, and return where: parts of the module, and names there.

    Where one tensor of a part is masked, all are: so parameters keep their order.
    """
    chosen = [tensor for target in targets for tensor in target.tensors.values()]
    names = {tensor.names[0] for tensor in chosen}
    parts = {part for tensor in chosen for part, _ in tensor.holders}
    masks: dict[str, Mask] = {}
    for (part, name), tensor in tensors_of(module).items():
        first, plain = tensor.names[0], tensor.stored is not None and part in parts
        if first in names or (plain and tensor.value.is_floating_point()):
            if first not in masks:
                masks[first] = Mask(torch.ones_like(tensor.value, requires_grad=False))
            masking.add(part, name, masks[first])
    return [where for where in tensors_of(module) if masking.mask_of(*where)]


def matches(name: str, weight: Maskable, key: str | type[nn.Module]) -> bool:
    """Whether a layer is of a type, has a name, or lies in the module of that name."""
    if isinstance(key, type):
        return any(isinstance(part, key) for part, _ in weight.holders)
    names = (name, *weight.names, *(each.removesuffix(".weight") for each in weight.names))
    return any(each == key or each.startswith(f"{key}.") for each in names)


def check_plain(name: str, tensor: Maskable) -> None:
    """Raise ValueError for a tensor that cannot be pruned as it is."""
    (part, key), where = tensor.holders[0], f"layer {name}" if name else "the module"
    if is_lazy(tensor.value):
        raise ValueError(f"{where} is lazy and has no {key} yet: pass it some data first")
    hooks = part._forward_hooks.values()
    if tensor.mask or any(isinstance(h, Hook) and h.call for h in hooks):
        raise ValueError(
            f"{where} is pruned by another Pruner already: finish that one first (of a copy "
            "of such a module, torch.nn.utils.parametrize.remove_parametrizations takes masks off)"
        )
    if hasattr(nn.ModuleDict, key):
        raise ValueError(f"{tensor.names[0]} has the name of a method, {key}: rename or exclude it")
    why = None if parametrize.is_parametrized(part) else why_computed(part)
    if why and not why.endswith("torch.nn.utils.weight_norm"):
        raise ValueError(f"{where} cannot be pruned: {why}; exclude it")
    if not tensor.value.is_floating_point():
        raise ValueError(f"the {key} of {where} is {tensor.value.dtype}: exclude the layer")
    if not tensor.value.numel():
        raise ValueError(f"the {key} of {where} is empty, {list(tensor.shape)}: exclude the layer")
