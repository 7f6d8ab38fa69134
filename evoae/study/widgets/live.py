"""Watch a training: pause, change, stop and continue it; keep it, and compare the next one."""

from __future__ import annotations

import contextlib
import functools
import shlex
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import Combobox, Dropdown, FloatText, IntProgress, IntText, Layout, Text, Textarea

from evoae.data import datasets
from evoae.experiment import FILE_OPTIONS, MAY_CHANGE, PRESETS, SETTINGS, Experiment, parse_settings
from evoae.networks import population
from evoae.pruning import schedules
from evoae.pruning.allocation import ALLOCATIONS
from evoae.pruning.operators import OPERATORS
from evoae.resources import attended
from evoae.study.runs.exports import export
from evoae.study.runs.run import Run
from evoae.study.widgets import views
from evoae.study.widgets.explorer import SLIDERS, ScheduleExplorer, options
from evoae.study.widgets.hand import Handing
from evoae.study.widgets.parts import View, button, knob, knob_of, row, switch
from evoae.study.widgets.plots import Chart
from evoae.study.widgets.remembered import Remembered
from evoae.study.widgets.trainer import Curves, Trainer

SCALES = {"as they are": "no", "to [0, 1] together": "yes", "each column to [0, 1]": "columns"}
REFRESH = 0.4  # seconds between two pictures of a training
# beside the preset
OWN = ("dataset", "scale", "model", "epochs", "operator", "allocation", "schedule", "learning_rate")


@functools.cache
def in_a_ring(preset: str) -> bool:
    """Whether a preset trains cells that have neighbours."""
    e = Experiment.preset(preset)
    return e.cells > 1 and e.topology == "ring"


