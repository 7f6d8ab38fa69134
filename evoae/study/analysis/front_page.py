"""The section of RESULTS.md on fronts: whether evolution helps to find one.

The pairs are fixed: each way of `front_ways` against that of `evoae front`, at equal steps, by mean
test loss over the sizes, PLANNED trials each. Holm's family is the ways at one data set and number
of steps. A test is printed only where a pair has all trials.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from evoae.study.analysis import front_ways, results
from evoae.study.analysis.front_ways import OURS
from evoae.study.analysis.frontier_page import probability, shifted
from evoae.study.analysis.markdown import number, table
from evoae.study.analysis.sentences import listed, raised
from evoae.study.analysis.statistics import LEVEL

PLANNED = 10  # trials of every way, fixed beforehand
DATA = ("binary-clusters", "digits", "mnist_5k", "lfw_subset", "breast_cancer")
SPARSITIES = (0.5, 0.8, 0.9, 0.92, 0.94, 0.96)
BUDGETS = (60_000, 180_000, 480_000)
# a way, and what it means that OURS has a lower mean loss than it, or a higher one
SAID = {
    "separate": ("inheriting from the next denser size helps", "training each size anew is better"),
    "population": (
        "selection in a population of sizes does not pay",
        "a population of sizes is better",
    ),
}
EQUAL = "there is no difference"
UNTESTED = "none was tested"


def values() -> dict[str, Any]:
    """What the text names."""
    kept = results.front_of_ways()
    found = front_ways.measures(kept)
    tested = front_ways.tests(found).set_index(["where", "a"])
    lines = []
    for (dataset, steps), rows in found.groupby(["dataset", "steps"]):
        for way, own in rows.groupby("way", sort=False):
            here = kept[(kept.dataset == dataset) & (kept.steps == steps) & (kept.way == way)]
            taken = here.model_steps.sum() / here.trial.nunique()
            line = [dataset, f"{steps:,}", f"`{way}`", f"{taken:,.0f}", len(own)]
            line += [number(own.mean_l1.mean()), number(own.hypervolume.mean())]
            key = (f"{dataset} at {steps:,} steps", way)
            if key in tested.index and tested.n[key] >= PLANNED:
                row = tested.loc[key]
                line += [shifted(row), probability(row.p_holm)]
            else:
                line += ["–", "–"]
            lines.append(line)
    head = ["data", "steps", "way", "taken", "trials", "mean loss", "hypervolume"]
    return {
        "ways_planned": PLANNED,
        "ways_ours": OURS,
        "ways_state": state(found),
        "ways_answer": answer(found),
        "ways_found": verdict(found),
        "ways_table": table([*head, f"way – `{OURS}`", "Holm's p"], lines),
    }


def state(found: pd.DataFrame) -> str:
    """What has been run, and what is missing of the plan."""
    groups = found.groupby(["dataset", "steps"])
    done = [
        f"{d} at {s:,} steps ({extent(g.trial.nunique(), list(g.way.unique()))})"
        for (d, s), g in groups
    ]
    left = []
    for name in DATA:
        budgets = [f"{steps:,}" for steps in BUDGETS if (name, steps) not in groups.groups]
        if budgets:
            every = len(budgets) == len(BUDGETS)
            left.append(f"{name}, {'all steps' if every else listed(budgets)}")
    words = f"Run so far: {listed(done)}." if done else "Nothing was run so far."
    return words + (f" Missing: {'; '.join(left)}." if left else "")


def extent(trials: int, ways: list[str]) -> str:
    """How many trials of which ways."""
    which = "all ways" if set(ways) == set(front_ways.WAYS) else listed(ways)
    return f"{trials} trials of {which}"


def answer(found: pd.DataFrame) -> str:
    """Whether evolution helps: what inheriting does, and what selecting among neighbours adds."""
    tested = front_ways.tests(found)
    said = []
    for way, (helps, fails) in SAID.items():
        rows = tested[tested.a == way]
        gap = rows["mean a"] - rows["mean b"]
        counts = {helps: (gap > 0).sum(), fails: (gap < 0).sum(), EQUAL: (gap == 0).sum()}
        said += [f"{words} (in {n} of {len(rows)} comparisons)" for words, n in counts.items() if n]
    if not said:
        return "No way was compared yet."
    few = bool(found.groupby(["dataset", "steps", "way"]).size().min() < PLANNED)
    return (
        f"{raised('; '.join(said))}." + few * " These are means of few trials; nothing was tested."
    )


def verdict(found: pd.DataFrame) -> str:
    """Where each way has a lower mean loss than OURS, and how much of it is significant."""
    tested = front_ways.tests(found)
    said = []
    for way, rows in tested.groupby("a", sort=False):
        lower = list(rows["where"][rows["mean a"] < rows["mean b"]])
        higher = int((rows["mean a"] > rows["mean b"]).sum())
        known = rows[rows.n >= PLANNED]
        sure = f"significant: {(known.p_holm < LEVEL).sum()}" if len(known) else UNTESTED
        words = f"on {listed(lower)}" if lower else "nowhere"
        said.append(
            f"- `{way}` has a lower mean loss than `{OURS}` {words}, and a higher one in "
            f"{higher} of {len(rows)} comparisons; {sure}."
        )
    return "\n".join(said)
