"""Finished runs side by side, and the claims of the paper."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from evoae import Experiment, grid, sweep
from evoae.analysis import claims
from evoae.analysis.published import compare_with, find, published
from evoae.runs import files
from evoae.runs.study import Study, collect

TINY = {"clusters": 2, "bits": 16, "examples": 6, "epochs": 8}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    experiments = (
        grid("canonical", prefix="canonical", operator=["none", "random", "conjunctive"], **TINY)
        | grid("lipi-ae-s", prefix="ring", operator=["none", "random"], cells=3, **TINY)
        | grid("lipi-ae-s", prefix="one", operator=["none"], cells=1, **TINY)
        | grid("canonical", prefix="as meant", operator=["none"], as_released=False, **TINY)
    )
    out = tmp_path_factory.mktemp("runs")
    return sweep(experiments, 3, out=out, workers=1, progress=False)


def test_published_values_are_the_papers():
    table = published(algorithm="canonical", operator="none", epoch=399, loss="l1")
    assert list(table.value) == [0.268]
    assert len(published()) == 95


def test_algorithms_are_told_apart(study):
    algorithms = study.settings.algorithm
    assert algorithms["canonical none"] == "canonical"
    assert algorithms["ring none"] == "lipi-ae-s"
    assert algorithms["one none"] == "one cell"
    assert study.settings.reading["as meant none"] == "as intended"


def test_find_takes_the_run_of_a_preset_and_the_best_measured(study, tmp_path):
    assert find(study, "canonical", operator="none") is study.runs["canonical none"]
    assert (
        find(study, "canonical", operator="none", as_released=False) is study.runs["as meant none"]
    )
    assert find(study, "one cell") is study.runs["one none"]
    assert find(study, "canonical", operator="random", schedule="fixed") is None
    assert find(study, "canonical", operator="random", pruned_weights="masked") is None
    more = sweep(grid("canonical", **TINY), 4, out=tmp_path, workers=1, progress=False)
    both = Study(study.runs | {"more": more.runs["canonical"]})
    assert find(both, "canonical", operator="none") is more.runs["canonical"]


def test_published_rows_meet_their_runs(study):
    table = compare_with(study, published())
    assert set(zip(table.algorithm, table.operator, strict=True)) == {
        ("canonical", "none"),
        ("canonical", "random"),
        ("canonical", "conjunctive"),
        ("lipi-ae-s", "none"),
        ("lipi-ae-s", "random"),
    }
    last = table[
        (table.algorithm == "canonical") & (table.operator == "none") & (table.epoch == 399)
    ]
    mean = study.runs["canonical none"].result["mean"]["train_l1"]
    assert last.reproduced.item() == pytest.approx(mean)
    assert last.difference.item() == pytest.approx(mean - 0.268)
    assert last.low.item() <= mean <= last.high.item()
    assert last.trials.item() == 3
    assert table.label.str.contains(r"\d bits, (?:\d+ cells, )?\d+ epochs").all()  # not the paper's
    # a value that is in two of the paper's figures is compared once
    assert not table.duplicated(["label", "metric"]).any()


def test_collect_finds_every_run_and_leaves_out_damaged_ones(study, tmp_path):
    folder = next(iter(study.runs.values())).folder.parent
    assert set(collect(folder).runs) == {run.folder.name for run in study.runs.values()}
    with pytest.raises(ValueError, match="holds no finished runs"):
        collect(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match="no finished"),
    ):
        collect(tmp_path)


def test_runs_of_another_meaning_are_left_out(study, tmp_path):
    run = next(iter(study.runs.values()))
    for name in ("now", "before"):
        shutil.copytree(run.folder, tmp_path / name)
    folder = tmp_path / "before"
    files.write_json(folder / "config.json", run.config | {"meaning": 1})
    digests = run.result["files"] | {"config.json": files.digest(folder / "config.json")}
    files.write_json(folder / "result.json", run.result | {"files": digests})
    with pytest.warns(UserWarning, match=r"before: made by an evoae that computes other numbers"):
        assert list(collect(tmp_path).runs) == ["now"]


def test_every_claim_gets_a_verdict_in_both_readings(study):
    table = claims.verdicts(claims.comparisons(study))
    assert sorted(zip(table.claim, table.reading, strict=True)) == sorted(
        (number, reading) for number in range(1, 8) for reading in ("as intended", "as released")
    )
    assert set(table[table.reading == "as intended"].verdict) == {"not run"}
    released = table[table.reading == "as released"].set_index("claim")
    assert released.comparisons[1] == "1 of 2"
    assert released.comparisons[7] == "2 of 3"


def verdicts(study: Study) -> pd.DataFrame:
    return claims.verdicts(claims.comparisons(study)).set_index(["claim", "reading"])


def fake(study: Study, losses: dict[str, list[float]], tmp_path) -> Study:
    """The study with other final losses, for verdicts whose answer is known."""
    runs = {}
    for label, values in losses.items():
        run = study.runs[label]
        copy = object.__new__(type(run))
        copy.__dict__.update(run.__dict__)
        copy.result = json.loads(json.dumps(run.result))
        copy.config = run.config | {"trials": [0, len(values)]}
        copy.result["trials"] = [
            {"trial": trial, "train_l1": value} for trial, value in enumerate(values)
        ]
        runs[label] = copy
    return Study(runs)


@pytest.mark.parametrize(
    ("guided", "verdict"),
    [(0.2, "supported"), (0.4, "contradicted")],
)
def test_a_clear_difference_is_a_verdict(study, guided, verdict, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.001, 20)
    losses = {
        "canonical random": list(0.3 + noise),
        "canonical conjunctive": list(guided + noise[::-1]),
    }
    table = verdicts(fake(study, losses, tmp_path))
    assert table.verdict[1, "as released"] == verdict
    assert table["largest p (Holm)"][1, "as released"] < 0.001


def test_equivalence_needs_an_interval_within_the_margin(study, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.001, 20)
    for shift, verdict in ((0.002, "supported"), (0.05, "contradicted")):
        losses = {
            "canonical none": list(0.27 + noise),
            "canonical conjunctive": list(0.27 + shift + noise[::-1]),
        }
        table = verdicts(fake(study, losses, tmp_path))
        assert table.verdict[2, "as released"] == verdict


def test_few_trials_leave_a_claim_open(study, tmp_path):
    losses = {"canonical random": [0.4, 0.41, 0.42], "canonical conjunctive": [0.2, 0.21, 0.22]}
    table = verdicts(fake(study, losses, tmp_path))
    assert table.verdict[1, "as released"] == "open, tends to yes"


def test_verdicts_by_hand():
    assert claims.verdict([]) == "not run"
    assert claims.verdict(["yes", "yes"]) == "supported"
    assert claims.verdict(["yes", "open"]) == "supported in part"
    assert claims.verdict(["yes", "no"]) == "mixed"
    assert claims.verdict(["no", "tends to yes"]) == "contradicted"
    assert claims.verdict(["tends to yes", "tends to no"]) == "open"
    assert claims.verdict(["tends to no"]) == "open, tends to no"


def test_holm_is_over_all_comparisons_of_a_reading(study):
    table = claims.comparisons(study)
    released = table[(table.reading == "as released") & (table.says != "not run")]
    p = released.p.astype(float)
    assert (released.p_holm >= p - 1e-12).all()
    assert released.p_holm.min() == pytest.approx(min(1, p.min() * p.notna().sum()))


def test_overview_has_a_row_per_run(study):
    assert sorted(study.overview.run) == sorted(study.runs)
    assert isinstance(study.overview, pd.DataFrame)


def test_the_experiment_of_a_run_is_its_settings(study):
    expected = Experiment.preset("lipi-ae-s", operator="random", cells=3, **TINY)
    assert study.runs["ring random"].experiment == expected


def test_runs_of_different_sizes_are_not_compared(study, tmp_path):
    longer = sweep(
        grid("canonical", prefix="longer", operator=["random"], **(TINY | {"epochs": 12})),
        6,
        out=tmp_path,
        workers=1,
        progress=False,
    )
    guided, more = study.runs["canonical conjunctive"], longer.runs["longer random"]
    row = claims.comparisons(Study({"a": guided, "b": more})).query("claim == 1").iloc[0]
    assert row.says == "not run"
    both = Study({"a": guided, "b": more, "c": study.runs["canonical random"]})
    row = claims.comparisons(both).query("claim == 1").iloc[0]
    assert row.n == 3


def test_the_direction_is_that_of_the_rank_test(study, tmp_path):
    """Two collapsed trials of thirty turn the mean, and not the verdict."""
    noise = np.random.default_rng(0).normal(0, 0.001, 30)
    guided = 0.25 + noise
    guided[:2] = 0.9
    losses = {"canonical random": list(0.27 + noise[::-1]), "canonical conjunctive": list(guided)}
    row = claims.comparisons(fake(study, losses, tmp_path)).query("claim == 1").iloc[0]
    assert row.difference > 0
    assert row.says == "yes"
