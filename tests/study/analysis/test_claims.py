"""Verdicts on the paper's claims: from runs whose answer is known, and from what is no evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evoae import Experiment, grid, sweep
from evoae.study.analysis import claims
from evoae.study.analysis.claims import CLAIMS, FAMILY, comparisons, verdict, verdicts
from evoae.study.runs.study import Study

CONSTANT = 0.27
NOISE = np.random.default_rng(0).normal(0, 0.001, 30)


@dataclass
class Finished:
    """What a claim looks at of a finished run: settings, losses by trial, steps."""

    experiment: Experiment
    losses: list[float]
    seed: int = 1
    changes: tuple = ()
    algorithm: str = "lipi-ae-s"
    first: int = 0

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + len(self.losses))

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self.experiment.settings()

    @property
    def config(self) -> dict[str, Any]:
        return {"experiment": self.settings, "seed": self.seed}

    @property
    def result(self) -> dict[str, Any]:
        return {"model_steps": 80_000 * self.setting("cells") * len(self.losses)}

    @property
    def trials(self) -> pd.DataFrame:
        losses = {"trial": self.numbers, "train_l1": self.losses}
        return pd.DataFrame(losses | {"constant_train_l1": CONSTANT})

    def setting(self, name: str) -> Any:
        return self.settings[name]


def finished(preset: str, mean: float, trials: int = 10, **settings: Any) -> Finished:
    """A run whose losses scatter about a mean, in another order for each setting."""
    order = np.random.default_rng(int(1e6 * mean)).permutation(trials)
    return Finished(Experiment.preset(preset, **settings), list(mean + NOISE[:trials][order]))


def paper(trials: int = 10, **size: Any) -> dict[str, Finished]:
    """Runs of the paper's size whose losses are as published, without the schedules of 03."""
    ring, alone = {"preset": "lipi-ae-s", "trials": trials} | size, {"preset": "canonical"} | size
    alone["trials"] = trials
    rnd = {"operator": "random", "schedule": "exponential"}
    con = {"operator": "conjunctive", "schedule": "final-n"}
    var = {"operator": "variance", "schedule": "population"}
    after = {"schedule": "prune-after"}
    once = {"schedule": "prune-once"}
    small = {"model": "small"} | ring
    return {
        "canonical none": finished(mean=0.271, **alone),
        "canonical conjunctive": finished(mean=0.272, operator="conjunctive", **alone),
        "canonical random": finished(mean=0.5, operator="random", **alone),
        "canonical variance": finished(mean=0.501, operator="variance", **alone),
        "ring": finished(mean=0.156, **ring),
        "one": finished(mean=0.157, cells=1, **ring),
        "one random": finished(mean=0.117, cells=1, **rnd, **ring),
        "random": finished(mean=0.116, **rnd, **ring),
        "conjunctive": finished(mean=0.15, **con, **ring),
        "variance": finished(mean=0.173, **var, **ring),
        **{
            f"{name} {when['schedule']}": finished(
                mean=mean, operator=name, **when, **ring
            )
            for name, mean in (("random", 0.244), ("conjunctive", 0.16), ("variance", 0.4))
            for when in (after, once)
        },
        "small random": finished(mean=0.245, **rnd, **small),
        "small conjunctive": finished(mean=0.304, **con, **small),
        "small variance": finished(mean=0.265, **var, **small),
    }  # fmt: skip


def schedules() -> dict[str, Finished]:
    """What 03 adds: every operator with every schedule, of no difference at all."""
    return {
        f"03 {operator} {schedule}": finished(
            "lipi-ae-s", 0.2 + 0.001 * k, operator=operator, schedule=schedule
        )
        for operator in ("random", "conjunctive", "variance")
        for k, schedule in enumerate((*claims.LATE, *claims.EARLY))
    }


def released(runs: dict[str, Any]) -> pd.Series:
    """The verdict on each claim, as released."""
    table = verdicts(comparisons(Study(runs)))
    return table[table.reading == "as released"].set_index("claim").verdict


def test_the_family_is_declared_and_ten_trials_can_decide_in_it():
    assert sum(len(claim.contrasts) for claim in CLAIMS) == FAMILY
    assert FAMILY * 2 / 2**10 < claims.LEVEL
    assert [claim.number for claim in CLAIMS] == list(range(1, 8))


def test_verdicts_on_the_papers_numbers():
    found = released(paper())
    assert found.to_dict() == {
        1: "no verdict: nothing learnt",  # guided pruning ends at the constant, random above it
        2: "no verdict: nothing learnt",  # equality of two constants
        3: "supported",
        4: "contradicted",
        5: "no verdict: not run",
        6: "supported",
        7: "supported",
    }


