"""Gradients of the training loss by weight, over many rows at once: for operators that ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evoae.networks.population import Population
from evoae.networks.training import loss_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Gradients:
    """Of one layer, the mean over rows: `weight` [out, in] and `bias` [out], on the CPU."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class RowGradients:
    """Of one layer, row by row: its inputs x [n, in], and the gradients d [n, out] at its units."""

    inputs: Tensor
    units: Tensor

    def mean(self) -> Gradients:
        """Over the rows: d' x / n."""
        d, x = self.units, self.inputs
        return Gradients((d.T @ x / len(x)).cpu(), d.mean(0).cpu())

    def mean_squares(self) -> tuple[Tensor, Tensor]:
        """Mean squares of each row's own gradient, of weight and bias: (d^2)' (x^2) / n."""
        d, x = self.units.square(), self.inputs.square()
        return (d.T @ x / len(x)).cpu(), d.mean(0).cpu()


def by_row(population: Population, i: int, rows: Tensor, loss: str) -> list[RowGradients]:
    """Of autoencoder i on rows [n, D], layer by layer from the encoder's first to the output.

    Masked weights have a gradient, too. A variational autoencoder is taken at the mean of its code,
    without the divergence.
    """
    member, inputs, offsets = population.take([i]), [], []
    x = rows.to(member.encoder.weights)
    with torch.enable_grad():
        for side in member.sides:
            layers = side.layers()
            for number, (weight, bias) in enumerate(layers, start=1):
                # a gradient at an offset of zero is the gradient at the unit, row by row
                offset = torch.zeros(len(x), bias.shape[1], device=x.device, requires_grad=True)
                inputs.append(x.detach())
                offsets.append(offset)
                x = x @ weight[0].T + bias[0] + offset
                if number < len(layers) or side.last_relu:
                    x = x.relu()
            if side is member.encoder:
                x = member.code(x)
        total = loss_of(x[:, None], rows.to(x)[:, None], loss).sum()
        units = torch.autograd.grad(total, offsets)
    return [RowGradients(x, d) for x, d in zip(inputs, units, strict=True)]


def keep(population: Population, i: int, names: Sequence[str], rows: Tensor, loss: str) -> None:
    """Begin the sums that an operator asks training to keep of autoencoder i.

    `sensitivity` is |w g| on rows [n, D] before training; `movement` starts at 0.
    """
    for side in population.sides:
        for name in names:
            side.tensors.setdefault(name, torch.zeros_like(side.weights))
    if "sensitivity" in names:
        for side, gradient in zip(population.sides, flat(population, i, rows, loss), strict=True):
            side.tensors["sensitivity"][i] = (side.weights[i] * gradient).abs()


def observe_movement(population: Population, i: int, rows: Tensor, loss: str) -> None:
    """Add -w g of autoencoder i on rows [n, D]: how far weights move away from zero."""
    for side, gradient in zip(population.sides, flat(population, i, rows, loss), strict=True):
        side.tensors["movement"][i] -= side.weights[i] * gradient


def flat(population: Population, i: int, rows: Tensor, loss: str) -> list[Tensor]:
    """Mean gradients of autoencoder i side by side, [parameters] of encoder and of decoder."""
    layers = [each.mean() for each in by_row(population, i, rows, loss)]
    found = [torch.cat([layer.weight.flatten(), layer.bias]) for layer in layers]
    cut = len(population.encoder.widths) - 1
    parts = (found[:cut], found[cut:])
    return [
        torch.cat(part).to(side.weights) for part, side in zip(parts, population.sides, strict=True)
    ]
