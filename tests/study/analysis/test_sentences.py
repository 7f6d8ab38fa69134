"""Every sentence that is made from numbers, whichever side wins, ties, diverges or is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_claims import paper

from evoae.study.analysis import (
    claims,
    confounds,
    findings,
    inspection,
    sentences,
    statistics,
)
from evoae.study.analysis.published import PAPER
from evoae.study.runs.study import Study

NAN, INF = float("nan"), float("inf")
# the mean loss of the baseline and of two others, and how many trials of each
LOSSES = {
    "baseline lowest": (0.1, 0.2, 0.3),
    "first lowest": (0.2, 0.1, 0.3),
    "second lowest": (0.2, 0.3, 0.1),
    "all equal": (0.1, 0.1, 0.1),
    "baseline and first equal": (0.1, 0.1, 0.3),
    "others equal": (0.2, 0.1, 0.1),
    "equal to three decimals": (0.10002, 0.10001, 0.3),
    "baseline diverged": (INF, 0.2, 0.1),
    "first diverged": (0.1, NAN, 0.2),
    "one left": (INF, INF, 0.1),
    "all diverged": (INF, NAN, INF),
}
TRIALS = (1, 2, 6, 7, 12)


def losses(means: tuple[float, ...], trials: int, names: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        {"operator": name, "trial": trial, "loss": mean, "training": "ring"}
        for name, mean in zip(names, means, strict=True)
        for trial in range(trials)
    ]
    return pd.DataFrame(rows)


def plain(text: str) -> None:
    """A line of a person's language: a sentence, without what only machines write."""
    assert "\n" not in text
    assert not re.search(r"\b(nan|inf|None|True|False)\b", text), text
    assert "-0.000" not in text.replace("[-0.000", "")
    assert "[-0.000" not in text
    assert re.match(r"[A-Z0-9]", text), text
    assert text.endswith("."), text
    assert "  " not in text
    assert ".." not in text


def check_lowest(text: str, means: dict[str, float]) -> None:
    """What is called lowest, highest or equal is so in the table."""
    finite = {k: f"{v:.3f}" for k, v in means.items() if np.isfinite(v)}
    low, high = min(finite.values(), default=""), max(finite.values(), default="")
    for who, number in re.findall(r"([\w ,-]+) ha(?:s|ve) the lowest [^;]*?, (\d+\.\d+)", text):
        (name,) = [k for k in finite if who.endswith(k)]
        assert finite[name] == number == low
        assert list(finite.values()).count(low) == 1, "a tie is called a tie"
    for who, number in re.findall(r"([\w ,-]+) have the same lowest [^;]*?, (\d+\.\d+)", text):
        tied = [k for k in finite if re.search(rf"\b{k}\b", who)]
        assert len(tied) > 1
        assert {finite[k] for k in tied} == {number} == {low}
    for who, number in re.findall(r"([\w -]+) has the highest, (\d+\.\d+)", text):
        (name,) = [k for k in finite if who.endswith(k)]
        assert finite[name] == number == high
    for name, number in re.findall(r"([\w-]+) has (\d+\.\d+)", text):
        assert finite[next(k for k in finite if k.endswith(name))] == number
    assert ("lowest" in text) == bool(finite)


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("baseline", ["none", "magnitude"])
def test_a_comparison_with_a_baseline(case: str, trials: int, baseline: str) -> None:
    table = losses(LOSSES[case], trials, (baseline, "random", "snip"))
    tests = statistics.compare(table, by="operator", value="loss", baseline=baseline)
    answer = sentences.against(tests, "test loss", "operator")
    name = "no pruning" if baseline == "none" else baseline
    plain(answer.found)
    plain(answer.sure)
    means = table.fillna(INF).groupby("operator").loss.mean().rename({baseline: name}).to_dict()
    check_lowest(answer.found, means)
    assert name in answer.found
    assert re.search(r"\brandom|\bsnip", answer.found)
    for diverged in (k for k, v in means.items() if not np.isfinite(v)):
        assert f"{diverged} had a trial that diverged" in answer.found
    significant = re.findall(r"significantly (lower|higher)", answer.found)
    assert len(significant) <= 2
    if trials < 6:
        assert answer.sure.startswith("Nothing was tested")
        assert "signific" not in answer.found
    elif trials < 7:
        assert "no operator differs significantly" in answer.found
        assert "fewer than seven trials" in answer.sure
    else:
        assert bool(significant) == (tests.p_holm < 0.05).any()
    joined = sentences.joined({"On digits": answer, "On faces": answer})
    plain(joined.found)
    assert joined.found.startswith("On digits, with")
    assert joined.sure == answer.sure


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("case", LOSSES)
def test_a_comparison_within_groups_names_the_lowest_of_each(case: str, trials: int) -> None:
    names = ("pruned", "dense", "dense")
    table = losses(LOSSES[case], trials, ("pruned", "dense", "narrow"))
    other = table.assign(training="alone", loss=1 / table.loss)
    both = pd.concat([table, other])
    tests = statistics.compare(
        both, by="operator", value="loss", baseline=names[0], within="training"
    )
    answer = sentences.against(tests, "training loss", within="training")
    plain(answer.found)
    plain(answer.sure)
    for group, rows in both.fillna(INF).groupby("training"):
        means = rows.groupby("operator", sort=False).loss.mean()
        text = re.search(rf"([^;(]*(?:\([^)]*\)[^;(]*)*?)\b{group} \(([^)]*)\)", answer.found)
        assert text, answer.found
        finite = means[np.isfinite(means)].map("{:.3f}".format)
        if len(finite):
            assert text[2].split(";")[0].strip().split(" ")[0] == min(finite, key=float)


