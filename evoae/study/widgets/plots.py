"""Curves described once, and drawn twice.

plotly draws them where somebody can point at them: values, zoom, a legend to click, download.
matplotlib draws the same for pages and files, and where nobody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ipywidgets import Box, Layout, VBox
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from plotly.graph_objects import FigureWidget

from evoae.study.figures import look
from evoae.study.widgets.hand import Handing
from evoae.study.widgets.parts import WIDEST, evenly

DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot", "": "solid"}  # plotly's words
GREY, MARKED = "#666666", "#882255"
NO_AXES = {f"{x}axis{n}": {"visible": False} for x in "xy" for n in ("", 2, 3, 4)}
MOST_DRAWN = 1000  # points of a curve
# Of plotly's buttons; the others select points, or lead elsewhere.
BUTTONS = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]


@dataclass(frozen=True, eq=False)
class Series:
    """Points (x, y) of a panel, both [n].

    Joined by a line of that `dash`, unless it is empty. `colour` is one, or one of each point;
    `edge` likewise that of their rims. `low` and `high` [n] are a band around the line. `words`
    stand in the points, `hover` beside the pointer. Those of one `name` hide together. `said` is
    what the legend says, if anything.
    """

    panel: int
    x: np.ndarray
    y: np.ndarray
    name: str
    colour: Any = look.INK
    dash: str = "-"
    width: float = 1.8
    alpha: float = 1.0
    size: float = 0.0
    edge: str | Sequence[str] = "white"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    words: Sequence[str] = ()
    hover: Sequence[str] = ()
    said: str = ""


@dataclass(frozen=True)
class Panel:
    """Axes and their title, of one line or two.

    `constant` and `floor` are losses to compare with: of the constant predictor, and of the noise.
    `marks` are (x, words). A `bare` one has no axes, and one unit is as long in both directions.
    """

    title: str
    x: str = ""
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    constant: float | None = None
    floor: float | None = None
    marks: tuple[tuple[float, str], ...] = ()
    bare: bool = False


@dataclass(frozen=True)
class Plot:
    """A picture of `height` inches: panels beside each other, four in two rows.

    `heading` are lines above them; without panels there is nothing else.
    """

    heading: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    series: tuple[Series, ...] = ()
    height: float = 0.9

    @property
    def table(self) -> pd.DataFrame:
        """Every point: panel, series, x, y, and of a band low and high."""
        titles = [each.title.replace("\n", " ") for each in self.panels]
        tables = [
            pd.DataFrame(
                {"panel": titles[s.panel], "series": s.name, "x": s.x, "y": s.y}
                | ({} if s.low is None else {"low": s.low, "high": s.high})
            )
            for s in self.series
            if len(s.x)
        ]
        nothing = pd.DataFrame(columns=["panel", "series", "x", "y"])
        return pd.concat(tables, ignore_index=True) if tables else nothing

    def figure(self) -> Figure:
        """The picture by matplotlib."""
        if not self.panels:
            return look.notice(self.heading[0])
        size = look.WIDTH, self.height
        with look.draw_panels(count=len(self.panels), size=size) as (figure, axes):
            for s in self.series:
                draw(axes.flat[s.panel], s)
            for ax, each in zip(axes.flat, self.panels, strict=True):
                finish(ax, each)
            figure.suptitle("\n".join(self.heading), x=0.01, ha="left", fontsize=10.5)
            keys = []
            for s in (each for each in self.series if each.said):
                mark: look.Look = {"ls": s.dash, "marker": "" if s.dash else "o"}
                keys.append(Line2D([], [], color=s.colour, label=s.said, **mark))
            columns = 1 if any(len(s.said) > 30 for s in self.series) else max(len(keys), 1)
            figure.legend(handles=keys, loc="outside lower left", ncols=columns, handlelength=3)
        return figure


# -- by matplotlib ---------------------------------------------------------------------------------


def draw(ax: Axes, s: Series) -> None:
    """A series in its panel."""
    style: look.Look = {"alpha": s.alpha, "zorder": 2 if s.alpha == 1 else 1}
    if s.low is not None and s.high is not None:
        ax.fill_between(s.x, s.low, s.high, color=s.colour, alpha=0.2, lw=0)
    if s.dash:
        ax.plot(s.x, s.y, color=s.colour, ls=s.dash, lw=s.width, **style)
    if s.size:
        ax.scatter(s.x, s.y, s=s.size**2, c=s.colour, edgecolors=s.edge, lw=s.width, **style)
    for x, y, words in zip(s.x, s.y, s.words, strict=False):
        rim = [withStroke(linewidth=1.5, foreground="white")]
        ax.text(x, y, words, fontsize=9, ha="center", va="center", zorder=3, path_effects=rim)


def finish(ax: Axes, each: Panel) -> None:
    """Title, limits, levels and marks of a panel."""
    ax.set_title(each.title, loc="left")
    ax.set(xlim=each.xlim, xlabel=each.x)
    if each.ylim:
        ax.set_ylim(each.ylim)
    if each.bare:
        ax.set_axis_off()
        ax.set_aspect("equal")
        return
    if "poch" in each.x:
        look.whole_numbers(ax.xaxis)
    look.reference_lines(ax, each.constant, each.floor)
    for x, words in each.marks:
        ax.axvline(x, color=MARKED, lw=1.2, ls="--")
        side = "left" if x < 0.1 * ax.get_xlim()[1] else "right"  # there is no room left of it
        ax.text(
            x, 0.97, words, transform=ax.get_xaxis_transform(), rotation=90, ha=side, va="top",
            fontsize=8.5, color=MARKED,
        )  # fmt: skip


# -- by plotly -------------------------------------------------------------------------------------


class Chart(VBox):
    """A plot drawn by plotly, and a button for its numbers; nothing comes from another machine.

    `widget` is plotly's, `plot` what it shows. Its numbers are offered as the file `name`.
    """

    def __init__(self, name: str) -> None:
        self.widget = FigureWidget(layout=NO_AXES | {"autosize": True})
        self.widget._config = {"displaylogo": False, "responsive": True, "modeBarButtons": BUTTONS}
        self.name, self.plot = name, Plot()
        self._layout: dict[str, Any] = {}
        self._kinds: list[tuple[str, ...]] = []
        tip = "Download the curves as a table; the camera above them downloads the figure"
        self.csv = Handing("Download CSV", tip, self.numbers)
        width = Layout(width="100%", max_width=WIDEST, overflow="hidden")
        self.frame = Box([self.widget], layout=width)
        self.frame.add_class("evoae-chart")
        super().__init__([self.frame, self.csv])

    def numbers(self) -> tuple[str, str]:
        """The curves on view as a file: its name, and its text."""
        return self.name, self.plot.table.to_csv(index=False)

    def show(self, plot: Plot) -> None:
        """Let the picture be that of `plot`; where only numbers differ, zoom and legend stay."""
        self.plot = plot
        self.frame.layout.height = f"{100 * plot.height:.0f}px"
        traces, layout = [t for s in plot.series for t in traces_of(s)], NO_AXES | layout_of(plot)
        kinds = [(t["legendgroup"], *t) for t in traces]
        changed = {k: v for k, v in layout.items() if v != self._layout.get(k)}
        self._layout = layout
        if kinds and kinds == self._kinds:
            names = set().union(*traces)
            self.widget.plotly_update({n: [t.get(n) for t in traces] for n in names}, changed)
            return
        self._kinds = kinds
        self.widget.plotly_relayout(changed)
        hidden = {t.legendgroup for t in self.widget.data if t.visible == "legendonly"}
        seen = ["legendonly" if t["legendgroup"] in hidden else None for t in traces]
        self.widget.data = []
        self.widget.add_traces([t | {"visible": v} for t, v in zip(traces, seen, strict=True)])


def traces_of(s: Series) -> list[dict[str, Any]]:
    """What plotly draws for a series: its band, and its line or points."""
    n = str(s.panel + 1) if s.panel else ""
    common = {"type": "scatter", "xaxis": f"x{n}", "yaxis": f"y{n}", "legendgroup": s.name}
    few = evenly(len(s.x), MOST_DRAWN) if s.dash else np.arange(len(s.x))
    x, y = s.x[few], s.y[few]
    found = []
    if s.low is not None and s.high is not None:
        r, g, b = (round(255 * part) for part in to_rgb(s.colour))
        found.append(common | {
            "x": np.concatenate([x, x[::-1]]), "y": np.concatenate([s.low[few], s.high[few][::-1]]),
            "fill": "toself", "fillcolor": f"rgba({r},{g},{b},0.2)", "mode": "lines",
            "line.width": 0, "hoverinfo": "skip", "showlegend": False,
        })  # fmt: skip
    inks = ["white" if sum(to_rgb(colour)) < 1.2 else look.INK for colour in s.colour if s.words]
    parts = {"lines": s.dash, "markers": s.size or len(x) == 1, "text": s.words}
    hover = "%{hovertext}" if s.hover else "%{x:.6~g}: %{y:.4~g}"
    found.append(common | {
        "x": x, "y": y, "mode": "+".join(part for part, there in parts.items() if there),
        "name": s.said or s.name, "showlegend": bool(s.said), "opacity": s.alpha,
        "line.color": s.colour if isinstance(s.colour, str) else look.INK,
        "line.dash": DASHES[s.dash], "line.width": s.width,
        "marker.color": s.colour, "marker.size": s.size or 6,
        "marker.line.color": s.edge, "marker.line.width": s.width if s.size else 0,
        "text": list(s.words) or None, "hovertext": list(s.hover) or None,
        "textfont.color": inks or None,
        "hovertemplate": f"{hover}<extra>{s.name}</extra>",
    })  # fmt: skip
    return found


def ruled(
    xref: str, yref: str, ends: tuple[float, ...], words: str, colour: str, dash: str
) -> dict[str, Any]:
    """A line across a panel with words at its end; `ends` are x0, x1, y0 and y1."""
    label = {"text": words, "textposition": "end", "xanchor": "right", "yanchor": "bottom",
             "font": {"color": colour, "size": 12}}  # fmt: skip
    line = {"color": colour, "dash": dash, "width": 1.2}
    drawn = {"type": "line", "xref": xref, "yref": yref, "line": line, "label": label}
    return drawn | dict(zip(("x0", "x1", "y0", "y1"), ends, strict=True))


def layout_of(plot: Plot) -> dict[str, Any]:
    """Axes, titles, levels and marks, in plotly's words."""
    layout: dict[str, Any] = {}
    shapes: list[dict[str, Any]] = []
    titles: list[dict[str, Any]] = []
    for number, each in enumerate(plot.panels):
        axis = str(number + 1) if number else ""
        x, y, across, up = f"x{axis}", f"y{axis}", f"x{axis} domain", f"y{axis} domain"
        axes = {"showgrid": not each.bare, "zeroline": False, "visible": not each.bare,
                "gridcolor": "#E5E5E5", "automargin": True}  # fmt: skip
        limits: dict[str, Any] = {"range": list(each.ylim)} if each.ylim else {}
        title: dict[str, Any] = {"title": {"text": each.x, "standoff": 4, "font": {"size": 12}}}
        if each.bare:
            title |= {"range": list(each.xlim or ()), "constrain": "domain"}
            limits = {"scaleanchor": x, "constrain": "domain"}
        layout |= {f"xaxis{axis}": axes | title, f"yaxis{axis}": axes | limits}
        titles.append({
            "text": each.title.replace("\n", "<br>"), "align": "left", "xref": across, "x": 0,
            "xanchor": "left", "yref": up, "y": 1, "yanchor": "bottom", "yshift": 3,
            "showarrow": False, "font": {"size": 12.5},
        })  # fmt: skip
        known = ((each.constant, "constant predictor", "dash"), (each.floor, "noise floor", "dot"))
        for level, words, dash in known:
            if level is not None:
                ends = 0, 1, level, level
                shapes.append(ruled(across, y, ends, f"{words} {level:.3f}", GREY, dash))
        shapes += [ruled(x, up, (at, at, 0, 1), words, MARKED, "dash") for at, words in each.marks]
    first, *others = plot.heading or ("",)
    lines = sum(bool(s.said) for s in plot.series)
    rows, columns = (2, 2) if len(plot.panels) == 4 else (1, max(len(plot.panels), 1))
    return layout | {
        "title": {"text": "<br>".join([f"<b>{first}</b>", *others]), "font": {"size": 12.5},
                  "x": 0, "xref": "paper", "y": 1, "yanchor": "top", "pad": {"t": 20}},
        "grid": {"rows": rows, "columns": columns, "pattern": "independent",
                 "xgap": 0.2, "ygap": 0.4},
        "annotations": titles,
        "shapes": shapes,
        "margin": {"l": 45, "r": 15, "t": 100 if plot.heading else 42, "b": 40},
        "font": {"color": look.INK, "size": 11.5},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "hovermode": "closest",
        "legend": {"orientation": "h" if lines > 3 else "v", "y": -0.12, "yanchor": "top", "x": 0},
        "showlegend": bool(lines),
    }  # fmt: skip
