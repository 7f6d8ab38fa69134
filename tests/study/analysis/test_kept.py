"""The kept tables: of full-size runs, the most trials, and what README says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_claims import finished, paper

from evoae.study.analysis import claims, confounds, kept, published
from evoae.study.analysis.findings import READ
from evoae.study.analysis.published import NAMES
from evoae.study.analysis.published import published as figures
from evoae.study.analysis.statistics import mean_interval
from evoae.study.runs.study import Study


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables of their own, in which nothing was run yet."""
    for name in ("REPRODUCED", "CONTRASTS"):
        monkeypatch.setattr(kept, name, tmp_path / getattr(kept, name).name)
    nothing = Study({})
    published.summary(nothing).to_csv(kept.REPRODUCED, index=False)
    claims.contrasted(nothing).to_csv(kept.CONTRASTS, index=False)
    # the runs of these tests have no history
    monkeypatch.setattr(published, "summary", lambda study: kept.reproduced())
    return tmp_path


def test_kept_contrasts_say_what_the_study_said(tables: Path) -> None:
    assert set(kept.contrasts().says) == {"not run"}
    study = Study(paper(15))
    kept.keep(study)
    pd.testing.assert_frame_equal(
        kept.contrasts(), claims.comparisons(study), check_dtype=False, rtol=1e-4
    )


def test_what_has_fewer_trials_or_is_smaller_changes_nothing(tables: Path) -> None:
    kept.keep(Study(paper(15)))
    before = kept.CONTRASTS.read_bytes()
    kept.keep(Study(paper(8)))
    kept.keep(Study(paper(30, bits=100)))
    assert kept.CONTRASTS.read_bytes() == before


