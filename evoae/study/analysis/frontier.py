"""The frontier: methods of pruning at exactly the same sizes and the same number of model steps.

A method is a preset and settings that do not depend on the size; `points` puts each at every
target sparsity on every data set, with a learning rate that `tuned` has chosen on validation, near
that sparsity and on trials that are used for nothing else. Data set and method are factors of the
design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from evoae.data import datasets
from evoae.experiment import PRESETS, Experiment
from evoae.networks.activations import layer_names
from evoae.networks.population import parameter_count, widths_of
from evoae.pruning import operators
from evoae.study.analysis.inspection import equal_widths
from evoae.study.analysis.statistics import front, require_columns
from evoae.study.runs.grids import Design
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

RATES = (0.0003, 0.001, 0.003, 0.01)
TUNED_AT = (0.94, 0.9)  # targets at which rates are chosen; others take those of the nearest
RING = 4  # cells of the coevolved methods; each trains a quarter of the epochs
# Room to recover, for all methods alike: what a target without it costs is another question.
ROOM = {
    "schedule": "cubic",
    "prune_until": 0.6,
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


def methods() -> dict[str, dict[str, Any]]:
    """Settings by name: every operator that can aim, and what is compared with them.

    Operators whose scores compare between layers are ranked over all of them, the others get
    denser small layers (erk). "dense" is a narrow model of as many parameters, "one-shot" a prune
    by magnitude at half of the run and fine-tuning after it; "frontier" is the preset,
    "frontier-magnitude" the same with plain magnitudes as the score, and a "ring" coevolves RING
    cells.
    """
    found = {}
    for name, operator in operators.OPERATORS.items():
        if name in operators.OPERATORS.own and name != "none" and not operator.renews:
            chosen = {"operator": name, "allocation": "global" if operator.compares else "erk"}
            found[name] = ROOM | chosen | (SPARSE_FROM_THE_START if operator.regrows else {})
    frontier = PRESETS["frontier"].settings
    once = {"schedule": "one-shot", "prune_until": 0.5}
    return found | {
        "dense": {k: ROOM[k] for k in ("rate_policy", "loss")},
        "one-shot": found["magnitude"] | once,
        "frontier": frontier,
        "frontier-magnitude": frontier | {"operator": "magnitude"},
        "frontier-ring": frontier | COEVOLVED,
        "magnitude-ring": found["magnitude"] | COEVOLVED,
    }


def chosen(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The methods of these names. Raises ValueError, with those that there are, for another."""
    known = methods()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}; choose from {', '.join(known)}")
    return {name: known[name] for name in names}


