"""Networks of one's own in a plain training loop, pruned by `Pruner` and by others.

What `notebooks/11_your_model` shows; a loop to copy from.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune
from torch.utils.flop_counter import FlopCounterMode

from evoae.data import datasets
from evoae.data.datasets import Dataset
from evoae.modules.compaction import compact, size_of
from evoae.modules.pruner import Pruner
from evoae.networks.training import one_thread
from evoae.randomness import normals, stream
from evoae.study.analysis import sentences, statistics
from evoae.study.analysis.example_networks import NETWORKS, image_of, loss_of, outer_layers
from evoae.study.analysis.sentences import Answer

BATCH, TIMED = 64, 256  # images of a step, and of a forward pass that is timed
WIDTH = 16  # of networks that are pruned
NOISE = 0.3  # standard deviation of what is added to images; the networks are to take it off
LAST_SHARE = 0.75  # a network has its final size at this share of the run, and is trained on
GRANULARITIES = ("weights", "units")
UNPRUNED, SMALL = "unpruned", "small network"
CONVOLUTIONS = nn.modules.conv._ConvNd
TORCH, TORCH_PRUNING = "torch.nn.utils.prune", "Torch-Pruning"


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
    """The epochs of a plain loop on images x, with Adam, which is returned to go on with."""
    optimiser = optimiser or torch.optim.Adam(module.parameters(), learning_rate)
    module.train()
    for epoch in epochs:
        order = stream(seed, trial, epoch, 0, "training batches").permutation(len(x))
        noisy = with_noise(x, seed, trial, epoch)
        for batch in torch.from_numpy(order).split(BATCH):
            optimiser.zero_grad()
            loss_of(module(noisy[batch]), x[batch]).backward()
            optimiser.step()
        if pruner:
            pruner.epoch_end()
    return optimiser


def with_noise(x: Tensor, seed: int, trial: int, epoch: int, cell: int = 0) -> Tensor:
    """Images with noise, which is the same for all methods."""
    return x + normals(stream(seed, trial, epoch, cell, "input noise"), x.shape, NOISE)


@torch.no_grad()
def loss(module: nn.Module, x: Tensor, seed: int) -> float:
    """Mean absolute error of what a network makes of images with noise."""
    return F.l1_loss(image_of(module.eval()(with_noise(x, seed, 0, 0, cell=1))), x).item()


@dataclass(frozen=True)
class Comparison:
    """What came of `compare`: a row per trained network, and those of the first trial.

    `results`: network, method, target and trial; `test_l1`, `validation_l1`, `constant_test_l1`;
    `parameters` that are not zero; of the compacted network `compact_parameters`, `macs`
    (multiply-accumulates for one image), and `milliseconds` of a forward pass of TIMED images on
    one core.
    """

    results: pd.DataFrame
    modules: dict[tuple[str, str, float], nn.Module]


def compare(
    networks: Sequence[str],
    operators: Sequence[str],
    targets: Sequence[float],
    *,
    dataset: str,
    trials: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    repeats: int = 20,
) -> Comparison:
    """Each network of NETWORKS, pruned in several ways to the same sizes, after as many steps.

    All of a trial begin with the same weights and see the same batches, and all that prune spread
    the target evenly over layers. Operators prune weights and units on the schedule `cubic` up to
    three quarters of the run. There PyTorch's own magnitude pruning and Torch-Pruning, if it is
    installed, prune at once, and train on; a small network is trained from the start. Raises
    ValueError for a name that is not known, or no images.
    """
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"no network {unknown[0]!r}; choose from {', '.join(NETWORKS)}")
    data = datasets.load(dataset, seed=seed, trial=0)
    parts = {s: images(getattr(data, s), data) for s in ("train", "validation", "test")}
    test, constant = parts["test"], data.constant_loss("l1", "test")
    rows, first = [], {}
    with one_thread():
        for network, trial in product(networks, range(trials)):
            common = {"learning_rate": learning_rate, "seed": seed, "trial": trial}
            made = list(methods(network, operators, targets, parts["train"], epochs, **common))
            small = [compacted(module.eval(), test[:2]) for *_, module in made]
            taken = milliseconds(small, test, repeats)
            for (method, target, module), light, time_ in zip(made, small, taken, strict=True):
                if trial == 0:
                    first[network, method, target] = module
                rows.append(
                    {
                        **{"network": network, "method": method, "target": target, "trial": trial},
                        "constant_test_l1": constant,
                        "validation_l1": loss(module, parts["validation"], seed),
                        "test_l1": loss(module, test, seed),
                        "parameters": sum(int(p.count_nonzero()) for p in module.parameters()),
                        "compact_parameters": size_of(light),
                        "milliseconds": time_,
                        "macs": macs(light, test[:1]),
                    }
                )
    return Comparison(pd.DataFrame(rows), first)


def methods(
    network: str,
    operators: Sequence[str],
    targets: Sequence[float],
    x: Tensor,
    epochs: int,
    **common: Any,
) -> Iterator[tuple[str, float, nn.Module]]:
    """Trained networks of one trial, each with the method and the target, by and by."""
    seed, late = common["seed"], round(LAST_SHARE * epochs)
    rate, rest = common["learning_rate"], range(late, epochs)

    def fresh(width: int) -> nn.Module:
        start = stream(seed, common["trial"], 0, 0, "initialise").integers(2**63)
        with own_draws(int(start)):
            return NETWORKS[network](width)

    begin = fresh(WIDTH)
    with own_draws(seed):
        early = copy.deepcopy(begin)
        optimiser = train(early, x, range(late), **common)
        dense, moments = copy.deepcopy(early), optimiser.state_dict()
        train(dense, x, rest, optimiser=adam(dense, rate, moments), **common)
    yield UNPRUNED, 0.0, dense
    for target in targets:
        for operator in operators:
            for granularity in GRANULARITIES:
                module = copy.deepcopy(begin)
                with own_draws(seed), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "the Pruner covers")
                    with Pruner(
                        module, operator, "cubic", epochs, target_sparsity=target, examples=x,
                        granularity=granularity[:-1], prune_until=LAST_SHARE, seed=seed,
                    ) as pruner:  # fmt: skip
                        train(module, x, range(epochs), pruner=pruner, **common)
                yield f"{operator} ({granularity})", target, module
        module = copy.deepcopy(early)
        layers = mask_by_torch(module, target)
        with own_draws(seed):
            train(module, x, rest, optimiser=adam(module, rate, moments), **common)
        for layer, part in layers:
            torch_prune.remove(layer, part)
        yield f"{TORCH} (weights)", target, module
        if find_spec("torch_pruning"):
            module = without_channels(copy.deepcopy(early), x[:2], target)
            with own_draws(seed):
                train(module, x, rest, **common)
            yield f"{TORCH_PRUNING} (units)", target, module
        sizes = [abs(size_of(fresh(w)) - (1 - target) * size_of(begin)) for w in range(1, WIDTH)]
        module = fresh(1 + int(np.argmin(sizes)))
        with own_draws(seed):
            train(module, x, range(epochs), **common)
        yield SMALL, target, module


@contextmanager
def own_draws(seed: int) -> Iterator[None]:
    """Within, PyTorch draws from a seed (weights, a VAE's noise); afterwards as it did before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def adam(module: nn.Module, learning_rate: float, state: dict[str, Any]) -> torch.optim.Adam:
    """An Adam that goes on from a state."""
    optimiser = torch.optim.Adam(module.parameters(), learning_rate)
    optimiser.load_state_dict(copy.deepcopy(state))
    return optimiser


# -- others ----------------------------------------------------------------------------------------


def mask_by_torch(module: nn.Module, target: float) -> Sequence[tuple[nn.Module, str]]:
    """Prune a share of every weight and bias by magnitude, as PyTorch does; what was pruned."""
    layers = [part for part in module.modules() if isinstance(part, (nn.Linear, CONVOLUTIONS))]
    tensors = [(layer, name) for layer in layers for name in dict(layer.named_parameters())]
    for layer, name in tensors:
        torch_prune.l1_unstructured(layer, name, target)
    return tensors


def without_channels(module: nn.Module, example: Tensor, target: float) -> nn.Module:
    """A network with fewer channels by Torch-Pruning: as soon as its size is at the target."""
    import torch_pruning as tp

    aim, steps = (1 - target) * size_of(module), 50
    pruner = tp.pruner.BasePruner(
        module, example, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.98,
        iterative_steps=steps, ignored_layers=outer_layers(module),
    )  # fmt: skip
    for _ in range(steps):
        if size_of(module) <= aim:
            break
        pruner.step()
    return module


# -- sizes -----------------------------------------------------------------------------------------


def images(rows: Tensor, data: Dataset) -> Tensor:
    """Rows [n, D] as [n, 1, height, width]. Raises ValueError for data that are no images."""
    shape = data.image_shape or ()
    if len(shape) != 2 or any(side % 4 for side in shape):
        raise ValueError(f"dataset {data.name} must hold images whose sides divide by 4, in grey")
    return rows.view(-1, 1, *shape)


def compacted(module: nn.Module, example: Tensor) -> nn.Module:
    """The network without what can go; itself where nothing is zero."""
    if all(parameter.all() for parameter in module.parameters()):
        return module
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compact leaves as it is")
        return compact(module, example)


@torch.no_grad()
def macs(module: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of layers for an input."""
    with FlopCounterMode(display=False) as counter:
        module(x)
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def milliseconds(modules: Sequence[nn.Module], x: Tensor, repeats: int) -> list[float]:
    """Of a forward pass of TIMED inputs by each: the fastest of so many, measured in turn."""
    x = x[torch.arange(TIMED) % len(x)]

    def seconds(module: nn.Module) -> float:
        start = time.thread_time()  # which other work on the machine disturbs little
        module(x)
        return time.thread_time() - start

    return (1000 * np.min([[seconds(m) for m in modules] for _ in range(repeats)], 0)).tolist()


def filters(
    found: Comparison, network: str, operators: Sequence[str], target: float
) -> dict[str, np.ndarray]:
    """The first layer's filters, [channels, height * width], in the first trial: by method."""
    names = [f"{operator} ({each})" for operator in operators for each in GRANULARITIES]
    labels = [(network, UNPRUNED, 0.0), *((network, name, target) for name in names)]
    first = {label[1]: next(found.modules[label].parameters()).detach() for label in labels}
    return {name: weight.flatten(1).numpy() for name, weight in first.items()}


# -- in words --------------------------------------------------------------------------------------


def answer(results: pd.DataFrame, target: float) -> Answer:
    """What `compare` found at a target: the lowest loss of each network, and what it takes."""
    here = results[results.target == target]
    tests = statistics.compare(here, by="method", value="test_l1", baseline=SMALL, within="network")
    found = {
        f"For the {network} with {100 * target:g} % fewer parameters": sentences.against(
            tests[tests.network == network], "test loss", "method", family=len(tests)
        )
        for network in here.network.unique()
    }
    said = sentences.joined(found)
    timed = results[results.target.isin([0, target])]
    times = " ".join(time_of(rows) for _, rows in timed.groupby("network", sort=False))
    there = results.method.str.startswith(TORCH_PRUNING).any()
    missing = "" if there else f" {TORCH_PRUNING} is not installed here, and was not compared."
    return Answer(f"{said.found} {times}", said.sure + missing)


def time_of(rows: pd.DataFrame) -> str:
    """How long forward passes of one network take, in a sentence: before, and by what is gone."""
    of = {"unpruned": UNPRUNED, "with fewer units": "(units)", "with single weights set to zero":
          "(weights)", "as a small network": SMALL}  # fmt: skip
    taken = {words: rows.milliseconds[rows.method.str.endswith(end)] for words, end in of.items()}
    said = [f"{mean:.1f} ms {words}" for words, each in taken.items() if (mean := each.mean()) > 0]
    network = rows.network.iloc[0]
    if not said:
        return f"The time of the {network} was not measured."
    return f"A forward pass of the {network} takes {sentences.listed(said)}."
