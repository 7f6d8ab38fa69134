"""A convolutional autoencoder of images in a plain training loop, pruned by `Pruner`, and after.

What `notebooks/11_your_model` shows; a loop to copy from.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from evoae.data import datasets
from evoae.data.datasets import Dataset
from evoae.modules.compaction import compact
from evoae.modules.pruner import Pruner
from evoae.networks.training import one_thread
from evoae.randomness import stream

BATCH = 64
LAST_SHARE = 0.75  # a mask is complete at this share of the run, and then trained on
WHILE, THEN, AFTER = "while training", "at once, then trained", "after training"


def autoencoder(seed: int) -> nn.Sequential:
    """Of grey images whose sides divide by 4: 5 convolutions, code of 4 channels at a quarter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 4, 3, stride=2, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip


def images(rows: Tensor, data: Dataset) -> Tensor:
    """Rows [n, D] as [n, 1, height, width]. Raises ValueError for data that are no images."""
    shape = data.image_shape or ()
    if len(shape) != 2 or any(side % 4 for side in shape):
        raise ValueError(f"dataset {data.name} must hold images whose sides divide by 4, in grey")
    return rows.view(-1, 1, *shape)


def train(
    module: nn.Module,
    x: Tensor,
    epochs: range,
    learning_rate: float,
    seed: int,
    trial: int,
    optimiser: torch.optim.Optimizer | None = None,
    pruner: Pruner | None = None,
) -> torch.optim.Optimizer:
    """The epochs of a plain loop on images x: L1 and Adam, which is returned to go on with."""
    optimiser = optimiser or torch.optim.Adam(module.parameters(), learning_rate)
    for epoch in epochs:
        order = stream(seed, trial, epoch, 0, "training batches").permutation(len(x))
        for batch in torch.from_numpy(order).split(BATCH):
            optimiser.zero_grad()
            F.l1_loss(module(x[batch]), x[batch]).backward()
            optimiser.step()
        if pruner:
            pruner.epoch_end()
    return optimiser


@torch.no_grad()
def loss(module: nn.Module, x: Tensor) -> float:
    """Mean absolute error."""
    return F.l1_loss(module(x), x).item()


@dataclass
class Comparison:
    """What came of `compare`: a row per trained module, and the modules of the first trial.

    `results`: trial, operator, when, target, label, preserved, validation_l1, test_l1.
    """

    data: Dataset
    results: pd.DataFrame
    modules: dict[str, nn.Sequential] = field(default_factory=dict)


def compare(
    dataset: str,
    operators: Sequence[str],
    targets: Sequence[float],
    *,
    trials: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> Comparison:
    """Operators while training, and PyTorch's own magnitude pruning after it, at equal sparsities.

    All of a trial begin with the same weights and take the same steps, targets spread evenly over
    layers. Unpruned; each operator with schedule cubic up to three quarters of the run; all of the
    target at once by `torch.nn.utils.prune` at three quarters, then trained on; and at the end.
    """
    data = datasets.load(dataset, seed=seed, trial=0)
    x, validation, test = (
        images(getattr(data, split), data) for split in ("train", "validation", "test")
    )
    late = round(LAST_SHARE * epochs)
    rows, modules = [], {}

    def note(module: nn.Sequential, trial: int, operator: str, when: str, target: float) -> None:
        label = f"{operator}, {when}, {target:g}" if target else "unpruned"
        parts = [parameter.detach() for parameter in module.parameters()]
        zeros = sum(int((part == 0).sum()) for part in parts)
        rows.append(
            {
                "trial": trial, "operator": operator, "when": when, "target": target,
                "label": label, "preserved": 1 - zeros / sum(part.numel() for part in parts),
                "validation_l1": loss(module, validation), "test_l1": loss(module, test),
            }
        )  # fmt: skip
        if trial == 0:
            modules[label] = module

    with one_thread(), warnings.catch_warnings():
        # the output layer is pruned here too, by whatever operator
        warnings.filterwarnings("ignore", "operator apoz finds no ReLU after")
        for trial in range(trials):
            begin = autoencoder(int(stream(seed, trial, 0, 0, "initialise").integers(2**63)))
            common: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed, "trial": trial}
            dense = copy.deepcopy(begin)
            optimiser = train(dense, x, range(late), **common)
            early, moments = copy.deepcopy(dense), copy.deepcopy(optimiser.state_dict())
            train(dense, x, range(late, epochs), optimiser=optimiser, **common)
            note(dense, trial, "none", WHILE, 0.0)
            for target in targets:
                for operator in operators:
                    module = copy.deepcopy(begin)
                    with Pruner(
                        module, operator, "cubic", epochs, target_sparsity=target,
                        prune_until=LAST_SHARE, pruned_weights="masked", examples=x, seed=seed,
                    ) as pruner:  # fmt: skip
                        train(module, x, range(epochs), pruner=pruner, **common)
                    note(module, trial, operator, WHILE, target)
                for source, first, when in ((early, late, THEN), (dense, epochs, AFTER)):
                    module = copy.deepcopy(source)
                    parts = mask_by_torch(module, target)
                    optimiser = torch.optim.Adam(module.parameters(), learning_rate)
                    if first < epochs:
                        optimiser.load_state_dict(moments)
                    train(module, x, range(first, epochs), optimiser=optimiser, **common)
                    for layer, part in parts:
                        torch_prune.remove(layer, part)
                    note(module, trial, "magnitude", when, target)
    return Comparison(data, pd.DataFrame(rows), modules)


def mask_by_torch(module: nn.Sequential, target: float) -> list[tuple[nn.Conv2d, str]]:
    """Prune a share of every weight and bias by magnitude, as PyTorch does; what was pruned."""
    layers = [layer for layer in module if isinstance(layer, nn.Conv2d)]
    parts = [(layer, part) for layer in layers for part in ("weight", "bias")]
    for layer, part in parts:
        torch_prune.l1_unstructured(layer, part, target)
    return parts


def filters(comparison: Comparison, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The first layer's filters, [channels, height * width], of the first trial's modules."""
    chosen = {label: cast(nn.Conv2d, comparison.modules[label][0]) for label in labels}
    return {label: conv.weight.detach().flatten(1).numpy() for label, conv in chosen.items()}


def sizes(comparison: Comparison, batch: int = 256, repeats: int = 30) -> pd.DataFrame:
    """Each module of the first trial beside its compacted one: parameters, and time on one core.

    `milliseconds` are of a forward pass of a batch, the fastest of so many, measured in turn.
    `largest_difference` is that of any output on the test images.
    """
    test = images(comparison.data.test, comparison.data)
    x = test[torch.arange(batch) % len(test)]
    rows = []
    for label, module in comparison.modules.items():
        small = compact(module)
        with torch.no_grad(), one_thread():
            gap = (small(test) - module(test)).abs().max().item()
            taken = [[seconds(each, x) for each in (module, small)] for _ in range(repeats)]
        before, after = (1000 * np.min(taken, axis=0)).tolist()
        counts = [sum(p.numel() for p in each.parameters()) for each in (module, small)]
        rows.append((label, *counts, before, after, before / after, gap))
    columns = "label parameters compact_parameters milliseconds compact_milliseconds"
    return pd.DataFrame(rows, columns=[*columns.split(), "faster", "largest_difference"])


def seconds(module: nn.Module, x: Tensor) -> float:
    """Of one forward pass."""
    start = time.perf_counter()
    module(x)
    return time.perf_counter() - start
