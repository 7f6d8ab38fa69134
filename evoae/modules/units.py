"""Which entries of a module's layers go together as units, from the groups of its channels.

Masks may take units that `compact` must leave, because a forward computes with their number. Heads
of an attention go whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import BoundArguments
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evoae.messages import words
from evoae.modules.graph import Node, exported, shape_of
from evoae.modules.groups import FIXED, Axes, Coupling, along, first_along
from evoae.modules.layers import Target
from evoae.modules.plain import unmasked
from evoae.pruning.units import NONE, Units


class Coupled(Coupling):
    """Channels that go together where entries are set to zero and nothing is left out."""

    # -- heads -----------------------------------------------------------------------------------

    def by_head(self, given: Sequence[Axes], rank: int) -> dict[int, Tensor]:
        """What products of matrices do side by side goes together: heads, by their dimension."""
        found: dict[int, Tensor] = {}
        for dim in range(rank - 2):
            for axes in given:
                at = dim - rank + len(axes.shape)
                for atoms in axes.atoms if at >= 0 else ():
                    if at in (varying := self.varying(atoms)):
                        heads = first_along(self.level(atoms, varying - {at}), at)
                        self.unite(heads, found.setdefault(dim, heads))
        return found

    def contracted(self, node: Node, a: Axes, b: Axes, bias: Axes | None = None) -> Axes:
        """Of a product of matrices, or of several side by side."""
        heads = self.by_head((a, b), len(a.shape)) if len(a.shape) == len(b.shape) else {}
        made, shape = super().contracted(node, a, b, bias), shape_of(node)
        there = [self.varying(atoms) for atoms in made.atoms]
        new = [along(h, dim, shape) for dim, h in heads.items() if not any(dim in v for v in there)]
        return Axes(shape, [*made.atoms, *new], made.free)

    def of_scaled_dot_product_attention(
        self, node: Node, q: Node, k: Node, v: Node, *rest: Any
    ) -> Axes:
        """Of attention: queries, keys and values of a head."""
        given, shape = [self.axes[each] for each in (q, k, v)], shape_of(node)
        heads = self.by_head(given, len(shape))
        if heads:
            return Axes(shape, [along(atoms, dim, shape) for dim, atoms in heads.items()])
        q_last, k_last, v_last = (
            [first_along(a, -1) for a in axes.atoms if self.varying(a) == {len(axes.shape) - 1}]
            for axes in given
        )
        for one, other in zip(q_last, k_last, strict=False):
            self.unite(one, other)
        return Axes(shape, [along(atoms, -1, shape) for atoms in v_last])

    # -- what only picks ---------------------------------------------------------------------------

    def of_group_norm(self, node: Node, x: Node, count: int, *given: Any) -> Axes:
        """Of each channel."""
        channels = self.channels(given[:2], len(shape_of(node)))
        return self.joined(node, [self.axes[x], *channels])

    def of_index_select(self, node: Node, x: Node, dim: int, index: Node) -> Axes:
        """Some of the entries along a dimension."""
        made = []
        for atoms in self.axes[x].atoms:
            if dim % atoms.dim() in self.varying(atoms):
                self.fix([atoms], "an index picks from them")
            else:
                made.append(atoms.narrow(dim, 0, 1))
        return Axes(shape_of(node), made)


def units_of(module: nn.Module, targets: list[Target], call: BoundArguments) -> Units:
    """The units of a module's layers, found on the arguments of a call.

    Raises ValueError, in one line, where `torch.export` cannot read the module, or no channel of
    it is between layers.
    """
    try:
        found = Coupled(exported(unmasked(module), call.args, call.kwargs))
    except Exception as error:  # an operation may be called in a way that is not known here
        raise ValueError(f"granularity=unit cannot follow channels: {words(error)}") from error
    numbers: dict[int, int] = {}
    where: dict[int, set[tuple[str, int]]] = {}

    def numbered(atoms: Tensor, name: str, axis: int) -> np.ndarray:
        roots = found.roots(atoms)
        for root in roots.unique().tolist():
            if root not in found.fixed:
                numbers.setdefault(root, len(numbers))
                where.setdefault(root, set()).add((name, axis))
        return np.vectorize(lambda root: numbers.get(root, NONE), otypes=[np.int64])(roots.numpy())

    weights, rows = [], []
    for target in targets:
        arrays, written = list[np.ndarray](), np.full(target.units, NONE)
        for name in target.weight.names:
            if name in found.grouped:
                inside, table = found.grouped[name]
                written = numbered(table.flatten(), name, 0)
                read = target.by_entry(torch.from_numpy(numbered(inside.flatten(), name, 1)))
                arrays = [np.broadcast_to(written[:, None], read.shape), read.numpy()]
                break
            for axis in range(len(target.weight.shape)):
                if (atoms := found.of_tensors.get((name, axis))) is not None:
                    own = torch.from_numpy(numbered(atoms, name, axis))
                    arrays.append(target.matrix(along(own, axis, target.weight.shape)).numpy())
                    if axis == int(target.kind.transposed):
                        written = own.numpy() if target.groups == 1 else written
        weights.append(arrays)
        rows.append(written)
    if not numbers:
        why = ", ".join(sorted(set(found.fixed.values()) - {found.fixed[FIXED]}))
        raise ValueError(f"granularity=unit finds no unit that may go: {why or 'no channels'}")
    keys = [frozenset(where[root]) for root in numbers]
    spaces = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return Units(weights, rows, np.array([spaces[key] for key in keys]))
