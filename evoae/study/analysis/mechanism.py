"""What makes the ring better, which operator prunes better, and when: three designs in blocks.

A' asks whether neighbours and selection help once the luck of a learning rate is taken out. The
second compares guided with random pruning at equal sparsity. The third crosses operators with
schedules at an equal dose: after each of a fixed number of prunes, equally many weights are zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from evoae.evolution.loop import evolve
from evoae.experiment import Experiment
from evoae.pruning.schedules import Schedule
from evoae.study.analysis import blocks
from evoae.study.analysis.confounds import ARRANGEMENTS
from evoae.study.analysis.dose import at_dose
from evoae.study.runs.grids import Design
from evoae.study.runs.study import Study

PRUNINGS = ("none", "random", "random at equal dose", "conjunctive")
RATES = ("constant 1e-5", "constant tuned", "mutated", "step-decay", "cosine")
CLEAN = {"conjunctive_examples": "train", "decrease": "intended"}  # no look at the test data
FACTORS = {
    "mechanism": ["place", "pruning", "rate", "bits"],
    "guided": ["dataset", "bits", "width", "place", "operator", "sparsity"],
    "schedules": ["dataset", "bits", "place", "operator", "when"],
}
Tuned = Mapping[tuple[str, str, int], float]


# -- A': the mechanism ---------------------------------------------------------------------------


def pruned_by(pruning: str, dose: float) -> dict[str, Any]:
    """The settings of a pruning; `dose` is the amount of random pruning at equal dose."""
    if pruning == "random at equal dose":
        return {"operator": "random", "amount": dose}
    return {"operator": pruning, **CLEAN}


def tuning(
    bits: Sequence[int],
    rates: Sequence[float],
    prunings: Sequence[str] = PRUNINGS,
    cells: int = 4,
    **settings: Any,
) -> Design:
    """Constant rates for every arrangement, pruning and number of bits, to choose from."""
    found, prunings = Design(), [name for name in prunings if name != PRUNINGS[2]]
    arms = product(ARRANGEMENTS, prunings, bits, rates)
    for place, pruning, d, rate in arms:
        how = ARRANGEMENTS[place] | pruned_by(pruning, 0) | {"cells": cells, "bits": d} | settings
        e = Experiment.preset("lipi-ae-s", rate_policy="constant", learning_rate=rate, **how)
        factors = {"place": place, "pruning": pruning, "bits": d, "learning_rate": rate}
        found.add(" ".join(map(str, ("tune", *factors.values()))), e, **factors)
    return found


def rates_of(tuned: Study) -> dict[tuple[str, str, int], float]:
    """The constant rate of each arrangement, pruning and number of bits, chosen on validation.

    Random pruning at equal dose has that of random pruning.
    """
    found = blocks.rates_by(tuned.results, ["place", "pruning", "bits"]).to_dict()
    equal = {(k[0], PRUNINGS[2], k[2]): v for k, v in found.items() if k[1] == "random"}
    return found | equal


def dose_of(experiment: Experiment, trial: int, seed: int = blocks.SEED) -> float:
    """The share of all parameters that one prune sets to zero, those left out that were zero.

    The mean over all prunes of a trial. Raises ValueError if it never prunes.
    """
    shares: list[float] = []
    for state in evolve(experiment, [trial], seed):
        pruned = state.records["pruned"]
        if pruned.any() and "removed" in state.population.encoder.tensors:
            gone = sum(
                (side.tensors["removed"][torch.from_numpy(pruned)] != 0).sum(1)
                for side in state.population.sides
            )
            shares += (gone / state.population.parameters).tolist()
        for side in state.population.sides:  # the loop leaves here what a prune takes away
            side.tensors["removed"] = torch.zeros_like(side.weights)
    if not shares:
        raise ValueError("the experiment never prunes, so there is no dose to measure")
    return float(np.mean(shares))


def mechanism(
    bits: int,
    tuned: Tuned,
    dose: float,
    prunings: Sequence[str] = PRUNINGS,
    rates: Sequence[str] = RATES,
    **settings: Any,
) -> Design:
    """Design A': arrangement, pruning and rates, of networks for so many bits.

    All cells train as the ring's do, with a new Adam for every batch.
    """
    found = Design()
    for place, pruning, rate in product(ARRANGEMENTS, prunings, rates):
        how: dict[str, Any] = {"rate_policy": rate.split()[0]}
        if rate in ("constant tuned", "cosine"):
            how["learning_rate"] = tuned[place, pruning, bits]
        how |= ARRANGEMENTS[place] | pruned_by(pruning, dose) | {"bits": bits} | settings
        factors = {"place": place, "pruning": pruning, "rate": rate, "bits": bits}
        found.add(", ".join(map(str, factors.values())), Experiment.preset("lipi-ae-s", **how),
                  **factors)  # fmt: skip
    return found


def cells_of(study: Study) -> pd.DataFrame:
    """Every cell with a rate of its own: its mean rate over the run, and its final training loss.

    A row per cell of design A' with mutated rates.
    """
    history = study.history
    history = history[history.rate == "mutated"]
    keys = ["place", "pruning", "bits", "trial", "cell"]
    cells = history.groupby(keys, sort=False).agg(
        mean_rate=("learning_rate", "mean"), train_l1=("train_l1", "last")
    )
    cells = cells.reset_index().rename(columns={"trial": "data_seed"})
    return cells.assign(training_seed=cells.data_seed)


# -- guided against random at equal sparsity ------------------------------------------------------


def guided(
    data: Mapping[str, Any],
    width: int,
    sparsities: Sequence[float],
    places: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str],
    **settings: Any,
) -> Design:
    """Operators at equal sparsities, masked, alone or in a ring; `places` are their settings.

    `data` are the settings that name the data set.
    """
    found = Design()
    for place, operator, sparsity in product(places, chosen, sparsities):
        e = Experiment.preset(
            "canonical" if place == "alone" else "lipi-ae-s",
            operator=operator,
            schedule="cubic",
            target_sparsity=sparsity,
            prune_until=0.6,
            pruned_weights="masked",
            model=f"{width}-10",
            **{**CLEAN, **data, **places[place], **settings},
        )
        dataset, bits = e.dataset, e.dimension
        values = (dataset, bits, width, place, operator, sparsity)
        factors = dict(zip(FACTORS["guided"], values, strict=True))
        found.add(" ".join(map(str, factors.values())), e, **factors)
    return found


# -- operators and schedules at equal dose --------------------------------------------------------


def schedules(
    data: Mapping[str, Any],
    places: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str],
    names: Sequence[str],
    prunes: int,
    dose: float,
    **settings: Any,
) -> Design:
    """Every operator with every schedule, at an equal dose; and unpruned.

    After each of so many prunes exactly the share `dose` of all parameters is zero; then they may
    grow again. Within a run, all cells are pruned in the same epochs.
    """
    found = Design()
    arms = [("none", "never"), *product(chosen, names)]
    for place, (operator, name) in product(places, arms):
        how: dict[str, Any] = {}
        if operator != "none":
            function = partial(at_dose, name=name, prunes=prunes, until=0.95)
            how = {"schedule": Schedule(function, target=True), "target_sparsity": dose}
        how |= {**CLEAN, **data, **places[place], **settings}
        e = Experiment.preset(
            "canonical" if place == "alone" else "lipi-ae-s", operator=operator, **how
        )
        values = (e.dataset, e.dimension, place, operator, name)
        factors = dict(zip(FACTORS["schedules"], values, strict=True))
        found.add(" ".join(map(str, factors.values())), e, **factors)
    return found
