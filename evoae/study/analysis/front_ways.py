"""Ways to find a whole front, at equal model steps: what `evoae front` does, and what it does not.

*separate* trains a network of each size anew. *trajectory* is what `evoae front` does: each size
begins from the finished network of the next denser one; *from-dense* begins with the dense network.
*trunk* prunes one network at a constant rate from size to size, and a branch of each size goes on
from there, alone, with a falling rate. *trajectory-or-anew* chooses on validation between the
trajectory's network and one trained anew. In *population* the sizes are the cells of a population:
in each round a size tries networks of its neighbours, and its own, and goes on with the best.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from evoae.experiment import Experiment
from evoae.networks import population
from evoae.study.analysis import statistics
from evoae.study.analysis.statistics import mean_loss
from evoae.study.runs import fronts
from evoae.study.runs.files import whole
from evoae.study.runs.fronts import LOOK, NEXT, Stage, Trained
from evoae.study.runs.merge import joined
from evoae.study.runs.run import Run

OURS = "trajectory"
TRUNK_SHARE = 0.3  # of the steps
ROUNDS = 4  # of the population
TRIED = 0.15  # of a round's steps go to each network that a size tries
KEYS = ["dataset", "way", "steps", "trial", "sparsity"]
MEASURED = [
    *("validation_l1", "test_l1", "constant_test_l1", "dense_test_l1"),
    *("macs", "compact_parameters", "model_steps"),
]


def separate(sizes: Sequence[float]) -> list[Stage]:
    """Each size anew, with the experiment's own schedule and rates."""
    return [Stage(f"alone {s:g}", s, 1.0, {}) for s in (0.0, *sizes)]


def from_dense(sizes: Sequence[float]) -> list[Stage]:
    """One network, trained to the end without pruning and then at each size."""
    names = [f"along {s:g}" for s in (0.0, *sizes)]
    known = zip(names, (0.0, *sizes), [None, *names], strict=False)
    return [Stage(name, s, 1.0, NEXT, before) for name, s, before in known]


def trunk(sizes: Sequence[float]) -> list[Stage]:
    """A trunk takes the more steps to a size the more it prunes, thrice as many to the first one;
    the branches of sparser sizes take a few more.
    """
    dense = 1 / (len(sizes) + 2)
    lengths = [(1 - size) ** -0.1 for size in sizes]
    rest = (1 - dense - TRUNK_SHARE) / sum(lengths)
    pruned = [math.log((1 - a) / (1 - b)) for a, b in pairwise((0.0, *sizes))]
    pruned[0] *= 3
    found, before = [Stage("dense", 0.0, dense, {})], None
    for size, part, length in zip(sizes, pruned, lengths, strict=True):
        name, share = f"trunk {size:g}", TRUNK_SHARE * part / sum(pruned)
        found.append(Stage(name, size, share, LOOK, before, candidate=False))
        found.append(Stage(f"branch {size:g}", size, rest * length, NEXT, name))
        before = name
    return found


def trajectory_or_anew(sizes: Sequence[float]) -> list[Stage]:
    """The stages of `evoae front`, each but the first beside one trained anew, of as many steps."""
    found = fronts.stages(sizes)
    anew = [Stage(f"anew {s.size:g}", s.size, s.share, {}) for s in found if s.begin]
    return found + anew


PLANS = {
    "separate": separate,
    "from-dense": from_dense,
    "trunk": trunk,
    OURS: fronts.stages,
    "trajectory-or-anew": trajectory_or_anew,
}
WAYS = (*PLANS, "population")


def compute(
    e: Experiment,
    way: str,
    sizes: Sequence[float],
    steps: int,
    trials: int,
    seed: int,
    **where: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A front found in one way: a row per trial and sparsity; and who inherited from whom.

    The second table is that of `population`, empty for the others. Sizes that need more than the
    weights are left out. Raises ValueError for an unknown way.
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}; choose from {', '.join(WAYS)}")
    sizes = [size for size in sizes if size < e.most_sparse - 0.01]
    epochs = steps // fronts.steps_of_an_epoch(e)
    lineage: list[dict[str, Any]] = []
    if way in PLANS:
        found = fronts.train(PLANS[way](sizes), e, epochs, trials, seed, **where)
    else:
        found, lineage = in_population(e, sizes, epochs, trials, seed, **where)
    table = found.table.assign(dataset=str(e.dataset), way=way, steps=steps)
    return table, pd.DataFrame(lineage).assign(dataset=str(e.dataset), way=way, steps=steps)


