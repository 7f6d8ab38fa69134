"""Effects: contrasts of claims, parts of a gap, and how one factor's effect depends on another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evoae.study.analysis.statistics import require_columns, summary
from evoae.study.figures.look import (
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
    say_unseen,
)

ANSWERS = {
    "yes": "#009E73",
    "no": "#D55E00",
    "open": "#555555",
    "nothing learnt": "#AAAAAA",
    "too few trials": "#AAAAAA",
}


def forest(table: pd.DataFrame) -> Figure:
    """Shifts of `claims.comparisons` that were run, by claim: filled where the test decides.

    Left of zero `a` has the lower loss, which is what the claims say; claim 2 says at most 0.01.
    """
    table = table[table.says != "not run"].sort_values(
        ["claim", "reading"], ascending=[True, False], kind="stable"
    )
    table = table.reset_index(drop=True).rename(columns={"shift": "mean"})
    if table.empty:
        return notice("No run here is one that a claim of the paper speaks of.")
    labels = [
        f"{r.claim}{'. ' if r.role == 'claim' else ', control: '}{r.a} – {r.b}"
        for r in table.itertuples()
    ]
    with draw_panels(height=1.4 + 0.3 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        for at, row in table.iterrows():
            colour = ANSWERS[row.says]
            face = colour if row.says in ("yes", "no") else "white"
            shape = "o" if row.reading == "as released" else "s"
            look = {"marker": shape, "markerfacecolor": face, "markersize": 7, "ls": ""}
            intervals(ax, [at], table.loc[[at]], colour, across=True, **look)
        ax.axvline(0, color="#444444", linewidth=1)
        name_rows(ax, labels)
        ax.set(xlabel="Shift of final training loss,\na – b (L1), and its 95 % interval")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        grey, dot = ANSWERS["open"], {"marker": "o", "linestyle": ""}
        keys = keys_of({f"says {name}": ANSWERS[name] for name in ("yes", "no")}, **dot)
        keys += keys_of({"open": grey}, **dot, mfc="white")
        keys += keys_of({"nothing learnt, or too few": "#AAAAAA"}, **dot, mfc="white")
        keys += keys_of({"as released": grey}, **dot)
        keys += keys_of({"as intended": grey}, **dot | {"marker": "s"})
        legend(figure, None, keys)
    return figure


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
        name_rows(ax, [str(name).replace("_", " ") for name in factors])
        ax.set(xlabel="Part of the change in training loss (L1)")
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
