"""The section of RESULTS.md on fronts: whether evolution helps to find one.

The pairs are fixed: each way of `front_ways` against that of `evoae front`, at equal steps, by mean
test loss over the sizes, PLANNED trials each; and the pairs of `front_ways.BESIDE`. Holm's family
is the pairs at one data set and number of steps, of the ones and of the others. A test is printed
only where a pair has all trials.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from evoae.study.analysis import front_evolution, front_ways, results
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
        f"beginning each size from the next denser one (`{OURS}`) is better than training each "
        "anew",
        "training each size anew is better than beginning from the next denser one",
    ),
    "population": (
        f"the population of sizes, as it is built here, is worse than `{OURS}`",
        f"the population of sizes is better than `{OURS}`",
    ),
    "pbt": (
        f"population-based training of rate, penalty and exchange is worse than `{OURS}`",
        f"population-based training of rate, penalty and exchange is better than `{OURS}`",
    ),
    "nsga-ii": (
        f"non-dominated sorting with crossover of masks is worse than `{OURS}`",
        f"non-dominated sorting with crossover of masks is better than `{OURS}`",
    ),
}
EQUAL = "there is no difference"


def values() -> dict[str, Any]:
    """What the text names."""
    kept = results.front_of_ways()
    every = front_ways.measures(kept)
    found = every[every.steps.isin(BUDGETS)]
    tests, beside = front_ways.tests(found), front_ways.beside(every)
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
        "evolved_rounds": front_evolution.ROUNDS - 1,
        "evolved_drawn": front_evolution.CONFIGURATIONS,
        "ways_ours": OURS,
        "ways_state": state(found),
        "ways_answer": answer(found, tests),
        "ways_found": verdict(tests),
        "ways_table": table([*head, f"way – `{OURS}`", "Holm's p"], lines),
        "beside_found": verdict(beside) or "None of these was run yet.",
        "beside_table": table(
            ["data, steps of b", "a", "b", "mean a", "mean b", "a – b", "Holm's p"],
            [
                (row["where"], named(row["a"]), named(row["b"]), row["mean a"], row["mean b"],
                 *tested(beside.loc[[at]]))
                for at, row in beside[beside.n >= PLANNED].iterrows()
            ],
        ),
    }  # fmt: skip


def state(found: pd.DataFrame) -> str:
    """What has been run, and what is missing of the plan."""
    groups = found.groupby(["dataset", "steps"])
    done: dict[str, dict[str, list[str]]] = {}
    for (dataset, steps), own in groups:
        words = extent(own.trial.nunique(), list(own.way.unique()))
        done.setdefault(words, {}).setdefault(dataset, []).append(f"{steps:,}")
    lines = [f"Run so far: {words}: {steps_of(data)}." for words, data in done.items()]
    left: dict[str, list[str]] = {}
    for name in DATA:
        budgets = [f"{steps:,}" for steps in BUDGETS if (name, steps) not in groups.groups]
        if budgets:
            left[name] = budgets
    lines += [f"Missing: {steps_of(left)}."] if left else []
    return " ".join(lines)


def steps_of(data: dict[str, list[str]]) -> str:
    """Data sets with their numbers of steps."""
    return "; ".join(f"{name} ({listed(budgets)} steps)" for name, budgets in data.items())


def extent(trials: int, ways: list[str]) -> str:
    """How many trials of which ways."""
    without = [f"`{way}`" for way in front_ways.WAYS if way not in ways]
    return f"{trials} trials of all ways" + (f" but {listed(without)}" if without else "")


def named(way: str) -> str:
    """A way, and what is added to its name, in Markdown."""
    name, _, more = way.partition(" ")
    return f"`{name}` {more}".strip()


def answer(found: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Whether evolution helps: what inheriting does, and what selecting among neighbours adds."""
    said = []
    for way, (helps, fails) in SAID.items():
        rows = tests[tests.a == way]
        gap = rows["mean a"].round(3) - rows["mean b"].round(3)
        clear = rows[(rows.n >= PLANNED) & (rows.p_holm < LEVEL)]["shift"]
        counts = {
            helps: ((gap > 0).sum(), (clear > 0).sum()),
            fails: ((gap < 0).sum(), (clear < 0).sum()),
            EQUAL: ((gap == 0).sum(), 0),
        }
        for words, (n, sure) in counts.items():
            clearly = f", significantly in {sure}" if sure else ""
            said += [f"{words} (in {n} of {len(rows)} comparisons{clearly})"] * bool(n)
    if not said:
        return "No way was compared yet."
    few = bool(found.groupby(["dataset", "steps", "way"]).size().min() < PLANNED)
    return (
        f"{raised('; '.join(said))}." + few * " These are means of few trials; nothing was tested."
    )


def verdict(tests: pd.DataFrame) -> str:
    """Where each way has a lower mean loss than the other, and how much of it is significant."""
    said = []
    for (way, other), rows in tests.groupby(["a", "b"], sort=False):
        gap = rows["mean a"].round(3) - rows["mean b"].round(3)  # as they are printed
        lower, higher = list(rows["where"][gap < 0]), int((gap > 0).sum())
        known = rows[rows.n >= PLANNED]
        clear = known[known.p_holm < LEVEL]
        sure = (
            f"significantly lower in {(clear['shift'] < 0).sum()}, higher in "
            f"{(clear['shift'] > 0).sum()}"
        )
        words = f"on {listed(lower)}" if lower else "nowhere"
        said.append(
            f"- {named(way)} has a lower mean loss than {named(other)} {words}, and a higher one "
            f"in {higher} of {len(rows)} comparisons; {sure if len(known) else 'none was tested'}."
        )
    return "\n".join(said)
