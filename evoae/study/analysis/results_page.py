"""RESULTS.md: what the full-size runs gave, written from the tables that the package keeps.

The text is in `results_page.md`; every number in it is read from a table of `results` or from a
setting, so that page and tables cannot disagree. `12_results` writes the page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evoae.experiment import SETTINGS
from evoae.study.analysis import blocks_page, claims, confounds, front_page, frontier_page, results
from evoae.study.analysis.findings import READ
from evoae.study.analysis.frontier_page import DEAD
from evoae.study.analysis.markdown import (
    by_method,
    by_place,
    estimates,
    number,
    of_frame,
    probability,
    share,
    table,
    with_interval,
)
from evoae.study.analysis.published import NAMES
from evoae.study.analysis.sentences import listed, raised
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


# -- what the text names -------------------------------------------------------------------------


def published_values() -> dict[str, Any]:
    """How far the published training losses are met, and those that are not."""
    found = results.reproduced()
    found = found[found.metric == "train_l1"].drop_duplicates(NAMES[1:])
    met = (found.low - READ <= found.value) & (found.value <= found.high + READ)
    difference = found.reproduced - found.value
    missed = found[~met].rename(
        columns={"algorithm": "training", "loss": "trained on", "value": "published"}
    )
    beyond = np.maximum(missed.low - missed.published, missed.published - missed.high) - READ
    missed["reproduced"] = estimates(missed, "reproduced", sign=False)
    missed["outside by"] = beyond.map("{:.4f}".format)
    columns = ["training", "operator", "schedule", "model", "trained on", "epoch"]
    return {
        "met": met.sum(),
        "losses": len(found),
        "published_trials": span(found.trials),
        "reading_error": READ,
        "difference": with_interval(difference.mean(), *mean_interval(difference), sign=True),
        "absolute": number(difference.abs().mean()),
        "largest": number(difference.abs().max()),
        "missed": of_frame(missed[[*columns, "published", "reproduced", "outside by"]]),
    }


def paper_claims() -> dict[str, Any]:
    """The verdicts in both readings, and every contrast behind them."""
    contrasts = results.contrasts()
    verdicts = claims.verdicts(contrasts)
    by_reading = verdicts.pivot(index=["claim", "text"], columns="reading", values="verdict")
    by_reading = by_reading[list(claims.READINGS)]
    run = contrasts[contrasts.says != "not run"]
    control = pd.Series(" (control)", run.index).where(run.role != "claim", "")
    tested = run.assign(b=run.b + control, trials=run.n.astype(int))
    tested["a – b"], tested["Holm's p"] = estimates(run, "shift"), run.p_holm.map(probability)
    columns = ["claim", "reading", "a", "b", "trials", "mean a", "mean b", "a – b", "Holm's p"]
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
        "contrasts": of_frame(tested[[*columns, "says"]]),
    }


def parts_of_gap() -> dict[str, Any]:
    """The gap's parts, cells alone and in a ring, restarts, pruning of one dose, tuning."""
    parts, flat, timing, below, tuned, rings = ([] for _ in range(6))
    both = pd.concat([results.design("gap", dataset) for dataset in DATASETS])
    for dataset, crossed in both.groupby("dataset"):
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
            parts.append([dataset, pruning, *estimates(part.loc[order], "value")])
        rates = (crossed.optimiser == "adam-per-batch") & (crossed.rate_policy == "mutated")
        here = crossed[rates & (crossed.pruning == "random")].groupby("place")
        mean, best = (here[name].mean().map(number) for name in ("train_l1", "test_l1"))
        rings.append(
            f"On {dataset} the training loss, averaged over cells, is {mean.isolated} in isolated "
            f"cells and {mean.ring} in the ring; the best cell's test loss is {best.isolated} and "
            f"{best.ring}."
        )
        rows, counts = timing_of(dataset)
        timing.append(rows)
        below.append([dataset, *counts])
        settings = confounds.best_rate(results.design("tuning", dataset))
        best = settings.iloc[0]
        tuned.append(
            f"On {dataset} the lowest validation loss is {number(best['mean'])} ({best.optimiser}, "
            f"{best.rate_policy}, {best.loss}, learning rate {best.learning_rate:g}). "
            f"This is optimistic: it is the lowest of {len(settings)} settings on the data that "
            "they were chosen on."
        )
        if dataset == DATASETS[0]:
            gap, seeds = shapley["none"].value, crossed.data_seed.nunique()
    named = {"dataset": "data", "pruning": "pruned by", "rate_policy": "rates"}
    trained = ["dataset", "pruning", "optimiser", "rate_policy"]
    head = ["data", "pruned by", "whole gap", "optimiser", "rates", "neighbours", "selection"]
    return {
        "data_seeds": seeds,
        "gap": number(gap["whole gap"], sign=True),
        "gap_of_rates": number(gap["optimiser"] + gap["rate_policy"], sign=True),
        "gap_of_population": number(gap["neighbours"] + gap["selection"], sign=True),
        "random_in_a_ring": " ".join(rings),
        "parts": table(head, parts),
        "no_gap": " ".join(flat),
        "arrangements": of_frame(
            by_place(both, trained, confounds.ARRANGEMENTS).rename(columns=named)
        ),
        "restarts": of_frame(pd.concat(map(restarts_of, DATASETS))),
        "timing": of_frame(pd.concat(timing)),
        "below_noise": table(["data", *confounds.WHEN], below),
        "tuned": "\n".join(tuned),
    }


