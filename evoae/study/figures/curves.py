"""Curves over the epochs of a run: loss, size, the probability of a prune.

`history` is a study, or its history: one row per trial, epoch and cell, with columns that say what
a row belongs to (operator, schedule, label and the like). Lines are means over trials, bands their
95 % intervals; with fewer than six trials there is no band, and every trial is a thin line. Where a
trial diverged the mean ends. Hollow diamonds are published values. Every function returns a Figure
that pyplot does not hold, and raises ValueError for a column that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from evoae.study.analysis.statistics import LEAST, mean_interval, require_columns
from evoae.study.figures.look import (
    LOOK,
    Look,
    diamonds,
    draw_panels,
    keys_of,
    label_of,
    legend,
    palette_of,
    panel_per,
    reference_lines,
    say_unseen,
    schedule_look,
    table_of,
    whole_numbers,
)
from evoae.study.runs.study import Study

BAND = Patch(color="#BBBBBB", label="95 % interval")
TRIAL = Line2D([], [], color="#888888", lw=0.7, label="one trial")
FEW_EPOCHS = 12  # as many get a marker each


def loss_over_epochs(
    history: pd.DataFrame | Study,
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
    table = per_trial(table_of(history, "history"), [value], hue, col)
    palette = palette_of(table[hue], hue)
    if published is not None:
        require_columns(published, [hue, "epoch", "value"], "published")
    with panel_per(table, col, sharey=True) as (figure, axes, panels):
        lines = []
        for ax, panel, rows in panels:
            lines.append((ax, draw_lines(ax, rows, value, hue, palette)))
            reference_lines(ax, constant, floor, named=panel == panels[-1][1])
            if published is not None:
                here = published[published[hue].isin(list(palette))]
                if col is not None and col in published:
                    here = here[here[col] == panel]
                diamonds(ax, here["epoch"], here["value"], here[hue].map(palette))
        for ax, drawn in lines:  # all panels have their limits now
            say_unseen(ax, drawn, palette)
        if len(panels) == 1:
            axes[0, 0].set_ylabel(label_of(value))
        else:  # one label for all rows of panels: it is longer than a panel is high
            figure.supylabel(label_of(value), fontsize=LOOK["axes.labelsize"])
        legend(figure, hue, [*keys_of(palette), *spread_of(table)], published is not None)
    return figure


def preserved_over_epochs(
    history: pd.DataFrame | Study,
    parameters: tuple[int, int],
    hue: str = "operator",
    at_last_prune: bool = False,
) -> Figure:
    """Preserved share of the `parameters` (of the encoder, of the decoder) at each epoch.

    As it is after the epoch, or (`at_last_prune`) as the last prune left it, before regrowth.
    """
    suffix = "_at_last_prune" if at_last_prune else ""
    zeros = [f"encoder_zeros{suffix}", f"decoder_zeros{suffix}"]
    table = per_trial(table_of(history, "history"), zeros, hue)
    table["preserved"] = 100 * (1 - table[zeros].sum(axis=1, skipna=False) / sum(parameters))
    palette = palette_of(table[hue], hue)
    with draw_panels() as (figure, axes):
        ax = axes[0, 0]
        say_unseen(ax, draw_lines(ax, table, "preserved", hue, palette), palette)
        axes[0, 0].set_ylabel(label_of("preserved" + suffix))
        legend(figure, hue, [*keys_of(palette), *spread_of(table)])
    return figure


def size_over_epochs(
    history: pd.DataFrame | Study, parameters: tuple[int, int], hue: str = "operator"
) -> Figure:
    """Parameters that are not zero, of the encoder and of the decoder, at each epoch."""
    table = per_trial(table_of(history, "history"), ["encoder_zeros", "decoder_zeros"], hue)
    palette = palette_of(table[hue], hue)
    with draw_panels(1, 2, sharey=True) as (figure, axes):
        for ax, part, total in zip(axes[0], ("encoder", "decoder"), parameters, strict=True):
            table[part] = total - table[f"{part}_zeros"]
            drawn = draw_lines(ax, table, part, hue, palette)
            say_unseen(ax, drawn, palette)
            ax.yaxis.set_major_formatter("{x:,.0f}")
            ax.set_title(f"{part} ({total:,} parameters)")
        axes[0, 0].set_ylabel("Non-zero parameters (count)")
        legend(figure, hue, [*keys_of(palette), *spread_of(table)])
    return figure


def schedule_curves(table: pd.DataFrame, col: str | None = None) -> Figure:
    """The pruning probability of each schedule; columns schedule, epoch, probability.

    A panel per value of `col`, if that is given.
    """
    require_columns(table, ["schedule", "epoch", "probability", *([col] if col else [])])
    palette = palette_of(table["schedule"], "schedule")
    looks: dict[str, Look] = {
        name: {"color": colour, "linestyle": schedule_look(name)[1], "linewidth": 2}
        for name, colour in palette.items()
    }
    with panel_per(table, col, sharey=True) as (figure, axes, panels):
        for ax, _, group in panels:
            drawn = {}
            for name, rows in group.groupby("schedule", sort=False):
                ax.plot(rows["epoch"], rows["probability"], **looks[name])
                drawn[name] = rows[["epoch", "probability"]].to_numpy()
            ax.set(xlabel="Epoch", ylim=(-0.03, 1.03))
            say_unseen(ax, drawn, palette)
            whole_numbers(ax.xaxis)
        axes[0, 0].set_ylabel("Pruning probability (per epoch)")
        legend(figure, "schedule", [Line2D([], [], **looks[n], label=n) for n in looks])
    return figure


def per_trial(
    history: pd.DataFrame, values: list[str], hue: str, col: str | None = None
) -> pd.DataFrame:
    """Mean over the cells of each trial, at the epochs at which a setting has a value.

    Null where a cell of the trial diverged. Raises ValueError if rows that are not of one run would
    be averaged, or if there is no value.
    """
    setting = list(dict.fromkeys([hue, *([col] if col else [])]))
    keys = [*setting, "trial", "epoch"]
    require_columns(history, [*keys, "cell", *values], "history")
    if history.duplicated([*keys, "cell"]).any():
        raise ValueError(
            f"history has several rows for one {', '.join(keys)} and cell; "
            "choose hue and col so that they distinguish the runs"
        )
    there = history[values].notna().all(axis=1)
    at = [history[name] for name in (*setting, "epoch")]
    table = history[there.groupby(at, observed=True).transform("any")]
    if table.empty:
        raise ValueError(f"history has no row with a value of {values[0]}")
    cells = table[[*keys, *values]].fillna(dict.fromkeys(values, np.inf))
    means = cells.groupby(keys, sort=False, as_index=False, observed=True)[values].mean()
    return means.replace(np.inf, np.nan)


def draw_lines(
    ax: Axes, table: pd.DataFrame, value: str, hue: str, palette: Mapping
) -> dict[Any, np.ndarray]:
    """Mean and spread over trials of each `hue`; markers when the epochs are few.

    Returns the means, [epochs, 2], by name.
    """
    few, drawn = table["epoch"].nunique() <= FEW_EPOCHS, {}
    for name, rows in table.groupby(hue, sort=False, observed=True):
        trials = rows.pivot(index="epoch", columns="trial", values=value)
        if trials.shape[1] >= LEAST:
            low, high = np.transpose([mean_interval(row) for row in trials.to_numpy()])
            ax.fill_between(trials.index, low, high, color=palette[name], alpha=0.2, lw=0)
        elif trials.shape[1] > 1:
            ax.plot(trials.index, trials, color=palette[name], lw=0.7, alpha=0.5)
        mean = trials.mean(axis=1, skipna=False)
        mark: Look = {"marker": "o", "markersize": 5} if few else {}
        ax.plot(trials.index, mean, color=palette[name], linewidth=1.8, **mark)
        drawn[name] = mean.reset_index().to_numpy()
    ax.set(xlabel="Epoch")
    whole_numbers(ax.xaxis)
    return drawn


def spread_of(table: pd.DataFrame) -> list[Patch | Line2D]:
    """The legend's word for what surrounds a mean."""
    trials = table["trial"].nunique()
    return [BAND] if trials >= LEAST else [TRIAL] if trials > 1 else []
