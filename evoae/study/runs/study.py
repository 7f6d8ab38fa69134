"""Finished runs side by side: their tables, and the published values beside them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evoae import identity
from evoae.experiment import meaning
from evoae.study.runs.run import RESULT, Run


@dataclass(frozen=True)
class Study:
    """Finished runs by label, and their tables side by side.

    `history` and `results` have a row per history row and per trial, with the columns `label`,
    `operator`, `schedule`, `algorithm`, `reading`, every setting that differs between the runs, and
    the `factors` of their design, by label.
    """

    runs: dict[str, Run]
    factors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The settings that name or tell apart the runs, one row per label."""
        table = pd.DataFrame({k: r.config["experiment"] for k, r in self.runs.items()}).T
        always = ("operator", "schedule")
        keep = [c for c in table if c in always or table[c].astype(str).nunique() > 1]
        for column in always:
            table[column] = short_names(table[column])
        readings = table.as_released.map({True: "as released", False: "as intended"})
        algorithms = [run.algorithm for run in self.runs.values()]
        table = table[keep].infer_objects().assign(algorithm=algorithms, reading=readings)
        factors = pd.DataFrame({label: self.factors.get(label, {}) for label in table.index}).T
        beside = factors[[c for c in factors if c not in table]].infer_objects()
        return table.join(beside).rename_axis("label")

    def _table(self, parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        table = pd.concat(parts, names=["label"]).reset_index("label").reset_index(drop=True)
        # a setting named like a column (learning_rate, best_cell) becomes learning_rate_setting
        return table.merge(self.settings.reset_index(), on="label", suffixes=("", "_setting"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """All history rows."""
        return self._table({label: r.history for label, r in self.runs.items()})

    @cached_property
    def results(self) -> pd.DataFrame:
        """All trials."""
        return self._table({label: r.trials for label, r in self.runs.items()})

    @property
    def overview(self) -> pd.DataFrame:
        """One row per run: what it is, how large, and how fast it was computed."""
        rows = [
            {
                "run": label,
                "algorithm": run.algorithm,
                "trials": len(run.numbers),
                "model steps": run.result["model_steps"],
                "steps per second": run.result["model_steps_per_second"],
                "engine": run.result["engine"],
                "train_l1": run.result["mean"]["train_l1"],
                "test_l1": run.result["mean"]["test_l1"],
                "changes": "; ".join(f"{n} {a} to {b} at epoch {t}" for t, n, a, b in run.changes),
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
        return Study(runs, self.factors)

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


def short_names(values: pd.Series) -> pd.Series:
    """Operators or schedules by their functions' names, where these tell them apart."""
    short = values.map(identity.name_of)
    clashes = values.groupby(short).transform("nunique") > 1
    return short.where(~clashes, values)


def collect(folder: Path | str) -> Study:
    """Every finished run below a folder, by its directory's name.

    Left out, with a warning, are damaged ones and those of a version that computes other numbers.
    """
    runs: dict[str, Run] = {}

    def unreadable(error: OSError) -> None:
        warnings.warn(f"left out: {error.filename}: {error.strerror}", stacklevel=3)

    walk = os.walk(Path(folder).expanduser(), onerror=unreadable)
    found = (Path(where, RESULT) for where, _, names in walk if RESULT in names)
    for path in sorted(found):
        try:
            run = Run(path.parent)
            run.check()
            if run.config.get("meaning") != meaning(run.config["experiment"]):
                raise ValueError(
                    f"{run.folder}: made by a version of evoae that computes other numbers"
                )
            runs[path.parent.name] = run
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not runs:
        raise ValueError(f"{folder} holds no finished runs")
    return Study(runs)
