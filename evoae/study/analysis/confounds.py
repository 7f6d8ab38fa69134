"""What the published gap is made of: designs that change one thing at a time, and their answers.

The paper compares an autoencoder alone with a ring, which changes optimiser, learning-rate policy
and population at once. The designs here take these apart, and pruning's *when*, *how often* and
*what*. Each is a dictionary of experiments for `sweep`. Trials are blocks: each has data and
training streams of its own. (The tables that the package keeps of these designs are older: their
data seeds share one or two training seeds.)
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from evoae.experiment import Experiment
from evoae.study.analysis import effects, statistics
from evoae.study.analysis.sentences import (
    NAMES,
    Answer,
    change,
    count,
    decimals,
    difference,
    differences,
    listed,
    lowest,
    probability,
    raised,
)
from evoae.study.analysis.statistics import LEVEL
from evoae.study.runs.grids import grid
from evoae.study.runs.study import Study

LEAST_BLOCKS = 5  # of fewer, no interval is given and nothing is tested
OPTIMISERS = ["adam", "adam-per-batch"]
POLICIES = ["step-decay", "constant", "mutated"]
# where cells stand to each other: nobody's neighbour, neighbours at random, neighbours that compete
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "isolated": {"topology": "isolated"},
    "ring without selection": {"tournament_size": 1},
    "ring": {},
}
FACTORS = (
    *("dataset", "topology", "tournament_size", "cells", "epochs", "data_seed", "learning_rate"),
    *("optimiser", "rate_policy", "loss", "operator", "schedule", "pruned_weights"),
)
TIMES = {  # what a sentence calls the times of WHEN
    "early": "with early prunes",
    "flat": "with evenly spread prunes",
    "late": "with late prunes",
    "last quarter": "with prunes in the last quarter",
}
WHEN = {"early": "decrease", "flat": "fixed", "late": "increase", "last quarter": "final-n"}


# -- designs -------------------------------------------------------------------------------------


def tuning(rates: Sequence[float], **size: Any) -> dict[str, Experiment]:
    """Design T: one autoencoder, every rate with every optimiser, policy and loss."""
    return grid(
        "canonical",
        prefix="tune",
        learning_rate=list(rates),
        optimiser=OPTIMISERS,
        rate_policy=POLICIES,
        loss=["l1", "bce"],
        **size,
    )


def gap(operators: Sequence[str], masked: Sequence[str] = (), **size: Any) -> dict[str, Experiment]:
    """Design A: optimiser, rate policy and the arrangement of cells, for each operator.

    Pruned weights may regrow, as in the released code; those of `masked` operators stay zero.
    ValueError for one that prunes nothing.
    """
    if "none" in masked:
        raise ValueError("masked='none' must name operators that prune")
    found: dict[str, Experiment] = {}
    for arrangement, settings in ARRANGEMENTS.items():
        crossed: dict[str, Any] = {"optimiser": OPTIMISERS, "rate_policy": POLICIES}
        crossed |= settings | size
        if operators:
            found |= grid("lipi-ae-s", prefix=arrangement, operator=list(operators), **crossed)
        if masked:
            crossed |= {"prefix": f"{arrangement} masked", "pruned_weights": "masked"}
            more = grid("lipi-ae-s", operator=list(masked), **crossed)
            known = set(found.values())  # of some operators all weights stay pruned
            found |= {label: e for label, e in more.items() if e not in known}
    return found


def timing(operators: Sequence[str], prunes: int, **size: Any) -> dict[str, Experiment]:
    """Design B: the same number of prunes early, evenly, late or in a last quarter; and never.

    None in the last twentieth, before which the last quarter ends, so that everything may recover.
    `decrease` is taken as the text means it: it falls to 0.
    """
    alike = {"prefix": "when", **size}
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


def populations(cells: Sequence[int], epochs: int, **size: Any) -> dict[str, Experiment]:
    """Design C: rings and as many isolated cells, all of the same total number of model steps.

    `epochs` are those of one cell; N cells have a share of 1 / N of them each.
    """
    found: dict[str, Experiment] = {}
    for n in cells:
        topologies = ["isolated"] if n < 3 else ["isolated", "ring"]
        found |= grid(
            "lipi-ae-s",
            prefix=f"{n} cells",
            cells=n,
            topology=topologies,
            epochs=max(1, epochs // n),
            **size,
        )
    return found


# -- tables --------------------------------------------------------------------------------------


def table_of(study: Study) -> pd.DataFrame:
    """A study's results with every factor of the designs, and `place`, `neighbours`, `selection`,
    `pruning`.

    Without a `data_seed`, a trial has data of its own, and its number stands there. `block` is a
    data seed with a trial: what is compared in pairs shares both.
    """
    results = statistics.scored(study)
    settings = {
        name: results.label.map({label: run.setting(name) for label, run in study.runs.items()})
        for name in FACTORS
    }
    results = results.assign(**settings)
    results = results.assign(data_seed=results.data_seed.fillna(results.trial).astype(int))
    near, masked = results.topology != "isolated", results.pruned_weights == "masked"
    selected = results.tournament_size > 1
    return with_blocks(results).assign(
        place=np.select([~near, ~selected], [*ARRANGEMENTS][:2], [*ARRANGEMENTS][2]),
        pruning=results.operator + np.where(masked & (results.operator != "none"), ", masked", ""),
        neighbours=near,
        selection=near & selected,
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
    there is nobody to select among, so that corner is the same with and without selection. Below
    LEAST_BLOCKS the intervals are null.
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
    parts = pd.concat(found, ignore_index=True)
    few = table.data_seed.nunique() < LEAST_BLOCKS
    return parts.assign(low=np.nan, high=np.nan) if few else parts


def best_rate(table: pd.DataFrame) -> pd.DataFrame:
    """Design T's settings by their mean validation loss, best first, with the number of runs."""
    by = ["learning_rate", "optimiser", "rate_policy", "loss"]
    table = table.assign(validation_l1=table.validation_l1.fillna(np.inf))
    means = table.groupby(by).validation_l1.agg(["mean", "count"])
    return means.sort_values("mean").reset_index()


