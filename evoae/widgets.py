"""Three widgets for a notebook: explore schedules, watch a training, look into a network.

Each shows the picture of a frozen state, drawn by a pure function (`views`). Training runs in a
background thread (`live`), so a notebook stays usable.
"""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import (
    Combobox,
    Dropdown,
    FloatSlider,
    FloatText,
    IntProgress,
    IntSlider,
    IntText,
    Layout,
    SelectionSlider,
    SelectMultiple,
    Text,
    Textarea,
    VBox,
)

from evoae import datasets, operators, population, views
from evoae.cells import MAY_CHANGE
from evoae.controls import View, attended, button, control, fit, row
from evoae.experiment import PRESETS, Experiment
from evoae.live import Progress, Trainer
from evoae.schedules import names as schedule_names
from evoae.sources import inspect, of_run, of_trainer, runs_in
from evoae.views import Inspection

__all__ = ["ActivationInspector", "LiveTraining", "ScheduleExplorer", "attended"]

REFRESH = 0.4  # seconds between two pictures of a training
READINGS = {"released": True, "intended": False}
SUBPOPULATIONS = [1, 3, 5, 7, 9]
SLIDERS = {
    "probability": "Probability",
    "steepness": "Steepness",
    "last_share": "Last share",
    "target_sparsity": "Target",
    "amount": "Amount",
}


class ScheduleExplorer(View):
    """What schedules mean, before anything is trained.

    The arguments are the first values of the controls; `schedules` are names separated by spaces.
    A `subpopulation` of 1 is canonical training, any other is `lipi-ae-s` on its ring of ten.
    Raises ValueError for impossible arguments.
    """

    render = staticmethod(views.schedule_figure)

    def __init__(
        self,
        schedules: str = "exponential fixed",
        probability: float = 0.5,
        steepness: float = 2.0,
        last_share: float = 0.25,
        target_sparsity: float = 0.5,
        amount: float = 0.1,
        reading: str = "released",
        epochs: int = 400,
        subpopulation: int = 3,
    ) -> None:
        shares = (probability, steepness, last_share, target_sparsity, amount)
        values = dict(zip(SLIDERS, shares, strict=True))
        for name in schedules.split() or [""]:
            numbers = values | {"epochs": epochs}
            preset, settings = settings_of(name, reading, subpopulation, numbers)
            Experiment.preset(preset, **settings)
        names = schedule_names()
        self.schedules = control(
            SelectMultiple, "Schedules", options=names, value=schedules.split(), rows=len(names)
        )
        for name, description in SLIDERS.items():
            most, step = (max(10.0, steepness), 0.1) if name == "steepness" else (1.0, 0.01)
            look = {"min": 0.0, "max": most, "step": step}
            setattr(self, name, control(FloatSlider, description, value=values[name], **look))
        self.reading = control(Dropdown, "Reading", options=list(READINGS), value=reading)
        self.subpopulation = control(
            SelectionSlider, "Sub-population", options=SUBPOPULATIONS, value=subpopulation
        )
        self.epochs = control(IntText, "Epochs", value=epochs)
        self.copy = Textarea(
            description="Copy settings",
            tooltip="The command lines for what is on view",
            rows=6,
            layout=Layout(width="850px"),
            style={"description_width": "105px"},
        )
        sliders = [getattr(self, name) for name in SLIDERS]
        columns = [*sliders, self.reading, self.subpopulation, self.epochs]
        super().__init__(row(self.schedules, VBox(columns[:4]), VBox(columns[4:])), row(self.copy))
        for each in (self.schedules, *columns):
            each.observe(self.redraw, "value")

    def parameters(self) -> dict[str, Any]:
        """The controls, by the names of the arguments."""
        return {
            "schedules": " ".join(self.schedules.value),
            **{name: round(getattr(self, name).value, 6) for name in SLIDERS},
            "reading": self.reading.value,
            "epochs": self.epochs.value,
            "subpopulation": self.subpopulation.value,
        }

    def settings(self, schedule: str = "") -> tuple[str, dict[str, Any]]:
        """Preset and settings of one schedule, by default the first that is picked."""
        numbers = self.parameters()
        picked, reading, size = (
            numbers.pop(name) for name in ("schedules", "reading", "subpopulation")
        )
        return settings_of(schedule or "".join(picked.split()[:1]), reading, size, numbers)

    def look(self) -> views.Schedules:
        preset, settings = self.settings()
        state = views.Schedules(Experiment.preset(preset, **settings), self.schedules.value)
        self.copy.value = self.command_lines()
        return state

    def command_lines(self) -> str:
        """An `evoae run` line for every schedule on view, and the notebook with what is on view."""
        lines = []
        for name in self.schedules.value:
            preset, settings = self.settings(name)
            words = [f"{key}={value}" for key, value in settings.items()]
            lines.append(["evoae", "run", preset, *words, "--trials", "1", "--seed", "1"])
        lines.append(["papermill", "notebooks/explore.ipynb", "explored.ipynb"])
        for name, value in self.parameters().items():
            lines[-1] += ["-p", name, str(value)]
        return "\n".join(map(shlex.join, lines))


