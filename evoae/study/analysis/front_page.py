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
from evoae.study.analysis.markdown import table, tested
from evoae.study.analysis.sentences import listed, raised
from evoae.study.analysis.statistics import LEVEL

PLANNED = 10  # trials of every way, fixed beforehand
DATA = ("binary-clusters", "digits", "mnist_5k", "lfw_subset", "breast_cancer")
SPARSITIES = (0.5, 0.8, 0.9, 0.92, 0.94, 0.96)
BUDGETS = (60_000, 180_000, 480_000)
# a way, and what it means that OURS has a lower mean loss than it, or a higher one
SAID = {
    "separate": (
        "beginning each size from the next denser one is better than training each anew",
        "training each size anew is better than beginning from the next denser one",
    ),
    "population": (
        f"the population of sizes, as it is built here, is worse than `{OURS}`",
        f"the population of sizes is better than `{OURS}`",
    ),
}
EQUAL = "there is no difference"


def values() -> dict[str, Any]:
    """What the text names."""
    kept = results.front_of_ways()
    found = front_ways.measures(kept)
    tests = front_ways.tests(found)
    groups = kept.groupby(["dataset", "steps", "way"])
    taken = groups.model_steps.sum() / groups.trial.nunique()
    lines = []
    for key, own in found.groupby(["dataset", "steps", "way"]):
        dataset, steps, way = key
        line = [dataset, f"{steps:,}", f"`{way}`", f"{taken[key]:,.0f}", len(own)]
        line += [own.mean_l1.mean(), own.hypervolume.mean()]
        here = (tests["where"] == f"{dataset} at {steps:,} steps") & (tests.a == way)
        lines.append([*line, *tested(tests[here & (tests.n >= PLANNED)])])
    head = ["data", "steps", "way", "taken", "trials", "mean loss", "hypervolume"]
    return {
        "ways_planned": PLANNED,
        "ways_ours": OURS,
        "ways_state": state(found),
        "ways_answer": answer(found, tests),
        "ways_found": verdict(tests),
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


def answer(found: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Whether evolution helps: what inheriting does, and what selecting among neighbours adds."""
    said = []
    for way, (helps, fails) in SAID.items():
        rows = tests[tests.a == way]
        gap = rows["mean a"] - rows["mean b"]
        counts = {helps: (gap > 0).sum(), fails: (gap < 0).sum(), EQUAL: (gap == 0).sum()}
        said += [f"{words} (in {n} of {len(rows)} comparisons)" for words, n in counts.items() if n]
    if not said:
        return "No way was compared yet."
    few = bool(found.groupby(["dataset", "steps", "way"]).size().min() < PLANNED)
    return (
        f"{raised('; '.join(said))}." + few * " These are means of few trials; nothing was tested."
    )


def verdict(tests: pd.DataFrame) -> str:
    """Where each way has a lower mean loss than OURS, and how much of it is significant."""
    said = []
    for way, rows in tests.groupby("a", sort=False):
        lower = list(rows["where"][rows["mean a"] < rows["mean b"]])
        higher = int((rows["mean a"] > rows["mean b"]).sum())
        known = rows[rows.n >= PLANNED]
        clear = known[known.p_holm < LEVEL]
        sure = (
            f"significantly lower in {(clear['shift'] < 0).sum()}, higher in "
            f"{(clear['shift'] > 0).sum()}"
        )
        words = f"on {listed(lower)}" if lower else "nowhere"
        said.append(
            f"- `{way}` has a lower mean loss than `{OURS}` {words}, and a higher one in "
            f"{higher} of {len(rows)} comparisons; {sure if len(known) else 'none was tested'}."
        )
    return "\n".join(said)
