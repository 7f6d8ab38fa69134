"""Gradients over many rows, against autograd through the plain modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import evolved, tiny
from torch.nn import functional

from evoae.networks import gradients, population


@pytest.mark.parametrize("loss", ["l1", "bce"])
def test_mean_and_squares_are_those_of_autograd_row_by_row(loss: str) -> None:
    found = population.initialise(
        6, "5-3", "plain", [np.random.default_rng(n) for n in (0, 1)], "cpu"
    )
    rows = torch.rand(7, 6)
    encoder, decoder = found.member(1)
    network = torch.nn.Sequential(*encoder, *decoder)
    parameters = list(network.parameters())
    each = []
    for row in rows:
        out = network(row[None])
        cost = (
            (out - row).abs().mean()
            if loss == "l1"
            else functional.binary_cross_entropy(out, row[None])
        )
        each.append([g.clone() for g in torch.autograd.grad(cost, parameters)])
    seen = gradients.by_row(found, 1, rows, loss)
    for number, layer in enumerate(seen):
        means = layer.mean()
        for offset, mean, squares in zip(
            (0, 1), (means.weight, means.bias), layer.mean_squares(), strict=True
        ):
            stacked = torch.stack([row[2 * number + offset] for row in each])
            torch.testing.assert_close(mean, stacked.mean(0), atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(squares, stacked.square().mean(0), atol=1e-7, rtol=1e-4)


def test_sums_are_kept_for_the_operators_that_ask() -> None:
    for operator, name in (("movement", "movement"), ("snip", "sensitivity")):
        e = tiny(operator=operator, schedule="cubic", target_sparsity=0.5, pruned_weights="masked")
        _, state = evolved(e)
        _, longer = evolved(e.replace(epochs=6))
        for side, other in zip(state.population.sides, longer.population.sides, strict=True):
            assert side.tensors[name].abs().sum() > 0
            assert torch.equal(side.tensors[name], other.tensors[name]) == (name == "sensitivity")
    _, without = evolved(tiny(operator="magnitude", schedule="fixed"))
    assert {"movement", "sensitivity"}.isdisjoint(without.population.encoder.tensors)
