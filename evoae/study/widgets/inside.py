"""What the inspector shows: one layer of one autoencoder, a frozen state and its pictures.

A picture is pixels with a title and what their colours mean. A notebook shows them as they are,
which is fast enough to watch; matplotlib draws the same for pages and files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from evoae.data.splits import pictures
from evoae.study.figures.heatmaps import ACTIVATION_COLOURS, PRUNED
from evoae.study.figures.look import INK, Look, blank, notice, panel, plain, title
from evoae.study.widgets.parts import count, png

ACCENT = PRUNED["color"]
NOT_ZERO, ZERO = "#0072B2", "#F0E6D8"
LAST_PRUNE = {"left alone": "#DDE3E8", "removed": ACCENT, "grown back": "#56B4E9"}
MOST_UNITS = 60  # of a wider layer, evenly spaced units are drawn
MOST_WEIGHTS = 400  # of more rows or columns of weights likewise
MOST_BITS = 120  # of rows that are no images
COLUMNS = 10  # images in a line
NOTHING = "Nothing to look into yet: train above, or name a folder that holds runs."


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels` [height, width, 4], uint8, or `words` in their stead.

    `legend` are names and their colours. Pixels that are not `square` fill the room there is.
    """

    title: str
    pixels: np.ndarray | None = None
    legend: tuple[tuple[str, str], ...] = ()
    words: str = ""
    square: bool = False


@dataclass(frozen=True, eq=False)
class Inspection:
    """One autoencoder, seen through one layer.

    `layers` are (name, units, share of zeros), input first, which has none. `activations`
    [n, units]; `weights` [out, in]; `removed` [out, in], weights that the last prune took away,
    None if it is unknown; `gone` [units], units that have no incoming weight and no bias; `inputs`
    and `reconstructions` [k, D]. `words` say what the last prune did.
    """

    heading: str
    layers: tuple[tuple[str, int, float], ...]
    activations: np.ndarray
    weights: np.ndarray
    removed: np.ndarray | None
    gone: np.ndarray
    inputs: np.ndarray
    reconstructions: np.ndarray
    image_shape: tuple[int, ...] | None = None
    words: str = ""


def pictures_of(state: Inspection) -> tuple[Picture, ...]:
    """Activations, the mask over the weights, input above reconstruction, the last prune."""
    zero = state.weights == 0
    mask = Picture(
        f"Weights (out × in), {100 * zero.mean():.1f} % are zero",
        coloured(sampled(zero), [NOT_ZERO, ZERO]),
        (("zero", ZERO), ("not zero", NOT_ZERO)),
    )
    if state.removed is None:
        last = Picture("What the last prune removed", words=state.words)
    else:
        codes = np.where(state.removed & ~zero, 2, state.removed.astype(int))
        last = Picture(
            f"The last prune removed {100 * state.removed.mean():.1f} % of these weights",
            coloured(sampled(codes), list(LAST_PRUNE.values())),
            tuple(LAST_PRUNE.items()),
        )
    return activations(state), mask, reconstructions(state), last


def activations(state: Inspection) -> Picture:
    """Units by examples; dead units are marked on the right."""
    units = state.activations.shape[1]
    shown = evenly(units, MOST_UNITS)
    values, dead = state.activations[:, shown].T, state.gone[shown]
    some = f"{len(shown)} of {units}" if len(shown) < units else count(units, "unit")
    colours = mpl.colormaps[ACTIVATION_COLOURS]
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    span = max(high - low, 1e-12)
    pixels = colours((np.nan_to_num(values, nan=low) - low) / span, bytes=True)
    marks = coloured(np.where(dead, 1, 0)[:, None].repeat(2, 1), ["#FFFFFF00", ACCENT])
    marks[:, 0, 3] = 0  # a gap
    legend = [(f"{low + share * span:.3g}", to_hex(colours(share))) for share in (0.0, 0.5, 1.0)]
    if state.gone.any():
        legend.append((f"{state.gone.sum()} dead", ACCENT))
    words = f"Activations (units × examples), {some}"
    return Picture(words, np.concatenate([pixels, marks], 1), tuple(legend))


