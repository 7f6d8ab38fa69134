"""Really smaller networks: units and inputs that change nothing are left out of a pruned one.

A feed-forward network is a list of `Dense` layers. Two passes find what no path from an input to an
output needs. Forward: a unit that gives the same value whatever the input is constant; silent
units, whose value is 0, are among these. The value is folded into the biases of the next layer,
where it may make further units constant. Backward: a unit that nothing reads is left out, and so is
whatever only it had read, down to the inputs. Neither pass finds anything in what is left.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from evoae.networks.population import Population


@dataclass(frozen=True)
class Dense:
    """One layer: weight [out, in], bias [out], and whether ReLU follows."""

    weight: Tensor
    bias: Tensor
    relu: bool

    @property
    def link(self) -> Link:
        """The layer as the analysis sees it."""
        after = partial(rising, function=torch.relu, least=0) if self.relu else Known.itself
        return Link(self.weight, self.bias, after)


@dataclass(frozen=True)
class Compacted:
    """What is left of a network, and where it was.

    `layers`: the smaller ones; `units`: indices of those that are left, first of the inputs and
    then of each layer.
    """

    layers: list[Dense]
    units: list[Tensor]

    @property
    def inputs(self) -> Tensor:
        """Indices of the inputs that are read, int64, ascending."""
        return self.units[0]

    @property
    def sizes(self) -> dict[str, int]:
        """What the network comes to without all that its outputs do not depend on.

        `effective_parameters`: weights and biases that are left and not zero; `macs`: the weights
        among them, which are the multiply-accumulates for one example; `compact_parameters`: all
        entries of the layers that are left, zeros included.
        """
        weights = [layer.weight for layer in self.layers]
        biases = [layer.bias for layer in self.layers]
        macs = sum(int(each.count_nonzero()) for each in weights)
        return {
            "effective_parameters": macs + sum(int(each.count_nonzero()) for each in biases),
            "macs": macs,
            "compact_parameters": sum(each.numel() for each in weights + biases),
        }


def chain(population: Population, i: int) -> list[Dense]:
    """Autoencoder i from its input to its output before the sigmoid, in the CPU's memory.

    Of a variational encoder the means alone: the log-variances matter to training only.
    """
    layers = []
    for side in population.sides:
        found = [(weight[i].cpu(), bias[i].cpu()) for weight, bias in side.layers()]
        layers += [Dense(weight, bias, relu=True) for weight, bias in found[:-1]]
        weight, bias = found[-1]
        if population.variational and side is population.encoder:
            weight, bias = (part.chunk(2)[0] for part in (weight, bias))
        layers.append(Dense(weight, bias, side.last_relu))
    return layers


def compact(layers: Sequence[Dense]) -> Compacted:
    """The same function of fewer units, for every input. Outputs are never left out."""
    biases, left = analyse([layer.link for layer in layers])
    remaining = [part.nonzero().flatten() for part in left]
    smaller = [
        Dense(each.weight[after][:, before], bias[after].to(each.bias), each.relu)
        for each, bias, (before, after) in zip(layers, biases, pairwise(remaining), strict=True)
    ]
    return Compacted(smaller, remaining)


# -- what is known of values, of members and of modules ------------------------------------------


@dataclass(frozen=True)
class Known:
    """What is known of a tensor's entries, whatever the input is: three tensors of its shape.

    `above`: an entry is never below `value` (float64); `below`: it is never above. Of a constant
    entry, both are true.
    """

    value: Tensor
    above: Tensor
    below: Tensor

    @property
    def constant(self) -> Tensor:
        """Which entries have one value."""
        return self.above & self.below

    @property
    def zero(self) -> Tensor:
        """Which entries are always 0."""
        return self.constant & (self.value == 0)

    @property
    def positive(self) -> Tensor:
        """Which entries are never below 0."""
        return self.above & (self.value >= 0)

    @property
    def negative(self) -> Tensor:
        """Which entries are never above 0."""
        return self.below & (self.value <= 0)

    @property
    def about_zero(self) -> Known:
        """The same with bounds of 0 alone, except for constants."""
        value = self.value.where(self.constant, 0)
        return Known(value, self.positive | self.constant, self.negative | self.constant)

    @property
    def beside_zeros(self) -> Known:
        """The same where zeros may stand beside an entry, or instead of it."""
        return Known(self.value.where(self.zero, 0), self.positive, self.negative)

    def itself(self) -> Known:
        """What nothing is done to."""
        return self

    def map(self, change: Callable[[Tensor], Tensor]) -> Known:
        """The same of a tensor whose entries are moved."""
        return Known(change(self.value), change(self.above), change(self.below))


def constants(values: Tensor) -> Known:
    """Of entries that have these values."""
    yes = torch.ones((), dtype=torch.bool, device=values.device).expand(values.shape)
    return Known(values, yes, yes)


def zero_where(zero: Tensor) -> Known:
    """Of entries some of which are always 0, and the others may have any value."""
    return Known(torch.zeros((), dtype=torch.float64).expand(zero.shape), zero, zero)


def unknown(shape: Sequence[int]) -> Known:
    """Of entries that may have any value."""
    return zero_where(torch.zeros((), dtype=torch.bool)).map(lambda each: each.expand(shape))


def plus(a: Known, b: Known) -> Known:
    """Of sums."""
    return Known(a.value + b.value, a.above & b.above, a.below & b.below)


def rising(x: Known, function: Callable[[Tensor], Tensor], least: float = -math.inf) -> Known:
    """Of a function that does not fall as its input rises, and is never below `least`."""
    value = function(x.value)
    above, below = (each & value.isfinite() for each in (x.above, x.below))
    if math.isinf(least):
        return Known(value.where(above | below, 0), above, below)
    # one bound is kept, and the lower one is of more use
    below &= above | (value <= least)
    return Known(value.where(above | below, least), torch.ones_like(above), below)


def times(a: Known, b: Known) -> Known:
    """Of products, entry by entry."""
    a, b = a.about_zero, b.about_zero
    constant = (a.constant & b.constant) | a.zero | b.zero
    positive = (a.positive & b.positive) | (a.negative & b.negative)
    negative = (a.positive & b.negative) | (a.negative & b.positive)
    return Known(a.value * b.value, positive | constant, negative | constant)


def scaled(x: Known, scale: Tensor) -> Known:
    """Of products with constants, entry by entry."""
    up, zero = scale >= 0, scale == 0
    above, below = torch.where(up, x.above, x.below), torch.where(up, x.below, x.above)
    return Known(x.value * scale, above | zero, below | zero)


def product(a: Known, b: Known, signs: tuple[Tensor, Tensor] | None = None) -> Known:
    """Of the products of matrices [..., m, k] and [..., k, n].

    `signs`: where no part of `b` is below 0, and where none is above, if `b` is a sum of parts.
    """

    def some(one: Tensor, other: Tensor) -> Tensor:
        return (one.float() @ other.float()) > 0

    fixed = bool(b.constant.all())
    if not fixed:
        a, b = a.about_zero, b.about_zero
    positive, negative = signs or (b.positive, b.negative)
    rises, falls = a.above & ~a.below, a.below & ~a.above
    neither = some(~(a.above | a.below), ~(positive & negative))
    not_above = neither | some(rises, ~positive) | some(falls, ~negative)
    not_below = neither | some(rises, ~negative) | some(falls, ~positive)
    if not fixed:
        more, less = a.constant & (a.value > 0), a.constant & (a.value < 0)
        not_above |= some(more, ~b.above) | some(less, ~b.below)
        not_below |= some(more, ~b.below) | some(less, ~b.above)
    return Known(a.value @ b.value, ~not_above, ~not_below)


def read_of(links: Tensor, read: Tensor) -> Tensor:
    """Which inputs [..., k] of a product those of its outputs depend on that are `read` [..., n].

    `links` [..., k, n]: where the matrix is not always 0.
    """
    return (read.float() @ links.mT.float()) > 0


# -- of chains of layers -------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A layer of a chain, and what stands between it and the next layer.

    `weight` [out, in], of a convolution [out, in, ...], and `bias` [out]. `after`: what is made of
    the units [1, out]; `spread`: how many inputs of the next layer each of them makes. `pads`: the
    layer reads zeros beyond a border, so only zeros are folded into it.
    """

    weight: Tensor
    bias: Tensor
    after: Callable[[Known], Known]
    spread: int = 1
    pads: bool = False


