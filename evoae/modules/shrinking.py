"""A module with fewer channels: which of them may go, and what is written instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from evoae.modules.facts import Facts
from evoae.modules.graph import Graph, name_of, shape_of
from evoae.modules.groups import OUTPUT, Coupling, Even, first_along
from evoae.modules.plain import WEIGHTED, kind_of

# attributes of modules of PyTorch that say how large a tensor of theirs is, and along which axis
SIZES = {
    nn.Linear: {"out_features": ("weight", 0), "in_features": ("weight", 1)},
    nn.Bilinear: {"out_features": ("weight", 0)},
    nn.modules.batchnorm._NormBase: {"num_features": ("weight", 0)},
    nn.GroupNorm: {"num_channels": ("weight", 0)},
    nn.Embedding: {"embedding_dim": ("weight", 1)},
    nn.EmbeddingBag: {"embedding_dim": ("weight", 1)},
    nn.RNNBase: {"hidden_size": ("weight_hh_l0", 1), "input_size": ("weight_ih_l0", 1)},
    nn.RNNCellBase: {"hidden_size": ("weight_hh", 1), "input_size": ("weight_ih", 1)},
    nn.PReLU: {"num_parameters": ("weight", 0)},
}

Number = tuple[str, str, int]  # a module's name, its attribute, and what it is set to
NEEDED = "what reads them needs them (a norm over units, a border, a shape)"


class Plan:
    """Which atoms of a module's tensors may go, in `families` that depend on each other."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.coupling, self.facts = graph, Coupling(graph), Facts(graph)
        self.needed = torch.zeros(len(self.coupling.parent), dtype=torch.bool)
        for node, read in self.facts.read.items():
            axes = self.coupling.axes[node]
            if isinstance(read, dict):
                for number, each in read.items():
                    self.note(axes[number].atoms, each)
            else:
                self.note(axes.atoms, read)
        gone = ~self.needed
        gone[list(self.coupling.fixed)] = False
        self.gone = self.settled(gone)  # all that are neither needed nor fixed, by their roots
        self.families = self.split()

    def note(self, atoms: Iterable[Tensor], read: Tensor) -> None:
        """Atoms of entries that are read are needed."""
        for each in atoms:
            there = read
            for dim in range(each.dim()):
                if each.stride(dim) == 0 and each.shape[dim] > 1:
                    each, there = each.narrow(dim, 0, 1), there.any(dim, keepdim=True)
            self.needed[self.coupling.roots(each[there])] = True

    def settled(self, gone: Tensor) -> Tensor:
        """Without those that must stay so that none is left empty, and blocks stay even."""
        gone, before = gone.clone(), None
        while before is None or not torch.equal(gone, before):
            before = gone.clone()
            for atoms in self.coupling.of_tensors.values():
                roots = self.coupling.roots(atoms)
                if gone[roots].all():
                    gone[roots[0]] = False
            for even in self.coupling.even:
                self.restore(even, gone)
        return gone

    def restore(self, even: Even, gone: Tensor) -> None:
        """Keep some more, so that equally many remain in each block, or none of one."""
        sides = [self.coupling.roots(side) for side in even.sides]
        alive = torch.stack([(~gone[side]).any(1) for side in sides]).any(0)
        if not even.whole or not alive.any():
            alive[:] = True
        for side in sides:
            most = max(1, int((~gone[side[alive]]).sum(1).max()))
            for row in side[alive]:
                missing = most - int((~gone[row]).sum())
                if missing > 0:
                    gone[row[gone[row]][:missing]] = False

    def split(self) -> list[Tensor]:
        """The atoms that go, in parts that go or stay together: those of the same tensors' axes."""
        parts: list[set[int]] = []
        sets = [set(self.coupling.roots(a).tolist()) for a in self.coupling.of_tensors.values()]
        sets += [
            {r for s in e.sides for r in self.coupling.roots(s).flatten().tolist()}
            for e in self.coupling.even
        ]
        for roots in sets:
            new = {root for root in roots if self.gone[root]}
            if new:
                for part in [part for part in parts if part & new]:
                    parts.remove(part)
                    new |= part
                parts.append(new)
        return [torch.tensor(sorted(part)) for part in parts]

    def layers(self, family: Tensor) -> list[str]:
        """The layers whose units go in a family."""
        roots = set(family.tolist())
        return list(dict.fromkeys(
            name.removesuffix(".weight").removesuffix(".bias")
            for (name, axis), atoms in self.coupling.of_tensors.items()
            if axis == 0 and roots & set(self.coupling.roots(atoms).tolist())
        ))  # fmt: skip

    def left(self, module: nn.Module) -> dict[str, tuple[str, str]]:
        """Layers that keep units without weights, by name: their types, and why.

        Those of outputs are kept anyway, and not among them.
        """
        found: dict[str, tuple[str, str]] = {}
        for (name, axis), atoms in self.coupling.of_tensors.items():
            weight, where = tensor_of(module, name), name.removesuffix(".weight")
            part = part_of(module, where)
            units = int(isinstance(part, nn.modules.conv._ConvTransposeNd))
            if not isinstance(weight, nn.Parameter) or weight.dim() < 2:
                continue
            if axis != units and isinstance(part, WEIGHTED):
                continue
            silent = (weight.detach().movedim(axis, 0).flatten(1) == 0).all(1).cpu()
            roots = self.coupling.roots(atoms[silent])
            kept = roots[~self.gone[roots]].tolist()
            reasons = [self.coupling.fixed.get(root, NEEDED) for root in kept]
            if reasons and reasons[0] != OUTPUT:
                found[where] = kind_of(part), f"silent units stay, as {reasons[0]}"
        return found

    # -- writing ---------------------------------------------------------------------------------

    def numbers(self, module: nn.Module, family: Tensor) -> list[list[Number]]:
        """Numbers that a user's modules hold and that say a size which a family changes.

        Each alone, and all together.
        """
        roots, sizes = set(family.tolist()), dict[int, int]()
        for atoms in self.coupling.of_tensors.values():
            lost = sum(root in roots for root in self.coupling.roots(atoms).tolist())
            sizes |= {len(atoms): len(atoms) - lost} if lost else {}
        found = [
            (where, name, sizes[value])
            for where, part in module.named_modules()
            if not type(part).__module__.startswith("torch.nn.")
            for name, value in vars(part).items()
            if type(value) is int and value in sizes
        ]
        return [[each] for each in found] + ([found] if len(found) > 1 else [])

    def write(
        self, module: nn.Module, families: Iterable[Tensor], numbers: Iterable[Number] = ()
    ) -> nn.Module:
        """Take families out of a module, in place, and set numbers of its. Returns it."""
        gone = torch.zeros_like(self.gone)
        for family in families:
            gone[family] = True
        gone = gone[self.coupling.roots(torch.arange(len(gone)))]  # of every atom
        owners = owners_of(module)
        axes = dict(self.coupling.of_tensors) | self.fold(module, owners, gone)
        sizes: dict[int, dict[int, int]] = {}  # of modules: what was so large, and is now
        for name in dict.fromkeys(name for name, _ in axes):
            tensor = tensor_of(module, name)
            small = self.in_groups(name, tensor.detach(), gone)
            for axis in range(tensor.dim()):
                atoms = axes.get((name, axis))
                if atoms is not None and len(atoms) == small.shape[axis]:
                    small = small[(slice(None),) * axis + (~gone[atoms],)]
            if small.shape != tensor.shape:
                for part, _ in owners.get(id(tensor), []):
                    changed = sizes.setdefault(id(part), {})
                    changed |= dict(zip(tensor.shape, small.shape, strict=True))
                put(owners[id(tensor)], small, tensor)
        for part in module.modules():
            if id(part) in sizes:
                set_sizes(part, sizes[id(part)])
        self.set_shapes(module, gone)
        for where, name, value in numbers:
            setattr(module.get_submodule(where), name, value)
        return module

    def fold(
        self, module: nn.Module, owners: dict[int, Any], gone: Tensor
    ) -> dict[tuple[str, int], Tensor]:
        """Add what goes and is constant to the biases that take it in. Returns axes of new ones."""
        made: dict[tuple[str, int], Tensor] = {}
        for fold in self.facts.folds.values():
            of_tensors, grouped = self.coupling.of_tensors, self.coupling.grouped.get(fold.weight)
            ins, outs = (of_tensors.get((fold.weight, k)) for k in (fold.axis, 1 - fold.axis))
            if grouped is not None:
                ins, outs = (side.flatten() for side in grouped)
            if ins is None:
                continue
            taken = gone[ins].view(fold.inputs.value.shape) & fold.inputs.constant
            added = (fold.inputs.value.where(taken, 0) @ fold.matrix).flatten()
            weight = tensor_of(module, fold.weight)
            if fold.bias is not None:
                bias = tensor_of(module, fold.bias)
                bias.data = (bias.double() + added.to(bias.device)).to(bias)
            elif added.any():
                bias = nn.Parameter(added.to(weight), weight.requires_grad)
                for part, _ in owners[id(weight)]:
                    part.bias = bias
                owners[id(bias)] = [(part, "bias") for part, _ in owners[id(weight)]]
                if outs is not None:
                    made[fold.weight.removesuffix("weight") + "bias", 0] = outs
        return made

    def in_groups(self, name: str, weight: Tensor, gone: Tensor) -> Tensor:
        """A weight in groups: of each group that remains, the inputs and outputs that remain."""
        rows, columns = self.coupling.grouped.get(name, (None, None))
        if rows is None or columns is None or not (gone[rows].any() or gone[columns].any()):
            return weight
        if rows.numel() != len(weight) or rows.shape[1] == weight.shape[1] != columns.shape[1]:
            rows, columns = columns, rows
        blocks = weight.view(len(rows), -1, *weight.shape[1:])
        made = [
            block[~gone[row]][:, ~gone[column]]
            for block, row, column in zip(blocks, rows, columns, strict=True)
            if not gone[row].all()
        ]
        return torch.cat(made)

    def set_shapes(self, module: nn.Module, gone: Tensor) -> None:
        """Set what modules without tensors of their own say of their shape."""
        for node, name in self.graph.parts.items():
            part = module.get_submodule(name)
            if isinstance(part, nn.modules.conv._ConvNd) and name_of(node.target) == "convolution":
                inside = self.coupling.grouped.get(self.graph.tensors.get(node.args[1], ""))
                if inside is not None:
                    part.groups = int((~gone[inside[0]]).any(1).sum())
                    set_sizes(part, {})
            elif isinstance(part, nn.GroupNorm | nn.modules.instancenorm._InstanceNorm):
                channels = self.sizes(node, gone)[1]
                if isinstance(part, nn.GroupNorm):
                    part.num_groups = part.num_groups * channels // shape_of(node)[1]
                    part.num_channels = channels
                else:
                    part.num_features = channels
        for name, part in module.named_modules():
            if isinstance(part, nn.Unflatten):
                self.set_unflatten(part, name, gone)

    def set_unflatten(self, part: nn.Unflatten, name: str, gone: Tensor) -> None:
        """Set what an Unflatten shapes; what a graph says of whose a view is may be wrong."""
        given = tuple(part.unflattened_size)
        for node in sorted(self.graph.nodes, key=lambda node: self.graph.parts.get(node) != name):
            if name_of(node.target) not in ("view", "_unsafe_view", "reshape"):
                continue
            before, after = shape_of(node.args[0]), shape_of(node)
            dim = part.dim % len(before)
            made = after[dim : dim + len(given)]
            rest = before[:dim] + made + before[dim + 1 :]
            if rest == after and all(a in (-1, b) for a, b in zip(given, made, strict=True)):
                part.unflattened_size = tuple(self.sizes(node, gone)[dim : dim + len(given)])
                return

    def sizes(self, node: Any, gone: Tensor) -> list[int]:
        """The shape of a node's value without what goes."""
        size = list(shape_of(node))
        for atoms in self.coupling.axes[node].atoms:
            dims = self.coupling.varying(atoms)
            if len(dims) == 1:
                size[min(dims)] = int((~gone[first_along(atoms, min(dims))]).sum())
        return size


