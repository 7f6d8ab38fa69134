"""A module as a graph of operations on tensors, which `torch.export` reads on an example.

Operations are taken apart into those that ATen calls its core, except some that say more as they
are: a layer with its weight, a recurrent layer, a norm.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules import transformer

from evoae.messages import words
from evoae.modules.plain import WEIGHTED, copied
from evoae.modules.reading import Inputs, quiet, tensors_of

Node = Any  # of torch.fx, whose arguments may be of any type

NOT_TAKEN_APART = frozenset(
    "linear lstm gru rnn_tanh rnn_relu scaled_dot_product_attention instance_norm group_norm "
    "layer_norm batch_norm rms_norm pixel_shuffle pixel_unshuffle pad mish softplus elu celu selu "
    "gelu silu leaky_relu hardswish hardsigmoid hardtanh relu6 prelu threshold log_sigmoid "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
    "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d".split()
)


@dataclass(frozen=True)
class Graph:
    """What a module does with an example.

    `nodes`: in the order of computation; `tensors`: names of parameters and buffers, by the nodes
    that stand for them; `values`: theirs and those of other tensors that the module holds.
    `outputs`: what a caller sees. `no_bias`: names of weights of layers that could have a bias.
    `parts`: names of the modules whose forward an operation belongs to.
    """

    nodes: list[Node]
    tensors: dict[Node, str]
    values: dict[Node, Tensor]
    outputs: list[Node]
    no_bias: set[str]
    parts: dict[Node, str]


def exported(module: nn.Module, inputs: Inputs, named: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a module in evaluation mode, called with inputs, and with some that are `named`.

    Raises ValueError, in one line, for a module that `torch.export` cannot read: a forward that
    depends on the values of its input, say.
    """
    probe = Within(copied(module)).eval()
    try:
        with quiet(), silent(), unquestioned():
            program = torch.export.export(probe, inputs, dict(named or {}), strict=False)
            program = program.run_decompositions(decompositions())
    except Exception as error:  # whatever torch.export, or a user's forward, raises
        why = words(error)
        if "DataDependent" in type(error).__name__:
            why = "what its forward does depends on the values of its input"
        raise ValueError(f"torch.export cannot read {type(module).__name__}: {why}") from error
    signature, graph = program.graph_signature, program.graph
    held: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    held |= module.named_buffers(remove_duplicate=False)
    first = {id(tensor): name for name, tensor in reversed(held.items())}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {node: name.removeprefix("module.") for node, name in names.items()}
    constants = signature.inputs_to_lifted_tensor_constants
    nodes = [node for node in graph.nodes if node.op in ("placeholder", "call_function")]
    nodes = [node for node in nodes if node.users]
    tensors = {n: first[id(held[names[n.name]])] for n in nodes if n.name in names}
    values = {node: held[name].detach() for node, name in tensors.items()}
    values |= {n: program.constants[constants[n.name]] for n in nodes if n.name in constants}
    (last,) = (node for node in graph.nodes if node.op == "output")
    no_bias = {
        f"{name}.weight".lstrip(".")
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, WEIGHTED) and part.bias is None
    }
    stacks = {node: list(node.meta.get("nn_module_stack", {}).values()) for node in nodes}
    parts = {
        node: stack[-1][0].removeprefix("module").removeprefix(".")
        for node, stack in stacks.items()
        if stack
    }
    return Graph(nodes, tensors, values, last.all_input_nodes, no_bias, parts)


class Within(nn.Module):
    """A module as a part of another one: `torch.export` fails if a part of the whole is `code`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **named: Any) -> list[Tensor]:
        """The tensors that the module gives."""
        return tensors_of(self.module(*inputs, **named))


@contextmanager
def unquestioned() -> Iterator[None]:
    """Within, PyTorch does not look at values: a distribution's, or whether a mask is causal."""
    asks = "_detect_is_causal_mask"
    with (
        patch.object(transformer, asks, lambda mask, given=None, size=None: given is True),
        patch.object(Distribution, "_validate_args", False),
    ):
        yield


@cache
def decompositions() -> dict[Any, Any]:
    """How `torch.export` takes operations apart."""
    table = torch.export.default_decompositions().items()
    return {key: how for key, how in table if name_of(key) not in NOT_TAKEN_APART}


@contextmanager
def silent() -> Iterator[None]:
    """Within, nothing is logged or printed: `torch.export` does both with what it raises, too."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def name_of(operation: Any) -> str:
    """An operation's name in ATen, without its overload."""
    packet = getattr(operation, "overloadpacket", operation)
    return getattr(packet, "__name__", str(packet))


