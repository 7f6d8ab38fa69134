"""The frontier: methods of pruning at exactly the same sizes and the same number of model steps.

A method is a preset and settings that do not depend on the size. All methods are tuned by one
search: `search` tries the same CONFIGURATIONS for each, on trials that are used for nothing else,
and `points` puts each method at every target with what validation chose near that target. Data set
and method are factors of the design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from evoae.experiment import PRESETS, Experiment
from evoae.networks.activations import layer_names
from evoae.networks.population import parameter_count, widths_of
from evoae.pruning import operators
from evoae.study.analysis.inspection import equal_widths
from evoae.study.analysis.statistics import front, require_columns
from evoae.study.runs.grids import Design
from evoae.study.runs.rewinding import rewound
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study
from evoae.study.runs.sweeps import sweep

# what the search chooses among
SEARCHED: dict[str, tuple[Any, ...]] = {
    "learning_rate": (0.0003, 0.001, 0.003, 0.01),
    "allocation": ("global", "erk", "layer", "global"),
    "prune_until": (0.4, 0.5, 0.6, 0.8),
    "l1_penalty": (0.0, 0.015, 0.05, 0.2),
}
STRONGER = {0.0: 0.05, 0.015: 0.1, 0.05: 0.2, 0.2: 0.4}  # penalties of "soft", in their place
CONFIGURATIONS = 17
# The data sets of the full size; the first three are those of the ablation and the masks.
DATA = ("binary-clusters", "digits", "mnist_5k", "lfw_subset", "breast_cancer")
STEPS = dict.fromkeys(DATA, 80_000) | {
    "lfw_subset": 20_000,
    "breast_cancer": 20_000,
}  # of a method, design F
AGAIN = 4  # a search of more configurations tries so many of the best again, at the full length
TUNED_AT = (0.94, 0.8)  # targets of the search; others take the settings of the nearest
STANDARD = "standard"  # the model that all methods prune
RING = 4  # cells of the coevolved methods; each trains a quarter of the epochs
# Room to recover, for all methods alike: what a target without it costs is another question.
ROOM = {
    "schedule": "cubic",
    "pruned_weights": "masked",
    "prune_biases": False,
    "rate_policy": "cosine",
    "loss": "bce-then-l1",
}
SPARSE_FROM_THE_START = {"amount": 0.3}  # set, rigl: the share of the active that they swap
COEVOLVED = {
    "cells": RING,
    "optimiser": "adam",
    "statistics_window": "visit",
    "pruning_clock": "last-epoch",
}
PARTS_AT = 0.94  # sparsity of the ablation, and of the masks that are trained again
# What the recipe is made of: each part is taken out of the preset as it ships.
PARTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "magnitude for obd": {"operator": "magnitude"},
    "no ranking over layers": {"allocation": "erk"},
    "biases pruned too": {"prune_biases": True},
    "no swaps": {"drop_fraction": 0.0},
    "no penalty": {"l1_penalty": 0.0},
    "pruned late": {"prune_until": 0.8},
    "pruned at once": {"schedule": "one-shot"},
    "no hold of the rate": {"rate_hold": 0.0},
    "constant rate": {"rate_policy": "constant"},
    "l1 throughout": {"loss": "l1"},
}


def methods() -> dict[str, dict[str, Any]]:
    """Settings by name: every operator that can aim, and what is compared with them.

    "magnitude" under the cubic schedule is gradual magnitude pruning (Zhu and Gupta 2017), "imp"
    iterative magnitude pruning with rewinding (`rewound`). "soft" is soft thresholding: magnitude
    with a strong penalty, of which each step moves all weights towards zero by a threshold; that of
    STR (Kusupati et al. 2020) is learnt, and cannot be told to end at a size. "dense" is a narrow
    model of as many parameters, "dense-flat" one with a single hidden layer, "one-shot" a prune by
    magnitude and fine-tuning after it. "frontier" is the preset, "frontier-magnitude" the same with
    plain magnitudes as the score; a "ring" coevolves RING cells, and "restarts" train as many that
    never meet.
    """
    found = {}
    for name, operator in operators.OPERATORS.items():
        if name in operators.OPERATORS.own and name != "none" and not operator.renews:
            found[name] = ROOM | {"operator": name}
            found[name] |= SPARSE_FROM_THE_START if operator.regrows else {}
            found[name] |= {"conjunctive_examples": "train"} if operator.reads_test else {}
    recipe, magnitude = PRESETS["frontier"].settings, found["magnitude"]
    return found | {
        "dense": {k: ROOM[k] for k in ("rate_policy", "loss")},
        "dense-flat": {k: ROOM[k] for k in ("rate_policy", "loss")} | {"model": "30"},
        "one-shot": magnitude | {"schedule": "one-shot"},
        "soft": magnitude,
        "imp": magnitude,
        "frontier": recipe,
        "frontier-magnitude": recipe | {"operator": "magnitude"},
        "frontier-ring": recipe | COEVOLVED,
        "frontier-restarts": recipe | COEVOLVED | {"topology": "isolated"},
        "magnitude-ring": magnitude | COEVOLVED,
    }


def chosen(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The methods of these names. Raises ValueError, with those that there are, for another."""
    known = methods()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}; choose from {', '.join(known)}")
    return {name: known[name] for name in names}


