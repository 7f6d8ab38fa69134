"""Trainings so far: those of this notebook and the runs on disk, in a table to tick, and a plot."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ipywidgets import HTML, Checkbox, GridBox, Layout

from evoae.experiment import Experiment
from evoae.networks import population
from evoae.study.figures.look import OTHER_COLOURS
from evoae.study.runs.run import Run
from evoae.study.widgets.inside import runs_in
from evoae.study.widgets.live import LiveTraining
from evoae.study.widgets.parts import WIDEST, View, button, data_name, row
from evoae.study.widgets.plots import Chart, Panel, Plot, Series
from evoae.study.widgets.trainer import Curves

MOST_ROWS = 40  # of the table: the newest
MAIN = (  # settings that are written out; of others that differ, the number is
    "dataset", "model", "kind", "cells", "epochs", "learning_rate", "operator", "amount",
    "schedule", "probability", "steepness", "last_share", "target_sparsity", "prune_until",
    "allocation", "pruned_weights", "drop_fraction", "as_released",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a training: L1 on validation data and zeros (%) of the best cell, [n] each.

    n counts trials of a run. `size`: parameters of the cell that are not zero, None if unknown.
    """

    name: str
    experiment: Experiment
    loss: np.ndarray
    zeros: np.ndarray
    size: float | None
    changed: str = ""


def of_curves(name: str, curves: Curves) -> Trained:
    """A training of this notebook."""
    best = int(np.argmin(np.nan_to_num(curves.loss[-1], nan=np.inf)))
    loss, share = curves.loss[-1, [best]], curves.preserved[-1, [best]]
    changed = ", ".join(f"{text} at epoch {epoch}" for epoch, text in curves.changes)
    if curves.done < curves.experiment.epochs:
        changed = "; ".join(filter(None, [changed, f"stopped after {curves.done} epochs"]))
    return trained(name, curves.experiment, loss, share, changed)


def of_folder(folder: Path) -> Trained:
    """A run on disk. Raises ValueError if it cannot be read."""
    run = Run(folder)
    loss, share = run.trials[["validation_l1", "best_preserved"]].to_numpy(float).T
    changed = "changed on the way" if run.changes else ""
    return trained(folder.name[:8], run.experiment, loss, share, changed)


def trained(name: str, e: Experiment, loss: np.ndarray, share: np.ndarray, said: str) -> Trained:
    """Shares as per cent and as parameters."""
    try:
        widths = population.widths_of(e.dimension, e.model, e.kind)
        size: float | None = sum(map(population.parameter_count, widths)) * float(share.mean())
    except ValueError:  # its data file is gone
        size = None
    return Trained(name, e, loss, 100 * (1 - share), size, said)


def differing(rows: Sequence[Trained]) -> list[str]:
    """The settings in which the trainings differ."""
    every = [row.experiment.settings() for row in rows]
    return [name for name in every[0] if len({repr(s[name]) for s in every}) > 1] if every else []


def described(each: Trained, names: Sequence[str]) -> str:
    """The settings of these names, in words."""
    settings = each.experiment.settings()
    settings["dataset"] = data_name(settings["dataset"])
    words = [f"{name}={settings[name]}" for name in MAIN if name in names]
    more = len(set(names) - set(MAIN))
    return ", ".join([*words, *([f"{more} more settings"] if more else [])])


def trainings_plot(rows: tuple[Trained, ...]) -> Plot:
    """Sparsity and loss of every training that is ticked."""
    if not rows:
        return Plot(("Tick trainings to compare them.",))
    names, series = differing(rows), []
    for number, each in enumerate(rows):
        words = f": {described(each, names)}" if 0 < len(names) <= 3 else ""
        hover = [f"{each.name}: {z:.1f} % zeros, loss {v:.4f}"
                 for z, v in zip(each.zeros, each.loss, strict=True)]  # fmt: skip
        colour = OTHER_COLOURS[number % len(OTHER_COLOURS)]
        series.append(Series(0, each.zeros, each.loss, each.name, colour, "", 1, 1, 9,
                             said=f"{each.name}{words}", hover=hover))  # fmt: skip
    title = "Validation loss (L1) of the best cell; a point per trial"
    panels = (Panel(title, "Sparsity (%)"),)
    return Plot((), panels, tuple(series), height=3.6 + 0.2 * len(rows))


class TrainingsSoFar(View):
    """A table of what was trained: by `live` in this notebook, and the runs in `folder`.

    `ticks` are the boxes, by name. Those of this notebook are ticked at first.
    """

    described = staticmethod(trainings_plot)

    def __init__(self, live: LiveTraining | None = None, folder: str | Path = "out/runs") -> None:
        self.live, self.folder = live, Path(folder)
        self.rows: dict[str, Trained] = {}
        self.ticks: dict[str, Checkbox] = {}
        columns = "40px 90px minmax(200px, 1fr) 90px 80px 110px"
        self.grid = GridBox(layout=Layout(grid_template_columns=columns, max_width=WIDEST))
        self.again = button("Look again", "refresh", "Search the folder anew", self.search)
        super().__init__(Chart("TrainingsSoFar.csv"), row(self.again), self.grid)
        self.search()
        if live is not None:
            live.observe(self.search, ["ended", "saved"])

    def search(self, *_: Any) -> None:
        """List what there is, newest first; what is damaged is left out."""
        done = self.live.past if self.live else []
        found = [of_curves(f"training {n + 1}", each) for n, each in enumerate(done)][::-1]
        for path in list(runs_in(self.folder).values())[: MOST_ROWS - len(found)]:
            with contextlib.suppress(ValueError, KeyError, OSError):
                found.append(of_folder(path))
        with self._drawing:
            self.rows = {each.name: each for each in found[:MOST_ROWS]}
            ticked = {name: box.value for name, box in self.ticks.items()}
            self.ticks = {}
            for name in self.rows:
                box = Checkbox(indent=False, tooltip=f"Draw {name}", layout=Layout(width="30px"))
                box.value = ticked.get(name, name.startswith("training"))
                box.observe(self.redraw, "value")
                self.ticks[name] = box
            self.grid.children = self.cells()
        self.redraw()

    def cells(self) -> list[Any]:
        """The cells of the table, its head first."""
        heads = ("", "Training", "Settings that differ", "Loss (L1)", "Zeros", "Parameters left")
        found: list[Any] = [HTML(f"<b>{head}</b>") for head in heads if self.rows]
        names = differing(list(self.rows.values()))
        for name, each in self.rows.items():
            said = "; ".join(filter(None, [described(each, names), each.changed]))
            size = "–" if each.size is None else f"{each.size:,.0f}"
            loss, zeros = f"{each.loss.mean():.4f}", f"{each.zeros.mean():.1f} %"
            texts = (name, said, loss, zeros, size)
            found += [self.ticks[name], *(HTML(html.escape(text)) for text in texts)]
        return found

    def look(self) -> tuple[Trained, ...]:
        """What is ticked."""
        return tuple(each for name, each in self.rows.items() if self.ticks[name].value)

    def words(self, state: Any) -> tuple[str, bool]:
        """That there is nothing to compare yet."""
        return ("" if self.rows else "Nothing is trained yet, here or in the folder."), False
