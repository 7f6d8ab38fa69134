"""What explorer and training show: frozen states, and pure functions that describe their curves."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, to_hex

from evoae.experiment import Experiment
from evoae.identity import name_of
from evoae.messages import count, duration
from evoae.pruning import schedules
from evoae.study.figures.heatmaps import PRUNED
from evoae.study.figures.look import palette_of, schedule_look
from evoae.study.widgets.parts import data_name, evenly
from evoae.study.widgets.plots import Panel, Plot, Series
from evoae.study.widgets.trainer import Curves

ACCENT, BLUE, GREEN = PRUNED["color"], "#0072B2", "#009E73"
PALE = 0.35  # of the curves that others are compared with
SAMPLES = 960  # epochs of a long run at which its schedule is looked at
MOST_STEPS = 10  # of schedules, beside which they are looked at, too
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
        steps = [(1 - e.last_share) * e.clock_end, e.prune_until * (e.epochs - 1)]
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
        regrown, lasting = (
            100 * expected_preserved(
                values, e.amount, regrowth=regrowth, target=target, weights=state.weights
            )
            for regrowth in (True, False)
        )  # fmt: skip
        many = f"{prunes:,.1f}"
        if len(state.epochs) < e.epochs:
            many = f"about {prunes:,.{0 if prunes > 100 else 1}f}"
        said = (
            f"{name}: {many} prunes, {regrown[-1]:.1f} % left with regrowth, "
            f"{lasting[-1]:.1f} % without"
        )
        for number, curve in enumerate((values, regrown, lasting)):
            series.append(
                Series(
                    number, state.epochs, curve, name, colours[name], schedule_look(name)[1], 2,
                    said="" if number else said, size=5 if len(values) == 1 else 0,
                )
            )  # fmt: skip
    panels = (
        Panel("Probability,\nor target sparsity", "Epoch", ylim=(-0.03, 1.03)),
        Panel("% left\nwith regrowth", "Epoch", ylim=(-3, 103)),
        Panel("% left\nwithout regrowth", "Epoch", ylim=(-3, 103)),
    )
    return Plot((), panels, tuple(series), height=3.1 + 0.2 * len(state.names))


# -- training ------------------------------------------------------------------------------------


def training_plot(state: Curves | None) -> Plot:
    """Loss, preserved share, sparsity versus loss as a trail, and the cells by loss.

    The curves of a training to compare are pale, and behind.
    """
    if state is None:
        return Plot(("Nothing is trained yet: press Train.",))
    e, before = state.experiment, state.before
    heading, series = [title_of(e), standing(state)], []
    if before:
        heading.append(f"pale: {title_of(before.experiment)}, {epochs_of(before)}")
    if not (state.done or before):
        return Plot(tuple(heading))  # plotly draws no axes where there is nothing to draw
    for curves, name, alpha in ((before, "the one before", PALE), (state, "this training", 1.0)):
        if curves is not None and curves.done:
            series += [*means(curves, name, alpha), *trail(curves, name, alpha)]
    marks = tuple(
        (epoch - 0.5, ", ".join(words for _, words in together))
        for epoch, together in itertools.groupby(state.changes, lambda change: change[0])
    )
    # the axis doubles until it holds all epochs, so that a curve is seen growing
    grown = min(e.epochs, max(10, 2 ** state.done.bit_length()))
    xlim = (-0.5, max(grown, before.done if before else 0, 1) - 0.5)
    ring, cells = ring_of(state)
    panels = (
        Panel("Validation loss (L1):\nmean and range of cells", "After epoch", xlim,
              constant=state.constant, floor=state.floor, marks=marks),
        Panel("Preserved share (%):\nmean and range of cells", "After epoch", xlim, marks=marks),
        Panel("Sparsity versus loss (L1),\nepoch after epoch", "Sparsity (%)"),
        Panel(cells, xlim=(-1.9, 1.9), ylim=(-1.3, 1.3), bare=True),
    )  # fmt: skip
    return Plot(tuple(heading), panels, (*series, *ring), height=6.6)


def title_of(e: Experiment) -> str:
    """What is trained, in a line."""
    how = f"{name_of(e.operator)} under {name_of(e.schedule)}"
    return f"{data_name(e.dataset)}, {e.model}: {how}, {count(e.cells, 'cell')}"


def epochs_of(state: Curves) -> str:
    """How many epochs are done, in words."""
    return f"{state.done:,} of {count(state.experiment.epochs, 'epoch')}"


def standing(state: Curves) -> str:
    """Status, epochs and time in words."""
    where = f"{state.status}, {epochs_of(state)}"
    if state.status == "training" and state.left is not None:
        return f"{where}, about {duration(state.left)} left"
    return f"{where}, {duration(state.seconds)}" if state.done else where


def shades(values: np.ndarray) -> list[str]:
    """Colours of numbers, from yellow (lowest) to dark (highest)."""
    norm = Normalize(values.min(), max(values.max(), values.min() + 1e-9))
    return [to_hex(colour) for colour in mpl.colormaps["viridis_r"](norm(values))]


def means(curves: Curves, name: str, alpha: float) -> list[Series]:
    """Mean loss and preserved share of the cells; their range, unless the curves are pale."""
    found = []
    size = 4 if curves.done < 3 else 0
    for number, values, colour in ((0, curves.loss, BLUE), (1, 100 * curves.preserved, GREEN)):
        edges = {"low": values.min(1), "high": values.max(1)} if alpha == 1 else {}
        x, y = np.arange(curves.done), values.mean(1)
        found.append(Series(number, x, y, name, colour, alpha=alpha, size=size, **edges))
    return found


def trail(curves: Curves, name: str, alpha: float) -> list[Series]:
    """Sparsity and loss after each epoch, from yellow to dark, and where the last one is."""
    x, y = 100 * (1 - curves.preserved.mean(1)), curves.loss.mean(1)
    some = evenly(len(x), TRAIL)
    colours = shades(some.astype(float)) if alpha == 1 else "#888888"
    hover = [f"epoch {t}: {x[t]:.1f} % zeros, loss {y[t]:.4f}" for t in some]
    found = [
        Series(2, x[some], y[some], name, colours, "", 0, alpha, 4, hover=hover),
        Series(2, x[-1:], y[-1:], name, ACCENT, "", 1, alpha, 9, hover=["mean of cells, now"]),
    ]
    if alpha == 1 and curves.loss.shape[1] > 1:
        last = 100 * (1 - curves.preserved[-1]), curves.loss[-1]
        hover = [f"cell {cell}" for cell in range(len(last[0]))]
        found.append(Series(2, *last, name, "#FFFFFF", "", 1, 0.7, 5, "#888888", hover=hover))
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
