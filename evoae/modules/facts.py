"""What a module's outputs depend on: entries that are constant, and entries that nothing reads.

Two walks through the module's graph. Forward, what is `known` of every tensor, whatever the input
is. Backward, which entries are `read`: those that outputs depend on, except constants that the
next layer's bias can take in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from evoae.modules import graph as graphs
from evoae.modules import recurrent
from evoae.modules.graph import Graph, Node, name_of, shape_of, shapes_of
from evoae.modules.groups import along, firsts, run_moved, thin
from evoae.networks.compaction import (
    Known,
    constants,
    plus,
    product,
    rising,
    scaled,
    times,
    unknown,
    zero_where,
)


@dataclass(frozen=True)
class Fold:
    """A layer whose bias can take in constant inputs.

    `x`: the node of its inputs. `weight`, `bias`: names of its tensors (`bias` may be None: then it
    is made); `axis`: of the inputs, in the weight. `matrix` [groups, in, out]: its weights, summed
    over positions; `inputs` [groups, 1, in]: what is known of them.
    """

    x: Node
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
            values = self.graph.values[node].cpu().double()
            finite = values.isfinite()
            return Known(values.where(finite, 0), finite, finite)
        return unknown(shape_of(node))

    def follow(self, node: Node) -> Any:
        """What is known of an operation's results, except where half precision overflows."""
        shapes, found = shapes_of(node), self.result(node)
        found = found if isinstance(found, list) else [found]
        found += [None] * (len(shapes) - len(found))
        pairs = zip(found, shapes, strict=True)
        made = [unknown(shape) if known is None else spread(known, shape) for known, shape in pairs]
        if isinstance(node.meta["val"], tuple | list):
            return made
        (known,), kind = made, node.meta["val"].dtype
        if not kind.is_floating_point or kind.itemsize > 2:
            return known
        fits = known.value.abs() <= torch.finfo(kind).max
        return Known(known.value.where(fits, 0), known.above & fits, known.below & fits)

    def result(self, node: Node) -> Any:
        """What is known of an operation's result, or a list of several; None where nothing is.

        It may be anything that can be broadcast to the result's shape.
        """
        name = name_of(node.target)
        if name == "getitem":
            return self.known[node.args[0]][node.args[1]]
        if name in graphs.CREATED or name in graphs.LIKE:
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
        if name in graphs.EXTREMES:
            return self.extreme(node)
        if (call := recurrent.recurrent(node)) is not None:
            return recurrent.known(self, node, call)
        rule = getattr(self, f"of_{name.strip('_')}", None)
        return None if rule is None else rule(node, *node.args)

    def created(self, node: Node, name: str) -> Known | None:
        """What is made of no tensor's values."""
        if name.startswith("empty"):
            return None
        if name == "full":
            return constants(torch.tensor(float(node.args[1])).double())
        return constants(run(node, {each: torch.empty(()) for each in node.all_input_nodes}))

    def pointwise(self, node: Node, name: str) -> Known:
        """Each entry by itself."""
        small = self.aligned(node.all_input_nodes, shape_of(node))
        args = [small[each] if isinstance(each, fx.Node) else each for each in node.args]
        if node.meta["val"].is_floating_point() and (made := by_sign(name, args, node)) is not None:
            return made
        value = run(node, {each: known.value for each, known in small.items()})
        constant = value.isfinite()
        for known in small.values():
            constant = constant & known.constant
        return Known(value.where(constant, 0), constant, constant)

    def aligned(self, nodes: Iterable[Node], shape: Sequence[int]) -> dict[Node, Known]:
        """What is known of operands, broadcast; dimensions of mere repetition have size 1."""
        found = {node: spread(self.known[node], shape) for node in nodes}
        fields = thin(*(getattr(known, f) for known in found.values() for f in FIELDS))
        return {node: Known(*fields[3 * n : 3 * n + 3]) for n, node in enumerate(found)}

    def over_positions(self, node: Node, name: str, positions: int) -> Known:
        """Each channel by itself over the last dimensions: a constant stays what it is."""
        known = self.known[node.args[0]]
        rank = known.value.dim()
        level = uniform(known, range(rank - positions, rank))
        if name.startswith("avg_pool"):  # it may count zeros around
            return level.beside_zeros
        if "bicubic" in name:  # it swings below the least of its values
            return Known(level.value, level.constant, level.constant)
        return level

    def summed(self, node: Node) -> Known:
        """A sum or a mean."""
        known, shape = self.known[node.args[0]], shape_of(node)
        dims = graphs.dimensions(node, known.value.dim())
        keep = len(shape) == known.value.dim()
        above, below = (each.all(dims, keepdim=keep) for each in (known.above, known.below))
        return Known(run(node, {node.args[0]: known.value}), above, below)

    def extreme(self, node: Node) -> Known:
        """The largest or the least over some dimensions."""
        known, shape = self.known[node.args[0]], shapes_of(node)[0]
        rank = known.value.dim()
        dims = graphs.dimensions(node, rank)
        level = uniform(known, dims).map(lambda each: firsts(each, dims))
        return level if len(shape) == rank else level.map(lambda each: each.squeeze(dims))

    def of_linear(self, node: Node, x: Node, weight: Node, bias: Node | None = None) -> Known:
        """Of `x @ weight.T + bias`."""
        return self.layer(node, x, weight, self.known[weight].map(lambda each: each.T), bias, 1)

    def of_addmm(self, node: Node, bias: Node, a: Node, b: Node) -> Known | None:
        """Of a product of matrices and a sum, which may be scaled where it adds only zeros."""
        if node.kwargs.get("alpha", 1) != 1:
            return None
        if node.kwargs.get("beta", 1) != 1 and not self.known[bias].zero.all():
            return None
        return self.layer(node, a, b, self.known[b], bias, 0)

    of_baddbmm = of_sparse_addmm = of_addmm

    def layer(
        self, node: Node, x: Node, weight: Node, matrix: Known, bias: Node | None, axis: int
    ) -> Known:
        """Of a product with a matrix, and a bias."""
        given = self.known[x]
        inputs = uniform(given, range(given.value.dim() - 1))
        if matrix.value.dim() == 2:
            self.note_fold(node, x, weight, bias, axis, matrix.value[None], inputs)
        small = Known(*thin(given.value, given.above, given.below))
        small = spread(small, (*small.value.shape[:-1], given.value.shape[-1]))
        made = product(small, matrix)
        return made if bias is None else plus(made, self.known[bias])

    def note_fold(
        self, node: Node, x: Node, weight: Node, bias: Node | None, axis: int, matrix: Tensor,
        inputs: Known,
    ) -> None:  # fmt: skip
        """Say that a layer can take constants in: its weight and bias are parameters used once."""
        name, added = (self.graph.tensors.get(each) for each in (weight, bias))
        there = added in self.once if bias is not None else name in self.graph.no_bias
        if name is not None and name in self.once and there:
            inputs = inputs.map(lambda each: each.reshape(len(matrix), 1, -1))
            self.folds[node] = Fold(x, name, added, axis, matrix, inputs)

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
            level = level.beside_zeros
        else:
            self.note_fold(node, x, weight, bias, 1, matrix, level)
        signs = [
            by_group(node, each.flatten(2).all(2)) for each in (kernel.positive, kernel.negative)
        ]
        made = product(level, constants(matrix), (signs[0], signs[1])).map(torch.Tensor.flatten)
        if bias is not None:
            made = plus(made, self.known[bias])
        return along_channels(made, len(shape))

    def of_batch_norm(
        self, node: Node, x: Node, weight: Node | None, bias: Node | None, mean: Node | None,
        variance: Node | None, *rest: Any,
    ) -> Known | None:  # fmt: skip
        """Of a norm by statistics that are fixed."""
        statistics = [self.known[each] for each in (mean, variance) if each is not None]
        if len(statistics) < 2 or not all(each.constant.all() for each in statistics):
            return None
        rank = len(shapes_of(node)[0])
        centre, width = (along_channels(each, rank).value for each in statistics)
        scale = constants((width + rest[-1]).rsqrt())
        if weight is not None:
            scale = multiplied(scale, along_channels(self.known[weight], rank))
        made = multiplied(plus(self.known[x], constants(-centre)), scale)
        return made if bias is None else plus(made, along_channels(self.known[bias], rank))

    of_native_batch_norm_legit_no_training = of_batch_norm

    def of_layer_norm(
        self, node: Node, x: Node, size: Any, weight: Any = None, bias: Any = None, *rest: Any
    ) -> Known | None:
        """Of a norm by statistics of its own: where it is scaled by 0, it is the bias, if any."""
        if not isinstance(weight, fx.Node):
            return None
        made = zero_where(self.known[weight].zero)
        made = plus(made, self.known[bias]) if isinstance(bias, fx.Node) else made
        is_group_norm = name_of(node.target) == "group_norm"
        return along_channels(made, len(shape_of(node))) if is_group_norm else made

    of_rms_norm = of_group_norm = of_layer_norm

    def of_instance_norm(
        self, node: Node, x: Node, weight: Node | None, bias: Node | None, mean: Node | None,
        variance: Node | None, of_its_own: bool, momentum: float, eps: float, *rest: Any,
    ) -> Known | None:  # fmt: skip
        """Of a norm over the positions of each channel: of zeros, it is the bias."""
        if not of_its_own:
            return self.of_batch_norm(node, x, weight, bias, mean, variance, eps)
        rank = len(shape_of(node))
        made = zero_where(uniform(self.known[x], range(2, rank)).zero)
        return made if bias is None else plus(made, along_channels(self.known[bias], rank))

    def of_embedding(self, node: Node, weight: Node, index: Node, *rest: Any) -> Known:
        """Of rows that an index picks."""
        return uniform(self.known[weight], [0])

    def of_embedding_bag(self, node: Node, weight: Node, *rest: Any) -> Known:
        """Of sums or means of rows that an index picks: of zeros, they are zeros."""
        return zero_where(uniform(self.known[weight], [0]).zero)

    of_embedding_bag_forward_only = of_embedding_bag

    def of_scaled_dot_product_attention(
        self, node: Node, q: Node, k: Node, v: Node, *rest: Any
    ) -> Known:
        """Of means of values over positions."""
        return uniform(self.known[v], [len(shape_of(node)) - 2])

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
        return Known(zero_where(zero).value, zero | (one.positive & other.positive), zero)

    def of_prelu(self, node: Node, x: Node, weight: Node) -> Known:
        """Of a slope below 0, or one for each channel."""
        slope = along_channels(self.known[weight], len(shape_of(node)))
        known = self.known[x].about_zero
        value = known.value.where(known.value > 0, known.value * slope.value)
        constant = known.constant & slope.constant
        negative = known.negative & slope.positive
        return Known(value.where(constant, 0), known.positive | constant, negative | constant)

    def of_constant_pad_nd(self, node: Node, x: Node, sizes: list[int], value: Any = 0) -> Known:
        """Of what has a border of one value."""
        known, pad = self.known[x].about_zero, torch.constant_pad_nd
        above, below = (pad(each, sizes, True) for each in (known.above, known.below))
        return Known(pad(known.value, sizes, float(value)), above, below)

    def of_pad(
        self, node: Node, x: Node, sizes: list[int], mode: str = "constant", value: Any = None
    ) -> Known:
        """Of what has a border, of one value or of its own."""
        if mode == "constant":
            return self.of_constant_pad_nd(node, x, sizes, value or 0)
        rank = len(shape_of(node))
        return uniform(self.known[x], range(rank - len(sizes) // 2, rank))

    # -- backward --------------------------------------------------------------------------------

    def add(self, node: Any, read: Tensor) -> None:
        """Say that entries of a node are read, [...] or what can be broadcast to that."""
        if not isinstance(node, fx.Node):
            return
        shape = shape_of(node)
        (read,) = thin(read.expand(torch.broadcast_shapes(read.shape, shape)))
        for _ in range(read.dim() - len(shape)):
            read = read.any(0)
        for dim, size in enumerate(shape):
            read = read.any(dim, keepdim=True) if size == 1 else read
        if node in self.read:
            (before,) = thin(self.read[node])
            read = read | before
        self.read[node] = read.expand(shape)

    def add_whole(self, nodes: Iterable[Node]) -> None:
        """Say that all entries of some nodes are read."""
        for each in nodes:
            self.add(each, torch.tensor(True))

    def look_back(self, node: Node, name: str, read: Any) -> None:
        """Say which entries of its inputs an operation's results depend on that are read."""
        args, reads = node.args, read if isinstance(read, dict) else {0: read}
        if name == "getitem":
            (small,) = thin(read)
            self.read.setdefault(args[0], {})[args[1]] = small.expand(read.shape)
        elif name in graphs.LIKE:
            return
        elif graphs.is_pointwise(node):
            for each in node.all_input_nodes:
                others = [n for n in node.all_input_nodes if n is not each]
                zero = [self.known[n].zero for n in others if name == "mul"]
                self.add(each, read & ~zero[0] if zero else read)
        elif name in graphs.MOVES or name == "constant_pad_nd":
            self.move_back(node, reads)
        elif name in graphs.REDUCTIONS:
            shape = shape_of(args[0])
            for each in reads.values():
                if each.dim() < len(shape):
                    for dim in sorted(graphs.dimensions(node, len(shape))):
                        each = each.unsqueeze(dim)
                each = each.expand(shape)
                self.add(args[0], each & ~self.known[args[0]].zero if graphs.is_sum(node) else each)
        elif (call := recurrent.recurrent(node)) is not None:
            recurrent.look_back(self, node, call, reads)
        elif (rule := getattr(self, f"back_{name.strip('_')}", None)) is not None:
            rule(node, next(iter(reads.values())), *args)
        elif name in graphs.POOLS or name in graphs.ALONG or name == "pad":
            if name in graphs.ALONG:
                dims = [args[1] if len(args) > 1 else node.kwargs.get("dim", -1)]
            else:
                dims = list(range(-(graphs.POOLS.get(name) or len(args[1]) // 2), 0))
            for each in reads.values():
                self.add(args[0], each.any(dims, keepdim=True))
        else:
            self.add_whole(node.all_input_nodes)

    def move_back(self, node: Node, reads: dict[int, Tensor]) -> None:
        """Where the entries came from that are read now."""
        first = node.args[0]
        nodes = list(first) if isinstance(first, list | tuple) else [first]

        def move(*values: Tensor) -> Any:
            if nodes[0] is first:
                return run_moved(node, values[0])
            return node.target(list(values), *node.args[1:])

        everything = [torch.ones(shape_of(each), dtype=torch.bool) for each in nodes]
        for each, found in zip(nodes, depended_on(move, everything, reads), strict=True):
            self.add(each, found)

    def back_product(self, node: Node, read: Tensor, *args: Any) -> None:
        """Of a product: a constant that a bias takes in is not read, and nothing beside a zero."""
        is_convolution = name_of(node.target) == "convolution"
        there = {each: ~self.known[each].zero for each in node.all_input_nodes}
        if (fold := self.folds.get(node)) is not None:
            constant = fold.inputs.constant.flatten()
            there[fold.x] &= ~along(constant, 1 if is_convolution else -1, shape_of(fold.x))
        if is_convolution:  # as if there were one position
            there, read = {k: one_position(each) for k, each in there.items()}, one_position(read)
            one, none = ([k] * len(args[3]) for k in (1, 0))
            args = (*args[:3], one, none, one, args[6], none, args[8])

        is_sparse = name_of(node.target) == "_sparse_addmm"
        target = torch.ops.aten.addmm.default if is_sparse else node.target

        def multiply(*values: Tensor) -> Tensor:
            return target(*torch.fx.map_arg(args, dict(zip(there, values, strict=True)).get))

        found = depended_on(multiply, list(there.values()), {0: read})
        for each, mask in zip(there, found, strict=True):
            self.add(each, mask)

    back_linear = back_addmm = back_baddbmm = back_mm = back_bmm = back_convolution = back_product
    back_sparse_addmm = back_product

    def back_batch_norm(self, node: Node, read: Tensor, x: Node, *given: Any) -> None:
        """Of a norm of each channel."""
        self.add(x, read)
        for each in given[:4]:
            self.add(each, read.movedim(1, -1))

    back_native_batch_norm_legit_no_training = back_batch_norm

    def back_instance_norm(self, node: Node, read: Tensor, x: Node, *given: Any) -> None:
        """Of a norm of each channel over its positions."""
        self.back_batch_norm(node, one_position(read).expand(read.shape), x, *given)

    def back_group_norm(self, node: Node, read: Tensor, x: Node, count: int, *given: Any) -> None:
        """Of a norm over groups of channels."""
        groups = read.reshape(len(read), count, -1).any(2, keepdim=True)
        size = read.shape[1] // count
        whole = groups.expand(-1, -1, size).reshape(len(read), -1, *[1] * (read.dim() - 2))
        self.back_batch_norm(node, whole.expand(read.shape), x, *given[:2])

    def back_layer_norm(self, node: Node, read: Tensor, x: Node, size: Any, *given: Any) -> None:
        """Of a norm over the last dimensions."""
        self.add(x, read.any(tuple(range(-len(size), 0)), keepdim=True))
        for each in given[:2]:
            self.add(each, read)

    back_rms_norm = back_layer_norm

    def back_topk(self, node: Node, read: Tensor, x: Node, *rest: Any) -> None:
        """Of the largest entries: zeros are none of them where no entry is below 0.

        Where only a ReLU reads them, what is never above 0 is as good as any other such entry.
        """
        known, gone = self.known[x], torch.tensor(False)
        after, back = ([u for n in node.users if n.args[1] == k for u in n.users] for k in (0, 1))
        if after and all(graphs.picked(each) is x for each in back):
            if all(name_of(each.target) == "relu" for each in after):
                gone = known.negative
            elif known.positive.all():
                gone = known.zero
        self.add(x, ~gone)

    def back_scatter(self, node: Node, read: Tensor, into: Node, *rest: Any) -> None:
        """Of what is put to places."""
        self.add(into, read)
        self.add_whole(each for each in node.all_input_nodes if each is not into)

    def back_prelu(self, node: Node, read: Tensor, x: Node, weight: Node) -> None:
        """Of a slope, or one for each channel."""
        self.add(x, read)
        self.add(weight, read.movedim(1, -1) if read.dim() > 1 else read)

    def back_embedding(self, node: Node, read: Tensor, weight: Node, *rest: Any) -> None:
        """Of rows that an index picks, or their sums or means."""
        self.add(weight, read.reshape(-1, read.shape[-1]).any(0))
        self.add_whole(node.all_input_nodes[1:])

    back_embedding_bag = back_embedding_bag_forward_only = back_embedding

    def back_scaled_dot_product_attention(
        self, node: Node, read: Tensor, q: Node, k: Node, v: Node, *rest: Any
    ) -> None:
        """Of means of values over positions."""
        self.add(v, read.any(-2, keepdim=True).expand(shape_of(v)) & ~self.known[v].zero)
        self.add_whole((q, k, *node.all_input_nodes[3:]))


# -- entries -------------------------------------------------------------------------------------

FIELDS = {"value": torch.float64, "above": torch.bool, "below": torch.bool}  # of Known


def run(node: Node, values: dict[Node, Tensor]) -> Tensor:
    """What an operation makes of other values of its inputs, in double precision."""

    def value(each: Node) -> Tensor:
        kind = each.meta["val"].dtype
        return values[each] if kind.is_floating_point else values[each].to(kind)

    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value)
    return node.target(*args, **{k: v for k, v in kwargs.items() if k != "device"}).double()


def depended_on(
    function: Callable[..., Any], there: Sequence[Tensor], reads: dict[int, Tensor]
) -> list[Tensor]:
    """Which entries of a function's inputs its results depend on: where a slope is not 0.

    `there`: which entries are not always 0; `reads`: which are read of the results, by number. The
    function sums up products, or moves entries.
    """
    with torch.enable_grad():
        values = [each.float().requires_grad_() for each in there]
        made = function(*values)
        made = made if isinstance(made, tuple | list) else [made]
        read = [each.float() for each in reads.values()]
        slopes = torch.autograd.grad([made[k] for k in reads], values, read)
    # slopes are counts: a convolution's may be off by rounding
    return [(slope > 0.5) & each for slope, each in zip(slopes, there, strict=True)]


def one_position(read: Tensor) -> Tensor:
    """Whether any is read of all positions, which are the dimensions from the third on."""
    return read.any(tuple(range(2, read.dim())), keepdim=True) if read.dim() > 2 else read


def spread(known: Known, shape: Sequence[int]) -> Known:
    """What is known of entries that are repeated."""
    return known.map(lambda each: each.expand(shape))


def along_channels(known: Known, rank: int) -> Known:
    """What is known of channels [n], along dimension 1 of `rank`."""
    return known.map(lambda each: each.view(-1, *[1] * max(0, rank - 2)))


def uniform(known: Known, dims: Iterable[int]) -> Known:
    """What is known of all entries along dimensions, which get size 1."""
    known = known.about_zero
    value, above, below = thin(known.value, known.above, known.below)
    first = firsts(value, dims)
    same = above & below & (value == first)
    positive, negative = above & (value >= 0), below & (value <= 0)
    for dim in dims:
        same, positive, negative = (e.all(dim, keepdim=True) for e in (same, positive, negative))
    shape = [1 if k in set(dims) else size for k, size in enumerate(known.value.shape)]
    return spread(Known(first.where(same, 0), positive | same, negative | same), shape)


def multiplied(x: Known, y: Known) -> Known:
    """Of products, entry by entry: of constants, more is known."""
    fixed = [each for each in (x, y) if bool(each.constant.all())]
    other = y if fixed and fixed[0] is x else x
    return scaled(other, fixed[0].value) if fixed else times(x, y)


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
        return node.target(value, *args[1:], **node.kwargs).double()

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
            return multiplied(x, y)
        if y.constant.all() and not y.zero.any() and not node.kwargs:
            return scaled(x, 1 / y.value)
        away = (y.above & (y.value > 0)) | (y.below & (y.value < 0))  # from 0
        return zero_where(x.zero & away) if (x.zero & away).any() else None
    return None
