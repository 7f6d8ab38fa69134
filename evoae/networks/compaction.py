"""Really smaller networks: units and inputs that change nothing are left out of a pruned one.

A feed-forward network is a list of `Dense` layers. Two passes find what no path from an input to an
output needs. Forward: a unit that gives the same value whatever the input is constant; silent
units, whose value is 0, are among these. The value is folded into the biases of the next layer,
where it may make further units constant. Backward: a unit that nothing reads is left out, and so is
whatever only it had read, down to the inputs. Neither pass finds anything in what is left.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        after = torch.relu if self.relu else torch.clone
        return Link(self.weight, self.bias, after, silences=self.relu, positive=self.relu)


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


# -- the analysis, of members and of modules -----------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A layer of a chain, and what stands between it and the next layer.

    `weight` [out, in], of a convolution [out, in, ...], and `bias` [out]. `after` maps the values
    [out] of units that are constant to what the next layer reads; `silences`: it maps what is not
    above 0 to 0; `positive`: it gives nothing below 0; `spread`: how many inputs of the next layer
    a unit makes. `pads`: the layer reads zeros beyond a border, so only zeros are folded into it.
    """

    weight: Tensor
    bias: Tensor
    after: Callable[[Tensor], Tensor]
    silences: bool = False
    positive: bool = False
    spread: int = 1
    pads: bool = False


def analyse(links: Sequence[Link]) -> tuple[list[Tensor], list[Tensor]]:
    """What a chain needs: its biases with constant units folded in, and which units are left.

    Biases are float64 [out], a layer each; booleans [units] of the inputs, and of every layer.
    """
    biases, varying = fold(links)
    read = find_read(links, varying)
    return biases, [here & there for here, there in zip(varying, read, strict=True)]


def fold(links: Sequence[Link]) -> tuple[list[Tensor], list[Tensor]]:
    """Biases with the constant units before them folded in, and which units are not constant.

    Outputs count as varying. A unit is constant if no varying unit is read with a weight, or, where
    it would be silenced, if all that it reads is at or above zero, and neither a weight nor its
    bias is above: then it is silent.
    """
    biases, varying = [], [torch.ones(links[0].weight.shape[1], dtype=torch.bool)]
    values, positive, spread = torch.zeros(len(varying[0]), dtype=torch.float64), False, 1
    for number, link in enumerate(links):
        before, values = varying[-1].repeat_interleave(spread), values.repeat_interleave(spread)
        weight = link.weight.flatten(2) if link.weight.dim() > 2 else link.weight[..., None]
        bias = link.bias.double() + weight[:, ~before].double().sum(2) @ values[~before]
        weight = weight[:, before].flatten(1)
        constant = (weight == 0).all(1)
        if link.silences and positive:
            constant |= (weight <= 0).all(1) & (bias <= 0)
        values = link.after(bias)
        constant &= values.isfinite()  # half precision overflows
        if number + 1 < len(links) and links[number + 1].pads:
            constant &= values == 0
        biases.append(bias)
        varying.append(~constant)
        positive, spread = link.positive, link.spread
    varying[-1] = torch.ones_like(varying[-1])
    return biases, varying


def find_read(links: Sequence[Link], varying: Sequence[Tensor]) -> list[Tensor]:
    """Which units some output depends on by varying units, [units] of the inputs and every layer.

    Outputs count as read.
    """
    read = [torch.ones(len(varying[-1]), dtype=torch.bool)]
    for number in range(len(links) - 1, -1, -1):
        weight = links[number].weight[varying[number + 1] & read[-1]] != 0
        inputs = weight.any(0)
        inputs = inputs.flatten(1).any(1) if inputs.dim() > 1 else inputs
        spread = links[number - 1].spread if number else 1
        read.append(inputs.view(len(varying[number]), spread).any(1))
    return read[::-1]


# -- as modules ----------------------------------------------------------------------------------


class Select(nn.Module):
    """Of inputs [..., D], those at `index` [K]: [..., K]. The index is a buffer: it is saved."""

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """The inputs [..., K] of [..., D]."""
        return x.index_select(-1, self.index)

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
