"""The common look of all figures: colours, labels, panels, legends, and files.

Figures are drawn in a fixed style, whatever the user's matplotlibrc says, and are not held by
pyplot, so a notebook shows each once. Those of the widgets are 900 pixels wide and opaque white,
which both themes frame well.
"""

from __future__ import annotations

import io
import itertools
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from evoae.study.runs.study import Study

# Distinguishable with normal vision and with each of the three kinds of colour blindness (tested).
# Another operator gets one of USER_COLOURS; add it here to choose its colour.
OPERATOR_COLOURS = {
    "none": "#000000",
    "random": "#D55E00",
    "noise": "#AACC77",
    "variance-high": "#0072B2",
    "variance-low": "#56B4E9",
    "conjunctive": "#009E73",
    "magnitude": "#CC79A7",
    "wanda": "#E69F00",
    "apoz": "#7A1F4B",
    "lamp": "#7700FF",
    "taylor": "#AA66FF",
    "obd": "#6600AA",
    "movement": "#DDBBBB",
    "snip": "#FF1166",
    "set": "#666633",
    "rigl": "#773377",
}
# A schedule's colour and dashes, in every figure and widget.
SCHEDULE_LOOKS = {
    "fixed": ("#000000", "-"),
    "increase": ("#0077BB", "--"),
    "decrease": ("#BB9999", "-."),
    "population": ("#00BBDD", ":"),
    "exponential": ("#9900FF", "-"),
    "final-n": ("#99BB00", "--"),
    "prune-after": ("#775555", "-."),
    "prune-once": ("#770000", ":"),
    "cubic": ("#330099", "--"),
    "one-shot": ("#550055", "-."),
    "points": ("#BB5533", "-"),
    "probability-points": ("#BB5533", "--"),
}
USER_COLOURS = ("#332288", "#DDCC77", "#661100", "#999933", "#117733", "#AA4499")
OTHER_COLOURS = (
    "#CC6677", "#332288", "#117733", "#88CCEE", "#AA4499",
    "#999933", "#44AA99", "#882255", "#DDCC77",
)  # fmt: skip
LABELS = {
    "train_l1": "Training loss (L1, mean absolute error)",
    "mean_l1": "Mean test loss of all sizes (L1)",
    "steps": "Model steps of a front",
    "relative": "Training loss / that of the constant predictor",
    "relative_test": "Test loss / that of the constant predictor",
    "score": "Score (0: the constant predictor, 1: the noise floor)",
    "validation_l1": "Validation loss (L1, mean absolute error)",
    "test_l1": "Test loss (L1, mean absolute error)",
    "selection_loss": "Selection loss of one random batch (as trained on)",
    "replacement_loss": "Replacement loss of one random batch (as trained on)",
    "test_loss": "Test loss of one random batch (as trained on)",
    "discrepancy": "Pruned weights to move for an even spread (share)",
    "bits": "Bits D",
    "change": "Change of test loss by one prune (L1)",
    "preserved": "Preserved share (%)",
    "preserved_at_last_prune": "Preserved share at the last prune (%)",
}
Look = dict[str, Any]  # keywords of matplotlib
WIDTH, DPI = 9.0, 100  # inches, and dots to the inch: 900 px in a notebook
INK, GRID = "#222222", "#E5E5E5"
LOOK: Look = {
    **sns.axes_style("ticks"),
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": DPI,
    "font.size": 10,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}
# What rcdefaults leaves alone, or choosing a backend changes; no picture depends on it.
BACKEND = ("backend", "backend_fallback", "interactive", "toolbar", "timezone", "svg.hashsalt")
with mpl.rc_context():
    mpl.rcdefaults()
    DEFAULTS: Look = {str(name): mpl.rcParams[name] for name in mpl.rcParams if name not in BACKEND}
HIDDEN = 0.006  # of a panel's height: curves that are no further apart cover each other
DIAMOND: Look = {"marker": "D", "markersize": 7, "markerfacecolor": "none", "linestyle": ""}


@contextmanager
def plain(**look: Any) -> Iterator[None]:
    """Matplotlib's own defaults and this look in the context, instead of the user's settings.

    Where they are in force anyway, nothing is touched.
    """
    wanted: Any = DEFAULTS | look  # matplotlib types its names as literals
    now: Any = mpl.rcParams
    if all(now[name] == value for name, value in wanted.items()):
        yield
        return
    with mpl.rc_context(wanted):
        yield


