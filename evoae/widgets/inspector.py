"""Look into a network: the activations, weights and last prune of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipywidgets import (
    Dropdown,
    IntSlider,
    Text,
)

from evoae.widgets import views
from evoae.widgets.controls import View, button, control, fit, row
from evoae.widgets.live import LiveTraining
from evoae.widgets.sources import inspect, of_run, of_trainer, runs_in
from evoae.widgets.trainer import Trainer
from evoae.widgets.views import Inspection


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
