"""Look into a network: the activations, weights and last prune of a layer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import Dropdown, IntSlider, Play, SelectionSlider, Text

from evoae.study.widgets import inside
from evoae.study.widgets.hand import Network
from evoae.study.widgets.live import LiveTraining
from evoae.study.widgets.parts import View, button, fit, knob, row
from evoae.study.widgets.pixels import Pictures

PACE = 250  # milliseconds between two epochs that are played


class ActivationInspector(View):
    """Look into one cell, epoch by epoch: of the training of `live`, or of a run in `folder`."""

    described = staticmethod(inside.described)
    _source: inside.Source | None

    def __init__(self, live: LiveTraining | None = None, folder: str | Path = "out/runs") -> None:
        self.live, self._source = live, None
        self._filling = self._chosen = False
        self._missing = ""
        tip = "Where runs are: the folder given to evoae run --out"
        self.folder = knob(Text, "Folder", tip, value=str(folder))
        self.run = knob(Dropdown, "Run", "The training above, or a finished run of the folder")
        tip = "Search the folder anew, and read what the training has reached"
        self.again = button("Look again", "refresh", tip, self.search)
        self.layer = Network()
        self.trial = knob(IntSlider, "Trial", "An independent run", min=0, max=0)
        self.cell = knob(IntSlider, "Cell", "Which member of the population", min=0, max=0)
        tip = "After which of the epochs that were kept"
        self.epoch = knob(SelectionSlider, "Epoch", tip, options=[0])
        self.play = Play(interval=PACE, show_repeat=False, tooltip="Play the epochs that were kept")
        traitlets.link((self.play, "value"), (self.epoch, "index"))
        where = [self.layer, self.trial, self.cell, self.epoch]
        super().__init__(
            Pictures(),
            row(self.folder, self.run, self.again),
            row(self.trial, self.cell),
            row(self.epoch, self.play),
            self.layer,
        )
        self.search()
        self.folder.observe(self.search, "value")
        self.run.observe(self._open, "value")
        for each in where:
            each.observe(self.redraw, "value")
        if live is not None:
            live.observe(self.search, ["ended", "saved"])

    def search(self, *_: Any) -> None:
        """List what there is to look into, and open what somebody chose, or else the first."""
        runs = inside.runs_in(self.folder.value)
        self._missing = "" if runs else no_runs(self.folder.value)
        found = {line: partial(inside.of_run, path) for line, path in runs.items()}
        if self.live is not None and self.live.trainer is not None:
            found = {"the training above": partial(inside.of_trainer, self.live.trainer)} | found
        with self._drawing:
            label, self._filling = self.run.label if self._chosen else "", True
            self.run.options = list(found.items())
            self.run.label = label if label in found else next(iter(found), None)
            self._filling = False
        self._open()

    def _open(self, *choice: Any) -> None:
        """Fit the knobs to the source that is chosen, at its last stored epoch."""
        if self._filling:
            return
        self._chosen |= bool(choice)
        with self._drawing:
            self._source, self._filling = None, True
            try:
                if self.run.value is not None:
                    source = self.run.value()
                    if self.layer.value not in source.layers:
                        self.layer.value = "code"
                    fit(self.trial, source.trials[0], source.trials[-1])
                    fit(self.cell, 0, source.experiment.cells - 1)
                    self._source = source
                    self._fit_epochs(source.stored(self.trial.value))
            except ValueError as error:
                self.say(error)
                return
            finally:
                self._filling = False
        self.redraw()

    def _fit_epochs(self, stored: tuple[int, ...]) -> None:
        """Let the slider and the player go over the epochs that are there, and to the last."""
        self.epoch.options = stored
        self.play.max = self.epoch.index = len(stored) - 1
        self.epoch.disabled = self.play.disabled = len(stored) == 1

    def show(self, state: inside.Inspection | None) -> None:
        """Show the layer, and how much is left of each on the drawing."""
        super().show(state)
        self.layer.layers = [list(each) for each in state.layers] if state else []

    def look(self) -> inside.Inspection | None:
        """The layer that is chosen, None where there is nothing to look into."""
        if self._source is None:
            return None
        stored = self._source.stored(self.trial.value)
        if self.epoch.options != stored:  # of another trial more or fewer are there
            self._filling = True
            self._fit_epochs(stored)
            self._filling = False
        where = self.trial.value, self.cell.value, self.epoch.value
        return inside.inspect(self._source, self.layer.value, *where)

    def redraw(self, *_: Any) -> None:
        """Show what is chosen, unless the choices are just being made."""
        if not self._filling:
            super().redraw()

    def words(self, state: inside.Inspection | None) -> tuple[str, bool]:
        """Why there is one epoch only, and that the folder holds no run."""
        note = self._source.note if self._source else ""
        return " ".join(filter(None, [note, self._missing])), False


def no_runs(folder: str) -> str:
    """That a folder holds no finished run, as whoever named it needs to know."""
    path = Path(folder).absolute()
    return f"{path} holds no finished run." if path.is_dir() else f"There is no folder {path}."