def test_many_rows_are_counted_and_ties_of_many_too() -> None:
    names = tuple("abcdefgh")
    table = losses((0.1, *[0.2] * 7), 12, names)
    tests = statistics.compare(table, by="operator", value="loss", baseline="a")
    answer = sentences.against(tests, "test loss", "operator")
    assert "seven operators have a significantly higher test loss than a" in answer.found
    check_lowest(answer.found, dict(zip(names, (0.1, *[0.2] * 7), strict=True)))
    same = statistics.compare(
        losses((0.1,) * 8, 12, names), by="operator", value="loss", baseline="a"
    )
    said = sentences.against(same, "test loss", "operator").found
    assert "no operator differs significantly from a; " in said
    assert "and six others have the same lowest mean test loss, 0.100" in said


def test_nothing_to_compare_and_trials_that_are_not_shared() -> None:
    alone = statistics.compare(
        losses((0.1,), 2, ("none",)), by="operator", value="loss", baseline="none"
    )
    assert str(sentences.against(alone, "test loss", "operator")) == (
        "Nothing was compared: there is only one operator."
    )
    table = losses((0.1, 0.2, 0.3), 8, ("none", "random", "snip"))
    apart = table.assign(trial=table.trial + 8 * (table.operator == "snip"))
    tests = statistics.compare(apart, by="operator", value="loss", baseline="none")
    found = sentences.against(tests, "test loss", "operator").found
    plain(found)
    assert "snip was not measured" in found
    assert "snip was not tested" in found


ROWS = [
    (shift, low, high)
    for shift in (-0.2, 0.2, 0.0, 0.0001, -0.0001, INF, -INF, NAN)
    for low, high in [(NAN, NAN), (shift, shift), (shift - 0.1, shift + 0.3), (-INF, INF)]
]


@pytest.mark.parametrize(("shift", "low", "high"), ROWS)
def test_two_sides(shift: float, low: float, high: float) -> None:
    row = SimpleNamespace(shift=shift, low=low, high=high)
    words = sentences.difference(row, "the ring", "one cell", "test loss")
    plain(sentences.raised(words) + ".")
    assert "the ring" in words
    assert "one cell" in words
    several = sentences.differences({"early": row, "late": row}, "the ring", "one cell", "loss")
    assert several.index("early") < several.index("late")
    plain(sentences.raised(several) + ".")
    if np.isnan(shift):
        assert "not compared" in words
    elif abs(shift) < 0.0005:
        assert "the same test loss to three decimals" in words
    elif low <= 0 <= high:
        assert "do not differ significantly" in words
    else:
        assert ("lower" if shift < 0 else "higher") in words
        if np.isinf(shift):
            assert f"because {'the ring' if shift > 0 else 'one cell'} diverged" in words


# -- sentences of the notebooks --------------------------------------------------------------------

FACTORS = ["optimiser", "rate_policy", "neighbours", "selection", "whole gap"]
VALUES = [-0.1, 0.1, 0.0, -0.0, INF, NAN]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("missing", [False, True])
def test_the_paragraph_of_the_confounds(value: float, missing: bool) -> None:
    ends = {"low": NAN, "high": NAN} if missing else {"low": value, "high": value}
    parts = pd.DataFrame({"factor": FACTORS, "value": value}).assign(pruning="none", **ends)
    both = pd.concat([parts, parts.assign(pruning="random")])
    rows = pd.DataFrame({"shift": [value], **{k: [v] for k, v in ends.items()}})
    none = rows.iloc[:0]
    restarts, noise = rows.assign(cells=3), rows.assign(when="late")
    means = pd.Series({"none": 0.2, "random": value, "noise": 0.1})
    tuned = pd.Series(
        {"optimiser": "adam", "rate_policy": "mutated", "loss": "l1", "learning_rate": 0.1}
    )
    tuned["mean"] = INF if np.isinf(value) else 0.1
    for changed in (0.0001, 0.2, NAN):
        when = pd.DataFrame({"operator": ["random"], "p_holm": [changed]})
        text = confounds.sentences(both, restarts, when, means, noise, tuned)
        plain(text)
        assert ("does not change" in text) == (changed == 0.2)
        assert ("was not tested" in text) == np.isnan(changed)
        for name in ("no pruning", "random", "noise", "restarts"):
            assert name in text
    none_there = none.assign(cells=[]), when, means, none.assign(when=[])
    text = confounds.sentences(both, *none_there, tuned)
    plain(text)
    assert "restarts" not in text


