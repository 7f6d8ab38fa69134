"""Every setting of an experiment in one validated dataclass; presets; the hash of the settings."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import numbers
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from evoae import identity, topology
from evoae.data import datasets
from evoae.networks import population, training
from evoae.pruning import operators, schedules

CHOICES: dict[str, tuple[str, ...]] = {
    "kind": population.KINDS,
    "loss": training.LOSSES,
    "topology": tuple(topology.TOPOLOGIES),
    "update_order": ("asynchronous", "synchronous"),
    "pairing": ("selected", "random-partner", "all-pairs"),
    "solution_concept": ("best", "worst", "mean"),
    "selection": ("joint", "separate"),
    "replacement": ("always", "better"),
    "optimiser": training.OPTIMISERS,
    "rate_policy": ("step-decay", "mutated", "constant"),
    "pruned_weights": ("regrow", "masked"),
    "statistics_window": ("since-prune", "visit"),
    "pruning_clock": ("epochs", "last-epoch"),
    "decrease": ("released", "intended"),
    "conjunctive_examples": ("test", "train"),
    "best_cell": ("validation", "first"),
}
# The differences between the released code and the paper's text: released, intended.
# A field left at None follows `as_released`.
DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "centroid_density": (0.75, 0.5),
    "shared_test_noise": (True, False),
    "decrease": ("released", "intended"),
    "conjunctive_examples": ("test", "train"),
    "pruned_weights": ("regrow", "masked"),
    "pruning_clock": ("epochs", "last-epoch"),
}
# Values that stand for one as released, and another as intended.
BY_READING: dict[str, dict[str, tuple[str, str]]] = {
    "operator": {"variance": ("variance-high", "variance-low")},
    "optimiser": {"by-reading": ("adam-per-batch", "adam")},
}
# Raised when the same settings come to give other numbers: no run of before counts as one of now.
MEANING = 3
RATE_BOUNDS = (1e-9, 10.0)  # of mutated learning rates
DEFAULTS = {"optimiser": "adam", "best_cell": "validation"}
POSITIVE = ("clusters", "bits", "examples", "cells", "tournament_size", "epochs", "batch_size")
SHARES = ("noise", "amount", "threshold", "probability", "last_share", "target_sparsity")
NOT_NEGATIVE = ("learning_rate", "rate_sigma", "input_noise", "steepness", "radius")


@dataclass(frozen=True)
class Experiment:
    """Settings of the one loop; the defaults are the paper's canonical training.

    Raises ValueError for a wrong value, with the rule and the valid choices. `operator` and
    `schedule` are names, registered names, or functions. None means: as `as_released` says.
    """

    # data
    dataset: str = "binary-clusters"
    clusters: int = 10
    bits: int = 1000
    examples: int = 100
    noise: float = 0.05
    centroid_density: float | None = None
    shared_test_noise: bool | None = None
    scale: bool = False
    data_share: float = 1.0
    # autoencoder
    model: str = "standard"
    kind: str = "plain"
    loss: str | None = None
    input_noise: float = 0.4
    identical_start: bool = False
    initial_weights: str | None = None
    # population
    cells: int = 1
    topology: str = "ring"
    radius: int = 1
    update_order: str = "asynchronous"
    pairing: str = "selected"
    solution_concept: str = "best"
    tournament_size: int = 2
    selection: str = "joint"
    replacement: str = "always"
    prune_then_evaluate: bool = False
    best_cell: str | None = None
    # training
    epochs: int = 400
    batch_size: int = 5
    optimiser: str | None = None
    learning_rate: float = 1e-5
    rate_policy: str = "step-decay"
    rate_sigma: float = 1e-5
    # pruning
    operator: str | operators.Operator = "none"
    amount: float = 0.1
    threshold: float = 0.1
    conjunctive_examples: str | None = None
    statistics_window: str = "since-prune"
    schedule: str | schedules.Schedule = "exponential"
    probability: float | None = None
    pruning_clock: str | None = None
    decrease: str | None = None
    steepness: float = 2.0
    last_share: float = 0.25
    target_sparsity: float = 0.5
    pruned_weights: str | None = None
    as_released: bool = True

    @classmethod
    def preset(cls, name: str, *, as_released: bool = True, **settings: Any) -> Experiment:
        """The named row of settings, with some replaced. Raises ValueError for unknown names."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
        check_names(settings)
        return cls(**(PRESETS[name] | {"as_released": as_released} | settings))

    def __post_init__(self) -> None:
        check_types(self)
        left_open = {f.name: None for f in fields(self) if getattr(self, f.name) is None}
        for name, values in BY_READING.items():
            if (value := getattr(self, name)) in tuple(values):
                left_open[name] = value
                object.__setattr__(self, name, values[value][0 if self.as_released else 1])
        object.__setattr__(self, "left_open", left_open)
        resolve(self)
        check_values(self)
        check_schedule(self)

    def replace(self, **settings: Any) -> Experiment:
        """A copy with some settings replaced; what was left open is implied anew."""
        check_names(settings)
        return replace(self, **(self.left_open | settings))

    @property
    def dimension(self) -> int:
        """D, the number of inputs. Reads the file if the data set is one."""
        return datasets.check(self.dataset, **self.data_options)

    @property
    def data_options(self) -> dict[str, Any]:
        names = [f.name for f in fields(datasets.Clusters)]
        return {name: getattr(self, name) for name in (*names, "scale")}

    @functools.cached_property
    def subpopulation(self) -> int:
        """Number of cells in a sub-population."""
        return topology.neighbourhood(self.topology, self.cells, self.radius).shape[1]

    @property
    def final(self) -> int:
        """The epoch at which the pruning clock has run out."""
        return self.epochs if self.pruning_clock == "epochs" else self.epochs - 1

    def check_files(self) -> None:
        """Read the files that the settings name. Raises ValueError if one cannot be used."""
        widths = population.widths_of(self.dimension, self.model, self.kind)
        if self.initial_weights:
            saved = population.load(self.initial_weights)
            found = tuple(side.widths for side in saved.sides)
            if found != widths or saved.variational != (self.kind == "variational"):
                raise ValueError(
                    f"initial_weights={self.initial_weights} holds networks of widths {found}; "
                    f"kind={self.kind} and model={self.model} on {self.dataset} need {widths}"
                )

    def pruning_at(self, t: int) -> float:
        """What the schedule says after epoch t: a probability, or a target sparsity."""
        names = [f.name for f in fields(schedules.ScheduleSettings)]
        settings = schedules.ScheduleSettings(*(getattr(self, name) for name in names))
        value = schedules.find(self.schedule)(t, self.final, settings)
        if not isinstance(value, numbers.Real):
            name = describe_name(self.schedule)
            raise ValueError(f"schedule={name} gives {value!r} at epoch {t}; it must be a number")
        return float(value)

    @property
    def has_target(self) -> bool:
        """Whether the schedule sets a target sparsity and not a probability."""
        return isinstance(self.schedule, str) and self.schedule in schedules.TARGETS

    @property
    def quality_epochs(self) -> tuple[int, ...]:
        """Epochs at which the loss over the training data is measured: quarters, and the last."""
        return tuple(sorted({q * self.epochs // 4 for q in range(4)} | {self.epochs - 1}))

    def settings(self) -> dict[str, Any]:
        """All settings as JSON values; functions by their name and a digest of their source."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: identity.describe(v) if callable(v) else v for k, v in values.items()}

    def hash(self, **more: Any) -> str:
        """Hash of all settings, defaults included, of `more`, and of the files they name."""
        files = {self.dataset: datasets.fingerprint(self.dataset)}
        if self.initial_weights:
            files[self.initial_weights] = population.fingerprint(self.initial_weights)
        for kind, registry in (("operator", operators), ("schedule", schedules)):
            value = getattr(self, kind)
            if isinstance(value, str):
                function = registry.find(value)
                if not function.__module__.startswith("evoae."):
                    files[value] = identity.describe(function)
        text = json.dumps([MEANING, self.settings(), more, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What has no meaning where every encoder meets every decoder.
ALL_PAIRS = {
    "topology": "complete",
    "update_order": "synchronous",
    "solution_concept": "best",
    "tournament_size": 2,
    "selection": "joint",
    "replacement": "always",
}
COEVOLVED = {"rate_policy": "mutated", "statistics_window": "visit", "pruning_clock": "last-epoch"}
PRESETS: dict[str, dict[str, Any]] = {
    "canonical": {},
    # the released code makes a new Adam for every batch; of the prior work that is the algorithm
    "lipi-ae-s": {"cells": 10, "optimiser": "by-reading", **COEVOLVED},
    "lipi-ae": {
        "cells": 5,
        "pairing": "random-partner",
        "optimiser": "adam-per-batch",
        **COEVOLVED,
    },
    "all-vs-all": {
        "cells": 5,
        "topology": "complete",
        "pairing": "all-pairs",
        "update_order": "synchronous",
        "optimiser": "adam-per-batch",
        **COEVOLVED,
    },
}


def check_names(settings: dict[str, Any]) -> None:
    for name in settings:
        check_known(name, [f.name for f in fields(Experiment)], f"unknown setting {name!r}")


def check_known(name: str, known: Collection[str], problem: str) -> None:
    """Raise ValueError, with the nearest of the known names, if this is none of them."""
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{problem}{hint}; valid are {', '.join(known)}")


def check_types(e: Experiment) -> None:
    """Every value is of its field's type; whole numbers are accepted for floats."""
    for field in fields(e):
        value, wanted = getattr(e, field.name), str(field.type)
        if value is None and "None" in wanted:
            continue
        if callable(value) and field.name in ("operator", "schedule"):
            continue
        kind = wanted.split(" | ")[0]
        if field.name == "model" and isinstance(value, list | tuple):
            object.__setattr__(e, "model", "-".join(str(width) for width in value))
            continue
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise ValueError(f"{field.name} is too large to be a float") from None
            object.__setattr__(e, field.name, value)
        if type(value).__name__ != kind:
            raise ValueError(
                f"{field.name}={value!r} is a {type(value).__name__}; it must be {kind}"
            )
        if kind == "float" and not math.isfinite(value):
            raise ValueError(f"{field.name}={value!r} must be a finite number")


def resolve(e: Experiment) -> None:
    """Settings left open get the value that the others imply."""
    implied = {name: pair[0 if e.as_released else 1] for name, pair in DIFFERENCES.items()}
    implied |= DEFAULTS
    implied["loss"] = "bce" if e.kind == "variational" else "l1"
    implied["probability"] = 1.0 if e.schedule == "prune-after" else 0.5
    if str(e.operator).startswith("variance-") and e.schedule != "prune-after":
        implied["probability"] = 0.1
    if operators.regrows(e.operator):
        implied["pruned_weights"] = "masked"
    for name, value in implied.items():
        if getattr(e, name) is None:
            object.__setattr__(e, name, value)


def check_values(e: Experiment) -> None:
    for name, choices in CHOICES.items():
        if getattr(e, name) not in choices:
            raise ValueError(
                f"unknown {name} {getattr(e, name)!r}; choose one of {', '.join(choices)}"
            )
    for name in POSITIVE:
        if getattr(e, name) < 1:
            raise ValueError(f"{name}={getattr(e, name)} must be at least 1")
    for name in SHARES:
        if not 0 <= getattr(e, name) <= 1:
            raise ValueError(f"{name}={getattr(e, name)} must lie in [0, 1]")
    for name in NOT_NEGATIVE:
        if getattr(e, name) < 0:
            raise ValueError(f"{name}={getattr(e, name)} must not be negative")
    low, high = RATE_BOUNDS
    if e.rate_policy == "mutated" and not low <= e.learning_rate <= high:
        raise ValueError(
            f"learning_rate={e.learning_rate} must lie in [{low:g}, {high:g}] where it is mutated"
        )
    if e.initial_weights and e.identical_start:
        raise ValueError("identical_start=True is of random networks; initial_weights names others")
    if not 0 < e.data_share <= 1:
        raise ValueError(f"data_share={e.data_share} must lie in (0, 1]")
    if e.kind == "variational" and e.loss != "bce":
        raise ValueError(f"kind=variational trains on bce and the divergence, not on loss={e.loss}")
    if e.dataset in datasets.BUILT_IN:  # a file is read when it is needed
        datasets.check(e.dataset, **e.data_options)
    population.hidden_widths(e.model)
    topology.neighbourhood(e.topology, e.cells, e.radius)
    operators.find(e.operator)
    if operators.regrows(e.operator) and e.pruned_weights != "masked":
        raise ValueError(
            f"operator={describe_name(e.operator)} decides which pruned weights regrow, so "
            f"pruned_weights={e.pruned_weights} must be masked"
        )
    for name, value in ALL_PAIRS.items() if e.pairing == "all-pairs" else ():
        if getattr(e, name) != value:
            raise ValueError(
                f"pairing=all-pairs has no space and selects nobody: {name}={getattr(e, name)} "
                f"must be {value}"
            )


def check_schedule(e: Experiment) -> None:
    schedules.find(e.schedule)
    operator = operators.find(e.operator)
    able = [operators.find(name) for name in ("none", *operators.REACH_A_TARGET)]
    of_a_user = operator.__module__ != operators.__name__  # who may heed `settings.to_target`
    if e.has_target and operator not in able and not of_a_user:
        raise ValueError(
            f"schedule={e.schedule} sets a target sparsity, which operator="
            f"{describe_name(e.operator)} cannot prune to; "
            f"choose one of {', '.join(operators.REACH_A_TARGET)}"
        )
    for t in range(e.epochs):
        value = e.pruning_at(t)
        if not 0 <= value <= 1:
            raise ValueError(
                f"schedule={describe_name(e.schedule)} gives {value} at epoch {t}; "
                "it must lie in [0, 1]"
            )


def describe_name(value: Any) -> str:
    """A setting's value for people: a function by its name."""
    return getattr(value, "__name__", type(value).__name__) if callable(value) else str(value)
