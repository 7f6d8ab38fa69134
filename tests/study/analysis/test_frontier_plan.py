"""The full-size design F, at a tiny size: every part ends in its table, once."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pytest

from evoae.study.analysis import frontier, frontier_page, frontier_plan, results

DATA = "breast_cancer"


def test_every_part_puts_its_trials_into_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tables = {"TRIALS": results.TRIALS_COLUMNS, "TUNING": results.front_tuning().columns}
    for name, columns in tables.items():
        monkeypatch.setattr(results, name, tmp_path / f"{name}.csv")
        pd.DataFrame(columns=columns).to_csv(tmp_path / f"{name}.csv", index=False)
    monkeypatch.setattr(frontier, "STEPS", {DATA: 160})
    monkeypatch.setattr(frontier_plan, "METHODS", ("magnitude", "dense"))
    monkeypatch.setattr(frontier, "search", functools.partial(frontier.search, count=1))
    where = {"workers": 1, "progress": False}
    for part in (frontier_plan.front, frontier_plan.parts, frontier_plan.masks):
        part(DATA, 1, tmp_path, **where)
    frontier_plan.masks(DATA, 2, tmp_path, **where)
    front = results.front_trials("front")
    # 96 % of all parameters are all weights of so small a network
    assert sorted(front.target.unique()) == list(frontier_plan.SPARSITIES)[:-1]
    assert set(front.method) == set(frontier_plan.METHODS)
    assert set(results.front_tuning().tuned_at) == set(frontier.TUNED_AT)
    assert set(results.front_trials("parts").method) == set(frontier.PARTS)
    masks = results.front_trials("masks")
    assert masks.groupby("method").trial.apply(list).map(sorted).tolist() == [[0, 1]] * 5
    assert frontier_page.FOUND in set(masks.method)
