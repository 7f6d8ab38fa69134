"""Experiments by label: combinations of settings, and differences taken one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from evoae import identity
from evoae.data.memory import Rows
from evoae.experiment import SETTINGS, Experiment
from evoae.rules import plain


class Design(Mapping[str, Experiment]):
    """Experiments by label; `factors` by label are what a design calls them beside settings."""

    def __init__(
        self,
        experiments: Mapping[str, Experiment] | None = None,
        factors: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._experiments = dict(experiments or {})
        self.factors = dict(factors or {})

    def __getitem__(self, label: str) -> Experiment:
        return self._experiments[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._experiments)

    def __len__(self) -> int:
        return len(self._experiments)

    def add(self, label: str, experiment: Experiment, **factors: Any) -> None:
        """Another experiment of the design."""
        self._experiments[label], self.factors[label] = experiment, factors

    def __or__(self, other: Mapping[str, Experiment]) -> Design:
        return Design({**self, **other}, self.factors | getattr(other, "factors", {}))


def grid(*presets: str, prefix: str = "", **settings: Any) -> dict[str, Experiment]:
    """Every combination of presets and settings, label to Experiment.

    A list, a range, or an array or pandas Series of one dimension is an axis.

    grid("canonical", operator=["random", "magnitude"], probability=0.5) has two experiments. A
    label joins the prefix, the preset if there are several, and the values of the axes. Raises
    ValueError for an axis without values, and as `Experiment`.
    """
    axes = {k: [plain(each) for each in v] for k, v in settings.items() if is_axis(v)}
    if empty := [name for name, values in axes.items() if not values]:
        raise ValueError(f"{empty[0]} has no values; the list of an axis must hold one at least")
    found: dict[str, Experiment] = {}
    rows: dict[int, Any] = {}  # those in memory are looked through once
    for preset, *values in itertools.product(presets, *axes.values()):
        given = settings | dict(zip(axes, values, strict=True))
        data = given.get("dataset")
        if id(data) in rows:
            given["dataset"] = rows[id(data)]
        e = Experiment.preset(preset, **given)
        if isinstance(e.dataset, Rows):
            given["dataset"] = rows[id(data)] = e.dataset
        words = [prefix] if prefix else []
        words += [preset] if len(presets) > 1 or not (axes or prefix) else []
        for name in axes:
            value = given[name]
            words.append(f"{name}={value}" if isinstance(value, bool) else identity.name_of(value))
        label = " ".join(words)
        if label in found:
            raise ValueError(
                f"two experiments of the grid are called {label!r}; give them different names"
            )
        found[label] = e
    return found


def is_axis(value: Any) -> bool:
    """Whether a grid takes it as several values."""
    arrays = (np.ndarray, pd.Series, pd.Index)
    return isinstance(value, list | range) or (isinstance(value, arrays) and value.ndim == 1)


def one_at_a_time(preset: str, *, prefix: str = "", **settings: Any) -> Design:
    """As released, as intended, and as released but for one difference, each in turn.

    The differences are those between the paper's text and its released code; any that this
    training would not feel is left out. A label is the prefix, if any, and "as released", "as
    intended" or the name of the setting, with a colon between; these two are its factors `pair`
    and `difference`.
    """
    released = Experiment.preset(preset, as_released=True, **settings)
    intended = Experiment.preset(preset, as_released=False, **settings)
    clusters = released.dataset == "binary-clusters"
    prunes = not released.resolved_operator.idle
    recalls = released.resolved_operator.reads_test
    felt = {
        "as_released": False,  # by itself it changes nothing
        "centroid_density": clusters,
        "shared_test_noise": clusters and recalls,
        "conjunctive_examples": recalls,
        "decrease": prunes and released.schedule == "decrease",
        "pruned_weights": prunes,
        "pruning_clock": prunes,
    }
    found = {"as released": released, "as intended": intended}
    for name in SETTINGS:
        value = getattr(intended, name)
        if value != getattr(released, name) and felt.get(name, True):
            found[name] = released.replace(**{name: value})
    design = Design()
    for name, e in found.items():
        design.add(f"{prefix}: {name}" if prefix else name, e, pair=prefix, difference=name)
    return design
