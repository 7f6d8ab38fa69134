"""The look of the widgets' pictures: 900 pixels wide, opaque white, which both themes frame well.

A front end may be drawing in one thread while the user draws in another, so nothing here touches
pyplot or rcParams: figures are made, and styled, by hand.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH, DPI = 9.0, 100  # inches, and dots to the inch
INK, GRID = "#222222", "#E5E5E5"


def blank(height: float) -> Figure:
    """A figure of `height` inches."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def png(figure: Figure) -> bytes:
    """Equal figures give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def notice(text: str) -> Figure:
    """Words in the place of a picture."""
    figure = blank(1.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=INK, wrap=True)
    return figure


def panel(figure: Figure, place: object, x: str, y: str) -> Axes:
    """Axes in the look of `figures`, set by hand.

    Labels and titles get fixed places: looking for free ones takes a third of the drawing time.
    """
    ax = figure.add_axes(place) if isinstance(place, tuple) else figure.add_subplot(place)
    ax.set_facecolor("white")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    ax.grid(True, color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9, colors=INK, length=3)
    inches = ax.get_position().height * figure.get_size_inches()[1]
    ax.set_xlabel(x, fontsize=9.5, color=INK, va="top")
    ax.xaxis.set_label_coords(0.5, -0.24 / inches)
    ax.set_ylabel(y, fontsize=9.5, color=INK)
    ax.yaxis.set_label_coords(-0.1, 0.5)
    return ax


def title(ax: Axes, text: str) -> None:
    inches = ax.get_position().height * ax.figure.get_size_inches()[1]
    ax.set_title(text, fontsize=10, color=INK, loc="left", y=1 + 0.06 / inches)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
