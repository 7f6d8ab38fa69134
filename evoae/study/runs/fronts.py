"""A whole front: networks of several sizes, trained by ordinary runs that begin from each other.

Training a network of each size anew repeats what all of them have to learn first. Here each size
begins from the finished network of the next denser one, with a learning rate that is high again and
falls again. What a front is made of is a list of `Stage`, so other ways to make one, and choices
among several networks of a size, are other lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from evoae.evolution import footprint
from evoae.experiment import Experiment
from evoae.identity import name_of
from evoae.messages import short
from evoae.rules import MOST, rising_shares
from evoae.study.runs.run import Run
from evoae.study.runs.sweeps import bar_of, sweep

AUTO, AUTO_SIZES = "auto", 6
TARGETED = ("cubic", "one-shot")  # schedules that end at target_sparsity
LADDER = 10  # sizes that are looked at to choose some of them
# What the stages decide: whoever asks for a front cannot.
DECIDED = (
    *("target_sparsity", "epochs", "initial_weights", "prune_until", "drop_until"),
    *("rate_policy", "rate_hold", "loss_switch"),
)
DENSE = {"operator": "none", "drop_fraction": 0.0, "l1_penalty": 0.0}
NEXT = {  # of a size that begins from a finished network
    "rate_policy": "cosine",
    "rate_hold": 0.25,
    "prune_until": 0.3,
    "drop_until": 0.7,
    "loss_switch": 0.6,
}
LOOK = {"rate_policy": "constant", "prune_until": 1.0, "drop_until": 1.0}  # only looked at
FIRST = 1.7  # times as many steps for the first size: it begins with random weights
COLUMNS = (
    *("trial", "sparsity", "validation_l1", "test_l1", "constant_test_l1", "best_preserved"),
    *("macs", "compact_parameters", "model_steps", "dense_validation_l1", "dense_test_l1"),
    *("stage", "run"),
)


@dataclass(frozen=True)
class Stage:
    """A run of a front: the size that it is for (0 is dense), its settings, its share of the steps.

    It begins from the networks of the stage `begin`. Its networks are candidates for the front, or
    only others begin from them.
    """

    name: str
    size: float
    share: float
    settings: Mapping[str, Any]
    begin: str | None = None
    candidate: bool = True

    def experiment(self, e: Experiment, epochs: int, begin: Run | None = None) -> Experiment:
        """The user's experiment as this stage trains it."""
        size = {"target_sparsity": self.size} if self.size else DENSE
        settings = {**self.settings, **size, "epochs": epochs}
        if not self.candidate and e.loss == "bce-then-l1":  # those that begin from it change
            settings["loss"] = "bce"
        if begin is not None:
            settings["initial_weights"] = str(begin.folder)
        return e.replace(**settings)


def stages(sizes: Sequence[float]) -> list[Stage]:
    """The dense network, which is trained alone; then each size, from the one before.

    The first size keeps the experiment's own rates. RESULTS.md compares this with other ways.
    """
    dense = 1 / (len(sizes) + 2)
    each = (1 - dense) / (FIRST + len(sizes) - 1)
    names = [f"size {size:g}" for size in sizes]
    found = [Stage("dense", 0.0, dense, {}), Stage(names[0], sizes[0], FIRST * each, {})]
    for before, name, size in zip(names, names[1:], sizes[1:], strict=False):
        found.append(Stage(name, size, each, NEXT, before))
    return found


# -- what was asked for --------------------------------------------------------------------------


def checked(experiment: Experiment, sparsities: Any, steps: Any, within: Any) -> list[float]:
    """The sizes of a front, ascending. Raises ValueError, one line, for what cannot be one."""
    e = experiment
    if not isinstance(e, Experiment):
        raise ValueError(f"experiment={short(e)} must be an Experiment, such as a preset's")
    if e.resolved_operator.renews or e.operator == "none" or e.schedule not in TARGETED:
        raise ValueError(
            f"operator={name_of(e.operator)} with schedule={name_of(e.schedule)} reaches no target "
            f"sparsity; a front needs an operator that prunes, and schedule={' or '.join(TARGETED)}"
        )
    number = isinstance(within, int | float) and not isinstance(within, bool)
    if not number or not 0 <= within < math.inf:
        raise ValueError(f"within={short(within)} must be a share of the dense loss, such as 0.05")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= MOST:
        raise ValueError(f"steps={short(steps)} must be a positive whole number")
    if isinstance(sparsities, str) and sparsities == AUTO:
        return []
    if isinstance(sparsities, str):
        raise ValueError(f"sparsities={short(sparsities)} must be {AUTO} or a list of numbers")
    return rising_shares(sparsities)


def steps_of_an_epoch(e: Experiment) -> int:
    """Model steps of one trial in an epoch. Reads the file if the data set is one."""
    visits = {"selected": 1, "random-partner": 2, "all-pairs": 2 * e.cells}[e.pairing]
    return e.cells * visits * footprint.rows_and_batches(e, e.data_summary.size)[1]


def epochs_of(plan: Sequence[Stage], total: int) -> list[int]:
    """How many epochs each stage takes: `total` in all, at least one for each candidate."""
    least = np.array([int(stage.candidate) for stage in plan])
    shares = np.array([stage.share for stage in plan])
    wanted = shares / shares.sum() * (total - least.sum())
    found = np.floor(wanted + 1e-9).astype(int)
    rest = total - least.sum() - found.sum()
    found[np.argsort(found - wanted, kind="stable")[:rest]] += 1
    return (least + found).tolist()


# -- sizes where the front bends -----------------------------------------------------------------


