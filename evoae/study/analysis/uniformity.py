"""Is it uniformity that makes random pruning work? The paper's explanation, put to the test.

The paper says: guidance is effective where dimensions are few, because random positions stray from
uniform there; a population gives statistically uniform randomness. The design changes how uniform
the positions of one prune are, and nothing else: every prune takes equally many entries of every
layer, in the same epochs, at independent positions, evenly over rows and columns, or in whole units
or inputs. In a population every cell draws its own positions, or all share one draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from evoae.experiment import Experiment
from evoae.pruning.layer import Layer
from evoae.pruning.operators import random
from evoae.pruning.positions import POSITIONS, moves
from evoae.randomness import stream
from evoae.rules import check_known
from evoae.study.analysis import blocks
from evoae.study.analysis.sentences import Answer, change, count, lowered, raised
from evoae.study.runs.grids import Design
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

PLACES = ("alone", "isolated", "ring")
RATES = ("as released", "constant")
FACTORS = ["positions", "mask", "place", "bits", "width", "rate"]
MEASURED = ["discrepancy", "pooled_discrepancy"]
CODE = 10  # units of the code, whatever the width of the hidden layer
PRUNES_MEASURED = 3  # of each network
# positions whose constant rate is tuned together: that of the first is
KINDS = {"independent": ("independent", "even"), "units": ("units", "inputs")}
# what a sentence calls the outcomes
NAMED = blocks.OUTCOMES | dict.fromkeys(("discrepancy", "pooled less own"), "share to move")
Size = tuple[int, int]  # bits, width
Rates = Mapping[tuple[str, str, int, int], float]


# -- design --------------------------------------------------------------------------------------


def arm(
    place: str, positions: str, mask: str, bits: int, width: int, **settings: Any
) -> Experiment:
    """One experiment: a place, the positions of its prunes, and the size of its networks.

    Alone it is trained as the paper trains one autoencoder, otherwise as its ring; the epochs of
    its prunes are the same everywhere.
    """
    if place != "alone":
        settings = {"topology": place} | settings
    return Experiment.preset(
        "canonical" if place == "alone" else "lipi-ae-s",
        operator="random",
        positions=positions,
        shared_pruning="positions" if mask == "shared" else "epochs",
        model=f"{width}-{CODE}",
        bits=bits,
        pruning_clock="last-epoch",
        **{"prune_until": 0.95, **settings},
    )


def tuning(
    sizes: Sequence[Size],
    rates: Sequence[float],
    places: Sequence[str] = PLACES,
    cells: int = 4,
    **settings: Any,
) -> Design:
    """Constant rates for every place and size (bits, width), to choose from.

    For positions of both kinds, spread ones and whole lines. Alone and isolated, so many cells are
    so many trainings.
    """
    found = Design()
    for place, positions, (bits, width), rate in product(places, KINDS, sizes, rates):
        how = {"cells": cells, "rate_policy": "constant", "learning_rate": rate, **settings}
        how |= {"topology": "isolated"} if place == "alone" else {}
        factors = {"place": place, "positions": positions, "bits": bits, "width": width}
        label = f"tune {place} {positions} {bits} {width} {rate:g}"
        e = arm(place, positions, "own", bits, width, **how)
        found.add(label, e, **factors, learning_rate=rate)
    return found


def rates_of(tuned: Study) -> dict[tuple[str, str, int, int], float]:
    """The constant rate of each place, positions, bits and width, chosen on validation."""
    arms = ["place", "positions", "bits", "width"]
    found = blocks.rates_by(tuned.results, arms).to_dict()
    return {
        (place, positions, *size): rate
        for (place, kind, *size), rate in found.items()
        for positions in KINDS[kind]
    }


def design(
    sizes: Sequence[Size],
    tuned: Rates,
    cells: int,
    arms: Sequence[tuple[str, str]],
    places: Sequence[str] = PLACES,
    rates: Sequence[str] = RATES,
    **settings: Any,
) -> Design:
    """Design U for sizes (bits, width): positions and masks (`arms`), places, and rates.

    `tuned` are the constant rates; those of the own masks hold for the shared ones. Alone there is
    nobody to share a mask with.
    """
    found = Design()
    for (bits, width), place, (positions, mask), rate in product(sizes, places, arms, rates):
        if place == "alone" and mask == "shared":
            continue
        how: dict[str, Any] = {} if place == "alone" else {"cells": cells}
        if rate == "constant":
            chosen = tuned[place, positions, bits, width]
            how |= {"rate_policy": "constant", "learning_rate": chosen}
        e = arm(place, positions, mask, bits, width, **how, **settings)
        factors = dict(zip(FACTORS, (positions, mask, place, bits, width, rate), strict=True))
        found.add(" ".join(map(str, factors.values())), e, **factors)
    return found


# -- tables --------------------------------------------------------------------------------------


def table_of(study: Study) -> pd.DataFrame:
    """A row per run and block: the factors, the seeds, the losses, and `discrepancy` at the prune.

    As of `blocks.table_of` and `at_the_prune`.
    """
    table = blocks.table_of(study, FACTORS)
    found = [at_the_prune(study.runs[row.label], row.data_seed) for row in table.itertuples()]
    return table.join(pd.DataFrame(found, columns=MEASURED, index=table.index))


def at_the_prune(run: Run, trial: int) -> tuple[float, float]:
    """How far the positions of a prune are from even: in one network, and pooled over all cells.

    The least share of the pruned weights that must move to another unit (or input) to be even over
    them: the mean over both, all layers, and the first prunes, whose random draws are made again.
    A pool are the cells that are pruned in one epoch.
    """
    history = run.history
    pruned = history[(history.trial == trial) & history.pruned]
    alone, pooled = [], []
    for epoch in sorted(pruned.epoch.unique())[:PRUNES_MEASURED]:
        cells = pruned.cell[pruned.epoch == epoch]
        shared = run.setting("shared_pruning") == "positions"
        taken = [positions_of(run, trial, epoch, 0 if shared else cell) for cell in cells]
        for layer in zip(*taken, strict=True):
            for axis in (0, 1):
                alone += [moves(network, axis) for network in layer]
                pooled.append(moves(np.sum(layer, axis=0), axis))
    return (float(np.mean(alone)), float(np.mean(pooled))) if alone else (np.nan, np.nan)


def nothing(name: str) -> Any:
    """Random pruning asks for no statistic."""
    raise ValueError(f"there is no {name} of a draw that is made again")


def positions_of(run: Run, trial: int, epoch: int, cell: int) -> list[np.ndarray]:
    """The weights that random pruning took in an epoch, [out, in] by layer: the draw made again."""
    rng = stream(run.config["seed"], trial, epoch, cell, "operator")
    e = Experiment(**run.config["experiment"])
    found = []
    for side in run.population.sides:
        for weight, bias in side.layers():
            layer = Layer(weight[0], bias[0], nothing)
            keep, _ = random(layer, rng, e.operator_settings(epoch))
            found.append(~keep.numpy())
    return found


# -- the paper's sentence, part by part ----------------------------------------------------------


Arm = tuple[str, str, str]  # place, positions, mask


@dataclass(frozen=True)
class Part:
    """A part of the paper's explanation: its words, what it predicts, and of which arms.

    `gap_of` its `arms` has the predicted `sign`; with `by_bits`, the gap at the fewest bits less
    that at the most. If its `values` are losses, one of the arms must have learnt something; others
    are about positions, which are the same at every rate, and are tested once.
    """

    name: str
    text: str
    sign: int
    arms: tuple[Arm, ...]
    values: tuple[str, ...] = ("train_l1",)
    by_bits: bool = False

    @property
    def of_loss(self) -> bool:
        """Whether its values are losses."""
        return "train_l1" in self.values


def alone(
    name: str, sign: int, positions: str, other: str, text: str, by_bits: bool = False
) -> Part:
    """Of autoencoders alone: some positions less others, or how that changes with the bits."""
    arms = (("alone", positions, "own"), ("alone", other, "own"))
    return Part(name, text, sign, arms, by_bits=by_bits)


def in_ring(name: str, sign: int, positions: str, mask: str, text: str) -> Part:
    """Of the ring's advantage, the ring less as many isolated cells: with some positions and masks,
    less the one with independent positions of its own.
    """
    names = ((positions, mask), ("independent", "own"))
    arms = tuple((place, *name) for name in names for place in ("ring", "isolated"))
    return Part(name, text, sign, arms, ("train_l1", "test_l1"))


PARTS = (
    Part(
        "low dimensions",
        "At the fewest bits, independent positions deviate more from even ones than at the most",
        1,
        (("alone", "independent", "own"),),
        ("discrepancy",),
        by_bits=True,
    ),
    Part(
        "pool",
        "A ring's cells together prune more evenly than each, as independent draws do anywhere",
        -1,
        (("ring", "independent", "own"),),
        ("pooled less own",),
    ),
    alone("even", -1, "even", "independent",
          "Alone, even positions give a lower loss than independent ones"),
    alone("even, fewer bits", -1, "even", "independent",
          "The gain of even positions alone is larger at the fewest bits", by_bits=True),
    alone("units", 1, "units", "independent",
          "Alone, pruning whole units gives a higher loss than independent positions"),
    alone("inputs", 1, "inputs", "independent",
          "Alone, pruning whole inputs gives a higher loss than independent positions"),
    in_ring("shared", 1, "independent", "shared",
            "A mask that all its cells share reduces the ring's advantage"),
    in_ring("even in a ring", 1, "even", "own",
            "The ring has less of an advantage where positions are even already"),
    in_ring("units in a ring", -1, "units", "own",
            "The ring has more of an advantage where whole units are pruned"),
)  # fmt: skip


# The contrasts that were declared: Holm's family, however many of them have been run.
FAMILY = sum(len(part.values) * (len(RATES) if part.of_loss else 1) for part in PARTS)
GUIDANCE = (
    alone("guidance", -1, "conjunctive", "random",
          "Alone, at a rate of 0.001, conjunctive beats random pruning at equal sparsity"),
    alone("guidance, fewer bits", -1, "conjunctive", "random",
          "The gain of conjunctive alone is larger at the fewest bits", by_bits=True),
)  # fmt: skip


def as_arms(guided: pd.DataFrame) -> pd.DataFrame:
    """Operators at equal sparsity on the paper's data as a table of `contrasts`: a rate is one of
    their sparsities, and positions are an operator.
    """
    own = guided[guided.dataset == "binary-clusters"]
    rate = (100 * own.sparsity).map("{:.0f} % zeros".format)
    return own.assign(positions=own.operator, mask="own", rate=rate)


def wide_of(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """The table of `gap_of` for a value: rows are a block and a size, columns an arm; losses that
    diverged are infinite.
    """
    if value == "pooled less own":
        values = table["pooled_discrepancy"] - table["discrepancy"]
    else:
        values = table[value].fillna(np.inf)
    return table.assign(value=values).pivot(
        index=[blocks.BLOCK, "bits", "width"],
        columns=["place", "positions", "mask"],
        values="value",
    )


def gap_of(wide: pd.DataFrame, arms: Sequence[Arm]) -> pd.Series:
    """An arm; of two their difference; of four the difference of their differences."""
    half = len(arms) // 2
    return gap_of(wide, arms[:half]) - gap_of(wide, arms[half:]) if half else wide[arms[0]]


def fewest_less_most(gap: pd.Series) -> pd.Series:
    """A gap at the fewest bits less the one at the most, of hidden layers of one width."""
    by_size = gap.rename("gap").reset_index()
    width = by_size.groupby("width").bits.nunique().idxmax() if len(by_size) else 0
    table = by_size[by_size.width == width].pivot(index=blocks.BLOCK, columns="bits", values="gap")
    if table.shape[1] < 2:
        return pd.Series(dtype=float)
    return table[table.columns.min()] - table[table.columns.max()]


def gaps(table: pd.DataFrame, part: Part) -> Iterator[tuple[str, pd.Series]]:
    """The gap of a part by outcome, the mean over sizes in each block; none if it lacks an arm."""
    if not set(part.arms) <= set(zip(table.place, table.positions, table["mask"], strict=True)):
        return
    for value in part.values:
        gap = gap_of(wide_of(table, value), part.arms).dropna()
        gap = fewest_less_most(gap).dropna() if part.by_bits else gap
        if len(gap):
            yield value, over_sizes(gap)


def learnt(table: pd.DataFrame, arms: Sequence[Arm]) -> bool:
    """Whether one of the arms is better than the best constant, over the blocks."""
    gaps = table.assign(gap=table.train_l1.fillna(np.inf) - table.constant_train_l1)
    wide = gaps.pivot_table("gap", blocks.BLOCK, ["place", "positions", "mask"])
    return any(blocks.effect(wide[arm].dropna()).high < 0 for arm in arms if arm in wide)


def contrasts(table: pd.DataFrame, by: Sequence[str] = ("rate",)) -> pd.DataFrame:
    """Every part of the explanation, for each rate and outcome: the mean over sizes in each block.

    Also `by` sizes, `by=["rate", "bits", "width"]`; what needs several is then left out. The family
    are the contrasts that were declared, or all rows if these are more. Columns: those of `by`,
    part, value, those of `blocks.compared`, and `verdict`.
    """
    rows, known, seen = [], [], set()
    for levels, group in table.groupby(list(by), sort=False):
        for part in (*PARTS, *GUIDANCE):
            once = (part.name, *levels[1:])
            if not part.of_loss and once in seen:
                continue
            for value, gap in gaps(group, part):
                seen.add(once)
                about = dict(zip(by, levels, strict=True)) | {"part": part.name, "value": value}
                rows.append((about, gap))
                known.append(not part.of_loss or learnt(group, part.arms))
    found = blocks.compared(rows, tested=known, family=FAMILY)
    signs = {part.name: part.sign for part in (*PARTS, *GUIDANCE)}
    found["verdict"] = [stands(row.says, signs[row.part]) for row in found.itertuples()]
    return found


# Not declared before the runs: whole inputs, which deviate as much as whole units.
INPUTS_IN_A_RING = in_ring("inputs", 1, "inputs", "own", "")
UNITS_LESS_INPUTS = alone("units less inputs", 1, "units", "inputs", "")


def undeclared(table: pd.DataFrame, part: Part) -> pd.DataFrame:
    """A part that was not declared: its rows, a rate and an outcome each, are their own family."""
    rows = [
        ({"rate": rate, "outcome": NAMED[value]}, gap)
        for rate, group in table.groupby("rate", sort=False)
        for value, gap in gaps(group, part)
    ]
    return blocks.compared(rows)


def over_sizes(gap: pd.Series) -> pd.Series:
    """The mean over sizes in each block that has all of them, so that no block has others."""
    sizes = [name for name in gap.index.names if name != blocks.BLOCK]
    return gap.unstack(sizes).dropna().mean(axis=1) if sizes else gap


def stands(says: str, sign: int) -> str:
    """How a prediction of a sign stands, by what a row of `blocks.compared` says."""
    sides = {"lower": -1, "higher": 1}
    if says in sides:
        return "supported" if sides[says] == sign else "contradicted"
    if says.startswith(("lower, ", "higher, ", "no difference")):
        return "contradicted"  # an effect as large as the margin is ruled out
    return "open" if says == "open" else "no verdict"


def verdict_of(verdicts: Iterable[str]) -> str:
    """One verdict of several rows: those that give none are left out."""
    found = set(verdicts) - {"no verdict"}
    if not found:
        return "no verdict"
    if len(found) == 1:
        return found.pop()
    if "supported" not in found:
        return "open"
    return "mixed" if "contradicted" in found else "supported in part"


def parts(found: pd.DataFrame) -> pd.DataFrame:
    """Each part of the explanation, its verdict, and its numbers by rate and outcome, in words."""
    rows = []
    for part in (*PARTS, *GUIDANCE):
        own = found[found["part"] == part.name] if len(found) else found
        numbers = [
            f"{row.rate}, {NAMED[row.value]}: {change(row.estimate, row.low, row.high)}, {row.says}"
            for row in own.itertuples()
        ]
        verdict = verdict_of(own.verdict) if len(own) else "not run"
        rows.append({"prediction": part.text, "verdict": verdict, "numbers": "; ".join(numbers)})
    return pd.DataFrame(rows)


def by_arm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `arm`, for figures: positions, and whether a mask is shared."""
    return table.assign(arm=table.positions + table["mask"].map({"own": "", "shared": ", shared"}))


