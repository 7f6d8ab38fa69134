"""Ways to find a front: equal steps, who is selected, hypervolume, and what the page says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from evoae.study import figures
from evoae.study.analysis import front_evolution, front_page, front_ways, results

SIZES = [0.3, 0.6]
STEPS = 3 * 48


@pytest.mark.parametrize("way", front_ways.WAYS)
def test_every_way_takes_the_steps_and_reaches_the_sizes(way: str, tmp_path: Path) -> None:
    where = {"out": tmp_path, "progress": False, "workers": 1}
    table, lineage = front_ways.compute(tiny("frontier"), way, [*SIZES, 0.99], STEPS, 2, 1, **where)
    assert table[["sparsity", "trial"]].values.tolist() == [[s, t] for s in SIZES for t in (0, 1)]
    taken = table.groupby("trial").model_steps.sum()
    assert (taken <= STEPS).all()
    assert (taken > (0.6 if way in ("population", "pbt") else 0.97) * STEPS).all()
    assert (table.best_preserved <= 1 - table.sparsity + 0.01).all()
    if way not in ("population", "pbt"):
        assert lineage.empty
        return
    assert set(lineage["round"]) == set(range(1, front_evolution.ROUNDS))
    assert set(lineage.whose) <= set(figures.frontier.INHERITED)
    assert set(lineage.whose[lineage.sparsity == 0]) == {"itself"}
    assert figures.inheritance(lineage).axes


def test_whole_rounds_may_take_more_epochs_than_the_bar_had(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    e = tiny("frontier")
    least = front_evolution.ROUNDS * (len(SIZES) + 1)
    steps = least * front_ways.fronts.steps_of_an_epoch(e)
    table, _ = front_ways.compute(e, "population", SIZES, steps, 1, 1, out=tmp_path, workers=1)
    assert table.model_steps.sum() > steps
    assert f"/{least} epochs" not in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown way 'best'; choose from separate, from-dense"):
        front_ways.compute(tiny("frontier"), "best", SIZES, STEPS, 1, 1)
    with pytest.raises(ValueError, match="steps=11 are too few for nsga-ii, which takes at least"):
        front_ways.compute(tiny("frontier"), "nsga-ii", SIZES, 11, 1, 1)


def test_hypervolume_by_hand() -> None:
    assert front_ways.hypervolume([0.5], [0.2]) == pytest.approx(0.5 * 0.8)
    assert front_ways.hypervolume([0.5, 0.9], [0.2, 0.6]) == pytest.approx(0.4 * 0.4 + 0.5 * 0.8)
    # the order does not matter, nor a network that another beats
    assert front_ways.hypervolume([0.9, 0.5], [0.6, 0.7]) == pytest.approx(0.9 * 0.4)
    assert front_ways.hypervolume([0.5, 0.9], [1.5, np.nan]) == 0


def fronts(losses: dict[str, float], trials: int, noise: float = 0.001) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        {"dataset": "digits", "steps": 60_000, "way": way, "trial": trial, "sparsity": size}
        | {"test_l1": loss + noise * rng.random(), "constant_test_l1": 0.4, "model_steps": 500}
        for way, loss in losses.items()
        for trial in range(trials)
        for size in SIZES
    ]
    return pd.DataFrame(rows)


HELPS = (
    "Beginning each size from the next denser one (`trajectory`) is better than training each anew"
)
FEW = " These are means of few trials; nothing was tested."


@pytest.mark.parametrize(
    ("others", "trials", "answer", "said"),
    [
        (
            {"separate": 0.2}, 10,
            f"{HELPS} (in 1 of 1 comparisons, significantly in 1).", "`trajectory` nowhere, and",
        ),
        ({"separate": 0.2}, 4, f"{HELPS} (in 1 of 1 comparisons).{FEW}", "; none was tested"),
        (
            {"separate": 0.05}, 10, 
            "Training each size anew is better than beginning from the next denser one (in 1 of 1 "
            "comparisons, significantly in 1).",
            "`trajectory` on digits at 60,000 steps, and a higher one in 0 of 1 comparisons; "
            "significantly lower in 1, higher in 0",
        ),
        (
            {"separate": 0.2, "population": 0.15}, 10,
            f"{HELPS} (in 1 of 1 comparisons, significantly in 1); the population of sizes, as it "
            "is built here, is worse than `trajectory` (in 1 of 1 comparisons, significantly in "
            "1).",
            "- `population` has a lower mean loss than",
        ),
        (
            {"population": 0.05}, 10,
            "The population of sizes is better than `trajectory` (in 1 of 1 comparisons, "
            "significantly in 1).",
            "- `population` has a lower mean loss than `trajectory` on digits",
        ),
    ],
)  # fmt: skip
def test_the_page_says_which_way_is_lower(
    others: dict[str, float],
    trials: int,
    answer: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = fronts({"trajectory": 0.1, **others}, trials)
    monkeypatch.setattr(results, "front_of_ways", lambda: table)
    found = front_page.values()
    assert found["ways_answer"] == answer
    assert said in found["ways_found"]
    assert f"{trials} trials of all ways but `" in found["ways_state"]
    assert "binary-clusters (60,000, 180,000 and 480,000 steps);" in found["ways_state"]
    for way in others:
        (line,) = (row for row in found["ways_table"].splitlines() if f"`{way}` |" in row)
        assert ("–" in line) == (trials < front_page.PLANNED)


def test_the_page_says_where_the_answers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fronts({"trajectory": 0.1, "separate": 0.2}, 10)
    other = fronts({"trajectory": 0.1, "separate": 0.05}, 10).assign(dataset="faces")
    monkeypatch.setattr(results, "front_of_ways", lambda: pd.concat([one, other]))
    assert front_page.values()["ways_answer"] == (
        f"{HELPS} (in 1 of 2 comparisons, significantly in 1); training each size anew is better "
        "than beginning from the next denser one (in 1 of 2 comparisons, significantly in 1)."
    )
    same = fronts({"trajectory": 0.1, "separate": 0.1}, 10, noise=0.0)
    monkeypatch.setattr(results, "front_of_ways", lambda: same)
    found = front_page.values()
    assert found["ways_answer"] == "There is no difference (in 1 of 1 comparisons)."
    assert "nowhere, and a higher one in 0 of 1 comparisons" in found["ways_found"]
    monkeypatch.setattr(results, "front_of_ways", lambda: fronts({"trajectory": 0.1}, 10))
    assert front_page.values()["ways_answer"] == "No way was compared yet."


def test_a_diverged_network_is_the_worst() -> None:
    table = fronts({"trajectory": 0.1, "separate": 0.2}, 6)
    table.loc[(table.way == "trajectory") & (table.sparsity == 0.6), "test_l1"] = np.nan
    tested = front_ways.tests(front_ways.measures(table))
    assert tested["mean b"].tolist() == [np.inf]
    assert (tested["shift"] < 0).all()


def test_without_ours_nothing_is_tested() -> None:
    assert front_ways.tests(front_ways.measures(fronts({"separate": 0.2}, 6))).empty


def test_more_data_sets_do_not_take_from_what_ten_trials_can_decide() -> None:
    one = fronts({"trajectory": 0.1, "separate": 0.2}, 10)
    many = pd.concat([one.assign(dataset=name) for name in front_page.DATA])
    tested = front_ways.tests(front_ways.measures(many))
    assert np.allclose(tested.p_holm, (len(front_ways.WAYS) - 1) * 2 / 2**10)
    assert front_page.extent(10, list(front_ways.WAYS)) == "10 trials of all ways"


def test_further_pairs_are_compared_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"trajectory": 0.1, "separate": 0.2, "pbt": 0.3, "random-search": 0.25}
    double = fronts({"separate": 0.05}, 10).assign(steps=120_000)
    table = pd.concat([fronts(losses, 10), double])
    pairs = front_ways.beside(front_ways.measures(table))
    assert pairs[["a", "b"]].values.tolist() == [
        ["pbt", "random-search"],
        ["separate with twice the steps", "trajectory"],
    ]
    assert (pairs["where"] == "digits at 60,000 steps").all()
    assert (pairs["shift"] > 0).tolist() == [True, False]
    assert np.allclose(pairs.p_holm, len(front_ways.BESIDE) * 2 / 2**10)
    monkeypatch.setattr(results, "front_of_ways", lambda: table)
    found = front_page.values()
    assert "120,000" not in found["ways_table"]
    assert (
        "`separate` with twice the steps has a lower mean loss than `trajectory` on digits at "
        "60,000 steps, and a higher one in 0 of 1 comparisons; significantly lower in 1, higher in "
        "0." in found["beside_found"]
    )
    assert found["beside_table"].count("digits at 60,000 steps") == 2
