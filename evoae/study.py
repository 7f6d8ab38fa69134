"""Many runs: grids of experiments, and where they are computed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import connection
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from evoae import fused, operators, schedules, statistics
from evoae.experiment import Experiment, describe_name
from evoae.runs import Run, RunSpec, finish, train_block

Tell = Callable[[int, int], None]


class SweepError(RuntimeError):
    """Some runs failed, the others are finished. `failures` maps labels to exceptions."""

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        self.failures = dict(failures)
        lines = [f"  {label}: {error}" for label, error in self.failures.items()]
        super().__init__("\n".join([f"{len(lines)} run(s) failed:", *lines]))


@dataclass(frozen=True)
class Study:
    """Finished runs by label, and their tables side by side.

    `history` and `results` have a row per history row and per trial, with the columns `label`,
    `operator`, `schedule` and every setting that differs between the runs.
    """

    runs: dict[str, Run]

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The settings that name or tell apart the runs, one row per label."""
        table = pd.DataFrame({k: r.config["experiment"] for k, r in self.runs.items()}).T
        always = ("operator", "schedule")
        keep = [c for c in table if c in always or table[c].astype(str).nunique() > 1]
        return table[keep].infer_objects().rename_axis("label")

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

    def only(self, **settings: Any) -> Study:
        """The runs with these settings."""
        runs = {
            label: run
            for label, run in self.runs.items()
            if all(run.config["experiment"][k] == v for k, v in settings.items())
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
        """Published values beside this study's: a row for each that a run here matches.

        `table` has the columns of `published`. Runs are matched by operator and schedule, epochs by
        their share of the run. `reproduced` is the mean over trials (the median over trials and
        cells for medians), `low` and `high` its 95 % bootstrap interval.
        """
        compared = pd.DataFrame(
            [
                {
                    "label": f"{label}, epoch {row.epoch}",
                    "metric": row.metric,
                    "published": row.value,
                }
                | self._measured(label, row.metric, row.epoch)
                for row in table.itertuples()
                for label in self._matching(row.operator, row.schedule)
            ]
        )
        return compared.assign(difference=compared.reproduced - compared.published)

    def _matching(self, operator: str, schedule: str) -> list[str]:
        """Labels of the runs with an operator and schedule; the control has no schedule."""
        return [
            label
            for label, row in self.settings.iterrows()
            if row.operator == operator and schedule in ("none", row.schedule)
        ][:1]

    def _measured(self, label: str, metric: str, epoch: int) -> dict[str, Any]:
        history, epochs = self.runs[label].history, self.runs[label].config["experiment"]["epochs"]
        then = epochs - 1 if epoch == 399 else epoch * epochs // 400
        rows = history[history.epoch == then]
        if metric == "preserved_at_last_prune_median":
            zeros = rows.encoder_zeros_at_last_prune + rows.decoder_zeros_at_last_prune
            values = 1 - zeros / sum(self.parameters)
        else:
            values = rows.train_l1
        middle = np.median if metric.endswith("_median") else np.mean
        if middle is np.mean:
            values = rows.groupby("trial").train_l1.mean()
        low, high = statistics.bootstrap_interval(values, statistic=middle)
        reproduced = float(middle(values))
        return {"reproduced": reproduced, "low": low, "high": high, "trials": rows.trial.nunique()}


def published(**filters: str) -> pd.DataFrame:
    """The paper's figures as numbers, read off with an error of about 0.003 in L1 (SPEC 7).

    Columns figure, algorithm, model, loss, operator, schedule, epoch, metric, value; a filter such
    as algorithm="canonical" keeps the rows that match.
    """
    table = pd.read_csv(Path(__file__).parent / "published_results.csv")
    for column, value in filters.items():
        table = table[table[column] == value]
    return table.reset_index(drop=True)


def grid(*presets: str, **settings: Any) -> dict[str, Experiment]:
    """Every combination of presets and settings; a list is an axis. Label to Experiment.

    grid("canonical", operator=["random", "magnitude"], probability=0.5) has two experiments. The
    label joins the values of the axes, "canonical random".
    """
    axes = {k: v if isinstance(v, list) else [v] for k, v in settings.items()}
    found = {}
    for preset, *values in itertools.product(presets, *axes.values()):
        label = [preset] if len(presets) > 1 else []
        label += [
            describe_name(v) for v, axis in zip(values, axes.values(), strict=True) if len(axis) > 1
        ]
        chosen = dict(zip(axes, values, strict=True))
        found[" ".join(label) or preset] = Experiment.preset(preset, **chosen)
    return found


def run(
    experiment: Experiment,
    trials: int | range = 1,
    seed: int = 1,
    *,
    out: Path | str | None = None,
    device: str = "cpu",
    engine: str = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Run:
    """Run an experiment, or find it finished in `out`. Without `out` its files are temporary.

    `trials` is a number or a slice such as range(3, 6); `workers` processes share them (one per
    core by default). Raises ValueError for wrong settings before any work is done. After a
    KeyboardInterrupt the same call resumes the run.
    """
    options = {"out": out, "device": device, "engine": engine}
    try:
        study = sweep(
            {"run": experiment}, trials, seed, **options, workers=workers, progress=progress
        )
    except SweepError as error:
        raise error.failures["run"] from None
    return study.runs["run"]


def sweep(
    experiments: Mapping[str, Experiment],
    trials: int | range = 1,
    seed: int = 1,
    *,
    out: Path | str | None = None,
    device: str = "cpu",
    engine: str = "auto",
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Study:
    """Run every experiment that is not finished in `out` yet, side by side.

    `executor` replaces the local processes (Dask's `client.get_executor()`, say); then `workers`
    is only the number of blocks that a run is cut into. One failing run does not stop the others:
    SweepError names it at the end. Runs that another process is working on are waited for.
    """
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ValueError(f"workers={workers} must be at least 1")
    workers = workers or os.cpu_count() or 1
    span = range(trials) if isinstance(trials, int) else trials
    if not isinstance(span, range) or span.step != 1:
        raise ValueError(f"trials={trials!r} must be a number or a range of step 1")
    temporary = None if out else tempfile.TemporaryDirectory(prefix="evoae-")
    folder = Path(temporary.name if temporary else out).absolute()  # type: ignore[arg-type]
    if not experiments:
        raise ValueError("no experiments to run")
    specs = {
        label: RunSpec(e, seed, span.start, span.stop, folder, device, engine)
        for label, e in experiments.items()
    }
    failures: dict[Path, BaseException] = {}
    waiting = {spec.folder: spec for spec in specs.values() if not finished(spec)}
    while waiting:
        with locked(waiting.values()) as mine:
            todo = [spec for spec in mine if not finished(spec)]
            failures |= compute(todo, workers, executor, progress)
            for spec in mine:
                del waiting[spec.folder]
    if failures:
        named = {k: failures[s.folder] for k, s in specs.items() if s.folder in failures}
        raise SweepError(named)
    runs = {label: Run(spec.folder) for label, spec in specs.items()}
    for one in runs.values():
        one.temporary = temporary  # removed when nothing refers to it any more
    return Study(runs)


def finished(spec: RunSpec) -> bool:
    """Whether the run is complete. Raises ValueError if its directory is not this run's."""
    if not (spec.folder / "result.json").exists():
        return False
    spec.open()
    Run(spec.folder)
    return True


@contextmanager
def locked(specs: Iterable[RunSpec]) -> Iterator[list[RunSpec]]:
    """Hold as many runs as are free; wait for one if none is."""
    held: list[tuple[RunSpec, FileLock]] = []
    specs = sorted(specs, key=lambda spec: spec.folder)
    try:
        for patience in (0, -1):
            for spec in specs:
                spec.open()
                lock = FileLock(spec.folder / ".lock")
                try:
                    lock.acquire(timeout=patience)
                except Timeout:
                    continue
                held.append((spec, lock))
                if patience:
                    break
            if held:
                break
        yield [spec for spec, _ in held]
    finally:
        for spec, lock in held:
            if (spec.folder / "result.json").exists():
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


# -- computing -----------------------------------------------------------------------------------


def compute(
    specs: list[RunSpec], workers: int, executor: Executor | None, progress: bool
) -> dict[Path, BaseException]:
    """Train all blocks of the runs and write their files. Returns the failures by folder."""
    if not specs:
        return {}
    blocks = {spec.folder: spec.blocks(workers) for spec in specs}
    tasks = [(spec, block) for spec in specs for block in blocks[spec.folder]]
    total = sum(spec.experiment.epochs * len(spec.trials) for spec in specs)
    failures: dict[Path, BaseException] = {}
    times: dict[Path, list[tuple[float, float, float]]] = {spec.folder: [] for spec in specs}
    local = min(workers, len(tasks)) == 1 and executor is None
    with (
        tqdm(total=total, unit="epoch", disable=not progress, **quiet()) as bar,
        placed(local, workers, executor, Progress(bar)) as submit,
    ):
        futures = {submit(spec, block): spec for spec, block in tasks}
        for future in as_completed(futures):
            spec, error = futures[future], future.exception()
            if isinstance(error, KeyboardInterrupt):
                continue
            if error is not None:
                failures.setdefault(spec.folder, error)
                continue
            times[spec.folder].append(future.result())
            if len(times[spec.folder]) == len(blocks[spec.folder]):
                begun, ended, earlier = zip(*times[spec.folder], strict=True)
                try:
                    finish(spec, blocks[spec.folder], max(ended) - min(begun) + max(earlier))
                except (OSError, ValueError) as failure:
                    failures[spec.folder] = failure
    if any(isinstance(future.exception(), KeyboardInterrupt) for future in futures):
        raise KeyboardInterrupt
    return failures


def quiet() -> dict[str, Any]:
    """A terminal's bar is redrawn often, a log's line rarely, and a notebook's bar disappears."""
    return {"mininterval": 0.2 if sys.stderr.isatty() else 10.0, "leave": sys.stderr.isatty()}


class Progress:
    """Epochs of all trials done, and model steps per second, on a progress bar."""

    def __init__(self, bar: tqdm) -> None:
        self.bar, self.steps = bar, 0

    def __call__(self, epochs: int, steps: int) -> None:
        self.steps += steps
        elapsed = self.bar.format_dict["elapsed"]
        if elapsed > 0:
            self.bar.set_postfix_str(f"{self.steps / elapsed:,.0f} model steps/s", refresh=False)
        self.bar.update(epochs)


Submit = Callable[[RunSpec, range], "Future[tuple[float, float, float]]"]


@contextmanager
def placed(local: bool, workers: int, executor: Executor | None, tell: Tell) -> Iterator[Submit]:
    """Where blocks are trained: here, in local processes, or by a given executor.

    The first interrupt stops every block after its epoch, with a checkpoint; the second at once.
    """
    if executor is not None:
        yield lambda spec, block: executor.submit(work, packed(spec, block))
        return
    if local:
        stop = threading.Event()
        with interrupts(stop):
            yield lambda spec, block: done(lambda: train_block(spec, block, tell, stop))
        return
    fused.reason_unavailable()  # compiles the kernel once, before several processes need it
    context = multiprocessing.get_context("spawn")
    stop, queue = context.Event(), context.Queue()
    reader = threading.Thread(target=read_progress, args=(queue, tell), daemon=True)
    reader.start()
    pool = ProcessPoolExecutor(workers, context, begin_worker, (queue, stop))
    try:
        with interrupts(stop), pool:
            yield lambda spec, block: pool.submit(work, packed(spec, block))
    finally:
        queue.put(None)
        reader.join()


def done(call: Callable[[], Any]) -> Future:
    """A future of something computed here and now."""
    future: Future = Future()
    try:
        future.set_result(call())
    except (Exception, KeyboardInterrupt) as error:
        future.set_exception(error)
    return future


@contextmanager
def interrupts(stop: Any) -> Iterator[None]:
    """Ctrl-C sets `stop`; a second one interrupts at once. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def read_progress(queue: Any, tell: Tell) -> None:
    while (told := queue.get()) is not None:
        tell(*told)


REGISTRIES = {"OPERATORS": operators, "PROBABILITIES": schedules, "TARGETS": schedules}


def packed(spec: RunSpec, block: range) -> bytes:
    """A block as bytes for another process, with the user's functions that it names."""
    e, named = spec.experiment, []
    for registry, name in (
        ("OPERATORS", e.operator),
        ("TARGETS" if e.has_target else "PROBABILITIES", e.schedule),
    ):
        if isinstance(name, str):
            function = getattr(REGISTRIES[registry], registry)[name]
            if not function.__module__.startswith("evoae."):
                named.append((registry, name, function))
    return cloudpickle.dumps((named, spec, block))


# -- in a worker ---------------------------------------------------------------------------------

worker_tell: Tell = lambda epochs, steps: None  # noqa: E731
worker_stop: Any = None


def begin_worker(queue: Any, stop: Any) -> None:
    """One thread per worker; progress and the wish to stop pass between it and its parent."""
    global worker_tell, worker_stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    worker_tell = lambda epochs, steps: queue.put((epochs, steps))  # noqa: E731
    worker_stop = stop
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=follow, args=(parent,), daemon=True).start()


def follow(parent: int) -> None:
    """End with the parent: a worker that waits for tasks would outlive one that was killed."""
    connection.wait([parent])
    os._exit(1)


def work(task: bytes) -> tuple[float, float, float]:
    """Train one packed block."""
    torch.set_num_threads(1)
    named, spec, block = cloudpickle.loads(task)
    for registry, name, function in named:
        getattr(REGISTRIES[registry], registry)[name] = function  # also over an older one
    return train_block(spec, block, worker_tell, worker_stop)
