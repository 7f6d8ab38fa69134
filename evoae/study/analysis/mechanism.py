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
CONSTANT = {"rate_policy": "constant", "learning_rate": 1e-3}
GUIDED = ("random", "conjunctive")
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


def dose_of(experiment: Experiment, trial: int) -> float:
    """The share of all parameters that one prune sets to zero, those left out that were zero.

    The mean over all prunes of a trial. Raises ValueError if it never prunes.
    """
    shares: list[float] = []
    for state in evolve(experiment, [trial], blocks.SEED):
        pruned = state.records["pruned"]
        if pruned.any() and "removed" in state.population.encoder.tensors:
            gone = np.zeros(int(pruned.sum()))
            for side in state.population.sides:
                gone += np.count_nonzero(side.tensors["removed"].numpy()[pruned], axis=1)
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
        how |= ARRANGEMENTS[place] | pruned_by(pruning, dose) | settings
        how |= {"bits": bits} if bits else {}
        factors = {"place": place, "pruning": pruning, "rate": rate, "bits": bits}
        e = Experiment.preset("lipi-ae-s", **how)
        found.add(", ".join(map(str, factors.values())), e, **factors)
    return found


def at_one_rate(
    rate: float, prunings: Sequence[str], rates: Sequence[str], bits: int = 0, **settings: Any
) -> Design:
    """Design A' with one constant rate for all arms, instead of one that is tuned for each."""
    tuned = {(place, pruning, bits): rate for place in ARRANGEMENTS for pruning in PRUNINGS}
    return mechanism(bits, tuned, 0.0, prunings, rates, **settings)


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
        factors = {"dataset": e.dataset, "bits": e.dimension, "width": width, "place": place}
        factors |= {"operator": operator, "sparsity": sparsity}
        found.add(" ".join(map(str, factors.values())), e, **factors)
    return found


def guided_alone(
    sizes: Sequence[tuple[int, int]], sparsities: Sequence[float], **settings: Any
) -> Design:
    """Random and guided pruning alone, of networks of several sizes (bits, width)."""
    found = Design()
    alone = {"alone": CONSTANT}
    for bits, width in sizes:
        found |= guided({"bits": bits}, width, sparsities, alone, GUIDED, **settings)
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
        factors = {"dataset": e.dataset, "bits": e.dimension, "place": place}
        factors |= {"operator": operator, "when": name}
        found.add(" ".join(map(str, factors.values())), e, **factors)
    return found


# -- what the tables say -------------------------------------------------------------------------

CONTRASTS = {  # of arrangements: a less b
    "ring less isolated": ("ring", "isolated"),
    "neighbours": ("ring without selection", "isolated"),
    "selection": ("ring", "ring without selection"),
}


def advantages(table: pd.DataFrame) -> pd.DataFrame:
    """Design A': arrangements compared, for each size, pruning, rate and outcome, over blocks.

    Columns: those, and those of `blocks.compared`; all rows are one family.
    """
    rows = []
    for (bits, pruning, rate), group in table.groupby(["bits", "pruning", "rate"], sort=False):
        for name, (a, b) in CONTRASTS.items():
            for value, outcome in blocks.OUTCOMES.items():
                gap = blocks.means(group, value, place=a) - blocks.means(group, value, place=b)
                about = {"bits": bits, "pruning": pruning, "rate": rate}
                rows.append((about | {"contrast": name, "outcome": outcome}, gap))
    return blocks.compared(rows)


def luck(cells: pd.DataFrame) -> pd.DataFrame:
    """How much of the spread of cells' losses within a run its mean learning rate explains.

    The share of the variance over the cells of a run that a line in log(rate) explains, less what
    chance explains (1 in their number less one): mean over blocks and its interval. `cells` is of
    `cells_of`.
    """
    rows = []
    for (bits, pruning, place), group in cells.groupby(["bits", "pruning", "place"], sort=False):
        shares = group.groupby("data_seed")[["mean_rate", "train_l1"]].apply(explained)
        rows.append(({"bits": bits, "pruning": pruning, "place": place}, shares))
    return blocks.compared(rows).drop(columns=["p_equal", "p_equal_holm", "says"], errors="ignore")


def explained(run: pd.DataFrame) -> float:
    """The share of one run, less chance; nan where nothing varies or a cell diverged."""
    x, y = np.log(run.mean_rate.to_numpy()), run.train_l1.to_numpy()
    if len(run) < 3 or not np.isfinite(y).all() or np.ptp(y) == 0 or np.ptp(x) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1] ** 2 - 1 / (len(run) - 1))


def of_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Design A': the ring's advantage with mutated rates less the one with a constant, tuned rate.

    A row per size, pruning and outcome. Below 0: the ring gains more where rates wander.
    """
    rows = []
    for (bits, pruning), group in table.groupby(["bits", "pruning"], sort=False):
        for value, outcome in blocks.OUTCOMES.items():
            gaps = {
                rate: blocks.means(own, value, place="ring")
                - blocks.means(own, value, place="isolated")
                for rate, own in group.groupby("rate")
            }
            if {"mutated", "constant tuned"} <= gaps.keys():
                about = {"bits": bits, "pruning": pruning, "outcome": outcome}
                rows.append((about, gaps["mutated"] - gaps["constant tuned"]))
    return blocks.compared(rows)


def guided_less_random(table: pd.DataFrame, guided: str = "conjunctive") -> pd.DataFrame:
    """A guided operator less random pruning at equal sparsity, over blocks: a row per setting.

    Where neither is better than the best constant, the row says that nothing was learnt. Settings
    in which the operator was not run have none.
    """
    rows, learnt = [], []
    where = ["dataset", "bits", "width", "place", "sparsity"]
    for levels, group in table.groupby(where, sort=False):
        if guided not in set(group.operator):
            continue
        for value, outcome in blocks.OUTCOMES.items():
            gaps = group.assign(gap=group[value].fillna(np.inf) - group[f"constant_{value}"])
            both = (guided, "random")
            ours, chance = (blocks.means(group, value, operator=name) for name in both)
            over = [blocks.effect(blocks.means(gaps, "gap", operator=name)) for name in both]
            about = dict(zip(where, levels, strict=True)) | {"outcome": outcome}
            about |= {"mean guided": ours.mean(), "mean random": chance.mean()}
            rows.append((about, ours - chance))
            learnt.append(any(each.high < 0 for each in over))
    return blocks.compared(rows, tested=learnt)


def best_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Operators with schedules at equal dose: the best of each place, and how far others are.

    A row per pair: its mean, and its difference from the best with Holm's p over the pairs of the
    place. The best was chosen on the same blocks, so those p-values are somewhat too small.
    """
    found = []
    for (dataset, bits, place), group in table.groupby(["dataset", "bits", "place"], sort=False):
        losses = {
            pair: blocks.means(own, "test_l1") for pair, own in group.groupby(["operator", "when"])
        }
        order = sorted(losses, key=lambda pair: losses[pair].mean())
        rows = []
        for pair in order:
            about = {"dataset": dataset, "bits": bits, "place": place}
            about |= {"operator": pair[0], "when": pair[1], "mean": losses[pair].mean()}
            rows.append((about, losses[pair] - losses[order[0]]))
        found.append(pd.DataFrame([rows[0][0] | {"says": "best", "n": len(rows[0][1])}]))
        found.append(blocks.compared(rows[1:]).assign(best=" ".join(order[0])))
    return pd.concat(found, ignore_index=True)
