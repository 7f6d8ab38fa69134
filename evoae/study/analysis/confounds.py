"""What the published gap is made of: designs that change one thing at a time, and their answers.

The paper compares an autoencoder alone with a ring, which changes optimiser, learning-rate policy
and population at once. The designs here take these apart, and pruning's *when*, *how often* and
*what*. Each is a dictionary of experiments for `sweep`; data seeds are blocks, and trials within a
data seed differ in their training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from evoae.experiment import Experiment
from evoae.study.analysis import effects, statistics
from evoae.study.runs.grids import grid
from evoae.study.runs.study import Study

OPTIMISERS = ["adam", "adam-per-batch"]
POLICIES = ["step-decay", "constant", "mutated"]
# where cells stand to each other: nobody's neighbour, neighbours at random, neighbours that compete
PLACES = {
    "isolated": {"topology": "isolated"},
    "ring without selection": {"tournament_size": 1},
    "ring": {},
}
TUNED_APART = 1000  # added to data seeds for tuning: data that no later comparison sees
FACTORS = (
    *("dataset", "topology", "tournament_size", "cells", "epochs", "data_seed", "learning_rate"),
    *("optimiser", "rate_policy", "loss", "operator", "schedule", "pruned_weights"),
)
WHEN = {"early": "decrease", "flat": "fixed", "late": "increase", "last quarter": "final-n"}


# -- designs -------------------------------------------------------------------------------------


def tuning(rates: Sequence[float], data_seeds: Sequence[int], **size: Any) -> dict[str, Experiment]:
    """Design T: one autoencoder, every rate with every optimiser, policy and loss."""
    return grid(
        "canonical",
        prefix="tune",
        learning_rate=list(rates),
        optimiser=OPTIMISERS,
        rate_policy=POLICIES,
        loss=["l1", "bce"],
        data_seed=[TUNED_APART + seed for seed in data_seeds],
        **size,
    )


def mechanism(
    operators: Sequence[str], data_seeds: Sequence[int], masked: Sequence[str] = (), **size: Any
) -> dict[str, Experiment]:
    """Design A: optimiser, rate policy and the place of a cell among others, for each operator.

    Pruned weights may regrow, as in the released code; those of `masked` operators stay zero.
    ValueError for one that prunes nothing.
    """
    if "none" in masked:
        raise ValueError("masked='none': must be operators that prune, for weights to stay pruned")
    found: dict[str, Experiment] = {}
    for place, settings in PLACES.items():
        crossed = {"optimiser": OPTIMISERS, "rate_policy": POLICIES, "data_seed": list(data_seeds)}
        crossed |= settings | size
        if operators:
            found |= grid("lipi-ae-s", prefix=place, operator=list(operators), **crossed)
        if masked:
            crossed |= {"prefix": f"{place} masked", "pruned_weights": "masked"}
            more = grid("lipi-ae-s", operator=list(masked), **crossed)
            known = set(found.values())  # of some operators all weights stay pruned
            found |= {label: e for label, e in more.items() if e not in known}
    return found


def timing(
    operators: Sequence[str], prunes: int, data_seeds: Sequence[int], **size: Any
) -> dict[str, Experiment]:
    """Design B: the same number of prunes early, evenly, late or in a last quarter; and never.

    None in the last twentieth, before which the last quarter ends, so that everything may recover.
    `decrease` is taken as the text means it: it falls to 0.
    """
    alike = {"prefix": "when", "data_seed": list(data_seeds), **size}
    return grid("canonical", operator=["none"], **alike) | grid(
        "canonical",
        operator=list(operators),
        schedule=list(WHEN.values()),
        decrease="intended",
        prune_count=prunes,
        prune_until=0.95,
        last_share=0.3,
        probability=0.5,
        **alike,
    )


def populations(
    cells: Sequence[int], epochs: int, data_seeds: Sequence[int], **size: Any
) -> dict[str, Experiment]:
    """Design C: rings and as many isolated cells, all of the same total number of model steps.

    `epochs` are those of one cell; N cells have a share of 1 / N of them each.
    """
    found: dict[str, Experiment] = {}
    for n in cells:
        places = ["isolated"] if n < 3 else ["isolated", "ring"]
        found |= grid(
            "lipi-ae-s",
            prefix=f"{n} cells",
            cells=n,
            topology=places,
            epochs=max(1, epochs // n),
            data_seed=list(data_seeds),
            **size,
        )
    return found


# -- tables --------------------------------------------------------------------------------------


def place_of(row: pd.Series) -> str:
    """The place of design A that a row of results is of."""
    if row.topology == "isolated":
        return "isolated"
    return "ring without selection" if row.tournament_size == 1 else "ring"


def pruning_of(row: pd.Series) -> str:
    """The pruning of design A that a row of results is of: an operator, and whether masked."""
    pruned = row.operator != "none" and row.pruned_weights == "masked"
    return f"{row.operator}, masked" if pruned else row.operator


def table_of(study: Study) -> pd.DataFrame:
    """A study's results with every factor of the designs, and `place`, `neighbours`, `selection`,
    `pruning`.

    `block` is a data seed with a trial: what is compared in pairs shares both.
    """
    results = statistics.scored(study)
    settings = {
        name: results.label.map({label: run.setting(name) for label, run in study.runs.items()})
        for name in FACTORS
    }
    results = results.assign(**settings)
    return with_blocks(results).assign(
        place=results.apply(place_of, axis=1),
        pruning=results.apply(pruning_of, axis=1),
        neighbours=results.topology != "isolated",
        selection=(results.topology != "isolated") & (results.tournament_size > 1),
        when=results.schedule.map({schedule: name for name, schedule in WHEN.items()}).where(
            results.operator != "none", "never"
        ),
    )


def with_blocks(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `block`, the same for runs that are compared in pairs."""
    return table.assign(block=table.data_seed.astype(str) + " " + table.trial.astype(str))