def reconstructions(state: Inspection) -> Picture:
    """Inputs above outputs: as images, or as rows of bits."""
    error = np.abs(state.inputs - state.reconstructions).mean()
    bits = state.inputs.shape[1]
    some = "" if state.image_shape else f", {min(MOST_BITS, bits)} of {bits} columns"
    loss = f"L1 {error:.3f}" if np.isfinite(error) else "the network has diverged"
    both = [examples(rows, state.image_shape) for rows in (state.inputs, state.reconstructions)]
    gap = np.zeros_like(both[0][:1])
    words = f"Input above reconstruction, {loss}{some}"
    return Picture(words, np.concatenate([both[0], gap, both[1]]), square=bool(state.image_shape))


def shown(heading: str, found: Sequence[Picture], words: str = "") -> dict[str, Any]:
    """What `hand.Pictures` shows of pictures."""
    made = [
        vars(each) | {"png": None if each.pixels is None else png(each.pixels), "pixels": None}
        for each in found
    ]
    return {"heading": heading, "pictures": made, "words": words}


# -- pixels --------------------------------------------------------------------------------------


def examples(rows: np.ndarray, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows [n, D] of 0 to 1 as pixels: as images beside each other, or as lines of columns."""
    levels = (255 * np.nan_to_num(rows).clip(0, 1)).astype(np.uint8)
    if image_shape is None:
        return opaque(levels[:, :MOST_BITS])
    images = [opaque(image) for image in pictures(levels, image_shape)]
    framed = [np.pad(image, ((0, 1), (0, 1), (0, 0))) for image in images]
    framed += [np.zeros_like(framed[0])] * (-len(framed) % min(COLUMNS, len(framed)))
    lines = [framed[n : n + COLUMNS] for n in range(0, len(framed), COLUMNS)]
    return np.concatenate([np.concatenate(line, 1) for line in lines])[:-1, :-1]


def opaque(levels: np.ndarray) -> np.ndarray:
    """Grey levels [height, width], or colours in a third axis, as pixels."""
    colours = levels[..., None].repeat(3, 2) if levels.ndim == 2 else levels[..., :3]
    return np.concatenate([colours, np.full_like(colours[..., :1], 255)], 2)


def coloured(codes: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Whole numbers as pixels of these colours."""
    return np.rint(255 * np.array([to_rgba(each) for each in colours])).astype(np.uint8)[codes * 1]


def sampled(values: np.ndarray) -> np.ndarray:
    """Evenly spaced rows and columns, at most MOST_WEIGHTS each."""
    rows, columns = (evenly(size, MOST_WEIGHTS) for size in values.shape)
    return values[np.ix_(rows, columns)]


def evenly(size: int, most: int) -> np.ndarray:
    """At most so many whole numbers below `size`, evenly spaced."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int)


# -- by matplotlib -------------------------------------------------------------------------------


@plain()
def inspection_figure(state: Inspection | None) -> Figure:
    """The four pictures as a matplotlib figure."""
    if state is None:
        return notice(NOTHING)
    figure = blank(6.9)
    grid = GridSpec(
        2, 2, figure, left=0.03, right=0.97, top=0.88, bottom=0.1, hspace=0.4, wspace=0.12
    )
    figure.text(0.02, 0.96, state.heading, fontsize=11, weight="bold", color=INK)
    for number, each in enumerate(pictures_of(state)):
        ax = panel(figure, grid[number], "", "")
        title(ax, each.title)
        ax.set_axis_off()
        if each.pixels is None:
            middle: Look = {"ha": "center", "va": "center", "fontsize": 10, "wrap": True}
            ax.text(0.5, 0.5, each.words, color=INK, **middle)
            continue
        ax.imshow(each.pixels, aspect="equal" if each.square else "auto", interpolation="none")
        ax.set_anchor("NW")
        for name, colour in each.legend:
            ax.plot([], [], "s", color=colour, label=name, ms=7)
        if each.legend:
            ax.legend(
                loc="upper left", bbox_to_anchor=(-0.02, 0), ncols=len(each.legend), frameon=False,
                fontsize=8.5, labelcolor=INK, handletextpad=0.2, columnspacing=1,
            )  # fmt: skip
    if state.removed is not None:
        figure.text(0.98, 0.015, state.words, fontsize=9, color=INK, ha="right")
    return figure
