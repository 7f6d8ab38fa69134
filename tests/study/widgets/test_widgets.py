"""The widgets without a browser: set values, click, wait for the thread, look at the picture."""

from __future__ import annotations

import io
import shlex
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, assert_same_bits, tiny
from ipywidgets import Button, DOMWidget, Widget
from matplotlib.colors import to_rgb
from PIL import Image

from evoae import Experiment, Run, cli, run
from evoae.experiment import PRESETS, SETTINGS, parse_settings
from evoae.pruning import schedules
from evoae.study.analysis.published import find
from evoae.study.figures import look
from evoae.study.report import notebooks
from evoae.study.runs.study import collect
from evoae.study.widgets import (
    ActivationInspector,
    LiveTraining,
    ScheduleExplorer,
    TrainingsSoFar,
    inside,
    live,
    parts,
    plots,
    trainings,
    views,
)
from evoae.study.widgets import pixels as pictures
from evoae.study.widgets.explorer import SLIDERS
from evoae.study.widgets.trainer import Trainer

SMALL = {"dataset": "digits", "model": "8-3"}
PASSIVE = ("HTML", "IntProgress")  # show, and cannot be set


def pixels(widget: parts.View) -> np.ndarray:
    """The decoded picture, [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(look.png(widget.figure()))).convert("RGB"))


def decoded(picture: dict) -> np.ndarray:
    """What a notebook shows of a picture, [height, width, 4]."""
    return np.asarray(Image.open(io.BytesIO(picture["png"])))


LONG = 100_000  # epochs that no test sees the end of, however long it is kept waiting
PATIENCE = 300  # seconds, however busy the machine is: for what would otherwise never come


def until(condition) -> None:
    for _ in range(100 * PATIENCE):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def within(widget: Widget) -> list[Widget]:
    return [widget, *(part for child in getattr(widget, "children", ()) for part in within(child))]


@pytest.fixture
def training():
    """A LiveTraining of a small network that would go on for long; stopped at the end."""
    explorer = ScheduleExplorer(epochs=LONG, subpopulation=1)
    made = LiveTraining(explorer, **SMALL, preset="canonical")
    yield made
    made.end()
    if made.trainer is not None:
        assert made.trainer.join(PATIENCE)


def long_and_started(training: LiveTraining) -> None:
    training.start.click()
    until(lambda: training.trainer.curves.done > 1 or training.trainer.curves.error)
    assert not training.trainer.curves.error


# -- schedule explorer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "target", "prunes", "regrown", "lasting"),
    [
        ([0.0, 0.5, 1.0], False, 1.5, [1, 0.9, 0.8], [1, 0.9, 0.72]),
        ([0.0, 0.3, 0.5], True, 2, [1, 0.7, 0.5], [1, 0.7, 0.5]),
        ([0.5, 0.3], True, 2, [0.5, 0.7], [0.5, 0.5]),  # what stays zero does not come back
    ],
)
def test_expectations_by_hand(values, target, prunes, regrown, lasting):
    values = np.array(values)
    assert views.expected_prunes(values, target) == prunes
    for regrowth, left in ((True, regrown), (False, lasting)):
        found = views.expected_preserved(values, 0.2, regrowth=regrowth, target=target)
        np.testing.assert_allclose(found, left)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("schedules", ("increase", "cubic", "prune-after")),
        ("probability", 0.9),
        ("steepness", 7.0),
        ("last_share", 0.6),
        ("target_sparsity", 0.9),
        ("prune_until", 0.4),
        ("amount", 0.3),
        ("reading", "intended"),
        ("epochs", 50),
        ("subpopulation", 7),
    ],
)
def test_every_knob_of_the_explorer_changes_picture_and_lines(knob, value):
    explorer = ScheduleExplorer("exponential final-n cubic decrease population", epochs=40)
    training = LiveTraining(explorer, **SMALL)
    before, lines = curves_of(explorer), training.copy.value
    getattr(explorer, knob).value = value
    assert curves_of(explorer) != before
    assert training.copy.value != lines
    assert explorer.message.value == ""


def test_impossible_knobs_are_explained_and_break_nothing():
    explorer = ScheduleExplorer(epochs=20)
    before = curves_of(explorer)
    explorer.epochs.value = 0
    assert "epochs=0 must be at least 1" in explorer.message.value
    assert curves_of(explorer) == before
    explorer.epochs.value = 30
    assert explorer.message.value == ""
    assert curves_of(explorer) != before
    explorer.schedules.value = ()
    assert "pick at least one schedule" in explorer.message.value


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"schedules": "fixed sometimes"}, "unknown schedule 'sometimes'"),
        ({"reading": "meant"}, "unknown reading 'meant'"),
        ({"subpopulation": 2}, "subpopulation=2 must be one of"),
        ({"probability": 1.5}, "probability=1.5 must lie in"),
    ],
)
def test_impossible_arguments_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words.replace("[", "\\[")):
        ScheduleExplorer(**wrong)


def test_the_picture_is_replaced_only_when_it_differs(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    seen = []
    inspector.canvas.observe(seen.append, "shown")
    inspector.redraw()
    assert seen == []
    inspector.cell.value = 3
    assert len(seen) == 1


def curves_of(view: parts.View) -> list[tuple]:
    """What plotly draws: panel, name, x and y of every trace."""
    return [(t.xaxis, t.legendgroup, tuple(t.x), tuple(t.y)) for t in view.canvas.widget.data]


def test_plotly_and_matplotlib_draw_the_same_numbers():
    explorer = ScheduleExplorer("exponential cubic points:0,0;1,0.5", epochs=30)
    for _ in range(2):  # the second time, numbers of the same traces are replaced
        drawn = [line.get_ydata() for ax in explorer.figure().axes for line in ax.lines]
        touched = [y for *_, y in sorted(curves_of(explorer), key=lambda trace: trace[0])]
        np.testing.assert_allclose(drawn, touched)
        explorer.probability.value = 0.9
    layout = explorer.canvas.widget.layout
    assert [layout.xaxis.title.text, layout.yaxis.range] == ["Epoch", (-0.03, 1.03)]


def test_what_is_hidden_in_the_legend_stays_hidden():
    explorer = ScheduleExplorer("exponential fixed", epochs=30)
    for trace in explorer.canvas.widget.data[:3]:
        trace.visible = "legendonly"
    explorer.probability.value = 0.9
    explorer.schedules.value = ("exponential", "fixed", "cubic")
    seen = {t.legendgroup: t.visible for t in explorer.canvas.widget.data}
    assert seen == {"exponential": "legendonly", "fixed": None, "cubic": None}


def test_curves_can_be_taken_as_a_table(trained):
    name, text = trained.canvas.numbers()
    table = pd.read_csv(io.StringIO(text))
    assert name == "LiveTraining.csv"
    loss = table[table.panel.str.startswith("Validation loss")]
    np.testing.assert_allclose(loss.y, trained.state.loss.mean(1))
    np.testing.assert_allclose(loss.high, trained.state.loss.max(1))
    _, text = trained.explorer.canvas.numbers()
    assert set(pd.read_csv(io.StringIO(text)).series) == {"fixed"}
    assert LiveTraining(trained.explorer).canvas.numbers()[1] == "panel,series,x,y\n"


def test_before_the_first_epoch_there_are_words_and_no_axes(trained):
    begun = replace(trained.state, loss=np.empty((0, 3)), preserved=np.empty((0, 3)), pruned=[])
    plot = views.training_plot(begun)
    assert "0 of" in plot.heading[1]
    assert plot.panels == ()
    assert views.training_plot(replace(begun, before=trained.state)).panels
    chart = plots.Chart("curves.csv")
    for shown in (views.training_plot(trained.state), plot):
        chart.show(shown)
        assert chart.widget.layout.xaxis.visible is (shown is not plot)
    assert chart.widget.layout.annotations == ()


def test_levels_lie_within_the_picture(trained):
    state = replace(trained.state, floor=0.01, constant=0.9)
    low, high = views.training_plot(state).figure().axes[0].get_ylim()
    assert low < 0.01 < 0.9 < high


class Counted:
    """A schedule that counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, t, final, s):
        self.count += 1
        return 0.5


