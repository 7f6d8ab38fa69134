"""What was found, in sentences made from the numbers: each with its number and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from evoae.study.analysis import claims, confounds, statistics
from evoae.study.analysis.published import PAPER
from evoae.study.analysis.statistics import LEAST, LEVEL
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

READ = 0.003  # error of reading a published figure, in L1
MOST = 4  # comparisons that a sentence lists; of more it counts


@dataclass(frozen=True)
class Finding:
    """A sentence, its heading, and the name of the figure that shows it."""

    heading: str
    text: str
    figure: str


def shifted(row: Any) -> str:
    """A shift with its interval, if it has one."""
    if np.isnan(row.low):
        return f"{row.shift:+.3f}"
    return f"{row.shift:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"


def told_apart(row: Any) -> str:
    """A row of `statistics.compare` in words."""
    if row.p_holm >= LEVEL:
        return "not told apart"
    return "lower" if row.shift < 0 else "higher"


# -- the answer of a notebook --------------------------------------------------------------------


def against(table: pd.DataFrame, value: str) -> str:
    """What a table of `statistics.compare` with a baseline says of `value`, in a sentence."""
    baseline, n = table["b"].iloc[0], table["n"].max()
    if table["n"].min() < LEAST:
        means = table.drop_duplicates("a").set_index("a")["mean a"]
        return (
            f"With {n} trials nothing is tested. The lowest mean {value} is that of "
            f"{means.idxmin()}, {means.min():.3f}; {baseline} has {table['mean b'].mean():.3f}."
        )
    rows = list(table.itertuples())
    best = min(rows, key=lambda row: row.shift)
    if n < (enough := statistics.least(len(rows))):
        return (
            f"{n} trials cannot tell {len(rows)} settings from {baseline} ({enough} can); lowest "
            f"in {value} is {best.a}, {shifted(best)}."
        )
    if len(rows) > MOST:
        said = [told_apart(row) for row in rows]
        return (
            f"Of {len(rows)} settings {said.count('lower')} have a lower {value} than {baseline}, "
            f"{said.count('higher')} a higher one; lowest is {best.a}, {shifted(best)} "
            f"({n} trials, paired, Holm)."
        )
    words = [f"{row.a} is {told_apart(row)}, {shifted(row)}" for row in rows]
    return f"Against {baseline}, {value}: {'; '.join(words)} ({n} trials, paired, Holm)."


def removal(table: pd.DataFrame) -> pd.DataFrame:
    """Is an operator's prune worse than as many weights at random? A paired test per operator.

    `table` is that of `inspection.change_of_loss`, of one kind of run. A row per operator, as of
    `statistics.compare`: a is the operator's prune, b the same sizes shuffled; with the mean share
    that it `removed`.
    """
    rows = []
    for name, group in table.groupby("operator", sort=False):
        trials = group.set_index("trial")
        found = statistics.paired(trials.change, trials.change_by_chance)
        rows.append({"a": name, "b": "as many at random", "removed": group.removed.mean()} | found)
    found = pd.DataFrame(rows)
    return found.assign(p_holm=statistics.holm(found["p"]))


# -- the sentences of the report -----------------------------------------------------------------


def of_report(study: Study, compared: pd.DataFrame, side_by_side: pd.DataFrame) -> list[Finding]:
    """Ten sentences: what was reproduced, the seven claims, the gap's parts, the front."""
    found = [reproduced(side_by_side)]
    table = claims.verdicts(compared).set_index(["claim", "reading"])
    for claim in claims.CLAIMS:
        found.append(on_claim(claim, table.loc[claim.number], compared))
    return [*found, gap(study), on_front(study)]


def reproduced(side_by_side: pd.DataFrame) -> Finding:
    """How many published losses are met by runs of the paper's size."""
    losses = side_by_side[side_by_side.metric.str.startswith("train_l1")]
    papers = losses[losses["size"].isin(PAPER) & (losses.trials >= LEAST)]
    if papers.empty:
        text = (
            f"No run is of the paper's size with {LEAST} trials or more: nothing is shown here "
            f"({len(losses)} published losses have a smaller run beside them)"
        )
        return Finding("No evidence", f"{text}.", "published-loss")
    met = (papers.low - READ <= papers.published) & (papers.published <= papers.high + READ)
    mean, (low, high) = papers.difference.mean(), statistics.mean_interval(papers.difference)
    text = (
        f"{met.sum()} of {len(papers)} published losses lie within the 95 % interval and the "
        f"error of reading a figure, {READ}; the mean difference is {mean:+.3f} "
        f"[{low:+.3f}, {high:+.3f}], the mean absolute one {papers.difference.abs().mean():.3f}"
    )
    return Finding("Reproduced", f"{text}.", "published-loss")