def owners_of(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Which modules hold a tensor, and under which names, by its id."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in module.modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append((part, name))
    return found


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its name."""
    path, _, last = name.rpartition(".")
    part = module.get_submodule(path)
    tensor = part._parameters.get(last)
    return part._buffers[last] if tensor is None else tensor  # type: ignore[return-value]


def put(owners: Iterable[tuple[nn.Module, str]], small: Tensor, tensor: Tensor) -> None:
    """Set a tensor in all modules that hold it."""
    small = small.contiguous()
    made = nn.Parameter(small, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small
    for part, name in owners:
        setattr(part, name, made)


def set_sizes(part: nn.Module, sizes: dict[int, int]) -> None:
    """Set what a module says of its own size, where its tensors have another one now.

    `sizes`: what was so large, and is now, for attributes of a user's modules.
    """
    if not type(part).__module__.startswith("torch.nn."):
        for name, value in vars(part).items():
            if type(value) is int and value in sizes:  # as in Hugging Face's Conv1D
                setattr(part, name, sizes[value])
    known = {
        k: v for kind, names in SIZES.items() if isinstance(part, kind) for k, v in names.items()
    }
    for name, (held, axis) in known.items():
        tensor: Any = getattr(part, held)
        tensor = getattr(part, "running_mean", None) if tensor is None else tensor
        if tensor is not None:
            setattr(part, name, tensor.shape[axis])
    if isinstance(part, nn.LayerNorm) and part.weight is not None:
        part.normalized_shape = tuple(part.weight.shape)
    if isinstance(part, nn.modules.conv._ConvNd):
        channels = part.weight.shape[0], part.weight.shape[1] * part.groups
        part.in_channels, part.out_channels = channels if part.transposed else channels[::-1]


def part_of(module: nn.Module, name: str) -> nn.Module:
    """A part by its name; of a parameter that a module holds, that module."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        return module.get_submodule(name.rpartition(".")[0])
