"""Trials and their means: loss against size, by schedule, by cells, beside published values.

`results` is a study, or its results: one row per trial, with columns that say what it belongs to
(operator, schedule, label and the like). Points are trials, larger marks their means, lines the
95 % intervals of the means; with fewer than six trials there is no interval. Hollow diamonds are
published values. Every function returns a Figure that pyplot does not hold, and raises ValueError
for a column that is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evoae.study.analysis.statistics import LEAST, front, require_columns, summary
from evoae.study.figures.look import (
    DIAMOND,
    OPERATOR_COLOURS,
    Look,
    diamonds,
    draw_panels,
    intervals,
    keys_of,
    label_of,
    legend,
    name_rows,
    name_ticks,
    notice,
    palette_of,
    panel_per,
    positions,
    reference_lines,
    table_of,
)
from evoae.study.runs.study import Study

SHARES = ("preserved", "preserved_at_last_prune")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
BAR: Look = {"marker": "_", "markersize": 14, "markeredgewidth": 2, "linestyle": ""}
CHANCE: Look = DIAMOND | {"color": "#444444"}


def sparsity_versus_loss(
    results: pd.DataFrame | Study,
    x: str = "best_preserved",
    y: str = "test_l1",
    hue: str = "operator",
    style: str | None = "schedule",
    constant: float | None = None,
    floor: float | None = None,
    chosen_on: str = "validation_l1",
) -> Figure:
    """Sparsity (1 - the preserved share `x`) and loss: trials, means of settings, the front.

    The front is of the settings' means: which are on it is chosen on `chosen_on`, where it runs is
    their mean `y`. Settings differ in `hue`, `style`, or the label of their run.
    """
    results = table_of(results, "results")
    by = list(dict.fromkeys([hue, *([style] if style else [])]))
    require_columns(results, [x, y, *by], "results")
    means = front(results, [*by, *(["label"] if "label" in results else [])], x, y, chosen_on)
    palette = palette_of(results[hue], hue)
    styles = list(results[style].unique()) if style else []
    markers = dict(zip(styles, itertools.cycle(MARKERS), strict=False))
    with draw_panels() as (figure, axes):
        ax = axes[0, 0]
        for names, rows in results.groupby(by, sort=False, observed=True):
            colour, mark = palette[names[0]], markers[names[-1]] if style else "o"
            ax.scatter(
                100 * (1 - rows[x]), rows[y], s=14, marker=mark, color=colour, alpha=0.35, lw=0
            )
        for row in means.itertuples():
            mark = markers[getattr(row, style)] if style else "o"
            look = {"color": palette[getattr(row, hue)], "edgecolor": "white", "lw": 0.8}
            ax.scatter([100 * row.sparsity], [getattr(row, y)], s=80, marker=mark, **look, zorder=3)
        chosen = means[means.on_front].sort_values("sparsity")
        # "pre": a demand for a little more sparsity than a point has is met by the next point.
        line = {"where": "pre", "color": "#444444", "linewidth": 1.2, "zorder": 1}
        ax.step(100 * chosen["sparsity"], chosen[y], **line)
        reference_lines(ax, constant, floor)
        at = " at the last prune" if x == "preserved_at_last_prune" else ""
        ax.set(xlabel=f"Sparsity{at} (% of parameters)", ylabel=label_of(y))
        keys = keys_of(palette, marker="o", linestyle="")
        grey: Look = {"color": "#666666", "linestyle": ""}
        if style:
            keys += [Line2D([], [], linestyle="", label=style.replace("_", " "))]
            keys += [Line2D([], [], **grey, marker=m, label=name) for name, m in markers.items()]
        keys += [
            Line2D([], [], **grey, marker="o", markersize=3, alpha=0.5, label="one trial"),
            Line2D([], [], **grey, marker="o", markersize=9, label="mean of trials"),
            Line2D([], [], color="#444444", label="front of means,\nchosen on " + chosen_on[:-3]),
        ]
        legend(figure, hue, keys)
    return figure


def capacity_box(
    results: pd.DataFrame | Study,
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
    results, extra = table_of(results, "results"), [col] if col else []
    require_columns(results, [by, value, *extra], "results")
    table = results[list(dict.fromkeys([by, value, *extra]))].dropna().astype({by: object})
    table[value] *= 100
    palette = palette_of(table[by], by)
    groups = list(palette)
    if published is not None:
        require_columns(published, [by, "value", *extra], "published")
    with panel_per(table, col, sharey=True) as (figure, axes, panels):
        for ax, panel, rows in panels:
            # Spread by turns and not at random, so that a figure is always the same.
            turns = np.array([0, 1, -1, 2, -2, 3, -3])[rows.groupby(by).cumcount() % 7]
            at = positions(rows[by], groups) + 0.05 * turns
            colours = [to_rgba(palette[name], 0.75) for name in rows[by]]
            ax.scatter(at, rows[value], s=22, c=colours, lw=0, zorder=3)
            draw_boxes(ax, rows, by, value, palette)
            if published is not None:
                here = published[published[by].isin(groups)]
                here = here if col is None else here[here[col] == panel]
                at = positions(here[by], groups) + 0.33
                diamonds(ax, at, 100 * here["value"], here[by].map(palette))
            name_ticks(ax, groups, len(panels))
            ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize())
            ax.grid(False, axis="x")
        axes[0, 0].set_ylabel(label_of(value))
        legend(figure, None, [], published is not None)
    return figure


def loss_by_schedule(
    results: pd.DataFrame | Study,
    value: str = "train_l1",
    constant: float | None = None,
    floor: float | None = None,
    published: pd.DataFrame | None = None,
    by: str = "schedule",
) -> Figure:
    """Final loss under each schedule, operators side by side: trials, means, intervals.

    `by` names another column instead of the schedule. `published` has the columns operator, `by`
    and value.
    """
    results = table_of(results, "results")
    require_columns(results, ["operator", by, value], "results")
    palette, groups = palette_of(results["operator"], "operator"), list(results[by].unique())
    step, centres = 0.6 / max(1, len(palette) - 1), {}
    for middle, group in enumerate(groups):
        present = results.loc[results[by] == group, "operator"].unique()
        present = [name for name in palette if name in present]
        for rank, name in enumerate(present):
            centres[name, group] = middle + step * (rank - (len(present) - 1) / 2)
    with draw_panels() as (figure, axes):
        ax = axes[0, 0]
        for name, rows in results.groupby("operator", sort=False):
            at = [centres[name, group] for group in rows[by]]
            ax.scatter(at, rows[value], s=14, color=to_rgba(palette[name], 0.45), lw=0)
            means = summary(rows, by, value)
            at = [centres[name, group] for group in means[by]]
            intervals(ax, at, means, palette[name], **BAR)
        if published is not None:
            pairs = zip(published["operator"], published[by], published["value"], strict=True)
            drawn = [(centres[o, g], v, palette[o]) for o, g, v in pairs if (o, g) in centres]
            diamonds(ax, *(zip(*drawn, strict=True) if drawn else ((), (), ())))
        reference_lines(ax, constant, floor)
        name_ticks(ax, groups)
        ax.set(xlim=(-0.6, len(groups) - 0.4), xlabel=by.capitalize(), ylabel=label_of(value))
        ax.grid(False, axis="x")
        keys = keys_of(palette, **BAR)
        legend(figure, "operator", keys, published is not None)
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
        means = table.rename(columns={"reproduced": "mean"})
        intervals(ax, table.index, means, colour, across=True, marker="o", markersize=7, ls="")
        diamonds(ax, table["published"], table.index, ["black"] * len(table))
        name_rows(ax, table["label"])
        ax.set(xlabel=label_of(value))
        key = Line2D([], [], color=colour, marker="o", label="reproduced, 95 % interval")
        legend(figure, None, [key], published=True)
    return figure


def against_chance(table: pd.DataFrame, values: Mapping[str, str], percent: bool = True) -> Figure:
    """What operators do, beside what as many weights at random do: trials, means, hollow chance.

    `values` maps a column to its axis' label, a panel each; the column NAME_by_chance is that of
    chance. With `percent` the columns are shares in [0, 1].
    """
    chances = [f"{value}_by_chance" for value in values]
    require_columns(table, ["operator", *values, *chances])
    palette = palette_of(table["operator"], "operator")
    names, scale = list(palette), 100 if percent else 1
    with draw_panels(1, len(values), sharex=True, height=3.6) as (figure, axes):
        for ax, (value, label), chance in zip(axes[0], values.items(), chances, strict=True):
            rows = table.dropna(subset=[value])
            colours = rows["operator"].map(palette)
            at = positions(rows["operator"], names)
            ax.scatter(at, scale * rows[value], s=22, c=colours, lw=0)
            means = rows.groupby("operator", sort=False)[[value, chance]].mean() * scale
            at = positions(means.index, names)
            ax.plot(at, means[value], "_", color="black", markersize=18)
            ax.plot(at, means[chance], **CHANCE)
            ax.set_xticks(range(len(names)), names, rotation=25, ha="right")
            ax.set(ylabel=label, xlim=(-0.6, len(names) - 0.4))
            if percent:
                ax.set_ylim(-4, 104)
            ax.grid(False, axis="x")
        mean = Line2D([], [], color="black", marker="_", markersize=14, linestyle="", label="mean")
        legend(figure, None, [mean, Line2D([], [], **CHANCE, label="as many weights at random")])
    return figure


def dead_units(table: pd.DataFrame) -> Figure:
    """How well operators find dead units: a point per trial, and the mean; chance is hollow.

    Columns operator, covered, covered_by_chance, aimed, aimed_by_chance, shares in [0, 1].
    """
    values = {
        "covered": "Dead units' weights\nthat are removed (%)",
        "aimed": "Removed weights that\nbelong to dead units (%)",
    }
    return against_chance(table, values)


def change_of_loss(table: pd.DataFrame) -> Figure:
    """What one prune does to the test loss, beside as many weights removed at random.

    Columns operator, change, change_by_chance (L1). A point per trial, and the mean.
    """
    return against_chance(table, {"change": label_of("change")}, percent=False)


def draw_boxes(ax: Axes, table: pd.DataFrame, by: str, value: str, palette: Mapping) -> None:
    """Median and quartiles of each group of LEAST trials or more, in the order of the palette."""
    for at, (name, colour) in enumerate(palette.items()):
        values = table.loc[table[by] == name, value]
        if len(values) < LEAST:
            continue
        look = {"facecolor": to_rgba(colour, 0.3), "edgecolor": colour}
        line = {"color": colour, "linewidth": 1.5}
        ax.boxplot(
            values, positions=[at], widths=0.5, patch_artist=True, showfliers=False,
            manage_ticks=False, boxprops=look, medianprops=line, whiskerprops=line, capprops=line,
        )  # fmt: skip