def test_a_long_run_is_looked_at_a_thousand_times_at_most():
    counted = Counted()
    schedules.register("counted", counted)
    explorer = ScheduleExplorer("fixed", epochs=100_000)
    state = views.Schedules(Experiment.preset("canonical", epochs=100_000), ("counted",))
    assert len(state.values("counted")) == counted.count <= 1000
    assert "about 50,000 prunes" in explorer.canvas.widget.data[0].name
    explorer.epochs.value = 100_000_000
    assert "epochs=100000000 must be at most 100000" in explorer.message.value
    explorer.epochs.value = 50
    assert explorer.message.value == ""


@pytest.mark.parametrize("epochs", [3, 960, 961, 5000])
@pytest.mark.parametrize("name", ["prune-once", "one-shot", "final-n", "fixed", "increase"])
def test_prunes_of_a_long_run_are_counted_right(epochs, name):
    e = Experiment.preset("canonical", operator="random", schedule=name, epochs=epochs)
    state = views.Schedules(e, (name,))
    target = schedules.find(name).target
    found = views.expected_prunes(state.values(name), target, state.weights)
    assert state.weights.sum() == epochs
    exact = views.expected_prunes(e.pruning_probabilities, target)
    assert found == pytest.approx(exact, rel=0.002, abs=1e-9)


# -- a schedule that is drawn --------------------------------------------------------------------


def test_a_drawn_schedule_is_trained_copied_and_opened_again(tmp_path):
    explorer = ScheduleExplorer("points:0,0.1;1,0.8", epochs=4, subpopulation=1)
    training = LiveTraining(explorer, **SMALL, preset="canonical", folder=tmp_path)
    assert explorer.drawing.points == [[0, 0.1], [1, 0.8]]
    before = curves_of(explorer)
    explorer.drawing.points = [[0, 0], [0.5, 0.6], [1, 0.9]]  # what dragging does
    assert curves_of(explorer) != before
    name = "points:0,0;0.5,0.6;1,0.9"
    assert explorer.picked == (name,)
    assert training.experiment().schedule == name
    (experiment,), given = copied(training)
    assert experiment == training.experiment()
    assert given["schedules"] == name
    training.train(wait=True)
    training.keep.click()
    assert Run(training.saved).experiment.schedule == name
    assert ScheduleExplorer(given["schedules"], epochs=4).picked == (name,)
    explorer.means.value = "probability-points"
    assert training.experiment().schedule == f"probability-{name}"


def test_the_pencil_is_there_where_a_schedule_is_drawn():
    explorer = ScheduleExplorer("fixed", epochs=20)
    assert explorer.drawn.layout.display == "none"
    explorer.schedules.value = ("fixed", "points")
    assert explorer.drawn.layout.display == ""
    assert explorer.picked == ("fixed", "points:0,0;0.4,0.9;1,0.9")
    with pytest.raises(ValueError, match="at most one"):
        ScheduleExplorer("points:0,0 points:1,1")


