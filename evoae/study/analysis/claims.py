"""The paper's claims, the contrasts that would show each, and a verdict that cannot mislead.

The contrasts are declared here, before any run is looked at, and Holm's correction counts all of
them, whatever lies in a folder. The number of trials is fixed, too: the first TRIALS count, and no
others that a run may have. A verdict needs every contrast of its claim, trials enough for that
(`statistics.least`: ten), and networks that learnt something: where the best run of a contrast's
better side is no better than the constant predictor, the contrast says nothing. Runs that are not
of the paper's size give a verdict in words of its own. A claim's controls say what else could
explain it; they are tested with the rest and are not part of the verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from evoae.study.analysis import statistics
from evoae.study.analysis.published import PAPER, dimensions, matching, size
from evoae.study.analysis.sentences import count
from evoae.study.analysis.statistics import LEVEL
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

TRIALS = 15  # more are not counted: trials added after a look change a test's size
MARGIN = 0.01  # in L1: pruned is "as good as" unpruned within it, about 4 % of the paper's losses
READINGS = {"as released": True, "as intended": False}
COLUMNS = ["claim", "role", "reading", "a", "b", "size", "n", "mean a", "mean b", "steps a"]
COLUMNS += ["steps b", "constant", "shift", "low", "high", "a lower in", "p"]
LATE, EARLY = ("exponential", "increase", "final-n", "population"), ("fixed", "decrease")
GUIDED = ("conjunctive", "variance")
WHO = {
    "canonical": ("one", "autoencoder"),
    "lipi-ae-s": ("the", "ring"),
    "one cell": ("one", "cell that is trained as the ring is"),
}


@dataclass(frozen=True)
class Which:
    """Runs that one side of a contrast is about. Operator "variance" follows the reading."""

    algorithm: str
    operator: str = "none"
    schedule: str | None = None
    model: str = "standard"

    def __str__(self) -> str:
        words = [self.algorithm, self.operator, self.schedule, self.model]
        return " ".join(w for w in words if w and w != "standard")

    def in_words(self, when: str = "") -> str:
        """What a sentence calls these runs; `when` stands for several schedules."""
        article, noun = WHO[self.algorithm]
        noun = f"small {noun}" if self.model == "small" else noun
        if self.operator == "none":
            return f"{article} unpruned {noun}"
        when = when or f"under {self.schedule}"
        return f"{article} {noun} pruned by {self.operator} {when}"

    @property
    def settings(self) -> dict[str, str]:
        """Those that tell its runs from others of the algorithm."""
        named = {"operator": self.operator, "model": self.model, "schedule": self.schedule}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Contrast:
    """What is tested: that `a` has the lower loss, trial by trial, by more than -`margin`.

    A side of several runs is their mean in each trial. `best`: a must be lower than each run of b,
    whose largest p counts (intersection and union); that one of them is lower than a is tested with
    Bonferroni's correction. `control`: not part of the claim, but of what else could explain it.
    `name` stands for the side `b` where it is of several runs, and says what a control is for.
    """

    a: tuple[Which, ...]
    b: tuple[Which, ...]
    name: str = ""
    margin: float = 0.0
    best: bool = False
    control: bool = False

    @property
    def sides(self) -> tuple[str, str]:
        """The words for a and for b."""
        if len(self.a) > 1:
            first, _, second = self.name.partition(" – ")
            return first, second
        return str(self.a[0]), self.name if len(self.b) > 1 else str(self.b[0])

    def in_words(self) -> tuple[str, str]:
        """What a sentence calls a and b."""
        if len(self.a) > 1:
            return self.a[0].in_words("late"), self.b[0].in_words("early")
        others = f"the mean of {count(len(self.b))} other schedules"
        return self.a[0].in_words(), others if len(self.b) > 1 else self.b[0].in_words()


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and the contrasts that would show it.

    `needs`: "all" of them, or "any" (where the paper says "one of these operators"). `made_by` are
    the notebooks that run what is contrasted.
    """

    number: int
    text: str
    contrasts: tuple[Contrast, ...]
    made_by: tuple[str, ...]
    needs: str = "all"


def canonical(operator: str = "none", schedule: str = "exponential") -> Which:
    """One autoencoder, trained as usual."""
    return Which("canonical", operator, None if operator == "none" else schedule)


def coevolved(operator: str = "none", schedule: str | None = None) -> Which:
    """The ring of Lipi-AE-S."""
    return Which("lipi-ae-s", operator, schedule)


def contrast(a: Which, b: Which, **settings: Any) -> Contrast:
    """A contrast of two settings."""
    return Contrast((a,), (b,), **settings)


def best_schedule(which: Which) -> Contrast:
    """The schedule of `which` against the mean of the five others."""
    others = [s for s in (*LATE, *EARLY) if s != which.schedule]
    rivals = tuple(replace(which, schedule=schedule) for schedule in others)
    return Contrast((which,), rivals, f"{which.operator}, the other schedules", best=True)


