"""Pictures of pixels, with titles and what their colours mean.

A notebook shows them as they are, which is fast enough to watch; matplotlib draws the same for
pages and files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anywidget
import numpy as np
import traitlets
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from evoae.data.splits import pictures
from evoae.study.figures.look import WIDTH, draw_panels, notice
from evoae.study.widgets.hand import HERE
from evoae.study.widgets.parts import evenly

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

    def figure(self) -> Figure:
        """The pictures by matplotlib."""
        if not self.pictures:
            return notice(self.heading)
        size = WIDTH, 1.1 + 2.9 * -(-len(self.pictures) // 2)
        with draw_panels(count=len(self.pictures), size=size) as (figure, axes):
            figure.suptitle(self.heading, x=0.02, ha="left", fontsize=11, weight="bold")
            figure.supxlabel(self.words, x=0.02, ha="left", fontsize=9, wrap=True)
            for ax, each in zip(axes.flat, self.pictures, strict=True):
                ax.set_title(each.title, loc="left", fontsize=10)
                ax.set_axis_off()
                if each.pixels is None:
                    ax.text(0.5, 0.5, each.words, ha="center", va="center", wrap=True)
                    continue
                aspect = "equal" if each.square else "auto"
                ax.imshow(each.pixels, aspect=aspect, interpolation="none")
                ax.set_anchor("NW")
                for name, colour in each.legend:
                    ax.plot([], [], "s", color=colour, label=name)
                if each.legend:
                    ax.legend(loc="upper left", bbox_to_anchor=(-0.02, 0), ncols=len(each.legend))
        return figure


class Pictures(anywidget.AnyWidget):
    """Pictures in a notebook: `shown` has heading, pictures (title, png, legend, ...) and words."""

    _esm = HERE / "inside.js"
    shown: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)

    def show(self, found: Shown) -> None:
        """Show these pictures."""
        made = [
            vars(each) | {"png": None if each.pixels is None else png(each.pixels), "pixels": None}
            for each in found.pictures
        ]
        self.shown = vars(found) | {"pictures": made}


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


def png(pixels: np.ndarray) -> bytes:
    """Pixels [height, width, 4] as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
