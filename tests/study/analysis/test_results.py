"""The tables of results: of full-size runs, those of the most trials."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_claims import finished, paper

from evoae.study.analysis import claims, published, results
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


# the older designs, and what tells apart the runs of one data seed and trial
DESIGNS = {
    "tuning": ["learning_rate", "optimiser", "rate_policy", "loss"],
    "gap": ["pruning", "optimiser", "rate_policy", "place", "neighbours", "selection"],
    "timing": ["operator", "when"],
    "populations": ["cells", "place"],
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("dataset", ["digits", "binary-clusters"])
def test_no_run_of_a_design_is_twice(name: str, dataset: str) -> None:
    table = results.design(name, dataset)
    assert not table.duplicated(["data_seed", "trial", *DESIGNS[name]]).any()
    assert table.data_seed.nunique() == 5