def late_against_early(operator: str) -> Contrast:
    """The mean of the late schedules against that of the early ones, in the ring."""
    late, early = (tuple(coevolved(operator, s) for s in names) for names in (LATE, EARLY))
    return Contrast(late, early, f"lipi-ae-s {operator}, late – early")


RANDOM = coevolved("random", "exponential")
BEST = (RANDOM, coevolved("conjunctive", "final-n"), coevolved("variance", "population"))
SMALL_RANDOM, *SMALL_GUIDED = (replace(which, model="small") for which in BEST)

CLAIMS = (
    Claim(
        1,
        "Alone, one of the guided operators beats random pruning.",
        tuple(contrast(canonical(guided), canonical("random")) for guided in GUIDED),
        ("01_canonical_pruning",),
        needs="any",
    ),
    Claim(
        2,
        "Alone, the autoencoder pruned by conjunctive is as good as the unpruned one.",
        (contrast(canonical("conjunctive"), canonical(), margin=MARGIN),),
        ("01_canonical_pruning",),
    ),
    Claim(
        3,
        "In a population random pruning beats guided pruning.",
        (
            *(contrast(RANDOM, guided) for guided in BEST[1:]),
            contrast(RANDOM, coevolved(), name="does pruning help at all?", control=True),
        ),
        ("02_coevolution_pruning",),
    ),
    Claim(
        4,
        "Guidance pays in low dimensions (here: the small model, coevolved).",
        tuple(contrast(guided, SMALL_RANDOM) for guided in SMALL_GUIDED),
        ("04_capacity",),
        needs="any",
    ),
    Claim(
        5,
        "The schedule exponential is the best for conjunctive (alone) and for random (coevolved), "
        "and late pruning beats early.",
        (
            best_schedule(canonical("conjunctive")),
            best_schedule(RANDOM),
            *(late_against_early(operator) for operator in ("random", *GUIDED)),
        ),
        ("01_canonical_pruning", "03_schedules"),
    ),
    Claim(
        6,
        "Pruning while training beats pruning after, without recovery and with it.",
        tuple(
            contrast(which, coevolved(which.operator, after))
            for which in BEST
            for after in ("prune-after", "prune-once")
        ),
        ("04_capacity",),
    ),
    Claim(
        7,
        "Coevolved training beats canonical training.",
        (
            contrast(coevolved(), canonical()),
            # the same optimiser and rates on both sides: what the population alone does
            contrast(coevolved(), Which("one cell"), name="the population alone?", control=True),
            contrast(
                RANDOM,
                Which("one cell", "random", "exponential"),
                name="the population alone, pruned?",
                control=True,
            ),
        ),
        ("02_coevolution_pruning", "07_readings"),
    ),
)
DECLARED = [(claim.number, one) for claim in CLAIMS for one in claim.contrasts]
FAMILY = len(DECLARED)  # in each reading
IN_WORDS = {one.sides: one.in_words() for _, one in DECLARED}  # by the columns a and b


# -- contrasts -----------------------------------------------------------------------------------


def comparable(runs: Sequence[Run]) -> bool:
    """Whether runs are of one size and seed, and share trials; one cell beside a ring is what
    claim 7 is about.
    """
    if not set.intersection(*(set(run.numbers) for run in runs)):
        return False
    same = ["epochs", "clusters", "bits", "examples"]
    sizes = {(run.config["seed"], *(run.setting(name) for name in same)) for run in runs}
    return len(sizes) == 1 and len({run.setting("cells") for run in runs} - {1}) < 2


def measured(contrast: Contrast, study: Study, as_released: bool) -> dict[str, Any]:
    """Means, budgets, shift and p of a contrast; empty if one of its runs is missing."""
    candidates = [
        matching(study, which.algorithm, as_released, **which.settings)
        for which in (*contrast.a, *contrast.b)
    ]
    fitting = [runs for runs in itertools.product(*candidates) if comparable(runs)]
    if not fitting:
        return {}
    runs = max(fitting, key=lambda runs: min(map(size, runs)))
    trials = [run.trials.set_index("trial") for run in runs]
    # of a trial that some of the runs lack there is no pair; a null is a trial that diverged
    losses = pd.concat([table.train_l1.fillna(np.inf) for table in trials], axis=1, join="inner")
    losses = losses.sort_index().head(TRIALS)
    constant = trials[0].constant_train_l1.loc[losses.index]
    steps = [run.result["model_steps"] / len(run.trials) for run in runs]
    cut = len(contrast.a)
    a, b = losses.iloc[:, :cut].mean(axis=1), losses.iloc[:, cut:].mean(axis=1)
    found = statistics.paired(a, b)
    if contrast.margin:  # the test is of a against b and the margin; the shift shown is a - b
        found["p"] = statistics.shift(statistics.differences(a, b) - contrast.margin).p
    if contrast.best:
        found |= against_each(losses.iloc[:, 0], losses.iloc[:, cut:])
    a_is_better = bool(found.get("lowest", found["shift"] - contrast.margin < 0))
    better = losses.iloc[:, :cut] if a_is_better else losses.iloc[:, cut:]
    best = better.iloc[:, int(better.mean().argmin())]  # of several runs, it may have learnt
    return found | {
        "size": dimensions(max(runs, key=lambda run: run.setting("cells"))),
        "steps a": float(np.mean(steps[:cut])),
        "steps b": float(np.mean(steps[cut:])),
        "constant": float(constant.mean()),
        "learnt": statistics.beats(best, constant),
    }


