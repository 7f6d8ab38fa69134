"""Pictures of pixels, with titles and what their colours mean.

A notebook shows them as they are, which is fast enough to watch; matplotlib draws the same for
pages and files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from PIL import Image

from evoae.data.splits import pictures
from evoae.study.figures.look import INK, Look, blank, notice, panel, plain, title
from evoae.study.widgets.hand import Pictures
from evoae.study.widgets.parts import View

MOST_SIDE = 400  # of more rows or columns of a matrix, evenly spaced ones are drawn
MOST_BITS = 120  # of rows that are no images
COLUMNS = 10  # images in a line


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
class Shown:
    """A heading, pictures, and words below them."""

    heading: str
    pictures: tuple[Picture, ...] = ()
    words: str = ""


class Pictured(View):
    """A view of pixels: `described` says which are those of a state."""

    described: Callable[[Any], Shown]

    def canvas(self) -> list[Any]:
        """The pictures."""
        self.pictures = Pictures()
        return [self.pictures]

    def show(self, state: Any) -> None:
        """Let the pictures be those of a state."""
        found = type(self).described(state)
        made = [
            vars(each) | {"png": None if each.pixels is None else png(each.pixels), "pixels": None}
            for each in found.pictures
        ]
        self.pictures.shown = vars(found) | {"pictures": made}

    def figure(self) -> Figure:
        """The same, as a matplotlib figure."""
        return drawn(type(self).described(self.state))


@plain()
def drawn(found: Shown) -> Figure:
    """Pictures as a matplotlib figure, two beside each other."""
    if not found.pictures:
        return notice(found.heading)
    rows = -(-len(found.pictures) // 2)
    height = 1.1 + 2.9 * rows
    figure = blank(height)
    grid = GridSpec(
        rows, min(len(found.pictures), 2), figure, left=0.03, right=0.97, top=1 - 0.85 / height,
        bottom=0.7 / height, hspace=0.4, wspace=0.12,
    )  # fmt: skip
    figure.text(0.02, 1 - 0.3 / height, found.heading, fontsize=11, weight="bold", color=INK)
    for number, each in enumerate(found.pictures):
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
    figure.text(0.02, 0.12 / height, found.words, fontsize=9, color=INK, wrap=True)
    return figure


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
    """Evenly spaced rows and columns, at most MOST_SIDE each."""
    rows, columns = (evenly(size, MOST_SIDE) for size in values.shape)
    return values[np.ix_(rows, columns)]


def evenly(size: int, most: int) -> np.ndarray:
    """At most so many whole numbers below `size`, evenly spaced."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int)


def png(pixels: np.ndarray) -> bytes:
    """Pixels [height, width, 4] as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