def configurations(count: int = CONFIGURATIONS) -> list[dict[str, Any]]:
    """The first `count` settings that every method is tried with: the preset's own, then an array
    in which any two values of two settings meet exactly once (Bose 1938).
    """
    recipe = PRESETS["frontier"].settings
    twice = (0, 2, 3, 1)  # two times a number of the field of four
    rows = [(a, b, a ^ b, a ^ twice[b]) for b, a in product(range(4), repeat=2)]
    found = [
        {k: values[level] for (k, values), level in zip(SEARCHED.items(), row, strict=True)}
        for row in rows
    ]
    return [{name: recipe[name] for name in SEARCHED}, *found][:count]


def fitted(method: str, settings: Mapping[str, Any], tried: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings with a configuration, as far as they apply to it."""
    operator = operators.find(settings.get("operator", "none"))
    if operator.function is operators.none:
        return {**settings, "learning_rate": tried["learning_rate"]}
    found = {**settings, **tried}
    if method == "soft":
        found["l1_penalty"] = STRONGER[tried["l1_penalty"]]
    if not operator.compares and tried["allocation"] == "global":
        found["allocation"] = "erk"
    if operator.regrows:
        found["drop_until"] = tried["prune_until"]
    return found


def at(
    dataset: str, settings: Mapping[str, Any], target: float, steps: int, **more: Any
) -> Experiment:
    """One method at one target: its cells together train `steps` model steps, in whole epochs."""
    e = Experiment(**{**settings, "dataset": dataset, "target_sparsity": target, **more})
    size = e.data_summary.size
    batches = -(-size.train // e.batch_size)
    e = e.replace(epochs=max(1, round(steps / (batches * e.cells))))
    if e.operator == "none":
        left = (1 - target) * parameters(e.replace(model=STANDARD))
        e = e.replace(model=equal_widths(size.dimension, e.model, left))
    return e


def parameters(e: Experiment) -> int:
    """Weights and biases of an autoencoder of these settings."""
    return sum(map(parameter_count, widths_of(e.dimension, e.model, e.kind)))


def points(rows: pd.DataFrame, sparsities: Sequence[float], steps: int) -> Design:
    """Every method of `rows` (of `search`) at every target, with the settings chosen nearest."""
    found, known, tried = Design(), methods(), configurations()
    for (dataset, method), own in rows.groupby(["dataset", "method"], sort=False):
        for target in sparsities:
            distance = (own.tuned_at - target).abs()
            for number in own[distance == distance.min()].configuration:
                settings = fitted(method, known[method], tried[number])
                found.add(
                    f"{dataset}, {method}, {target:g}, {number}",
                    at(dataset, settings, target, steps),
                    dataset=dataset,
                    method=method,
                    configuration=number,
                )
    return found


def search(
    names: Sequence[str],
    data: Sequence[str],
    steps: int,
    target: float,
    count: int = CONFIGURATIONS,
    apart: range = range(1000, 1001),
    seed: int = 1,
    **where: Any,
) -> pd.DataFrame:
    """The configuration of the lowest mean validation loss, by data set and method.

    All are tried for a quarter of the steps in the first of the trials `apart`, which are used for
    nothing else, and the best AGAIN of them for all steps in all of these trials. A row each:
    dataset, method, tuned_at (the target), configuration (its number), validation_l1, its settings,
    and the model steps that it took.
    """
    every = product(data, chosen(names), range(count))
    rows = pd.DataFrame(every, columns=["dataset", "method", "configuration"])
    rows = rows.assign(tuned_at=target)
    best, cost = tried(rows, max(1, steps // 4), apart[:1], seed, where)
    if count > AGAIN:
        rows = best.groupby(["dataset", "method"], sort=False).head(AGAIN)
        best, more = tried(rows, steps, apart, seed, where)
        cost += more
    best = best.groupby(["dataset", "method"], sort=False).head(1).reset_index(drop=True)
    settings = pd.DataFrame(configurations()).loc[best.configuration].reset_index(drop=True)
    return best.join(settings).merge(cost.rename("steps of tuning").reset_index())


def tried(
    rows: pd.DataFrame, steps: int, apart: range, seed: int, where: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.Series]:
    """Configurations by their mean validation loss, the best first, and the steps they took."""
    target = rows.tuned_at.iloc[0]
    table = trials(compute(points(rows, [target], steps), apart, seed, **where))
    cost = table.groupby(["dataset", "method"], sort=False).steps.sum()
    table["validation_l1"] = table.validation_l1.fillna(np.inf)
    by = ["dataset", "method", "configuration"]
    means = table.groupby(by, sort=False, as_index=False).validation_l1.mean()
    return means.sort_values("validation_l1", kind="stable").assign(tuned_at=target), cost


def compute(design: Design, trials: int | range = 1, seed: int = 1, **where: Any) -> Study:
    """`sweep`, except that the runs of "imp" come in rounds (`rewound`), which need `out`."""
    rounds = [label for label in design if design.factors[label]["method"] == "imp"]
    plain = {label: e for label, e in design.items() if label not in rounds}
    runs = sweep(plain, trials, seed, **where).runs if plain else {}
    factors = dict(design.factors)
    if rounds:
        study = rewound({label: design[label] for label in rounds}, trials, seed, **where)
        runs |= study.runs
        factors |= {k: {**factors[k], **more} for k, more in study.factors.items()}
    return Study({label: runs[label] for label in design}, factors)


def ablation(data: Sequence[str], target: float, steps: int) -> Design:
    """The recipe as it ships, and without each of its PARTS."""
    found, recipe = Design(), PRESETS["frontier"].settings
    for dataset, (name, changed) in product(data, PARTS.items()):
        e = at(dataset, recipe | changed, target, steps)
        found.add(f"{dataset}, {name}", e, dataset=dataset, method=name)
    return found


def trials(study: Study) -> pd.DataFrame:
    """A row per trial: dataset, method, target, its losses and its sizes.

    `sparsity` is the share of the parameters of the method's own model before it was narrowed or
    pruned; `relative_test` the test loss as a multiple of the constant predictor's; `steps` counts
    the model steps of all rounds.
    """
    rows = []
    for label, run in study.runs.items():
        e, factors = run.experiment, study.factors[label]
        dense = factors["method"].startswith("dense")
        full = parameters(e.replace(model=STANDARD) if dense else e)
        named = {k: v for k, v in factors.items() if k != "steps_before"}
        table = run.trials.assign(**named, target=e.target_sparsity, label=label)
        table["sparsity"] = 1 - table.best_preserved * parameters(e) / full
        table["steps"] = run.result["model_steps"] / len(run.numbers)
        table["steps"] += factors.get("steps_before", 0)
        rows.append(table)
    table = pd.concat(rows, ignore_index=True)
    return table.assign(relative_test=table.test_l1 / table.constant_test_l1)


def fronts(table: pd.DataFrame, size: str = "sparsity", by: str = "dataset") -> pd.DataFrame:
    """Means of each data set, method and target, and which are on the front of loss and size.

    `size` is a column of `trials`: sparsity, macs or compact_parameters; `by` what stands in for
    data sets. The front is chosen on validation (`statistics.front`). Raises ValueError for a
    column that is missing.
    """
    require_columns(table, [size, by])
    parts = []
    for group, rows in table.groupby(by, sort=False):
        share = 1 - rows[size] if size == "sparsity" else rows[size] / rows[size].max()
        means = front(rows.assign(share=share), ["method", "target"], x="share")
        parts.append(means.drop(columns="sparsity").assign(**{by: group}))
    found = pd.concat(parts, ignore_index=True)
    sizes = table.groupby([by, "method", "target"], sort=False)[size].mean()
    return found.merge(sizes.reset_index())


def best_pruned(table: pd.DataFrame, target: float, dataset: str) -> str:
    """The method of one cell that prunes, and has the lowest mean validation loss at a target."""
    here = table[(table.target == target) & (table.dataset == dataset)]
    here = here[~here.method.str.contains("ring|restarts|dense|imp")]
    here = here.assign(validation_l1=here.validation_l1.fillna(np.inf))
    return here.groupby("method").validation_l1.mean().idxmin()


def beside_controls(run: Run, controls: Study, name: str) -> pd.DataFrame:
    """The trials of a run, called `name`, and of its controls, named in the column `method`."""
    runs = {name: run} | controls.runs
    return pd.concat([each.trials.assign(method=label) for label, each in runs.items()])


def at_target(study: Study, dataset: str, target: float) -> dict[str, Run]:
    """The runs of one data set at one target, by method; without the narrow dense ones."""
    here = study.only(target_sparsity=target).runs
    factors = {label: study.factors[label] for label in here}
    return {
        own["method"]: here[label]
        for label, own in factors.items()
        if own["dataset"] == dataset and not own["method"].startswith("dense")
    }


def layers_of(run: Run) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights [P, out, in] and biases [P, out] of each layer, by name."""
    layers = [layer for side in run.population.sides for layer in side.layers()]
    return dict(zip(layer_names(run.population), layers, strict=True))


def layer_sizes(run: Run) -> dict[str, int]:
    """Weights and biases of each layer."""
    return {name: w[0].numel() + b[0].numel() for name, (w, b) in layers_of(run).items()}


def left_by_layer(runs: Mapping[str, Run]) -> pd.DataFrame:
    """How many parameters are left in each layer: means over trials, a row per run.

    Columns are the layers, and are counted with their biases.
    """
    found = {
        name: {
            layer: float((weight != 0).sum() + (bias != 0).sum()) / len(weight)
            for layer, (weight, bias) in layers_of(run).items()
        }
        for name, run in runs.items()
    }
    return pd.DataFrame(found).T


def masks_of(run: Run, trial: int = 0) -> dict[str, np.ndarray]:
    """Which weights of a trial's best autoencoder are left: bool [out, in] by layer."""
    member = run.index(trial)
    return {name: (weight[member] != 0).numpy() for name, (weight, _) in layers_of(run).items()}