def test_every_contrast_has_both_readings_and_its_budgets():
    table = comparisons(Study(paper()))
    assert len(table) == 2 * FAMILY
    assert set(table[table.reading == "as intended"].says) == {"not run"}
    row = table[(table.claim == 7) & (table.reading == "as released")].iloc[0]
    assert (row["steps a"], row["steps b"]) == (800_000, 80_000)
    assert row["size"] == "1000 bits, 10 cells, 400 epochs"
    assert row["shift"] == pytest.approx(-0.115, abs=0.001)
    assert row.low < row["shift"] < row.high
    assert row["a lower in"] == row.n == 10


def test_holm_counts_the_whole_family_whatever_was_run():
    few = {k: v for k, v in paper().items() if k in ("ring", "canonical none")}
    row = comparisons(Study(few)).query("claim == 7 and role == 'claim'").iloc[0]
    assert row.p_holm == pytest.approx(FAMILY * row.p)


def test_verdicts_are_the_same_with_and_without_the_runs_of_03():
    without, both = released(paper()), released(paper() | schedules())
    unchanged = [claim.number for claim in CLAIMS if claim.number != 5]
    assert without[unchanged].tolist() == both[unchanged].tolist()


def test_one_operator_is_enough_where_the_paper_says_one():
    runs = paper() | {"small conjunctive": finished(
        "lipi-ae-s", 0.2, operator="conjunctive", schedule="final-n", model="small"
    )}  # fmt: skip
    assert released(runs)[4] == "supported"


def test_a_verdict_needs_all_its_contrasts():
    runs = paper()
    del runs["variance"]
    assert released(runs)[3] == "no verdict: not run (1 of 2 contrasts)"
    assert released(runs)[7] == "supported"


def test_controls_are_told_apart_from_the_claim():
    runs = paper() | {"ring": finished("lipi-ae-s", 0.1)}  # pruning at random now does harm
    table = comparisons(Study(runs)).query("claim == 3 and reading == 'as released'")
    assert dict(zip(table.role, table.says, strict=True)) == {
        "claim": "yes",
        "control: does pruning help at all?": "no",
    }
    assert released(runs)[3] == "supported"


def test_runs_of_another_size_say_so():
    assert released(paper(epochs=200))[3] == "supported at another size"
    assert released(paper(epochs=200))[4] == "contradicted at another size"


def test_few_trials_give_no_verdict():
    assert set(released(paper(trials=5)).drop(5)) == {"no verdict: too few trials"}


def test_an_untrained_study_gives_no_verdict(tmp_path):
    size = {"bits": 100, "epochs": 8}
    experiments = grid("canonical", operator=["none", "random", "conjunctive", "variance"], **size)
    study = sweep(experiments, 10, out=tmp_path, workers=1, progress=False)
    assert study.results.train_l1.min() > 0.45
    table = comparisons(study)
    run = table[table.says != "not run"]
    assert set(run.says) == {"nothing learnt"}
    assert set(run.claim) == {1, 2}
    assert released(study.runs)[[1, 2]].tolist() == ["no verdict: nothing learnt"] * 2


def test_as_good_as_needs_an_interval_within_the_margin_and_something_learnt():
    for shift, word in ((0.002, "supported"), (0.05, "contradicted"), (0.0101, "open")):
        runs = {
            "none": finished("canonical", 0.2),
            "conjunctive": finished("canonical", 0.2 + shift, operator="conjunctive"),
        }
        assert released(runs)[2] == word


def test_a_diverged_trial_counts_against_its_setting():
    runs = paper()
    runs["random"].losses[0] = np.nan
    row = comparisons(Study(runs)).query("claim == 3").iloc[0]
    assert (row.n, row["a lower in"], row["mean a"]) == (10, 9, np.inf)


def test_only_runs_of_one_seed_and_size_are_compared():
    one, other = finished("lipi-ae-s", 0.15), finished("canonical", 0.27)
    contrasts = comparisons(Study({"a": one, "b": other})).query("claim == 7")
    assert contrasts.says.iloc[0] == "yes"
    other.seed = 2
    assert comparisons(Study({"a": one, "b": other})).query("claim == 7").says.iloc[0] == "not run"
    longer = finished("canonical", 0.27, epochs=500)
    found = comparisons(Study({"a": one, "b": longer})).query("claim == 7")
    assert found.says.iloc[0] == "not run"
    tuning = finished("canonical", 0.27)
    tuning.first = 1000  # no trial is in both
    found = comparisons(Study({"a": one, "b": tuning})).query("claim == 7")
    assert found.says.iloc[0] == "not run"
    both = {"a": one, "b": tuning, "c": finished("canonical", 0.27)}
    assert comparisons(Study(both)).query("claim == 7").says.iloc[0] == "yes"


