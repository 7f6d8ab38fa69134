"""Copies of a user's module in several sizes: a trunk that is pruned on, and branches from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from evoae.messages import short
from evoae.modules.pruner import Pruner
from evoae.rules import plain, rising_shares

MOST_SIZES = 50
WHERE = ("granularity", "layers", "exclude", "prune_biases")  # settings that say what may be pruned
Fit = Callable[[nn.Module, int, Pruner], Any]


@dataclass(frozen=True)
class Sized:
    """A trained module of a sparsity, and its score; `sparsity` 0 is the dense one."""

    sparsity: float
    score: float
    module: nn.Module


def front_modules(
    factory: Callable[[], nn.Module],
    fit: Fit,
    score: Callable[[nn.Module], float],
    sparsities: Iterable[float],
    *,
    trunk_epochs: int,
    branch_epochs: int,
    operator: str | Callable[..., Any] = "obd",
    **settings: Any,
) -> list[Sized]:
    """A module of each sparsity, the dense one first: what `evoae.front` does, for your module.

    One module, the trunk, is trained for `trunk_epochs` on the way to each sparsity. From what it
    is there, a copy is trained for `branch_epochs` more, at that sparsity. The dense module is
    trained alone for as many epochs as the first of them.

    Args:
        factory: makes a module with fresh weights; called twice.
        fit: `fit(module, epochs, pruner)` trains a module for so many epochs, and calls
            `pruner.epoch_end()` after each. A learning rate that falls within a call is fine.
        score: a module's loss on validation data, low is good.
        sparsities: shares of the pruned parameters, rising, within (0, 1).
        operator, settings: as those of `Pruner`, except for schedule, epochs and target.

    Raises ValueError, in one line and before anything is trained, for wrong sparsities or epochs,
    and as `Pruner`.
    """
    sizes = rising_shares(sparsities, MOST_SIZES)
    for name, epochs in (("trunk_epochs", trunk_epochs), ("branch_epochs", branch_epochs)):
        if type(plain(epochs)) is not int or epochs < 1:
            raise ValueError(f"{name}={short(epochs)} must be a whole number of at least 1")

    def trained(module: nn.Module, epochs: int, start: float, end: float) -> nn.Module:
        how, schedule = (operator, f"points:0,{start};1,{end}") if end else ("none", "cubic")
        with Pruner(module, how, schedule, epochs, **(settings if end else {})) as pruner:
            fit(module, epochs, pruner)
        return module

    trunk = factory()
    for size in sizes:  # a target that cannot be reached is refused before anything is trained
        Pruner(copy.deepcopy(trunk), operator, "cubic", 1, **settings, target_sparsity=size)
    where = {name: settings[name] for name in WHERE if name in settings}
    probe = Pruner(
        copy.deepcopy(trunk), "magnitude", "cubic", 1, target_sparsity=sizes[-1], **where
    )
    score(probe.module)
    probe.epoch_end()
    dense = trained(factory(), trunk_epochs + branch_epochs, 0.0, 0.0)
    found = [Sized(0.0, float(score(dense)), dense)]
    for before, size in pairwise((0.0, *sizes)):
        trained(trunk, trunk_epochs, before, size)
        branch = trained(copy.deepcopy(trunk), branch_epochs, size, size)
        found.append(Sized(size, float(score(branch)), branch))
    return found