def block_means(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Means over the trials of a data seed, which share their data and are no independent pairs.

    A row for each combination of `by` and each data seed; a diverged trial's loss is infinite.
    """
    table = table.assign(**{value: table[value].fillna(np.inf)})
    return table.groupby([*by, "data_seed"], sort=False)[value].mean().reset_index()


def against_restarts(table: pd.DataFrame) -> pd.DataFrame:
    """Design C: the best cell of a ring against the best of as many isolated cells, by data seed.

    The best cell is chosen on validation, its loss is of test data. A row per number of cells.
    """
    rows = []
    for n, group in block_means(table, ["cells", "place"], "test_l1").groupby("cells"):
        sides = {name: g.set_index("data_seed").test_l1 for name, g in group.groupby("place")}
        if {"ring", "isolated"} <= sides.keys():
            rows.append({"cells": n} | statistics.paired(sides["ring"], sides["isolated"]))
    found = pd.DataFrame(rows)
    return found.assign(p_holm=statistics.holm(found["p"])) if len(found) else found


def when_matters(table: pd.DataFrame) -> pd.DataFrame:
    """Design B: does it matter when prunes happen? A permutation test for each operator.

    Operators have best times of their own, which one test over all of them would average out. A
    row per operator: `operator`, the times of the lowest and the highest mean training loss
    (`best`, `worst`), their distance `gap`, `p`, and `p_holm` over the operators.
    """
    rows = []
    for operator, own in table[table.when != "never"].groupby("operator", sort=False):
        means = effects.diverged_as_worst(own, "train_l1").groupby("when").train_l1.mean()
        p = effects.permutation_test(own, "when", "train_l1", ["data_seed"])
        ends = {"best": means.idxmin(), "worst": means.idxmax(), "gap": means.max() - means.min()}
        rows.append({"operator": operator, **ends, "p": p})
    found = pd.DataFrame(rows, columns=["operator", "best", "worst", "gap", "p"])
    return found.assign(p_holm=statistics.holm(found["p"].astype(float)))


def against_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Design B: random pruning against fresh values at as many positions, data seed by data seed,
    for each time.
    """
    both = table[table.operator.isin(["random", "noise"])]
    return statistics.compare(
        block_means(both, ["operator", "when"], "train_l1"),
        by="operator",
        value="train_l1",
        baseline="noise",
        within="when",
        paired_by="data_seed",
    )


# -- the paragraph -------------------------------------------------------------------------------


def paragraph(
    crossed: pd.DataFrame, sized: pd.DataFrame, timed: pd.DataFrame, tuned: pd.DataFrame
) -> Answer:
    """What came out of designs A, C, B and T, in plain sentences made from the numbers."""
    when = when_matters(timed)
    found = sentences(
        parts_of_gap(crossed),
        against_restarts(sized),
        when if timed.data_seed.nunique() >= LEAST_BLOCKS else when[:0],
        timed.assign(train_l1=timed.train_l1.fillna(np.inf)).groupby("operator").train_l1.mean(),
        against_noise(timed),
        best_rate(tuned).iloc[0],
    )
    blocks = crossed.data_seed.nunique()
    sure = f"Parts of a change are Shapley values over {count(blocks, 'block')}, other comparisons "
    few = f"of fewer than {count(LEAST_BLOCKS)} no interval is given"
    brackets = "brackets hold 95 % intervals" if blocks >= LEAST_BLOCKS else few
    return Answer(found, f"{sure}paired; {brackets}.")


def sentences(
    parts: pd.DataFrame,
    restarts: pd.DataFrame,
    when: pd.DataFrame,
    ends: pd.Series,
    noise: pd.DataFrame,
    tuned: pd.Series,
) -> str:
    """The paragraph; `ends` are design B's mean losses by operator, `tuned` design T's best row."""
    said = []
    for pruning, shares in parts.groupby("pruning", sort=False):
        named = "Without pruning" if pruning == "none" else f"Pruned by {pruning}"
        said.append(f"{named}, {parts_in_words(shares)}")
    rows = {f"with {count(row.cells, 'cell')}": row for row in restarts.itertuples()}
    if rows:
        words = differences(rows, "the best of a ring", "the best of as many restarts", "test loss")
        said.append(f"At equal steps, {words}")
    tested = when[when.p_holm.notna()]
    for changes, rows in tested.groupby(
        np.where(tested.p_holm < LEVEL, "changes", "does not change")
    ):
        who = listed(f"{row.operator} ({probability(row.p_holm)})" for row in rows.itertuples())
        words = f"the time of a fixed number of prunes {changes} the training loss significantly"
        said.append(raised(f"{words} with {who}"))
    if tested.empty:
        said.append("Whether the time of a prune changes the loss was not tested")
    means = ends.rename(index=NAMES).to_dict()
    said.append(f"Alone, {lowest(means, 'final training loss', every=True)}")
    rows = {TIMES[row.when]: row for row in noise.itertuples()}
    if rows:
        said.append(raised(differences(rows, "random pruning", "noise", "training loss")))
    how = f"{tuned.optimiser}, {tuned.rate_policy}, {tuned.loss}, rate {tuned.learning_rate:g}"
    if np.isfinite(tuned["mean"]):
        loss = decimals(tuned["mean"])
        said.append(f"Tuned on its own ({how}), one autoencoder reaches {loss} on validation data")
    else:
        said.append("Tuned on its own, one autoencoder diverged with every setting")
    return " ".join(f"{sentence}." for sentence in said)


def parts_in_words(parts: pd.DataFrame) -> str:
    """What each factor has of the gap, the largest first: one pruning of `parts_of_gap`."""
    whole = parts[parts.factor == "whole gap"].iloc[0]
    rows = parts[parts.factor != "whole gap"].sort_values("value", key=abs, ascending=False)
    words = [
        f"{row.factor.replace('_', ' ')} {change(row.value, row.low, row.high)}"
        for row in rows.itertuples()
    ]
    total = SimpleNamespace(shift=whole.value, low=whole.low, high=whole.high)
    both = difference(total, "training in the ring", "training alone", "training loss")
    none = all(decimals(abs(value)) == "0.000" for value in parts.value)
    return f"{both}; no part changes it" if none else f"{both}; its parts are {listed(words)}"
