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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from evoae.study.figures.look import INK, Look, blank, notice, panel, plain, title

DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot", "": "solid"}  # plotly's words
GREY, MARKED = "#666666", "#882255"
MOST_DRAWN = 1000  # points of a curve
# Of plotly's buttons; the others select points, or lead elsewhere.
BUTTONS = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]
# What of a trace may change while its kind stays.
CHANGING = (
    "x",
    "y",
    "name",
    "text",
    "hovertext",
    "textfont.color",
    "marker.color",
    "marker.line.color",
)


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
    colour: Any = INK
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
    """Axes in the `area` (left, bottom, width, height; shares of the picture).

    The title's lines are joined where there is room for one. `levels` are (height, words, dash),
    `marks` (x, words). A `bare` one has no axes, and one unit is as long in both directions.
    """

    title: str
    area: tuple[float, float, float, float]
    x: str = ""
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    levels: tuple[tuple[float, str, str], ...] = ()
    marks: tuple[tuple[float, str], ...] = ()
    bare: bool = False

    @property
    def one_line(self) -> str:
        """The title in one line."""
        return self.title.replace("\n", " ")


@dataclass(frozen=True)
class Plot:
    """A picture of `height` inches, or without panels its `heading` alone."""

    heading: str
    panels: tuple[Panel, ...] = ()
    series: tuple[Series, ...] = ()
    standing: str = ""
    note: str = ""
    height: float = 4.0

    @property
    def table(self) -> pd.DataFrame:
        """Every point: panel, series, x, y, and of a band low and high."""
        return pd.concat(
            [
                pd.DataFrame(
                    {"panel": self.panels[s.panel].one_line, "series": s.name, "x": s.x, "y": s.y}
                    | ({} if s.low is None else {"low": s.low, "high": s.high})
                )
                for s in self.series
                if len(s.x)
            ],
            ignore_index=True,
        )


# -- by matplotlib -------------------------------------------------------------------------------


@plain()
def drawn(plot: Plot) -> Figure:
    """The picture as a matplotlib figure."""
    if not plot.panels:
        return notice(plot.heading)
    figure = blank(plot.height)
    top = 1 - 0.23 / plot.height
    for x, words, side in ((0.02, plot.heading, "left"), (0.98, plot.standing, "right")):
        figure.text(x, top, words, fontsize=10.5, color=INK, ha=side)
    figure.text(0.02, top - 0.22 / plot.height, plot.note, fontsize=9.5, color="#777777")
    axes = [panel(figure, each.area, each.x, "") for each in plot.panels]
    for s in plot.series:
        ax = axes[s.panel]
        look: Look = {"alpha": s.alpha, "zorder": 2 if s.alpha == 1 else 1}
        if s.low is not None and s.high is not None:
            ax.fill_between(s.x, s.low, s.high, color=s.colour, alpha=0.2, lw=0)
        if s.dash:
            ax.plot(s.x, s.y, color=s.colour, ls=s.dash, lw=s.width, **look)
        if s.size:
            ax.scatter(s.x, s.y, s=s.size**2, c=s.colour, edgecolors=s.edge, lw=s.width, **look)
        for x, y, words in zip(s.x, s.y, s.words, strict=False):
            rim = [withStroke(linewidth=1.5, foreground="white")]
            middle: Look = {"ha": "center", "va": "center", "path_effects": rim}
            ax.text(x, y, words, fontsize=9, color=INK, zorder=3, **middle)
    for ax, each in zip(axes, plot.panels, strict=True):
        finish(ax, each)
    keys = [
        Line2D([], [], color=s.colour, ls=s.dash, lw=2, marker="" if s.dash else "o", label=s.said)
        for s in plot.series
        if s.said
    ]
    columns = 1 if any(len(str(key.get_label())) > 30 for key in keys) else max(len(keys), 1)
    if keys:
        figure.legend(
            handles=keys, loc="lower left", bbox_to_anchor=(0.01, 0), frameon=False, fontsize=9.5,
            labelcolor=INK, ncols=columns, handlelength=3,
        )  # fmt: skip
    return figure