class LiveTraining(View):
    """Train in the background, and watch.

    What is not among its knobs comes from the schedule explorer. Operator, schedule, learning rate
    and the explorer's sliders apply to a running training from its next epoch. `folder` is where
    Save writes runs. With `remember`, by default where somebody looks, the knobs are as they were
    left before the kernel was restarted. `ended` counts the trainings that came to an end, `saved`
    is the last run that was saved.
    """

    ended = traitlets.Int(0)
    saved = traitlets.Unicode("")
    described = staticmethod(views.training_plot)

    def __init__(
        self,
        explorer: ScheduleExplorer | None = None,
        dataset: str = "digits",
        model: str = "standard",
        preset: str = "lipi-ae-s",
        operator: str = "random",
        learning_rate: float = 1e-3,
        seed: int = 1,
        folder: str | Path = "out/runs",
        allocation: str = "layer",
        remember: bool | None = None,
        scale: str = "no",
        more: str = "",
    ) -> None:
        self.explorer = explorer or ScheduleExplorer()
        self.seed, self.folder = seed, Path(folder)
        self.trainer: Trainer | None = None
        self.past: list[Curves] = []  # what trainings that ended came to
        self._before: Curves | None = None
        self._problem = self._note = self._hint = ""

        schedule, epochs = self.explorer.schedules.value[0], self.explorer.epochs.value
        self.dataset = knob_of("dataset", Combobox, options=list(datasets.BUILT_IN), value=dataset)
        self.scale = knob(Dropdown, "Values", SETTINGS["scale"].says, options=SCALES, value=scale)
        self.model = knob_of("model", Combobox, options=list(population.MODELS), value=model)
        tip = "Which algorithm: canonical training of one cell, or a way to coevolve several."
        self.preset = knob(Dropdown, "Preset", tip, options=list(PRESETS), value=preset)
        self.epochs = knob_of("epochs", IntText, value=epochs)
        traitlets.link((self.explorer.epochs, "value"), (self.epochs, "value"))
        self.operator = knob_of("operator", Dropdown, options=list(OPERATORS), value=operator)
        spread = list(ALLOCATIONS)
        self.allocation = knob_of("allocation", Dropdown, options=spread, value=allocation)
        self.schedule = knob_of("schedule", Dropdown, options=options(), value=schedule)
        self.learning_rate = knob_of("learning_rate", FloatText, value=learning_rate, step=1e-4)
        tip = "Any other settings, such as header=yes prune_biases=false; `evoae list` explains all"
        self.more = knob(Text, "More settings", tip, value=more)

        self.start = button("Train", "play", "Train from the beginning", self.train)
        self.start.button_style = "primary"
        self.pause = button("Pause", "pause", "Rest after this epoch, or go on", self.toggle)
        self.stop = button("Stop", "stop", "End this training now", self.end)
        self.keep = button("Save", "save", f"Write it as a run into {self.folder}", self.save)
        tip = "Save it, and write its best network as a file for other programs"
        self.give = button("Export", "share", tip, self.export)
        tip = "Show the training before this one, pale, behind it"
        self.compare = switch("Compare", "clone", tip)
        tip = "Save, too, the epochs that were kept, so that the run can be watched later"
        self.epochs_too = switch("Save epochs", "film", tip, value=True)
        self.reset = button("Reset knobs", "undo", "As the notebook says", self._reset)
        self.bar = IntProgress(layout=Layout(width="430px", max_width="98%"))
        self.bar.style.description_width = "160px"

        tip = "The command lines for what these knobs, here and above, mean"
        hidden = Layout(width="98%", display="none")
        self.copy = Textarea(tooltip=tip, rows=9, layout=hidden)  # 9, where CSS cannot fit it
        self.copy.add_class("evoae-lines")
        self.unfold = switch("Show command", "terminal", tip)
        self.clip = Handing("Copy command", tip, lambda: ("", self.copy.value))

        own = {name: getattr(self, name) for name in OWN}
        above = (self.explorer.reading, self.explorer.subpopulation, self.explorer.epochs)
        fixed = [each for name, each in own.items() if name not in MAY_CHANGE]
        self.fixed = [self.preset, *fixed, *above, self.more, self.reset]  # while it trains
        super().__init__(
            Chart("LiveTraining.csv"),
            row(self.preset, *own.values(), self.more),
            row(self.start, self.pause, self.stop, self.keep, self.give, self.compare),
            row(self.unfold, self.clip, self.reset, self.epochs_too),
            self.bar,
            row(self.copy),
        )
        self.unfold.observe(self._fold, "value")
        self.preset.observe(self._take_over, "value")
        for each in (self.preset, *own.values(), self.more):
            each.observe(self._adjust, "value")
        self.compare.observe(self.redraw, "value")
        self.explorer.observe(self._follow, "state")
        self.remembered: Remembered | None = None
        if attended() if remember is None else remember:
            knobs = {"preset": (self.preset, "value")} | self.explorer.knobs  # it moves the others
            knobs |= {name: (each, "value") for name, each in (own | {"more": self.more}).items()}
            self.remembered = Remembered(self.folder, knobs, self._checked)
            self.remembered.restore()
            self._note = self.remembered.words
        self._adjust()

    def settings(self, schedule: str = "") -> dict[str, Any]:
        """What the knobs, here and in the explorer, describe: settings of the preset."""
        schedule = schedule or self.explorer.named(self.schedule.value)
        _, settings = self.explorer.settings(schedule)
        settings |= {name: getattr(self, name).value for name in OWN}
        settings |= {"scale": self.scaled, "schedule": schedule}
        settings |= self.others
        radius = settings.pop("radius", 0)
        return settings | ({"radius": radius} if in_a_ring(self.preset.value) else {})

    @property
    def reading(self) -> dict[str, Any]:
        """The settings that say how a file is read. Raises ValueError."""
        others = self.others
        return {"scale": self.scaled} | {
            name: others[name] for name in FILE_OPTIONS if name in others
        }

    @property
    def others(self) -> dict[str, Any]:
        """The settings that have no knob of their own. Raises ValueError for those that have."""
        found = parse_settings(shlex.split(self.more.value))
        for name in {*OWN, *SLIDERS, "as_released", "radius"} & set(found):
            raise ValueError(f"{name} has a knob of its own; set it there")
        return found

    @property
    def scaled(self) -> bool | str:
        """The setting `scale`, which is for files: built-in data are in [0, 1]."""
        if self.dataset.value in datasets.BUILT_IN:
            return False
        return {"no": False, "yes": True}.get(self.scale.value, self.scale.value)

    def experiment(self) -> Experiment:
        """What is trained. Raises ValueError."""
        return Experiment.preset(self.preset.value, **self.settings())

    def _checked(self) -> Experiment:
        """What is trained, if its data are there, too. Raises ValueError."""
        e = self.experiment()
        datasets.check_there(e.dataset)
        return e

    def _remember(self) -> None:
        """Keep the knobs; where that cannot be done, say so once."""
        try:
            if self.remembered:
                self.remembered.write()
        except OSError as error:
            self.remembered = None
            self._note = f"The knobs cannot be kept: {error.strerror} ({error.filename})."

    def _reset(self) -> None:
        """Bring back what the notebook says, unless a training would be changed by it."""
        if self.remembered and not self.running:
            self.remembered.reset()
            self._note = ""
            self._adjust()

    def command_lines(self, e: Experiment) -> str:
        """`evoae run` for a training and for the other schedules on view, and the notebook."""
        lines = []
        trained = self.explorer.named(self.schedule.value)
        for name in dict.fromkeys([trained, *self.explorer.picked]):
            with contextlib.suppress(ValueError):  # noise, for one, can aim at no target
                settings = self.settings(name)
                if schedules.find(name).target != e.has_target:
                    Experiment.preset(self.preset.value, **settings)
                words = [f"{key}={value}" for key, value in settings.items()]
                where = ["--trials", "1", "--seed", str(self.seed), "--out", str(self.folder)]
                lines.append(["evoae", "run", self.preset.value, *words, *where])
        own = [name for name in (*OWN, "more", "preset") if name != "schedule"]
        parameters = self.explorer.parameters() | {name: getattr(self, name).value for name in own}
        lines.append(["papermill", "notebooks/explore.ipynb", "explored.ipynb"])
        for name, value in (parameters | {"seed": self.seed}).items():
            lines[-1] += ["-r" if isinstance(value, str) else "-p", name, str(value)]
        return "\n".join(map(shlex.join, lines))

    def _fold(self, _: Any) -> None:
        """Show the command lines, or hide them: they take the room of the picture."""
        shown = self.unfold.value
        self.copy.layout.display = "" if shown else "none"
        self.unfold.description = "Hide command" if shown else "Show command"

    def _take_over(self, _: Any) -> None:
        """Move the knobs, here and above, to what a newly chosen preset says of them."""
        for name, value in PRESETS[self.preset.value].settings.items():
            if name in OWN:
                getattr(self, name).value = value
            elif name in SLIDERS:
                getattr(self.explorer, name).value = value

    def _follow(self, _: Any) -> None:
        """Train what is on view: of the explorer's schedules the one chosen here, or the first."""
        picked = self.explorer.schedules.value
        if self.schedule.value not in picked:
            self.schedule.value = picked[0]
        self._adjust()

    def _adjust(self, *_: Any) -> None:
        """Check the knobs, and tell a running training what has changed."""
        if self.schedule.value not in self.explorer.schedules.value:
            self.explorer.schedules.value = (*self.explorer.schedules.value, self.schedule.value)
        try:
            new, self._problem = self._checked(), ""
            self.allocation.disabled = not new.has_target
            self.scale.disabled = new.dataset in datasets.BUILT_IN
            shown, self._hint = self.explorer.subpopulation.value, ""
            if new.subpopulation != shown:
                self._hint = (
                    f"{self.preset.value} trains in sub-populations of {new.subpopulation}; "
                    f"the schedules above are drawn for {shown}."
                )
            if trainer := self.running:
                trainer.change(**{name: getattr(new, name) for name in MAY_CHANGE})
            self.copy.value = self.command_lines(new)
            self._remember()
        except ValueError as error:
            self._problem = str(error)
            self.copy.value = ""
        self.say(*self.words(self.state))

    @property
    def running(self) -> Trainer | None:
        """The training that is under way, be it paused."""
        under_way = self.trainer and self.trainer.status in ("training", "paused")
        return self.trainer if under_way else None

    def train(self, wait: bool = False) -> None:
        """Start a training, unless one is running.

        With `wait`, return when it has ended and its last picture is drawn. Raises ValueError then,
        and only then, if it failed: whoever waits may not be looking.
        """
        if self.running:
            return
        self.say("")  # reading a file may take a while
        try:
            experiment, self._problem = self.experiment(), ""
            experiment.check_files()
        except ValueError as error:
            self._problem = str(error)
            self.say(error)
            if wait:
                raise
            return
        if self.trainer is not None and self.trainer.curves.done:
            self._before = self.trainer.curves
        trainer = self.trainer = Trainer(experiment, self.seed)
        self._note = ""
        trainer.start()
        watcher = threading.Thread(target=self._watch, args=[trainer], daemon=True)
        watcher.start()
        if wait:
            watcher.join()
            if trainer.status == "failed":
                raise ValueError(trainer.curves.error)

    def toggle(self) -> None:
        """Pause the training, or let it go on."""
        if trainer := self.running:
            (trainer.resume if trainer.status == "paused" else trainer.pause)()
            self.redraw()

    def end(self) -> None:
        """Stop the training, and show what it has reached."""
        if trainer := self.running:
            trainer.stop()
            self.redraw()

    def save(self) -> Run | None:
        """Write what was trained as a run, and say where it is, or why that was not possible."""
        try:
            if self.trainer is None:
                raise ValueError("nothing to save yet: press Train")
            run = self.trainer.save(self.folder, self.epochs_too.value)
        except ValueError as error:
            self.say(error)
            return None
        except OSError as error:
            self.say(f"{self.folder}: cannot be written ({error.strerror})")
            return None
        self._note = f"Saved as {run.folder}"
        self.say(*self.words(self.state))
        self.saved = str(run.folder)
        return run

    def export(self) -> None:
        """Save the run, and write its best network beside it, compacted, as a file of its own."""
        run = self.save()
        if run is None:
            return
        suffix = "onnx" if find_spec("onnx") else "safetensors"
        try:
            done = export(run, run.folder / f"network.{suffix}")
        except (ValueError, RuntimeError, OSError) as error:
            self.say(error)
            return
        left = done.compacted.sizes["compact_parameters"]
        self._note = (
            f"Exported as {done.path}: cell {done.cell}, the best on validation data; "
            f"{left:,} of {done.parameters:,} parameters are left"
        )
        self.say(*self.words(self.state))

    def _watch(self, trainer: Trainer) -> None:
        """In a thread of its own: draw while there is something new, and once at the end."""
        seen = None
        while not trainer.wait(0 if seen is None else REFRESH):
            now = trainer.curves.done
            if now != seen:
                self.redraw()
                seen = now
        if trainer is self.trainer:
            self.redraw()
        if trainer.curves.done:
            self.past.append(trainer.curves)
        self.ended += 1

    def look(self) -> Curves | None:
        """What the training has reached, None before the first."""
        if self.trainer is None:
            return None
        return replace(self.trainer.curves, before=self._before if self.compare.value else None)

    def redraw(self, *_: Any) -> None:
        """Show what is reached: the picture, and with it the bar and what may be pressed."""
        with self._drawing:
            super().redraw()
            running, curves = self.running is not None, self.state
            self.start.disabled = running
            self.pause.disabled = self.stop.disabled = not running
            idle = curves is None or not curves.done or curves.status == "training"
            self.keep.disabled = self.give.disabled = idle
            for each in self.fixed:
                each.disabled = running
            if curves is not None:
                self.pause.description = "Resume" if curves.status == "paused" else "Pause"
                self.bar.max, self.bar.value = curves.experiment.epochs, curves.done
                self.bar.description = views.epochs_of(curves)

    def words(self, state: Curves | None) -> tuple[str, bool]:
        """What is wrong, or else what to know, and where the training was saved."""
        wrong = self._problem or (state.error if state else "")
        return wrong or " ".join(filter(None, [self._hint, self._note])), bool(wrong)
