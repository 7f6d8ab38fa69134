"""What a module's outputs depend on: entries that are constant, and entries that nothing reads.

Two walks through the module's graph. Forward, what is `known` of every tensor, whatever the input
is. Backward, which entries are `read`: those that outputs depend on, except constants that the
next layer's bias can take in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from evoae.modules import graph as graphs
from evoae.modules import recurrent
from evoae.modules.graph import Graph, Node, name_of, shape_of, shapes_of
from evoae.modules.groups import run_moved, thin
from evoae.networks.compaction import (
    Known,
    constants,
    plus,
    product,
    read_of,
    rising,
    scaled,
    times,
    unknown,
)


@dataclass(frozen=True)
class Fold:
    """A layer whose bias can take in constant inputs.

    `weight`, `bias`: names of its tensors (`bias` may be None: then it is made); `axis`: of the
    inputs, in the weight. `matrix` [groups, in, out]: its weights, summed over positions; `inputs`
    [groups, 1, in]: what is known of them.
    """

    weight: str
    bias: str | None
    axis: int
    matrix: Tensor
    inputs: Known


class Facts:
    """`known` and `read` by node (lists where an operation gives several), and `folds`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[Node, Any] = {}
        self.folds: dict[Node, Fold] = {}
        names = [graph.tensors.get(n) for node in graph.nodes for n in node.all_input_nodes]
        self.once = {name for name in names if names.count(name) == 1}
        for node in graph.nodes:
            self.known[node] = self.begin(node) if node.op == "placeholder" else self.follow(node)
        self.read: dict[Node, Any] = {}
        for node in graph.outputs:
            self.add(node, torch.ones((), dtype=torch.bool).expand(shape_of(node)))
        for node in reversed(graph.nodes):
            if node in self.read and node.op != "placeholder":
                self.look_back(node, name_of(node.target), self.read[node])

    # -- forward ---------------------------------------------------------------------------------

    def begin(self, node: Node) -> Known:
        """Parameters and buffers are constants; of an input nothing is known."""
        if node in self.graph.values:
            return constants(doubled(self.graph.values[node].cpu()))
        return unknown(shape_of(node))

    def follow(self, node: Node) -> Any:
        """What is known of an operation's result, except where half precision overflows."""
        made, (kind, *others) = self.result(node), dtypes_of(node)
        if others or not kind.is_floating_point or kind.itemsize > 2:
            return made
        fits = made.value.abs() <= torch.finfo(kind).max
        return Known(made.value.where(fits, 0), made.above & fits, made.below & fits)

    def result(self, node: Node) -> Any:
        """What is known of an operation's result."""
        name = name_of(node.target)
        if name == "getitem":
            return self.known[node.args[0]][node.args[1]]
        if name in graphs.CREATED or name.endswith("s_like") or name == "full_like":
            return self.created(node, name)
        if graphs.is_pointwise(node):
            return self.pointwise(node, name)
        if name in ("cat", "stack"):
            parts = [self.known[each] for each in node.args[0]]
            return Known(*(
                node.target([getattr(each, field).to(kind) for each in parts], *node.args[1:])
                for field, kind in FIELDS.items()
            ))  # fmt: skip
        if name in graphs.MOVES:
            known = self.known[node.args[0]]
            made: list[Any] = [run_moved(node, getattr(known, field)) for field in FIELDS]
            several = isinstance(made[0], tuple | list)
            return [Known(*each) for each in zip(*made, strict=True)] if several else Known(*made)
        if name in graphs.POOLS:
            return self.over_positions(node, name, graphs.POOLS[name])
        if name in ("sum", "mean"):
            return self.summed(node)
        if (call := recurrent.recurrent(node)) is not None:
            return recurrent.known(self, node, call)
        rule = getattr(self, f"of_{name.strip('_')}", None)
        if rule is not None and (made := rule(node, *node.args)) is not None:
            return made
        rest = [unknown(shape) for shape in shapes_of(node)]
        return rest if isinstance(node.meta["val"], tuple | list) else rest[0]

    def created(self, node: Node, name: str) -> Known:
        """What is made of no tensor's values."""
        if name.startswith("empty"):
            return unknown(shape_of(node))
        if name == "full":
            return constants(torch.tensor(float(node.args[1])).double().expand(shape_of(node)))
        return constants(
            doubled(run(node, {n: torch.empty(()) for n in node.all_input_nodes})).expand(
                shape_of(node)
            )
        )

    def pointwise(self, node: Node, name: str) -> Known:
        """Each entry by itself."""
        shape = shape_of(node)
        small = self.aligned(node.all_input_nodes, shape)
        args = [small[each] if isinstance(each, fx.Node) else each for each in node.args]
        made = by_sign(name, args, node) if dtypes_of(node)[0].is_floating_point else None
        if made is None:
            value = doubled(run(node, {each: known.value for each, known in small.items()}))
            constant = value.isfinite()
            for known in small.values():
                constant = constant & known.constant
            made = Known(value.where(constant, 0), constant, constant)
        return made.map(lambda each: each.expand(shape))

    def aligned(self, nodes: Iterable[Node], shape: Sequence[int]) -> dict[Node, Known]:
        """What is known of operands, broadcast; dimensions of mere repetition have size 1."""
        found = {node: self.known[node].map(lambda each: each.expand(shape)) for node in nodes}
        fields = thin(*(getattr(known, f) for known in found.values() for f in FIELDS))
        return {node: Known(*fields[3 * n : 3 * n + 3]) for n, node in enumerate(found)}

    def over_positions(self, node: Node, name: str, positions: int) -> Any:
        """Each channel by itself over the last dimensions: a constant stays what it is."""
        known = self.known[node.args[0]]
        rank = known.value.dim()
        level = uniform(known, range(rank - positions, rank))
        if name.startswith("avg_pool"):  # it may count zeros around
            value = level.value.where(level.zero, 0)
            level = Known(value, level.positive, level.negative)
        if "bicubic" in name:  # it swings below the least of its values
            level = Known(level.value, level.constant, level.constant)
        first, *others = shapes_of(node)
        made = [level.map(lambda each: each.expand(first)), *map(unknown, others)]
        return made if isinstance(node.meta["val"], tuple | list) else made[0]

    def summed(self, node: Node) -> Known:
        """A sum or a mean."""
        known, shape = self.known[node.args[0]], shape_of(node)
        dims = graphs.dimensions(node, known.value.dim())
        keep = len(shape) == known.value.dim()
        above, below = (each.all(dims, keepdim=keep) for each in (known.above, known.below))
        return Known(doubled(run(node, {node.args[0]: known.value})), above, below)

    def of_linear(self, node: Node, x: Node, weight: Node, bias: Node | None = None) -> Known:
        """Of `x @ weight.T + bias`."""
        return self.layer(node, x, weight, self.known[weight].map(lambda each: each.T), bias, 1)

    def of_addmm(self, node: Node, bias: Node, a: Node, b: Node) -> Known | None:
        """Of a product of matrices and a sum."""
        return None if node.kwargs else self.layer(node, a, b, self.known[b], bias, 0)

    of_baddbmm = of_addmm

    def layer(
        self, node: Node, x: Node, weight: Node, matrix: Known, bias: Node | None, axis: int
    ) -> Known:
        """Of a product with a matrix, and a bias."""
        given = self.known[x]
        inputs = uniform(given, range(given.value.dim() - 1))
        if matrix.value.dim() == 2:
            self.note_fold(node, weight, bias, axis, matrix.value[None], inputs)
        small = Known(*thin(given.value, given.above, given.below))
        if small.value.shape[-1] == 1:  # all inputs are alike
            small = small.map(lambda each: each.expand(*each.shape[:-1], given.value.shape[-1]))
        made = product(small, matrix)
        if bias is not None:
            made = plus(made, self.known[bias])
        return made.map(lambda each: each.expand(shape_of(node)))

    def note_fold(
        self, node: Node, weight: Node, bias: Node | None, axis: int, matrix: Tensor, inputs: Known
    ) -> None:
        """Say that a layer can take constants in: its weight and bias are parameters used once."""
        name, added = (self.graph.tensors.get(each) for each in (weight, bias))
        there = added in self.once if bias is not None else name in self.graph.no_bias
        if name is not None and name in self.once and there:
            inputs = inputs.map(lambda each: each.reshape(len(matrix), 1, -1))
            self.folds[node] = Fold(name, added, axis, matrix, inputs)

    def of_mm(self, node: Node, a: Node, b: Node) -> Known:
        """Of a product of matrices."""
        return product(self.known[a], self.known[b])

    of_bmm = of_mm

    def of_convolution(
        self, node: Node, x: Node, weight: Node, bias: Node | None, stride: Any, padding: Any,
        dilation: Any, transposed: bool, output_padding: Any, count: int,
    ) -> Known | None:  # fmt: skip
        """Of a convolution, transposed or not."""
        given, kernel, shape = self.known[x], self.known[weight], shape_of(node)
        if not kernel.constant.all():
            return None
        level = uniform(given, [k for k in range(len(shape)) if k != 1])
        level = level.map(lambda each: each.reshape(count, 1, -1))
        matrix = by_group(node, kernel.value.flatten(2).sum(2))
        if transposed or any(padding):  # where inputs end, constants end: only zeros go on
            value = level.value.where(level.zero, 0)
            level = Known(value, level.positive, level.negative)
        else:
            self.note_fold(node, weight, bias, 1, matrix, level)
        signs = [
            by_group(node, each.flatten(2).all(2)) for each in (kernel.positive, kernel.negative)
        ]
        made = product(level, constants(matrix), (signs[0], signs[1])).map(torch.Tensor.flatten)
        if bias is not None:
            made = plus(made, self.known[bias])
        return made.map(lambda each: each.view(-1, *[1] * (len(shape) - 2)).expand(shape))

    def of_batch_norm(
        self, node: Node, x: Node, weight: Node | None, bias: Node | None, mean: Node | None,
        variance: Node | None, *rest: Any,
    ) -> Any:  # fmt: skip
        """Of a norm by statistics that are fixed."""
        (shape, *others), rank = shapes_of(node), len(shapes_of(node)[0])
        if mean is None or variance is None:
            return None

        def there(node: Node) -> Known:
            return self.known[node].map(lambda each: each.view(-1, *[1] * (rank - 2)))

        scale = (there(variance).value + rest[-1]).rsqrt()
        scale = scale if weight is None else scale * there(weight).value
        made = scaled(plus(self.known[x], constants(-there(mean).value)), scale)
        if bias is not None:
            made = plus(made, there(bias))
        made = made.map(lambda each: each.expand(shape))
        return [made, *map(unknown, others)] if others else made

    of_native_batch_norm_legit_no_training = of_batch_norm

    def by_own(self, node: Node, weight: Any, bias: Any, rank: int) -> Known | None:
        """Of a norm by its own statistics: known where it is scaled by 0."""
        if not isinstance(weight, fx.Node):
            return None
        parts = [self.known[each] for each in (weight, bias) if isinstance(each, fx.Node)]
        tail = [1] * (len(shape_of(node)) - rank)
        zero, *added = (p.map(lambda each: each.reshape(*each.shape, *tail)) for p in parts)
        value = added[0].value if added else torch.zeros_like(zero.value)
        return Known(value.where(zero.zero, 0), zero.zero, zero.zero).map(
            lambda each: each.expand(shape_of(node))
        )

    def of_layer_norm(
        self, node: Node, x: Node, size: Sequence[int], weight: Any = None, bias: Any = None,
        *rest: Any,
    ) -> Known | None:  # fmt: skip
        """Of a norm over the last dimensions."""
        return self.by_own(node, weight, bias, len(shape_of(node)))

    def of_rms_norm(
        self, node: Node, x: Node, size: Sequence[int], weight: Any = None, *rest: Any
    ) -> Known | None:
        """Of a norm over the last dimensions, without a bias."""
        return self.by_own(node, weight, None, len(shape_of(node)))

    def of_group_norm(
        self, node: Node, x: Node, count: int, weight: Any = None, bias: Any = None, *rest: Any
    ) -> Known | None:
        """Of a norm over groups of channels."""
        return self.by_own(node, weight, bias, 2)

    def of_instance_norm(self, node: Node, x: Node, weight: Any, bias: Any, *rest: Any) -> Known:
        """Of a norm over the positions of each channel: of zeros, it is the bias."""
        shape, known = shape_of(node), self.known[x]
        zero = uniform(known, range(2, len(shape))).zero
        made = Known(torch.zeros_like(zero, dtype=torch.float64), zero, zero)
        if isinstance(bias, fx.Node):
            made = plus(made, self.known[bias].map(lambda e: e.view(-1, *[1] * (len(shape) - 2))))
        return made.map(lambda each: each.expand(shape))

    def of_embedding(self, node: Node, weight: Node, index: Node, *rest: Any) -> Known:
        """Of rows that an index picks."""
        return uniform(self.known[weight], [0]).map(lambda each: each.expand(shape_of(node)))

    def of_embedding_bag(self, node: Node, weight: Node, *rest: Any) -> list[Known]:
        """Of sums or means of rows that an index picks: of zeros, they are zeros."""
        first, *others = shapes_of(node)
        zero = uniform(self.known[weight], [0]).zero.expand(first)
        return [Known(unknown(first).value, zero, zero), *map(unknown, others)]

    of_embedding_bag_forward_only = of_embedding_bag

    def of_scaled_dot_product_attention(
        self, node: Node, q: Node, k: Node, v: Node, *rest: Any
    ) -> Known:
        """Of means of values over positions."""
        known, rank = self.known[v], len(shape_of(node))
        return uniform(known, [rank - 2]).map(lambda each: each.expand(shape_of(node)))

    def of_softmax(self, node: Node, x: Node, *rest: Any) -> Known:
        """Of shares."""
        known = unknown(shape_of(node))
        return Known(known.value, ~known.above, known.below)

    def of_scatter(self, node: Node, into: Node, *rest: Any) -> Known | None:
        """Of the largest entries, put back to where they were."""
        if (x := graphs.picked(node)) is None:
            return None
        one, other = self.known[into].about_zero, self.known[x].about_zero
        zero = one.zero & other.zero
        return Known(unknown(zero.shape).value, zero | (one.positive & other.positive), zero)

    def of_prelu(self, node: Node, x: Node, weight: Node) -> Known:
        """Of a slope below 0, or one for each channel."""
        shape = shape_of(node)
        slope = self.known[weight].map(lambda e: e.view(-1, *[1] * max(0, len(shape) - 2)))
        known = self.known[x].about_zero
        value = known.value.where(known.value > 0, known.value * slope.value)
        constant = known.constant & slope.constant
        negative = known.negative & slope.positive
        made = Known(value.where(constant, 0), known.positive | constant, negative | constant)
        return made.map(lambda each: each.expand(shape))

    def of_constant_pad_nd(self, node: Node, x: Node, sizes: list[int], value: Any = 0) -> Known:
        """Of what has a border of one value."""
        known = self.known[x].about_zero
        edge = float(value)
        return Known(
            *(torch.constant_pad_nd(each, sizes, fill) for each, fill in (
                (known.value, edge), (known.above, True), (known.below, True)
            ))
        )  # fmt: skip

    def of_pad(
        self, node: Node, x: Node, sizes: list[int], mode: str = "constant", value: Any = None
    ) -> Known:
        """Of what has a border, of one value or of its own."""
        if mode == "constant":
            return self.of_constant_pad_nd(node, x, sizes, value or 0)
        known, rank = self.known[x], len(shape_of(node))
        level = uniform(known, range(rank - len(sizes) // 2, rank))
        return level.map(lambda each: each.expand(shape_of(node)))

    # -- backward --------------------------------------------------------------------------------

    def add(self, node: Any, read: Tensor) -> None:
        """Say that entries of a node are read, [...] or what can be broadcast to that."""
        if not isinstance(node, fx.Node):
            return
        shape = shape_of(node)
        (read,) = thin(read.expand(torch.broadcast_shapes(read.shape, shape)))
        for _ in range(read.dim() - len(shape)):
            read = read.any(0)
        read = summed_to(read, shape)
        if node in self.read:
            (before,) = thin(self.read[node])
            read = read | before
        self.read[node] = read.expand(shape)

    def look_back(self, node: Node, name: str, read: Any) -> None:
        """Say which entries of its inputs an operation's results depend on that are read."""
        args = node.args
        if name == "getitem":
            (small,) = thin(read)
            self.read.setdefault(args[0], {})[args[1]] = small.expand(read.shape)
        elif name in ("full_like", "zeros_like", "ones_like"):
            return  # which reads a shape
        elif graphs.is_pointwise(node):
            for each in node.all_input_nodes:
                others = [n for n in node.all_input_nodes if n is not each]
                zero = [self.known[n].zero for n in others if name == "mul"]
                self.add(each, read & ~zero[0] if zero else read)
        elif name in graphs.MOVES:
            self.move_back(node, read)
        elif name in graphs.REDUCTIONS:
            reads = list(read.values()) if isinstance(read, dict) else [read]
            shape = shape_of(args[0])
            for each in reads:
                if each.dim() < len(shape):
                    for dim in sorted(graphs.dimensions(node, len(shape))):
                        each = each.unsqueeze(dim)
                each = each.expand(shape)
                self.add(args[0], each & ~self.known[args[0]].zero if name == "sum" else each)
        elif (call := recurrent.recurrent(node)) is not None:
            recurrent.look_back(self, node, call, read)
        elif (rule := getattr(self, f"back_{name.strip('_')}", None)) is not None:
            rule(node, next(iter(read.values())) if isinstance(read, dict) else read, *args)
        elif name in graphs.POOLS or name in graphs.ALONG or name == "pad":
            reads = list(read.values()) if isinstance(read, dict) else [read]
            for each in reads:
                rank = each.dim()
                dims = [int(args[1]) % rank] if name in graphs.ALONG else range(2, rank)
                self.add(
                    args[0],
                    summed_to(each, [1 if k in dims else each.shape[k] for k in range(rank)]),
                )
        else:
            for each in node.all_input_nodes:
                self.add(each, torch.tensor(True))

    def move_back(self, node: Node, read: Any) -> None:
        """Where the entries came from that are read now."""
        first = node.args[0]
        nodes = list(first) if isinstance(first, list | tuple) else [first]
        with torch.enable_grad():
            values = [torch.zeros(shape_of(each), requires_grad=True) for each in nodes]
            if nodes is first or isinstance(first, list | tuple):
                made = node.target(values, *node.args[1:])
            else:
                made = run_moved(node, values[0])
            reads = read if isinstance(read, dict) else {0: read}
            made = made if isinstance(made, tuple | list) else [made]
            slopes = torch.autograd.grad(
                [made[k] for k in reads], values, [each.float() for each in reads.values()]
            )
        for each, slope in zip(nodes, slopes, strict=True):
            self.add(each, slope > 0)

    def back_linear(
        self, node: Node, read: Tensor, x: Node, weight: Node, bias: Any = None
    ) -> None:
        """Of `x @ weight.T + bias`."""
        self.back_product(node, read, x, self.known[weight].map(lambda e: e.T), weight, True)
        self.add(bias, read)

    def back_addmm(self, node: Node, read: Tensor, bias: Node, a: Node, b: Node) -> None:
        """Of a product and a sum."""
        self.back_product(node, read, a, self.known[b], b, False)
        self.add(bias, read)

    back_baddbmm = back_addmm

    def back_mm(self, node: Node, read: Tensor, a: Node, b: Node) -> None:
        """Of a product."""
        self.back_product(node, read, a, self.known[b], b, False)

    back_bmm = back_mm

    def back_product(
        self, node: Node, read: Tensor, x: Node, matrix: Known, weight: Node, turned: bool
    ) -> None:
        """Of a product: a constant that a bias takes in is not read, and nothing beside a zero."""
        links, fold = ~matrix.zero, self.folds.get(node)
        matters = ~self.known[x].zero
        if fold is not None:
            matters = matters & ~fold.inputs.constant.flatten()
        (small,) = thin(read)
        if small.shape[-1] == 1:
            small = small.expand(*small.shape[:-1], read.shape[-1])
        self.add(x, read_of(links, small).expand(matters.shape) & matters)
        one, other = matters.float(), read.float()
        if matrix.value.dim() == 2:
            one, other = (each.reshape(-1, each.shape[-1]) for each in (one, other))
        rows = (one.mT @ other > 0) & links
        self.add(weight, rows.mT if turned else rows)

    def back_convolution(
        self, node: Node, read: Tensor, x: Node, weight: Node, bias: Any, stride: Any,
        padding: Any, dilation: Any, transposed: bool, output_padding: Any, count: int,
    ) -> None:  # fmt: skip
        """Of a convolution."""
        given, kernel, rank = self.known[x], self.known[weight], len(shape_of(node))
        tail = [1] * (rank - 2)
        out = summed_to(read, [1, read.shape[1], *tail]).reshape(count, 1, -1)
        links = by_group(node, ~kernel.zero.flatten(2).all(2))
        zero = uniform(given, [k for k in range(rank) if k != 1]).zero.reshape(count, 1, -1)
        fold = self.folds.get(node)
        matters = ~zero if fold is None else ~zero & ~fold.inputs.constant
        inside = read_of(links, out) & matters
        self.add(x, inside.reshape(1, -1, *tail))
        rows = links & matters.mT & out
        size = [*kernel.value.shape[:2], *tail]
        rows = rows if transposed else rows.mT
        self.add(weight, rows.reshape(size))
        self.add(bias, out.flatten())

    def back_batch_norm(self, node: Node, read: Tensor, x: Node, *given: Any) -> None:
        """Of a norm of each channel."""
        self.add(x, read)
        out = summed_to(read, [1, read.shape[1], *[1] * (read.dim() - 2)]).flatten()
        for each in given[:4]:
            self.add(each, out)

    back_native_batch_norm_legit_no_training = back_batch_norm

    def back_instance_norm(self, node: Node, read: Tensor, x: Node, *given: Any) -> None:
        """Of a norm of each channel over its positions."""
        out = summed_to(read, [*read.shape[:2], *[1] * (read.dim() - 2)])
        self.back_batch_norm(node, out.expand(read.shape), x, *given)

    def back_group_norm(self, node: Node, read: Tensor, x: Node, count: int, *given: Any) -> None:
        """Of a norm over groups of channels."""
        groups = read.reshape(len(read), count, -1).any(2, keepdim=True)
        size = read.shape[1] // count
        whole = groups.expand(-1, -1, size).reshape(len(read), -1, *[1] * (read.dim() - 2))
        self.back_batch_norm(node, whole.expand(read.shape), x, *given[:2])

    def back_layer_norm(self, node: Node, read: Tensor, x: Node, size: Any, *given: Any) -> None:
        """Of a norm over the last dimensions."""
        last = read.dim() - len(size)
        self.add(x, summed_to(read, [*read.shape[:last], *[1] * len(size)]))
        for each in given[:2]:
            self.add(each, read)

    back_rms_norm = back_layer_norm

    def back_topk(self, node: Node, read: Tensor, x: Node, *rest: Any) -> None:
        """Of the largest entries: zeros are none of them where no entry is below 0."""
        known = self.known[x]
        self.add(x, ~known.zero if known.positive.all() else torch.tensor(True))

    def back_scatter(self, node: Node, read: Tensor, into: Node, *rest: Any) -> None:
        """Of what is put to places."""
        self.add(into, read)
        for each in node.all_input_nodes:
            if each is not into:
                self.add(each, torch.tensor(True))

    def back_prelu(self, node: Node, read: Tensor, x: Node, weight: Node) -> None:
        """Of a slope, or one for each channel."""
        self.add(x, read)
        if shape_of(weight) == (1,):
            self.add(weight, read.any()[None])
        else:
            self.add(weight, summed_to(read, [1, read.shape[1], *[1] * (read.dim() - 2)]).flatten())

    def back_embedding(self, node: Node, read: Tensor, weight: Node, index: Node, *_: Any) -> None:
        """Of rows that an index picks."""
        self.add(weight, read.reshape(-1, read.shape[-1]).any(0))
        self.add(index, torch.tensor(True))

    def back_embedding_bag(self, node: Node, read: Any, weight: Node, *_: Any) -> None:
        """Of sums or means of rows that an index picks."""
        self.add(weight, read.any(0))
        for each in node.all_input_nodes[1:]:
            self.add(each, torch.tensor(True))

    back_embedding_bag_forward_only = back_embedding_bag

    def back_scaled_dot_product_attention(
        self, node: Node, read: Tensor, q: Node, k: Node, v: Node, *rest: Any
    ) -> None:
        """Of means of values over positions."""
        rank = read.dim()
        zero = self.known[v].zero
        size = [1 if k == rank - 2 else read.shape[k] for k in range(rank)]
        self.add(v, summed_to(read, size).expand(shape_of(v)) & ~zero)
        for each in (q, k, *node.all_input_nodes[3:]):
            self.add(each, torch.tensor(True))

    def back_constant_pad_nd(
        self, node: Node, read: Tensor, x: Node, sizes: list[int], *rest: Any
    ) -> None:
        """Of what has a border."""
        inner = torch.constant_pad_nd(read, [-each for each in sizes])
        self.add(x, inner)


# -- entries -------------------------------------------------------------------------------------

FIELDS = {"value": torch.float64, "above": torch.bool, "below": torch.bool}  # of Known


def doubled(values: Tensor) -> Tensor:
    """Numbers in double precision, which is what is computed with here."""
    return values.double()


def dtypes_of(node: Node) -> list[torch.dtype]:
    """The types of what a node gives."""
    value = node.meta["val"]
    found = value if isinstance(value, tuple | list) else (value,)
    return [each.dtype for each in found]


def run(node: Node, values: dict[Node, Tensor]) -> Any:
    """What an operation makes of other values of its inputs."""

    def value(each: Node) -> Tensor:
        kind = each.meta["val"].dtype
        return values[each] if kind.is_floating_point else values[each].to(kind)

    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value)
    return node.target(*args, **{k: v for k, v in kwargs.items() if k != "device"})


def summed_to(read: Tensor, shape: Sequence[int]) -> Tensor:
    """Whether any is read along dimensions that have size 1 in a shape."""
    for dim, size in enumerate(shape):
        if size == 1 and read.shape[dim] > 1:
            read = read.any(dim, keepdim=True)
    return read


def uniform(known: Known, dims: Iterable[int]) -> Known:
    """What is known of all entries along dimensions, which get size 1."""
    known = known.about_zero
    value, above, below = thin(known.value, known.above, known.below)
    first, same = value, (above & below)
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    same, positive, negative = same & (value == first), above & (value >= 0), below & (value <= 0)
    for dim in dims:
        same, positive, negative = (e.all(dim, keepdim=True) for e in (same, positive, negative))
    shape = [1 if k in set(dims) else size for k, size in enumerate(known.value.shape)]
    made = Known(first.where(same, 0), positive | same, negative | same)
    return made.map(lambda each: each.expand(shape))


def by_group(node: Node, weights: Tensor) -> Tensor:
    """A convolution's [out, in / groups], or transposed [in, out / groups]: [groups, in, out]."""
    transposed, count = node.args[6], node.args[8]
    blocks = weights.reshape(count, -1, weights.shape[1])
    return blocks if transposed else blocks.mT


def by_sign(name: str, args: Sequence[Any], node: Node) -> Known | None:
    """What is known of an entry that is not constant, if an operation is one of these."""

    def known(value: Any) -> Known:
        return value if isinstance(value, Known) else constants(torch.tensor(value).double())

    def apply(value: Tensor) -> Tensor:
        return doubled(node.target(value, *args[1:], **node.kwargs))

    if not isinstance(args[0], Known | int | float):
        return None
    x = known(args[0])
    given: dict[Any, Any] = {**dict(enumerate(args)), **node.kwargs}
    if name in graphs.RISING:
        return rising(x, apply, graphs.RISING[name])
    if name in ("hardtanh", "relu6", "clamp", "clamp_min"):
        low = {"hardtanh": -1.0, "relu6": 0.0}.get(name)
        low = given.get(1, given.get("min_val", given.get("min", low)))
        if not any(isinstance(each, Known) for each in args[1:]):
            return rising(x, apply, -math.inf if low is None else float(low))
    elif name == "threshold" and args[1:3] == [0, 0]:
        return rising(x, apply, 0)
    elif name == "leaky_relu" and given.get(1, given.get("negative_slope", 0.01)) >= 0:
        return rising(x, apply)
    elif name in graphs.SIGNED or name in graphs.POSITIVE:
        value = apply(x.value.where(x.constant, 0)).where(x.constant, 0)
        positive = x.positive | x.constant if name in graphs.SIGNED else torch.ones_like(x.above)
        return Known(value, positive, (x.negative & (name in graphs.SIGNED)) | x.constant)
    elif name == "neg":
        return Known(-x.value, x.below, x.above)
    elif name in ("add", "sub", "mul", "div") and given.get("alpha", 1) == 1:
        y = known(args[1])
        if name == "add":
            return plus(x, y)
        if name == "sub":
            return plus(x, Known(-y.value, y.below, y.above))
        if name == "mul":
            fixed = [each for each in (x, y) if bool(each.constant.all())]
            other = y if fixed and fixed[0] is x else x
            return scaled(other, fixed[0].value) if fixed else times(x, y)
        if y.constant.all() and not y.zero.any() and not node.kwargs:
            return scaled(x, 1 / y.value)
    return None
