"""What the page says of design F: tests of complete data only, no dead yardstick, what is left."""

from __future__ import annotations

import pandas as pd
import pytest
from test_best_methods import MEANS, trials_of

from evoae.study.analysis import frontier_page, results, results_page
from evoae.study.analysis.best_methods import POINT
from evoae.study.analysis.frontier_page import DEAD, PLANNED, missing, standing, state


def test_the_best_is_told_from_those_that_it_beats_and_set_against_the_best_baseline() -> None:
    found = standing(trials_of(MEANS))
    assert found[:2] == [PLANNED, "`frontier`"]
    assert found[3:5] == ["none", "`obd`"]
    assert float(found[6].split()[0]) == pytest.approx(-0.02, abs=0.001)
    assert found[7] == "0.020"
    alike = MEANS | {"frontier-ring": MEANS["frontier"]}
    assert standing(trials_of(alike))[3] == "`frontier-ring`"


def test_below_the_planned_trials_nothing_is_tested() -> None:
    found = standing(trials_of(MEANS, n=PLANNED - 1))
    assert found[3] == "not tested"
    assert found[6:] == ["–", "–"]
    short = trials_of(MEANS)
    short = short[~((short.method == "obd") & (short.trial == 0))]
    assert standing(short)[0] == PLANNED - 1
    assert standing(short)[3] == "not tested"


def test_where_all_are_dead_nobody_is_the_best() -> None:
    assert standing(trials_of({"random": 0.2, "dense": 0.3}))[1] == "no method beats the constant"
    only_ours = standing(trials_of({"frontier": 0.1, "random": 0.2}))
    assert only_ours[1:5] == ["`frontier`", only_ours[2], "none", "–"]
    losses = frontier_page.losses(trials_of(MEANS))
    assert losses.count(DEAD) == 2  # random and dense do not beat the constant


@pytest.mark.parametrize(
    ("losses", "n", "said"),
    [
        (
            MEANS,
            PLANNED,
            "`frontier` at 90 %. A variant of the recipe has a significantly lower "
            "test loss than the best baseline at 90 %.",
        ),
        (MEANS, PLANNED - 1, "than the best baseline nowhere."),
        (
            MEANS | {"obd": 0.01},
            PLANNED,
            "`obd` at 90 %. A variant of the recipe has a "
            "significantly lower test loss than the best baseline nowhere.",
        ),
        ({"random": 0.3}, PLANNED, "No data set was run."),
    ],
)
def test_the_summary_names_the_best_and_where_it_is_clear(
    losses: dict[str, float], n: int, said: str
) -> None:
    assert said in frontier_page.fair_found(trials_of(losses, n=n, dataset="digits"))


def test_what_is_missing_is_named() -> None:
    one = trials_of(MEANS, dataset="digits")
    assert state(one) == f"{PLANNED} of {PLANNED} trials of {len(MEANS)} methods on digits"
    assert state(one.iloc[:0]) == "none was run"
    assert missing(one, ["digits"]) == "–"
    assert missing(one, ["digits", "mnist_5k"]) == "trials on mnist_5k"
    fewer = pd.concat([one, trials_of(MEANS, n=2, dataset="mnist_5k")])
    assert missing(fewer, ["digits", "mnist_5k"]) == "trials on mnist_5k"
    assert missing(one.iloc[:0], ["digits"]) == "trials on digits"


@pytest.mark.parametrize("design", ["front", "parts", "masks"])
def test_no_trial_is_kept_twice(design: str) -> None:
    found = results.front_trials(design)
    assert not found.duplicated([*POINT, "trial"]).any()
    assert found.test_l1.between(0, 1).all()


def test_trials_are_added_to_those_that_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(results, "TRIALS", tmp_path / "trials.csv")
    pd.DataFrame(columns=results.TRIALS_COLUMNS).to_csv(results.TRIALS, index=False)
    more = {"compact_parameters": 20, "steps": 30.0}
    results.update_front_trials("front", trials_of(MEANS, n=2, **more))
    results.update_front_trials("parts", trials_of(MEANS, n=1, **more))
    results.update_front_trials("front", trials_of(MEANS, n=5, **more))
    assert len(results.front_trials("front")) == 5 * len(MEANS)
    assert len(results.front_trials("parts")) == len(MEANS)
    assert "not tested" in results_page.page()
