"""Look into a network: the activations, weights and last prune of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipywidgets import (
    Dropdown,
    IntSlider,
    Text,
)

from evoae.study.widgets import inside
from evoae.study.widgets.inside import Inspection
from evoae.study.widgets.live import LiveTraining
from evoae.study.widgets.parts import View, button, fit, knob, row
from evoae.study.widgets.sources import Source, inspect, of_run, of_trainer, runs_in
from evoae.study.widgets.trainer import Trainer

# a picture takes longer than a slider is moved by a step
LATE = {"min": 0, "max": 0, "continuous_update": False}


class ActivationInspector(View):
    """Look into one cell: of the training of `live`, or of a finished run in `folder`."""

    render = staticmethod(inside.inspection_figure)

    def __init__(self, live: LiveTraining | None = None, folder: str | Path = "out/runs") -> None:
        self.live, self._filling = live, False
        self._source: Source | None = None
        self._chosen, self._missing = False, ""
        self.folder = knob(
            Text,
            "Folder",
            "Where runs are: the folder given to evoae run --out",
            value=str(folder),
            continuous_update=False,
        )
        self.run = knob(Dropdown, "Run", "The training above, or a finished run of the folder")
        self.again = button(
            "Look again",
            "refresh",
            "Search the folder anew, and read what the training has reached",
            self.search,
        )
        self.layer = knob(Dropdown, "Layer", "The layer to look into")
        self.trial = knob(IntSlider, "Trial", "An independent run", **LATE)
        self.cell = knob(IntSlider, "Cell", "Which member of the population", **LATE)
        self.epoch = knob(IntSlider, "Epoch", "After which epoch", **LATE)
        where = [self.layer, self.trial, self.cell, self.epoch]
        super().__init__(row(self.folder, self.run, self.again), row(*where))
        self.search()
        self.folder.observe(self.search, "value")
        self.run.observe(self._open, "value")
        for each in where:
            each.observe(self.redraw, "value")
        if live is not None:
            live.observe(self.search, ["ended", "saved"])

    def search(self, *_: Any) -> None:
        """List what there is to look into, and open what somebody chose, or else the first."""
        found: dict[str, Any] = dict(runs_in(self.folder.value))
        self._missing = "" if found else no_runs(self.folder.value)
        if self.live is not None and self.live.trainer is not None:
            found = {"the training above": self.live.trainer} | found
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
        """The layer that is chosen, None where there is nothing to look into."""
        if self._source is None:
            return None
        where = (self.layer, self.trial, self.cell, self.epoch)
        return inspect(self._source, *(each.value for each in where))

    def redraw(self, *_: Any) -> None:
        """Show what is chosen, unless the choices are just being made."""
        if not self._filling:
            super().redraw()

    def words(self, state: Inspection | None) -> tuple[str, bool]:
        """Why another epoch is shown than was asked for, and that the folder holds no run."""
        return " ".join(filter(None, [state.note if state else "", self._missing])), False


def no_runs(folder: str) -> str:
    """That a folder holds no finished run, as whoever named it needs to know."""
    path = Path(folder).absolute()
    return f"{path} holds no finished run." if path.is_dir() else f"There is no folder {path}."