def study(
    data: Sequence[str],
    ways: Sequence[str],
    sizes: Sequence[float],
    budgets: Sequence[int],
    trials: int,
    seed: int,
    **where: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `compute` for all data sets, budgets and ways, with the preset `frontier`."""
    found = [
        compute(
            Experiment.preset("frontier", dataset=dataset), way, sizes, steps, trials, seed, **where
        )
        for dataset, steps, way in product(data, budgets, ways)
    ]
    tables, lineages = zip(*found, strict=True)
    return pd.concat(tables, ignore_index=True), pd.concat(lineages, ignore_index=True)


def in_population(
    e: Experiment, sizes: Sequence[float], epochs: int, trials: int, seed: int, **where: Any
) -> tuple[Trained, list[dict[str, Any]]]:
    """Sizes as cells: try, select, train and prune on, replace; in the last round rates fall.

    A network of a sparser neighbour keeps its zeros.
    """
    every = [0.0, *sizes]
    runs: dict[str, Run] = {}
    plan: list[Stage] = []
    lineage: list[dict[str, Any]] = []
    each = epochs // (ROUNDS * len(every))  # epochs of a size in a round
    length = max(1, round(TRIED * each))

    def train(stages: list[Stage], epochs: int) -> None:
        plan.extend(stages)
        runs.update(fronts.train(stages, e, epochs * len(stages), trials, seed, **where).runs)

    stages = [Stage(f"round 0 {size:g}", size, 1.0, LOOK, None, False) for size in every]
    train(stages, each)
    for number in range(1, ROUNDS):
        last = number == ROUNDS - 1
        before = {stage.size: str(runs[stage.name].folder) for stage in stages}
        tried: dict[float, dict[str, Stage]] = {}
        for size, near in neighbours(every).items():
            tried[size] = {
                whose: Stage(
                    f"round {number} {size:g} from {whose}", size, 1.0,
                    {**LOOK, "initial_weights": before[other]}, None, False,
                )
                for whose, other in near.items()
            }  # fmt: skip
        train([stage for each in tried.values() for stage in each.values()], length)
        stages = []
        for size, given in tried.items():
            losses = pd.DataFrame(
                {w: runs[s.name].trials.set_index("trial").validation_l1 for w, s in given.items()}
            )
            best = losses.fillna(np.inf).idxmin(axis=1)
            lineage += [
                {"round": number, "sparsity": size, "trial": trial, "whose": whose}
                for trial, whose in best.items()
            ]
            start = mixed([runs[given[w].name] for w in best], Path(where["out"]) / "starts")
            settings = {**(NEXT if last else LOOK), "initial_weights": str(start)}
            stages.append(Stage(f"round {number} {size:g}", size, 1.0, settings, None, last))
        train(stages, max(1, each - max(map(len, tried.values())) * length))
    return Trained(plan, runs), lineage


def neighbours(every: Sequence[float]) -> dict[float, dict[str, float]]:
    """Whose networks each size tries: its own, those of the next denser and the next sparser."""
    found: dict[float, dict[str, float]] = {size: {"itself": size} for size in every}
    for dense, sparse in pairwise(every):
        found[sparse]["denser"] = dense
        if dense:  # the dense network takes over none
            found[dense]["sparser"] = sparse
    return found


def mixed(runs: Sequence[Run], folder: Path) -> Path:
    """A start for `initial_weights`: of each trial, from 0 on, its network in the run at its place
    in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [run.population.take([slot]) for slot, run in enumerate(runs)]
    name = hashlib.sha256("".join(run.folder.name for run in runs).encode()).hexdigest()[:16]
    path = folder / f"{name}.safetensors"
    if not path.exists():
        with whole(path) as part:
            population.save(joined(parts, np.arange(len(parts))), part)
    return path


# -- measures ------------------------------------------------------------------------------------


def hypervolume(sparsity: ArrayLike, loss: ArrayLike) -> float:
    """The share of the area between no network at all and a perfect one that a front dominates.

    Kept share and loss, as a multiple of the constant's, both within [0, 1]; the reference point is
    the constant with all parameters. A loss that is nan, or above the constant's, adds nothing.
    """
    order = np.argsort(np.asarray(sparsity))[::-1]
    kept = 1 - np.asarray(sparsity, dtype=float)[order]
    lowest = np.minimum.accumulate(np.nan_to_num(loss, nan=1.0).clip(0, 1)[order])
    return float(((1 - lowest) * np.diff([*kept, 1.0])).sum())


def measures(table: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, way, steps and trial: mean test loss over the sizes, and hypervolume."""
    keys = ["dataset", "steps", "way", "trial"]
    table = table.assign(relative=table.test_l1 / table.constant_test_l1)
    rows = [
        (*names, mean_loss(own.test_l1), hypervolume(own.sparsity, own.relative))
        for names, own in table.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "mean_l1", "hypervolume"])


def tests(found: pd.DataFrame) -> pd.DataFrame:
    """Each way against OURS, by data set at equal steps (`where`).

    All ways at one `where` are a family of Holm's: with ten trials no pair of a family of more than
    25 could be told apart, and all data sets and budgets make 75. `found` is of `measures`.
    """
    at = [f"{d} at {steps:,} steps" for d, steps in zip(found.dataset, found.steps, strict=True)]
    here = found.assign(where=at)
    ours = set(here["where"][here.way == OURS])
    here = here[here["where"].isin(ours)]
    if here.empty:
        return pd.DataFrame(columns=["where", *statistics.COLUMNS, "p_holm"])
    pairs = statistics.compare(here, by="way", value="mean_l1", baseline=OURS, within="where")
    by_place = pairs.groupby("where", sort=False).p
    return pairs.assign(p_holm=by_place.transform(statistics.holm, family=len(WAYS) - 1))