@pytest.mark.parametrize(
    ("picked", "idle"),
    [
        ("fixed", {"steepness", "last_share", "target_sparsity"}),
        ("exponential final-n", {"target_sparsity"}),
        ("cubic", {"probability", "steepness", "last_share", "amount"}),
        ("cubic increase", {"steepness", "last_share"}),
        ("points:0,0;1,1", set(SLIDERS)),
        ("probability-points:0,0;1,1", set(SLIDERS) - {"amount", "prune_until"}),
        ("one-shot", set(SLIDERS) - {"target_sparsity", "prune_until"}),
    ],
)
def test_knobs_without_effect_are_greyed(picked, idle):
    explorer = ScheduleExplorer(picked, epochs=20)
    assert {name for name in SLIDERS if getattr(explorer, name).disabled} == idle
    for name in idle - {"amount"}:
        before = curves_of(explorer)
        slider = getattr(explorer, name)
        slider.value = slider.max
        assert curves_of(explorer) == before, name


def test_a_users_schedule_is_in_the_lists():
    schedules.register("counted", Counted())
    explorer = ScheduleExplorer("counted", epochs=20)
    assert explorer.message.value == ""
    assert not any(getattr(explorer, name).disabled for name in SLIDERS)
    training = LiveTraining(explorer, **SMALL)
    assert ("counted", "counted") in training.schedule.options
    assert training.experiment().schedule == "counted"


def test_the_command_is_folded():
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    assert training.copy.layout.display == "none"
    training.unfold.value = True
    assert training.copy.layout.display == ""
    assert training.clip.give() == ("", training.copy.value)


# -- live training -------------------------------------------------------------------------------


def test_training_draws_until_the_end():
    training = LiveTraining(ScheduleExplorer(epochs=5), **SMALL)
    before = pixels(training)
    training.train(wait=True)
    assert training.trainer.status == "finished"
    assert training.bar.value == training.bar.max == 5
    assert not np.array_equal(before, pixels(training))
    assert not training.start.disabled
    assert training.stop.disabled
    curves = training.state
    assert curves.loss.shape == curves.preserved.shape == (5, 10)
    assert 0 < curves.loss.min() <= curves.loss.max() < 1
    assert curves.constant == pytest.approx(0.18, abs=0.03)


def test_the_picture_grows_while_it_trains(training):
    long_and_started(training)
    until(lambda: training.state is not None and training.state.done)
    before, done = pixels(training), training.state.done
    until(lambda: training.state.done > done)
    assert not np.array_equal(before, pixels(training))


@pytest.mark.parametrize("paused", [False, True])
def test_stop_stops(training, paused):
    long_and_started(training)
    if paused:
        training.pause.click()
    training.stop.click()
    assert training.trainer.join(PATIENCE)
    assert training.trainer.status == "stopped"
    done = training.trainer.curves.done
    time.sleep(0.1)
    assert training.trainer.curves.done == done < LONG
    assert not training.start.disabled


def test_stop_does_not_wait_for_a_long_epoch():
    """An epoch of this one takes minutes; the thread itself ends between two visits."""
    trainer = Trainer(Experiment.preset("lipi-ae-s", cells=5000, examples=1000, bits=100, epochs=5))
    trainer.start()
    until(lambda: trainer.data is not None)
    trainer.stop()
    assert trainer.wait(0)
    assert trainer.status == "stopped"
    assert trainer.join(PATIENCE)
    assert trainer.curves.done == 0


def test_pause_rests_and_goes_on(training):
    long_and_started(training)
    training.pause.click()
    assert training.pause.description == "Resume"
    done = training.trainer.curves.done
    time.sleep(0.1)
    assert training.trainer.curves.done <= done + 1  # the epoch that was running
    assert training.trainer.status == "paused"
    training.pause.click()
    assert training.pause.description == "Pause"
    until(lambda: training.trainer.curves.done > done + 1)


def test_two_trainings_in_a_row():
    training = LiveTraining(ScheduleExplorer(epochs=3), **SMALL)
    training.train(wait=True)
    first, picture = training.trainer, pixels(training)
    training.train(wait=True)
    assert training.trainer is not first
    np.testing.assert_array_equal(training.trainer.curves.loss, first.curves.loss)
    training.operator.value = "magnitude"
    training.train(wait=True)
    assert not np.array_equal(picture, pixels(training))
    assert training.ended == 3


def test_a_change_applies_from_the_next_epoch_and_is_marked(training):
    training.schedule.value = "prune-after"
    long_and_started(training)
    training.schedule.value = "fixed"
    until(lambda: training.trainer.curves.changes)  # an epoch lies between the two changes
    first = training.trainer.curves.changes[0][0]
    training.explorer.probability.value = 1.0
    until(lambda: training.trainer.curves.pruned[-3:].all() or training.trainer.curves.error)
    curves = training.trainer.curves
    assert curves.experiment.probability == 1.0
    assert not curves.pruned[:first].any()
    training.end()
    ((second, words),) = curves.changes[1:]
    assert words == "probability: 1.0"
    assert second > first
    for number in (0, 1):
        marks = views.training_plot(training.trainer.curves).panels[number].marks
        assert marks[0] == (first - 0.5, "schedule: fixed")


