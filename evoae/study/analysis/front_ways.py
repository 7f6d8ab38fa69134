"""Ways to find a whole front, at equal model steps: what `evoae front` does, and what it does not.

*separate* trains a network of each size anew. *trajectory* is what `evoae front` does: each size
begins from the finished network of the next denser one; *from-dense* begins with the dense network.
*trunk* prunes one network at a constant rate from size to size, and a branch of each size goes on
there, alone, with a falling rate. *trajectory-or-anew* chooses on validation between the
trajectory's network and one trained anew. The other ways are those of `front_evolution`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from evoae.experiment import Experiment
from evoae.study.analysis import statistics
from evoae.study.analysis.front_evolution import (
    ROUNDS,
    Search,
    by_dominance,
    by_random_search,
    in_population,
)
from evoae.study.analysis.statistics import mean_loss
from evoae.study.runs import fronts
from evoae.study.runs.fronts import LOOK, NEXT, Stage, Trained
from evoae.study.runs.sweeps import bar_of

OURS = "trajectory"
TRUNK_SHARE = 0.3  # of the steps
KEYS = ["dataset", "way", "steps", "trial", "sparsity"]
GROUP = ["dataset", "steps", "way"]
MEASURED = [
    *("validation_l1", "test_l1", "constant_test_l1", "dense_test_l1"),
    *("macs", "compact_parameters", "model_steps"),
]


def separate(sizes: Sequence[float]) -> list[Stage]:
    """Each size anew, with the experiment's own schedule and rates."""
    return [Stage(f"alone {s}", s, 1.0, {}) for s in (0.0, *sizes)]


def from_dense(sizes: Sequence[float]) -> list[Stage]:
    """One network, trained to the end without pruning and then at each size."""
    names = [f"along {s}" for s in (0.0, *sizes)]
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
        name, share = f"trunk {size}", TRUNK_SHARE * part / sum(pruned)
        found.append(Stage(name, size, share, LOOK, before, candidate=False))
        found.append(Stage(f"branch {size}", size, rest * length, NEXT, name))
        before = name
    return found


def trajectory_or_anew(sizes: Sequence[float]) -> list[Stage]:
    """The stages of `evoae front`, each but the first beside one trained anew, of as many steps."""
    found = fronts.stages(sizes)
    anew = [Stage(f"anew {s.size}", s.size, s.share, {}) for s in found if s.begin]
    return found + anew


PLANS = {
    "separate": separate,
    "from-dense": from_dense,
    "trunk": trunk,
    OURS: fronts.stages,
    "trajectory-or-anew": trajectory_or_anew,
}
EVOLVED: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "population": partial(in_population, tunes=False),
    "pbt": partial(in_population, tunes=True),
    "random-search": by_random_search,
    "nsga-ii": by_dominance,
}
WAYS = (*PLANS, *EVOLVED)
# Further pairs: a way, its steps in words and as a share of the other's, and the other. Where sizes
# are trained side by side, a second core gives at most twice the steps in the same time.
TWICE = " with twice the steps"
BESIDE = (
    ("pbt", "", Fraction(1), "population"),
    ("pbt", "", Fraction(1), "random-search"),
    ("separate", TWICE, Fraction(2), OURS),
    ("population", TWICE, Fraction(2), OURS),
    ("separate", " with 80,000 steps for each size", Fraction(560, 180), OURS),
)


def compute(
    e: Experiment,
    way: str,
    sizes: Sequence[float],
    steps: int,
    trials: int,
    seed: int,
    *,
    progress: bool = True,
    **where: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A front found in one way: a row per trial and sparsity; and who inherited from whom.

    The second table is that of `population` and `pbt`, empty for the others. Sizes that need more
    than the weights are left out. Raises ValueError for an unknown way, and for too few steps.
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}; choose from {', '.join(WAYS)}")
    sizes = [size for size in sizes if size < e.most_sparse - 0.01]
    epochs = steps // fronts.steps_of_an_epoch(e)
    lineage: list[dict[str, Any]] = []
    if way in PLANS:
        found = fronts.train(PLANS[way](sizes), e, epochs, trials, seed, progress, **where)
        table = found.table
    else:
        least = ROUNDS * (len(sizes) + 1) * fronts.steps_of_an_epoch(e)
        if steps < least:
            raise ValueError(f"steps={steps} are too few for {way}, which takes at least {least}")
        tables = []
        with bar_of(epochs * trials, progress) as bar:
            for trial in range(trials):
                search = Search(e, trial, seed, bar, where)
                lineage += EVOLVED[way](search, sizes, epochs)
                tables.append(Trained(search.plan, search.runs).table)
        table = pd.concat(tables).sort_values(["sparsity", "trial"], ignore_index=True)
    known = {"dataset": str(e.dataset), "way": way, "steps": steps}
    return table.assign(**known), pd.DataFrame(lineage).assign(**known)


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
    table = table.assign(relative=table.test_l1 / table.constant_test_l1)
    rows = [
        (*names, mean_loss(own.test_l1), hypervolume(own.sparsity, own.relative))
        for names, own in table.groupby([*GROUP, "trial"], sort=False)
    ]
    return pd.DataFrame(rows, columns=[*GROUP, "trial", "mean_l1", "hypervolume"])


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


def beside(found: pd.DataFrame) -> pd.DataFrame:
    """The pairs of BESIDE, trial by trial, as `tests`; those at one `where` are a family."""
    samples = {key: own.set_index("trial").mean_l1 for key, own in found.groupby(GROUP)}
    rows = []
    for way, words, times, other in BESIDE:
        for dataset, steps, _ in (key for key in samples if key[2] == other):
            a = samples.get((dataset, times * steps, way))
            if a is not None:
                row = statistics.paired(a, samples[dataset, steps, other])
                names = {"a": way + words, "b": other}
                rows.append({"where": f"{dataset} at {steps:,} steps"} | names | row)
    pairs = pd.DataFrame(rows, columns=["where", *statistics.COLUMNS])
    by_place = pairs.groupby("where", sort=False).p
    return pairs.assign(p_holm=by_place.transform(statistics.holm, family=len(BESIDE)))