SPOKEN = {"_trilinear": "Bilinear", "index_put": "unpooling, or an index,"}


def spoken(node: Node) -> str:
    """An operation's name, as a user knows it."""
    name = name_of(node.target)
    return SPOKEN.get(name, name)


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's value, of one tensor."""
    return tuple(node.meta["val"].shape)


def shapes_of(node: Node) -> list[tuple[int, ...]]:
    """The shapes of all tensors that a node gives."""
    value = node.meta["val"]
    found = value if isinstance(value, tuple | list) else (value,)
    return [tuple(each.shape) for each in found if isinstance(each, Tensor)]


# -- kinds of operations -------------------------------------------------------------------------

CREATED = set("full arange scalar_tensor zeros ones empty eye linspace".split())
LIKE = {"full_like", "zeros_like", "ones_like"}  # made of a shape alone
# they move entries, or repeat them
MOVES = set(
    "view _unsafe_view reshape permute transpose t expand squeeze unsqueeze slice select "
    "alias detach flip roll repeat split split_with_sizes unbind pixel_shuffle pixel_unshuffle "
    "channel_shuffle movedim narrow diagonal cat stack".split()
)
# each channel by itself over positions, which are the last dimensions; a constant stays as it is
POOLS = {
    f"{kind}{n}d": n
    for n in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool",
                 "_adaptive_avg_pool", "upsample_nearest", "_upsample_nearest_exact",
                 "reflection_pad", "replication_pad")
} | {
    "max_pool1d_with_indices": 1, "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3,
    "upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2,
    "upsample_trilinear3d": 3,
}  # fmt: skip
# over some dimensions, which the argument at that position says
REDUCTIONS = dict.fromkeys(
    "sum mean amax amin max min argmax argmin any all prod var std var_mean logsumexp".split(), 1
) | {"linalg_vector_norm": 2, "norm": 2}
EXTREMES = {"amax", "amin", "max", "min"}
# of a whole row along a dimension, of the same shape
ALONG = {"_softmax", "softmax", "_log_softmax", "log_softmax", "cumsum", "sort"}
# what does not fall where its input rises, and the least that it gives
RISING = {
    "relu": 0.0, "sigmoid": 0.0, "hardsigmoid": 0.0, "softplus": 0.0, "exp": 0.0, "sqrt": 0.0,
    "tanh": -1.0, "erf": -1.0, "expm1": -1.0,
    **dict.fromkeys("elu celu selu clone _to_copy log1p log_sigmoid sinh".split(), -math.inf),
}  # fmt: skip
# not below 0 where their input is not, and not above where it is not
SIGNED = {"gelu", "silu", "mish", "hardswish", "leaky_relu", "sign", "asin", "tan"}
POSITIVE = {"abs", "cosh"}


def is_pointwise(node: Node) -> bool:
    """Whether an operation computes each entry from those at the same position."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags or name_of(node.target) in ("hardswish", "where", "_to_copy")


def picked(scatter: Node) -> Node | None:
    """Of what are scattered the largest entries, to where they came from; None if it is not so.

    A ReLU may be between.
    """
    if name_of(scatter.target) != "scatter" or len(scatter.args) < 4 or scatter.kwargs:
        return None
    into, dim, index, values = scatter.args
    if name_of(getattr(values, "target", "")) == "relu":
        values = values.args[0]
    if any(name_of(getattr(each, "target", "")) != "getitem" for each in (index, values)):
        return None
    top = index.args[0]
    there = (index.args[1], values.args) == (1, (top, 0)) and name_of(top.target) == "topk"
    if not there or shape_of(into) != shape_of(top.args[0]):
        return None
    rank = len(shape_of(into))
    at = top.args[2] if len(top.args) > 2 else top.kwargs.get("dim", -1)
    return top.args[0] if at % rank == dim % rank else None


def dimensions(node: Node, rank: int) -> list[int]:
    """Over which dimensions a reduction goes, none below 0."""
    at = REDUCTIONS.get(name_of(node.target), 1)
    given = node.args[at] if len(node.args) > at else node.kwargs.get("dim")
    if given is None or given == []:
        return list(range(rank))
    return [each % rank for each in (given if isinstance(given, list | tuple) else [given])]


def is_sum(reduction: Node) -> bool:
    """Whether zeros among its inputs make no difference: a sum, or a length."""
    name, given = name_of(reduction.target), reduction.args[1:2]
    return name == "sum" or (name == "linalg_vector_norm" and (not given or given[0] > 0))