def published(difference: float, trials: int, size: str = PAPER[0]) -> pd.DataFrame:
    row = {"metric": "train_l1", "size": size, "trials": trials, "published": 0.2}
    row |= {"difference": difference, "low": 0.2 + difference, "high": 0.2 + difference}
    return pd.DataFrame([row] * 8)


@pytest.mark.parametrize("difference", [0.0, 0.1, -0.1, INF, NAN])
@pytest.mark.parametrize("trials", [2, 6])
@pytest.mark.parametrize("size", [PAPER[0], "10 bits"])
def test_what_was_reproduced(difference: float, trials: int, size: str) -> None:
    found = findings.reproduced(published(difference, trials, size))
    plain(found.text)
    if found.heading == "Reproduced":
        met = 8 if difference == 0 else 0
        assert f"{met} of 8 published losses" in found.text
        assert ("the table lists" in found.text) == (met < 8)
    else:
        assert trials < 6 or size != PAPER[0]
    nothing = findings.reproduced(published(0.0, 6).iloc[:0])
    assert nothing.heading == "No evidence"
    plain(nothing.text)


@pytest.mark.parametrize("trials", [2, 8, 15])
@pytest.mark.parametrize("missing", ["", "ring", "random", "canonical none"])
def test_claims_and_the_gap(trials: int, missing: str) -> None:
    runs = {label: run for label, run in paper(trials).items() if label != missing}
    study = Study(runs)
    compared = claims.comparisons(study)
    table = claims.verdicts(compared).set_index(["claim", "reading"])
    for claim in claims.CLAIMS:
        found = findings.on_claim(claim, table.loc[claim.number], compared)
        plain(found.text)
        assert claim.text in found.text
    plain(findings.gap(study).text)


@pytest.mark.parametrize("swap", [False, True])
def test_a_claims_sentence_says_which_side_is_lower(swap: bool) -> None:
    compared = claims.comparisons(Study(paper(15)))
    here = compared[(compared.claim == 7) & (compared.role == "claim")].copy()
    if swap:
        here[["shift", "low", "high"]] = -here[["shift", "high", "low"]].to_numpy()
    table = claims.verdicts(compared).set_index(["claim", "reading"]).loc[7]
    text = findings.on_claim(claims.CLAIMS[6], table, here).text
    assert ("has a higher training loss" in text) == swap
    assert ("has a lower training loss" in text) != swap


class Front(SimpleNamespace):
    """A study of which only the results are asked."""

    def only(self, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(runs={})


@pytest.mark.parametrize("trials", [1, 8])
@pytest.mark.parametrize("means", [(0.1, 0.2), (0.2, 0.1), (0.1, 0.1), (0.1, NAN), (NAN, NAN)])
def test_the_front(
    means: tuple[float, float], trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.concat(
        pd.DataFrame({"label": name, "operator": name, "trial": range(trials), "test_l1": mean,
                      "validation_l1": mean, "best_preserved": share, "constant_test_l1": 0.3})
        for name, mean, share in zip(("none", "random"), means, (1.0, 0.2), strict=True)
    )  # fmt: skip
    monkeypatch.setattr(findings, "papers_data", lambda study: SimpleNamespace(results=table))
    text = findings.on_front(Front()).text
    plain(text)
    if np.isfinite(means).any():
        assert "on the front" in text
        assert f"{np.nanmin(means):.3f}" in text
    else:
        assert "No setting" in text


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.2999, INF, NAN])
def test_how_a_run_ended(loss: float) -> None:
    trials = pd.DataFrame({"train_l1": [loss, 0.3], "constant_train_l1": 0.3})
    trials = trials.replace(INF, NAN)  # as files hold it
    run = SimpleNamespace(trials=trials, setting=lambda name: "l1")
    text = inspection.ending(run)
    if np.isfinite(loss) and loss < 0.2:
        assert text is None
    else:
        plain(sentences.raised(text) + ".")
        assert ("diverged" in text) == (not np.isfinite(loss))


WORDS: list[tuple[Callable[..., str], tuple, str]] = [
    (sentences.count, (0, "trial"), "no trials"),
    (sentences.count, (1, "trial"), "one trial"),
    (sentences.count, (10,), "ten"),
    (sentences.count, (2, "published loss"), "two published losses"),
    (sentences.count, (1, "loss"), "one loss"),
    (sentences.count, (1200, "step"), "1,200 steps"),
    (sentences.listed, (["a"],), "a"),
    (sentences.listed, (["a", "b", "c"],), "a, b and c"),
    (sentences.decimals, (-0.0001,), "0.000"),
    (sentences.decimals, (0.01234, True), "+0.012"),
    (sentences.probability, (NAN,), "not tested"),
    (sentences.probability, (0.0001,), "p < 0.001"),
]


@pytest.mark.parametrize(("function", "given", "said"), WORDS)
def test_words(function: Callable[..., str], given: tuple, said: str) -> None:
    assert function(*given) == said


def test_of_many_the_next_and_the_last_are_named() -> None:
    means = {name: 0.1 * (number + 1) for number, name in enumerate("abcdef")}
    assert sentences.lowest_within({"here": means}, "loss") == (
        "a has the lowest loss for here (0.100 against 0.200 for b, the next, and up to 0.600 "
        "for f)"
    )
