"""What is computed together: some trials of a run, from a checkpoint if there is one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evoae.evolution import footprint
from evoae.evolution.cells import State, initial
from evoae.evolution.evaluation import trial_results
from evoae.evolution.loop import evolve, steps_of_an_epoch
from evoae.experiment import READING, SETTINGS, Experiment
from evoae.messages import display, say_once, short
from evoae.networks import training
from evoae.rules import MOST, File, check_key
from evoae.study.runs import checkpoints
from evoae.study.runs.files import digest, read_sealed
from evoae.study.runs.locks import locked
from evoae.study.runs.merge import LOCK, add, history_of, history_rows, keep_rows, write_config
from evoae.study.runs.run import CONFIG, RESULT, Run, read_config, slices_of

# Between checkpoints; the variable reaches worker processes, too.
CHECKPOINT_SECONDS = float(os.environ.get("EVOAE_CHECKPOINT_SECONDS", "30"))


@dataclass(frozen=True)
class RunSpec:
    """What is asked for: trials [start, stop) of a run, and where and how they are computed."""

    experiment: Experiment
    seed: int
    start: int
    stop: int
    out: Path
    device: str = "cpu"
    engine: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= MOST:
            raise ValueError(
                f"trials {short(self.start)}:{short(self.stop)} are empty or too large; give a "
                "positive number N, or A:B with A < B"
            )
        check_key("seed", self.seed)
        training.check_device(self.device)
        self.experiment.check_files()
        footprint.check(self.experiment, len(self.trials))
        if self.device == "cpu":
            widths = self.experiment.widths
            chosen = training.choose_engine(self.engine, widths)
            if chosen != "fused" and self.engine == "auto":
                say_once(
                    "training with PyTorch, which is slower than the compiled kernel: "
                    f"{training.why_not_fused(widths)}"
                )

    @cached_property
    def folder(self) -> Path:
        """The run's directory, whatever trials of it are asked for."""
        return self.out / self.experiment.hash(seed=self.seed)

    @property
    def trials(self) -> range:
        """The trials that are asked for."""
        return range(self.start, self.stop)

    @property
    def lock(self) -> Path:
        """What is locked while the run's files are changed."""
        return self.folder / LOCK

    def make_folder(self) -> None:
        """Make the run's directory, and keep rows that are in memory beside it.

        Raises ValueError if that cannot be done.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_rows(self.out, self.experiment)
        except OSError as error:
            raise ValueError(
                f"{display(self.out)}: cannot be written ({error.strerror})"
            ) from error

    def open(self) -> None:
        """Begin the directory, or see that it is this run's. Raises ValueError if it is not.

        The caller holds the run's lock, unless nothing is to be written.
        """
        path = self.folder / CONFIG
        if not path.exists():
            self.make_folder()
            write_config(self.folder, self.experiment, self.seed)
            result = self.folder / RESULT
            if result.exists() and read_sealed(result)["files"].get(CONFIG) != digest(path):
                result.unlink()  # of a config.json that was taken away: to be computed again
        found = read_config(self.folder)
        wanted = {"experiment": self.experiment.settings(), "seed": self.seed}
        for key, value in wanted.items():
            if not same(found[key], json.loads(json.dumps(value))):
                raise ValueError(f"{path}: holds another {key}; move the directory away")

    def jobs(self, trials: Iterable[int], parts: int) -> list[range]:
        """Slices of some trials to train side by side; those in a checkpoint stay together."""
        cut, rest = [], sorted(trials)
        for held in checkpoints.found_in(self.folder):
            cut += slices_of(trial for trial in rest if trial in held)
            rest = [trial for trial in rest if trial not in held]
        for part in np.array_split(rest, min(parts, max(1, len(rest)))):
            cut += slices_of(part.tolist())
        return sorted(cut, key=lambda job: job.start)


def same(found: Any, wanted: Any) -> bool:
    """Whether a run's settings, or its seed, are those; files may have been moved meanwhile."""
    if isinstance(found, dict):
        moved = {
            name: wanted[name]
            for name, declared in SETTINGS.items()
            if isinstance(declared.rule, File)
            and None not in (found[name], wanted[name])
            and not {found[name], wanted[name]} & set(declared.rule.names)
        } | {name: wanted[name] for name in READING if name in wanted}
        found = found | moved
    return found == wanted