def at(
    dataset: str, settings: Mapping[str, Any], target: float, steps: int, **more: Any
) -> Experiment:
    """One method at one target: its cells together train `steps` model steps, in whole epochs."""
    e = Experiment(**{**settings, "dataset": dataset, "target_sparsity": target, **more})
    size = datasets.measure(dataset, **e.data_options)
    batches = -(-size.train // e.batch_size)
    e = e.replace(epochs=max(1, round(steps / (batches * e.cells))))
    if e.operator == "none":
        left = (1 - target) * parameters(e)
        e = e.replace(model=equal_widths(size.dimension, e.model, left))
    return e


def parameters(e: Experiment) -> int:
    """Weights and biases of an autoencoder of these settings."""
    return sum(map(parameter_count, widths_of(e.dimension, e.model, e.kind)))


def tuning(names: Sequence[str], data: Sequence[str], steps: int, target: float) -> Design:
    """Every method at one target with each of RATES; labels end in the rate."""
    found = Design()
    for dataset, (name, settings), rate in product(data, chosen(names).items(), RATES):
        e = at(dataset, settings, target, steps, learning_rate=rate)
        found.add(f"{dataset}, {name}, {rate:g}", e, dataset=dataset, method=name)
    return found


def tuned(study: Study) -> pd.DataFrame:
    """The rate of the lowest mean validation loss, by data set and method.

    A row each: dataset, method, tuned_at (the target), learning_rate, validation_l1, and the model
    steps that it took.
    """
    table = trials(study).rename(columns={"target": "tuned_at"})
    table["validation_l1"] = table.validation_l1.fillna(np.inf)
    each = ["dataset", "method", "tuned_at"]
    by = [*each, "learning_rate"]
    means = table.groupby(by, sort=False, as_index=False)[["validation_l1", "steps"]].mean()
    cost = table.groupby(each, sort=False).steps.sum()
    best = means.loc[means.groupby(each, sort=False).validation_l1.idxmin()]
    return best.drop(columns="steps").merge(cost.rename("steps of tuning").reset_index())


def points(
    names: Sequence[str], sparsities: Sequence[float], rates: pd.DataFrame, steps: int
) -> Design:
    """Every method at every target, on the data sets for which `tuned` has chosen its rates."""
    found = Design()
    for (dataset, method), rows in rates.groupby(["dataset", "method"], sort=False):
        for target in sparsities:
            distances = (rows.tuned_at - target).abs().to_numpy()
            rate = float(rows.learning_rate.iloc[distances.argmin()])
            e = at(dataset, chosen(names)[method], target, steps, learning_rate=rate)
            found.add(f"{dataset}, {method}, {target:g}", e, dataset=dataset, method=method)
    return found


def trials(study: Study) -> pd.DataFrame:
    """A row per trial: dataset, method, target, learning_rate, its losses and its sizes.

    `sparsity` is the share of the parameters of the method's own model before it was narrowed or
    pruned; `relative_test` the test loss as a multiple of the constant predictor's.
    """
    rows = []
    for label, run in study.runs.items():
        e, factors = run.experiment, study.factors[label]
        full = parameters(e.replace(model="standard") if factors["method"] == "dense" else e)
        aims = {"target": e.target_sparsity, "learning_rate": e.learning_rate}
        table = run.trials.assign(**factors, **aims, label=label)
        table["sparsity"] = 1 - table.best_preserved * parameters(e) / full
        table["steps"] = run.result["model_steps"] / len(run.numbers)
        rows.append(table)
    table = pd.concat(rows, ignore_index=True)
    return table.assign(relative_test=table.test_l1 / table.constant_test_l1)


def fronts(table: pd.DataFrame, size: str = "sparsity") -> pd.DataFrame:
    """Means of each data set, method and target, and which are on the front of loss and size.

    `size` is a column of `trials`: sparsity, macs or compact_parameters. The front is chosen on
    validation (`statistics.front`). Raises ValueError for a column that is missing.
    """
    require_columns(table, [size])
    parts = []
    for dataset, rows in table.groupby("dataset", sort=False):
        share = 1 - rows[size] if size == "sparsity" else rows[size] / rows[size].max()
        means = front(rows.assign(share=share), ["method", "target"], x="share")
        parts.append(means.drop(columns="sparsity").assign(dataset=dataset))
    found = pd.concat(parts, ignore_index=True)
    sizes = table.groupby(["dataset", "method", "target"], sort=False)[size].mean()
    return found.merge(sizes.reset_index())


def best_pruned(table: pd.DataFrame, target: float, dataset: str) -> str:
    """The method of one cell that prunes, and has the lowest mean validation loss at a target."""
    here = table[(table.target == target) & (table.dataset == dataset)]
    here = here[~here.method.str.contains("ring") & (here.method != "dense")]
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
        if own["dataset"] == dataset and own["method"] != "dense"
    }


def layer_sizes(run: Run) -> dict[str, int]:
    """Weights and biases of each layer."""
    layers = [layer for side in run.population.sides for layer in side.layers()]
    sizes = [weight[0].numel() + bias[0].numel() for weight, bias in layers]
    return dict(zip(layer_names(run.population), sizes, strict=True))


def left_by_layer(runs: Mapping[str, Run]) -> pd.DataFrame:
    """How many parameters are left in each layer: means over trials, a row per run.

    Columns are the layers, and are counted with their biases.
    """
    found = {}
    for name, run in runs.items():
        layers = [layer for side in run.population.sides for layer in side.layers()]
        counts = [
            float((weight != 0).sum() + (bias != 0).sum()) / len(weight) for weight, bias in layers
        ]
        found[name] = dict(zip(layer_names(run.population), counts, strict=True))
    return pd.DataFrame(found).T


def masks_of(run: Run, trial: int = 0) -> dict[str, np.ndarray]:
    """Which weights of a trial's best autoencoder are left: bool [out, in] by layer."""
    member, names = run.index(trial), layer_names(run.population)
    weights = [weight for side in run.population.sides for weight, _ in side.layers()]
    return {
        name: (weight[member] != 0).numpy() for name, weight in zip(names, weights, strict=True)
    }
