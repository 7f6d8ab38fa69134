"""One training in a background thread, to be watched, paused, changed and stopped.

The thread prints nothing and draws nothing. What it has reached is asked for: `curves` is a frozen
copy of all numbers so far, `snapshots` holds copies of the population at some epochs, and `save`
writes a run.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoae.data.datasets import Dataset
from evoae.evolution.cells import State, changed, initial
from evoae.evolution.loop import evolve
from evoae.experiment import Experiment
from evoae.identity import name_of
from evoae.networks import training
from evoae.networks.population import Population, save
from evoae.study.runs.files import whole
from evoae.study.runs.merge import history_rows, save_training
from evoae.study.runs.run import Run

SHOWN_ROWS = 200  # of the validation data: the loss on view must cost less than the training
SNAPSHOTS = 24  # at most as many epochs are kept ...
SNAPSHOT_BYTES = 256 << 20  # ... and at most as much memory
WATCHED = 0  # the trial that is trained
EPOCHS = "epochs"  # the folder of a saved run in which the epochs are that were kept
RECENT = 20  # epochs from which the time left is estimated


@dataclass(frozen=True, eq=False)
class Curves:
    """What a training has reached: arrays over the n epochs done, and cells.

    `loss` [n, cells] is the L1 on validation rows, `preserved` [n, cells] a share; `pruned`
    [n, cells] says which centres were pruned after an epoch. `changes` are (epoch, words).
    `constant` and `floor` are the losses of the constant predictor on the same rows and of the
    noise. `left`: seconds, None while unknown. `before`: those of an earlier training, to compare.
    """

    experiment: Experiment
    status: str
    loss: np.ndarray
    preserved: np.ndarray
    pruned: np.ndarray
    seconds: float = 0.0
    left: float | None = None
    changes: tuple[tuple[int, str], ...] = ()
    constant: float | None = None
    floor: float | None = None
    error: str = ""
    before: Curves | None = None

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return len(self.loss)


class Trainer:
    """Trains trial 0 of an experiment once `start` was called. An object trains once.

    A stop takes effect at once for whoever watches: the thread may still finish the step it is in,
    but nothing of it is recorded.
    """

    def __init__(self, experiment: Experiment, seed: int = 1) -> None:
        self.experiment, self.seed = experiment, seed
        self.data: Dataset | None = None
        self._snapshots: dict[int, Population] = {}
        self._wanted = experiment
        self._pending: dict[str, Any] = {}
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
        self._history: list[dict[str, np.ndarray]] = []
        self._reached: State | None = None  # after the last epoch that was recorded
        self._levels: dict[str, Any] = {}
        self._error, self._stride = "", 1
        self._lock = threading.Lock()
        self._go, self._stop, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._work, name="evoae training", daemon=True)

    # -- from any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def pause(self) -> None:
        """Rest after the epoch that is running."""
        self._go.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._go.set()

    def stop(self) -> None:
        """End now; of the epoch that is running nothing is kept."""
        with self._lock:  # an epoch is recorded before this, or never
            self._stop.set()
        self._go.set()
        self._ended.set()

    def change(self, **settings: Any) -> None:
        """Replace settings from the next epoch on; equal ones are no change.

        Raises ValueError, at once, if the settings are impossible.
        """
        with self._lock:
            new = {k: v for k, v in settings.items() if v != getattr(self._wanted, k)}
            self._wanted = changed(self._wanted, **new)
            self._pending |= new

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end. Whether it came."""
        return self._ended.wait(seconds)

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread itself, which may outlive a stop by one step. Whether it is gone."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def status(self) -> str:
        """training, paused, stopped, failed or finished."""
        if not self._ended.is_set():
            return "training" if self._go.is_set() else "paused"
        if self._error:
            return "failed"
        return "finished" if len(self._rows) == self.experiment.epochs else "stopped"

    @property
    def curves(self) -> Curves:
        """All numbers so far."""
        with self._lock:
            *rows, seconds = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
            loss, preserved, pruned = (
                np.reshape(row, (len(seconds), self.experiment.cells)) for row in rows
            )
            recent, rest = seconds[-RECENT:], self.experiment.epochs - len(seconds)
            changes = self._reached.changes if self._reached else []
            return Curves(
                self._wanted,
                self.status,
                loss,
                preserved,
                pruned,
                seconds=sum(seconds),
                left=float(np.mean(recent)) * rest if recent else None,
                changes=tuple((at, f"{name}: {name_of(new)}") for at, name, _, new in changes),
                error=self._error,
                **self._levels,
            )

    @property
    def snapshots(self) -> dict[int, Population]:
        """Copies of the population after some epochs: a bounded number, evenly spread, and the
        last.
        """
        with self._lock:
            return dict(self._snapshots)

    def save(self, folder: Path | str, epochs: bool = False) -> Run:
        """Write what was trained so far into a folder of runs, as a run of trial 0.

        With `epochs`, the snapshots are written beside it, to be watched later.

        Without a change on the way, to the end, it is the run that `evoae run` computes. Otherwise
        it is one of its own, and its `changes` say how it came about; a training that is not at its
        end is a run of the epochs that are done. Raises ValueError if none is done, OSError if the
        folder cannot be written.
        """
        with self._lock:
            if self._reached is None:
                raise ValueError("nothing to save yet: no epoch is done")
            state, history = self._reached, list(self._history)
            seconds = sum(row[-1] for row in self._rows)
        run = save_training(folder, state, history, seconds)
        if epochs:
            (run.folder / EPOCHS).mkdir(exist_ok=True)
            for epoch, population in self.snapshots.items():
                if epoch < state.epoch:
                    with whole(run.folder / EPOCHS / f"{epoch}.safetensors") as part:
                        save(population, part)
        return run

    # -- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._train()
        except Exception as error:  # whatever it is, the watcher must hear of it, in words
            self._error = str(error) or type(error).__name__
        finally:
            self._ended.set()

    def _train(self) -> None:
        state = initial(self.experiment, [WATCHED], self.seed, "cpu", "auto")
        for side in state.population.sides:  # makes every prune leave here what it removed
            side.tensors["removed"] = torch.zeros_like(side.weights)
        self.data = state.data[0]
        shown = replace(self.data, validation=self.data.validation[:SHOWN_ROWS])
        constant = shown.constant_loss("l1", "validation")
        self._levels = {"constant": constant, "floor": shown.noise_floor}
        begun = time.perf_counter()
        for state in evolve(self.experiment, state=state, abandon=self._stop.is_set):  # noqa: B020
            with training.one_thread():
                rows = [shown.validation] * len(state.population)
                loss = training.data_losses(state.population, rows, state.engine).numpy()
            self._record(state, loss, time.perf_counter() - begun)
            self._go.wait()
            if self._stop.is_set():
                return
            begun = time.perf_counter()
            with self._lock:
                if self._pending:
                    state.change(**self._pending)
                    self._pending = {}

    def _record(self, state: State, loss: np.ndarray, seconds: float) -> None:
        zeros = state.records["encoder_zeros"] + state.records["decoder_zeros"]
        with self._lock:
            if self._stop.is_set():
                return
            preserved = 1 - zeros / state.population.parameters
            self._rows.append((loss, preserved, state.records["pruned"].copy(), seconds))
            self._history.append(history_rows(state))
            kept = copy_of(state.population)
            self._keep(state.epoch, kept)
            self._reached = replace(
                state,
                population=kept,
                learning_rate=state.learning_rate.copy(),
                changes=list(state.changes),
            )

    def _keep(self, epoch: int, population: Population) -> None:
        """Keep the last epoch, and of those before every second, fourth ... if there are many."""
        size = sum(tensor.nbytes for side in population.sides for tensor in side.tensors.values())
        most = max(2, min(SNAPSHOTS, SNAPSHOT_BYTES // size))
        every = self._snapshots | {epoch: population}
        while True:
            kept = {e: p for e, p in every.items() if e % self._stride == 0 or e == epoch}
            if len(kept) <= most:
                break
            self._stride *= 2
        self._snapshots = kept


def kept_epochs(folder: Path) -> dict[int, Path]:
    """The epochs that were saved beside a run, and their files."""
    found = {p.stem: p for p in (folder / EPOCHS).glob("*.safetensors") if p.stem.isdecimal()}
    return {int(name): found[name] for name in sorted(found, key=int)}


def copy_of(population: Population) -> Population:
    """Weights, and what the last prune removed; nothing that only training needs."""
    encoder, decoder = (
        replace(side, tensors={k: side.tensors[k].clone() for k in ("weights", "removed")})
        for side in population.sides
    )
    return Population(encoder, decoder, population.variational)
