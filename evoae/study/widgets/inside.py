"""What the inspector shows: one layer of one autoencoder, a frozen state and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from evoae.data.splits import pictures
from evoae.study.figures.heatmaps import ACTIVATION_COLOURS, PRUNED
from evoae.study.figures.look import INK, blank, notice, panel, plain, title
from evoae.study.widgets.parts import count

ACCENT = PRUNED["color"]
NOT_ZERO, ZERO = "#0072B2", "#F0E6D8"
MAX_UNITS = 60  # of a wider layer, evenly spaced units are drawn
MAX_BITS = 120  # of rows that are no images


@dataclass(frozen=True, eq=False)
class Inspection:
    """One autoencoder, seen through one layer.

    `activations` [n, units]; `weights` [out, in]; `removed` [out, in], weights that the last prune
    took away, None if it is unknown; `gone` [units], units that have no incoming weight and no
    bias; `inputs` and `reconstructions` [k, D]. `words` say what the last prune did.
    """

    heading: str
    layer: str
    activations: np.ndarray
    weights: np.ndarray
    removed: np.ndarray | None
    gone: np.ndarray
    inputs: np.ndarray
    reconstructions: np.ndarray
    image_shape: tuple[int, ...] | None = None
    words: str = ""
    note: str = ""


@plain()
def inspection_figure(state: Inspection | None) -> Figure:
    """Activations, the mask over the weights, input beside reconstruction, the last prune."""
    if state is None:
        return notice("Nothing to look into yet: train above, or name a folder that holds runs.")
    figure = blank(6.9)
    grid = GridSpec(
        2, 2, figure, left=0.07, right=0.97, top=0.88, bottom=0.12, hspace=0.4, wspace=0.25
    )
    figure.text(0.02, 0.96, state.heading, fontsize=11, weight="bold", color=INK)
    _activations(panel(figure, grid[0, 0], "", ""), state)
    nonzero = state.weights != 0
    mask = panel(figure, grid[0, 1], "", "")
    title(mask, f"Weights (out × in), {100 * (1 - nonzero.mean()):.1f} % are zero")
    _classes(mask, nonzero.astype(int), ["zero", "not zero"], [ZERO, NOT_ZERO])
    _reconstructions(panel(figure, grid[1, 0], "", ""), state)
    last = panel(figure, grid[1, 1], "", "")
    if state.removed is None:
        last.set_axis_off()
        last.text(
            0.5, 0.5, state.words, ha="center", va="center", fontsize=10, color=INK, wrap=True
        )
        title(last, "What the last prune removed")
        return figure
    title(last, f"The last prune removed {100 * state.removed.mean():.1f} % of these weights")
    grown = state.removed & nonzero
    _classes(
        last,
        np.where(grown, 2, state.removed.astype(int)),
        ["left alone", "removed", "grown back"],
        ["#DDE3E8", ACCENT, "#56B4E9"],
    )
    last.set_axis_off()  # it is that of the mask above
    figure.text(0.98, 0.015, state.words, fontsize=9, color=INK, ha="right")
    return figure


def _activations(ax: Axes, state: Inspection) -> None:
    units = state.activations.shape[1]
    shown = np.linspace(0, units - 1, min(units, MAX_UNITS)).round().astype(int)
    some = f"{len(shown)} of {units}" if len(shown) < units else count(units, "unit")
    gone = np.flatnonzero(state.gone[shown])
    without = f", {state.gone.sum()} dead ◂" if len(gone) else ""
    title(ax, f"Activations (units × examples), {some}{without}")
    image = ax.imshow(
        state.activations[:, shown].T, aspect="auto", cmap=ACTIVATION_COLOURS, interpolation="none"
    )
    ticks = np.linspace(0, len(shown) - 1, min(len(shown), 4)).astype(int)
    ax.set(xticks=np.linspace(0, len(state.activations) - 1, 3).round())
    ax.set_yticks(ticks, [str(unit) for unit in shown[ticks]])
    if len(gone):
        ax.plot(np.full(len(gone), 1.015), gone, transform=ax.get_yaxis_transform(), **PRUNED)
    box = ax.get_position()
    bar = ax.figure.colorbar(
        image, cax=ax.figure.add_axes((box.x1 + 0.012, box.y0, 0.01, box.height))
    )
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(3))
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    ax.grid(False)


def _classes(ax: Axes, codes: np.ndarray, names: list[str], colours: list[str]) -> None:
    """Whole numbers as colours, and what they mean under the panel."""
    ax.imshow(
        codes, aspect="auto", cmap=ListedColormap(colours), vmin=0, vmax=len(names) - 1,
        interpolation="none",
    )  # fmt: skip
    ax.grid(False)
    for name, colour in zip(names, colours, strict=True):
        ax.plot([], [], "s", color=colour, label=name, ms=7)
    ax.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.07), ncols=len(names), frameon=False,
        fontsize=8.5, labelcolor=INK, handletextpad=0.2, columnspacing=1,
    )  # fmt: skip


def _reconstructions(ax: Axes, state: Inspection) -> None:
    """Pairs of images, input above output; or rows of bits, all inputs above all outputs."""
    error = np.abs(state.inputs - state.reconstructions).mean()
    bits = state.inputs.shape[1]
    some = "" if state.image_shape else f", {min(MAX_BITS, bits)} of {bits} columns"
    loss = f"L1 {error:.3f}" if np.isfinite(error) else "the network has diverged"
    title(ax, f"Input above reconstruction, {loss}{some}")
    for line, values in enumerate((state.inputs, state.reconstructions)):
        if state.image_shape is None:
            images = values[None, :, :MAX_BITS]
        else:
            images = pictures(values, state.image_shape)
        height, width = images[0].shape[:2]
        for column, image in enumerate(images):
            left, top = column * (width + 2), line * (height + 2)
            ax.imshow(
                image, cmap="gray", vmin=0, vmax=1, interpolation="none",
                extent=(left, left + width, top + height, top),
            )  # fmt: skip
    ax.set(xlim=(0, left + width), ylim=(top + height, 0))
    ax.set_aspect("equal" if state.image_shape else "auto")
    ax.set_axis_off()