SECONDS_BETWEEN_REPORTS = 2.0


class Reports:
    """What was reported of a job's epochs, the one under way included."""

    def __init__(self, report: Callable[[float, int], None], state: State) -> None:
        self.report, self.state = report, state
        self.began = self.steps = state.model_steps
        self.share, self.time = 0.0, time.time()

    def between_visits(self) -> bool:
        """Report now and then how far the epoch is. False: it goes on."""
        if time.time() - self.time > SECONDS_BETWEEN_REPORTS:
            done = (self.state.model_steps - self.began) / steps_of_an_epoch(self.state)
            self.send(min(done, 1.0))
        return False

    def after_epoch(self) -> None:
        """Report the rest of an epoch that has ended."""
        self.send(1.0)
        self.began, self.share = self.state.model_steps, 0.0

    def send(self, share: float) -> None:
        """Report how far the epoch is, a share in [0, 1]."""
        trials, steps = len(self.state.trials), self.state.model_steps
        self.report(trials * (share - self.share), steps - self.steps)
        self.share, self.steps, self.time = share, steps, time.time()


# of a job: the wall clock at start and end, seconds of earlier attempts, results of its trials
Trained = tuple[float, float, float, list[dict[str, Any]]]


def train_job(
    spec: RunSpec,
    trials: range,
    report: Callable[[float, int], None] = lambda epochs, steps: None,
    stop: threading.Event | None = None,
) -> Trained:
    """Train a job of a run to its end, from the checkpoint that holds it if there is one.

    `report(epochs, model steps)` is called with what was done since the last call: after each
    epoch, and within one that takes long. When `stop` is set the job saves a checkpoint after its
    epoch and raises KeyboardInterrupt. Returns the wall clock at start and end, the
    seconds that earlier attempts took, and the results of its trials.
    """
    if stop is not None and stop.is_set():
        raise KeyboardInterrupt
    path = checkpoints.path_of(spec.folder, trials)
    state: State | None = None
    history: list[dict[str, np.ndarray]] = []
    earlier = 0.0
    if source := checkpoints.source_of(spec.folder, trials):
        state, history, earlier = checkpoints.load(
            source, spec.experiment, trials, spec.seed, spec.device, spec.engine
        )
        report((state.epoch + 1) * len(trials), 0)  # they were not trained now
        if source != path and state.epoch + 1 == spec.experiment.epochs:
            checkpoints.save(path, state, history, earlier)
    begun = saved = time.time()
    if state is None:
        state = initial(spec.experiment, trials, spec.seed, spec.device, spec.engine)
    reports = Reports(report, state)
    for _ in evolve(spec.experiment, state=state, abandon=reports.between_visits):
        history.append(history_rows(state))
        reports.after_epoch()
        now = time.time()
        stopping = stop is not None and stop.is_set()
        last = state.epoch + 1 == spec.experiment.epochs
        if stopping or last or now - saved > CHECKPOINT_SECONDS:
            history = [checkpoints.save(path, state, history, earlier + now - begun)]
            saved = now
        if stopping and not last:
            raise KeyboardInterrupt
    ended = time.time()
    with training.one_thread():
        rows = trial_results(state, history_of(history))
    return begun, ended, earlier, rows


def finish(
    spec: RunSpec, jobs: Iterable[range], seconds: float, rows: Sequence[dict[str, Any]]
) -> None:
    """Add trials of jobs that were trained to their end, and their results, to the run's files."""
    with locked(spec.lock):
        more = []
        for job in jobs:
            path = checkpoints.path_of(spec.folder, job)
            state, history, _ = checkpoints.load(path, spec.experiment, job, spec.seed, spec.device)
            more.append((state, history_of(history)))
        add(spec.folder, more, seconds, rows)
        checkpoints.remove_covered(spec.folder, set(Run(spec.folder).numbers))
