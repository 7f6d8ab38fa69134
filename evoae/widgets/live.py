"""Watch a training: pause, change, stop and continue it."""

from __future__ import annotations

import threading
from typing import Any

import traitlets
from ipywidgets import (
    Combobox,
    Dropdown,
    FloatText,
    IntProgress,
    IntText,
    Layout,
)

from evoae.data import datasets
from evoae.evolution.cells import MAY_CHANGE
from evoae.experiment import PRESETS, Experiment
from evoae.networks import population
from evoae.pruning import operators
from evoae.pruning.schedules import SCHEDULES
from evoae.widgets import views
from evoae.widgets.controls import View, button, control, row
from evoae.widgets.explorer import ScheduleExplorer
from evoae.widgets.trainer import Progress, Trainer

REFRESH = 0.4  # seconds between two pictures of a training


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
        self.operator = control(
            Dropdown, "Operator", options=list(operators.OPERATORS), value=operator
        )
        self.schedule = control(Dropdown, "Schedule", options=list(SCHEDULES), value=schedule)
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
