"""Are pruned positions spread evenly over a layer? The paper's explanation, put to the test.

The paper explains why random pruning suits a population (claim 4 of the study): pruning one small
space at random strays from uniform, and a population restores it. A pool of many networks has more
pruned positions, so its distance to uniform is smaller whatever a population does. Every distance
is therefore measured beside the one that uniform positions of the same number would have.

The uniform null: in each network on its own, the pruned weights of a layer are a uniform sample,
without replacement, of as many positions. Positions are weights that are zero now; biases are left
out, as there is one per unit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from evoae.networks.activations import layer_names
from evoae.study.analysis.sentences import Answer, count, raised
from evoae.study.analysis.statistics import LEVEL, holm, paired, require_columns

if TYPE_CHECKING:
    from evoae.study.runs.study import Study

AXES = {"unit": 1, "input": 2}  # of [networks, out, in]
LEAST = 5  # positions expected per bin (or left), where the chi-square distribution is close enough
CLOSER, FURTHER = "population closer to uniform", "population further from uniform"
KEYS = ["label", "scope", "layer", "axis"]
MEASURED = ["zeros", "distance", "expected", "ratio", "unevenness"]


@dataclass(frozen=True)
class Departure:
    """How far positions are from uniform.

    `zeros`: their number; `distance` in [0, 1]: the share of them that would have to move;
    `expected`: its mean under the null; `ratio`: distance / expected, 1 when as uniform as chance
    allows; `unevenness`: the mean square of a bin's relative deviation from an even share, less
    what chance adds (0 under the null, and of one size whatever the number of positions, where a
    ratio grows with it); `p`: of the chi-square test. nan where there are too few positions.
    """

    zeros: int
    distance: float
    expected: float
    ratio: float
    unevenness: float
    p: float


def departure(zeros: ArrayLike, axis: str) -> Departure:
    """Distance to uniform of the zeros [networks, out, in] (bool), pooled over the networks.

    Along `axis`, "unit" (rows) or "input" (columns), in bins that hold a unit each, or neighbours
    where `LEAST` positions per bin need it. Raises ValueError for another axis.
    """
    if axis not in AXES:
        raise ValueError(f"unknown axis {axis!r}; choose one of {', '.join(AXES)}")
    zeros = np.asarray(zeros, dtype=bool)
    along = AXES[axis]
    counts = zeros.sum(tuple({0, 1, 2} - {along}))
    each, size = zeros.sum((1, 2)), zeros[0].size
    total = int(each.sum())
    # Where most is pruned it is the weights left that are few.
    bins = min(len(counts), min(total, zeros.size - total) // LEAST)
    # Drawn without replacement: the more of a layer is pruned, the less can a count vary.
    spread = float((each * (size - each)).sum() / max(1, size - 1))
    if bins < 2 or spread == 0:
        return Departure(total, *[np.nan] * 5)
    edges = np.linspace(0, len(counts), bins, endpoint=False).astype(int)
    share = np.diff([*edges, len(counts)]) / len(counts)
    excess = np.add.reduceat(counts, edges) - total * share
    distance = np.abs(excess).sum() / total / 2
    # The mean absolute value of a normal variable is sqrt(2 / pi) standard deviations.
    expected = np.sqrt(share * (1 - share) * spread * 2 / np.pi).sum() / total / 2
    squares = (excess**2 / share).sum()
    return Departure(
        zeros=total,
        distance=float(distance),
        expected=float(expected),
        ratio=float(distance / expected),
        unevenness=float((squares - spread * (bins - 1)) / total**2),
        p=float(stats.chi2.sf(squares / spread, bins - 1)),
    )


def shared(zeros: ArrayLike) -> Departure:
    """Positions that pairs of networks share, of zeros [networks, out, in]; one or more pairs.

    `distance` is the share of a network's positions that another has too, `expected` that of
    independent networks, `ratio` the one by the other, `unevenness` the ratio less 1, and `p`
    two-sided, by the normal approximation of the sum over pairs.
    """
    flat = np.asarray(zeros, dtype=bool)
    flat = flat.reshape(len(flat), -1)
    each, size, pairs = flat.sum(1).astype(float), flat.shape[1], math.comb(len(flat), 2)
    cover = flat.sum(0)
    found = float((cover * (cover - 1)).sum() / 2)
    expected = over_pairs(each) / size  # of a pair: the mean of a hypergeometric variable
    variance = over_pairs(each * (size - each)) / size**2 / max(1, size - 1)
    if not pairs or variance == 0:
        return Departure(int(each.sum()), *[np.nan] * 5)
    ratio, z = found / expected, (found - expected) / np.sqrt(variance)
    p = float(2 * stats.norm.sf(abs(z)))
    per_pair = pairs * each.mean()
    return Departure(int(each.sum()), found / per_pair, expected / per_pair, ratio, ratio - 1, p)


def over_pairs(values: np.ndarray) -> float:
    """Sum over pairs of the product of their values [n]."""
    return float(values.sum() ** 2 - (values**2).sum()) / 2


def measure(study: Study) -> pd.DataFrame:
    """Departures from uniform of every run, trial and layer, with the settings that differ.

    `scope` is "network" (a row per cell), or "population" (all cells of a trial pooled, `cell` is
    -1). Axis "shared" has the positions that pairs of a population's cells share.
    """
    rows = []
    for label, run in study.runs.items():
        names = layer_names(run.population)
        layers = [weight == 0 for side in run.population.sides for weight, _ in side.layers()]
        cells = run.config["experiment"]["cells"]
        for trial in run.numbers:
            first = run.index(trial, 0)
            for name, layer in zip(names, layers, strict=True):
                zeros = layer[first : first + cells].numpy()
                where = {"label": label, "trial": trial, "layer": name}
                pool = {"scope": "population", "cell": -1}
                rows.append(where | pool | {"axis": "shared"} | asdict(shared(zeros)))
                for axis in AXES:
                    rows.append(where | pool | {"axis": axis} | asdict(departure(zeros, axis)))
                    for cell in range(cells):
                        one = {"scope": "network", "cell": cell, "axis": axis}
                        rows.append(where | one | asdict(departure(zeros[[cell]], axis)))
    return pd.DataFrame(rows).merge(study.settings.reset_index(), on="label")


def by_trial(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the cells of each trial, of the table of `measure`; null if none was measured.

    `rejected` is the share of the networks (or pools) that are not uniform at p < 0.05: under the
    null it is 5 %.
    """
    require_columns(table, [*KEYS, "trial", *MEASURED, "p"])
    settings = [c for c in table if c not in {*KEYS, "trial", "cell", *Departure.__annotations__}]
    rejected = (table.p < LEVEL).where(table.p.notna()).astype(float)
    grouped = table.assign(rejected=rejected).groupby(
        [*KEYS, *settings, "trial"], sort=False, as_index=False, dropna=False
    )
    return grouped[[*MEASURED, "rejected"]].mean()