def settings_of(
    schedule: str, reading: str, subpopulation: int, numbers: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The preset and settings that the explorer's controls mean. Raises ValueError."""
    if not schedule:
        raise ValueError(f"pick at least one schedule of {', '.join(schedule_names())}")
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; choose one of {', '.join(READINGS)}")
    if subpopulation not in SUBPOPULATIONS:
        raise ValueError(f"subpopulation={subpopulation} must be one of {SUBPOPULATIONS}")
    settings = {"operator": "random", "schedule": schedule, **numbers}
    settings["as_released"] = READINGS[reading]
    if subpopulation == 1:
        return "canonical", settings
    return "lipi-ae-s", settings | {"radius": subpopulation // 2}


class LiveTraining(View):
    """Train in the background, and watch.

    What is not among its controls comes from the schedule explorer. Operator, schedule, learning
    rate and the explorer's settings apply to a running training from its next epoch. `ended`
    counts the trainings that came to an end.
    """

    ended = traitlets.Int(0)
    render = staticmethod(views.training_figure)

    def __init__(
        self,
        explorer: ScheduleExplorer | None = None,
        dataset: str = "digits",
        model: str = "standard",
        preset: str = "lipi-ae-s",
        operator: str = "random",
        learning_rate: float = 1e-3,
        seed: int = 1,
    ) -> None:
        self.explorer = explorer or ScheduleExplorer()
        self.seed, self.trainer, self._problem = seed, None, ""
        schedule, epochs = self.explorer.schedules.value[0], self.explorer.epochs.value
        self.dataset = control(Combobox, "Dataset", options=list(datasets.BUILT_IN), value=dataset)
        self.model = control(Combobox, "Model", options=list(population.MODELS), value=model)
        self.preset = control(Dropdown, "Preset", options=list(PRESETS), value=preset)
        self.epochs = control(IntText, "Epochs", value=epochs)
        self.operator = control(Dropdown, "Operator", options=operators.names(), value=operator)
        self.schedule = control(Dropdown, "Schedule", options=schedule_names(), value=schedule)
        self.learning_rate = control(FloatText, "Learning rate", value=learning_rate, step=1e-4)
        self.start = button("Train", "play", "Train from the beginning", self.train)
        self.start.button_style = "primary"
        self.pause = button("Pause", "pause", "Rest after this epoch, or go on", self.toggle)
        self.stop = button("Stop", "stop", "End this training now", self.end)
        self.bar = IntProgress(layout=Layout(width="430px"), style={"description_width": "160px"})
        self.fixed = [self.dataset, self.model, self.preset, self.epochs]
        adjustable = [self.operator, self.schedule, self.learning_rate]
        super().__init__(
            row(*self.fixed, *adjustable), row(self.start, self.pause, self.stop, self.bar)
        )
        for each in (*self.fixed, *adjustable):
            each.observe(self._adjust, "value")
        self.explorer.observe(self._follow, "state")
        self._adjust()

    def experiment(self) -> Experiment:
        """What the controls, here and in the explorer, describe. Raises ValueError."""
        names = ("dataset", "model", "operator", "schedule", "epochs", "learning_rate")
        _, settings = self.explorer.settings()
        radius = settings.pop("radius", 0)
        own = {name: getattr(self, name).value for name in names}
        e = Experiment.preset(self.preset.value, **settings | own)
        return e.replace(radius=radius) if e.cells > 1 and e.topology == "ring" else e

    def _follow(self, _: Any) -> None:
        """Show the explorer's schedule and epochs; its other settings are read when needed."""
        picked = self.explorer.schedules.value
        if self.schedule.value not in picked:
            self.schedule.value = picked[0]
        if not self.running:
            self.epochs.value = self.explorer.epochs.value
        self._adjust()

    def _adjust(self, *_: Any) -> None:
        """Check the controls, and tell a running training what has changed."""
        try:
            new, self._problem = self.experiment(), ""
            if self.running:
                self.trainer.change(**{name: getattr(new, name) for name in MAY_CHANGE})
        except ValueError as error:
            self._problem = str(error)
        self.say(*self.words(self.state))

    @property
    def running(self) -> bool:
        return self.trainer is not None and self.trainer.status in ("training", "paused")

    def train(self, wait: bool = False) -> None:
        """Start a training, unless one is running.

        With `wait`, return when it has ended and its last picture is drawn. Raises ValueError then,
        and only then, if it failed: whoever waits may not be looking.
        """
        if self.running:
            return
        try:
            experiment, self._problem = self.experiment(), ""
            experiment.check_files()
        except ValueError as error:
            self._problem = str(error)
            self.say(error)
            if wait:
                raise
            return
        self.trainer = Trainer(experiment, self.seed)
        self.trainer.start()
        watcher = threading.Thread(target=self._watch, args=[self.trainer], daemon=True)
        watcher.start()
        if wait:
            watcher.join()
            if self.trainer.status == "failed":
                raise ValueError(self.trainer.progress.error)

    def toggle(self) -> None:
        """Pause the training, or let it go on."""
        if self.running:
            (self.trainer.resume if self.trainer.status == "paused" else self.trainer.pause)()
            self.redraw()

    def end(self) -> None:
        """Stop the training, and show what it has reached."""
        if self.running:
            self.trainer.stop()
            self.redraw()

    def _watch(self, trainer: Trainer) -> None:
        """In a thread of its own: draw while there is something new, and once at the end."""
        seen = None
        while not trainer.wait(0 if seen is None else REFRESH):
            now = trainer.progress.done
            if now != seen:
                self.redraw()
                seen = now
        if trainer is self.trainer:
            self.redraw()
        self.ended += 1

    def look(self) -> Progress | None:
        running = self.running
        self.start.disabled = running
        self.pause.disabled = self.stop.disabled = not running
        for each in self.fixed:
            each.disabled = running
        if self.trainer is None:
            return None
        progress = self.trainer.progress
        self.pause.description = "Resume" if progress.status == "paused" else "Pause"
        self.bar.max, self.bar.value = progress.experiment.epochs, progress.done
        self.bar.description = f"{progress.done} of {progress.experiment.epochs} epochs"
        return progress

    def words(self, state: Progress | None) -> tuple[str, bool]:
        return self._problem or (state.error if state else ""), True


class ActivationInspector(View):
    """Look into one cell: of the training of `live`, or of a finished run in `folder`."""

    render = staticmethod(views.inspection_figure)

    def __init__(self, live: LiveTraining | None = None, folder: str | Path = "out/runs") -> None:
        self.live, self._source, self._filling = live, None, False
        self.folder = control(Text, "Folder", value=str(folder), continuous_update=False)
        self.run = control(Dropdown, "Run")
        self.again = button(
            "Look again",
            "refresh",
            "Search the folder anew, and read what the training has reached",
            self.search,
        )
        self.layer = control(Dropdown, "Layer")
        self.trial, self.cell, self.epoch = (
            control(IntSlider, name, min=0, max=0) for name in ("Trial", "Cell", "Epoch")
        )
        where = [self.layer, self.trial, self.cell, self.epoch]
        super().__init__(row(self.folder, self.run, self.again), row(*where))
        self.search()
        self.folder.observe(self.search, "value")
        self.run.observe(self._open, "value")
        for each in where:
            each.observe(self.redraw, "value")
        if live is not None:
            live.observe(self.search, "ended")

    def search(self, *_: Any) -> None:
        """List what there is to look into, and open what was open before, or else the first."""
        found: dict[str, Any] = dict(runs_in(self.folder.value))
        if self.live is not None and self.live.trainer is not None:
            found = {"the training above": self.live.trainer} | found
        with self._drawing:
            label, self._filling = self.run.label, True
            self.run.options = list(found.items())
            self.run.label = label if label in found else next(iter(found), None)
            self._filling = False
        self._open()

    def _open(self, *_: Any) -> None:
        """Fit the controls to the source that is chosen, at its last stored epoch."""
        if self._filling:
            return
        with self._drawing:
            self._source, self._filling = None, True
            try:
                chosen = self.run.value
                if chosen is not None:
                    source = of_trainer(chosen) if isinstance(chosen, Trainer) else of_run(chosen)
                    layer = self.layer.value
                    self.layer.options = source.layers
                    self.layer.value = layer if layer in source.layers else "code"
                    fit(self.trial, source.trials[0], source.trials[-1])
                    fit(self.cell, 0, source.experiment.cells - 1)
                    fit(self.epoch, 0, source.last)
                    self.epoch.value = source.stored[-1]
                    self._source = source
            except ValueError as error:
                self.say(error)
                return
            finally:
                self._filling = False
        self.redraw()

    def look(self) -> Inspection | None:
        if self._source is None:
            return None
        where = (self.layer, self.trial, self.cell, self.epoch)
        return inspect(self._source, *(each.value for each in where))

    def redraw(self, *_: Any) -> None:
        if not self._filling:
            super().redraw()

    def words(self, state: Inspection | None) -> tuple[str, bool]:
        return (state.note if state else ""), False