def test_an_impossible_change_is_explained_and_training_goes_on(training):
    training.schedule.value = "fixed"
    long_and_started(training)
    training.operator.value = "set"
    assert "pruned_weights cannot change while training" in training.message.value
    done = training.trainer.curves.done
    until(lambda: training.trainer.curves.done > done + 2)
    assert training.trainer.status == "training"
    assert training.trainer.curves.changes == ()
    training.operator.value = "random"
    assert training.message.value == ""


@pytest.mark.parametrize(
    ("knob", "value", "words"),
    [
        ("dataset", "no/such.npy", "no/such.npy"),
        ("dataset", "digit", "did you mean digits?"),
        ("model", "fifty", "unknown model"),
        ("epochs", -1, "epochs=-1 must be at least 1"),
        ("learning_rate", -1.0, "learning_rate=-1.0 must not be negative"),
    ],
)
def test_an_impossible_setting_is_explained_and_breaks_nothing(knob, value, words):
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    before = pixels(training)
    old = getattr(training, knob).value
    getattr(training, knob).value = value
    assert words in training.message.value
    training.start.click()
    assert words in training.message.value
    assert not training.running
    assert np.array_equal(before, pixels(training))
    getattr(training, knob).value = old
    training.train(wait=True)
    assert training.message.value == ""
    assert training.trainer.status == "finished"


def test_whoever_waits_is_told_by_an_exception():
    training = LiveTraining(ScheduleExplorer(epochs=2), dataset="no/such.npy")
    with pytest.raises(ValueError, match=r"no/such\.npy"):
        training.train(wait=True)


