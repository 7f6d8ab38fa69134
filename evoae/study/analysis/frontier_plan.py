"""Design F at its full size: its data, methods, sparsities and steps, fixed beforehand.

Each function runs one part on one data set and puts it into the tables that `results` keeps. Runs
that lie in the folder `out` are not run again, so a part may be interrupted, or grow by trials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from evoae.experiment import PRESETS
from evoae.study.analysis import front_page, front_ways, frontier, results
from evoae.study.analysis.frontier_page import FOUND
from evoae.study.runs import mask_controls
from evoae.study.runs.grids import Design
from evoae.study.runs.sweeps import sweep

METHODS = (
    *("frontier", "frontier-magnitude", "frontier-ring", "frontier-restarts"),
    *("magnitude", "obd", "taylor", "rigl", "imp", "soft", "lamp", "wanda"),
    *("random", "conjunctive", "dense", "dense-flat"),
)
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.92, 0.94, 0.96)
TUNING = range(1000, 1002)  # trials of the search


def front(dataset: str, trials: int, out: Path | str, **where: Any) -> None:
    """The search at both of its targets, and the first `trials` of every method and sparsity.

    Sparsities that would need more than the weights, of which biases are none, are left out.
    """
    steps, where = frontier.STEPS[dataset], {"out": out, **where}
    found = [
        frontier.search(METHODS, [dataset], steps, target, apart=TUNING, **where)
        for target in frontier.TUNED_AT
    ]
    tuned = pd.concat(found)
    results.update_front_tuning(tuned)
    e = frontier.at(dataset, PRESETS["frontier"].settings, frontier.PARTS_AT, steps)
    possible = [share for share in SPARSITIES if share < e.most_sparse - 0.01]
    study = frontier.compute(frontier.points(tuned, possible, steps), trials, **where)
    results.update_front_trials("front", frontier.trials(study))


def parts(dataset: str, trials: int, out: Path | str, **where: Any) -> None:
    """The ablation of the preset."""
    design = frontier.ablation([dataset], frontier.PARTS_AT, frontier.STEPS[dataset])
    study = frontier.compute(design, trials, out=out, **where)
    results.update_front_trials("parts", frontier.trials(study))


def masks(dataset: str, trials: int, out: Path | str, **where: Any) -> None:
    """The preset's masks, trained again."""
    e = frontier.at(
        dataset, PRESETS["frontier"].settings, frontier.PARTS_AT, frontier.STEPS[dataset]
    )
    found = sweep({FOUND: e}, trials, out=out, **where).runs[FOUND]
    again = {FOUND: e} | mask_controls.controls(found, Path(out) / "starts")
    design = Design(again, {name: {"dataset": dataset, "method": name} for name in again})
    study = frontier.compute(design, trials, out=out, **where)
    results.update_front_trials("masks", frontier.trials(study))


def ways(dataset: str, steps: int, trials: int, out: Path | str, **where: Any) -> None:
    """Whole fronts, found in every way of `front_ways`, for so many steps."""
    for way in front_ways.WAYS:
        sizes = front_page.SPARSITIES
        table, _ = front_ways.study([dataset], [way], sizes, [steps], trials, 1, out=out, **where)
        results.update_front_of_ways(table)
