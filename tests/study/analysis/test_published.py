"""Finished runs side by side, and beside the values of the paper."""

import shutil

import pytest
from helpers import tiny

import evoae.experiment
from evoae import Experiment, grid, run, sweep
from evoae.study.analysis.published import (
    compare_with,
    find,
    published,
    summary,
)
from evoae.study.runs import files, merge
from evoae.study.runs.study import Study, collect

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
    assert last[["low", "high"]].isna().all(axis=None)  # of three trials
    assert last.trials.item() == 3
    assert last.model_steps.item() == 8 * 3  # epochs, batches of five of twelve rows
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
    with pytest.warns(
        UserWarning, match=r"before: made by a version of evoae that computes other numbers"
    ):
        assert list(collect(tmp_path).runs) == ["now"]


def test_denoising_runs_whose_noise_was_drawn_otherwise_count_as_others(tmp_path, monkeypatch):
    noisy, plain = tiny(kind="denoising"), tiny()
    now = noisy.hash(), plain.hash()
    with monkeypatch.context() as before:
        before.setattr(evoae.experiment, "meaning", lambda kind: 3)
        before.setattr(merge, "meaning", lambda kind: 3)
        assert noisy.hash() != now[0]
        assert plain.hash() == now[1]
        old = [run(e, out=tmp_path, progress=False).folder for e in (noisy, plain)]
    with pytest.warns(UserWarning, match="computes other numbers"):
        assert list(collect(tmp_path).runs) == [old[1].name]
    new = [run(e, out=tmp_path, progress=False).folder for e in (noisy, plain)]
    assert new[0] != old[0]
    assert new[1] == old[1]
    with pytest.warns(UserWarning, match="computes other numbers"):
        assert set(collect(tmp_path).runs) == {folder.name for folder in new}


def test_overview_has_a_row_per_run(study):
    assert sorted(study.overview.run) == sorted(study.runs)


def test_the_experiment_of_a_run_is_its_settings(study):
    expected = Experiment.preset("lipi-ae-s", operator="random", cells=3, **TINY)
    assert study.runs["ring random"].experiment == expected


def test_a_summary_is_of_runs_of_the_papers_size(study: Study) -> None:
    assert summary(study).empty
