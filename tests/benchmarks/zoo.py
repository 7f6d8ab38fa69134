"""Every module of the zoo, pruned and compacted, beside Torch-Pruning.

Run by python tests/benchmarks/zoo.py [NAME ...].

Columns: parameters; share of them that are zero after a Pruner was asked for 90 % (of those that it
covers); whether masks held for 100 steps of Adam with weight decay; the largest difference of any
output by `finish`. Then half of the channels are silenced by hand: parameters after `compact`, and
the largest difference of any output; the same of Torch-Pruning, asked to remove half of the
channels of each layer by magnitude, or why it does not.
"""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent.parent / "modules"))
from test_compact_graphs import LAYERS, largest_gap, silence, size
from zoo import ZOO

from evoae import Pruner, compact
from evoae.networks.training import one_thread

STEPS = 100


def trained(name: str) -> dict[str, Any]:
    """What a Pruner makes of a module."""
    module, x, loss = ZOO[name]()
    whole = size(module)
    pruner = Pruner(module.train(), "magnitude", "one-shot", 1, target_sparsity=0.9)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3, weight_decay=0.01)
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        loss(module(x), x).backward()
        optimiser.step()
        if not step:
            pruner.epoch_end()
    held = [tensor for target in pruner.targets for tensor in target.tensors.values()]
    holds = all((tensor.value[~tensor.keeps] == 0).all() for tensor in held)
    masked = sum(int((~tensor.keeps).sum()) for tensor in held)
    before = copy.deepcopy(module).eval()
    gap = largest_gap(before, pruner.finish().eval(), x)
    return {"parameters": whole, "zeros": masked / whole, "held": holds, "finish": gap}


def halved(name: str) -> dict[str, Any]:
    """What `compact` and Torch-Pruning make of a module half of whose channels are silent."""
    module, x, _ = ZOO[name]()
    silence(module)
    small = compact(module, example=x)
    row: dict[str, Any] = {"compact": size(small), "difference": largest_gap(module, small, x)}
    try:
        other = by_torch_pruning(copy.deepcopy(module), x)
        row |= {"Torch-Pruning": size(other), "its difference": largest_gap(module, other, x)}
    except Exception as error:  # of whatever kind
        row |= {"Torch-Pruning": type(error).__name__, "its difference": None}
    return row


def by_torch_pruning(module: nn.Module, x: Tensor) -> nn.Module:
    """Half of the channels of each layer but the last are removed, in groups."""
    import torch_pruning as tp

    last = [part for part in module.modules() if isinstance(part, LAYERS)][-1:]
    tp.pruner.BasePruner(
        module, x, tp.importance.GroupMagnitudeImportance(p=1), pruning_ratio=0.5,
        ignored_layers=last, output_transform=lambda out: sum(o.sum() for o in tree_leaves(out)),
    ).step()  # fmt: skip
    return module


if __name__ == "__main__":
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = sys.argv[1:] or list(ZOO)
        table = pd.DataFrame([{"module": name} | trained(name) | halved(name) for name in names])
    with pd.option_context("display.width", 250):
        print(table.to_string(index=False, float_format="{:.2g}".format))
