"""RESULTS.md: what the full-size runs gave, written from the tables that the package keeps.

The text is in `results_page.md`; every number in it is read from a table of `results` or from a
setting, so that page and tables cannot disagree. `12_results` writes the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from evoae.experiment import SETTINGS
from evoae.study.analysis import blocks_page, claims, confounds, front_page, frontier_page, results
from evoae.study.analysis.findings import READ
from evoae.study.analysis.frontier_page import DEAD, probability
from evoae.study.analysis.markdown import number, share, table, with_interval
from evoae.study.analysis.published import NAMES
from evoae.study.analysis.sentences import listed
from evoae.study.analysis.statistics import mean_interval

TEXT = Path(__file__).with_suffix(".md")
DATASETS = ("binary-clusters", "digits")  # of the designs
RECIPES = (
    *("frontier", "frontier-ring", "frontier-magnitude", "obd", "taylor", "rigl"),
    *("lamp", "wanda", "magnitude"),
)
OPERATORS = ("random", "conjunctive", "variance-high", "variance-low", "magnitude", "dense")
UNCHANGED = 0.0005  # a gap that three decimals do not show


def page() -> str:
    """The whole page, in Markdown."""
    values = published_values() | paper_claims() | parts_of_gap() | frontier()
    values |= blocks_page.values() | frontier_page.values() | front_page.values()
    text = TEXT.read_text(encoding="utf-8").format_map(values)
    return re.sub(r"\n{3,}", "\n\n", text)  # of paragraphs that have nothing to say


# -- small pieces --------------------------------------------------------------------------------


def span(counts: pd.Series) -> str:
    """The smallest and the largest of some counts: "10", or "15 to 30"."""
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def both(means: pd.DataFrame, arrangement: str) -> str:
    """The mean over cells and the best cell of one arrangement; a dash for none."""
    if arrangement not in means.index:
        return "–"
    return f"{number(means.train_l1[arrangement])} / {number(means.test_l1[arrangement])}"


# -- what the text names -------------------------------------------------------------------------


def published_values() -> dict[str, Any]:
    """How far the published training losses are met, and those that are not."""
    found = results.reproduced()
    found = found[found.metric == "train_l1"].drop_duplicates(NAMES[1:])
    met = (found.low - READ <= found.value) & (found.value <= found.high + READ)
    difference = found.reproduced - found.value
    names = ["algorithm", "operator", "schedule", "model", "loss", "epoch"]
    missed = [
        [row[name] for name in names]
        + [number(row["value"]), with_interval(row["reproduced"], row["low"], row["high"])]
        for row in found[~met].to_dict("records")
    ]
    header = ["training", "operator", "schedule", "model", "trained on", "epoch"]
    return {
        "met": met.sum(),
        "losses": len(found),
        "published_trials": span(found.trials),
        "reading_error": READ,
        "difference": with_interval(difference.mean(), *mean_interval(difference), sign=True),
        "absolute": number(difference.abs().mean()),
        "largest": number(difference.abs().max()),
        "missed": table([*header, "published", "reproduced"], missed),
    }


def paper_claims() -> dict[str, Any]:
    """The verdicts in both readings, and every contrast behind them."""
    contrasts = results.contrasts()
    verdicts = claims.verdicts(contrasts)
    by_reading = verdicts.pivot(index=["claim", "text"], columns="reading", values="verdict")
    by_reading = by_reading[list(claims.READINGS)]
    tested = [
        [
            *(row["claim"], row["reading"], row["a"]),
            row["b"] + (" (control)" if row["role"] != "claim" else ""),
            *(int(row["n"]), number(row["mean a"]), number(row["mean b"])),
            with_interval(row["shift"], row["low"], row["high"], sign=True),
            probability(row["p_holm"]),
            row["says"],
        ]
        for row in contrasts[contrasts.says != "not run"].to_dict("records")
    ]
    header = ["claim", "reading", "a", "b", "trials", "mean a", "mean b", "a – b", "Holm's p"]
    constants = contrasts.groupby("reading").constant.mean()
    judged = [(f"{row[0][0]}. {row[0][1]}", *row[1:]) for row in by_reading.itertuples(name=None)]
    return {
        "claim_margin": claims.MARGIN,
        "claim_trials": span(contrasts.n.dropna()),
        "dose": share(SETTINGS["amount"].default),
        "claims": len(claims.CLAIMS),
        "differing": (by_reading.nunique(axis=1) > 1).sum(),
        "constant_released": number(constants["as released"]),
        "constant_intended": number(constants["as intended"]),
        "noise": SETTINGS["noise"].default,
        "family": claims.FAMILY,
        "verdicts": table(["claim", *by_reading], judged),
        "contrasts": table([*header, "says"], tested),
    }


def parts_of_gap() -> dict[str, Any]:
    """The gap's parts, cells alone and in a ring, restarts, pruning of one dose, tuning."""
    parts, flat, arrangements, restarts, timing, below, tuned, rings = ([] for _ in range(8))
    for dataset in DATASETS:
        crossed = results.design("gap", dataset)
        shapley = {
            pruning: rows.set_index("factor")
            for pruning, rows in confounds.parts_of_gap(crossed).groupby("pruning", sort=False)
        }
        for pruning, part in shapley.items():
            if abs(part.value["whole gap"]) < UNCHANGED:
                ends = crossed[crossed.pruning == pruning].train_l1
                flat.append(
                    f"On {dataset}, with pruning by {pruning}, there is no gap to divide: the "
                    f"lowest loss of all {len(ends)} runs is {number(ends.min())}."
                )
                continue
            order = ["whole gap", "optimiser", "rate_policy", "neighbours", "selection"]
            words = [
                with_interval(row.value, row.low, row.high, sign=True)
                for row in part.loc[order].itertuples()
            ]
            parts.append([dataset, pruning, *words])
        means = crossed.groupby(["pruning", "optimiser", "rate_policy", "place"])
        means = means[["train_l1", "test_l1"]].mean()
        for keys in dict.fromkeys(key[:3] for key in means.index):
            each = [both(means.loc[keys], name) for name in confounds.ARRANGEMENTS]
            arrangements.append([dataset, *keys, *each])
        at_rates = means.loc[("random", "adam-per-batch", "mutated")].map(number)
        alone, ring = (at_rates.loc[name] for name in ("isolated", "ring"))
        rings.append(
            f"On {dataset} the mean is {alone.train_l1} in isolated cells and {ring.train_l1} in "
            f"the ring; the best cell has {alone.test_l1} and {ring.test_l1}."
        )
        restarts += restarts_of(dataset)
        rows, counts = timing_of(dataset)
        timing += rows
        below.append(counts)
        settings = confounds.best_rate(results.design("tuning", dataset))
        best = settings.iloc[0]
        tuned.append(
            f"On {dataset} the lowest validation loss is {number(best['mean'])} ({best.optimiser}, "
            f"{best.rate_policy}, {best.loss}, learning rate {best.learning_rate:g}). It is the "
            f"minimum of {len(settings)} settings on the data that chose it."
        )
        if dataset == DATASETS[0]:
            gap, seeds = shapley["none"].value, crossed.data_seed.nunique()
    trained = ["data", "pruned by", "optimiser", "rates"]
    head = ["data", "pruned by", "whole gap", "optimiser", "rates", "neighbours", "selection"]
    return {
        "data_seeds": seeds,
        "gap": number(gap["whole gap"], sign=True),
        "gap_of_rates": number(gap["optimiser"] + gap["rate_policy"], sign=True),
        "gap_of_population": number(gap["neighbours"] + gap["selection"], sign=True),
        "random_in_a_ring": " ".join(rings),
        "parts": table(head, parts),
        "no_gap": " ".join(flat),
        "arrangements": table([*trained, *confounds.ARRANGEMENTS], arrangements),
        "restarts": table(["data", "cells", "restarts", "ring", "ring better in"], restarts),
        "timing": table(["data", "operator", *confounds.WHEN, "never", "Holm's p"], timing),
        "below_noise": "; ".join(below),
        "tuned": "\n".join(tuned),
    }