def test_a_failure_in_the_thread_appears_in_the_widget(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("evoae.study.widgets.trainer.initial", broken)
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    training.start.click()
    until(lambda: training.ended)
    assert "the disk is on fire" in training.message.value
    assert not training.start.disabled


def test_threads_print_nothing(capfd):
    test_training_draws_until_the_end()
    assert capfd.readouterr() == ("", "")


COPIED = {
    "dataset": "patches",
    "model": "20-4",
    "operator": "magnitude",
    "learning_rate": 0.002,
    "seed": 7,
}


def copied(training: LiveTraining) -> tuple[list[Experiment], dict[str, str]]:
    """The experiments that the copied lines run, and the parameters that they give the notebook."""
    *runs, notebook = map(shlex.split, training.copy.value.splitlines())
    assert notebook[:3] == ["papermill", "notebooks/explore.ipynb", "explored.ipynb"]
    options = [cli.parser().parse_args(words[1:]) for words in runs]
    assert {(o.seed, o.trials, o.out) for o in options} == {(training.seed, "1", training.folder)}
    experiments = [Experiment.preset(o.preset, **parse_settings(o.words)) for o in options]
    return experiments, dict(zip(notebook[4::3], notebook[5::3], strict=True))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("reading", ["released", "intended"])
def test_copied_lines_run_what_would_be_trained(preset, reading):
    # the frontier exchanges weights on the way to a target, which the other lacks
    schedules = "one-shot cubic" if preset == "frontier" else "decrease cubic"
    explorer = ScheduleExplorer(schedules, 0.3, 3.0, reading=reading, subpopulation=5)
    training = LiveTraining(explorer, **COPIED, preset=preset)
    explorer.epochs.value = 7
    (first, second), _ = copied(training)
    assert first == training.experiment()
    assert second == training.experiment().replace(schedule="cubic")
    assert (first.dataset, first.learning_rate, first.model) == ("patches", 0.002, "20-4")


def test_a_redraw_builds_one_experiment_and_a_widget_that_follows_another(monkeypatch):
    explorer = ScheduleExplorer("exponential fixed decrease")
    training = LiveTraining(explorer, **SMALL)
    built, check = [], Experiment.__post_init__
    monkeypatch.setattr(Experiment, "__post_init__", lambda e: (built.append(e), check(e))[1])
    explorer.redraw()
    assert len(built) == 1
    built.clear()
    explorer.probability.value = 0.7
    assert len(built) == 2
    built.clear()
    training.operator.value = "magnitude"
    assert len(built) == 1


def test_a_preset_moves_the_knobs_that_it_speaks_of():
    training = LiveTraining(ScheduleExplorer(epochs=9, subpopulation=1), **SMALL)
    training.preset.value = "frontier"
    assert training.message.value == ""
    assert "cubic" in training.explorer.schedules.value
    expected = Experiment.preset("frontier", **{k: SMALL[k] for k in ("dataset", "model")})
    meant = training.experiment()
    for name in PRESETS["frontier"].settings:
        assert getattr(meant, name) == getattr(expected, name), name
    training.operator.value = "wanda"
    assert "operator=wanda cannot be compared between layers" in training.message.value
    training.allocation.value = "erk"
    assert training.message.value == ""
    assert training.experiment().allocation == "erk"


def test_copied_lines_leave_out_what_cannot_be_run():
    training = LiveTraining(ScheduleExplorer("fixed cubic"), operator="noise")
    experiments, _ = copied(training)
    assert [e.schedule for e in experiments] == ["fixed"]
    training.learning_rate.value = -1
    assert training.copy.value == ""


def test_the_copied_notebook_is_given_what_is_on_view():
    """All its parameters, but for where it writes and whether it trains; as it would show them."""
    training = LiveTraining(ScheduleExplorer("decrease fixed", 0.3, epochs=7), **COPIED)
    _, given = copied(training)
    known = notebooks.defaults(notebooks.read("explore"))
    assert set(given) == set(known) - {"train_now", "out"}
    typed = notebooks.parse_parameters("explore", known, [f"{k}={v}" for k, v in given.items()])
    again = ScheduleExplorer(**{name: typed.pop(name) for name in training.explorer.parameters()})
    assert curves_of(again) == curves_of(training.explorer)
    assert LiveTraining(again, **typed).experiment() == training.experiment()


def test_the_schedule_that_is_trained_is_on_view():
    training = LiveTraining(ScheduleExplorer("decrease fixed"), **SMALL)
    training.schedule.value = "cubic"
    assert training.explorer.schedules.value == ("decrease", "fixed", "cubic")
    training.explorer.probability.value = 0.3
    assert training.schedule.value == "cubic"
    training.explorer.schedules.value = ("fixed", "increase")
    assert training.schedule.value == "fixed"


def test_both_widgets_have_the_same_epochs():
    training = LiveTraining(ScheduleExplorer(epochs=9), **SMALL)
    training.epochs.value = 4
    training.explorer.probability.value = 0.3
    assert training.explorer.epochs.value == training.experiment().epochs == 4
    training.train(wait=True)
    assert training.bar.description == views.epochs_of(training.state) == "4 of 4 epochs"
    texts = [text.get_text() for text in training.figure().texts]
    assert any("finished, 4 of 4 epochs" in text for text in texts)


def test_what_cannot_change_rests_while_training(training):
    long_and_started(training)
    until(lambda: training.start.disabled)
    assert all(each.disabled for each in training.fixed)
    training.end()
    assert not any(each.disabled for each in training.fixed)


def test_another_subpopulation_than_the_one_on_view_is_said():
    training = LiveTraining(ScheduleExplorer(subpopulation=3), **SMALL, preset="canonical")
    assert "canonical trains in sub-populations of 1" in training.message.value
    training.explorer.subpopulation.value = 1
    assert training.message.value == ""


def test_the_explorer_carries_over():
    explorer = ScheduleExplorer(epochs=9)
    training = LiveTraining(explorer, **SMALL)
    explorer.schedules.value = ("decrease",)
    explorer.probability.value = 0.2
    explorer.reading.value = "intended"
    explorer.epochs.value = 4
    explorer.subpopulation.value = 5
    e = training.experiment()
    assert (e.schedule, e.probability, e.epochs, e.subpopulation) == ("decrease", 0.2, 4, 5)
    assert (e.decrease, e.pruned_weights) == ("intended", "masked")


def test_snapshots_are_bounded_and_hold_the_last_epoch(monkeypatch):
    monkeypatch.setattr("evoae.study.widgets.trainer.SNAPSHOTS", 4)
    trainer = Trainer(tiny(epochs=LONG))
    trainer.start()
    until(lambda: trainer.curves.done > 20)
    trainer.pause()
    until(lambda: trainer.curves.done - 1 == max(trainer.snapshots))
    for _ in range(3):
        trainer.resume()
        trainer.pause()
        until(lambda: trainer.curves.done - 1 == max(trainer.snapshots))
    assert 2 <= len(trainer.snapshots) <= 4
    assert 0 in trainer.snapshots
    trainer.stop()


# -- save, compare -------------------------------------------------------------------------------


def test_a_saved_training_is_the_run_that_evoae_run_computes(tmp_path):
    training = LiveTraining(ScheduleExplorer(epochs=6), **SMALL, seed=3, folder=tmp_path / "live")
    training.train(wait=True)
    training.keep.click()
    saved = Run(training.saved)
    computed = run(training.experiment(), seed=3, out=tmp_path / "run", workers=1)
    assert saved.folder.name == computed.folder.name
    assert saved.config == computed.config
    assert saved.result["trials"] == computed.result["trials"]
    assert saved.result["model_steps"] == computed.result["model_steps"]
    assert saved.changes == []
    assert_same_bits(saved.history, computed.history)
    for one, other in zip(saved.population.sides, computed.population.sides, strict=True):
        assert torch.equal(one.weights, other.weights)
    written = (saved.folder / "result.json").stat().st_mtime_ns
    run(training.experiment(), seed=3, out=tmp_path / "live", workers=1)  # it is there
    training.keep.click()
    assert (saved.folder / "result.json").stat().st_mtime_ns == written


def test_a_training_that_was_changed_and_stopped_is_a_run_of_its_own(training, tmp_path):
    training.folder = tmp_path
    training.operator.value = "none"
    long_and_started(training)
    training.operator.value = "magnitude"
    until(lambda: training.trainer.curves.changes)
    training.end()
    assert training.trainer.join(PATIENCE)
    training.keep.click()
    saved, curves = Run(training.saved), training.trainer.curves
    (at, name, *values), cut = saved.changes
    assert (name, *values) == ("operator", "none", "magnitude")
    assert 0 < at < curves.done
    assert cut == [curves.done, "epochs", LONG, curves.done]
    assert (saved.setting("operator"), saved.setting("epochs")) == ("magnitude", curves.done)
    assert saved.history.epoch.tolist() == list(range(curves.done))
    np.testing.assert_array_equal(saved.history.pruned, curves.pruned[:, 0])
    assert not saved.history.pruned[:at].any()
    last = training.trainer.snapshots[curves.done - 1]
    for one, other in zip(saved.population.sides, last.sides, strict=True):
        assert torch.equal(one.weights, other.weights)
    assert saved.result["mean"]["train_l1"] == pytest.approx(curves.loss[-1, 0], abs=0.02)
    plain = run(saved.experiment, out=tmp_path, workers=1)  # the same settings all the way
    assert plain.folder != saved.folder
    assert plain.changes == []
    changes = collect(tmp_path).overview.set_index("run").changes
    assert changes[plain.folder.name] == ""
    assert changes[saved.folder.name].startswith(
        f"operator none to magnitude at epoch {at}; epochs"
    )


def test_a_changed_training_does_not_count_as_a_run_of_its_settings(tmp_path):
    """The report compares with the paper what had the same settings from beginning to end."""
    trainer = Trainer(tiny(epochs=LONG, operator="random"))
    trainer.start()
    until(lambda: trainer.curves.done > 2)
    trainer.change(operator="none")
    until(lambda: trainer.curves.changes)
    trainer.stop()
    saved = trainer.save(tmp_path)
    assert saved.setting("operator") == "none"
    settings = {k: v for k, v in TINY.items() if k != "epochs"} | {"operator": "none"}
    assert find(collect(tmp_path), "canonical", **settings) is None
    plain = run(saved.experiment, out=tmp_path, workers=1)
    assert find(collect(tmp_path), "canonical", **settings).folder == plain.folder


def test_saving_needs_something_and_a_folder(training, tmp_path):
    assert training.keep.disabled
    training.save()
    assert "nothing to save yet" in training.message.value
    long_and_started(training)
    training.pause.click()
    until(lambda: not training.keep.disabled)  # what is reached at a pause can be kept, too
    (tmp_path / "file").write_text("")
    training.folder = tmp_path / "file"
    training.keep.click()
    assert "cannot be written" in training.message.value
    assert training.saved == ""
    training.folder = tmp_path
    training.keep.click()
    assert f"Saved as {training.saved}" in training.message.value


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_a_network_is_exported(tmp_path, monkeypatch, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnx")
    else:
        monkeypatch.setattr(live, "find_spec", lambda name: None)
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL, folder=tmp_path)
    assert training.give.disabled
    training.export()
    assert "nothing to save yet" in training.message.value
    training.train(wait=True)
    training.give.click()
    path = next(tmp_path.glob(f"*/network.{suffix}"))
    assert path.parent == Run(training.saved).folder
    best = Run(training.saved).trials.best_cell[0]
    assert f"Exported as {path}: cell {best}, the best" in training.message.value
    path.unlink()
    path.mkdir()
    training.give.click()
    assert str(path) in training.message.value
    assert "Exported" not in training.message.value


def test_the_inspector_finds_what_was_saved(tmp_path):
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL, folder=tmp_path)
    inspector = ActivationInspector(training, tmp_path)
    training.train(wait=True)
    training.keep.click()
    label = f"{Run(training.saved).folder.name[:8]}: digits, random, exponential, 10 cells"
    assert [name for name, _ in inspector.run.options] == ["the training above", label]
    live = inspector.state.weights
    inspector.run.label = label
    np.testing.assert_array_equal(inspector.state.weights, live)


