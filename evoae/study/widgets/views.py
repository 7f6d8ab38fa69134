"""What explorer and training show: frozen states, and pure functions that draw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from evoae.experiment import Experiment
from evoae.identity import name_of
from evoae.pruning import schedules
from evoae.study.figures.heatmaps import PRUNED
from evoae.study.figures.look import (
    INK,
    OTHER_COLOURS,
    blank,
    notice,
    panel,
    plain,
    reference_lines,
    title,
)
from evoae.study.widgets.parts import count
from evoae.study.widgets.trainer import Curves

ACCENT = PRUNED["color"]
PALE = 0.35  # of the curves that others are compared with
DASHES = ("-", "--", "-.", ":")


# -- schedules -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedules:
    """Schedules side by side, of one experiment but for its `schedule`."""

    experiment: Experiment
    names: tuple[str, ...]

    def values(self, name: str) -> np.ndarray:
        """Probability of a prune, or target sparsity, after each epoch, [epochs]."""
        e = self.experiment
        return np.array([e.pruning_at(t, name) for t in range(e.epochs)])


def expected_prunes(values: np.ndarray, target: bool = False) -> float:
    """The sum of the probabilities; under a target, the epochs with one above 0."""
    return float((values > 0).sum() if target else values.sum())


def expected_preserved(
    values: np.ndarray, amount: float, *, regrowth: bool, target: bool = False
) -> np.ndarray:
    """Expected share of weights that are not zero after each epoch, [epochs].

    For operators that remove a share a = `amount` of all weights, whatever their value (`random`).
    Without regrowth prunes are independent and their losses multiply: the product over s <= t of
    (1 - p_s a). With regrowth everything pruned earlier has grown back: 1 - p_t a. A target
    sparsity q_t leaves 1 - q_t either way.
    """
    if target:
        return 1 - values
    return 1 - values * amount if regrowth else np.cumprod(1 - values * amount)


@plain()
def schedule_figure(state: Schedules) -> Figure:
    """Probability per epoch, expected preserved share, and both as numbers at the last epoch."""
    lines = len(state.names)
    height = 4.0 + 0.22 * lines
    figure = blank(height)
    bottom, row = (0.95 + 0.22 * lines) / height, (0.2 + 0.22 * lines) / height
    left = panel(figure, (0.06, bottom, 0.41, 0.92 - bottom), "Epoch", "")
    right = panel(figure, (0.56, bottom, 0.41, 0.92 - bottom), "Epoch", "")
    target = [name for name in state.names if schedules.find(name).target]
    aimed = f" ({', '.join(target)}: target sparsity)" if target else ""
    title(left, "Probability of a prune" + aimed)
    title(right, "Expected preserved share (%)")
    columns = (0.06, 0.26, 0.56, 0.76)
    header = ("", "Expected prunes", "— with regrowth", "··· without")
    for x, words in zip(columns, header, strict=True):
        figure.text(x, row, words, fontsize=9.5, color=INK)
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    epochs = np.arange(state.experiment.epochs)
    marker = "o" if len(epochs) < 2 else None
    for number, name in enumerate(state.names):
        colour = OTHER_COLOURS[number % len(OTHER_COLOURS)]
        values, is_target = state.values(name), schedules.find(name).target
        left.plot(epochs, values, color=colour, lw=2, marker=marker, ls=DASHES[number % 4])
        texts = [name, f"{expected_prunes(values, is_target):,.1f}"]
        for regrowth, dashes in ((True, "-"), (False, ":")):
            share = 100 * expected_preserved(
                values, state.experiment.amount, regrowth=regrowth, target=is_target
            )
            right.plot(epochs, share, color=colour, lw=1.8, marker=marker, ls=dashes)
            texts.append(f"{share[-1]:.1f} %")
        row -= 0.22 / height
        figure.text(columns[0] + 0.045, row, texts.pop(0), fontsize=10, color=INK)
        for x, words in zip(columns[1:], texts, strict=True):
            figure.text(x, row, words, fontsize=10, color=INK)
        sample = [columns[0], columns[0] + 0.037], [row + 0.05 / height] * 2
        figure.add_artist(Line2D(*sample, color=colour, lw=2.5, ls=DASHES[number % 4]))
    left.set(ylim=(-0.03, 1.03), yticks=(0, 0.25, 0.5, 0.75, 1))
    right.set(ylim=(-3, 103), yticks=(0, 25, 50, 75, 100))
    return figure


# -- training ------------------------------------------------------------------------------------


@plain()
def training_figure(state: Curves | None) -> Figure:
    """Loss, preserved share, sparsity versus loss as a trail, and the cells by loss.

    The curves of a training to compare are pale, and behind.
    """
    if state is None:
        return notice("Nothing is trained yet: press Train.")
    e, done, before = state.experiment, state.done, state.before
    figure = blank(6.6)
    grid = GridSpec(
        2, 2, figure, left=0.08, right=0.97, top=0.87, bottom=0.085, hspace=0.42, wspace=0.2
    )
    figure.text(0.02, 0.965, title_of(e), fontsize=11, weight="bold", color=INK)
    figure.text(0.98, 0.965, standing(state), fontsize=10, color=INK, ha="right")
    if before is not None:
        words = f"pale: {title_of(before.experiment)}, {epochs_of(before)}"
        figure.text(0.02, 0.932, words, fontsize=9.5, color="#777777")
    loss_panel = panel(figure, grid[0, 0], "After epoch", "")
    title(loss_panel, "Validation loss (L1): mean and range of cells")
    size_panel = panel(figure, grid[0, 1], "After epoch", "")
    title(size_panel, "Preserved share (%): mean and range of cells")
    trail_panel = panel(figure, grid[1, 0], "Sparsity (%)", "")
    title(trail_panel, "Sparsity versus loss (L1), epoch after epoch")
    for ax, name, colour in ((loss_panel, "loss", "#0072B2"), (size_panel, "preserved", "#009E73")):
        for curves, alpha in ((before, PALE), (state, 1.0)):
            if curves is None or not curves.done:
                continue
            values = getattr(curves, name) * (100 if ax is size_panel else 1)
            epochs, few = np.arange(curves.done), "o" if curves.done < 3 else None
            if curves is state:
                ax.fill_between(epochs, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
            ax.plot(epochs, values.mean(1), color=colour, alpha=alpha, lw=1.8, marker=few, ms=4)
        # the axis doubles until it holds all epochs, so that a curve is seen growing
        grown = min(e.epochs, max(10, 2 ** done.bit_length()))
        ax.set_xlim(-0.5, max(grown, before.done if before else 0, 1) - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    reference_lines(loss_panel, state.constant, state.floor)
    _mark_changes(loss_panel, size_panel, changes=state.changes)
    if before is not None and before.done:
        x, y = 100 * (1 - before.preserved.mean(1)), before.loss.mean(1)
        trail_panel.plot(x, y, color="#888888", alpha=PALE, lw=1.2, zorder=1)
        trail_panel.plot(x[-1:], y[-1:], "o", color=ACCENT, alpha=PALE, ms=8, mew=0, zorder=1)
    if done:
        _trail(trail_panel, 100 * (1 - state.preserved), state.loss)
    _ring(figure, grid[1, 1], state)
    return figure


def title_of(e: Experiment) -> str:
    """What is trained, in a line."""
    how = f"{name_of(e.operator)} under {name_of(e.schedule)}"
    return f"{e.dataset}, {e.model}: {how}, {count(e.cells, 'cell')}"


def epochs_of(state: Curves) -> str:
    """How many epochs are done, in words."""
    return f"{state.done} of {count(state.experiment.epochs, 'epoch')}"


def standing(state: Curves) -> str:
    """Status, epochs and time in words."""
    where = f"{state.status}, {epochs_of(state)}"
    if state.status == "training" and state.left is not None:
        return f"{where}, about {duration(state.left)} left"
    return f"{where}, {duration(state.seconds)}" if state.done else where


def _mark_changes(*panels: Axes, changes: tuple[tuple[int, str], ...]) -> None:
    for epoch in sorted({epoch for epoch, _ in changes}):
        words = ", ".join(text for at, text in changes if at == epoch)
        for ax in panels:
            ax.axvline(epoch - 0.5, color="#882255", lw=1.2, ls="--")
        early = epoch < 0.1 * panels[0].get_xlim()[1]  # no room left of the line
        panels[0].annotate(
            words, (epoch - 0.5, 0.97), xycoords=("data", "axes fraction"),
            xytext=(3 if early else -3, 0), textcoords="offset points", rotation=90,
            ha="left" if early else "right", va="top", fontsize=8.5, color="#882255",
        )  # fmt: skip


def _trail(ax: Axes, sparsity: np.ndarray, loss: np.ndarray) -> None:
    x, y = sparsity.mean(1), loss.mean(1)
    points = np.column_stack([x, y])
    segments = np.stack([points[:-1], points[1:]], axis=1)
    trail = LineCollection(list(segments), cmap="viridis_r", lw=1.2, alpha=0.7)
    trail.set_array(np.arange(len(segments)))
    ax.add_collection(trail)
    ax.scatter(x, y, c=np.arange(len(x)), cmap="viridis_r", s=12, lw=0)
    ax.scatter(sparsity[-1], loss[-1], s=14, facecolors="none", edgecolors="#888888", lw=0.8)
    ax.plot(x[-1:], y[-1:], "o", color=ACCENT, ms=8, label="mean of cells, last epoch")
    ax.plot([], [], "o", mfc="none", mec="#888888", ms=4, label="its cells")
    ax.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="best", handletextpad=0.3)


def _ring(figure: Figure, area: SubplotSpec, state: Curves) -> None:
    """Cells in a circle; as many of them and as large as fits."""
    ax = figure.add_subplot(area)
    ax.set_axis_off()
    ax.set_aspect("equal")
    cells = state.experiment.cells
    title(ax, "Cells by loss; ringed: just pruned" if cells > 1 else "The cell, by its loss")
    angle = np.pi / 2 - 2 * np.pi * np.arange(cells) / cells
    x, y = (np.cos(angle), np.sin(angle)) if cells > 1 else (np.zeros(1), np.zeros(1))
    ax.set(xlim=(-1.9, 1.9), ylim=(-1.3, 1.3))
    if state.experiment.topology == "ring" and cells > 2:
        ax.plot([*x, x[0]], [*y, y[0]], color="#CCCCCC", lw=1.5, zorder=1)
    loss = state.loss[-1] if state.done else np.full(cells, np.nan)
    pruned = state.pruned[-1] if state.done else np.zeros(cells, dtype=bool)
    norm = Normalize(loss.min(), loss.max()) if state.done else Normalize(0, 1)
    if state.done and np.ptp(loss) == 0:
        norm = Normalize(loss[0] - 0.01, loss[0] + 0.01)
    colours = ScalarMappable(norm, "viridis_r")
    faces = colours.to_rgba(loss) if state.done else "#EEEEEE"
    edges = [ACCENT if p else "white" for p in pruned]
    size = min(700, 6500 / max(cells, 4))
    ax.scatter(x, y, s=size, c=faces, edgecolors=edges, linewidths=3, zorder=2)
    for number in range(cells if cells <= 40 else 0):
        dark = state.done and norm(loss[number]) > 0.45
        ax.text(
            x[number], y[number], str(number), ha="center", va="center", fontsize=9, zorder=3,
            color="white" if dark else INK,
            path_effects=[withStroke(linewidth=1.5, foreground=INK if dark else "white")],
        )  # fmt: skip
    if state.done:
        box = ax.get_position()
        bar = figure.colorbar(
            colours, cax=figure.add_axes((box.x1 - 0.035, box.y0 + 0.02, 0.014, box.height - 0.05))
        )
        bar.ax.tick_params(labelsize=8.5, colors=INK)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4))


def duration(seconds: float) -> str:
    """A time in the unit that people would choose."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