def restarts_of(dataset: str) -> list[list[Any]]:
    """Design C: rings and as many isolated cells, by the number of cells."""
    rows = []
    for cells, group in results.design("populations", dataset).groupby("cells"):
        seeds = group.groupby(["place", "data_seed"])[["train_l1", "test_l1"]].mean()
        if "ring" in set(group.place):
            lower = seeds.loc["ring"].test_l1 < seeds.loc["isolated"].test_l1
            means = seeds.groupby("place").mean()
            count = f"{lower.sum()} of {len(lower)}"
            rows.append([dataset, cells, both(means, "isolated"), both(means, "ring"), count])
    return rows


def timing_of(dataset: str) -> tuple[list[list[Any]], str]:
    """Design B: means by operator and time, the test of each operator's times, and where random
    pruning ends below noise.
    """
    timed = results.design("timing", dataset)
    means = timed.groupby(["operator", "when"]).train_l1.mean().unstack()
    tested = confounds.when_matters(timed).set_index("operator").p_holm
    rows = [
        [
            *(dataset, operator),
            *(number(means[when][operator]) for when in (*confounds.WHEN, "never")),
            probability(tested.get(operator, float("nan"))),
        ]
        for operator in means.mean(axis=1).sort_values().index
    ]
    seeds = timed.groupby(["operator", "when", "data_seed"]).train_l1.mean()
    lower = {when: seeds["random", when] < seeds["noise", when] for when in confounds.WHEN}
    counts = [f"{each.sum()} of {len(each)} ({when})" for when, each in lower.items()]
    return rows, f"on {dataset} in {listed(counts)}"