def against_each(losses: pd.Series, rivals: pd.DataFrame) -> dict[str, Any]:
    """Whether losses are the `lowest`, below each rival's, and the p of that; else that they are
    above one of them.
    """
    each = [statistics.paired(losses, rivals.iloc[:, k]) for k in range(rivals.shape[1])]
    better = [rival["p"] for rival in each if rival["shift"] >= 0]
    p = min(1.0, len(each) * min(better)) if better else max(rival["p"] for rival in each)
    return {"lowest": not better, "p": p}


def comparisons(study: Study) -> pd.DataFrame:
    """Every declared contrast in both readings; `p_holm` is Holm's over FAMILY, in each reading.

    `shift` is the centre of a - b over trials, in final training L1, `low` and `high` its 95 %
    interval; `steps` are model steps of a trial. Null where a run is missing.
    """
    return judged(contrasted(study))


def contrasted(study: Study) -> pd.DataFrame:
    """What a study's runs give for every declared contrast, in both readings, before any verdict.

    COLUMNS, whether the best of the better side `learnt` something, and of a `best` whether it is
    the `lowest`.
    """
    rows = []
    for reading, as_released in READINGS.items():
        for number, one in DECLARED:
            a, b = one.sides
            role = f"control: {one.name}" if one.control else "claim"
            named = {"claim": number, "role": role, "reading": reading, "a": a, "b": b}
            rows.append(named | measured(one, study, as_released))
    return pd.DataFrame(rows, columns=[*COLUMNS, "learnt", "lowest"])


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The contrasts of `contrasted` with Holm's correction in each reading, and what each says."""
    parts = []
    for _, rows in table.groupby("reading", sort=False):
        rows = rows.assign(p_holm=statistics.holm(rows.p.astype(float), FAMILY))
        said = [say(one, row) for (_, one), row in zip(DECLARED, rows.itertuples(), strict=True)]
        parts.append(rows.assign(says=said))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS, "p_holm", "says"]]


def say(one: Contrast, row: Any) -> str:
    """What one contrast says of its claim."""
    if np.isnan(row.shift):
        return "not run"
    if row.n < statistics.least(FAMILY):
        return "too few trials"
    if not row.learnt:
        return "nothing learnt"
    favours = row.shift < one.margin and (not one.best or row.lowest)
    if row.p_holm < LEVEL:
        return "yes" if favours else "no"
    return "open"


# -- verdicts ------------------------------------------------------------------------------------


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """A verdict on each claim in each reading, from `comparisons`; controls are left out."""
    rows = []
    for claim in CLAIMS:
        for reading in READINGS:
            here = table[(table.claim == claim.number) & (table.reading == reading)]
            here = here[here.role == "claim"]
            said = here.says.value_counts(sort=False)
            papers = set(here["size"].dropna()) <= set(PAPER)
            rows.append(
                {
                    "claim": claim.number,
                    "text": claim.text,
                    "reading": reading,
                    "verdict": verdict(list(here.says), claim.needs, papers),
                    "contrasts": ", ".join(f"{n} {word}" for word, n in said.items()),
                }
            )
    return pd.DataFrame(rows)


def verdict(said: list[str], needs: str = "all", papers_size: bool = True) -> str:
    """One word on a claim, from what its contrasts say.

    supported: all (or any, where one suffices) say yes. contradicted: one says no and none yes
    (where one suffices: all say no). mixed: some yes, some no. open: the trials do not say. No
    verdict is given where a contrast was not run or has too few trials; or where nothing was
    learnt, unless the others decide: one yes where one suffices, or else one no.
    """
    for reason in ("not run", "too few trials"):
        if reason in said:
            missing = said.count(reason)
            some = f" ({missing} of {len(said)} contrasts)" if missing < len(said) else ""
            return f"no verdict: {reason}{some}"
    yes, no, empty = (said.count(word) for word in ("yes", "no", "nothing learnt"))
    if needs == "any":
        word = "supported" if yes else "contradicted" if no == len(said) else "open"
        empty = empty and not yes
    else:
        empty = empty and not no
        word = "supported" if yes == len(said) else "mixed" if yes and no else "open"
        word = "contradicted" if no and not yes else word
    if empty:
        return "no verdict: nothing learnt"
    return word if papers_size else f"{word} at another size"
