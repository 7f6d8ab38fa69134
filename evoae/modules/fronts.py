"""A user's module in several sizes, each of which begins from the finished denser one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from evoae.messages import short
from evoae.modules.pruner import Pruner
from evoae.rules import check_counts, plain, rising_shares

FREE = ("none", "cubic")  # operator and schedule of the dense one
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
    epochs: int,
    operator: str | Callable[..., Any] = "obd",
    **settings: Any,
) -> list[Sized]:
    """A module of each sparsity, the dense one first: what `evoae.front` does, for your module.

    The dense module is trained alone. The first size begins anew, every other one from a copy of
    the finished module of the next denser size; each takes `epochs`, and reaches its sparsity in
    the first third of them.

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
    sizes = rising_shares(sparsities)
    if type(plain(epochs)) is not int or epochs < 1:
        raise ValueError(f"epochs={short(epochs)} must be a whole number of at least 1")

    for name in ("schedule", "target_sparsity"):
        if name in settings:
            raise ValueError(f"setting {name} cannot be given: a front decides it")
    if operator == "none":
        raise ValueError("operator=none reaches no target sparsity; a front needs one that prunes")

    def trained(module: nn.Module, before: float, size: float) -> Sized:
        how, schedule = (operator, f"points:0,{before};0.3,{size};1,{size}") if size else FREE
        with Pruner(module, how, schedule, epochs, **(settings if size else {})) as pruner:
            fit(module, epochs, pruner)
        return Sized(size, float(score(module)), module)

    module = factory()
    for size in sizes:  # a target that cannot be reached is refused before anything is trained
        made = Pruner(copy.deepcopy(module), operator, "cubic", 1, **settings, target_sparsity=size)
    check_counts(sizes, made.size)
    where = {name: settings[name] for name in WHERE if name in settings}
    probe = Pruner(
        copy.deepcopy(module), "magnitude", "cubic", 1, target_sparsity=sizes[-1], **where
    )
    score(probe.module)
    probe.epoch_end()
    found = [trained(factory(), 0.0, 0.0)]
    for before, size in pairwise((0.0, *sizes)):
        found.append(trained(module, before, size))
        module = copy.deepcopy(module)
    return found
