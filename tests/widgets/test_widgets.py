"""The widgets without a browser: set values, click, wait for the thread, look at the picture."""

from __future__ import annotations

import dataclasses
import io
import shlex
import threading
import time

import numpy as np
import pytest
from helpers import evolved, tiny
from ipywidgets import Button, DOMWidget, Widget
from PIL import Image

from evoae import Experiment, cli, run
from evoae.figures import look
from evoae.widgets import ActivationInspector, LiveTraining, ScheduleExplorer, controls, views
from evoae.widgets.trainer import Trainer

SMALL = {"dataset": "digits", "model": "8-3"}
PASSIVE = ("HTML", "IntProgress")  # show, and cannot be set


def pixels(widget: controls.View) -> np.ndarray:
    """The decoded picture, [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(widget.image.value)).convert("RGB"))


def changed(before: np.ndarray, after: np.ndarray) -> bool:
    return before.shape != after.shape or bool((before != after).any())


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def parts(widget: Widget) -> list[Widget]:
    return [widget, *(part for child in getattr(widget, "children", ()) for part in parts(child))]


@pytest.fixture
def training():
    """A LiveTraining of a small network that would go on for long; stopped at the end."""
    made = LiveTraining(ScheduleExplorer(epochs=2000), **SMALL, preset="canonical")
    yield made
    made.end()
    if made.trainer is not None:
        assert made.trainer.join(10)


def long_and_started(training: LiveTraining) -> None:
    training.start.click()
    until(lambda: training.trainer.progress.done > 1 or training.trainer.progress.error)
    assert not training.trainer.progress.error


# -- schedule explorer ---------------------------------------------------------------------------


def test_expectations_by_hand():
    values = np.array([0.0, 0.5, 1.0])
    assert views.expected_prunes(values) == 1.5
    kept = views.expected_preserved(values, 0.2, regrowth=False)
    np.testing.assert_allclose(kept, [1, 0.9, 0.72])
    kept = views.expected_preserved(values, 0.2, regrowth=True)
    np.testing.assert_allclose(kept, [1, 0.9, 0.8])


def test_a_target_sparsity_is_what_is_removed():
    values = np.array([0.0, 0.3, 0.5])
    assert views.expected_prunes(values, target=True) == 2
    for regrowth in (True, False):
        kept = views.expected_preserved(values, 0.2, regrowth=regrowth, target=True)
        np.testing.assert_allclose(kept, [1, 0.7, 0.5])


@pytest.mark.parametrize("regrowth", [True, False])
def test_expected_share_is_the_mean_of_what_happens(regrowth):
    rng = np.random.default_rng(0)
    values, amount, weights = np.array([0.2, 0.9, 0.5]), 0.3, 2000
    alive = np.ones((300, weights), dtype=bool)
    for t, p in enumerate(values):
        if regrowth:
            alive[:] = True
        hit = rng.random(300) < p
        alive[hit] &= rng.random((hit.sum(), weights)) >= amount
        expected = views.expected_preserved(values, amount, regrowth=regrowth)[t]
        assert alive.mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("schedules", ("increase", "cubic", "prune-after")),
        ("probability", 0.9),
        ("steepness", 7.0),
        ("last_share", 0.6),
        ("target_sparsity", 0.9),
        ("amount", 0.3),
        ("reading", "intended"),
        ("epochs", 50),
        ("subpopulation", 7),
    ],
)
def test_every_control_of_the_explorer_changes_picture_and_lines(control, value):
    explorer = ScheduleExplorer("exponential final-n cubic decrease population", epochs=40)
    before, lines = pixels(explorer), explorer.copy.value
    getattr(explorer, control).value = value
    assert changed(before, pixels(explorer))
    assert explorer.copy.value != lines
    assert explorer.message.value == ""


@pytest.mark.parametrize("reading", ["released", "intended"])
@pytest.mark.parametrize("subpopulation", [1, 5])
def test_copied_lines_run_what_is_on_view(reading, subpopulation):
    explorer = ScheduleExplorer(
        "decrease exponential", 0.3, 3.0, reading=reading, epochs=7, subpopulation=subpopulation
    )
    *runs, notebook = map(shlex.split, explorer.copy.value.splitlines())
    assert len(runs) == 2
    for words in runs:
        options = cli.parser().parse_args(words[1:])
        e = Experiment.preset(options.preset, **cli.parse_settings(options.words))
        on_view = explorer.state.values(e.schedule)
        np.testing.assert_array_equal(on_view, [e.pruning_at(t) for t in range(e.epochs)])
    given = dict(zip(notebook[4::3], notebook[5::3], strict=True))
    assert given == {name: str(value) for name, value in explorer.parameters().items()}


def test_impossible_epochs_are_explained_and_break_nothing():
    explorer = ScheduleExplorer(epochs=20)
    before = pixels(explorer)
    explorer.epochs.value = 0
    assert "epochs=0 must be at least 1" in explorer.message.value
    assert not changed(before, pixels(explorer))
    explorer.epochs.value = 30
    assert explorer.message.value == ""
    assert changed(before, pixels(explorer))


def test_no_schedule_is_explained():
    explorer = ScheduleExplorer(epochs=20)
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


def test_the_picture_is_replaced_only_when_it_differs():
    explorer = ScheduleExplorer(epochs=20)
    seen = []
    explorer.image.observe(seen.append, "value")
    explorer.redraw()
    assert seen == []
    explorer.probability.value = 0.8
    assert len(seen) == 1


# -- live training -------------------------------------------------------------------------------


def test_training_draws_until_the_end():
    training = LiveTraining(ScheduleExplorer(epochs=5), **SMALL)
    before = pixels(training)
    training.train(wait=True)
    assert training.trainer.status == "finished"
    assert training.bar.value == training.bar.max == 5
    assert changed(before, pixels(training))
    assert not training.start.disabled
    assert training.stop.disabled
    progress = training.state
    assert progress.loss.shape == progress.preserved.shape == (5, 10)
    assert 0 < progress.loss.min() <= progress.loss.max() < 1
    assert progress.constant == pytest.approx(0.18, abs=0.03)


def test_the_picture_grows_while_it_trains(training):
    long_and_started(training)
    until(lambda: training.state is not None and training.state.done)
    before, done = pixels(training), training.state.done
    until(lambda: training.state.done > done)
    assert changed(before, pixels(training))


def test_stop_stops_within_a_second(training):
    long_and_started(training)
    training.stop.click()
    assert training.trainer.join(1)
    assert training.trainer.status == "stopped"
    done = training.trainer.progress.done
    time.sleep(0.1)
    assert training.trainer.progress.done == done < 2000
    assert not training.start.disabled


def test_stop_does_not_wait_for_a_long_epoch():
    """An epoch of this one takes several seconds; the thread itself ends between two visits."""
    trainer = Trainer(Experiment.preset("lipi-ae-s", cells=100, examples=1000, bits=100, epochs=5))
    trainer.start()
    until(lambda: trainer.data is not None)
    trainer.stop()
    assert trainer.wait(0)
    assert trainer.status == "stopped"
    assert trainer.join(1)
    assert trainer.progress.done == 0


def test_pause_rests_and_goes_on(training):
    long_and_started(training)
    training.pause.click()
    assert training.pause.description == "Resume"
    time.sleep(0.3)
    done = training.trainer.progress.done
    time.sleep(0.3)
    assert training.trainer.progress.done == done
    assert training.trainer.status == "paused"
    training.pause.click()
    assert training.pause.description == "Pause"
    until(lambda: training.trainer.progress.done > done)


def test_stop_ends_a_pause(training):
    long_and_started(training)
    training.pause.click()
    training.stop.click()
    assert training.trainer.join(1)
    assert training.trainer.status == "stopped"


def test_two_trainings_in_a_row():
    training = LiveTraining(ScheduleExplorer(epochs=3), **SMALL)
    training.train(wait=True)
    first, picture = training.trainer, pixels(training)
    training.train(wait=True)
    assert training.trainer is not first
    np.testing.assert_array_equal(training.trainer.progress.loss, first.progress.loss)
    training.operator.value = "magnitude"
    training.train(wait=True)
    assert changed(picture, pixels(training))
    assert training.ended == 3


def test_watching_does_not_change_the_numbers():
    e = tiny("lipi-ae-s", operator="random", schedule="fixed", probability=1.0)
    trainer = Trainer(e)
    trainer.start()
    assert trainer.wait(20)
    weights = [side.weights for side in trainer.snapshots[e.epochs - 1].sides]
    _, state = evolved(e, engine="auto")
    for kept, side in zip(weights, state.population.sides, strict=True):
        assert (kept == side.weights).all()


def test_a_change_applies_from_the_next_epoch_and_is_marked(training):
    training.schedule.value = "prune-after"
    long_and_started(training)
    training.schedule.value = "fixed"
    training.explorer.probability.value = 1.0
    until(lambda: training.trainer.progress.pruned[-3:].all() or training.trainer.progress.error)
    progress = training.trainer.progress
    # pruning after implied the probability 1.0 already: it is a change only if an epoch lay between
    assert progress.changes[0][1] == "schedule: fixed"
    assert {text for _, text in progress.changes[1:]} <= {"probability: 0.5", "probability: 1.0"}
    assert progress.experiment.probability == 1.0
    first = progress.changes[0][0]
    assert not progress.pruned[:first].any()
    training.end()
    before = look.png(views.training_figure(training.trainer.progress))
    unmarked = dataclasses.replace(training.trainer.progress, changes=())
    assert before != look.png(views.training_figure(unmarked))


def test_an_impossible_change_is_explained_and_training_goes_on(training):
    training.operator.value = "conjunctive"
    long_and_started(training)
    training.schedule.value = "cubic"
    assert "cannot prune to" in training.message.value
    done = training.trainer.progress.done
    until(lambda: training.trainer.progress.done > done + 2)
    assert training.trainer.status == "training"
    assert training.trainer.progress.changes == ()
    training.schedule.value = "fixed"
    assert training.message.value == ""


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("dataset", "no/such.npy", "no/such.npy"),
        ("model", "fifty", "unknown model"),
        ("epochs", -1, "epochs=-1 must be at least 1"),
        ("learning_rate", -1.0, "learning_rate=-1.0 must not be negative"),
    ],
)
def test_an_impossible_setting_is_explained_and_breaks_nothing(control, value, words):
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    before = pixels(training)
    old = getattr(training, control).value
    getattr(training, control).value = value
    training.start.click()
    assert words in training.message.value
    assert not training.running
    assert not changed(before, pixels(training))
    getattr(training, control).value = old
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

    monkeypatch.setattr("evoae.widgets.trainer.initial", broken)
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    training.start.click()
    until(lambda: training.ended)
    assert "the disk is on fire" in training.message.value
    assert not training.start.disabled


def test_threads_print_nothing(capfd):
    test_training_draws_until_the_end()
    assert capfd.readouterr() == ("", "")


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
    monkeypatch.setattr("evoae.widgets.trainer.SNAPSHOTS", 4)
    trainer = Trainer(tiny(epochs=30))
    trainer.start()
    assert trainer.wait(20)
    assert 2 <= len(trainer.snapshots) <= 4
    assert {0, 29} <= set(trainer.snapshots)


def test_a_training_that_is_paused_holds_its_last_epoch(monkeypatch):
    monkeypatch.setattr("evoae.widgets.trainer.SNAPSHOTS", 4)
    trainer = Trainer(tiny(epochs=100_000))
    trainer.start()
    until(lambda: trainer.progress.done > 20)
    trainer.pause()
    until(lambda: trainer.progress.done - 1 == max(trainer.snapshots))
    for _ in range(3):
        trainer.resume()
        trainer.pause()
        until(lambda: trainer.progress.done - 1 == max(trainer.snapshots))
    assert len(trainer.snapshots) <= 4
    trainer.stop()


# -- activation inspector ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> LiveTraining:
    made = LiveTraining(ScheduleExplorer("fixed", probability=1.0, epochs=30), **SMALL)
    made.train(wait=True)
    return made


@pytest.mark.parametrize(("control", "value"), [("layer", "output"), ("cell", 4), ("epoch", 0)])
def test_every_control_of_the_inspector_changes_the_picture(trained, tmp_path, control, value):
    inspector = ActivationInspector(trained, tmp_path)
    before = pixels(inspector)
    getattr(inspector, control).value = value
    assert changed(before, pixels(inspector))
    assert inspector.message.value == ""


def test_an_epoch_that_is_not_stored_is_said(trained, tmp_path):
    inspector = ActivationInspector(trained, tmp_path)
    missing = next(t for t in range(30) if t not in trained.trainer.snapshots)
    inspector.epoch.value = missing
    assert f"Epoch {missing} is not stored" in inspector.message.value


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
    assert pixels(inspector).shape[1] == 900


def test_a_run_on_disk(tmp_path):
    e = Experiment.preset(
        "lipi-ae-s", **SMALL, epochs=3, operator="random", schedule="fixed", probability=1.0
    )
    done = run(e, trials=2, out=tmp_path, workers=1)
    inspector = ActivationInspector(None, tmp_path)
    assert (inspector.trial.max, inspector.cell.max, inspector.epoch.max) == (1, 9, 2)
    assert inspector.epoch.value == 2
    before = pixels(inspector)
    inspector.trial.value = 1
    assert changed(before, pixels(inspector))
    np.testing.assert_array_equal(
        inspector.state.weights, done.population.encoder.layers()[1][0][10].numpy()
    )
    inspector.epoch.value = 0
    assert "a run on disk holds its last epoch only" in inspector.message.value


def test_a_damaged_run_is_explained(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    inspector = ActivationInspector(None, tmp_path)
    assert "no finished run" in inspector.message.value


def test_the_inspector_follows_the_training(tmp_path):
    training = LiveTraining(ScheduleExplorer(epochs=2), **SMALL)
    inspector = ActivationInspector(training, tmp_path)
    assert inspector.state is None
    training.train(wait=True)
    assert inspector.epoch.max == 1
    assert inspector.state.heading.startswith("digits")


# -- all of them ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_three(trained) -> list[controls.View]:
    return [trained.explorer, trained, ActivationInspector(trained, "nowhere")]


def test_every_control_has_a_tooltip_and_sliders_wait_until_let_go(all_three):
    found = [part for view in all_three for part in parts(view)]
    found = [part for part in found if isinstance(part, Button) or hasattr(part, "description")]
    found = [p for p in found if isinstance(p, DOMWidget) and type(p).__name__ not in PASSIVE]
    assert len(found) > 25
    for part in found:
        assert part.tooltip, part.description
        if "Slider" in type(part).__name__:
            assert part.continuous_update is False, part.description


def test_pictures_are_900_pixels_wide_on_opaque_white(all_three):
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
        assert found == [view.image.value]


@pytest.mark.parametrize("somebody", [True, False])
def test_what_a_front_end_gets(all_three, monkeypatch, somebody):
    monkeypatch.setattr(controls, "attended", lambda: somebody)
    for view in all_three:
        bundle = view._repr_mimebundle_()
        assert bundle["image/png"]
        assert ("application/vnd.jupyter.widget-view+json" in bundle) is somebody


def test_without_a_kernel_nobody_is_there():
    assert controls.attended() is False
