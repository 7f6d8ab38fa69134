"""A whole front at once: loss against size on one data set, as runs, files and a sentence."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from evoae.experiment import Experiment
from evoae.messages import short
from evoae.rules import plain
from evoae.study.figures.frontier import front_of
from evoae.study.figures.look import save
from evoae.study.runs import fronts
from evoae.study.runs.files import Temporary, whole
from evoae.study.runs.jobs import RunSpec
from evoae.study.runs.run import Run
from evoae.study.runs.sweeps import bar_of, span_of


@dataclass(frozen=True)
class Front:
    """Networks of several sizes on one data set, and which of them to take.

    `table` has a row per trial and sparsity: its losses, its size, those of the dense network and
    of the constant, the model steps, and the `run` that holds the network (a folder in `out`).
    `means` are those over trials. `sparsity` is that of the smallest network whose validation loss
    is within a share `within` of the dense one's, None if there is none; `trial` is the trial of it
    with the lowest validation loss.
    """

    out: Path
    table: pd.DataFrame
    within: float
    runs: dict[str, Run]
    temporary: Temporary | None = None

    @property
    def means(self) -> pd.DataFrame:
        """Means over trials, a row per sparsity."""
        table = self.table.drop(columns=["trial", "stage", "run"])
        losses = [name for name in table if name.endswith("_l1")]
        table[losses] = table[losses].fillna(np.inf)  # one that diverged is not left out
        return table.groupby("sparsity", as_index=False).mean()

    @property
    def sparsity(self) -> float | None:
        """The largest sparsity whose mean validation loss is close enough to the dense one's."""
        means = self.means
        near = means[means.validation_l1 <= (1 + self.within) * means.dense_validation_l1]
        return float(near.sparsity.max()) if len(near) else None

    def row(self, sparsity: float) -> pd.Series:
        """The trial with the lowest validation loss at a sparsity. Raises ValueError for others."""
        rows = self.table[self.table.sparsity == sparsity]
        if rows.empty:
            known = ", ".join(f"{size:g}" for size in self.table.sparsity.unique())
            raise ValueError(f"sparsity={short(sparsity)} is not in this front; it has {known}")
        return rows.loc[rows.validation_l1.fillna(np.inf).idxmin()]

    def best(
        self, sparsity: float | None = None, *, compact: bool = False
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Encoder and decoder of a sparsity, by default the one to take, as plain modules.

        Of its trials the one with the lowest validation loss. Raises ValueError for a sparsity that
        is not in the table, or if no size is close enough to the dense network.
        """
        sparsity = self.sparsity if sparsity is None else sparsity
        if sparsity is None:
            raise ValueError(f"{self.sentence} Name the sparsity that you want")
        row = self.row(sparsity)
        return self.runs[row.stage].best(int(row.trial), compact=compact)

    @property
    def sentence(self) -> str:
        """Which network to take, why, and the command that exports it."""
        means, within = self.means, f"{100 * self.within:g} %"
        dense = f"the dense network's {means.dense_validation_l1.iloc[0]:.4f}"
        note = ""
        if means.dense_test_l1.iloc[0] >= means.constant_test_l1.iloc[0]:
            note = " The dense network is no better than a constant, so this says little."
        if self.sparsity is None:
            near = means.loc[means.validation_l1.idxmin()]
            return (
                f"No size has a validation loss within {within} of {dense}; the nearest is "
                f"{near.sparsity:g} with {near.validation_l1:.4f}.{note}"
            )
        row, mean = self.row(self.sparsity), means[means.sparsity == self.sparsity].iloc[0]
        command = f"evoae export {shlex.quote(str(self.out / row.run))} --trial {int(row.trial)}"
        return (
            f"The smallest network within {within} of {dense} validation loss has sparsity "
            f"{self.sparsity:g}: validation loss {mean.validation_l1:.4f}, "
            f"{row.compact_parameters:,.0f} parameters after compaction.{note} Export it with: "
            f"{command} small.safetensors"
        )


def front(
    experiment: Experiment,
    sparsities: Sequence[float] | str = "auto",
    steps: int = 180_000,
    trials: int | range = 1,
    seed: int = 1,
    *,
    out: Path | str | None = None,
    within: float = 0.05,
    device: str = "cpu",
    engine: str = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Front:
    """Train a network of each sparsity, `steps` model steps in all for each trial.

    Writes ordinary runs into `out`, and `front.csv`, `front.png` and `front.svg` beside them; what
    is there already is not run again, so an interrupted call resumes and more trials add to it.
    Without `out` its files are temporary. `sparsities` rise, within (0, 1); "auto" spends a tenth
    of the steps to look where the front bends, in trial 0, and chooses six.

    The experiment's operator must be able to reach a target; its target, epochs and learning rate
    over time are decided here (`fronts.DECIDED`). The other arguments are as of `sweep`. Raises
    ValueError, before any work is done, for sizes that are not possible, and if `steps` are less
    than an epoch for each size and one for the dense network.
    """
    steps, within, trials, seed = (plain(value) for value in (steps, within, trials, seed))
    span = span_of(trials)
    sizes = fronts.checked(experiment, sparsities, steps, within)
    auto, e = not sizes, experiment
    each = fronts.steps_of_an_epoch(e)
    epochs = steps // each
    least = 1 + (len(sizes) or fronts.AUTO_SIZES + fronts.LADDER)
    if epochs < least:
        asked = f"the {len(sizes)} sparsities" if sizes else "sparsities=auto"
        raise ValueError(
            f"steps={steps} must be at least {least * each:,}: {least} epochs of {each:,} model "
            f"steps, for {asked} and the dense network"
        )
    temporary = Temporary() if out is None else None
    folder = Path(temporary.name if temporary else str(out)).expanduser().absolute()
    for size in sizes or [min(0.5, e.most_sparse)]:
        RunSpec(
            e.replace(target_sparsity=size), seed, span.start, span.stop, folder, device, engine
        )
    scouting = max(fronts.LADDER, epochs // 10) if auto else 0
    total = (epochs - scouting) * len(span) + scouting
    with bar_of(total, progress) as bar:
        where: dict[str, Any] = {"seed": seed, "progress": bar, "out": folder}
        where |= {"device": device, "engine": engine, "workers": workers}
        if auto:
            plan = fronts.scout(e)
            seen = fronts.train(plan, e, scouting, range(1), **where).best
            sizes = fronts.bends(seen["size"], seen.validation_l1, seen.constant_test_l1.mean())
        found = fronts.train(fronts.stages(sizes), e, epochs - scouting, trials, **where)
    done = Front(folder, found.table, float(within), dict(found.runs), temporary)
    with whole(folder / "front.csv") as part:
        done.table.to_csv(part, index=False)
    save(front_of(done.table, done.sparsity), folder, "front", "Loss against size")
    return done


def printed(found: Front) -> str:
    """The table of means as text, the dense network first."""
    means = found.means
    dense = means.iloc[:1].assign(
        sparsity="dense",
        validation_l1=means.dense_validation_l1,
        test_l1=means.dense_test_l1,
        macs=np.nan,
        compact_parameters=np.nan,
    )
    columns = {
        "sparsity": "sparsity",
        "validation_l1": "validation L1",
        "test_l1": "test L1",
        "macs": "multiply-accumulates",
        "compact_parameters": "compact parameters",
    }
    table = pd.concat([dense, means])[list(columns)].rename(columns=columns)
    forms = [str, *["{:.4f}".format] * 2, *["{:,.0f}".format] * 2]
    return table.to_string(index=False, formatters=forms, na_rep="")