def scout(e: Experiment) -> list[Stage]:
    """One network at a constant rate, pruned through LADDER sizes to the sparsest possible."""
    low = max(0.02, 1 - e.most_sparse + 0.01)
    high = 0.7 if low < 0.6 else (1 + low) / 2
    sizes = [0.0, *(1 - np.geomspace(high, low, LADDER - 1)).round(3).tolist()]
    names = [f"scout {size:g}" for size in sizes]
    return [
        Stage(name, size, 1.0, LOOK, before)
        for name, size, before in zip(names, sizes, [None, *names], strict=False)
    ]


def bends(sizes: Sequence[float], losses: Sequence[float], constant: float) -> list[float]:
    """AUTO_SIZES sizes, the closer to each other the more the loss bends there.

    `losses` are those of ascending sizes, dense first. Sizes at which little more is learnt than
    the `constant` are left out. Size is counted in logarithms of what is kept.
    """
    loss = np.maximum.accumulate(np.nan_to_num(losses, nan=constant))
    count = max(3, int(np.sum(loss < loss[0] + 0.9 * (constant - loss[0]))))
    x, y = -np.log1p(-np.asarray(sizes[:count])), loss[:count]
    slope = np.diff(y) / np.diff(x)
    bend = np.sqrt(np.abs(np.diff(slope)) / ((x[2:] - x[:-2]) / 2))
    bend = np.concatenate([bend[:1], (bend[1:] + bend[:-1]) / 2, bend[-1:]])
    weight = (bend + 0.5 * bend.mean() + 1e-12) * np.diff(x)  # some also where it is straight
    along = np.concatenate([[0.0], np.cumsum(weight)]) / weight.sum()
    found = 1 - np.exp(-np.interp(np.arange(1, AUTO_SIZES + 1) / AUTO_SIZES, along, x))
    return sorted(set(found.round(3).tolist()))


# -- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """The finished runs of a front's stages, by name."""

    plan: Sequence[Stage]
    runs: Mapping[str, Run]

    @property
    def finished(self) -> list[tuple[Stage, Run]]:
        """Stages and their runs; a stage without epochs has none."""
        return [(stage, self.runs[stage.name]) for stage in self.plan if stage.name in self.runs]

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """A row per trial and candidate: `Run.trials`, with size, stage, run."""
        rows = [
            run.trials.assign(size=stage.size, stage=stage.name, run=run.folder.name)
            for stage, run in self.finished
            if stage.candidate
        ]
        return pd.concat(rows, ignore_index=True)

    @cached_property
    def best(self) -> pd.DataFrame:
        """Of each trial and size the candidate with the lowest validation loss."""
        rows = self.candidates.assign(rank=self.candidates.validation_l1.fillna(np.inf))
        rows = rows.sort_values(["size", "trial", "rank"], kind="stable")
        return rows.drop_duplicates(["size", "trial"]).drop(columns="rank").reset_index(drop=True)

    @property
    def table(self) -> pd.DataFrame:
        """A row per trial and sparsity: COLUMNS.

        `model_steps` are those of all stages of a size; with it are counted those of denser
        stages, such as the dense network, that are for no size of the front.
        """
        sizes = np.unique([s.size for s, _ in self.finished if s.candidate and s.size])
        above = np.searchsorted(sizes, [s.size for s, _ in self.finished])
        of = sizes[above.clip(max=len(sizes) - 1)]
        steps = [run.result["model_steps"] // len(run.numbers) for _, run in self.finished]
        counted = pd.Series(steps, index=of).groupby(level=0).sum()
        dense = self.best[self.best["size"] == 0].set_index("trial")
        rows = self.best[self.best["size"] > 0]
        rows = rows.assign(
            sparsity=rows["size"],
            model_steps=rows["size"].map(counted),
            dense_validation_l1=rows.trial.map(dense.validation_l1),
            dense_test_l1=rows.trial.map(dense.test_l1),
        )
        return rows.sort_values(["sparsity", "trial"])[list(COLUMNS)].reset_index(drop=True)


def train(
    plan: Sequence[Stage],
    experiment: Experiment,
    epochs: int,
    trials: int | range,
    seed: int,
    progress: bool | tqdm = True,
    **where: Any,
) -> Trained:
    """Run the stages, those that others begin from first. `where` is as of `sweep`."""
    lengths = {s.name: n for s, n in zip(plan, epochs_of(plan, epochs), strict=True)}
    waiting = [stage for stage in plan if lengths[stage.name]]
    skipped = {s.name: s.begin for s in plan if not lengths[s.name]}
    runs: dict[str, Run] = {}
    count = trials if isinstance(trials, int) else len(trials)
    with bar_of(epochs * count, progress) as bar:
        done = bar.n
        while waiting:
            ready = [s for s in waiting if begin_of(s, skipped) in (None, *runs)]
            ready = [s for s in ready if not s.candidate] or ready
            design = {
                s.name: s.experiment(
                    experiment, lengths[s.name], runs.get(begin_of(s, skipped) or "")
                )
                for s in ready
            }
            found = sweep(design, trials, seed, progress=bar, **where).runs
            for name, run in found.items():
                if not all(side.weights.isfinite().all() for side in run.population.sides):
                    raise ValueError(
                        f"the training of {name} diverged, so no other can begin from it; choose a "
                        f"learning_rate below {experiment.learning_rate:g}"
                    )
            runs |= found
            waiting = [s for s in waiting if s not in ready]
            done += sum(lengths[s.name] for s in ready) * count
            bar.update(done - bar.n)  # what was there already was not reported
    return Trained(plan, runs)


def begin_of(stage: Stage, skipped: Mapping[str, str | None]) -> str | None:
    """The stage that it begins from; where that has no epochs, the one which that begins from."""
    name = stage.begin
    while name is not None and name in skipped:
        name = skipped[name]
    return name
