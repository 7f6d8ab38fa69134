"""Figures of the frontier: loss against size for many methods, and where the zeros lie.

Points are means over trials, lines their 95 % intervals; with fewer than six trials there is no
interval, and every trial is a small point. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from evoae.study.analysis.statistics import LEAST, require_columns, summary
from evoae.study.figures.heatmaps import SHARE_COLOURS
from evoae.study.figures.look import (
    INK,
    LOOK,
    OPERATOR_COLOURS,
    OTHER_COLOURS,
    WIDTH,
    Look,
    draw_panels,
    label_of,
    legend,
    panel_per,
    reference_lines,
    say_unseen,
)

# the axis' label, and whether it is logarithmic with small on the right
SIZES = {
    "sparsity": ("Sparsity (% of parameters)", False),
    "macs": ("Multiply-accumulates per example that are left", True),
    "compact_parameters": ("Parameters of the compacted network", True),
    "parameters": ("Parameters that are not zero", True),
    "milliseconds": ("Milliseconds of a forward pass of 256 images", True),
}
OTHERS = "#BBBBBB"
POINT: Look = {"marker": "o", "ms": 4.5}  # of a method that is named
OTHER: Look = {"marker": "o", "ms": 2.5, "color": OTHERS}
INHERITED = {"itself": 0, "denser": -1, "sparser": 1}  # where the network comes from, in sizes


def fronts(
    table: pd.DataFrame, means: pd.DataFrame, x: str, named: Sequence[str],
    y: str = "relative_test", by: str = "dataset",
) -> Figure:  # fmt: skip
    """Loss `y` against the size `x` of each method at its targets, a panel per data set (`by`).

    `table` has a row per trial, `means` a row per setting with `on_front` (of this size); both have
    the columns dataset (or `by`), method and target. Methods on the front and those `named` have
    colours, the others are grey; rings mark the front. `x` is one of SIZES.
    """
    require_columns(table, [by, "method", "target", x, y])
    title, shrinks = SIZES[x]
    table = table.assign(sparsity=100 * table.sparsity) if x == "sparsity" else table
    chosen = means[means.on_front]
    looks = method_looks(list(table.method.unique()))
    looks = {m: look for m, look in looks.items() if m in {*chosen.method, *named}}
    with panel_per(table, by, sharey=False) as (figure, *_, panels):
        for ax, _, rows in panels:
            drawn = {}
            for method, own in rows.groupby("method", sort=False):
                at = own.groupby("target")[x].mean()
                line = summary(own, "target", y).set_index("target").loc[at.index].reset_index()
                if method not in looks:
                    ax.plot(at, line["mean"], lw=0.8, **OTHER)
                    continue
                colour = looks[method]["color"]
                ax.vlines(at, line["low"], line["high"], color=colour, lw=1.8)
                ax.plot(at, line["mean"], lw=1.6, zorder=3, **POINT | looks[method])
                drawn[method] = np.array([at, line["mean"]])
                if line["n"].max() < LEAST:
                    ends = own.target.map(at)
                    ax.scatter(ends, own[y], s=7, color=colour, alpha=0.5, lw=0, zorder=2)
            say_unseen(ax, drawn, looks)
            here = rows.merge(chosen[[by, "method", "target"]])
            here = here.groupby(["method", "target"])[[x, y]].mean()
            ax.scatter(here[x], here[y], s=110, facecolors="none", edgecolors=INK, lw=1.1, zorder=4)
            if y == "relative_test":
                ax.axhline(1, color="#666666", ls="--", lw=1.2, zorder=1)
            ax.margins(x=0.1)  # rings are large
            if shrinks:
                ax.invert_xaxis()
            if x == "milliseconds":
                ax.xaxis.set_major_locator(MaxNLocator(4))
            elif shrinks:
                ax.set_xscale("log")
                marks = pd.Series([10.0**k * m for k in range(12) for m in (1, 3)])
                few = marks.between(rows[x].min(), rows[x].max()).sum() < 2
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1, 3)))
                ax.xaxis.set_major_formatter("{x:,.0f}")
                ax.xaxis.set_minor_locator(NullLocator())
        figure.supxlabel(title, fontsize=LOOK["axes.labelsize"])
        figure.supylabel(label_of(y), fontsize=LOOK["axes.labelsize"])
        keys = [Line2D([], [], label=name, **POINT | look) for name, look in looks.items()]
        if len(looks) < table.method.nunique():
            keys.append(Line2D([], [], **OTHER, label="other methods"))
        ring: Look = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "color": INK}
        keys.append(Line2D([], [], **ring, ls="", label="front of means,\nchosen on validation"))
        if y == "relative_test":
            keys.append(Line2D([], [], color="#666666", ls="--", label="constant predictor"))
        legend(figure, "method", keys)
    return figure


def front_of(table: pd.DataFrame, chosen: float | None = None) -> Figure:
    """Test loss against sparsity and against compacted parameters, of a table of `evoae.front`.

    A ring marks the `chosen` sparsity; lines are the losses of the constant and of the dense
    network.
    """
    with draw_panels(1, 2, sharey=True) as (figure, axes):
        for ax, x in zip(axes[0], ("sparsity", "compact_parameters"), strict=True):
            rows = table.assign(at=100 * (1 - table.sparsity) if x == "sparsity" else table[x])
            at = rows.groupby("sparsity")["at"].mean()
            line = summary(rows, "sparsity", "test_l1").set_index("sparsity").loc[at.index]
            ax.plot(at, line["mean"], marker="o", color=INK, lw=1.6, ms=4.5, zorder=3)
            ax.vlines(at, line["low"], line["high"], color=INK, lw=1.8)
            ax.scatter(rows["at"], rows.test_l1, s=9, color=OTHER_COLOURS[1], alpha=0.5, lw=0)
            if chosen is not None:
                ring: Look = {"facecolors": "none", "edgecolors": INK, "lw": 1.1, "zorder": 4}
                ax.scatter(at[chosen], line["mean"][chosen], s=130, **ring)
            reference_lines(ax, table.constant_test_l1.mean(), named=x != "sparsity")
            dense = table.dense_test_l1.mean()
            ax.axhline(dense, color=OTHER_COLOURS[2], lw=1.2, zorder=1)
            if x == "sparsity":
                ax.annotate(
                    f"dense network {dense:.3f}", (1, dense), xytext=(-2, -2), ha="right",
                    va="top", fontsize=9, xycoords=ax.get_yaxis_transform(),
                    textcoords="offset points",
                )  # fmt: skip
            ax.set_xscale("log")
            ax.invert_xaxis()
            ax.xaxis.set_minor_locator(NullLocator())
            if x == "sparsity":
                ax.set_xticks(at, [f"{100 * size:g}" for size in at.index])
            else:
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.set_xlabel(SIZES[x][0])
        axes[0, 0].set_ylabel(label_of("test_l1"))
    return figure


def inheritance(lineage: pd.DataFrame) -> Figure:
    """Who inherited from whom: sizes from left to right, rounds from top to bottom.

    `lineage` has a row per round, sparsity and trial; `whose` network it went on with: its own
    ("itself"), or that of its "denser" or "sparser" neighbour. Lines are the thicker the more
    trials they are of. Raises ValueError for a column that is missing.
    """
    require_columns(lineage, ["round", "sparsity", "trial", "whose"])
    looks = dict(zip(INHERITED, (OTHERS, OTHER_COLOURS[1], OTHER_COLOURS[0]), strict=True))
    with panel_per(lineage, "dataset") as (figure, *_, panels):
        for ax, _, rows in panels:
            sizes = sorted(rows.sparsity.unique())
            counts = rows.groupby(["round", "sparsity", "whose"]).size()
            for (number, size, whose), count in counts.items():
                at = sizes.index(size)
                x = (at + INHERITED[whose], at)
                wide = 5 * count / rows.trial.nunique()
                ax.plot(x, (number - 1, number), color=looks[whose], lw=wide, zorder=2)
            last = int(rows["round"].max())
            dots = np.indices((len(sizes), last + 1)).reshape(2, -1)
            ax.scatter(dots[0], dots[1], s=45, color=INK, zorder=3)
            ticks = ["dense" if size == 0 else f"{100 * size:g}" for size in sizes]
            ax.set_xticks(range(len(sizes)), ticks)
            ax.set_yticks(range(last + 1), [f"round {n + 1}" for n in range(last + 1)])
            ax.set_ylim(last + 0.3, -0.3)
        figure.supxlabel(SIZES["sparsity"][0], fontsize=LOOK["axes.labelsize"])
        names = {"itself": "its own", "denser": "the next denser", "sparser": "the next sparser"}
        keys = [Line2D([], [], color=looks[whose], lw=4, label=names[whose]) for whose in looks]
        legend(figure, "goes on with", keys)
    return figure


def method_looks(names: Sequence[str]) -> dict[str, Look]:
    """Colour and line style of each method; the same in every figure of these methods.

    Operators keep their colours, dashed and hollow where they prune units; what they are compared
    with is black or green; other names share out a palette, and are dashed when it begins again.
    """
    known = OPERATOR_COLOURS | dict.fromkeys(("frontier", "unpruned", "small network"), INK)
    known |= dict.fromkeys(("torch.nn.utils.prune", "Torch-Pruning"), "#117733")
    bare = {name: name.partition(" (")[0] for name in names}
    others = [name for name in names if bare[name] not in known]
    free = OTHER_COLOURS[1:]  # the first is close to magnitude's
    found: dict[str, Look] = {
        name: {"color": known[own], "ls": "-"} for name, own in bare.items() if own in known
    }
    for number, name in enumerate(others):
        style = "-" if number < len(free) else "--"
        found[name] = {"color": free[number % len(free)], "ls": style}
    whole: Look = {"ls": "--", "marker": "s", "mfc": "white"}
    return {name: found[name] | (whole if name.endswith("(units)") else {}) for name in names}


def left_by_layer(table: pd.DataFrame, total: Mapping[str, int]) -> Figure:
    """How many parameters are left in each layer: a row per method, a column per layer.

    `table` [methods, layers] counts them, `total` says how many a layer has. Colours are shares on
    a logarithmic scale: a layer that is cut to nothing is white.
    """
    shares = 100 * table / pd.Series(total)
    heads = [f"{layer}\nof {total[layer]:,}" for layer in table.columns]
    with draw_panels(size=(WIDTH, 1.6 + 0.36 * len(table))) as (figure, axes):
        ax = axes[0, 0]
        sns.heatmap(
            np.log10(shares.clip(lower=0.1)), annot=table.round(0).astype(int), fmt=",d", ax=ax,
            cmap=SHARE_COLOURS, vmin=-1, vmax=2, linewidths=0.5, annot_kws={"fontsize": 9},
            cbar_kws={"label": "Share that is left (%)", "ticks": [-1, 0, 1, 2]},
        )  # fmt: skip
        figure.axes[-1].set_yticklabels(["0.1", "1", "10", "100"])
        ax.set_xticklabels(heads, rotation=0)
        ax.set_yticklabels(table.index, rotation=0)
        ax.set(xlabel="", ylabel="")
    return figure


def mask_pictures(masks: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Which weights are left (dark), layer by layer: a column per network, a row per layer.

    `masks` maps a network's name to a layer's name to bool [out, in]. The long side lies across.
    """
    layers = list(next(iter(masks.values())))
    with draw_panels(len(layers), len(masks), size=(WIDTH, 0.6 + 1.15 * len(layers))) as (
        figure,
        axes,
    ):
        for line, layer in zip(axes, layers, strict=True):
            for ax, found in zip(line, masks.values(), strict=True):
                keep = found[layer]
                across = keep if keep.shape[0] <= keep.shape[1] else keep.T
                order = np.argsort(-across.sum(1), kind="stable")  # the fullest first
                rows = across[order]
                # wide layers have more weights than the picture has dots: a dot is their share
                step = max(1, -(-rows.shape[1] // 250))
                padded = np.pad(rows.astype(float), ((0, 0), (0, -rows.shape[1] % step)))
                dots = padded.reshape(len(rows), -1, step).mean(2)
                ax.imshow(dots, cmap="Greys", vmin=0, vmax=max(dots.max(), 0.01), aspect="auto",
                          interpolation="nearest")  # fmt: skip
                ax.set(xticks=[], yticks=[])
                ax.grid(False)
                ax.spines[:].set_visible(True)
                used = np.count_nonzero(across.any(1))
                words = f"{keep.sum():,} of {keep.size:,} weights, {used} of {len(across)} units"
                ax.set_title(words, fontsize=9)
            line[0].set_ylabel(layer, rotation=0, ha="right", va="center")
        for ax, name in zip(axes[0], masks, strict=True):
            ax.set_title(f"{name}\n{ax.get_title()}", fontsize=9)
    return figure