def parts_of_gap(table: pd.DataFrame) -> pd.DataFrame:
    """Shapley values of optimiser, rate policy, neighbours and selection, for each pruning.

    Of the gap from one autoencoder as the paper trains it alone to its ring. Without neighbours
    there is nobody to select among, so that corner is the same with and without selection.
    """
    rows = table[table.rate_policy.isin(["step-decay", "mutated"])]
    rows = pd.concat([rows, rows[~rows.neighbours].assign(selection=True)])
    factors = {
        "optimiser": ("adam", "adam-per-batch"),
        "rate_policy": ("step-decay", "mutated"),
        "neighbours": (False, True),
        "selection": (False, True),
    }
    found = [
        effects.shapley(own, factors, "train_l1", "data_seed").assign(pruning=pruning)
        for pruning, own in rows.groupby("pruning", sort=False)
    ]
    return pd.concat(found, ignore_index=True)


def best_rate(table: pd.DataFrame) -> pd.DataFrame:
    """Design T's settings by their mean validation loss, best first, with the number of runs."""
    by = ["learning_rate", "optimiser", "rate_policy", "loss"]
    table = table.assign(validation_l1=table.validation_l1.fillna(np.inf))
    means = table.groupby(by).validation_l1.agg(["mean", "count"])
    return means.sort_values("mean").reset_index()


def against_restarts(table: pd.DataFrame) -> pd.DataFrame:
    """Design C: the best cell of a ring against the best of as many isolated cells, in pairs.

    The best cell is chosen on validation, its loss is of test data. A row per number of cells.
    """
    rows = []
    for n, group in table.groupby("cells"):
        sides = {place: g.set_index("block").test_l1 for place, g in group.groupby("place")}
        if {"ring", "isolated"} <= sides.keys():
            rows.append({"cells": n} | statistics.paired(sides["ring"], sides["isolated"]))
    found = pd.DataFrame(rows)
    return found.assign(p_holm=statistics.holm(found["p"])) if len(found) else found


def when_matters(table: pd.DataFrame) -> float:
    """Design B: p of the permutation test that it is all the same when prunes happen."""
    pruned = table[table.when != "never"]
    return effects.permutation_test(pruned, "when", "train_l1", ["data_seed", "operator", "trial"])


def against_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Design B: random pruning against fresh values in as many places, in pairs, by `when`."""
    return statistics.compare(
        table[table.operator.isin(["random", "noise"])],
        by="operator",
        value="train_l1",
        baseline="noise",
        within="when",
        paired_by="block",
    )


# -- the paragraph -------------------------------------------------------------------------------


def paragraph(
    crossed: pd.DataFrame, sized: pd.DataFrame, timed: pd.DataFrame, tuned: pd.DataFrame
) -> str:
    """What came out of designs A, C, B and T, in plain sentences made from the numbers."""
    return sentences(
        parts_of_gap(crossed),
        against_restarts(sized),
        when_matters(timed),
        timed.groupby("operator").train_l1.mean(),
        against_noise(timed),
        best_rate(tuned).iloc[0],
    )


def sentences(
    parts: pd.DataFrame,
    restarts: pd.DataFrame,
    when: float,
    ends: pd.Series,
    noise: pd.DataFrame,
    tuned: pd.Series,
) -> str:
    """The paragraph; `ends` are design B's mean losses by operator, `tuned` design T's best row."""
    text = ""
    for pruning, shares in parts.groupby("pruning", sort=False):
        gap, words = shares.set_index("factor"), []
        for name in ("optimiser", "rate_policy", "neighbours", "selection"):
            row = gap.loc[name]
            words.append(f"{name.replace('_', ' ')} {row.value:+.3f}{interval_of(row)}")
        text += "Unpruned, of " if pruning == "none" else f"Pruned by {pruning}, of "
        text += f"the gap of {gap.loc['whole gap'].value:+.3f}, {', '.join(words)}. "
    for row in restarts.itertuples():
        text += (
            f"A ring of {row.cells} against as many restarts at equal steps: {row.shift:+.3f}"
            f"{interval_of(row)}. "
        )
    changes = "changes" if when < statistics.LEVEL else "is not seen to change"
    p = "p < 0.001" if when < 0.001 else f"p = {when:.3f}"
    text += f"With the number of prunes fixed, when they happen {changes} the loss ({p}). "
    losses = [f"{name} {loss:.3f}" for name, loss in ends.sort_values().items()]
    text += f"Final losses by operator: {', '.join(losses)}. "
    shifts = [f"{row.when} {row.shift:+.3f}{interval_of(row)}" for row in noise.itertuples()]
    text += f"Random pruning against noise, trial by trial: {', '.join(shifts)}. "
    return text + (
        f"Tuned alone ({tuned.optimiser}, {tuned.rate_policy}, {tuned.loss}, rate "
        f"{tuned.learning_rate:g}) reaches {tuned['mean']:.3f} on validation."
    )


def interval_of(row: Any) -> str:
    """A shift's interval in brackets, or nothing if there are too few trials for one."""
    return "" if pd.isna(row.low) else f" [{row.low:+.3f}, {row.high:+.3f}]"