class PlainFigure(Figure):
    """A figure that is drawn and saved the same under any matplotlibrc."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw it: ticks and their labels are made only now."""
        with plain():
            super().draw(renderer)

    def savefig(self, *target: Any, **options: Any) -> None:
        """Save it."""
        with plain():
            super().savefig(*target, **options)

    def _repr_png_(self) -> bytes:
        """What a notebook shows, also where no backend of pyplot's was loaded."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi, bbox_inches="tight")
        return buffer.getvalue()


def operator_colour(operator: str) -> str:
    """The colour of an operator: the same in every figure, whatever else is drawn."""
    return OPERATOR_COLOURS.get(operator, user_colour(operator))


def schedule_look(schedule: str) -> tuple[str, str]:
    """The colour and dashes of a schedule, the same everywhere; of drawn points, by their kind."""
    look = SCHEDULE_LOOKS.get(str(schedule).partition(":")[0])
    return look or (user_colour(schedule), "-")


def user_colour(name: str) -> str:
    """The colour of something that a user has named."""
    return USER_COLOURS[zlib.crc32(str(name).encode()) % len(USER_COLOURS)]


def reference_lines(
    ax: Axes, constant: float | None = None, floor: float | None = None, named: bool = True
) -> None:
    """Say what a loss means: the constant predictor's (dashed) and the noise floor (dotted)."""
    lines = ((constant, "constant predictor", "--"), (floor, "noise floor", ":"))
    for height, name, dashes in lines:
        if height is None:
            continue
        ax.axhline(height, color="#666666", linestyle=dashes, linewidth=1.2, zorder=1)
        if not named:
            continue
        ax.annotate(
            f"{name} {height:.3f}", (1, height), xycoords=ax.get_yaxis_transform(),
            xytext=(-2, 2), textcoords="offset points", ha="right", va="bottom",
            fontsize=9, color="#444444", zorder=1.5,  # under the data
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    ax.autoscale_view(scalex=False)  # a line just inside the view would lie on the axis


def save(
    figure: Figure, folder: str | Path, name: str, title: str | None = None
) -> tuple[Path, Path]:
    """Write `folder`/`name`.png (150 dpi) and .svg with a title inside, and return their paths.

    The folder is made if need be. Equal figures give equal files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    words = {"Title": title} if title else {}
    figure.savefig(png, dpi=150, metadata=words)
    with mpl.rc_context({"svg.hashsalt": "evoae"}):
        figure.savefig(svg, metadata={"Date": None, **words})
    return png, svg


@contextmanager
def draw_panels(
    rows: int = 1,
    columns: int = 1,
    *,
    count: int | None = None,
    height: float | None = None,
    size: tuple[float, float] | None = None,
    **shared: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure in the common look, forgotten by pyplot; or `count` panels, three in a row."""
    if count is not None:
        if not count:
            raise ValueError("there is nothing to draw")
        columns = 2 if count == 4 else min(count, 3)
        rows = -(-count // columns)
    if size is None:
        size = (WIDTH, 0.4 + rows * (height or (4.4 if rows == 1 else 2.9)))
    with plain(**LOOK):
        figure = PlainFigure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **shared)
        for spare in axes.flat[count:] if count is not None else ():
            spare.remove()
        yield figure, axes


@contextmanager
def panel_per(
    table: pd.DataFrame, col: str | None, **shared: Any
) -> Iterator[tuple[Figure, np.ndarray, list[tuple[Axes, object, pd.DataFrame]]]]:
    """`draw_panels`, one for each value of the column `col` (None: one), with it as their title.

    Yields the figure, its axes, and (axes, value, rows) of each panel.
    """
    groups = [("", table)] if col is None else list(table.groupby(col, sort=False))
    with draw_panels(count=len(groups), **shared) as (figure, axes):
        panels = [(ax, *group) for ax, group in zip(axes.flat, groups, strict=False)]
        for ax, name, _ in panels:
            ax.set_title(name if isinstance(name, str) else f"{str(col).replace('_', ' ')} {name}")
        yield figure, axes, panels


def say_unseen(ax: Axes, curves: Mapping[Any, np.ndarray], names: Iterable) -> None:
    """Say in a panel which of the `names` have no curve in it, and which lie behind another.

    Curves are points (x, y); they are drawn in this order, and the panel's limits are final.
    """
    low, high = ax.get_ylim()
    apart = HIDDEN * abs(high - low)
    behind: dict[Any, list[str]] = {}
    order = list(curves)
    for at, name in enumerate(order):
        over = [n for n in order[at + 1 :] if curves[n].shape == curves[name].shape]
        over = [n for n in over if np.allclose(curves[n], curves[name], 0, apart, equal_nan=True)]
        if over:
            behind.setdefault(over[-1], []).append(str(name))
    words = [f"behind {front}: {', '.join(hidden)}" for front, hidden in behind.items()]
    missing = [str(name) for name in names if name not in curves]
    words += [f"not here: {', '.join(missing)}"] if missing else []
    if words:
        text = "\n".join("\n".join(textwrap.wrap(line, 34)) for line in words)
        font: Look = {"size": 8.5}
        said = ax.legend([], [], title=text, title_fontproperties=font, loc="best", frameon=True,
                         framealpha=0.8, edgecolor="none", borderpad=0.2)  # fmt: skip
        said.get_title().set(color="#555555", ha="left")


def intervals(
    ax: Axes, at: ArrayLike, table: pd.DataFrame, colour: Any, *, across: bool = False, **mark: Any
) -> None:
    """Means of a table (mean, low, high), each with its interval; `across`: lying down.

    An interval that is null, as that of few trials, is not drawn.
    """
    (ax.hlines if across else ax.vlines)(at, table["low"], table["high"], color=colour, lw=1.8)
    ax.plot(*((table["mean"], at) if across else (at, table["mean"])), color=colour, **mark)


def table_of(source: pd.DataFrame | Study, name: str) -> pd.DataFrame:
    """A table, or that table of a study: its "history" or "results"."""
    return getattr(source, name) if isinstance(source, Study) else source


def label_of(value: str) -> str:
    """What an axis says of a column."""
    return LABELS.get(value, value.replace("_", " ").capitalize())


def palette_of(names: pd.Series, hue: str) -> dict[Any, Any]:
    """A colour per name; operators and schedules keep theirs, other names share out a palette."""
    names = list(names.dropna().unique())
    if hue in ("operator", "pruning", "schedule"):
        palette = {
            name: schedule_look(name)[0] if hue == "schedule" else operator_colour(name)
            for name in names
        }
        for before, name in itertools.combinations(palette, 2):
            if palette[before] == palette[name]:  # two of a user's: one figure must part them
                free = [c for c in USER_COLOURS if c not in palette.values()]
                palette[name] = (free or [palette[name]])[0]
        return palette
    few = len(names) <= len(OTHER_COLOURS)
    colours = OTHER_COLOURS if few else sns.color_palette("viridis", len(names))
    return dict(zip(names, colours, strict=False))


def keys_of(palette: Mapping[Any, Any], **look: Any) -> list[Line2D]:
    """A legend's entry for each name of a palette."""
    return [Line2D([], [], color=colour, label=name, **look) for name, colour in palette.items()]


def legend(
    figure: Figure, title: str | None, keys: Sequence[Line2D | Patch], published: bool = False
) -> None:
    """The legend, right of the panels (if untitled, above them), where it covers nothing."""
    keys = list(keys)
    if published:
        keys.append(Line2D([], [], **DIAMOND, markeredgecolor="black", label="published"))
    if keys:
        figure.legend(
            handles=keys,
            title=title,
            loc="outside right upper" if title else "outside upper right",
            alignment="left",
            ncols=1 if title else len(keys),
        )


def positions(values: Iterable, groups: list) -> np.ndarray:
    """Where each value's group lies on the axis (of no values: nowhere)."""
    return np.array([groups.index(value) for value in values], dtype=float)


def name_ticks(ax: Axes, names: Sequence, panels: int = 1) -> None:
    """The names below the axis, slanted where they would run into each other."""
    long = sum(len(str(name)) for name in names) * panels > 60
    slant: Look = {"rotation": 25, "ha": "right"} if long else {}
    ax.set_xticks(range(len(names)), names, **slant)


def name_rows(ax: Axes, names: Sequence[str] | pd.Series) -> None:
    """The names beside rows from 0 on, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")


def diamonds(ax: Axes, x: ArrayLike, y: ArrayLike, colours: Iterable) -> None:
    """Published values: hollow diamonds."""
    edges = [to_rgba(colour) for colour in colours]
    ax.scatter(x, y, s=50, marker="D", facecolors="none", edgecolors=edges, lw=1.5, zorder=5)


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


# -- pictures of the widgets ---------------------------------------------------------------------


def blank(height: float) -> Figure:
    """A figure of `height` inches."""
    return PlainFigure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def png(figure: Figure) -> bytes:
    """Equal figures give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


@plain()
def notice(text: str) -> Figure:
    """Words instead of a picture: why there is nothing to draw."""
    figure = blank(1.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=INK, wrap=True)
    return figure
