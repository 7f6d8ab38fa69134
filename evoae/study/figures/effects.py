"""Effects: parts of a gap, and how one factor's effect depends on another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from evoae.study.analysis.statistics import require_columns, summary
from evoae.study.figures.look import (
    draw_panels,
    intervals,
    keys_of,
    label_of,
    legend,
    name_ticks,
    palette_of,
    panel_per,
    positions,
    reference_lines,
    say_unseen,
)


def parts_of_gap(table: pd.DataFrame) -> Figure:
    """Shapley values with their intervals, lying down: pruning, factor, value, low, high.

    The whole gap, which is their sum, is a square.
    """
    require_columns(table, ["pruning", "factor", "value", "low", "high"])
    palette, factors = palette_of(table["pruning"], "pruning"), list(table["factor"].unique())
    with draw_panels(height=1.2 + (0.35 + 0.15 * len(palette)) * len(factors)) as (figure, axes):
        ax = axes[0, 0]
        for number, (pruning, rows) in enumerate(table.groupby("pruning", sort=False)):
            aside = 0.24 * (number - (len(palette) - 1) / 2)
            at, colour = positions(rows["factor"], factors) + aside, palette[pruning]
            ax.hlines(at, rows["low"], rows["high"], color=colour, lw=1.8)
            for height, row in zip(at, rows.itertuples(), strict=True):
                marker = "s" if row.factor == "whole gap" else "o"
                ax.plot(row.value, height, marker, color=colour, markersize=7)
        ax.axvline(0, color="#444444", linewidth=1)
        ax.set_yticks(range(len(factors)), [str(name).replace("_", " ") for name in factors])
        ax.set(ylim=(len(factors) - 0.5, -0.5), xlabel="Part of the change in training loss (L1)")
        ax.grid(False, axis="y")
        legend(figure, "pruning", keys_of(palette, marker="o"))
    return figure


def interaction(
    table: pd.DataFrame,
    x: str,
    hue: str,
    col: str | None = None,
    value: str = "train_l1",
    constant: float | None = None,
    floor: float | None = None,
) -> Figure:
    """Means of `value` by two factors, joined by lines, a panel per `col`: parallel lines add up.

    Points are trials; means of six trials or more have their interval.
    """
    require_columns(table, [x, hue, value, *([col] if col else [])])
    palette, names = palette_of(table[hue], hue), list(dict.fromkeys(table[x]))
    with panel_per(table, col, sharey=True) as (figure, axes, panels):
        for ax, _, group in panels:
            reference_lines(ax, constant, floor, named=ax is axes.flat[-1])
            drawn = {}
            for number, (name, rows) in enumerate(group.groupby(hue, sort=False)):
                aside = 0.08 * (number - (len(palette) - 1) / 2)
                at = positions(rows[x], names) + aside
                ax.scatter(at, rows[value], s=10, color=palette[name], alpha=0.4, lw=0)
                means = summary(rows, x, value)
                at = positions(means[x], names) + aside
                order = at.argsort()
                ax.plot(at[order], means["mean"].to_numpy()[order], color=palette[name], lw=1.5)
                intervals(ax, at, means, palette[name], marker="o", markersize=5, ls="")
                if means["mean"].notna().any():
                    drawn[name] = np.array([at, means["mean"]])
            say_unseen(ax, drawn, palette)
            name_ticks(ax, names, axes.size)
            ax.set_xlim(-0.5, len(names) - 0.5)
            ax.label_outer()
        figure.supylabel(label_of(value))
        if pd.api.types.is_numeric_dtype(table[x]):  # words say themselves what they are
            figure.supxlabel(label_of(x))
        legend(figure, hue.replace("_", " "), keys_of(palette, marker="o"))
    return figure
