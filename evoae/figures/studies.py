"""Figures of a study, from data frames and arrays. Nothing here trains or reads a file.

`history` has one row per trial, epoch and cell, `results` one row per trial; both carry columns,
added by the caller, that say what a row belongs to: operator, schedule, preset and the like. Every
function returns a matplotlib Figure that pyplot does not hold, so a notebook shows it once, and
raises ValueError for a column that is missing. Intervals are 95 % bootstrap intervals of the mean
over trials. Hollow diamonds are published values.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from evoae.analysis.statistics import bootstrap_interval, require_columns, summary
from evoae.figures.look import (
    LOOK,
    OPERATOR_COLOURS,
    diamonds,
    draw_panels,
    keys_of,
    label_of,
    legend,
    name_ticks,
    notice,
    palette_of,
    positions,
    reference_lines,
    whole_numbers,
)

SHARES = ("preserved", "preserved_at_last_prune")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
BAND = Patch(color="#BBBBBB", label="95 % interval")
CHANCE = {"marker": "D", "markersize": 7, "markerfacecolor": "none", "ls": "", "color": "#444444"}
FEW_EPOCHS = 12  # as many get a marker each


def pareto_front(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Indices of the points that no other beats, where x is best large and y is best small.

    A point is beaten by one that is as good in both and better in one; equal points are both kept.
    Ordered by x, so y rises too. Points with a nan are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    better = (x >= x[:, None]) & (y <= y[:, None]) & ((x > x[:, None]) | (y < y[:, None]))
    front = np.flatnonzero(~better.any(axis=1) & ~np.isnan(x + y))
    return front[np.argsort(x[front], kind="stable")]


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
    palette = palette_of(table[hue], hue)
    if published is not None:
        require_columns(published, [hue, "epoch", "value"], "published")
    panels = [None] if col is None else list(table[col].unique())
    with draw_panels(count=len(panels), sharey=True) as (figure, axes):
        for ax, panel in zip(axes.flat, panels, strict=False):
            rows = table if col is None else table[table[col] == panel]
            _lines(ax, rows, value, hue, palette)
            reference_lines(ax, constant, floor, named=panel == panels[-1])
            if published is not None:
                here = published[published[hue].isin(list(palette))]
                if col is not None and col in published:
                    here = here[here[col] == panel]
                diamonds(ax, here["epoch"], here["value"], here[hue].map(palette))
            ax.set_title("" if col is None else panel)
        if len(panels) == 1:
            axes[0, 0].set_ylabel(label_of(value))
        else:  # one label for all rows of panels: it is longer than a panel is high
            figure.supylabel(label_of(value), fontsize=LOOK["axes.labelsize"])
        legend(figure, hue, [*keys_of(palette), BAND], published is not None)
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
    palette = palette_of(table[hue], hue)
    with draw_panels() as (figure, axes):
        _lines(axes[0, 0], table, "preserved", hue, palette)
        axes[0, 0].set_ylabel(label_of("preserved" + suffix))
        legend(figure, hue, [*keys_of(palette), BAND])
    return figure


def size_over_epochs(
    history: pd.DataFrame, parameters: tuple[int, int], hue: str = "operator"
) -> Figure:
    """Parameters that are not zero, of the encoder and of the decoder, at each epoch."""
    table = _per_trial(history, ["encoder_zeros", "decoder_zeros"], hue)
    palette = palette_of(table[hue], hue)
    with draw_panels(1, 2, sharey=True) as (figure, axes):
        for ax, part, total in zip(axes[0], ("encoder", "decoder"), parameters, strict=True):
            table[part] = total - table[f"{part}_zeros"]
            _lines(ax, table, part, hue, palette)
            ax.yaxis.set_major_formatter("{x:,.0f}")
            ax.set_title(f"{part} ({total:,} parameters)")
        axes[0, 0].set_ylabel("Non-zero parameters (count)")
        legend(figure, hue, [*keys_of(palette), BAND])
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
    palette = palette_of(table[hue], hue)
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
        ax.set(xlabel=f"Sparsity{at} (% of parameters)", ylabel=label_of(y))
        keys = keys_of(palette, marker="o", linestyle="")
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
    if value not in SHARES:
        raise ValueError(f"value={value!r} must be a share: one of {', '.join(SHARES)}")
    panels = [col] if col else []
    require_columns(results, [by, value, *panels], "results")
    table = results[list(dict.fromkeys([by, value, *panels]))].dropna().astype({by: object})
    table[value] *= 100
    palette = palette_of(table[by], by)
    groups = list(palette)
    if published is not None:
        require_columns(published, [by, "value", *panels], "published")
    parts = [("", table)] if col is None else list(table.groupby(col, sort=False))
    with draw_panels(count=len(parts), sharey=True) as (figure, axes):
        for ax, (panel, rows) in zip(axes.flat, parts, strict=False):
            # Spread by turns and not at random, so that a figure is always the same.
            turns = np.array([0, 1, -1, 2, -2, 3, -3])[rows.groupby(by).cumcount() % 7]
            at = positions(rows[by], groups) + 0.05 * turns
            colours = [to_rgba(palette[name], 0.75) for name in rows[by]]
            ax.scatter(at, rows[value], s=22, c=colours, lw=0, zorder=3)
            _boxes(ax, rows, by, value, palette)
            if published is not None:
                here = published[published[by].isin(groups)]
                here = here if col is None else here[here[col] == panel]
                at = positions(here[by], groups) + 0.33
                diamonds(ax, at, 100 * here["value"], here[by].map(palette))
            name_ticks(ax, groups, len(parts))
            ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize(), title=panel)
            ax.grid(False, axis="x")
        axes[0, 0].set_ylabel(label_of(value))
        legend(figure, None, [], published is not None)
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
    palette, groups = palette_of(results["operator"], "operator"), list(results[by].unique())
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
            diamonds(ax, *(zip(*drawn, strict=True) if drawn else ((), (), ())))
        reference_lines(ax, constant, floor)
        name_ticks(ax, groups)
        ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize(), ylabel=label_of(value))
        ax.grid(False, axis="x")
        keys = keys_of(palette, marker="_", markersize=14, markeredgewidth=2, linestyle="")
        legend(figure, "operator", keys, published is not None)
    return figure


def schedule_curves(table: pd.DataFrame, col: str | None = None) -> Figure:
    """The pruning probability of each schedule; columns schedule, epoch, probability.

    A panel per value of `col`, if that is given.
    """
    require_columns(table, ["schedule", "epoch", "probability", *([col] if col else [])])
    palette = palette_of(table["schedule"], "schedule")
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
    if table.empty:
        return notice("No run here is one that the paper has a value for.")
    numbers = ["published", "reproduced", "low", "high"]
    table = table.reset_index(drop=True).astype(dict.fromkeys(numbers, float))
    if value in SHARES:
        table[numbers] *= 100
    colour = OPERATOR_COLOURS["variance-high"]
    with draw_panels(height=1.2 + 0.32 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        ax.hlines(table.index, table["published"], table["reproduced"], color="#BBBBBB", lw=2.5)
        ax.hlines(table.index, table["low"], table["high"], color=colour, lw=1.8)
        ax.plot(table["reproduced"], table.index, "o", color=colour, markersize=7)
        diamonds(ax, table["published"], table.index, ["black"] * len(table))
        ax.set_yticks(table.index, table["label"])
        ax.set(xlabel=label_of(value), ylim=(len(table) - 0.5, -0.5))
        ax.grid(False, axis="y")
        key = Line2D([], [], color=colour, marker="o", label="reproduced, 95 % interval")
        legend(figure, None, [key], published=True)
    return figure


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
    palette = palette_of(table["operator"], "operator")
    names = list(palette)
    with draw_panels(1, 2, sharex=True, height=3.6) as (figure, axes):
        for ax, (value, label), chance in zip(axes[0], values.items(), chances, strict=True):
            rows = table.dropna(subset=[value])
            colours = rows["operator"].map(palette)
            ax.scatter(positions(rows["operator"], names), 100 * rows[value], s=22, c=colours, lw=0)
            means = rows.groupby("operator", sort=False)[[value, chance]].mean() * 100
            at = positions(means.index, names)
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
) -> Figure:
    """A measure against the number of cells: mean and interval over trials, a panel per `col`.

    `table` has a row per trial. The column `expected` is drawn hollow and dashed; `even` names
    heights at which a line is drawn.
    """
    require_columns(table, ["cells", value, hue, col, *([expected] if expected else [])])
    palette = palette_of(table[hue], hue)
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
            ax.set(xscale="log", yscale="log", title=panel)
            ax.set(xlim=(sizes[0] / 1.2, sizes[-1] * 1.2), xlabel="Cells")
            ax.xaxis.set_major_locator(FixedLocator(sizes))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.label_outer()
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_locator(NullLocator())
        low, high = axes.flat[0].get_ylim()
        axis = axes.flat[0].yaxis  # the panels share it
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5))
        axis.set_major_formatter("{x:g}")
        label = label_of(value)
        figure.supylabel(label, fontsize=LOOK["axes.labelsize"])
        keys = keys_of(palette, marker="o")
        if expected is not None:
            keys.append(
                Line2D([], [], **CHANCE | {"ls": "--"}, label="expected of\nuniform positions")
            )
        keys += [
            Line2D([], [], color="#666666", ls="--", lw=1.2, label=name) for name in even or {}
        ]
        legend(figure, hue.replace("_", " "), keys)
    return figure