def test_the_best_schedule_is_lower_than_each_other_and_late_is_tested_against_early():
    ring = {"operator": "random"}
    means = dict.fromkeys(claims.LATE, 0.11) | dict.fromkeys(claims.EARLY, 0.2)
    # 0.12 is lower than the mean of the others, and not than each; 0.11 is as good as the best
    for best, word in ((0.10, "yes"), (0.12, "no"), (0.11, "open")):
        means["exponential"] = best
        runs = {s: finished("lipi-ae-s", m, 15, schedule=s, **ring) for s, m in means.items()}
        table = comparisons(Study(runs)).query("claim == 5 and reading == 'as released'")
        table = table[table.says != "not run"].set_index("b")
        assert table.says.to_dict() == {"random, the other schedules": word, "early": "yes"}
        late = table["mean a"]["early"]
        assert late == pytest.approx((3 * 0.11 + best) / 4, abs=0.001)


@pytest.mark.parametrize(
    ("said", "needs", "word"),
    [
        (["yes", "yes"], "all", "supported"),
        (["yes", "open"], "all", "open"),
        (["yes", "no"], "all", "mixed"),
        (["no", "open"], "all", "contradicted"),
        (["yes", "nothing learnt"], "all", "no verdict: nothing learnt"),
        (["open", "nothing learnt"], "all", "no verdict: nothing learnt"),
        (["no", "nothing learnt"], "all", "contradicted"),
        (["no", "open", "nothing learnt"], "all", "contradicted"),
        (["yes", "no", "nothing learnt"], "all", "mixed"),
        (["no", "not run", "nothing learnt"], "all", "no verdict: not run (1 of 3 contrasts)"),
        (["yes", "no"], "any", "supported"),
        (["yes", "nothing learnt"], "any", "supported"),
        (["no", "no"], "any", "contradicted"),
        (["no", "open"], "any", "open"),
        (["no", "nothing learnt"], "any", "no verdict: nothing learnt"),
        (["yes", "not run"], "any", "no verdict: not run (1 of 2 contrasts)"),
        (["too few trials"], "all", "no verdict: too few trials"),
    ],
)
def test_verdicts_by_hand(said, needs, word):
    assert verdict(said, needs) == word


@pytest.mark.parametrize(
    ("best_rival", "own", "word"),
    [
        (0.2, 0.4, "no"),  # one rival has learnt something and is lower, whatever their mean
        (0.4, 0.2, "yes"),
        (0.3, 0.4, "nothing learnt"),
        (0.4, 0.3, "nothing learnt"),
    ],
)
def test_whether_anything_was_learnt_is_asked_of_the_best_and_not_of_a_mean(
    best_rival: float, own: float, word: str
) -> None:
    means = dict.fromkeys((*claims.LATE, *claims.EARLY), 0.5)
    means |= {"final-n": best_rival, "exponential": own}
    assert np.mean([mean for name, mean in means.items() if name != "exponential"]) > CONSTANT
    runs = {
        name: finished("lipi-ae-s", mean, 15, operator="random", schedule=name)
        for name, mean in means.items()
    }
    table = comparisons(Study(runs)).query("claim == 5 and reading == 'as released'").set_index("a")
    assert table.says["lipi-ae-s random exponential"] == word
    assert table.says["lipi-ae-s random, late"] == (
        "nothing learnt" if word == "nothing learnt" else "yes"
    )


def test_trials_beyond_the_fixed_number_do_not_count():
    more = {name: finished("lipi-ae-s", mean, 30, **settings) for name, mean, settings in (
        ("ring", 0.156, {}), ("one", 0.157, {"cells": 1}),
    )}  # fmt: skip
    few = {
        name: Finished(run.experiment, run.losses[: claims.TRIALS]) for name, run in more.items()
    }
    row, same = (comparisons(Study(runs)).query("n > 0").iloc[0] for runs in (more, few))
    assert row.n == claims.TRIALS
    assert (row.p, row["shift"]) == (same.p, same["shift"])


def test_sentences_name_the_sides_of_every_contrast_in_words() -> None:
    assert len(claims.IN_WORDS) == len({contrast.sides for _, contrast in claims.DECLARED})
    for a, b in claims.IN_WORDS.values():
        assert a != b
        for words in (a, b):
            assert not re.search(r"lipi|none|None|canonical", words)
    unpruned = claims.IN_WORDS["lipi-ae-s none", "canonical none"]
    assert unpruned == ("the unpruned ring", "one unpruned autoencoder")
