"""Which channels of a module belong together: what one of them loses, all must lose.

Every index along every axis of every parameter is an atom. A walk through the module's graph
carries atoms along with the tensors that parameters are combined with, and unites those that meet:
the output channel of a layer and the input channel of the next, all that a sum adds up, all
positions of a channel that is flattened.

Beside a tensor go its `axes`: tensors of the same shape that say for each entry which atom it goes
with. Usually there is one, of the channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from evoae.modules import graph as graphs
from evoae.modules import recurrent
from evoae.modules.graph import Graph, Node, name_of, shape_of, shapes_of, spoken

FIXED = 0  # the atom of what is never left out
OUTPUT = "they are outputs"


@dataclass
class Axes:
    """Which atoms the entries of a tensor go with, [...] or what can be broadcast to its shape.

    `free`: its shape follows that of others. `before`: its shape before it was repeated to that of
    another tensor, if it was.
    """

    shape: tuple[int, ...]
    atoms: list[Tensor] = field(default_factory=list)
    free: bool = False
    before: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.atoms = [atoms.expand(self.shape) for atoms in self.atoms]


@dataclass(frozen=True)
class Even:
    """Blocks of atoms of which equally many must remain; whole ones may go if `whole`.

    `sides`: tensors [blocks, atoms], the rows of which go together.
    """

    sides: list[Tensor]
    whole: bool


class Coupling:
    """The walk: `of_tensors` [n] by name and axis, `axes` by node, and what must stay `even`."""

    def __init__(self, graph: Graph) -> None:
        self.parent = torch.zeros(1, dtype=torch.int64)
        self.fixed: dict[int, str] = {FIXED: "they are combined with what is no channel"}
        self.of_tensors: dict[tuple[str, int], Tensor] = {}
        self.axes: dict[Node, Any] = {}
        self.even: list[Even] = []
        self.grouped: dict[str, tuple[Tensor, Tensor]] = {}  # weights in groups: inputs, outputs
        self.graph = graph
        for node in graph.nodes:
            self.axes[node] = self.begin(node) if node.op == "placeholder" else self.follow(node)
        for node in graph.outputs:
            self.fix(self.axes[node].atoms, OUTPUT)

    def begin(self, node: Node) -> Axes:
        """A parameter or buffer, whose axes are atoms each; of an input they are none."""
        shape, name, made = shape_of(node), self.graph.tensors.get(node, ""), []
        for axis, size in enumerate(shape):
            if name and size > 1:
                if (name, axis) not in self.of_tensors:
                    self.of_tensors[name, axis] = self.fresh(size)
                made.append(along(self.of_tensors[name, axis], axis, shape))
        return Axes(shape, made)

    # -- atoms -----------------------------------------------------------------------------------

    def fresh(self, size: int) -> Tensor:
        """New atoms [size]."""
        atoms = torch.arange(len(self.parent), len(self.parent) + size)
        self.parent = torch.cat([self.parent, atoms])
        return atoms

    def roots(self, atoms: Tensor) -> Tensor:
        """One atom for all that were united."""
        while not torch.equal(above := self.parent[self.parent], self.parent):
            self.parent = above
        return self.parent[atoms]

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Unite two tensors of atoms, entry by entry."""
        one, other = thin(*torch.broadcast_tensors(one, other))
        pairs = torch.stack([self.roots(one).flatten(), self.roots(other).flatten()])
        parent, fixed = self.parent.numpy(), self.fixed

        def root(atom: int) -> int:
            while parent[atom] != atom:
                atom = parent[atom]
            return atom

        for a, b in pairs.unique(dim=1).T.tolist():
            low, high = sorted((int(root(a)), int(root(b))))
            if low != high:
                if low == FIXED:
                    fixed.setdefault(high, fixed[FIXED])
                    continue
                parent[high] = low
                if high in fixed:
                    fixed.setdefault(low, fixed.pop(high))

    def fix(self, atoms: Iterable[Tensor], why: str) -> None:
        """Say that these are never left out."""
        for each in atoms:
            for root in self.roots(thin(each)[0]).unique().tolist():
                self.fixed.setdefault(root, why)

    def varying(self, atoms: Tensor) -> frozenset[int]:
        """The dimensions along which atoms differ."""
        (small,) = thin(atoms)
        roots = self.roots(small)
        return frozenset(
            k
            for k, size in enumerate(small.shape)
            if size > 1 and bool((roots != roots.narrow(k, 0, 1)).any())
        )

    def level(self, atoms: Tensor, dims: Iterable[int]) -> Tensor:
        """Unite atoms along dimensions: they go together."""
        first = firsts(atoms, dims).expand(atoms.shape)
        self.unite(atoms, first)
        return first

    def blocks(self, atoms: Tensor, rows: int, whole: bool) -> None:
        """Of atoms that differ along `rows` and other dimensions, rows must stay even."""
        dims = self.varying(atoms)
        if rows in dims and len(dims) > 1:
            small = firsts(atoms, set(range(atoms.dim())) - dims)
            self.even.append(Even([small.movedim(rows, 0).flatten(1)], whole))

    def keep_even(self, table: Tensor) -> None:
        """Of each row of atoms [rows, atoms], equally many must remain."""
        if len(table) > 1:
            self.even.append(Even([table], whole=False))

    # -- operations ------------------------------------------------------------------------------

    def follow(self, node: Node) -> Any:
        """What an operation makes of the axes of its inputs."""
        shapes, found = shapes_of(node), self.result(node)
        found = found if isinstance(found, list) else [found]
        found += [Axes(shape) for shape in shapes[len(found) :]]
        return found if isinstance(node.meta["val"], tuple | list) else found[0]

    def result(self, node: Node) -> Any:
        """The axes of an operation's result, or of several; nothing goes with what is missing."""
        name = name_of(node.target)
        given = [self.axes[each] for each in node.all_input_nodes]
        if name == "getitem":
            return self.axes[node.args[0]][node.args[1]]
        if name in graphs.CREATED:
            return Axes(shape_of(node), free=True)
        if name in graphs.LIKE:
            return given[0]
        if graphs.is_pointwise(node):
            return self.joined(node, given)
        if (call := recurrent.recurrent(node)) is not None:
            made = recurrent.couple(self, node, call, Axes)
            return self.unknown(node, given) if made is None else made
        rule = getattr(self, f"of_{name.strip('_')}", None)
        if rule is not None:
            return rule(node, *node.args)
        if name in ("cat", "stack"):
            return self.side_by_side(node, given)
        if name in graphs.MOVES:
            return self.moved(node, given[0])
        if name in graphs.POOLS:
            return self.over_positions(node, given[0], graphs.POOLS[name])
        if name in graphs.REDUCTIONS:
            return self.reduced(node, given[0])
        if name in graphs.ALONG:
            return [Axes(shape, given[0].atoms) for shape in shapes_of(node)]
        return self.unknown(node, given)

    def unknown(self, node: Node, given: Sequence[Any]) -> list[Axes]:
        """Whatever an operation reads stays as it is."""
        for each in given:
            for axes in each if isinstance(each, list) else [each]:
                self.fix(axes.atoms, f"{spoken(node)} reads them")
        return []

    def joined(self, node: Node, given: Sequence[Axes]) -> Axes:
        """Unite what meets at the same positions, broadcast from the right."""
        shape = shapes_of(node)[0]
        ones = [(1,) * (len(shape) - len(each.shape)) for each in given]
        pairs = list(zip(ones, given, strict=True))
        sizes = [one + (each.before or each.shape) for one, each in pairs]
        there = [
            (number, atoms.reshape(one + each.shape))
            for number, (one, each) in enumerate(pairs)
            for atoms in each.atoms
        ]
        found: dict[frozenset[int], Tensor] = {}
        for number, atoms in there:
            dims = self.varying(atoms)
            for other, (axes, size) in enumerate(zip(given, sizes, strict=True)):
                if other == number or axes.free or all(size[k] == 1 for k in dims):
                    continue
                if narrow := [k for k in dims if size[k] == 1]:  # one value for several of them
                    atoms = self.level(atoms, narrow)
                    dims = self.varying(atoms)
                matches = [a for n, a in there if n == other and self.varying(a) == dims]
                if matches:
                    self.unite(atoms.expand(shape), matches[0].expand(shape))
                elif dims and any(size[k] > 1 for k in dims):
                    self.fix([atoms], f"{spoken(node)} combines them with what cannot shrink")
            if dims:
                found.setdefault(dims, atoms)
        return Axes(shape, list(found.values()), all(each.free for each in given))

    def channels(self, given: Any, rank: int) -> list[Axes]:
        """Parameters [channels] as they meet channels in dimension 1."""
        made, tail = [], (1,) * max(0, rank - 2)
        for axes in (self.axes[each] for each in given if isinstance(each, fx.Node)):
            shape = (*axes.shape, *tail)
            made.append(Axes(shape, [atoms.reshape(shape) for atoms in axes.atoms]))
        return made

    def moved(self, node: Node, given: Axes) -> list[Axes]:
        """What moves entries moves their atoms."""
        name = name_of(node.target)
        made: list[list[Tensor]] = []
        for atoms in given.atoms:
            before = self.varying(atoms)
            if name in ("slice", "select", "split", "split_with_sizes", "unbind", "narrow"):
                self.cut(node, atoms, before)
            after = run_moved(node, atoms)
            found = list(after) if isinstance(after, tuple | list) else [after]
            for each in found if len(before) == 1 else []:
                dims = self.varying(each)
                self.blocks(each, min(dims, default=0), whole=True)
            made.append(found)
        found = [
            Axes(shape, [each[k] for each in made if self.varying(each[k])], given.free)
            for k, shape in enumerate(shapes_of(node))
        ]
        if name == "expand":
            found[0].before = (1,) * (len(found[0].shape) - len(given.shape)) + given.shape
        return found

    def cut(self, node: Node, atoms: Tensor, varying: frozenset[int]) -> None:
        """Of what is cut into equal parts, the parts must stay equal; else nothing may go."""
        name, args = name_of(node.target), list(node.args)
        position = 2 if name.startswith("split") else 1
        at = args[position] if len(args) > position else node.kwargs.get("dim", 0)
        dim = int(at) % atoms.dim()
        if dim not in varying:
            return
        if name in ("select", "unbind"):
            if len(varying) > 1:
                self.blocks(atoms, dim, whole=False)
            else:
                self.fix([atoms], f"{name} picks one of them")
            return
        size, parts = atoms.shape[dim], {shape[dim] for shape in shapes_of(node)}
        if parts == {size}:
            return
        start = args[2] if name == "slice" and len(args) > 2 else 0
        step = args[4] if len(args) > 4 else 1
        (part, *others) = parts
        if others or size % part or int(start) % part or step != 1 or len(varying) > 1:
            self.fix([atoms], f"{name} takes a part of them")
            return
        self.keep_even(first_along(atoms, dim).reshape(size // part, part))

    def side_by_side(self, node: Node, given: Sequence[Axes]) -> Axes:
        """What is concatenated along a dimension: atoms too; along others they are united."""
        shape, name = shape_of(node), name_of(node.target)
        parts = [self.axes[each] for each in node.args[0]]
        at = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        dim = int(at) % len(shape)
        if name == "stack":
            parts = [
                Axes((*p.shape[:dim], 1, *p.shape[dim:]), [a.unsqueeze(dim) for a in p.atoms])
                for p in parts
            ]
        made = []
        others = {self.varying(a) for p in parts for a in p.atoms}
        if any(dim in dims for dims in others):  # channels
            dims = frozenset([dim])
            found = []
            for part in parts:
                here = [a for a in part.atoms if self.varying(a) == dims]
                self.fix([a for a in part.atoms if self.varying(a) != dims], f"{name} reads them")
                found.append(here[0] if here else torch.tensor(FIXED).expand(part.shape))
            rest = set(range(len(shape))) - {dim}
            made.append(torch.cat([firsts(each, rest) for each in found], dim))
        else:
            for dims in others:
                found = [[a for a in p.atoms if self.varying(a) == dims] for p in parts]
                alone = [p for p, h in zip(parts, found, strict=True) if not h and not p.free]
                found += [[torch.tensor(FIXED).expand(p.shape)] for p in alone]
                first, *more = (here[0].narrow(dim, 0, 1) for here in found if here)
                for each in more:
                    self.unite(first, each)
                made.append(first)
        return Axes(shape, made, all(part.free for part in parts))

    def over_positions(self, node: Node, given: Axes, positions: int) -> list[Axes]:
        """What is done to each channel by itself over the last dimensions."""
        kept = []
        for atoms in given.atoms:
            last = range(atoms.dim() - positions, atoms.dim())
            level = self.level(atoms, self.varying(atoms).intersection(last))
            kept.append(firsts(level, last))
        return [Axes(shape, kept) for shape in shapes_of(node)]

    def reduced(self, node: Node, given: Axes) -> list[Axes]:
        """What is summed up, or the like, over some dimensions."""
        over = graphs.dimensions(node, len(given.shape))
        kept = []
        for atoms in given.atoms:
            varying = self.varying(atoms)
            if varying.isdisjoint(over):
                kept.append(atoms)
            elif not varying <= set(over):  # what becomes one goes together
                kept.append(self.level(atoms, varying.intersection(over)))
        kept = [firsts(atoms, over) for atoms in kept]
        if len(shapes_of(node)[0]) < len(given.shape):
            kept = [atoms.squeeze(over) for atoms in kept]
        return [Axes(shape, kept) for shape in shapes_of(node)]

    # -- operations with parameters --------------------------------------------------------------

    def alike(self, one: Tensor, other: Tensor) -> bool:
        """Whether entries share an atom in one tensor where they do so in the other."""
        pair = [self.roots(each).flatten() for each in torch.broadcast_tensors(one, other)]
        counts = {len(each.unique()) for each in pair} | {len(torch.stack(pair).unique(dim=1).T)}
        return len(counts) == 1

    def contracted(self, node: Node, a: Axes, b: Axes, bias: Axes | None = None) -> Axes:
        """The product of [..., m, k] and [..., k, n]; `b` may have no leading dimensions."""
        shape, why = shape_of(node), f"{spoken(node)} combines them with what cannot shrink"
        last, row, column = len(a.shape) - 1, len(b.shape) - 2, len(b.shape) - 1
        shift = len(a.shape) - len(b.shape)  # of leading dimensions
        made = []
        of_b: dict[frozenset[int], list[Tensor]] = {}  # several, where axes were flattened into one
        for atoms in b.atoms:
            of_b.setdefault(self.varying(atoms), []).append(atoms)
        for atoms in a.atoms:
            varying = self.varying(atoms)
            if last not in varying:
                made.append(atoms.narrow(-1, 0, 1))
                continue
            there = frozenset(row if k == last else k - shift for k in varying)
            if not of_b.get(there) or last - 1 in varying:
                if not b.free:
                    self.fix([atoms], why)
                continue
            one = atoms.narrow(last - 1, 0, 1).squeeze(last - 1) if last else atoms
            rows = [each.narrow(column, 0, 1).squeeze(column) for each in of_b[there]]
            best = max(range(len(rows)), key=lambda number: self.alike(one, rows[number]))
            self.unite(one, rows[best])
            of_b[there].pop(best)
            for dim in varying - {last}:
                self.blocks(atoms, dim, whole=False)
        for varying, alone in of_b.items():
            if row in varying or not varying:
                self.fix([] if a.free else alone, why)
                continue
            for atoms in alone:
                for dim in varying - {column}:
                    self.blocks(atoms, dim, whole=False)
                made.append(atoms.narrow(row, 0, 1) if last else atoms.select(row, 0))
        if bias is not None:
            return self.joined(node, [Axes(shape, made), bias])
        return Axes(shape, made)

    def of_linear(self, node: Node, x: Node, weight: Node, bias: Node | None = None) -> Axes:
        """Of `x @ weight.T + bias`."""
        there = self.axes[weight]
        turned = Axes(there.shape[::-1], [atoms.T for atoms in there.atoms], there.free)
        return self.contracted(node, self.axes[x], turned, self.axes[bias] if bias else None)

    def of_mm(self, node: Node, a: Node, b: Node) -> Axes:
        """Of a product of matrices."""
        return self.contracted(node, self.axes[a], self.axes[b])

    of_bmm = of_mm

    def of_addmm(self, node: Node, bias: Node, a: Node, b: Node, **scales: Any) -> Axes:
        """Of a product of matrices and a sum."""
        return self.contracted(node, self.axes[a], self.axes[b], self.axes[bias])

    of_baddbmm = of_sparse_addmm = of_addmm

    def of_convolution(
        self, node: Node, x: Node, weight: Node, bias: Node | None, stride: Any, padding: Any,
        dilation: Any, transposed: bool, output_padding: Any, count: int,
    ) -> Axes:  # fmt: skip
        """Of a convolution, transposed or not."""
        shape, channels = shape_of(node), []
        for atoms in self.axes[x].atoms:
            varying = self.varying(atoms)
            if 1 in varying and 0 not in varying:  # positions of a channel go together
                channels.append(first_along(self.level(atoms, varying - {1}), 1))
            else:
                self.fix([atoms], "a convolution reads them")
        entries: dict[int, Tensor] = {}
        for atoms in self.axes[weight].atoms:
            varying = self.varying(atoms)
            if len(varying) == 1 and min(varying) < 2:
                entries[min(varying)] = first_along(atoms, min(varying))
            else:
                self.fix([atoms], "they are positions of a kernel")
        if count > 1:
            made = self.in_groups(weight, channels, entries, count, transposed, shape[1])
        else:
            there = [atoms for axis, atoms in entries.items() if axis == (0 if transposed else 1)]
            if channels and there:
                self.unite(channels[0], there[0])
            else:
                self.fix([*channels, *there], "what they are combined with cannot shrink")
            made = entries.get(1 if transposed else 0)
        outputs = Axes(shape, [] if made is None else [along(made, 1, shape)])
        return self.joined(node, [outputs, *self.channels([bias], len(shape))])

    def in_groups(
        self, weight: Node, channels: list[Tensor], entries: dict[int, Tensor], count: int,
        transposed: bool, outputs: int,
    ) -> Tensor | None:  # fmt: skip
        """A convolution in groups: of all that remain, equally many channels must remain."""
        name = self.graph.tensors.get(weight)
        shared = name is not None and name in self.grouped
        if not channels:  # of the module's input
            wide = shape_of(weight)[0] if transposed else shape_of(weight)[1] * count
            channels = [torch.full((wide,), FIXED)]
        if name is None or shared:
            self.fix([*channels, *entries.values()], "a convolution of groups reads them")
            return entries.get(0) if not transposed else None
        inside = channels[0].reshape(count, -1)
        if 1 in entries:  # an index within each group: it is written by what remains of the group
            self.fix([entries[1]], "they are indices within groups")
        if transposed:
            if 0 in entries:
                self.unite(entries[0], inside.flatten())
            made = self.fresh(outputs)
        else:
            made = entries[0] if 0 in entries else self.fresh(outputs)
        table = made.reshape(count, -1)
        if inside.shape[1] == 1 or table.shape[1] == 1:
            self.unite(inside[:, :1].expand_as(table), table)
            self.unite(inside, table[:, :1].expand_as(inside))
        self.even.append(Even([inside, table], whole=True))
        self.grouped[name] = (inside, table)
        return made

    def of_batch_norm(self, node: Node, x: Node, *given: Any) -> Axes:
        """Of a norm of each channel by itself."""
        shape = shapes_of(node)[0]
        return self.joined(node, [self.axes[x], *self.channels(given[:4], len(shape))])

    of_native_batch_norm_legit_no_training = of_batch_norm
    of_instance_norm = of_batch_norm

    def of_topk(self, node: Node, x: Node, *rest: Any) -> list[Axes]:
        """Of the largest entries: others may go if these are only put back to where they were."""
        values = [each for each in node.users if each.args[1] == 0]
        places = [each for each in node.users if each.args[1] == 1]
        back = [user for each in places for user in each.users]
        if not all(graphs.picked(user) is x for user in back) or len(values) != 1:
            self.fix(self.axes[x].atoms, "topk reads them")
        return []

    def of_scatter(self, node: Node, into: Node, *rest: Any) -> Any:
        """Of what is put to where it was."""
        if (x := graphs.picked(node)) is None:
            return self.unknown(node, [self.axes[each] for each in node.all_input_nodes])
        return self.joined(node, [self.axes[into], self.axes[x]])

    def of_prelu(self, node: Node, x: Node, weight: Node) -> Axes:
        """Of a slope, or one for each channel."""
        channels = self.channels([weight], len(shape_of(node)))
        return self.joined(node, [self.axes[x], *channels])

    def of_group_norm(self, node: Node, x: Node, count: int, *given: Any) -> Axes:
        """Of groups of channels, which go as a whole."""
        made = self.joined(node, [self.axes[x], *self.channels(given[:2], len(shape_of(node)))])
        for atoms in made.atoms:
            if self.varying(atoms) == {1}:
                blocks = first_along(atoms, 1).reshape(count, -1)
                self.unite(blocks, blocks[:, :1])
        return made

    def of_layer_norm(self, node: Node, x: Node, size: Any, *given: Any) -> Axes:
        """Of whole rows."""
        there = [self.axes[each] for each in (x, *given[:2]) if isinstance(each, fx.Node)]
        return self.joined(node, there)

    of_rms_norm = of_layer_norm

    def of_embedding(self, node: Node, weight: Node, index: Node, *rest: Any) -> Axes:
        """Of rows that an index picks, or of their sums or means."""
        shape = shapes_of(node)[0]
        rows = [atoms for atoms in self.axes[weight].atoms if self.varying(atoms) != {1}]
        self.fix(rows, "an index picks from them")
        self.fix(self.axes[index].atoms, "they are indices")
        columns = [atoms for atoms in self.axes[weight].atoms if self.varying(atoms) == {1}]
        return Axes(shape, [along(first_along(atoms, 1), -1, shape) for atoms in columns])

    of_embedding_bag = of_embedding_bag_forward_only = of_embedding

    def of_scaled_dot_product_attention(
        self, node: Node, q: Node, k: Node, v: Node, *rest: Any
    ) -> Axes:
        """Of attention: values may lose channels, the same number in each head."""
        self.fix([*self.axes[q].atoms, *self.axes[k].atoms], "attention scales by their number")
        made, rank = [], len(shape_of(node))
        for atoms in self.axes[v].atoms:
            if rank - 2 in self.varying(atoms):
                self.fix([atoms], "attention reads them")
                continue
            for dim in self.varying(atoms) - {rank - 1}:
                self.blocks(atoms, dim, whole=False)
            made.append(atoms.narrow(rank - 2, 0, 1))
        return Axes(shape_of(node), made)

    def of_constant_pad_nd(self, node: Node, x: Node, sizes: list[int], *rest: Any) -> Axes:
        """Of what is added around."""
        given, shape = self.axes[x], shape_of(node)
        padded = {len(shape) - 1 - k // 2 for k, size in enumerate(sizes) if size}
        made = []
        for atoms in given.atoms:
            if padded.isdisjoint(self.varying(atoms)):
                made.append(firsts(atoms, padded))
            else:
                made.append(torch.nn.functional.pad(atoms, sizes, value=FIXED))
        return Axes(shape, made)

    of_pad = of_constant_pad_nd


# -- entries -------------------------------------------------------------------------------------


def along(atoms: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Atoms [n] along one axis of a shape."""
    size = [1] * len(shape)
    size[axis] = len(atoms)
    return atoms.reshape(size).expand(*shape)


def firsts(values: Tensor, dims: Iterable[int]) -> Tensor:
    """The first along some dimensions, which get size 1."""
    for dim in dims:
        values = values.narrow(dim, 0, 1)
    return values


def first_along(atoms: Tensor, axis: int) -> Tensor:
    """The atoms [n] along an axis, where all others are alike."""
    return firsts(atoms, set(range(atoms.dim())) - {axis % atoms.dim()}).flatten()


def thin(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape, each dimension along which all of them are only repeated once."""
    for dim in range(tensors[0].dim()):
        if tensors[0].shape[dim] > 1 and all(each.stride(dim) == 0 for each in tensors):
            tensors = tuple(each.narrow(dim, 0, 1) for each in tensors)
    return tensors


def run_moved(node: Node, values: Tensor) -> Any:
    """What an operation that moves entries makes of other values of the same shape."""
    target = node.target
    if name_of(target) in ("view", "_unsafe_view"):
        target = torch.ops.aten.reshape.default
        shape = list(node.args[1])
        if values.dim() and shape and values.shape[0] == shape[0] and values.stride(0) == 0:
            return values[:1].reshape(1, *shape[1:]).expand(shape)  # which needs less memory
    return target(values, *node.args[1:], **node.kwargs)
