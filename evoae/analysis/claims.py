"""The paper's claims, each with the comparisons that would show it, and a verdict with its test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from evoae.analysis import statistics
from evoae.analysis.published import dimensions, matching, size
from evoae.runs.run import Run
from evoae.runs.study import Study

MARGIN = 0.01  # in L1: pruned is "as good as" unpruned within it, about 4 % of the paper's losses
LEVEL = 0.05
LEAST = 6  # trials: with fewer no signed-rank test can reach LEVEL, and an interval says little
COLUMNS = ["claim", "reading", "a", "b", "size", "n", "mean a", "mean b", "difference"]
COLUMNS += ["low", "high", "favours_a", "a12", "test", "p"]
LATE, EARLY = ("exponential", "increase", "final-n", "population"), ("fixed", "decrease")


@dataclass(frozen=True)
class Which:
    """What one side of a comparison is about. Operator "variance" follows the reading."""

    algorithm: str
    operator: str = "none"
    schedule: str | None = None
    model: str = "standard"

    def __str__(self) -> str:
        words = [self.algorithm, self.operator, self.schedule, self.model]
        return " ".join(w for w in words if w and w != "standard")

    def matching(self, study: Study, as_released: bool) -> list[Run]:
        schedule = {"schedule": self.schedule} if self.schedule else {}
        return matching(
            study, self.algorithm, as_released, operator=self.operator, model=self.model, **schedule
        )


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and pairs of which it says the first has the lower loss.

    `equivalent`: it says instead that the first is as good as the second, within MARGIN.
    """

    number: int
    text: str
    pairs: tuple[tuple[Which, Which], ...]
    equivalent: bool = False


def canonical(operator: str = "none", schedule: str = "exponential") -> Which:
    return Which("canonical", operator, None if operator == "none" else schedule)


def coevolved(operator: str = "none", schedule: str | None = None) -> Which:
    return Which("lipi-ae-s", operator, schedule)


RANDOM = coevolved("random", "exponential")
BEST = (RANDOM, coevolved("conjunctive", "final-n"), coevolved("variance", "population"))
OPERATORS = ("random", "conjunctive", "variance")

CLAIMS = (
    Claim(
        1,
        "In canonical training an activation-guided operator beats random pruning.",
        tuple((canonical(guided), canonical("random")) for guided in OPERATORS[1:]),
    ),
    Claim(
        2,
        "Canonically, the pruned autoencoder is as good as the unpruned one.",
        ((canonical("conjunctive"), canonical()),),
        equivalent=True,
    ),
    Claim(
        3,
        "In coevolution random pruning beats guided pruning.",
        tuple((RANDOM, guided) for guided in BEST[1:]),
    ),
    Claim(
        4,
        "Guidance pays in low dimensions (here: the small model, coevolved).",
        tuple(
            (replace(guided, model="small"), replace(RANDOM, model="small")) for guided in BEST[1:]
        ),
    ),
    Claim(
        5,
        "The best pairs are conjunctive with exponential (canonical) and random with exponential "
        "(coevolved), and late pruning beats early.",
        (
            *((canonical("conjunctive"), canonical("conjunctive", s)) for s in (*LATE[1:], *EARLY)),
            *((RANDOM, coevolved("random", s)) for s in (*LATE[1:], *EARLY)),
            *((coevolved(o, "increase"), coevolved(o, "decrease")) for o in OPERATORS),
        ),
    ),
    Claim(
        6,
        "Pruning while training beats pruning after.",
        tuple((which, coevolved(which.operator, "prune-after")) for which in BEST),
    ),
    Claim(
        7,
        "Coevolved training beats canonical training.",
        (
            (coevolved(), canonical()),
            # the same optimiser and rates on both sides: what the population alone does
            (coevolved(), Which("one cell")),
            (RANDOM, Which("one cell", "random", "exponential")),
        ),
    ),
)


def comparable(first: Run, second: Run) -> bool:
    """Whether two runs are of one size; one cell beside a ring is what claim 7 is about."""
    same = ["epochs", "clusters", "bits", "examples"]
    if first.setting("cells") > 1 and second.setting("cells") > 1:
        same.append("cells")
    return all(first.setting(name) == second.setting(name) for name in same)


