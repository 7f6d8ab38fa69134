"""The forest of claims: a row per contrast that was run, filled where the test decides."""

from __future__ import annotations

import pandas as pd

from evoae import figures


def rows() -> pd.DataFrame:
    columns = ["claim", "role", "reading", "a", "b", "shift", "low", "high", "says"]
    nan, released = float("nan"), "as released"
    table = [
        (3, "claim", released, "x", "y", -0.1, -0.2, -0.05, "yes"),
        (1, "claim", released, "v", "y", nan, nan, nan, "not run"),
        (3, "control: why?", "as intended", "z", "y", 0.1, 0.05, 0.2, "no"),
        (2, "claim", released, "w", "y", 0.0, -0.01, 0.1, "open"),
    ]
    return pd.DataFrame(table, columns=columns)


def test_a_forest_has_what_was_run_by_claim_with_controls_named():
    ax = figures.forest(rows()).axes[0]
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["2. w – y", "3. x – y", "3, control: z – y"]
    spans = [c.get_segments()[0][:, 0].tolist() for c in ax.collections]
    assert spans == [[-0.01, 0.1], [-0.2, -0.05], [0.05, 0.2]]
    marks = ax.lines[:3]
    assert [line.get_marker() for line in marks] == ["o", "o", "s"]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [True, False, False]


def test_without_runs_the_forest_says_so():
    figure = figures.forest(rows().query("says == 'not run'"))
    assert "No run here" in figure.texts[0].get_text()