def on_claim(claim: claims.Claim, verdict: pd.DataFrame, compared: pd.DataFrame) -> Finding:
    """The verdict on a claim, with the contrast that decides it."""
    here = compared[(compared.claim == claim.number) & (compared.role == "claim")]
    here = here[(here.reading == "as released") & (here.says != "not run")]
    text = claim.text
    if len(here):
        # one contrast is enough, or all are needed: the clearest, or the least clear
        order = here.sort_values("p_holm" if here.p_holm.notna().any() else "shift")
        row = next(order.iloc[[0 if claim.needs == "any" else -1]].itertuples())
        numbers = f"{row.a} – {row.b}: {shifted(row)}"
        text += f" {numbers} (n {int(row.n)})."
    intended = verdict.verdict["as intended"]
    text += f" As the text reads: {intended}." if not intended.endswith("not run") else ""
    return Finding(f"Claim {claim.number}, {verdict.verdict['as released']}", text, "claims")


def gap(study: Study) -> Finding:
    """What of the gap between training alone and coevolved one cell has, too."""
    rows = {
        "whole": claims.contrast(claims.coevolved(), claims.canonical()),
        "one": claims.contrast(claims.Which("one cell"), claims.canonical()),
        "ring": claims.contrast(claims.coevolved(), claims.Which("one cell")),
    }
    found = {name: claims.measured(one, study, as_released=True) for name, one in rows.items()}
    if not all(found.values()):
        text = "Not run: it needs training alone, one cell, and the ring."
        return Finding("The gap of claim 7", text, "claims")
    whole, one, ring = (shifted(SimpleNamespace(**found[name])) for name in rows)
    text = (
        f"Coevolved – alone is {whole}: one cell with the ring's optimiser and rates has {one}; "
        f"neighbours and selection add {ring}. {apart(study)}"
    )
    return Finding("The gap of claim 7", text, "claims")


def apart(study: Study) -> str:
    """What optimiser, rates, neighbours and selection have of the gap, if design A was run."""
    sizes: dict[tuple, dict[str, Run]] = {}
    for label, run in study.only(dataset="binary-clusters", operator="none").runs.items():
        if run.setting("data_seed") is not None and run.setting("cells") > 1:
            size = tuple(run.setting(name) for name in ("bits", "clusters", "epochs", "cells"))
            sizes.setdefault(size, {})[label] = run
    for size in sorted(sizes, reverse=True):
        try:
            parts = confounds.parts_of_gap(confounds.table_of(Study(sizes[size])))
        except ValueError:  # a corner is missing
            continue
        words = [f"{row.factor.replace('_', ' ')} {row.value:+.3f}" for row in parts.itertuples()]
        return f"Apart, at {size[2]} epochs and {size[3]} cells: {', '.join(words)}."
    return "Optimiser and rates apart: not run (08_confounds)."


def on_front(study: Study) -> Finding:
    """Where the front of means runs, chosen on validation and reported on test."""
    results = papers_data(study).results
    means = statistics.front(results, ["label", "operator"])
    chosen = means[means.on_front & (means.test_l1 < results.constant_test_l1.mean())]
    if chosen.empty:
        text = "No setting's mean is better than the constant predictor on test data."
        return Finding("The front", text, "sparsity")
    ends = []
    for row in chosen.sort_values("sparsity").iloc[[0, -1]].itertuples():
        low, high = statistics.mean_interval(results[results.label == row.label].test_l1)
        interval = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        ends.append(f"{row.test_l1:.3f}{interval} at {row.sparsity:.1%} ({row.operator})")
    counts = chosen.operator.value_counts().items()
    text = (
        f"Of {len(means)} settings {len(chosen)} are on it and better than a constant "
        f"({', '.join(f'{count} {name}' for name, count in counts)}); mean test loss from "
        f"{ends[0]} to {ends[-1]} sparsity."
    )
    return Finding("The front", text, "sparsity")


def papers_data(study: Study) -> Study:
    """The runs on the paper's data and loss, as released; all runs if there are none."""
    like = {"dataset": "binary-clusters", "loss": "l1", "as_released": True}
    found = study.only(**like, centroid_density=0.75).runs
    return Study(found or study.runs)


def claims_map(compared: pd.DataFrame) -> pd.DataFrame:
    """Each claim with its verdicts, its figure, and the command that makes its runs."""
    table = claims.verdicts(compared).set_index(["claim", "reading"]).verdict
    rows = [
        {
            "claim": f"{claim.number}. {claim.text}",
            **{reading: table[claim.number, reading] for reading in claims.READINGS},
            "figure": "claims",
            "command": f"evoae reproduce {' '.join(claim.made_by)} --scale paper",
        }
        for claim in claims.CLAIMS
    ]
    return pd.DataFrame(rows)
