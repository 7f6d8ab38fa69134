"""Sentences made from numbers: what was found, in words first and numbers after; how sure that is.

Whatever is compared, the lowest is looked for among all sides, the baseline included; losses that
are equal to three decimals are called equal, and a loss that is not finite is said to diverge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evoae.study.analysis.statistics import LEAST, LEVEL, least

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MOST = 4  # names that a sentence lists; of more it counts
NAMES = {"none": "no pruning"}  # what a sentence calls a setting


@dataclass(frozen=True)
class Answer:
    """What was found, and how sure that is: a line each."""

    found: str
    sure: str = ""

    def __str__(self) -> str:
        return f"{self.found} {self.sure}".strip()


def joined(answers: Mapping[str, Answer]) -> Answer:
    """Several answers as one: each after what it is about, which is how its sentence begins."""
    found = " ".join(f"{about}, {lowered(one.found)}" for about, one in answers.items())
    return Answer(found, " ".join(dict.fromkeys(one.sure for one in answers.values())))


# -- words ---------------------------------------------------------------------------------------


def count(number: int, noun: str = "") -> str:
    """A number, in words up to ten, with its noun: "six trials"."""
    word = WORDS[number] if 0 <= number < len(WORDS) else f"{number:,}"
    ending = "" if not noun or number == 1 else "es" if noun.endswith("s") else "s"
    return f"{word} {noun}{ending}".strip()


def listed(names: Iterable[object]) -> str:
    """Names in a row: "a, b and c"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def raised(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def lowered(text: str) -> str:
    """The text as it continues a sentence."""
    return text[:1].lower() + text[1:]


def decimals(number: float, signed: bool = False) -> str:
    """A loss to three decimals; zero has no sign."""
    text = f"{number:+.3f}" if signed else f"{number:.3f}"
    return text[1:] if text in ("+0.000", "-0.000") else text


def interval(low: float, high: float, signed: bool = False) -> str:
    """An interval in brackets, after a space; nothing where an end is not known or infinite."""
    if not np.isfinite([low, high]).all():
        return ""
    return f" [{decimals(low, signed)}, {decimals(high, signed)}]"


def change(value: float, low: float, high: float) -> str:
    """A change with its sign and its interval: "-0.012 [-0.020, -0.004]"."""
    if not np.isfinite(value):
        return "not measured" if np.isnan(value) else "infinite"
    return decimals(value, signed=True) + interval(low, high, signed=True)


def probability(p: float) -> str:
    """A p-value: "p = 0.020"."""
    return "not tested" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# -- two sides -----------------------------------------------------------------------------------


def by(row: Any, a: str, b: str) -> str:
    """How far two sides of a row of `statistics.compare` are apart, without a sign."""
    if not np.isfinite(row.shift):
        return f"because {a if row.shift > 0 else b} diverged"
    low, high = sorted([row.low, row.high]) if row.shift > 0 else (-row.high, -row.low)
    return f"by {decimals(abs(row.shift))}{interval(low, high)}"


def relation(row: Any, a: str, b: str, value: str) -> tuple[str, str]:
    """How `a` and `b` stand to each other, and the number that says so: of a row of shift (a - b),
    low and high.
    """
    if np.isnan(row.shift):
        return f"{a} and {b} were not compared", ""
    number = change(row.shift, row.low, row.high)
    if decimals(abs(row.shift)) == "0.000":
        return f"{a} and {b} have the same {value} to three decimals", number * ("[" in number)
    if row.low <= 0 <= row.high:
        return f"{a} and {b} do not differ significantly in {value}", number
    return f"{a} has a {'lower' if row.shift < 0 else 'higher'} {value} than {b}", by(row, a, b)


def difference(row: Any, a: str, b: str, value: str) -> str:
    """Which of two sides is lower, by how much."""
    words, number = relation(row, a, b, value)
    return f"{words} ({number})" if number else words


def differences(rows: Mapping[str, Any], a: str, b: str, value: str) -> str:
    """The same of several rows, each after what it is about; those that say the same together."""
    said: dict[str, list[str]] = {}
    for about, row in rows.items():
        words, number = relation(row, a, b, value)
        said.setdefault(words, []).append(f"{about} ({number})" if number else about)
    return "; ".join(f"{words} {listed(where)}" for words, where in said.items())


def state(loss: float) -> str:
    """A loss, or why there is none: what stands after the name of what has it."""
    if np.isfinite(loss):
        return f"has {decimals(loss)}"
    return "was not measured" if np.isnan(loss) else "had a trial that diverged"


def leaders(means: Mapping[str, float]) -> list[str]:
    """The names that have the lowest mean to three decimals, the lowest first; those that diverged
    or were not measured are none of them.
    """
    known = sorted((name for name in means if np.isfinite(means[name])), key=means.__getitem__)
    return [name for name in known if decimals(means[name]) == decimals(means[known[0]])]


def lowest(means: Mapping[str, float], value: str, baseline: str = "", every: bool = False) -> str:
    """Which of all these has the lowest value, what the baseline has, or else the next one, and
    which has the highest; or what `every` other one has.
    """
    first = leaders(means)
    if not first:
        return f"there is no {value} to compare: " + listed(f"{k} {state(means[k])}" for k in means)
    if len(first) > 1:
        named = first if len(first) <= MOST else {first[0], baseline}
        names = [name for name in first if name in named]
        names += [count(len(first) - len(names), "other")] if len(first) > len(names) else []
        words = f"{listed(names)} have the same lowest {value}, {decimals(means[first[0]])} "
        words += "to three decimals"
    else:
        words = f"{first[0]} has the lowest {value}, {decimals(means[first[0]])}"
    rest = [name for name in means if np.isfinite(means[name]) and name not in first]
    rest.sort(key=means.__getitem__)
    unknown = [name for name in means if not np.isfinite(means[name])]
    if every:
        beside = rest
    elif baseline in means and baseline not in first:
        beside = [baseline]
    else:
        beside = rest[:1] if len(first) == 1 else []
    said = [f"{name} {state(means[name])}" for name in dict.fromkeys([*beside, *unknown])]
    if len(first) + len(rest) > 2 and rest and rest[-1] not in (baseline, *beside):
        said.append(f"{rest[-1]} has the highest, {decimals(means[rest[-1]])}")
    return words + (f"; {listed(said)}" if said else "")


def lowest_within(groups: Mapping[str, Mapping[str, float]], value: str) -> str:
    """Which has the lowest value in each of several groups, in brackets the losses."""
    said: dict[str, list[str]] = {}
    for group, means in groups.items():
        first, rest = leaders(means), [name for name in means if name not in leaders(means)]
        if not first:
            words = f"there is no {value} to compare"
        elif len(first) > 1:
            words = f"{listed(first)} have the same lowest {value}"
        else:
            words = f"{first[0]} has the lowest {value}"
            words = f"{first[0]} has a lower {value} than {rest[0]}" if len(rest) == 1 else words
        numbers = [decimals(means[name]) for name in first[:1]]
        if len(rest) > MOST and np.isfinite([means[name] for name in rest]).all():
            next_, worst = (pick(rest, key=means.__getitem__) for pick in (min, max))
            numbers.append(
                f"against {decimals(means[next_])} for {next_}, the next, and up to "
                f"{decimals(means[worst])} for {worst}"
            )
        elif rest and np.isfinite([means[name] for name in rest]).all():
            numbers.append(f"against {listed(decimals(means[name]) for name in rest)}")
        elif rest:
            numbers.append(f"{'; ' * bool(first)}{listed(f'{k} {state(means[k])}' for k in rest)}")
        said.setdefault(words, []).append(f"{group} ({' '.join(numbers)})".replace(" ; ", "; "))
    return "; ".join(f"{words} for {listed(where)}" for words, where in said.items())


# -- many sides and a baseline -------------------------------------------------------------------


def against(
    table: pd.DataFrame,
    value: str,
    kind: str = "setting",
    *,
    within: str | None = None,
    names: Mapping[str, str] = NAMES,
    family: int = 0,
) -> Answer:
    """What a table of `statistics.compare` with a baseline says of `value`.

    `within` names a column whose values have a baseline each. `kind` is what its rows are, `names`
    what a sentence calls them, `family` the number of tests that Holm's correction counts, by
    default all rows.
    """
    if table.empty:
        return Answer(f"Nothing was compared: there is only one {kind}.")
    table = table.assign(**{side: [names.get(x, str(x)) for x in table[side]] for side in "ab"})
    baseline, n = table["b"].iloc[0], int(table["n"].max())
    groups = list(table.groupby(within, sort=False)) if within else [("", table)]
    means = {
        group: dict(zip(rows["a"], rows["mean a"], strict=True))
        | {baseline: rows["mean b"].iloc[rows["n"].argmax()]}
        for group, rows in groups
    }
    words = (
        lowest_within(means, f"mean {value}")
        if within
        else lowest(means[""], f"mean {value}", baseline)
    )
    trials = count(n, "trial")
    if n < LEAST:
        return Answer(
            f"With {trials}, {words}.",
            f"Nothing was tested: below {count(LEAST)} trials no difference can be significant.",
        )
    family = family or len(table)
    if within:
        table = table.assign(a=[f"{row['a']} ({row[within]})" for _, row in table.iterrows()])
    found = f"With {trials}, {significance(table, value, kind, baseline)}; {words}."
    sure = f"{raised(count(n, 'paired trial'))}, signed-rank tests, Holm's correction over "
    sure += count(family, "test")
    if n < least(family):
        sure += f"; with fewer than {count(least(family))} trials none of them can be significant"
    return Answer(found, sure + ("; brackets hold 95 % intervals." if "[" in found else "."))


def significance(table: pd.DataFrame, value: str, kind: str, baseline: str) -> str:
    """Which rows of a table of `against` differ from the baseline, and how."""
    significant, tested = table.p_holm < LEVEL, table.p_holm.notna()
    if tested.all() and not significant.any() and len(table) > 1:
        return f"no {kind} differs significantly from {baseline}"
    kinds = {
        f"a significantly lower {value} than {baseline}": significant & (table["shift"] < 0),
        f"a significantly higher {value} than {baseline}": significant & (table["shift"] > 0),
        f"not differ significantly from {baseline}": tested & ~significant,
        "not tested, for want of trials": ~tested,
    }
    verbs = (("has", "have"), ("has", "have"), ("does", "do"), ("was", "were"))
    parts = []
    for (words, chosen), verb in zip(kinds.items(), verbs, strict=True):
        rows = list(table[chosen].itertuples())
        if rows:
            few = len(rows) <= MOST
            who = listed(row.a for row in rows) if few else count(len(rows), kind)
            parts.append(f"{who} {verb[len(rows) > 1]} {words}")
            if few and verb[0] == "has":
                parts[-1] += f", {listed(by(row, row.a, row.b) for row in rows)}"
    return "; ".join(parts)
