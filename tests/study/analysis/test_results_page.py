"""The page of results is what the tables of results say, and it says it for other tables, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evoae.study.analysis import results, results_page

PAGE = Path(__file__).parents[3] / "notebooks" / "RESULTS.md"


def test_making_the_page_again_changes_nothing() -> None:
    assert results_page.page() == PAGE.read_text(encoding="utf-8")


def test_another_table_changes_the_numbers_and_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    front = results.front()
    known = front.method == "frontier"
    worse = front["mean"].mask(known, 0.9)
    monkeypatch.setattr(results, "front", lambda: front.assign(mean=worse))
    page = results_page.page()
    assert "(`frontier`)" not in page
    assert "(`frontier-ring`)" in page
    assert "0.900" in page


def test_a_method_that_does_not_beat_the_constant_is_marked() -> None:
    alive = pd.Series({"mean": 0.1, "low": 0.09, "high": 0.11, "constant_test_l1": 0.2, "macs": 5})
    assert results_page.loss_of(alive) == "0.100 [0.090, 0.110]"
    for changed in ({"high": 0.2}, {"macs": 0}, {"mean": np.inf, "low": np.nan, "high": np.inf}):
        shown = results_page.loss_of(pd.Series({**alive, **changed}))
        assert shown.endswith(results_page.DEAD)


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0001, "0.000"), (0.1234, "0.123"), (float("nan"), "–"), (1, "1.000")]
)
def test_numbers_have_three_decimals_and_no_negative_zero(value: float, said: str) -> None:
    assert results_page.number(value) == said


def test_words_are_listed() -> None:
    assert results_page.listed(["a"]) == "a"
    assert results_page.listed(["a", "b", "c"]) == "a, b and c"
