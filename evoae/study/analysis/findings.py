"""What was found, in sentences made from the numbers: each with its number and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

from evoae.experiment import SETTINGS
from evoae.study.analysis import claims, confounds, statistics
from evoae.study.analysis.published import PAPER
from evoae.study.analysis.sentences import NAMES, count, decimals, difference, interval, raised
from evoae.study.analysis.statistics import LEAST
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

READ = 0.003  # error of reading a published figure, in L1


@dataclass(frozen=True)
class Finding:
    """A sentence, its heading, and the name of the figure that shows it."""

    heading: str
    text: str
    figure: str


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
            f"No run has the paper's size and {count(LEAST, 'trial')} or more, so nothing is "
            f"reproduced here; {count(len(losses), 'published loss')} stand beside a smaller run"
        )
        return Finding("No evidence", f"{text}.", "published-loss")
    met = (papers.low - READ <= papers.published) & (papers.published <= papers.high + READ)
    rest = len(papers) - met.sum()
    where = f"; the table lists {'the other ' if met.any() else ''}{count(rest)}" if rest else ""
    gaps, diverged = papers.difference, ""
    if not np.isfinite(gaps).all():
        diverged = f", without {count((~np.isfinite(gaps)).sum(), 'run')} that diverged"
        gaps = gaps[np.isfinite(gaps)]
    text = (
        f"{met.sum()} of {len(papers)} published losses fall within our 95 % interval, widened by "
        f"the {READ} with which a figure is read{where}."
    )
    if len(gaps):
        text += (
            f" The mean difference is {decimals(gaps.mean(), signed=True)}"
            f"{interval(*statistics.mean_interval(gaps), signed=True)}, "
            f"its mean size {decimals(gaps.abs().mean())}{diverged}."
        )
    return Finding("Reproduced", text, "published-loss")


def on_claim(claim: claims.Claim, verdict: pd.DataFrame, compared: pd.DataFrame) -> Finding:
    """The verdict on a claim, with the contrast that decides it."""
    here = compared[(compared.claim == claim.number) & (compared.role == "claim")]
    here = here[(here.reading == "as released") & (here.says != "not run")]
    text = claim.text
    if len(here):
        # one contrast is enough, or all are needed: the clearest, or the least clear
        order = here.sort_values("p_holm" if here.p_holm.notna().any() else "shift")
        row = next(order.iloc[[0 if claim.needs == "any" else -1]].itertuples())
        which = "The decisive comparison" if len(here) > 1 else "The comparison"
        sides = claims.IN_WORDS[row.a, row.b]
        text += f" {which}: {difference(row, *sides, 'training loss')}, in "
        text += f"{count(int(row.n), 'trial')}."
    intended = verdict.verdict["as intended"]
    if not intended.endswith("not run"):
        text += f" With the settings that the paper's text intends: {intended}."
    return Finding(f"Claim {claim.number}, {verdict.verdict['as released']}", text, "claims")


def gap(study: Study) -> Finding:
    """What of the gap between training alone and coevolved one cell has, too."""
    contrasts = {
        ("the ring", "training alone"): (claims.coevolved(), claims.canonical()),
        ("one cell with the ring's optimiser and rates", "training alone"): (
            claims.Which("one cell"),
            claims.canonical(),
        ),
        ("the ring", "one cell"): (claims.coevolved(), claims.Which("one cell")),
    }
    found = [claims.measured(claims.contrast(*pair), study, True) for pair in contrasts.values()]
    if not all(found):
        text = "Not run: it needs training alone, one cell, and the ring."
        return Finding("The gap of claim 7", text, "claims")
    said = [
        difference(SimpleNamespace(**one), *sides, "training loss")
        for sides, one in zip(contrasts, found, strict=True)
    ]
    return Finding("The gap of claim 7", f"{raised('; '.join(said))}. {apart(study)}", "claims")


def apart(study: Study) -> str:
    """What optimiser, rates, neighbours and selection have of the gap, if design A was run."""
    sizes: dict[tuple, dict[str, Run]] = {}
    crossed = {"optimiser", "rate_policy", "topology", "tournament_size"}
    rest = [name for name in SETTINGS if name not in crossed]
    for label, run in study.only(dataset="binary-clusters", operator="none").runs.items():
        if run.setting("cells") > 1 and run.setting("topology") in ("isolated", "ring"):
            size = tuple(run.setting(name) for name in ("bits", "clusters", "epochs", "cells"))
            alike = (*size, str([run.setting(name) for name in rest]))
            sizes.setdefault(alike, {})[label] = run
    for size in sorted(sizes, reverse=True):
        table = confounds.table_of(Study(sizes[size]))
        everywhere = table.groupby("data_seed").label.nunique() == len(sizes[size])
        table = table[table.data_seed.isin(everywhere[everywhere].index)]
        try:
            parts = confounds.parts_of_gap(table)
        except ValueError:  # a corner is missing
            continue
        return f"At {size[2]} epochs and {size[3]} cells, {confounds.parts_in_words(parts)}."
    return "Optimiser and rates were not separated: 08_confounds was not run."


def on_front(study: Study) -> Finding:
    """Where the front of means runs, chosen on validation and reported on test."""
    results = papers_data(study).results
    means = statistics.front(results, ["label", "operator"])
    chosen = means[means.on_front & (means.test_l1 < results.constant_test_l1.mean())]
    if chosen.empty:
        text = "No setting's mean is better than the constant predictor on test data."
        return Finding("The front", text, "sparsity")
    ends = []
    for row in chosen.sort_values("sparsity").itertuples():
        bounds = statistics.mean_interval(results[results.label == row.label].test_l1)
        loss = f"{decimals(row.test_l1)}{interval(*bounds)}"
        how = NAMES.get(row.operator, row.operator)
        zeros = f"{100 * row.sparsity:.1f} % zeros"
        ends.append(f"({how}, {zeros}) has a mean test loss of {loss}")
    counts = chosen.operator.value_counts().items()
    by_operator = ", ".join(f"{number} of {NAMES.get(name, name)}" for name, number in counts)
    text = (
        f"{raised(count(len(chosen)))} of {count(len(means), 'setting')} "
        f"{'is' if len(chosen) == 1 else 'are'} on the front and better than a constant "
        f"({by_operator}). "
    )
    if len(ends) == 1:
        return Finding("The front", f"{text}It {ends[0]}.", "sparsity")
    text += f"The densest {ends[0]}, the sparsest {ends[-1]}."
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
