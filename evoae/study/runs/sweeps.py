"""Many runs: computed where they are missing, side by side, by any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from tqdm.auto import tqdm

from evoae.evolution import footprint
from evoae.experiment import Experiment
from evoae.messages import say_once, short
from evoae.networks import kernel
from evoae.resources import available_cpus, require
from evoae.rules import plain
from evoae.study.runs.claims import claimed, missing, tidy, wait_for_others
from evoae.study.runs.files import Temporary
from evoae.study.runs.jobs import RunSpec, Trained, finish
from evoae.study.runs.run import Run
from evoae.study.runs.study import Study
from evoae.study.runs.workers import placed

WORKER = 150 << 20  # bytes that a process takes, beside its share of the run
START = 5.0  # seconds of work that are done here by the time that two processes have done them


class SweepError(RuntimeError):
    """Some runs failed, the others are finished. `failures` maps labels to exceptions."""

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        self.failures = dict(failures)
        lines = [f"  {label}: {error}" for label, error in self.failures.items()]
        super().__init__("\n".join([f"{len(lines)} run(s) failed:", *lines]))


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

    `trials` is a number or a slice such as range(3, 6); `workers` processes share them (by default
    one per processor that this process may use; one for what takes seconds, in a worker process of
    another program, and on a GPU, which trains them together). Raises
    ValueError for wrong settings before any work is done. After a KeyboardInterrupt the same call
    resumes the run.
    """
    try:
        study = sweep(
            {"run": experiment},
            trials,
            seed,
            out=out,
            device=device,
            engine=engine,
            workers=workers,
            progress=progress,
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
    progress: bool | tqdm = True,
) -> Study:
    """Run the trials of every experiment that are not in `out` yet, side by side.

    A folder may hold more trials; the study is of those asked for. `workers` is as in `run`.

    `executor` replaces the local processes (Dask's `client.get_executor()`, say); then `workers`
    is only the number of jobs that a run is cut into (of GPUs, say). One failing run does not
    stop the others: SweepError names it at the end. `progress` may be a bar of epochs that
    goes on over several sweeps (`bar_of`). Trials that another process is working on are
    waited for, so any number of processes, on machines that share a file system, can work on one
    sweep.

    Two environment variables, set by `evoae reproduce`, say where a notebook's sweeps run:
    EVOAE_DASK, the address of a Dask scheduler, and EVOAE_SHARE, "I/N": begin with every N-th run
    from the I-th on (job arrays).
    """
    trials, seed, workers = plain(trials), plain(seed), plain(workers)
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ValueError(f"workers={short(workers)} must be a whole number of at least 1")
    named = isinstance(out, str | os.PathLike)
    if out is not None and (not named or not str(out) or "\0" in str(out)):
        raise ValueError(f"out={short(out)} cannot be the name of a folder")
    span = span_of(trials)
    temporary = None
    if out is None:
        temporary = Temporary()
        out = temporary.name
    folder = Path(out).expanduser().absolute()
    if not experiments:
        raise ValueError("no experiments to run")
    for label, experiment in dict(experiments).items():
        if not isinstance(experiment, Experiment):
            raise ValueError(f"{label}: {experiment!r} must be an Experiment, such as a preset's")
    specs = {
        label: RunSpec(e, seed, span.start, span.stop, folder, device, engine)
        for label, e in experiments.items()
    }
    here = executor is None and not os.environ.get("EVOAE_DASK")
    if here and (workers or 2) > 1 and multiprocessing.current_process().daemon:
        if workers:
            say_once(
                f"workers={workers}: using one, because this daemonic process cannot start others"
            )
        workers = 1
    workers = workers or default_workers(specs.values(), here)
    if here:
        processes = min(workers, len(specs) * len(span))
        require(WORKER * (processes - 1), f"workers={processes}, each a process,")
    failures: dict[Path, BaseException] = {}
    index, of = job_share()
    different = sorted({s.folder: s for s in specs.values()}.items())
    mine_first = sorted(range(len(different)), key=lambda position: (position - index) % of)
    waiting = unfinished([different[position][1] for position in mine_first], failures)
    with cluster(executor) as executor:
        while waiting:
            with claimed(waiting, len(waiting) if of == 1 else workers, failures) as mine:
                failures |= compute(mine, workers, executor, progress)
            waiting = unfinished(waiting, failures)
            if not mine:
                wait_for_others(waiting)
    if failures:
        raise SweepError({k: failures[s.folder] for k, s in specs.items() if s.folder in failures})
    for spec in specs.values():
        tidy(spec)
    runs = {label: Run(spec.folder, spec.trials) for label, spec in specs.items()}
    for one in runs.values():
        one.temporary = temporary
    return Study(runs, getattr(experiments, "factors", {}))


def span_of(trials: object) -> range:
    """The trials that a number or a range stands for. Raises ValueError for anything else."""
    span = range(trials) if isinstance(trials, int) else trials
    if not isinstance(span, range) or span.step != 1:
        raise ValueError(f"trials={short(trials)} must be a number or a range of step 1")
    return span