def all_contrasts(table: pd.DataFrame, guided: pd.DataFrame) -> pd.DataFrame:
    """The contrasts of design U, and of guided pruning alone: two families."""
    found = [contrasts(table)] if len(table) else []
    own = as_arms(guided[guided.place == "alone"]) if len(guided) else guided
    found += [contrasts(own)] if len(own) else []
    return pd.concat(found, ignore_index=True)


def answer(table: pd.DataFrame, guided: pd.DataFrame) -> Answer:
    """The verdict on the paper's sentence, part by part, with the number of blocks."""
    n = min(table.data_seed.nunique(), guided.data_seed.nunique())
    sure = (
        f"{raised(count(n, 'block'))} of {count(blocks.PLANNED)} planned, each with data and "
        f"training of its own; tests of means over blocks, Holm's correction; a difference smaller "
        f"than {blocks.MARGIN} counts as none."
    )
    if n < blocks.PLANNED:
        few = f"Below {count(blocks.PLANNED)} blocks nothing is tested. {sure}"
        return Answer("The paper's explanation gets no verdict: too few blocks were run.", few)
    by_verdict = parts(all_contrasts(table, guided)).groupby("verdict", sort=False).prediction
    words = [f"{name}: {'; '.join(map(lowered, each))}" for name, each in by_verdict]
    said = ". ".join(map(raised, words))
    return Answer(f"The paper's explanation, part by part. {said}.", sure)


def arms_of(shared: Sequence[str]) -> list[tuple[str, str]]:
    """All positions with own masks, and those that are named with a shared one as well.

    Raises ValueError for positions that do not exist.
    """
    for name in shared:
        check_known(name, POSITIONS, f"unknown positions {name!r}")
    return [*((name, "own") for name in POSITIONS), *((name, "shared") for name in shared)]


def sizes_of(text: str) -> list[Size]:
    """Sizes written as bits x width: "50x30 100x5". Raises ValueError for anything else."""
    found = [re.fullmatch(r"(\d+)x(\d+)", word) for word in text.split()]
    if not found or not all(found):
        raise ValueError(f"sizes={text!r} must be like 50x30 100x5: bits, and hidden width")
    return [(int(match[1]), int(match[2])) for match in found if match]