def test_a_study_of_which_every_contrast_was_measured_is_kept(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = claims.contrasted(Study(paper(15))).ffill().bfill().infer_objects()
    measured["size"] = ["of another size"] * 2 + [published.PAPER[0]] * (len(measured) - 2)
    monkeypatch.setattr(claims, "contrasted", lambda study: measured.copy())
    kept.keep(Study({}))
    assert kept.contrasts().n.notna().sum() == len(measured) - 2


def test_parts_come_together(tables: Path) -> None:
    runs = paper(15)
    kept.keep(Study({name: runs[name] for name in ("ring", "random", "conjunctive")}))
    assert (kept.contrasts().says != "not run").sum() == 2
    kept.keep(Study({name: runs[name] for name in ("ring", "canonical none")}))
    assert (kept.contrasts().says != "not run").sum() == 3
    more = {"ring": finished("lipi-ae-s", 0.156, 20), "alone": finished("canonical", 0.271, 20)}
    kept.keep(Study(more))
    assert sorted(kept.contrasts().n.dropna()) == [15, 15, 20]


def test_the_kept_summary_is_of_published_values_and_says_what_readme_says() -> None:
    found, known = kept.reproduced(), figures()
    assert len(found.merge(known, on=list(known.columns))) == len(found)
    assert ((found.low <= found.reproduced) & (found.reproduced <= found.high)).all()
    assert (found.trials >= 10).all()
    losses = found[found.metric == "train_l1"].drop_duplicates(NAMES[1:])
    met = (losses.low - READ <= losses.value) & (losses.value <= losses.high + READ)
    difference = losses.reproduced - losses.value
    low, high = mean_interval(difference)
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    assert f"{len(found)} of the 95 published values" in readme
    assert f"{met.sum()} of the {len(losses)} losses among them are met" in readme
    assert f"the mean difference is {difference.mean():.3f} [{low:.3f}, {high:.3f}]" in readme
    absolute = difference.abs()
    said = f"the mean absolute one {absolute.mean():.3f}, the largest {absolute.max():.3f}"
    assert said in readme


COLUMNS = (
    "frontier",
    "frontier-ring",
    "frontier-magnitude",
    "obd",
    "magnitude",
    "lamp",
    "wanda",
    "random",
)


def test_the_kept_front_is_the_table_of_readme() -> None:
    found = kept.front()
    assert not found.duplicated(kept.POINT).any()
    assert ((found.low <= found["mean"]) & (found["mean"] <= found.high)).all()
    assert (found.n >= 6).all()
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    for (dataset, target), rows in found[found.target >= 0.9].groupby(["dataset", "target"]):
        rows = rows.set_index("method")
        cells = [f"{rows['mean'][name]:.4f}" for name in COLUMNS]
        for column, name in ((0, "frontier"), (4, "magnitude")):
            cells[column] += f" [{rows.low[name]:.4f}, {rows.high[name]:.4f}]"
        said = f"| {dataset} | {target:.0%} | {' | '.join(cells)} | {rows.n.min()} |"
        assert said.replace("%", " %") in readme


def test_a_front_grows_by_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FRONTIER", tmp_path / "front.csv")

    def told(trials: int, **more: float) -> pd.DataFrame:
        noise = [0.001 * (t % 3) for t in range(trials)]
        means = {"frontier": 0.05, "magnitude": 0.17} | more
        rows = [
            {"dataset": "d", "method": name, "target": 0.9, "trial": t, "test_l1": mean + noise[t]}
            for name, mean in means.items()
            for t in range(trials)
        ]
        sizes = {"constant_test_l1": 0.27, "macs": 10.0, "compact_parameters": 20, "steps": 30.0}
        return pd.DataFrame(rows).assign(**sizes)

    monkeypatch.setattr(kept.frontier, "trials", lambda study: study)
    pd.DataFrame(columns=[*kept.POINT, "n"]).to_csv(kept.FRONTIER, index=False)
    kept.keep_front(told(10))
    kept.keep_front(told(6, obd=0.06))
    front = kept.front().set_index("method")
    assert front.n.to_dict() == {"frontier": 10, "magnitude": 10, "obd": 6}
    assert front["shift"].frontier == pytest.approx(-0.12)
    assert front.p_holm.frontier == pytest.approx(2 * 2 / 2**10, rel=1e-3)
    assert pd.isna(front["shift"].magnitude)


def test_readme_says_the_verdicts_of_the_kept_contrasts() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    table = readme[readme.index("| claim | reading |") :].split("\n\n")[0].splitlines()[2:]
    said, claim = {}, 0
    for line in table:
        first, reading, words = (cell.strip() for cell in line.strip("|").split("|"))
        claim = int(first[0]) if first[:1].isdigit() else claim if not first else None
        if claim is not None:
            said[claim, reading] = words
    verdicts = claims.verdicts(kept.contrasts())
    run = verdicts[~verdicts.verdict.str.contains("not run")]
    assert len(run) == len(said) >= 6
    for row in run.itertuples():
        assert said[row.claim, row.reading].startswith(row.verdict)


def test_readme_says_what_the_kept_designs_say() -> None:
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    for dataset in ("digits", "binary-clusters"):
        crossed = kept.design("mechanism", dataset)
        others = (kept.design(name, dataset) for name in ("populations", "timing", "tuning"))
        assert confounds.paragraph(crossed, *others) in readme
    ring = crossed[(crossed.optimiser == "adam-per-batch") & (crossed.rate_policy == "mutated")]
    means = ring[ring.pruning == "none"].groupby("place").train_l1.mean()
    said = f"isolated cells end at {means['isolated']:.3f}, a ring at {means['ring']:.3f}"
    assert said in readme
    means = ring[ring.pruning == "random"].groupby("place").train_l1.mean()
    assert f"end at {means['isolated']:.3f} isolated" in readme
    assert f"at {means['ring without selection']:.3f} where each takes over a neighbour" in readme
    assert f"and at {means['ring']:.3f} where the better one is taken" in readme
    masked = crossed[crossed.pruning == "random, masked"].train_l1
    assert "each of design A's ninety runs ends above 0.495" in readme
    assert len(masked) == 90
    assert masked.min() > 0.495


@pytest.mark.parametrize("name", kept.DESIGNS)
@pytest.mark.parametrize("dataset", ["digits", "binary-clusters"])
def test_no_run_of_a_design_is_kept_twice(name: str, dataset: str) -> None:
    table = kept.design(name, dataset)
    assert not table.duplicated(["data_seed", "trial", *kept.DESIGNS[name]]).any()
    assert table.data_seed.nunique() == 5


def test_runs_of_a_design_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = kept.design("mechanism")
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(confounds, "table_of", lambda study: study)
    kept.keep_design("mechanism", table[table.data_seed == 0])
    kept.keep_design("mechanism", table.assign(loss="l1"))
    pd.testing.assert_frame_equal(kept.design("mechanism"), table)
