"""The paper's figures as numbers, and beside each what a study's runs give for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evoae.experiment import SETTINGS, Experiment
from evoae.study.analysis import statistics
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study

SIZES = {"epochs", "cells", "clusters", "bits", "examples"}
WHEN = {"schedule", "probability"}
PAPER = ("1000 bits, 400 epochs", "1000 bits, 10 cells, 400 epochs")
USUAL = {"schedule": "none", "model": "standard", "loss": "l1"}  # what a label leaves out
NAMES = ["label", "algorithm", "model", "loss", "operator", "schedule", "epoch", "metric"]


def name_of(row: Any) -> dict[str, Any]:
    """What a published row is about, and a label for a figure."""
    about = {name: getattr(row, name) for name in NAMES[1:]}
    unusual = [about[name] for name, usual in USUAL.items() if about[name] != usual]
    label = " ".join([row.algorithm, row.operator, *unusual])
    return {"label": f"{label}, epoch {row.epoch}"} | about


def size(run: Run) -> tuple[bool, int, int, int]:
    """Which of several runs is the best measured: the paper's data, trials, epochs, cells."""
    papers = run.setting("bits") == 1000 and run.setting("clusters") == 10
    return papers, len(run.numbers), run.setting("epochs"), run.setting("cells")


def dimensions(run: Run) -> str:
    """How large a run is, in words."""
    names = ["bits", "cells", "epochs"] if run.setting("cells") > 1 else ["bits", "epochs"]
    usual = {name: SETTINGS[name].default for name in ("clusters", "examples")}
    names = [*(k for k, default in usual.items() if run.setting(k) != default), *names]
    return ", ".join(f"{run.setting(name)} {name}" for name in names)


def epoch_of(published_epoch: int, epochs: int) -> int:
    """The epoch of a run at the same share as one of the paper's 400."""
    return epochs - 1 if published_epoch == 399 else published_epoch * epochs // 400


def measured(run: Run, row: Any) -> dict[str, Any]:
    """A published value, and that of the same metric in a run with its interval."""
    rows = run.history[run.history.epoch == epoch_of(row.epoch, run.setting("epochs"))]
    median = row.metric.endswith("_median")
    if row.metric == "preserved_at_last_prune_median":
        zeros = rows.encoder_zeros_at_last_prune + rows.decoder_zeros_at_last_prune
        values = 1 - zeros / run.population.parameters
    else:
        values = rows.train_l1
    # one value a trial: cells of a trial are not independent of each other
    cells = values.groupby(rows.trial)
    if median:
        here, centre = float(np.median(values)), statistics.shift(cells.median())
        low, high = centre.low, centre.high
    else:
        here, (low, high) = float(np.mean(values)), statistics.mean_interval(cells.mean())
    sizes = {name: run.setting(name) for name in ("bits", "cells", "epochs")}
    sizes["size"] = dimensions(run)
    steps = run.result["model_steps"] / len(run.trials)
    found = {"published": row.value, "reproduced": here, "difference": here - row.value}
    beside = {"low": low, "high": high, "trials": len(cells), "model_steps": steps}
    return found | beside | sizes


def published(*, epochs: int = 400, **filters: Any) -> pd.DataFrame:
    """The paper's figures as numbers, read off with an error of about 0.003 in L1.

    Columns figure, algorithm, model, loss, operator, schedule, epoch, metric, value; a filter such
    as algorithm="canonical" keeps the rows that match. The paper's runs have 400 epochs; for a
    figure of shorter ones, `epochs` moves each value to the same share of the run.
    """
    table = pd.read_csv(Path(__file__).parent / "published_results.csv")
    for column, value in filters.items():
        table = table[table[column] == value]
    table = table.assign(epoch=[epoch_of(epoch, epochs) for epoch in table.epoch])
    return table.reset_index(drop=True)


def compare_with(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Published values beside a study's: a row for each that one of its runs matches, once.

    `table` has the columns of `published`. Epochs are matched by their share of the run.
    `reproduced` is the mean over trials (for medians the median over trials and cells), `low`
    and `high` its 95 % interval (Student's; for medians that of the trials' centre), `model_steps`
    the budget of a trial.
    """
    rows = []
    for row in table.drop_duplicates(NAMES[1:]).itertuples():  # some are in two figures
        schedule = {} if row.schedule == "none" else {"schedule": row.schedule}
        named = {"model": row.model, "loss": row.loss, "operator": row.operator}
        run = find(study, row.algorithm, **named, **schedule)
        if run is not None:
            rows.append(name_of(row) | measured(run, row))
            if dimensions(run) not in PAPER:
                rows[-1]["label"] += f" ({dimensions(run)})"
    columns = [*NAMES, "published", "reproduced", "difference", "low", "high", "trials"]
    return pd.DataFrame(rows, columns=[*columns, "model_steps", "bits", "cells", "epochs", "size"])


def find(study: Study, algorithm: str, *, as_released: bool = True, **settings: Any) -> Run | None:
    """The run of a preset with these settings, and all others as the preset has them.

    It may be of another size; of several sizes the best measured is taken.
    """
    return max(matching(study, algorithm, as_released, **settings), key=size, default=None)


def matching(study: Study, algorithm: str, as_released: bool = True, **settings: Any) -> list[Run]:
    """All runs of a preset with these settings, whatever their size.

    The schedule does not matter where nothing is pruned. "one cell" is one cell trained as
    coevolution does. A run whose settings were changed on the way is of none.
    """
    preset = "lipi-ae-s" if algorithm == "one cell" else algorithm
    # a schedule is checked at every epoch, and the number of epochs does not matter here
    wanted = Experiment.preset(preset, as_released=as_released, epochs=1, **settings).settings()
    ignored = SIZES | (WHEN if wanted["operator"] == "none" else set())
    ring = preset == "lipi-ae-s" and algorithm != "one cell"
    return [
        run
        for run in study.runs.values()
        if (run.setting("cells") > 1) == ring
        and not run.changes
        and all(run.setting(k) == v for k, v in wanted.items() if k not in ignored)
    ]


def summary(study: Study) -> pd.DataFrame:
    """The published values that runs of the paper's size stand beside, as in `results`.

    The columns of the published values, then `reproduced`, `low`, `high` (95 %) and `trials`.
    """
    table = published()
    papers = {label: run for label, run in study.runs.items() if dimensions(run) in PAPER}
    found = compare_with(Study(papers), table)
    values = found[[*NAMES[1:], "reproduced", "low", "high", "trials"]]
    return table.merge(values, on=NAMES[1:], how="inner")