def finish(ax: Any, each: Panel) -> None:
    """Title, limits, levels and marks of a panel."""
    title(ax, each.one_line)
    ax.set(xlim=each.xlim, ylim=each.ylim)
    if each.bare:
        ax.set_axis_off()
        ax.set_aspect("equal")
        return
    if each.x.startswith(("Epoch", "After")):
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for height, words, dash in each.levels:
        ax.axhline(height, color=GREY, ls=dash, lw=1.2, zorder=1)
        at = {"xy": (1, height), "xycoords": ax.get_yaxis_transform(), "ha": "right"}
        ax.annotate(words, **at, xytext=(-2, 2), textcoords="offset points", fontsize=9,
                    color="#444444", zorder=1.5)  # fmt: skip
    for x, words in each.marks:
        ax.axvline(x, color=MARKED, lw=1.2, ls="--")
        early = x < 0.1 * ax.get_xlim()[1]  # no room left of the line
        ax.annotate(
            words, (x, 0.97), xycoords=("data", "axes fraction"), rotation=90,
            xytext=(3 if early else -3, 0), textcoords="offset points",
            ha="left" if early else "right", va="top", fontsize=8.5, color=MARKED,
        )  # fmt: skip


# -- by plotly -----------------------------------------------------------------------------------


class Chart:
    """A picture that plotly draws; nothing of it comes from another machine.

    `widget` is what a notebook shows.
    """

    def __init__(self) -> None:
        from plotly.graph_objects import FigureWidget  # it takes a moment to load

        axes = {f"{x}axis{n}": {"visible": False} for x in "xy" for n in ("", 2, 3, 4)}
        self.widget = FigureWidget(layout=axes | {"autosize": True})
        self.widget._config = {"displaylogo": False, "responsive": True, "modeBarButtons": BUTTONS}
        self._layout: dict[str, Any] = {}
        self._kinds: list[dict[str, Any]] = []

    def show(self, plot: Plot) -> None:
        """Let the picture be that of `plot`; where only numbers differ, zoom and legend stay."""
        traces, layout = [t for s in plot.series for t in traces_of(s)], layout_of(plot)
        kinds = [{k: v for k, v in t.items() if k not in CHANGING} for t in traces]
        changed = {k: v for k, v in layout.items() if v != self._layout.get(k)}
        self._layout = layout
        if kinds and kinds == self._kinds:
            new = {name: [t.get(name) for t in traces] for name in CHANGING}
            self.widget.plotly_update(new, changed)
            return
        if changed:
            self.widget.plotly_relayout(changed)
        hidden = {t.legendgroup for t in self.widget.data if t.visible == "legendonly"}
        self.widget.data = []
        self.widget.add_traces([nested(t) for t in traces])
        for trace in self.widget.data:
            if trace.legendgroup in hidden:
                trace.visible = "legendonly"
        self._kinds = kinds


def nested(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace in the words of plotly's constructors, which write a__b for what is a.b here."""
    return {"type": "scatter"} | {key.replace(".", "_"): value for key, value in trace.items()}


def traces_of(s: Series) -> list[dict[str, Any]]:
    """What plotly draws for a series: its band, and its line or points."""
    few = np.unique(np.linspace(0, len(s.x) - 1, min(len(s.x), MOST_DRAWN)).round().astype(int))
    if not isinstance(s.colour, str) or s.words:
        few = np.arange(len(s.x))
    axis = str(s.panel + 1) if s.panel else ""
    common = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "legendgroup": s.name}
    x, y = s.x[few], s.y[few]
    found = []
    if s.low is not None and s.high is not None:
        r, g, b = (round(255 * part) for part in to_rgb(s.colour))
        found.append(common | {
            "x": np.concatenate([x, x[::-1]]), "y": np.concatenate([s.low[few], s.high[few][::-1]]),
            "fill": "toself", "fillcolor": f"rgba({r},{g},{b},0.2)", "mode": "lines",
            "line.width": 0, "hoverinfo": "skip", "showlegend": False,
        })  # fmt: skip
    inks = ["white" if sum(to_rgb(colour)) < 1.2 else INK for colour in s.colour if s.words]
    parts = {"lines": s.dash, "markers": s.size or len(x) == 1, "text": s.words}
    mode = "+".join(part for part, there in parts.items() if there)
    one = s.colour if isinstance(s.colour, str) else INK
    hover = "%{hovertext}" if s.hover else "%{x:.6~g}: %{y:.4~g}"
    found.append(common | {
        "x": x, "y": y, "mode": mode, "name": s.said or s.name, "showlegend": bool(s.said),
        "line.color": one, "line.dash": DASHES[s.dash], "line.width": s.width, "opacity": s.alpha,
        "marker.color": s.colour if one is s.colour else list(s.colour),
        "marker.size": s.size or 6, "marker.line.width": s.width if s.size else 0,
        "marker.line.color": s.edge if isinstance(s.edge, str) else list(s.edge),
        "text": list(s.words) or None, "hovertext": list(s.hover) or None,
        "textfont.color": inks or None,
        "hovertemplate": f"{hover}<extra>{s.name}</extra>",
    })  # fmt: skip
    return found