def contrasts(trials: pd.DataFrame, by: str = "cells") -> pd.DataFrame:
    """Is a population closer to uniform than one network? A test per scope, layer and axis.

    `trials` is a table of `by_trial` whose runs differ in `by` alone: its largest value (a) with
    its smallest (b), trial by trial, by `unevenness`; Holm's family is all rows that such a table
    declares (two scopes, two axes, each layer). `shift` is a - b with its 95 % interval, `rejected`
    the shares that are not uniform by their own test, and `finding` says what p_holm allows to say.
    """
    require_columns(trials, ["trial", "scope", "layer", "axis", by, "unevenness", "rejected"])
    small, large = trials[by].min(), trials[by].max()
    ends = trials[trials[by].isin([small, large]) & trials.axis.isin(list(AXES))]
    rows = []
    for names, group in ends.groupby(["scope", "layer", "axis"], sort=False):
        if group[by].nunique() == 2:
            measured = group.dropna(subset=["unevenness"]).set_index("trial")
            a, b = (measured[measured[by] == end].unevenness for end in (large, small))
            found = paired(a, b)
            row = dict(zip(["scope", "layer", "axis"], names, strict=True)) | {"n": found["n"]}
            for end, mean in ((small, found["mean b"]), (large, found["mean a"])):
                row[f"unevenness, {by} {end}"] = mean
                row[f"rejected, {by} {end}"] = group[group[by] == end].rejected.mean()
            rows.append(row | {name: found[name] for name in ("shift", "low", "high", "p")})
    if not rows:
        raise ValueError(f"no layer was measured both with {by} {small} and with {by} {large}")
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    return table.assign(finding=[finding(row) for row in table.itertuples()])


def finding(row: Any) -> str:
    """What a contrast of a population (a) with one network (b) allows to say."""
    if np.isnan(row.p):
        return "too few trials"
    if row.p_holm >= LEVEL:
        return "no difference shown"
    return CLOSER if row.shift < 0 else FURTHER


def verdict(table: pd.DataFrame) -> Answer:
    """What a table of `contrasts` says of the paper's explanation.

    It is supported where some contrasts find a population closer to uniform and none further.
    """
    counts = table.finding.value_counts()
    closer, further = int(counts.get(CLOSER, 0)), int(counts.get(FURTHER, 0))
    if (table.finding == "too few trials").all():
        trials = count(int(table.n.max()), "trial")
        return Answer(
            "The paper's explanation gets no verdict: too few trials were run.",
            f"With {trials} of a population and of one network, no difference can be significant.",
        )
    words = {
        (True, False): "is supported",
        (False, True): "is contradicted",
        (True, True): "is supported in part and contradicted in part",
        (False, False): "remains open",
    }[closer > 0, further > 0]
    trials = count(int(table.n.max()), "paired trial")
    return Answer(
        f"The paper's explanation {words}: of {count(len(table), 'comparison')} with one network, "
        f"{count(closer)} find the pruned positions of a population closer to uniform and "
        f"{count(further)} further from it.",
        f"{raised(trials)}, signed-rank tests, Holm's correction over all comparisons.",
    )
