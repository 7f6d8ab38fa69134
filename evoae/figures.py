"""Figures of a study, from data frames and arrays. Nothing here trains or reads a file.

`history` has one row per trial, epoch and cell, `results` one row per trial; both carry columns,
added by the caller, that say what a row belongs to: operator, schedule, preset and the like. Every
function returns a matplotlib Figure that pyplot does not hold, so a notebook shows it once, and
raises ValueError for a column that is missing. Intervals are 95 % bootstrap intervals of the mean
over trials. Hollow diamonds are published values.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from evoae.statistics import bootstrap_interval, require_columns, summary

# Told apart with normal vision and with each of the three kinds of colour blindness (tested).
# Another operator gets one of USER_COLOURS; add it here to choose its colour.
OPERATOR_COLOURS = {
    "none": "#000000",
    "random": "#D55E00",
    "variance-high": "#0072B2",
    "variance-low": "#56B4E9",
    "conjunctive": "#009E73",
    "magnitude": "#CC79A7",
    "wanda": "#E69F00",
    "apoz": "#7A1F4B",
}
USER_COLOURS = ("#332288", "#DDCC77", "#661100", "#999933", "#117733", "#AA4499")
OTHER_COLOURS = (
    "#CC6677", "#332288", "#117733", "#88CCEE", "#AA4499",
    "#999933", "#44AA99", "#882255", "#DDCC77",
)  # fmt: skip
LABELS = {
    "train_l1": "Training loss (L1, mean absolute error)",
    "validation_l1": "Validation loss (L1, mean absolute error)",
    "test_l1": "Test loss (L1, mean absolute error)",
    "selection_loss": "Selection loss (as trained on)",
    "replacement_loss": "Replacement loss (as trained on)",
    "test_loss": "Test loss (as trained on)",
    "distance": "Distance to uniform (share of pruned positions to move)",
    "ratio": "Distance to uniform / that of uniform positions",
    "unevenness": "Unevenness beyond chance",
    "shared": "Positions shared by two networks / expected of independent ones",
    "preserved": "Preserved share (%)",
    "preserved_at_last_prune": "Preserved share at the last prune (%)",
}
SHARES = ("preserved", "preserved_at_last_prune")
LOOK = {
    **sns.axes_style("ticks"),
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": 100,
    "font.size": 10,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}
WIDTH = 9.0  # inches; 900 px in a notebook
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DIAMOND = {"marker": "D", "markersize": 7, "markerfacecolor": "none", "linestyle": ""}
BAND = Patch(color="#BBBBBB", label="95 % interval")
CHANCE = {"marker": "D", "markersize": 7, "markerfacecolor": "none", "ls": "", "color": "#444444"}
FEW_EPOCHS = 12  # as many get a marker each


def operator_colour(operator: str) -> str:
    """The colour of an operator: the same in every figure, whatever else is drawn."""
    other = USER_COLOURS[zlib.crc32(str(operator).encode()) % len(USER_COLOURS)]
    return OPERATOR_COLOURS.get(operator, other)


def pareto_front(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Indices of the points that no other beats, where x is best large and y is best small.

    A point is beaten by one that is as good in both and better in one; equal points are both kept.
    Ordered by x, so y rises too. Points with a nan are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    better = (x >= x[:, None]) & (y <= y[:, None]) & ((x > x[:, None]) | (y < y[:, None]))
    front = np.flatnonzero(~better.any(axis=1) & ~np.isnan(x + y))
    return front[np.argsort(x[front], kind="stable")]


def reference_lines(ax: Axes, constant: float | None = None, floor: float | None = None) -> None:
    """Say what a loss means: the constant predictor's (dashed) and the noise floor (dotted)."""
    lines = ((constant, "constant predictor", "--"), (floor, "noise floor", ":"))
    for height, name, dashes in lines:
        if height is None:
            continue
        ax.axhline(height, color="#666666", linestyle=dashes, linewidth=1.2, zorder=1)
        ax.annotate(
            f"{name} {height:.3f}", (1, height), xycoords=ax.get_yaxis_transform(),
            xytext=(-2, 2), textcoords="offset points", ha="right", va="bottom",
            fontsize=9, color="#444444", zorder=1.5,  # under the data
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    ax.autoscale_view(scalex=False)  # a line just inside the view would lie on the axis


def loss_over_epochs(
    history: pd.DataFrame,
    value: str = "train_l1",
    hue: str = "operator",
    constant: float | None = None,
    floor: float | None = None,
    published: pd.DataFrame | None = None,
    col: str | None = None,
) -> Figure:
    """Mean over each trial's cells, then mean and interval over trials; a panel per `col`.

    `constant` and `floor` are drawn by `reference_lines`. `published` has the columns `hue`, epoch
    and value, and `col` if its rows differ by panel; rows of a `hue` that is not in `history` are
    not drawn.
    """
    table = _per_trial(history, [value], hue, col)
    palette = _palette(table[hue], hue)
    if published is not None:
        require_columns(published, [hue, "epoch", "value"], "published")
    panels = [None] if col is None else list(table[col].unique())
    with draw_panels(count=len(panels), sharey=True) as (figure, axes):
        for ax, panel in zip(axes.flat, panels, strict=False):
            rows = table if col is None else table[table[col] == panel]
            _lines(ax, rows, value, hue, palette)
            reference_lines(ax, constant, floor)
            if published is not None:
                here = published[published[hue].isin(list(palette))]
                if col is not None and col in published:
                    here = here[here[col] == panel]
                _diamonds(ax, here["epoch"], here["value"], here[hue].map(palette))
            ax.set_title("" if col is None else panel)
        if len(panels) == 1:
            axes[0, 0].set_ylabel(_label(value))
        else:  # one label for all rows of panels: it is longer than a panel is high
            figure.supylabel(_label(value), fontsize=LOOK["axes.labelsize"])
        legend(figure, hue, [*_keys(palette), BAND], published is not None)
    return figure


def preserved_over_epochs(
    history: pd.DataFrame,
    parameters: tuple[int, int],
    hue: str = "operator",
    at_last_prune: bool = False,
) -> Figure:
    """Preserved share of the `parameters` (of the encoder, of the decoder) at each epoch.

    As it is after the epoch, or (`at_last_prune`) as the last prune left it, before regrowth.
    """
    suffix = "_at_last_prune" if at_last_prune else ""
    zeros = [f"encoder_zeros{suffix}", f"decoder_zeros{suffix}"]
    table = _per_trial(history, zeros, hue)
    table["preserved"] = 100 * (1 - table[zeros].sum(axis=1, skipna=False) / sum(parameters))
    palette = _palette(table[hue], hue)
    with draw_panels() as (figure, axes):
        _lines(axes[0, 0], table, "preserved", hue, palette)
        axes[0, 0].set_ylabel(_label("preserved" + suffix))
        legend(figure, hue, [*_keys(palette), BAND])
    return figure


def size_over_epochs(
    history: pd.DataFrame, parameters: tuple[int, int], hue: str = "operator"
) -> Figure:
    """Parameters that are not zero, of the encoder and of the decoder, at each epoch."""
    table = _per_trial(history, ["encoder_zeros", "decoder_zeros"], hue)
    palette = _palette(table[hue], hue)
    with draw_panels(1, 2, sharey=True) as (figure, axes):
        for ax, part, total in zip(axes[0], ("encoder", "decoder"), parameters, strict=True):
            table[part] = total - table[f"{part}_zeros"]
            _lines(ax, table, part, hue, palette)
            ax.yaxis.set_major_formatter("{x:,.0f}")
            ax.set_title(f"{part} ({total:,} parameters)")
        axes[0, 0].set_ylabel("Non-zero parameters (count)")
        legend(figure, hue, [*_keys(palette), BAND])
    return figure


def sparsity_versus_loss(
    results: pd.DataFrame,
    x: str = "preserved",
    y: str = "train_l1",
    hue: str = "operator",
    style: str | None = "schedule",
    constant: float | None = None,
    floor: float | None = None,
) -> Figure:
    """A point per trial: sparsity (1 - the preserved share `x`) and loss, with the Pareto front.

    The front is the least loss reached at a sparsity or more, over all trials drawn.
    """
    require_columns(results, [x, y, hue, *([style] if style else [])], "results")
    table = results.dropna(subset=[x, y]).assign(sparsity=lambda rows: 100 * (1 - rows[x]))
    palette = _palette(table[hue], hue)
    styles = list(table[style].unique()) if style else []
    markers = dict(zip(styles, itertools.cycle(MARKERS), strict=False))
    with draw_panels() as (figure, axes):
        ax = axes[0, 0]
        shapes = {"style": style, "style_order": styles, "markers": markers} if style else {}
        sns.scatterplot(
            table, x="sparsity", y=y, hue=hue, palette=palette, hue_order=list(palette),
            s=45, alpha=0.8, legend=False, ax=ax, **shapes,
        )  # fmt: skip
        front = table.iloc[pareto_front(table["sparsity"], table[y])]
        # "pre": a demand for a little more sparsity than a point has is met by the next point.
        ax.step(front["sparsity"], front[y], where="pre", color="#444444", linewidth=1.2, zorder=1)
        reference_lines(ax, constant, floor)
        at = " at the last prune" if x == "preserved_at_last_prune" else ""
        ax.set(xlabel=f"Sparsity{at} (% of parameters)", ylabel=_label(y))
        keys = _keys(palette, marker="o", linestyle="")
        if style:
            keys += [Line2D([], [], linestyle="", label=style.replace("_", " "))]
            keys += [
                Line2D([], [], color="#666666", marker=marker, linestyle="", label=name)
                for name, marker in markers.items()
            ]
        legend(figure, hue, [*keys, Line2D([], [], color="#444444", label="Pareto front")])
    return figure


def capacity_box(
    results: pd.DataFrame,
    by: str,
    published: pd.DataFrame | None = None,
    value: str = "preserved_at_last_prune",
    col: str | None = None,
) -> Figure:
    """Preserved share: a box per group (median, quartiles) and a point per trial.

    At the last prune, as published, or `value="preserved"`: now. A panel per value of `col`.
    `published` has the columns `by` and value (a share in [0, 1]), and `col` if that is given.
    """
    return _by_group(results, by, value, published, box=True, col=col)


def final_loss(
    results: pd.DataFrame,
    by: str = "operator",
    value: str = "train_l1",
    constant: float | None = None,
    floor: float | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """A point per trial, and the mean of each group with its interval.

    `published` has the columns `by` and value.
    """
    figure = _by_group(results, by, value, published, box=False)
    reference_lines(figure.axes[0], constant, floor)
    return figure


def loss_by_schedule(
    results: pd.DataFrame,
    value: str = "train_l1",
    constant: float | None = None,
    floor: float | None = None,
    published: pd.DataFrame | None = None,
    by: str = "schedule",
) -> Figure:
    """Final loss under each schedule, operators side by side: trials, mean and interval.

    Another column may take the schedule's place: `by`. `published` has the columns operator, `by`
    and value.
    """
    require_columns(results, ["operator", by, value], "results")
    palette, groups = _palette(results["operator"], "operator"), list(results[by].unique())
    step, places = 0.6 / max(1, len(palette) - 1), {}
    for at, group in enumerate(groups):
        present = results.loc[results[by] == group, "operator"].unique()
        present = [name for name in palette if name in present]
        for rank, name in enumerate(present):
            places[name, group] = at + step * (rank - (len(present) - 1) / 2)
    with draw_panels() as (figure, axes):
        ax = axes[0, 0]
        for name, rows in results.groupby("operator", sort=False):
            at = [places[name, group] for group in rows[by]]
            ax.scatter(at, rows[value], s=14, color=to_rgba(palette[name], 0.45), lw=0)
            means = summary(rows, by, value)
            at = [places[name, group] for group in means[by]]
            ax.vlines(at, means["low"], means["high"], color=palette[name], lw=1.8)
            ax.plot(at, means["mean"], "_", color=palette[name], markersize=14, markeredgewidth=2)
        if published is not None:
            pairs = zip(published["operator"], published[by], published["value"], strict=True)
            drawn = [(places[o, g], v, palette[o]) for o, g, v in pairs if (o, g) in places]
            _diamonds(ax, *(zip(*drawn, strict=True) if drawn else ((), (), ())))
        reference_lines(ax, constant, floor)
        ax.set_xticks(range(len(groups)), groups)
        ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize(), ylabel=_label(value))
        ax.grid(False, axis="x")
        keys = _keys(palette, marker="_", markersize=14, markeredgewidth=2, linestyle="")
        legend(figure, "operator", keys, published is not None)
    return figure


def schedule_curves(table: pd.DataFrame, col: str | None = None) -> Figure:
    """The pruning probability of each schedule; columns schedule, epoch, probability.

    A panel per value of `col`, if that is given.
    """
    require_columns(table, ["schedule", "epoch", "probability", *([col] if col else [])])
    palette = _palette(table["schedule"], "schedule")
    dashes = dict(zip(palette, itertools.cycle(["-", "--", "-.", ":"]), strict=False))
    groups = [("", table)] if col is None else list(table.groupby(col, sort=False))
    with draw_panels(count=len(groups), sharey=True) as (figure, axes):
        for ax, (panel, group) in zip(axes.flat, groups, strict=False):
            for name, rows in group.groupby("schedule", sort=False):
                sns.lineplot(
                    x=rows["epoch"], y=rows["probability"], color=palette[name], errorbar=None,
                    linestyle=dashes[name], linewidth=2, ax=ax,
                )  # fmt: skip
            ax.set(xlabel="Epoch", ylabel="", ylim=(-0.03, 1.03), title=panel)
            whole_numbers(ax.xaxis)
        axes[0, 0].set_ylabel("Pruning probability (per epoch)")
        keys = [
            Line2D([], [], color=colour, linestyle=dashes[name], linewidth=2, label=name)
            for name, colour in palette.items()
        ]
        legend(figure, "schedule", keys)
    return figure


def published_comparison(table: pd.DataFrame, value: str = "train_l1") -> Figure:
    """A row per result: published (diamond) and reproduced with its interval, joined by a line.

    Columns label, published, reproduced, low, high (low and high may be null); `value` names the
    quantity for the axis.
    """
    require_columns(table, ["label", "published", "reproduced", "low", "high"])
    table = table.reset_index(drop=True)
    colour = OPERATOR_COLOURS["variance-high"]
    with draw_panels(height=1.2 + 0.32 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        ax.hlines(table.index, table["published"], table["reproduced"], color="#BBBBBB", lw=2.5)
        ax.hlines(table.index, table["low"], table["high"], color=colour, lw=1.8)
        ax.plot(table["reproduced"], table.index, "o", color=colour, markersize=7)
        _diamonds(ax, table["published"], table.index, ["black"] * len(table))
        ax.set_yticks(table.index, table["label"])
        ax.set(xlabel=_label(value), ylim=(len(table) - 0.5, -0.5))
        ax.grid(False, axis="y")
        key = Line2D([], [], color=colour, marker="o", label="reproduced, 95 % interval")
        legend(figure, None, [key], published=True)
    return figure


def save(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write `folder`/`name`.png (150 dpi) and .svg, and return their paths.

    The folder is made if need be. Equal figures give equal files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, dpi=150)
    with mpl.rc_context({"svg.hashsalt": "evoae"}):
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


@contextmanager
def draw_panels(
    rows: int = 1,
    columns: int = 1,
    *,
    count: int | None = None,
    height: float | None = None,
    size: tuple[float, float] | None = None,
    **shared: bool,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure in the common look, forgotten by pyplot; or `count` panels, three in a row."""
    if count is not None:
        if not count:
            raise ValueError("there is nothing to draw")
        columns = 2 if count == 4 else min(count, 3)
        rows = -(-count // columns)
    if size is None:
        size = (WIDTH, 0.4 + rows * (height or (4.4 if rows == 1 else 2.9)))
    with mpl.rc_context(LOOK):
        figure, axes = plt.subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained", **shared
        )
        plt.close(figure)
        for spare in axes.flat[count:] if count is not None else ():
            spare.remove()
        yield figure, axes


def _label(value: str) -> str:
    return LABELS.get(value, value.replace("_", " ").capitalize())


def _palette(names: pd.Series, hue: str) -> dict[object, object]:
    """A colour per name; operators keep theirs, other names share out a palette."""
    names = list(names.dropna().unique())
    if hue == "operator":
        palette = {name: operator_colour(name) for name in names}
        for before, name in itertools.combinations(palette, 2):
            if palette[before] == palette[name]:  # two of a user's: one figure must part them
                free = [c for c in USER_COLOURS if c not in palette.values()]
                palette[name] = (free or [palette[name]])[0]
        return palette
    few = len(names) <= len(OTHER_COLOURS)
    colours = OTHER_COLOURS if few else sns.color_palette("viridis", len(names))
    return dict(zip(names, colours, strict=False))


def _keys(palette: Mapping[object, object], **look: str) -> list[Line2D]:
    return [Line2D([], [], color=colour, label=name, **look) for name, colour in palette.items()]


def legend(
    figure: Figure, title: str | None, keys: Sequence[Line2D | Patch], published: bool = False
) -> None:
    """The legend, right of the panels (if untitled, above them), where it covers nothing."""
    keys = list(keys)
    if published:
        keys.append(Line2D([], [], **DIAMOND, markeredgecolor="black", label="published"))
    if keys:
        place = "outside right upper" if title else "outside upper right"
        columns = 1 if title else len(keys)
        figure.legend(handles=keys, title=title, loc=place, alignment="left", ncols=columns)


def _places(values: Iterable, groups: list) -> np.ndarray:
    """Where each value's group lies on the axis (of no values: no places)."""
    return np.array([groups.index(value) for value in values], dtype=float)


def _diamonds(ax: Axes, x: Iterable, y: Iterable, colours: Iterable) -> None:
    edges = [to_rgba(colour) for colour in colours]
    ax.scatter(x, y, s=50, marker="D", facecolors="none", edgecolors=edges, lw=1.5, zorder=5)


def _per_trial(
    history: pd.DataFrame, values: list[str], hue: str, col: str | None = None
) -> pd.DataFrame:
    """Mean over the cells of each trial, at the epochs that have a value.

    Raises ValueError if rows that are not of one run would be averaged, or if there is no value.
    """
    keys = list(dict.fromkeys([hue, *([col] if col else []), "trial", "epoch"]))
    require_columns(history, [*keys, "cell", *values], "history")
    if history.duplicated([*keys, "cell"]).any():
        raise ValueError(
            f"history has several rows for one {', '.join(keys)} and cell; "
            "hue and col must tell the runs apart"
        )
    table = history.dropna(subset=values)
    if table.empty:
        raise ValueError(f"history has no row with a value of {values[0]}")
    return table.groupby(keys, sort=False, as_index=False, observed=True)[values].mean()


def _lines(ax: Axes, table: pd.DataFrame, value: str, hue: str, palette: Mapping) -> None:
    """Mean and interval over trials; markers when the epochs are few."""
    few = table["epoch"].nunique() <= FEW_EPOCHS
    sns.lineplot(
        table, x="epoch", y=value, hue=hue, palette=dict(palette), hue_order=list(palette),
        errorbar=bootstrap_interval, marker="o" if few else None, markeredgewidth=0,
        linewidth=1.8, legend=False, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="Epoch", ylabel="")
    whole_numbers(ax.xaxis)


def whole_numbers(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def _by_group(
    results: pd.DataFrame,
    by: str,
    value: str,
    published: pd.DataFrame | None,
    box: bool,
    col: str | None = None,
) -> Figure:
    """A point per trial over a box, or beside the mean and its interval, for each group."""
    panels = [col] if col else []
    require_columns(results, [by, value, *panels], "results")
    scale = 100 if value in SHARES else 1
    table = results[list(dict.fromkeys([by, value, *panels]))].dropna().astype({by: object})
    table[value] *= scale
    palette = _palette(table[by], by)
    groups = list(palette)
    keys = []
    mean = {"color": "black", "marker": "_", "markersize": 18}
    if published is not None:
        require_columns(published, [by, "value", *panels], "published")
    parts = [("", table)] if col is None else list(table.groupby(col, sort=False))
    with draw_panels(count=len(parts), sharey=True) as (figure, axes):
        for ax, (panel, rows) in zip(axes.flat, parts, strict=False):
            # Spread by turns and not at random, so that a figure is always the same.
            turns = np.array([0, 1, -1, 2, -2, 3, -3])[rows.groupby(by).cumcount() % 7]
            at = _places(rows[by], groups) + 0.05 * turns
            colours = [to_rgba(palette[name], 0.75) for name in rows[by]]
            ax.scatter(at, rows[value], s=22, c=colours, lw=0, zorder=3)
            if box:
                _boxes(ax, rows, by, value, palette)
            else:
                means = summary(rows, by, value)
                at = _places(means[by], groups)
                ax.vlines(at, means["low"], means["high"], color="black", lw=1.8, zorder=4)
                ax.plot(at, means["mean"], **mean, linestyle="", zorder=4)
            if published is not None:
                here = published[published[by].isin(groups)]
                here = here if col is None else here[here[col] == panel]
                at = _places(here[by], groups) + 0.33
                _diamonds(ax, at, scale * here["value"], here[by].map(palette))
            long = sum(len(str(name)) for name in groups) * len(parts) > 60
            ax.set_xticks(
                range(len(groups)), groups, rotation=25 * long, ha="right" if long else "center"
            )
            ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize(), title=panel)
            ax.grid(False, axis="x")
        axes[0, 0].set_ylabel(_label(value))
        if not box:
            keys = [Line2D([], [], **mean, linestyle="", label="mean, 95 % interval")]
        legend(figure, None, keys, published is not None)
    return figure


def _boxes(ax: Axes, table: pd.DataFrame, by: str, value: str, palette: Mapping) -> None:
    for at, (name, colour) in enumerate(palette.items()):
        look = {"facecolor": to_rgba(colour, 0.3), "edgecolor": colour}
        line = {"color": colour, "linewidth": 1.5}
        ax.boxplot(
            table.loc[table[by] == name, value], positions=[at], widths=0.5,
            patch_artist=True, showfliers=False, manage_ticks=False, boxprops=look,
            medianprops=line, whiskerprops=line, capprops=line,
        )  # fmt: skip


def dead_units(table: pd.DataFrame) -> Figure:
    """How well operators find dead units: a point per trial, and the mean; chance is hollow.

    Columns operator, covered, covered_by_chance, aimed, aimed_by_chance, shares in [0, 1].
    """
    values = {
        "covered": "Dead units' weights\nthat are removed (%)",
        "aimed": "Removed weights that\nbelong to dead units (%)",
    }
    chances = [f"{value}_by_chance" for value in values]
    require_columns(table, ["operator", *values, *chances])
    palette = _palette(table["operator"], "operator")
    names = list(palette)
    with draw_panels(1, 2, sharex=True, height=3.6) as (figure, axes):
        for ax, (value, label), chance in zip(axes[0], values.items(), chances, strict=True):
            rows = table.dropna(subset=[value])
            colours = rows["operator"].map(palette)
            ax.scatter(_places(rows["operator"], names), 100 * rows[value], s=22, c=colours, lw=0)
            means = rows.groupby("operator", sort=False)[[value, chance]].mean() * 100
            at = _places(means.index, names)
            ax.plot(at, means[value], "_", color="black", markersize=18)
            ax.plot(at, means[chance], **CHANCE)
            ax.set_xticks(range(len(names)), names, rotation=25, ha="right")
            ax.set(ylabel=label, ylim=(-4, 104), xlim=(-0.6, len(names) - 0.4))
            ax.grid(False, axis="x")
        mean = Line2D([], [], color="black", marker="_", markersize=14, linestyle="", label="mean")
        legend(figure, None, [mean, Line2D([], [], **CHANCE, label="as many weights at random")])
    return figure


def against_cells(
    table: pd.DataFrame,
    value: str,
    hue: str,
    col: str,
    expected: str | None = None,
    even: Mapping[str, float] | None = None,
    log: bool = True,
) -> Figure:
    """A measure against the number of cells: mean and interval over trials, a panel per `col`.

    `table` has a row per trial. The column `expected` is drawn hollow and dashed; `even` names
    heights at which a line is drawn.
    """
    require_columns(table, ["cells", value, hue, col, *([expected] if expected else [])])
    palette = _palette(table[hue], hue)
    groups = list(table.groupby(col, sort=False))
    sizes = sorted(table["cells"].unique())
    with draw_panels(count=len(groups), sharex=True, sharey=True) as (figure, axes):
        for ax, (panel, group) in zip(axes.flat, groups, strict=False):
            for name, rows in group.groupby(hue, sort=False):
                means = summary(rows, "cells", value).sort_values("cells")
                look = {"color": palette[name], "lw": 1.8}
                ax.vlines(means["cells"], means["low"], means["high"], **look)
                ax.plot(means["cells"], means["mean"], "o-", **look, markersize=5)
                if expected is not None:
                    chance = rows.groupby("cells")[expected].mean()
                    ax.plot(chance.index, chance, **CHANCE | {"color": palette[name], "ls": "--"})
            for height in (even or {}).values():
                ax.axhline(height, color="#666666", ls="--", lw=1.2, zorder=1)
            ax.set(xscale="log", yscale="log" if log else "linear", title=panel)
            ax.set(xlim=(sizes[0] / 1.2, sizes[-1] * 1.2), xlabel="Cells")
            ax.xaxis.set_major_locator(FixedLocator(sizes))
            ax.xaxis.set_major_formatter("{x:g}")
            if log:
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.yaxis.set_major_formatter("{x:g}")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_locator(NullLocator())
        label = _label(value)
        figure.supylabel(label, fontsize=LOOK["axes.labelsize"])
        keys = _keys(palette, marker="o")
        if expected is not None:
            keys.append(
                Line2D([], [], **CHANCE | {"ls": "--"}, label="expected of\nuniform positions")
            )
        keys += [
            Line2D([], [], color="#666666", ls="--", lw=1.2, label=name) for name in even or {}
        ]
        legend(figure, hue.replace("_", " "), keys)
    return figure