def analyse(links: Sequence[Link]) -> tuple[list[Tensor], list[Tensor]]:
    """What a chain needs: its biases with constant units folded in, and which units are left.

    Biases are float64 [out], a layer each; booleans [units] of the inputs, and of every layer.
    Outputs are all left.
    """
    inputs, joints, biases = [], [], []
    units, spread = unknown((1, links[0].weight.shape[1])), 1
    for link in links:
        before = units.map(partial(torch.repeat_interleave, repeats=spread, dim=1))
        before = before.beside_zeros if link.pads else before
        weight = (
            link.weight.double().flatten(2)
            if link.weight.dim() > 2
            else link.weight.double()[..., None]
        )
        signs = (weight >= 0).all(2).T, (weight <= 0).all(2).T
        matrix = constants(weight.sum(2).T)
        biases.append(
            link.bias.double() + (before.value.where(before.constant, 0) @ matrix.value)[0]
        )
        units = link.after(
            plus(product(before, matrix, signs), constants(link.bias.double()[None]))
        )
        inputs.append(before)
        joints.append(~(signs[0] & signs[1]))
        spread = link.spread
    read = [torch.ones(len(biases[-1]), dtype=torch.bool)]
    for number in reversed(range(len(links))):
        found = read_of(joints[number], read[-1]) & ~inputs[number].constant[0]
        read.append(found.view(-1, links[number - 1].spread if number else 1).any(1))
    return biases, read[::-1]


