"""The tables of results: of full-size runs, those of the most trials."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_claims import finished, paper

from evoae.study.analysis import claims, confounds, published, results
from evoae.study.analysis.published import published as figures
from evoae.study.runs.study import Study


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables of their own, in which nothing was run yet."""
    for name in ("REPRODUCED", "CONTRASTS"):
        monkeypatch.setattr(results, name, tmp_path / getattr(results, name).name)
    nothing = Study({})
    published.summary(nothing).to_csv(results.REPRODUCED, index=False)
    claims.contrasted(nothing).to_csv(results.CONTRASTS, index=False)
    # the runs of these tests have no history
    monkeypatch.setattr(published, "summary", lambda study: results.reproduced())
    return tmp_path


def test_contrasts_of_results_say_what_the_study_said(tables: Path) -> None:
    assert set(results.contrasts().says) == {"not run"}
    study = Study(paper(15))
    results.update(study)
    pd.testing.assert_frame_equal(
        results.contrasts(), claims.comparisons(study), check_dtype=False, rtol=1e-4
    )


def test_what_has_fewer_trials_or_is_smaller_changes_nothing(tables: Path) -> None:
    results.update(Study(paper(15)))
    before = results.CONTRASTS.read_bytes()
    results.update(Study(paper(8)))
    results.update(Study(paper(30, bits=100)))
    assert results.CONTRASTS.read_bytes() == before


def test_a_study_of_which_every_contrast_was_measured_is_kept(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = claims.contrasted(Study(paper(15))).ffill().bfill().infer_objects()
    measured["size"] = ["of another size"] * 2 + [published.PAPER[0]] * (len(measured) - 2)
    monkeypatch.setattr(claims, "contrasted", lambda study: measured.copy())
    results.update(Study({}))
    assert results.contrasts().n.notna().sum() == len(measured) - 2


def test_parts_come_together(tables: Path) -> None:
    runs = paper(15)
    results.update(Study({name: runs[name] for name in ("ring", "random", "conjunctive")}))
    assert (results.contrasts().says != "not run").sum() == 2
    results.update(Study({name: runs[name] for name in ("ring", "canonical none")}))
    assert (results.contrasts().says != "not run").sum() == 3
    more = {"ring": finished("lipi-ae-s", 0.156, 20), "alone": finished("canonical", 0.271, 20)}
    results.update(Study(more))
    assert sorted(results.contrasts().n.dropna()) == [claims.TRIALS] * 3


def test_the_summary_is_of_published_values() -> None:
    found, known = results.reproduced(), figures()
    assert len(found.merge(known, on=list(known.columns))) == len(found)
    assert ((found.low <= found.reproduced) & (found.reproduced <= found.high)).all()
    assert (found.trials >= 10).all()


def test_the_front_has_each_point_once_within_its_interval() -> None:
    found = results.front()
    assert not found.duplicated(results.POINT).any()
    assert ((found.low <= found["mean"]) & (found["mean"] <= found.high)).all()
    assert (found.n >= 6).all()


def test_a_front_grows_by_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FRONTIER", tmp_path / "front.csv")

    def rows_of(trials: int, **more: float) -> pd.DataFrame:
        noise = [0.001 * (t % 3) for t in range(trials)]
        means = {"frontier": 0.05, "magnitude": 0.17} | more
        rows = [
            {"dataset": "d", "method": name, "target": 0.9, "trial": t, "test_l1": mean + noise[t]}
            for name, mean in means.items()
            for t in range(trials)
        ]
        sizes = {"constant_test_l1": 0.27, "macs": 10.0, "compact_parameters": 20, "steps": 30.0}
        return pd.DataFrame(rows).assign(**sizes)

    monkeypatch.setattr(results.frontier, "trials", lambda study: study)
    pd.DataFrame(columns=[*results.POINT, "n"]).to_csv(results.FRONTIER, index=False)
    results.update_front(rows_of(10))
    results.update_front(rows_of(6, obd=0.06))
    front = results.front().set_index("method")
    assert front.n.to_dict() == {"frontier": 10, "magnitude": 10, "obd": 6}
    assert front["shift"].frontier == pytest.approx(-0.12)
    assert front.p_holm.frontier == pytest.approx(2 * 2 / 2**10, rel=1e-3)
    assert pd.isna(front["shift"].magnitude)


@pytest.mark.parametrize("name", results.DESIGNS)
@pytest.mark.parametrize("dataset", ["digits", "binary-clusters"])
def test_no_run_of_a_design_is_twice(name: str, dataset: str) -> None:
    table = results.design(name, dataset)
    assert not table.duplicated(["data_seed", "trial", *results.DESIGNS[name]]).any()
    assert table.data_seed.nunique() == 5


def test_runs_of_a_design_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = results.design("gap")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(confounds, "table_of", lambda study: study)
    results.update_design("gap", table[table.data_seed == 0])
    results.update_design("gap", table.assign(loss="l1"))
    pd.testing.assert_frame_equal(results.design("gap"), table)