def default_workers(specs: Collection[RunSpec], here: bool) -> int:
    """One per processor that may be used; one for a GPU, for what is done before others would have
    started, and in a process that somebody else's work is already shared out to."""
    if any(spec.device != "cpu" for spec in specs) or (here and multiprocessing.parent_process()):
        return 1
    fast = kernel.reason_unavailable() is None and all(s.engine != "batched" for s in specs)
    seconds = sum(footprint.seconds(spec.experiment, len(spec.trials)) for spec in specs)
    return 1 if here and fast and seconds < START else available_cpus()


def unfinished(specs: list[RunSpec], failures: dict[Path, BaseException]) -> list[RunSpec]:
    """Those that miss trials and have not failed; one that is damaged fails here."""
    found = []
    for spec in specs:
        try:
            if spec.folder not in failures and missing(spec):
                found.append(spec)
        except ValueError as error:
            failures[spec.folder] = error
    return found


def job_share() -> tuple[int, int]:
    """Index and number of the jobs that share the sweeps, from EVOAE_SHARE; (0, 1) without."""
    text = os.environ.get("EVOAE_SHARE", "0/1")
    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise ValueError(f"EVOAE_SHARE={text!r} must be I/N with 0 <= I < N")
    return int(index), int(of)


@contextmanager
def cluster(executor: Executor | None) -> Iterator[Executor | None]:
    """The executor that was given, or that of the Dask scheduler named by EVOAE_DASK, or none."""
    address = os.environ.get("EVOAE_DASK")
    if executor is not None or not address:
        yield executor
        return
    try:
        from dask.distributed import Client
    except ImportError:
        raise ValueError("a Dask cluster needs the extra: pip install 'evoae[cluster]'") from None
    with Client(address, timeout=30) as client:
        # a job whose worker was lost is given to another, where it goes on from its checkpoint
        yield client.get_executor(pure=False, retries=3)


# -- computing -----------------------------------------------------------------------------------


def compute(
    claims: list[tuple[RunSpec, list[int]]],
    workers: int,
    executor: Executor | None,
    progress: bool | tqdm,
) -> dict[Path, BaseException]:
    """Train some trials of runs and add them to their files. Returns the failures by folder."""
    if not claims:
        return {}
    jobs = {spec.folder: spec.jobs(trials, workers) for spec, trials in claims}
    tasks = [(spec, job) for spec, _ in claims for job in jobs[spec.folder]]
    total = sum(spec.experiment.epochs * len(trials) for spec, trials in claims)
    failures: dict[Path, BaseException] = {}
    trained: dict[Path, list[Trained]] = {folder: [] for folder in jobs}
    local = min(workers, len(tasks)) == 1 and executor is None
    with (
        bar_of(total, progress) as bar,
        placed(local, min(workers, len(tasks)), executor, Progress(bar)) as submit,
    ):
        submitted = ((submit(spec, job), spec) for spec, job in tasks)
        if not local:  # here and now, a job is trained when its turn comes
            futures = dict(submitted)
            submitted = ((future, futures[future]) for future in as_completed(futures))
        for future, spec in submitted:
            if (error := error_of(future)) is not None:
                failures.setdefault(spec.folder, error)
                continue
            trained[spec.folder].append(future.result())
            if len(trained[spec.folder]) == len(jobs[spec.folder]):
                begun, ended, earlier, rows = zip(*trained[spec.folder], strict=True)
                try:
                    seconds = max(ended) - min(begun) + max(earlier)
                    finish(spec, jobs[spec.folder], seconds, list(chain(*rows)))
                except (OSError, ValueError) as failure:
                    failures[spec.folder] = failure
    return failures


@contextmanager
def bar_of(total: int, progress: bool | tqdm) -> Iterator[tqdm]:
    """A bar of so many epochs, if progress is to be seen; or the caller's, which goes on."""
    if not isinstance(progress, bool):
        yield progress
        return
    # a terminal's bar is redrawn often, a log's line rarely, and a notebook's bar disappears
    look = {"mininterval": 0.2 if sys.stderr.isatty() else 10.0, "leave": sys.stderr.isatty()}
    look["bar_format"] = "{l_bar}{bar}| {n:,.1f}/{total:,} epochs [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=total, unit="epoch", disable=not progress, **look) as bar:
        yield bar


def error_of(future: Future) -> BaseException | None:
    """Why a job was not trained to its end, in words if where it was trained is gone."""
    try:
        error = future.exception()
    except CancelledError:
        return RuntimeError("the cluster was lost; the same command resumes")
    if isinstance(error, BrokenExecutor):
        return RuntimeError(
            "a worker process was killed, for want of memory perhaps; the same command resumes"
        )
    return error


class Progress:
    """Epochs of all trials done, and model steps per second, on a progress bar."""

    def __init__(self, bar: tqdm) -> None:
        self.bar, self.steps = bar, 0
        self.began = bar.format_dict["elapsed"]

    def __call__(self, epochs: float, steps: int) -> None:
        """So many more epochs and model steps are done."""
        self.steps += steps
        elapsed = self.bar.format_dict["elapsed"] - self.began
        if elapsed > 0:
            self.bar.set_postfix_str(f"{self.steps / elapsed:,.0f} model steps/s", refresh=False)
        self.bar.update(epochs)