def final_losses(first: Run, second: Run) -> tuple[pd.Series, pd.Series, bool]:
    """Final train L1 of two runs, and whether they are paired: of the same trials and seed."""
    a, b = (run.trials.set_index("trial").train_l1 for run in (first, second))
    shared = a.index.intersection(b.index)
    if first.config["seed"] == second.config["seed"] and len(shared) == min(len(a), len(b)):
        return a[shared], b[shared], True
    return a, b, False


def compared(claim: Claim, first: Which, second: Which, study: Study, as_released: bool) -> dict:
    """One row: a claim's comparison, its effect and p; without numbers if a run is missing."""
    row: dict[str, Any] = {
        "claim": claim.number,
        "reading": "as released" if as_released else "as intended",
        "a": str(first),
        "b": str(second),
    }
    candidates = [which.matching(study, as_released) for which in (first, second)]
    pairs = [pair for pair in itertools.product(*candidates) if comparable(*pair)]
    if not pairs:
        return row
    best = max(pairs, key=lambda pair: min(map(size, pair)))
    a, b, paired = final_losses(*best)
    table = pd.concat({"a": a, "b": b}, names=["group"]).rename("loss").reset_index()
    paired_by = "trial" if paired else None
    test = statistics.compare(table, by="group", value="loss", paired_by=paired_by).iloc[0]
    low, high = statistics.bootstrap_interval(a - b) if paired else (np.nan, np.nan)
    return row | {
        "size": dimensions(min(best, key=size)),
        "n": min(len(a), len(b)),
        "mean a": test.mean_a,
        "mean b": test.mean_b,
        "difference": test.mean_a - test.mean_b,
        "low": low,
        "high": high,
        "favours_a": np.median(a - b) < 0 if paired else test.a12 < 0.5,
        "a12": test.a12,
        "test": test.test,
        "p": test.p,
    }


def comparisons(study: Study) -> pd.DataFrame:
    """Every comparison of every claim, in both readings, corrected by Holm over each reading.

    `difference` is of mean final training L1, a - b; `low` and `high` its 95 % bootstrap interval
    where trials are paired by seed.
    """
    readings = []
    for as_released in (True, False):
        rows = [
            compared(claim, a, b, study, as_released) for claim in CLAIMS for a, b in claim.pairs
        ]
        table = pd.DataFrame(rows, columns=COLUMNS)
        readings.append(table.assign(p_holm=statistics.holm(table.p.astype(float))))
    table = pd.concat(readings, ignore_index=True)
    equivalent = {claim.number for claim in CLAIMS if claim.equivalent}
    table["says"] = [say(row, row.claim in equivalent) for row in table.itertuples()]
    return table


def say(row: Any, equivalent: bool) -> str:
    """What one comparison says of its claim."""
    if np.isnan(row.difference):
        return "not run"
    shown = row.p_holm < LEVEL
    if equivalent:
        if row.n >= LEAST and row.high < MARGIN:
            return "yes"  # as good, or better
        return "no" if row.n >= LEAST and shown and row.difference > MARGIN else "open"
    # the direction of the rank test, which a few collapsed trials do not turn as they do a mean
    if shown:
        return "yes" if row.favours_a else "no"
    return "tends to yes" if row.favours_a else "tends to no"


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """A verdict on each claim in each reading, from `comparisons`, with the counts behind it.

    supported: every comparison says yes; contradicted: none does, and one says no; mixed: some say
    yes and some no; open: too few trials to say. Comparisons that were not run do not count.
    """
    rows, texts = [], {claim.number: claim.text for claim in CLAIMS}
    for (number, reading), group in table.groupby(["claim", "reading"], sort=False):
        said = group.says[group.says != "not run"]
        rows.append(
            {
                "claim": number,
                "text": texts[number],
                "reading": reading,
                "verdict": verdict(list(said)),
                "comparisons": f"{len(said)} of {len(group)}",
                "says": ", ".join(f"{n} {word}" for word, n in said.value_counts().items()),
                "largest p (Holm)": group.p_holm.max(),
            }
        )
    return pd.DataFrame(rows).sort_values(
        ["claim", "reading"], ascending=[True, False], ignore_index=True
    )


def verdict(said: list[str]) -> str:
    if not said:
        return "not run"
    if all(word == "yes" for word in said):
        return "supported"
    if "no" in said and "yes" in said:
        return "mixed"
    if "no" in said:
        return "contradicted"
    if "yes" in said:
        return "supported in part"
    return f"open, {said[0]}" if len(set(said)) == 1 and said[0] != "open" else "open"