def restarts_of(dataset: str) -> pd.DataFrame:
    """Design C: rings and as many isolated cells, by the number of cells."""
    found = results.design("populations", dataset)
    tests = confounds.against_restarts(found)
    lower = tests["a lower in"].astype(str) + " of " + tests["n"].astype(str)
    tests = tests[["cells"]].assign(data=dataset, **{"ring better in": lower})
    rows = by_place(found, ["cells"], ["isolated", "ring"]).rename(columns={"isolated": "restarts"})
    return rows.merge(tests)[["data", "cells", "restarts", "ring", "ring better in"]]


def timing_of(dataset: str) -> tuple[pd.DataFrame, list[str]]:
    """Design B: means by operator and time, the test of each operator's times, and in how many data
    seeds random pruning ends below noise, by time.
    """
    timed = results.design("timing", dataset)
    means = timed.groupby(["operator", "when"]).train_l1.mean().unstack()
    rows = means.loc[means.mean(axis=1).sort_values().index].assign(data=dataset)
    tested = confounds.when_matters(timed).set_index("operator").p_holm
    rows["Holm's p"] = tested.reindex(rows.index).map(probability)
    noise = confounds.against_noise(timed).set_index("when").loc[list(confounds.WHEN)]
    counts = [f"{row['a lower in']} of {row['n']}" for _, row in noise.iterrows()]
    columns = ["data", "operator", *confounds.WHEN, "never", "Holm's p"]
    return rows.reset_index()[columns], counts


def frontier() -> dict[str, Any]:
    """The front: the lowest, recipes and baselines, the paper's operators, and sizes."""
    front = results.front()
    targets = front.groupby("target").dataset.nunique()
    target = targets[targets == front.dataset.nunique()].index.max()  # that all data sets have
    here = front[front.target == target]
    best = here.loc[here.groupby("dataset")["mean"].idxmin()]
    lowest = [
        f"{number(mean)} on {dataset} (`{method}`)"
        for dataset, method, mean in best[["dataset", "method", "mean"]].itertuples(index=False)
    ]
    losses = {(r.dataset, r.target, r.method): loss_of(r) for _, r in front.iterrows()}
    constants = front.groupby("dataset", sort=False).constant_test_l1.mean()
    sizes = [
        (row.dataset, f"`{row.method}`", f"{row.macs:,.0f}", f"{row.compact_parameters:,.0f}")
        for row in here[here.method.isin(RECIPES)].itertuples()
    ]
    alive = here[here.method.isin(RECIPES) & (here.macs > 0) & (here.high < here.constant_test_l1)]
    least = alive.loc[alive.groupby("dataset").compact_parameters.idxmin()]
    smallest = [f"`{row.method}` on {row.dataset}" for row in least.itertuples()]
    found = earlier(front)
    head = ["data", "method", "multiply-accumulates", "compacted parameters"]
    return {
        "target": share(target),
        "lowest": listed(lowest),
        "front_trials": span(front.n),
        "steps": f"{front.steps.median():,.0f}",
        "front_constants": listed([f"{number(v)} on {name}" for name, v in constants.items()]),
        "dead": DEAD,
        "recipes": by_method(losses, RECIPES),
        "operators": by_method(losses, OPERATORS),
        "operators_found": found,
        "operators_found_here": raised(found),
        "sizes": table(head, sizes),
        "smallest": f"Of the methods that beat the constant, the smallest is {listed(smallest)}.",
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
    return (
        f"in {len(lower) or 'none'} of the {len(means)} settings in which one of them beats the "
        "constant, `conjunctive` has a lower mean loss than `random`"
        + (f": {listed(where)}." if where else ".")
    )


def loss_of(row: pd.Series) -> str:
    """A mean with its interval, marked if the method does not beat the constant."""
    dead = row.high >= row.constant_test_l1 or row.macs == 0
    return with_interval(row["mean"], row.low, row.high) + (f" {DEAD}" if dead else "")
