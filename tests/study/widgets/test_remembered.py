"""Knobs that survive a restart of the kernel."""

from __future__ import annotations

import json

import pytest

from evoae.study.widgets import LiveTraining, ScheduleExplorer
from evoae.study.widgets.remembered import FILE

CHANGED = {
    "preset": "frontier",
    "subpopulation": 1,
    "schedules": ["exponential", "points"],
    "probability": 0.3,
    "epochs": 7,
    "points": [[0.0, 0.1], [0.5, 0.6], [1.0, 0.7]],
    "operator": "magnitude",
    "allocation": "erk",
    "schedule": "points",
    "learning_rate": 0.002,
    "model": "8-3",
    "dataset": "patches",
}


def started(folder, remember: bool | None = True, **given) -> LiveTraining:
    """As the notebook starts it, in a kernel that knows nothing of others."""
    explorer = ScheduleExplorer(epochs=given.pop("epochs", 5))
    return LiveTraining(explorer, folder=folder, remember=remember, **given)


def said(live: LiveTraining) -> dict:
    return {name: getattr(*knob) for name, knob in live.remembered.knobs.items()}


def left(folder, **values) -> LiveTraining:
    live = started(folder)
    for name, value in values.items():
        setattr(*live.remembered.knobs[name], value)
    return live


def test_knobs_come_back_and_go_back(tmp_path):
    before = said(started(tmp_path))
    first = left(tmp_path, **CHANGED)
    assert first.message.value == ""
    again = started(tmp_path)
    assert said(again) == said(first) != before
    assert again.experiment() == first.experiment()
    assert again.experiment().schedule == "points:0,0.1;0.5,0.6;1,0.7"
    assert again.copy.value == first.copy.value
    assert "as you left them" in again.message.value
    again.reset.click()
    assert said(again) == before
    assert said(started(tmp_path)) == before
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_what_is_edited_in_the_notebook_counts(tmp_path):
    left(tmp_path, probability=0.3, epochs=7)
    again = started(tmp_path, epochs=9)
    assert again.explorer.epochs.value == 9
    assert again.explorer.probability.value == 0.3


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> LiveTraining:
    return started(tmp_path_factory.mktemp("changed"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operator", "gone"),
        ("schedules", ["fixed", "gone"]),
        ("schedules", "fixed"),
        ("probability", 1.5),
        ("probability", "0.5"),
        ("probability", float("nan")),
        ("epochs", -1),
        ("epochs", 7.5),
        ("epochs", True),
        ("subpopulation", 4),
        ("dataset", "gone.csv"),
        ("points", [[0, 2]]),
        ("points", [["a", "b"]]),
        ("preset", "gone"),
        ("former", 1),
    ],
)
def test_a_value_that_is_not_valid_is_left_as_the_notebook_says(tmp_path, changed, name, value):
    remembered = changed.remembered
    remembered.path = tmp_path / FILE
    given, knobs = remembered.given, remembered.given | {"amount": 0.3, name: value}
    remembered.path.write_text(json.dumps({"version": 1, "given": given, "knobs": knobs}))
    remembered.restore()
    assert remembered.values() == given | {"amount": 0.3}
    assert f"left as the notebook says: {name}." in remembered.words
    remembered.reset()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("\0\1", "damaged"),
        ('{"version": 0, "given": {}, "knobs": {}}', "another version"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "given": [], "knobs": {"epochs": 3}}', "damaged"),
        ('{"version": 1, "given": {}, "knobs": 3}', "damaged"),
    ],
)
def test_a_damaged_or_older_file_is_ignored_with_a_word(tmp_path, text, words):
    (tmp_path / FILE).write_text(text)
    live = started(tmp_path)
    assert words in live.message.value
    assert str(tmp_path / FILE) in live.message.value
    assert live.remembered.values() == live.remembered.given
    live.explorer.probability.value = 0.3  # and it is replaced
    assert json.loads((tmp_path / FILE).read_text())["knobs"]["probability"] == 0.3


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    live = started(tmp_path / "file")
    assert "The knobs cannot be kept: " in live.message.value
    live.train(wait=True)
    assert live.message.value == ""
    live.explorer.probability.value = 0.3
    assert live.message.value == ""


def test_nothing_is_remembered_where_nobody_looks(tmp_path):
    live = started(tmp_path, remember=None)
    live.explorer.probability.value = 0.3
    assert list(tmp_path.iterdir()) == []


def test_knobs_stay_while_a_training_runs(tmp_path):
    live = left(tmp_path, epochs=100_000, model="8-3")
    live.start.click()
    live.reset.click()
    assert live.epochs.value == 100_000
    live.end()
    assert live.trainer.join(60)
    live.reset.click()
    assert live.epochs.value == 5
