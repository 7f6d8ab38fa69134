"""What explorer and training show: frozen states, and pure functions that describe their curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, to_hex

from evoae.experiment import Experiment
from evoae.identity import name_of
from evoae.pruning import schedules
from evoae.study.figures.heatmaps import PRUNED
from evoae.study.figures.look import palette_of, schedule_look
from evoae.study.widgets.parts import count, data_name
from evoae.study.widgets.plots import Panel, Plot, Series
from evoae.study.widgets.trainer import Curves

ACCENT = PRUNED["color"]
PALE = 0.35  # of the curves that others are compared with
SAMPLES = 960  # epochs of a long run at which its schedule is looked at
TRAIL = 400  # points of a trail at most

# -- schedules -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedules:
    """Schedules side by side, of one experiment but for its `schedule`."""

    experiment: Experiment
    names: tuple[str, ...]

    @cached_property
    def epochs(self) -> np.ndarray:
        """The epochs that are looked at: all; or of a long run some, and those beside its steps."""
        e = self.experiment
        if e.epochs <= SAMPLES:
            return np.arange(e.epochs)
        steps = [(1 - e.last_share) * e.final, e.prune_until * (e.epochs - 1)]
        drawn = [x for n in self.names if schedules.drawn(n) for x, _ in schedules.points_of(n)]
        steps += [x * (e.epochs - 1) for x in drawn[: MOST_STEPS - 2]]
        beside = [math.floor(step) + k for step in steps for k in (-1, 0, 1, 2)]
        found = np.concatenate([np.linspace(0, e.epochs - 1, SAMPLES).astype(np.int64), beside])
        return np.unique(found.clip(0, e.epochs - 1))

    @cached_property
    def weights(self) -> np.ndarray:
        """How many epochs each of them stands for."""
        ends = np.concatenate([[-1], (self.epochs[1:] + self.epochs[:-1]) // 2, self.epochs[-1:]])
        return np.diff(ends)

    def values(self, name: str) -> np.ndarray:
        """Probability of a prune, or target sparsity, after each of the epochs."""
        return np.array([self.experiment.pruning_at(t, name) for t in self.epochs.tolist()])


MOST_STEPS = 10


def expected_prunes(
    values: np.ndarray, target: bool = False, weights: np.ndarray | int = 1
) -> float:
    """The sum of the probabilities; under a target, the epochs with one above 0.

    A value stands for as many epochs as its weight.
    """
    return float((weights * ((values > 0) if target else values)).sum())


def expected_preserved(
    values: np.ndarray,
    amount: float,
    *,
    regrowth: bool,
    target: bool = False,
    weights: np.ndarray | int = 1,
) -> np.ndarray:
    """Expected share of weights that are not zero after each epoch, [epochs].

    For operators that remove a share a = `amount` of all weights, whatever their value (`random`).
    Without regrowth prunes are independent and their losses multiply: the product over s <= t of
    (1 - p_s a). With regrowth everything pruned earlier has grown back: 1 - p_t a. A target
    sparsity q_t leaves 1 - q_t; without regrowth, 1 minus the largest so far. A value stands for as
    many epochs as its weight.
    """
    if target:
        return 1 - (values if regrowth else np.maximum.accumulate(values))
    return 1 - values * amount if regrowth else np.cumprod((1 - values * amount) ** weights)


def schedule_plot(state: Schedules) -> Plot:
    """Probability per epoch, expected preserved share, and both as numbers at the last epoch."""
    e, series = state.experiment, []
    colours = palette_of(pd.Series(state.names, dtype=object), "schedule")
    for name in state.names:
        values, target = state.values(name), schedules.find(name).target
        prunes = expected_prunes(values, target, state.weights)
        share = {
            regrowth: 100
            * expected_preserved(
                values, e.amount, regrowth=regrowth, target=target, weights=state.weights
            )
            for regrowth in (True, False)
        }
        many = (
            f"about {prunes:,.{0 if prunes > 100 else 1}f}"
            if len(state.epochs) < e.epochs
            else f"{prunes:,.1f}"
        )
        said = (
            f"{name}: {many} prunes, {share[True][-1]:.1f} % left with regrowth, "
            f"{share[False][-1]:.1f} % without"
        )
        for number, curve in enumerate((values, share[True], share[False])):
            series.append(
                Series(
                    number, state.epochs, curve, name, colours[name], schedule_look(name)[1], 2,
                    said="" if number else said, size=5 if len(values) == 1 else 0,
                )
            )  # fmt: skip
    height = 3.1 + 0.2 * len(state.names)
    low, high = (0.55 + 0.2 * len(state.names)) / height, 1 - 0.4 / height
    titles = (
        "Probability,\nor target sparsity",
        "% left\nwith regrowth",
        "% left\nwithout regrowth",
    )
    panels = tuple(
        Panel(words, (left, low, 0.26, high - low), "Epoch", ylim=(-0.03 * top, 1.03 * top))
        for words, left, top in zip(titles, (0.05, 0.38, 0.71), (1, 100, 100), strict=True)
    )
    return Plot("", panels, tuple(series), height=height)


# -- training ------------------------------------------------------------------------------------


def training_plot(state: Curves | None) -> Plot:
    """Loss, preserved share, sparsity versus loss as a trail, and the cells by loss.

    The curves of a training to compare are pale, and behind.
    """
    if state is None:
        return Plot("Nothing is trained yet: press Train.")
    e, before, series = state.experiment, state.before, []
    note = f"pale: {title_of(before.experiment)}, {epochs_of(before)}" if before else ""
    for number, (kind, colour, scale) in enumerate(
        (("loss", "#0072B2", 1), ("preserved", "#009E73", 100))
    ):
        for curves, alpha in ((before, PALE), (state, 1.0)):
            if curves is None or not curves.done:
                continue
            values = getattr(curves, kind) * scale
            edges = {"low": values.min(1), "high": values.max(1)} if curves is state else {}
            name = "this training" if curves is state else "the one before"
            series.append(
                Series(number, np.arange(curves.done), values.mean(1), name, colour, alpha=alpha,
                       size=4 if curves.done < 3 else 0, **edges)
            )  # fmt: skip
    for curves, alpha in ((before, PALE), (state, 1.0)):
        if curves is not None and curves.done:
            series += trail(curves, alpha)
    known = ((state.constant, "constant predictor", "--"), (state.floor, "noise floor", ":"))
    levels = tuple((v, f"{words} {v:.3f}", dash) for v, words, dash in known if v is not None)
    marks = tuple((at - 0.5, words) for at, words in joined(state.changes))
    # the axis doubles until it holds all epochs, so that a curve is seen growing
    grown = min(e.epochs, max(10, 2 ** state.done.bit_length()))
    xlim = (-0.5, max(grown, before.done if before else 0, 1) - 0.5)
    ring, cells = ring_of(state)
    panels = (
        Panel("Validation loss (L1):\nmean and range of cells", (0.08, 0.55, 0.4, 0.29),
              "After epoch", xlim, levels=levels, marks=marks),
        Panel("Preserved share (%):\nmean and range of cells", (0.58, 0.55, 0.39, 0.29),
              "After epoch", xlim, marks=marks),
        Panel("Sparsity versus loss (L1),\nepoch after epoch", (0.08, 0.1, 0.4, 0.31),
              "Sparsity (%)"),
        Panel(cells, (0.58, 0.06, 0.39, 0.35), xlim=(-1.9, 1.9), ylim=(-1.3, 1.3), bare=True),
    )  # fmt: skip
    return Plot(title_of(e), panels, (*series, *ring), standing(state), note, height=6.6)


def title_of(e: Experiment) -> str:
    """What is trained, in a line."""
    how = f"{name_of(e.operator)} under {name_of(e.schedule)}"
    return f"{data_name(e.dataset)}, {e.model}: {how}, {count(e.cells, 'cell')}"


def epochs_of(state: Curves) -> str:
    """How many epochs are done, in words."""
    return f"{state.done} of {count(state.experiment.epochs, 'epoch')}"


def standing(state: Curves) -> str:
    """Status, epochs and time in words."""
    where = f"{state.status}, {epochs_of(state)}"
    if state.status == "training" and state.left is not None:
        return f"{where}, about {duration(state.left)} left"
    return f"{where}, {duration(state.seconds)}" if state.done else where


def joined(changes: tuple[tuple[int, str], ...]) -> list[tuple[int, str]]:
    """The changes of each epoch in one line."""
    return [
        (epoch, ", ".join(text for at, text in changes if at == epoch))
        for epoch in sorted({epoch for epoch, _ in changes})
    ]


def shades(values: np.ndarray) -> list[str]:
    """Colours of numbers, from yellow (lowest) to dark (highest)."""
    norm = Normalize(values.min(), max(values.max(), values.min() + 1e-9))
    return [to_hex(colour) for colour in mpl.colormaps["viridis_r"](norm(values))]


def trail(curves: Curves, alpha: float) -> list[Series]:
    """Sparsity and loss after each epoch, from yellow to dark, and where the last one is."""
    x, y = 100 * (1 - curves.preserved.mean(1)), curves.loss.mean(1)
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), TRAIL)).round().astype(int))
    name = "this training" if alpha == 1 else "the one before"
    colours = shades(some.astype(float)) if alpha == 1 else "#888888"
    hover = [f"epoch {t}: {x[t]:.1f} % zeros, loss {y[t]:.4f}" for t in some]
    found = [
        Series(2, x[some], y[some], name, colours, "", 0, alpha, 4, hover=hover),
        Series(2, x[-1:], y[-1:], name, ACCENT, "", 1, alpha, 9, hover=["mean of cells, now"]),
    ]
    if alpha == 1 and curves.loss.shape[1] > 1:
        last = 100 * (1 - curves.preserved[-1]), curves.loss[-1]
        hover = [f"cell {cell}" for cell in range(len(last[0]))]
        white = ["#FFFFFF"] * len(last[0])
        found.append(Series(2, *last, name, white, "", 1, 0.7, 5, "#888888", hover=hover))
    return found


def ring_of(state: Curves) -> tuple[list[Series], str]:
    """Cells in a circle, as large as fits, by their loss; and the title of their panel."""
    cells = state.experiment.cells
    angle = np.pi / 2 - 2 * np.pi * np.arange(cells) / cells
    x, y = (np.cos(angle), np.sin(angle)) if cells > 1 else (np.zeros(1), np.zeros(1))
    size = min(26.0, math.sqrt(6500 / max(cells, 4)))
    names = [str(cell) for cell in range(cells)] if cells <= 40 else []
    colours, edges, hover = ["#EEEEEE"] * cells, ["white"] * cells, []
    words = "Cells by loss" if cells > 1 else "The cell, by its loss"
    if state.done:
        loss, colours = state.loss[-1], shades(state.loss[-1])
        edges = [ACCENT if pruned else "white" for pruned in state.pruned[-1]]
        hover = [f"cell {cell}: loss {value:.4f}" for cell, value in enumerate(loss)]
        span = f", {loss.min():.3f} to {loss.max():.3f}" if cells > 1 else ""
        words = f"{words}{span};\nringed: pruned"
    found = [Series(3, x, y, "cells", colours, "", 3, 1, size, edges, words=names, hover=hover)]
    if state.experiment.topology == "ring" and cells > 2:
        closed = np.append(np.arange(cells), 0)
        found.insert(0, Series(3, x[closed], y[closed], "cells", "#CCCCCC", width=1.5, alpha=0.99))
    return found, words


def duration(seconds: float) -> str:
    """A time in the unit that people would choose."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
