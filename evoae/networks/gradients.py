"""Gradients of the training loss by weight, over many rows at once: for operators that ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evoae.networks.population import Population
from evoae.networks.training import loss_of


@dataclass(frozen=True)
class Gradients:
    """Of one layer, over rows: the mean gradient, and the mean of the squares of each row's own.

    `weight` and `weight_squares` [out, in], `bias` and `bias_squares` [out], on the CPU.
    """

    weight: Tensor
    bias: Tensor
    weight_squares: Tensor
    bias_squares: Tensor


def gradients(population: Population, i: int, rows: Tensor, loss: str) -> list[Gradients]:
    """Of autoencoder i on rows [n, D], layer by layer from the encoder's first to the output.

    With the inputs x [n, in] of a layer and the gradients d [n, out] at its units, the squares are
    (d^2)' (x^2) / n. Masked weights have a gradient, too. A variational autoencoder is taken at the
    mean of its code, without the divergence.
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
    n = len(rows)
    return [
        Gradients(
            (d.T @ x / n).cpu(),
            d.mean(0).cpu(),
            (d.square().T @ x.square() / n).cpu(),
            d.square().mean(0).cpu(),
        )
        for d, x in zip(units, inputs, strict=True)
    ]


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
    found = [torch.cat([g.weight.flatten(), g.bias]) for g in gradients(population, i, rows, loss)]
    cut = len(population.encoder.widths) - 1
    parts = (found[:cut], found[cut:])
    return [
        torch.cat(part).to(side.weights) for part, side in zip(parts, population.sides, strict=True)
    ]