def layout_of(plot: Plot) -> dict[str, Any]:
    """Axes, titles, levels and marks, in plotly's words."""
    shapes: list[dict[str, Any]] = []
    texts = [
        {"text": words, "x": 0, "y": 1, "yshift": up, "xanchor": "left"}
        for up, words in (
            (76, f"<b>{plot.heading}</b>"),
            (58, plot.standing),
            (40, plot.note),
        )
        if plot.heading and words
    ]
    texts = [each | {"xref": "paper", "yref": "paper", "yanchor": "bottom"} for each in texts]
    layout: dict[str, Any] = {}
    bottom = min((p.area[1] for p in plot.panels), default=0)
    top = max((p.area[1] + p.area[3] for p in plot.panels), default=1)
    left = min((p.area[0] for p in plot.panels), default=0)
    right = max((p.area[0] + p.area[2] for p in plot.panels), default=1)
    for number, each in enumerate(plot.panels):
        axis = str(number + 1) if number else ""
        x, y, width, height = each.area
        domain = [
            [max(0.0, (low - start) / span), min(1.0, (low + size - start) / span)]
            for low, size, start, span in (
                (x, width, left, right - left),
                (y, height, bottom, top - bottom),
            )
        ]
        look = {"showgrid": not each.bare, "zeroline": False, "visible": not each.bare,
                "gridcolor": "#E5E5E5", "automargin": True}  # fmt: skip
        layout[f"xaxis{axis}"] = look | {"domain": domain[0], "anchor": f"y{axis}"}
        layout[f"xaxis{axis}"]["title"] = {"text": each.x, "standoff": 4, "font": {"size": 12}}
        layout[f"yaxis{axis}"] = look | {"domain": domain[1], "anchor": f"x{axis}"}
        if each.ylim:
            layout[f"yaxis{axis}"]["range"] = list(each.ylim)
        if each.bare:
            layout[f"yaxis{axis}"] |= {"scaleanchor": f"x{axis}", "constrain": "domain"}
            layout[f"xaxis{axis}"] |= {"range": list(each.xlim or (0, 1)), "constrain": "domain"}
        texts.append({
            "text": each.title.replace("\n", "<br>"), "align": "left", "xref": "paper",
            "x": domain[0][0], "y": domain[1][1], "yref": "paper", "xanchor": "left",
            "yanchor": "bottom", "yshift": 3,
        })  # fmt: skip
        for level, words, dash in each.levels:
            line = {"color": GREY, "dash": DASHES[dash], "width": 1.2}
            shapes.append({"type": "line", "xref": f"x{axis} domain", "yref": f"y{axis}",
                           "x0": 0, "x1": 1, "y0": level, "y1": level, "line": line})  # fmt: skip
            texts.append({"text": words, "xref": f"x{axis} domain", "yref": f"y{axis}", "x": 1,
                          "y": level, "xanchor": "right", "yanchor": "bottom"})  # fmt: skip
        for at, words in each.marks:
            line = {"color": MARKED, "dash": "dash", "width": 1.2}
            shapes.append({"type": "line", "xref": f"x{axis}", "yref": f"y{axis} domain",
                           "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line})  # fmt: skip
            texts.append({"text": words, "xref": f"x{axis}", "yref": f"y{axis} domain", "x": at,
                          "y": 1, "xanchor": "right", "yanchor": "top", "textangle": -90,
                          "font": {"color": MARKED, "size": 11}})  # fmt: skip
    plain_text = {"showarrow": False, "font": {"size": 12.5}}
    lines = sum(bool(s.said) for s in plot.series)
    return layout | {
        "annotations": [plain_text | each for each in texts],
        "shapes": shapes,
        "margin": {"l": 45, "r": 15, "t": 100 if plot.heading else 42, "b": 40},
        "font": {"color": INK, "size": 11.5},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "hovermode": "closest",
        "legend": {"orientation": "h" if lines > 3 else "v", "y": -0.12, "yanchor": "top", "x": 0},
        "showlegend": bool(lines),
    }
