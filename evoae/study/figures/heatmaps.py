"""Picture-like figures: reconstructions, activations, masks, what operators remove and share.

Drawn from arrays in the look of `figures`; nothing here trains or reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from evoae.data import splits
from evoae.study.analysis.statistics import require_columns
from evoae.study.figures.look import WIDTH, Look, draw_panels, legend

ACTIVATION_COLOURS = "mako_r"  # light is silent
SHARE_COLOURS = "Blues"  # white is none
SIGNED_COLOURS = "RdBu_r"  # white is zero
ASIDE: Look = {"markersize": 5, "linestyle": "", "clip_on": False}  # marks beside a panel
DEAD: Look = {"marker": "v", "color": "#444444"} | ASIDE
PRUNED: Look = {"marker": "<", "color": "#D55E00"} | ASIDE


def images(
    inputs: ArrayLike, outputs: Mapping[str, ArrayLike], image_shape: tuple[int, ...]
) -> Figure:
    """Rows of images, values in [0, 1]: the inputs [n, D] on top, then each label's outputs [n, D].

    Raises ValueError for an array of another shape, or if D is not height x width (x colours).
    """
    rows = {"input": np.asarray(inputs)} | {
        label: np.asarray(images) for label, images in outputs.items()
    }
    return picture_rows(rows, image_shape, cmap="gray", vmin=0, vmax=1)


def filters(by_label: Mapping[str, ArrayLike], shape: tuple[int, int]) -> Figure:
    """Rows of filters [n, height * width], one scale for all: zero is white, signs have colours.

    Raises ValueError for an array of another shape.
    """
    rows = {label: np.asarray(values) for label, values in by_label.items()}
    most = max(np.abs(values).max() for values in rows.values()) or 1
    return picture_rows(rows, shape, cmap=SIGNED_COLOURS, vmin=-most, vmax=most)


def picture_rows(rows: dict[str, np.ndarray], shape: tuple[int, ...], **look: Any) -> Figure:
    """Rows of pictures [n, height * width] beside their labels."""
    n, pixels = next(iter(rows.values())).shape
    for label, pictures in rows.items():
        if pictures.shape != (n, pixels) or pixels != np.prod(shape):
            expected = (n, int(np.prod(shape)))
            raise ValueError(f"{label!r} has shape {pictures.shape}; it must be {expected}")
    margin = max(1.5, 0.2 + 0.085 * max(len(label) for label in rows))
    side = min(1.2, (WIDTH - margin) / n)
    down, across = splits.pictures(np.empty((1, pixels)), shape).shape[1:3]
    height = max(0.3, side * down / across)  # a row of a table is one pixel high
    with draw_panels(len(rows), n, size=(margin + side * n, 0.2 + height * len(rows))) as (
        figure,
        axes,
    ):
        for line, (label, pictures) in zip(axes, rows.items(), strict=True):
            for ax, picture in zip(line, splits.pictures(pictures, shape), strict=True):
                aspect = "auto" if shape[0] == 1 else "equal"
                ax.imshow(picture, aspect=aspect, **look)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def before_after_heatmap(
    before: Mapping[str, ArrayLike],
    after: Mapping[str, ArrayLike],
    pruned: Mapping[str, ArrayLike],
    max_units: int = 60,
    titles: tuple[str, str] = ("before", "after"),
) -> Figure:
    """Activations before and after a prune: a column of panels per layer, after below before.

    Or of any two networks, by their `titles`. `before` and `after` map a layer's name to
    [examples, units], `pruned` to a bool [units]. Units are rows, examples columns; a layer has one
    scale. Of a wider layer, `max_units` evenly spaced units are drawn.

    Raises ValueError if the layers differ.
    """
    layers, rows = list(before), dict(zip(titles, (before, after), strict=True))
    for name, given in (("after", after), ("pruned", pruned)):
        if unknown := [layer for layer in given if layer not in layers]:
            raise ValueError(f"{name} has the layer {unknown[0]!r}; it must be one of {layers}")
    with draw_panels(2, len(layers), height=3.6) as (figure, axes):
        for column, name in zip(axes.T, layers, strict=True):
            arrays = [np.asarray(row[name]) for row in rows.values()]
            low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
            units = arrays[0].shape[1]
            shown = np.linspace(0, units - 1, min(units, max_units)).round().astype(int)
            ticks = np.linspace(0, len(shown) - 1, min(len(shown), 6)).astype(int)
            size = f"{len(shown)} of {units} units" if len(shown) < units else f"{units} units"
            gone = np.asarray(pruned.get(name, np.zeros(units)), dtype=bool)
            at = np.flatnonzero(gone[shown]) + 0.5
            for ax, title, array in zip(column, rows, arrays, strict=True):
                sns.heatmap(
                    array[:, shown].T, vmin=low, vmax=high, cmap=ACTIVATION_COLOURS, cbar=False,
                    xticklabels=False, yticklabels=False, rasterized=True, ax=ax,
                )  # fmt: skip
                ax.set_yticks(ticks + 0.5, shown[ticks], rotation=0, fontsize=9)
                if len(at):  # an empty line would upset the layout
                    ax.plot([1.04] * len(at), at, **PRUNED, transform=ax.get_yaxis_transform())
                heading = [f"{name}, {title}", size]
                if name in pruned and title == titles[1]:
                    heading.append(f"{np.count_nonzero(gone)} pruned")
                ax.set_title("\n".join(heading), fontsize=10)
                ax.set_xlabel("Example")
            figure.colorbar(
                ax.collections[0], ax=column, label="activation", location="bottom", aspect=15
            )
        for ax in axes[:, 0]:
            ax.set_ylabel("Unit")
        if pruned:
            key = Line2D([], [], **{**PRUNED, "clip_on": True}, label="pruned unit")
            figure.legend(handles=[key], loc="outside lower right")
    return figure


def removed_by_unit(
    removed: Mapping[str, Mapping[str, ArrayLike]],
    deviation: Mapping[str, ArrayLike],
    dead: Mapping[str, ArrayLike],
) -> Figure:
    """Share of each unit's incoming weights that each operator removes: a strip per layer.

    `removed` maps an operator's name to a layer's name to [units]. Units are ordered by their
    `deviation` [units], quiet ones left; `dead` [units] ones are marked above the strip.
    """
    layers = list(deviation)
    height = 0.85 + 0.22 * len(removed)
    with draw_panels(len(layers), 1, size=(WIDTH, 0.7 + height * len(layers))) as (figure, axes):
        for ax, layer in zip(axes[:, 0], layers, strict=True):
            order = np.argsort(np.asarray(deviation[layer]), kind="stable")
            shares = [100 * np.asarray(by_layer[layer])[order] for by_layer in removed.values()]
            picture = ax.imshow(
                shares, cmap=SHARE_COLOURS, vmin=0, vmax=100, aspect="auto", interpolation="none"
            )
            at = np.flatnonzero(np.asarray(dead[layer])[order])
            if len(at):
                ax.plot(at, [1.05] * len(at), **DEAD, transform=ax.get_xaxis_transform())
            ax.set_yticks(range(len(removed)), list(removed))
            ax.set_xticks([])
            ax.grid(False)
            units = f"{layer}: {len(order)} units, {len(at)} dead"
            ax.set_title(units, loc="left", fontsize=10, pad=14)
        ax.set_xlabel("Units, from the least to the most varying activation")
        label = "Incoming weights removed (%)"
        figure.colorbar(picture, ax=axes[:, 0], label=label, aspect=30, pad=0.01)
        key = Line2D([], [], **DEAD | {"clip_on": True}, label="dead unit: no example activates it")
        legend(figure, None, [key])
    return figure


def overlap_heatmap(table: pd.DataFrame) -> Figure:
    """Mean over trials of the overlap of operators, and that of independent random choices.

    Columns a, b, jaccard, expected, all shares in [0, 1].
    """
    require_columns(table, ["a", "b", "jaccard", "expected"])
    names = list(table["a"].unique())
    titles = {"jaccard": "measured", "expected": "expected of random choices"}
    # The diagonal can be 1, which would hide all else: the scale ends at what pairs reach.
    most = max(0.05, 100 * table.loc[table.a != table.b, list(titles)].max().max())
    size = (WIDTH, min(4.7, 1.6 + 0.5 * len(names)))  # beyond it the width binds
    with draw_panels(1, 2, size=size, sharey=True) as (figure, axes):
        for ax, (value, title) in zip(axes[0], titles.items(), strict=True):
            means = table.pivot_table(value, "a", "b", dropna=False).reindex(names)[names] * 100
            sns.heatmap(
                means, vmin=0, vmax=most, cmap=SHARE_COLOURS, cbar=False, annot=True, fmt=".0f",
                annot_kws={"fontsize": 9}, square=True, linewidths=0.5, ax=ax,
            )  # fmt: skip
            ax.set(title=title, xlabel="", ylabel="")
            ax.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor")
        colours = axes[0, 0].collections[0]
        label = "Weights removed by both,\nof those removed by either (%)"
        figure.colorbar(
            colours, ax=axes[0], label=label, aspect=15, pad=0.01, shrink=0.7, extend="max"
        )
    return figure
