"""Finished runs side by side: their tables, and the published values beside them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evoae import statistics
from evoae.experiment import MEANING, Experiment
from evoae.runs import Run


@dataclass(frozen=True)
class Study:
    """Finished runs by label, and their tables side by side.

    `history` and `results` have a row per history row and per trial, with the columns `label`,
    `operator`, `schedule`, `algorithm`, `reading`, and every setting that differs between the runs.
    """

    runs: dict[str, Run]

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The settings that name or tell apart the runs, one row per label."""
        table = pd.DataFrame({k: r.config["experiment"] for k, r in self.runs.items()}).T
        always = ("operator", "schedule")
        keep = [c for c in table if c in always or table[c].astype(str).nunique() > 1]
        readings = table.as_released.map({True: "as released", False: "as intended"})
        algorithms = [run.algorithm for run in self.runs.values()]
        table = table[keep].infer_objects().assign(algorithm=algorithms, reading=readings)
        return table.rename_axis("label")

    def _table(self, parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        table = pd.concat(parts, names=["label"]).reset_index("label").reset_index(drop=True)
        # a setting named like a column (learning_rate, best_cell) becomes learning_rate_setting
        return table.merge(self.settings.reset_index(), on="label", suffixes=("", "_setting"))

    @cached_property
    def history(self) -> pd.DataFrame:
        return self._table({label: r.history for label, r in self.runs.items()})

    @cached_property
    def results(self) -> pd.DataFrame:
        return self._table({label: r.trials for label, r in self.runs.items()})

    @property
    def overview(self) -> pd.DataFrame:
        """One row per run: what it is, how large, and how fast it was computed."""
        rows = [
            {
                "run": label,
                "algorithm": run.algorithm,
                "trials": size(run)[1],
                "model steps": run.result["model_steps"],
                "steps per second": run.result["model_steps_per_second"],
                "engine": run.result["engine"],
                "train_l1": run.result["mean"]["train_l1"],
                "test_l1": run.result["mean"]["test_l1"],
            }
            for label, run in self.runs.items()
        ]
        return pd.DataFrame(rows).merge(
            self.settings.drop(columns="algorithm").reset_index(names="run"), on="run"
        )

    def only(self, **settings: Any) -> Study:
        """The runs with these settings."""
        runs = {
            label: run
            for label, run in self.runs.items()
            if all(run.setting(k) == v for k, v in settings.items())
        }
        return Study(runs)

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of weights and biases of an encoder and of a decoder."""
        encoder, decoder = next(iter(self.runs.values())).population.sides
        return encoder.parameters, decoder.parameters

    def references(self, split: str = "train") -> dict[str, float | None]:
        """Losses that say what a loss means: of the constant predictor, and the noise floor."""
        settings = [r.config["experiment"] for r in self.runs.values()]
        clustered = all(s["dataset"] == "binary-clusters" for s in settings)
        return {
            "constant": float(self.results[f"constant_{split}_l1"].mean()),
            "floor": float(np.mean([s["noise"] for s in settings])) if clustered else None,
        }

    def compare_with(self, table: pd.DataFrame) -> pd.DataFrame:
        """Published values beside this study's: a row for each that a run here matches, once.

        `table` has the columns of `published`. Epochs are matched by their share of the run.
        `reproduced` is the mean over trials (for medians the median over trials and cells), `low`
        and `high` its 95 % bootstrap interval.
        """
        rows = []
        for row in table.drop_duplicates(NAMES[1:]).itertuples():  # some are in two figures
            schedule = {} if row.schedule == "none" else {"schedule": row.schedule}
            named = {"model": row.model, "loss": row.loss, "operator": row.operator}
            run = self.find(row.algorithm, **named, **schedule)
            if run is not None:
                rows.append(name_of(row) | measured(run, row))
                if dimensions(run) not in PAPER:
                    rows[-1]["label"] += f" ({dimensions(run)})"
        columns = [*NAMES, "published", "reproduced", "difference", "low", "high", "trials"]
        return pd.DataFrame(rows, columns=[*columns, "bits", "cells", "epochs"])

    def find(self, algorithm: str, *, as_released: bool = True, **settings: Any) -> Run | None:
        """The run of a preset with these settings, and all others as the preset has them.

        It may be of another size; of several sizes the best measured is taken.
        """
        return max(self.matching(algorithm, as_released, **settings), key=size, default=None)

    def matching(self, algorithm: str, as_released: bool = True, **settings: Any) -> list[Run]:
        """All runs of a preset with these settings, whatever their size.

        The schedule does not matter where nothing is pruned. "one cell" is one cell trained as
        coevolution does.
        """
        preset = "lipi-ae-s" if algorithm == "one cell" else algorithm
        wanted = Experiment.preset(preset, as_released=as_released, **settings).settings()
        ignored = SIZES | (WHEN if wanted["operator"] == "none" else set())
        return [
            run
            for run in self.runs.values()
            if run.algorithm == algorithm
            and all(run.setting(k) == v for k, v in wanted.items() if k not in ignored)
        ]


SIZES = {"epochs", "cells", "clusters", "bits", "examples"}
WHEN = {"schedule", "probability"}
PAPER = ("1000 bits, 400 epochs", "1000 bits, 10 cells, 400 epochs")
NAMES = ["label", "algorithm", "model", "loss", "operator", "schedule", "epoch", "metric"]


def name_of(row: Any) -> dict[str, Any]:
    """What a published row is about, and a label for a figure."""
    words = [row.algorithm, row.operator]
    words += [row.schedule] if row.schedule != "none" else []
    words += [row.model] if row.model != "standard" else []
    words += [row.loss] if row.loss != "l1" else []
    label = {"label": f"{' '.join(words)}, epoch {row.epoch}"}
    return label | {name: getattr(row, name) for name in NAMES[1:]}


def size(run: Run) -> tuple[bool, int, int, int]:
    """Which of several runs is the best measured: the paper's data, trials, epochs, cells."""
    start, stop = run.config["trials"]
    papers = run.setting("bits") == 1000 and run.setting("clusters") == 10
    return papers, stop - start, run.setting("epochs"), run.setting("cells")


def dimensions(run: Run) -> str:
    """How large a run is, in words."""
    names = ["bits", "cells", "epochs"] if run.setting("cells") > 1 else ["bits", "epochs"]
    return ", ".join(f"{run.setting(name)} {name}" for name in names)


def epoch_of(published_epoch: int, epochs: int) -> int:
    """The epoch of a run at the same share as one of the paper's 400."""
    return epochs - 1 if published_epoch == 399 else published_epoch * epochs // 400


def measured(run: Run, row: Any) -> dict[str, Any]:
    """A published value, and that of the same metric in a run with its interval."""
    rows = run.history[run.history.epoch == epoch_of(row.epoch, run.setting("epochs"))]
    middle = np.median if row.metric.endswith("_median") else np.mean
    if row.metric == "preserved_at_last_prune_median":
        zeros = rows.encoder_zeros_at_last_prune + rows.decoder_zeros_at_last_prune
        values = 1 - zeros / run.population.parameters
    else:
        values = rows.train_l1
    # trials are drawn again with all their cells, which are not independent of each other
    by_trial = np.stack([group.to_numpy() for _, group in values.groupby(rows.trial)])
    low, high = statistics.bootstrap_interval(by_trial, statistic=middle)
    sizes = {name: run.setting(name) for name in ("bits", "cells", "epochs")}
    here = float(middle(values))
    found = {"published": row.value, "reproduced": here, "difference": here - row.value}
    return found | {"low": low, "high": high, "trials": len(by_trial)} | sizes


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


def collect(folder: Path | str) -> Study:
    """Every finished run below a folder, by its directory's name.

    Left out, with a warning, are damaged ones and those of a version that computes other numbers.
    """
    runs = {}
    for path in sorted(Path(folder).rglob("result.json")):
        try:
            run = Run(path.parent)
            if run.config.get("meaning") != MEANING:
                raise ValueError(f"{run.folder}: made by an evoae that computes other numbers")
            runs[path.parent.name] = run
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not runs:
        raise ValueError(f"{folder}: holds no finished runs")
    return Study(runs)