# -- as modules ----------------------------------------------------------------------------------


class Select(nn.Module):
    """Of inputs [..., D], those at `index` [K]: [..., K]. The index is a buffer: it is saved."""

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """The inputs [..., K] of [..., D]."""
        # ONNX would take an empty index and an empty bias for the same tensor
        return x.index_select(-1, self.index) if len(self.index) else x[..., :0]

    def extra_repr(self) -> str:
        """What printing the module says of it."""
        return f"{len(self.index)} inputs"


def modules(
    layers: Sequence[Dense], encoder_layers: int, inputs: Tensor | None = None
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder of the layers (copies); the decoder ends in the sigmoid.

    The encoder begins with the choice of `inputs`, if given.
    """
    encoder = nn.Sequential() if inputs is None else nn.Sequential(Select(inputs))
    decoder = nn.Sequential()
    for number, layer in enumerate(layers):
        side = encoder if number < encoder_layers else decoder
        side.append(linear(layer))
        if layer.relu:
            side.append(nn.ReLU())
    return encoder, decoder.append(nn.Sigmoid())


def linear(layer: Dense) -> nn.Linear:
    """The layer as a plain module (a copy), without its ReLU. It may have no units at all."""
    units, width = layer.weight.shape
    with warnings.catch_warnings():  # PyTorch warns that nothing is there to be drawn
        warnings.simplefilter("ignore", UserWarning)
        made = nn.utils.skip_init(nn.Linear, width, units)
    made.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return made


def compact_member(population: Population, i: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder i with fewer units, in the CPU's memory: `Population.member`, compacted.

    A code unit that is left out is missing on both sides, so the code is a part of the original
    one; the first part of the encoder picks the inputs that are read.
    """
    small = compact(chain(population, i))
    return modules(small.layers, len(population.encoder.widths) - 1, small.inputs)
