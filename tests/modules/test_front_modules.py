"""A module in several sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

from evoae import Pruner, front_modules

X = torch.rand(32, 16, generator=torch.Generator().manual_seed(1))
SIZES = [0.3, 0.6]
EPOCHS = {"epochs": 4}
trained: list[int] = []


def factory() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16))


def fit(module: nn.Module, epochs: int, pruner: Pruner) -> None:
    optimiser = optim.Adam(module.parameters(), 1e-2)
    for _ in range(epochs):
        trained.append(epochs)
        for x in X.split(8):
            optimiser.zero_grad()
            (module(x) - x).abs().mean().backward()
            optimiser.step()
        pruner.epoch_end()


@torch.no_grad()
def score(module: nn.Module) -> float:
    return float((module(X) - X).abs().mean())


@pytest.mark.parametrize(
    "settings", [{}, {"operator": "magnitude", "granularity": "unit"}, {"prune_biases": False}]
)
def test_each_size_is_there_with_its_zeros(settings: Any) -> None:
    trained.clear()
    found = front_modules(factory, fit, score, SIZES, **EPOCHS, **settings)
    assert [one.sparsity for one in found] == [0.0, *SIZES]
    assert trained == [4] * 12
    assert len({id(one.module) for one in found}) == 3
    for one in found:
        assert score(one.module) == one.score
        parts = list(one.module.parameters())
        share = sum(int((p == 0).sum()) for p in parts) / sum(p.numel() for p in parts)
        assert share >= one.sparsity - (0.05 if "granularity" in settings else 0.005)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sparsities": [0.5, 0.5]}, "sparsity 0.5 is given twice"),
        ({"sparsities": [1.0]}, "sparsity 1.0 must be a number above 0 and below 1"),
        ({"sparsities": "auto"}, "must be a list of numbers"),
        ({"epochs": 0}, "epochs=0 must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs=1.5 must be"),
        ({"operator": "obx"}, "unknown operator 'obx'"),
        ({"sparsities": [0.5, 0.99], "prune_biases": False}, "cannot be reached"),
        ({"sparsities": [0.5, 0.99], "granularity": "unit"}, "units have only"),
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"schedule": "cubic"}, "setting schedule cannot be given: a front decides it"),
        ({"target_sparsity": 0.5}, "setting target_sparsity cannot be given"),
        ({"operator": "none"}, "operator=none reaches no target sparsity"),
        ({"sparsities": [0.5, 0.500001]}, "sparsities 0.5 and 0.500001 prune equally many of "),
        ({"sparsities": [1e-9]}, "sparsity 1e-09 prunes none of "),
    ],
)
def test_what_is_refused_before_anything_is_trained(given: Any, words: str) -> None:
    trained.clear()
    with pytest.raises(ValueError, match=words):
        front_modules(factory, fit, score, **({"sparsities": SIZES, **EPOCHS} | given))
    assert not trained
