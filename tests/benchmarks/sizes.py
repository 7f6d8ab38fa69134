"""What pruning buys on a real machine: bytes of a file, multiply-accumulates, and time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn

from evoae.networks import compaction, training
from evoae.networks.compaction import Dense
from evoae.study.runs import exports
from evoae.study.runs.run import Run

BATCHES = (1, 64)
ROUNDS = 200
SECONDS = 0.001  # of one form in one round: short, so that some rounds are not interrupted


@dataclass(frozen=True)
class Form:
    """One way to keep and to compute an autoencoder: reconstructions [batch, D] of [batch, D].

    `bytes` of its file, `parameters` that this holds, `macs` that it makes for one example.
    """

    reconstruct: Callable[[Tensor], Tensor]
    bytes: int
    parameters: int
    macs: int


def latency_table(run: Run, trial: int = 0, cell: int | None = None) -> pd.DataFrame:
    """An autoencoder of a run (the trial's best cell) in several forms that give equal outputs.

    Columns: `form`; `bytes` of its file; `parameters` that this holds; `macs`, the
    multiply-accumulates that it makes for one example; `microseconds_1` and `microseconds_64`, the
    time of one batch of so many test examples on one thread; `speedup_1` and `speedup_64`, against
    the dense network in PyTorch; `difference`, the largest of the outputs from that one's. Times
    are the best of ROUNDS rounds in which all forms take turns, so what else the machine does hits
    them alike. The two rows of onnxruntime are missing where it, or onnx, is not installed.
    """
    examples = run.data(trial).test.cpu()
    forms = forms_of(run, run.index(trial, cell))
    columns = ("bytes", "parameters", "macs")
    table = pd.DataFrame(
        [{"form": n} | {c: getattr(form, c) for c in columns} for n, form in forms.items()]
    )
    with training.one_thread(), torch.inference_mode():
        for batch in BATCHES:
            x = examples[torch.arange(batch) % len(examples)]
            seconds = best_times([lambda f=f, x=x: f.reconstruct(x) for f in forms.values()])
            table[f"microseconds_{batch}"] = 1e6 * seconds
            table[f"speedup_{batch}"] = seconds[0] / seconds
        outputs = [form.reconstruct(examples) for form in forms.values()]
    return table.assign(difference=[float((each - outputs[0]).abs().max()) for each in outputs])


def forms_of(run: Run, place: int) -> dict[str, Form]:
    """The autoencoder at a place of a run's population, in every form that can be had here."""
    encoder, _ = run.population.sides
    layers, split = compaction.chain(run.population, place), len(encoder.widths) - 1
    small = compaction.compact(layers)
    pairs = {
        "dense": (layers, compaction.modules(layers, split)),
        "compacted": (small.layers, compaction.modules(small.layers, split, small.inputs)),
    }
    forms = {}
    for name, (own, pair) in pairs.items():
        network = nn.Sequential(*pair)
        forms[f"PyTorch, {name}"] = Form(network, len(save(network.state_dict())), *counts(own))
    sparse = SparseNetwork(layers)
    weights = sum(len(layer.weight.values()) for layer in sparse.layers)
    parameters = weights + sum(len(layer.bias) for layer in sparse.layers)
    forms["PyTorch, sparse"] = Form(sparse, len(save(sparse.tensors())), parameters, weights)
    for name, (own, pair) in pairs.items():
        try:
            model = exports.onnx_model(*pair, encoder.widths[0]).SerializeToString()
            session = exports.session(model, threads=1)
        except ImportError:
            break
        forms[f"onnxruntime, {name}"] = Form(session, len(model), *counts(own))
    return forms


def counts(layers: Sequence[Dense]) -> tuple[int, int]:
    """Parameters of dense layers, zeros included, and their multiply-accumulates per example."""
    macs = sum(layer.weight.numel() for layer in layers)
    return macs + sum(len(layer.bias) for layer in layers), macs


# -- sparse layers -------------------------------------------------------------------------------


class SparseLinear(nn.Module):
    """A linear layer, its weight stored as compressed sparse rows (CSR), and ReLU where it was."""

    def __init__(self, layer: Dense) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            self.weight = layer.weight.to_sparse_csr()
        self.bias, self.relu = layer.bias[:, None], layer.relu

    def forward(self, x: Tensor) -> Tensor:
        """Of columns [in, batch]: [out, batch]."""
        x = torch.sparse.mm(self.weight, x) + self.bias
        return x.relu() if self.relu else x

    def tensors(self) -> dict[str, Tensor]:
        """What a file has to hold of it; four bytes are enough for a position."""
        return {
            "rows": self.weight.crow_indices().int(),
            "columns": self.weight.col_indices().int(),
            "values": self.weight.values(),
            "bias": self.bias,
        }


class SparseNetwork(nn.Module):
    """An autoencoder of sparse layers: reconstructions [batch, D] of inputs [batch, D]."""

    def __init__(self, layers: Sequence[Dense]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(SparseLinear, layers))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of rows [n, D]."""
        return self.layers(x.T).T.sigmoid()

    def tensors(self) -> dict[str, Tensor]:
        """All that a file of it would hold."""
        return {
            f"{number}.{name}": tensor.contiguous()
            for number, layer in enumerate(self.layers)
            for name, tensor in layer.tensors().items()
        }


# -- time ----------------------------------------------------------------------------------------


def best_times(calls: Sequence[Callable[[], Any]]) -> np.ndarray:
    """Seconds of one call of each, the best of ROUNDS rounds in which they take turns."""
    repeats = []
    for call in calls:
        call()  # what is set up at the first call is not counted
        # of several, lest an interruption make the rounds of one form short and their caches cold
        repeats.append(max(1, round(SECONDS / min(timed(call, 3) for _ in range(10)))))
    rounds = [
        [timed(call, often) for call, often in zip(calls, repeats, strict=True)]
        for _ in range(ROUNDS)
    ]
    return np.min(rounds, axis=0)


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Mean seconds of so many calls, one after the other."""
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begun) / repeats