def test_compare_draws_the_training_before_behind_this_one():
    training = LiveTraining(ScheduleExplorer(epochs=5), **SMALL)
    training.train(wait=True)
    first = training.trainer.curves
    training.compare.value = True
    assert training.state.before is None  # there is none before the first
    training.operator.value, training.epochs.value = "magnitude", 3
    training.train(wait=True)
    np.testing.assert_array_equal(training.state.before.loss, first.loss)
    loss, preserved = training.figure().axes[:2]
    for ax, curves, scale in ((loss, "loss", 1), (preserved, "preserved", 100)):
        behind, front = (line for line in ax.lines if len(line.get_xdata()) > 2)
        np.testing.assert_allclose(behind.get_ydata(), scale * getattr(first, curves).mean(1))
        assert len(front.get_ydata()) == 3
        assert behind.get_alpha() < front.get_alpha() == 1
        assert behind.zorder <= front.zorder
        assert ax.get_xlim()[1] > 4  # all of it is seen
    words = [text.get_text() for text in training.figure().texts]
    assert any("pale: digits, 8-3: random" in t and "5 of 5 epochs" in t for t in words)
    training.compare.value = False
    assert training.state.before is None


# -- trainings so far ----------------------------------------------------------------------------


def test_trainings_and_runs_are_listed_and_compared(tmp_path):
    run(tiny(), trials=2, out=tmp_path, workers=1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/result.json").write_text("{")
    training = LiveTraining(ScheduleExplorer("fixed", epochs=3), **SMALL, folder=tmp_path)
    listed = TrainingsSoFar(training, tmp_path)
    (name,) = listed.rows
    assert not listed.state  # runs are not ticked at first
    for operator in ("random", "magnitude"):
        training.operator.value = operator
        training.train(wait=True)
    assert list(listed.rows) == ["training 2", "training 1", name]
    assert [each.name for each in listed.state] == ["training 2", "training 1"]
    assert trainings.differing(listed.state) == ["operator"]
    said = [t.name for t in listed.canvas.widget.data]
    assert said == ["training 2: operator=magnitude", "training 1: operator=random"]
    listed.ticks[name].value = True
    table = pd.read_csv(io.StringIO(listed.canvas.numbers()[1]))
    assert table.series.tolist() == ["training 2", "training 1", name, name]
    saved = Run(next(tmp_path.glob(f"{name}*")))
    trials = pd.DataFrame(saved.result["trials"])
    np.testing.assert_allclose(table.y[2:], trials.validation_l1)
    np.testing.assert_allclose(table.x[2:], 100 * (1 - trials.best_preserved))
    curves = training.past[-1]
    assert table.y[0] == pytest.approx(curves.loss[-1].min())
    training.keep.click()  # what is saved is a run, too
    assert len(listed.rows) == 4
    assert listed.ticks[name].value


def test_nothing_to_compare_is_said(tmp_path):
    listed = TrainingsSoFar(None, tmp_path)
    assert "Nothing is trained yet" in listed.message.value
    run(tiny(), out=tmp_path, workers=1)
    listed.again.click()
    assert listed.message.value == ""
    (row,) = listed.rows.values()
    assert len(row.loss) == 1
    run(tiny(), trials=2, out=tmp_path, workers=1)  # it has grown
    listed.again.click()
    (row,) = listed.rows.values()
    assert len(row.loss) == 2


# -- activation inspector ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> LiveTraining:
    made = LiveTraining(ScheduleExplorer("fixed", probability=1.0, epochs=30), **SMALL)
    made.train(wait=True)
    return made


@pytest.mark.parametrize(("knob", "value"), [("layer", "output"), ("cell", 4), ("epoch", 0)])
def test_every_knob_of_the_inspector_changes_the_pictures(trained, tmp_path, knob, value):
    inspector = ActivationInspector(trained, tmp_path)
    before = inspector.canvas.shown
    getattr(inspector, knob).value = value
    assert inspector.canvas.shown != before
    assert inspector.message.value.count("holds no finished run") == 1


def test_the_epochs_that_were_kept_are_played(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    stored = tuple(sorted(trained.trainer.snapshots))
    assert inspector.epoch.options == stored
    assert (inspector.play.min, inspector.play.max) == (0, len(stored) - 1)
    for number, epoch in enumerate(stored):  # what the player does
        inspector.play.value = number
        assert inspector.state.heading.endswith(f"epoch {epoch}")
    inspector.epoch.value = stored[3]
    assert inspector.play.value == 3


def test_the_drawing_says_what_is_left_of_each_layer(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    networks = trained.trainer.snapshots[29]
    expected = [
        float((weight[0] == 0).float().mean())
        for side in networks.sides
        for weight, _ in side.layers()
    ]
    assert [layer[:2] for layer in inspector.layer.layers] == [
        ["input", 64], ["encoder 1", 8], ["code", 3], ["decoder 1", 8], ["output", 64]
    ]  # fmt: skip
    found = [share for *_, share in inspector.layer.layers[1:]]
    np.testing.assert_allclose(found, expected)


def test_pictures_are_what_they_show(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    inspector.layer.value = "output"
    state = inspector.state
    activations, mask, images, last = inspector.canvas.shown["pictures"]
    zero = np.rint(255 * np.array(to_rgb("#F0E6D8")))
    np.testing.assert_array_equal((decoded(mask)[..., :3] == zero).all(2), state.weights == 0)
    assert decoded(activations).shape == (60, 62, 4)
    first = decoded(images)[:8, :8, 0]
    np.testing.assert_allclose(first, 255 * state.inputs[0].reshape(8, 8), atol=1)
    assert decoded(last).shape[:2] == state.weights.shape


@pytest.mark.parametrize(
    ("shape", "colours", "lines"),
    [((4, 6), 1, (4, 20)), ((4, 6, 3), 3, (4, 20)), ((3, 4, 6), 3, (4, 20)), (None, 1, (3, 24))],
)
def test_rows_become_pictures(shape, colours, lines):
    """Three rows beside each other with a gap between; rows that are no images lie as lines."""
    rows = np.linspace(0, 1, 3 * 24 * colours).reshape(3, -1).astype(np.float32)
    found = pictures.examples(rows, shape)
    assert found.shape == (*lines, 4)
    assert found.dtype == np.uint8
    if shape is not None:
        assert (found[:, [6, 13], 3] == 0).all()


def test_networks_that_diverged_and_wide_layers_are_drawn():
    inputs = np.zeros((2, 1000), np.float32)
    state = inside.Inspection(
        "wide", (("input", 1000, 0.0), ("output", 900, 0.0)), np.full((5, 900), np.nan),
        np.ones((900, 1000)), None, np.zeros(900, bool), inputs, inputs * np.nan, words="nothing",
    )  # fmt: skip
    activations, mask, both, last = inside.described(state).pictures
    assert activations.pixels.shape == (60, 7, 4)
    assert mask.pixels.shape == (400, 400, 4)
    assert "diverged" in both.title
    assert (last.pixels, last.words) == (None, "nothing")
    assert look.png(inside.described(state).figure())


def test_the_last_prune_is_exact(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    inspector.layer.value, inspector.epoch.value = "output", 0
    state = inspector.state  # of the first cell that was visited: nothing was zero before
    assert state.removed.sum() == round(0.1 * state.weights.size)
    np.testing.assert_array_equal(state.weights == 0, state.removed)
    assert "Last pruned after epoch 0" in state.words


def test_nothing_to_look_into_is_said_in_words(tmp_path):
    inspector = ActivationInspector(None, tmp_path)
    assert inspector.state is None
    assert f"{tmp_path} holds no finished run" in inspector.message.value
    inspector.folder.value = str(tmp_path / "other")
    assert f"There is no folder {tmp_path / 'other'}" in inspector.message.value
    run(tiny(), out=tmp_path / "other", workers=1)
    inspector.again.click()
    assert "no f" not in inspector.message.value
    assert inspector.state.heading.startswith("binary-clusters")


def test_a_training_is_opened_when_it_ends_unless_another_was_chosen(tmp_path):
    run(tiny(), out=tmp_path, workers=1)
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    inspector = ActivationInspector(training, tmp_path)
    assert inspector.state.heading.startswith("binary-clusters")
    training.train(wait=True)
    assert inspector.state.heading.startswith("digits")
    assert inspector.epoch.options == (0, 1)
    inspector.run.label = inspector.run.options[1][0]
    training.train(wait=True)
    assert inspector.state.heading.startswith("binary-clusters")


def test_a_run_on_disk(tmp_path):
    e = Experiment.preset(
        "lipi-ae-s", **SMALL, epochs=3, operator="random", schedule="fixed", probability=1.0
    )
    done = run(e, trials=2, out=tmp_path, workers=1)
    inspector = ActivationInspector(None, tmp_path)
    assert (inspector.trial.max, inspector.cell.max) == (1, 9)
    assert inspector.epoch.options == (2,)
    before = pixels(inspector)
    inspector.trial.value = 1
    assert not np.array_equal(before, pixels(inspector))
    np.testing.assert_array_equal(
        inspector.state.weights, done.population.encoder.layers()[1][0][10].numpy()
    )
    assert "This run holds its last epoch only" in inspector.message.value
    assert inspector.epoch.disabled
    assert inspector.play.disabled


def test_a_damaged_run_is_explained(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    inspector = ActivationInspector(None, tmp_path)
    assert "not a finished run" in inspector.message.value


def test_a_trial_that_a_run_lacks_is_said(tmp_path):
    for trials in (range(1), range(2, 3)):
        run(tiny(), trials=trials, out=tmp_path, workers=1)
    inspector = ActivationInspector(None, tmp_path)
    inspector.trial.value = 1
    assert "trial 1 is not in this run" in inspector.message.value
    inspector.trial.value = 2
    assert "not in this run" not in inspector.message.value


def test_epochs_are_saved_with_the_run_and_watched_later(tmp_path):
    training = LiveTraining(ScheduleExplorer(epochs=4), **SMALL, folder=tmp_path / "with")
    training.train(wait=True)
    training.keep.click()
    inspector = ActivationInspector(None, training.folder)
    assert inspector.epoch.options == (0, 1, 2, 3)
    assert inspector.message.value == ""
    for epoch in range(4):
        inspector.epoch.value, inspector.cell.value = epoch, 3
        expected = training.trainer.snapshots[epoch].encoder.layers()[1][0][3]
        np.testing.assert_array_equal(inspector.state.weights, expected.numpy())
    Run(training.saved).check()
    run(training.experiment(), trials=2, out=training.folder, workers=1)  # another trial: no epochs
    inspector.search()
    inspector.trial.value = 1
    assert inspector.epoch.options == (3,)
    inspector.trial.value = 0
    assert inspector.epoch.options == (0, 1, 2, 3)
    training.folder, training.epochs_too.value = tmp_path / "without", False
    training.keep.click()
    assert ActivationInspector(None, training.folder).epoch.options == (3,)


# -- all of them ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_three(trained) -> list[parts.View]:
    return [trained.explorer, trained, ActivationInspector(trained, "nowhere")]


def test_every_knob_has_a_tooltip_and_sliders_follow(all_three):
    found = [part for view in all_three for part in within(view)]
    found = [part for part in found if isinstance(part, Button) or hasattr(part, "description")]
    found = [p for p in found if isinstance(p, DOMWidget) and type(p).__name__ not in PASSIVE]
    assert len(found) > 25
    for part in found:
        assert part.tooltip, part.description
        if "Slider" in type(part).__name__:
            assert part.continuous_update, part.description


def test_knobs_of_settings_are_read_off_the_declarations(all_three):
    explorer, training, _ = all_three
    known = {name: getattr(training, name) for name in live.OWN}
    assert known.pop("scale").tooltip == SETTINGS["scale"].says
    known |= {name: getattr(explorer, name) for name in (*SLIDERS, "epochs")}
    for name, knob in known.items():
        assert knob.tooltip.startswith(SETTINGS[name].says)
        assert ("from the next epoch" in knob.tooltip) == SETTINGS[name].live
        if name in SLIDERS:
            rule = SETTINGS[name].rule
            # a bound that is not allowed itself is a step away
            low = rule.low + knob.step if rule.above else rule.low
            assert (knob.min, knob.max) == (low, min(rule.high, 10))
    assert ScheduleExplorer(steepness=30).steepness.max == 30


def test_pictures_are_900_pixels_wide_in_the_colour_of_the_page(all_three):
    for view in all_three:
        picture = pixels(view)
        assert picture.shape[1] == 900
        assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


def test_rendering_is_pure_and_works_in_any_thread(all_three):
    for view in all_three:
        found = []
        other = threading.Thread(
            target=lambda view=view, f=found: f.append(look.png(view.figure()))
        )
        other.start()
        other.join()
        assert found == [look.png(view.figure())]


@pytest.mark.parametrize("somebody", [True, False])
def test_what_a_front_end_gets(all_three, monkeypatch, somebody):
    monkeypatch.setattr(parts, "attended", lambda: somebody)
    for view in all_three:
        bundle = view._repr_mimebundle_()
        assert ("image/png" in bundle) is not somebody
        assert ("application/vnd.jupyter.widget-view+json" in bundle) is somebody