def frontier() -> dict[str, Any]:
    """The front: the lowest, recipes and baselines, the paper's operators, and sizes."""
    front = results.front()
    targets = front.groupby("target").dataset.nunique()
    target = targets[targets == front.dataset.nunique()].index.max()  # that all data sets have
    here = front[front.target == target]
    best = here.loc[here.groupby("dataset")["mean"].idxmin()]
    lowest = [
        f"{number(row['mean'])} on {row['dataset']} (`{row['method']}`)"
        for row in best.to_dict("records")
    ]
    constants = front.groupby("dataset", sort=False).constant_test_l1.mean()
    sizes = [
        (row.dataset, f"`{row.method}`", f"{row.macs:,.0f}", f"{row.compact_parameters:,.0f}")
        for row in here[here.method.isin(RECIPES)].itertuples()
    ]
    head = ["data", "method", "multiply-accumulates", "compacted parameters"]
    return {
        "target": share(target),
        "lowest": listed(lowest),
        "front_trials": span(front.n),
        "steps": f"{front.steps.median():,.0f}",
        "front_constants": listed([f"{number(v)} on {name}" for name, v in constants.items()]),
        "dead": DEAD,
        "recipes": front_table(front, RECIPES),
        "operators": front_table(front, OPERATORS),
        "operators_found": earlier(front),
        "sizes": table(head, sizes),
    }


def earlier(front: pd.DataFrame) -> str:
    """Where conjunctive has a lower mean loss than random pruning, if one of them has learnt."""
    pair = front[front.method.isin(["conjunctive", "random"])]
    alive = pair[pair.high < pair.constant_test_l1].groupby(["dataset", "target"]).size()
    means = pair.pivot_table("mean", ["dataset", "target"], "method").dropna().round(3)
    means = means[means.index.isin(alive.index)]
    lower = means[means.conjunctive < means.random].reset_index()
    where = [
        f"{name} at {listed([share(each) for each in own.target])}"
        for name, own in lower.groupby("dataset")
    ]
    of = f"{len(lower)} of {len(means)} settings"
    words = f"in {of}, on {listed(where)}" if where else f"in none of {len(means)} settings"
    return (
        f"`conjunctive` has a lower mean loss than `random` {words}, of those in which one of them "
        "beats the constant."
    )


def front_table(front: pd.DataFrame, methods: Sequence[str]) -> str:
    """Mean test losses with intervals, a row per data set and target."""
    rows = []
    for (dataset, target), group in front.groupby(["dataset", "target"]):
        here = group.set_index("method")
        cells = [loss_of(here.loc[name]) if name in here.index else "–" for name in methods]
        rows.append([dataset, share(target), *cells])
    return table(["data", "zeros", *(f"`{name}`" for name in methods)], rows)


def loss_of(row: pd.Series) -> str:
    """A mean with its interval, marked if the method does not beat the constant."""
    dead = row.high >= row.constant_test_l1 or row.macs == 0
    return with_interval(row["mean"], row.low, row.high) + (f" {DEAD}" if dead else "")
