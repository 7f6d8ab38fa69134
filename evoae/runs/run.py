"""A run's directory: its four files, how they are read, and how trials are added to them.

A run is an experiment and a seed; it holds the trials that were asked for until now. Its files are
replaced together when trials are added: the new ones are written beside the old under names of
their own, then `result.json`, which names the digests of the others, takes its place, and the
others follow. So a reader finds every file that `result.json` speaks of, under one name or the
other, whenever the writer is killed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from torch import nn

from evoae import identity
from evoae.data import datasets
from evoae.evolution.cells import RECORDS, State
from evoae.evolution.evaluation import trial_results
from evoae.experiment import MEANING, SETTINGS, Experiment
from evoae.networks import compaction, population, training
from evoae.networks.population import Population
from evoae.refusals import named
from evoae.runs.files import (
    SEAL,
    damaged,
    digest,
    finite,
    read_json,
    read_sealed,
    whole,
    write_json,
)
from evoae.runs.locks import locked

PLACE_COLUMNS = ["trial", "epoch", "cell"]
COLUMNS = [*PLACE_COLUMNS, *RECORDS]
CONFIG, RESULT = "config.json", "result.json"
HISTORY, WEIGHTS = "history.parquet", "weights.safetensors"
FILES = (CONFIG, HISTORY, WEIGHTS, RESULT)
LOCK = ".lock"  # held while a run's files are changed, not while its trials are trained
Value = TypeVar("Value")


def awaiting(path: Path) -> Path:
    """Where a file lies until it takes its place."""
    return path.with_name(f".{path.name}.next")


# -- reading -------------------------------------------------------------------------------------


class Run:
    """A finished run, or some of its trials, read from its directory.

    Every number comes from a file that fits its digest. Raises ValueError, naming the file, if one
    is missing or damaged. A run that grows meanwhile is read as it was, or as some of what it is.
    """

    def __init__(self, folder: Path | str, trials: Collection[int] | None = None) -> None:
        self.folder = Path(folder)
        for name in FILES:
            path = self.folder / name
            if not path.is_file() and not awaiting(path).is_file():
                raise ValueError(f"{self.folder}: no finished run, {name} is missing")
        config = read_config(self.folder)
        # a setting that is newer than the run has the default: what was done before there was it
        newer = {k: s.default for k, s in SETTINGS.items() if k not in config["experiment"]}
        self.config = config | {"experiment": config["experiment"] | newer}
        # runs of before held one slice of trials for ever, and no digests
        self.sealed = "trials" not in self.config
        self._stored = self._read_result()
        held = numbers_in(self._stored)
        self.numbers: list[int] = sorted(held if trials is None else trials)
        if missing := sorted(set(self.numbers) - set(held)):
            raise ValueError(f"{self.folder}: holds no trial {missing[0]}; {held_in_words(held)}")
        if not self.sealed:
            self._open_unsealed()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _read_result(self) -> dict[str, Any]:
        path = self.folder / RESULT
        result = (read_sealed if self.sealed else read_json)(path)
        needed = {"trials", "mean", *(["files"] if self.sealed else [])}
        if not needed <= set(result):
            raise damaged(path, f"it lacks one of {', '.join(sorted(needed))}")
        if self.sealed and result["files"][CONFIG] != digest(self.folder / CONFIG):
            raise damaged(self.folder / CONFIG, f"it is not the one that {RESULT} speaks of")
        return result

    def _open_unsealed(self) -> None:
        """See that the files of a run of before can be opened at all."""
        openers = {HISTORY: parquet.read_metadata, WEIGHTS: header}
        for name, opened in openers.items():
            try:
                opened(self.folder / name)
            except (OSError, ValueError, SafetensorError) as error:
                raise damaged(self.folder / name, error) from error

    def check(self) -> None:
        """Raise ValueError if a file does not fit its digest."""
        for name in (HISTORY, WEIGHTS):
            self._fitting(name, lambda path: None)

    def _fitting(self, name: str, read: Callable[[Path], Value]) -> tuple[Value, list[int]]:
        """What `read` makes of the file that `result.json` speaks of, and the trials it holds.

        A merge may be under way: the file may await its place, or be newer than the `result.json`
        that was read, which is then read again.
        """
        place = self.folder / name
        while True:
            for path in (place, awaiting(place), place):  # it may have moved meanwhile
                found = if_it_fits(path, self._stored["files"][name] if self.sealed else None, read)
                if found is not None:
                    return found[0], numbers_in(self._stored)
            newest = self._read_result()
            if newest == self._stored:
                raise damaged(place, "it does not fit its digest")
            self._stored = newest

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per trial, epoch and cell."""
        table, held = self._fitting(HISTORY, pd.read_parquet)
        if held == self.numbers:
            return table
        return table[table.trial.isin(self.numbers)].reset_index(drop=True)

    @cached_property
    def population(self) -> Population:
        """All centres after the last epoch; trial s (by position), cell c at s * cells + c."""
        networks, held = self._fitting(WEIGHTS, population.load)
        if held == self.numbers:
            return networks
        cells = np.arange(self.setting("cells"))
        slots = np.searchsorted(held, self.numbers)
        return networks.take(np.add.outer(slots * len(cells), cells).ravel())

    @cached_property
    def result(self) -> dict[str, Any]:
        """`result.json`, with the rows, the means and the model steps of these trials."""
        if numbers_in(self._stored) == self.numbers:
            return self._stored
        rows = [row for row in self._stored["trials"] if row["trial"] in self.numbers]
        # of one experiment every trial takes as many steps
        steps = self._stored["model_steps"] * len(rows) // len(self._stored["trials"])
        return self._stored | {"trials": rows, "mean": means(rows), "model_steps": steps}

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial: the entries of result.json, nan for null."""
        rows = (
            {k: np.nan if v is None else v for k, v in r.items()} for r in self.result["trials"]
        )
        return pd.DataFrame(rows)

    def setting(self, name: str) -> Any:
        """One setting of the experiment."""
        return self.config["experiment"][name]

    @property
    def changes(self) -> list[list[Any]]:
        """Settings replaced while it was trained: epoch, name, old and new value."""
        return self.config.get("changes", [])

    @property
    def algorithm(self) -> str:
        """The preset that the run is of; "one cell" for one cell trained as coevolution does.

        Where none is recorded it is guessed from the settings.
        """
        pairing, one = self.setting("pairing"), self.setting("cells") == 1
        preset = self.config.get("preset")
        if preset is None:
            alone = pairing == "selected" and one and self.setting("rate_policy") == "step-decay"
            named = {"random-partner": "lipi-ae", "all-pairs": "all-vs-all"}
            preset = "canonical" if alone else named.get(pairing, "lipi-ae-s")
        return "one cell" if preset == "lipi-ae-s" and one else preset

    @property
    def experiment(self) -> Experiment:
        """The settings. Raises ValueError if the operator or schedule was a user's function."""
        return Experiment(**self.config["experiment"])

    def place(self, trial: int, cell: int | None = None) -> int:
        """Index into `population` of a trial's cell, by default its best."""
        if trial not in self.numbers:
            raise ValueError(f"trial {trial} is not in this run; {held_in_words(self.numbers)}")
        slot, cells = self.numbers.index(trial), self.setting("cells")
        if cell is None:
            cell = self.result["trials"][slot]["best_cell"]
        if not 0 <= cell < cells:
            raise ValueError(f"cell {cell} is not in this run; it holds 0 to {cells - 1}")
        return slot * cells + cell

    def best(
        self, trial: int = 0, cell: int | None = None, *, compact: bool = False
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Encoder and decoder of the trial's best cell, or of a given one, as plain modules.

        `compact` leaves out the units and inputs that change nothing; the first part of the encoder
        then picks the inputs that are read.
        """
        place = self.place(trial, cell)
        if compact:
            return compaction.compact_member(self.population, place)
        return self.population.member(place)

    def data(self, trial: int = 0) -> datasets.Dataset:
        """The data that a trial was trained on."""
        # neither matters to the data, and either may be a user's function
        known = self.config["experiment"] | {"operator": "none", "schedule": "fixed"}
        e = Experiment(**known)
        return e.load_data(self.config["seed"], trial)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's `config.json`. Raises ValueError if it is damaged."""
    path = folder / CONFIG
    config = read_json(path)
    if SEAL in config or "trials" not in config:  # else it is one of before
        config = read_sealed(path)
    if not {"experiment", "seed"} <= set(config):
        raise damaged(path, "it lacks experiment or seed")
    return config


def numbers_in(result: dict[str, Any]) -> list[int]:
    """The numbers of a result's trials, ascending."""
    return [row["trial"] for row in result["trials"]]


def held_in_words(numbers: Sequence[int]) -> str:
    """Which trials there are, for a person who asked for another."""
    slices = (f"{s.start}" if len(s) == 1 else f"{s.start} to {s[-1]}" for s in slices_of(numbers))
    return f"it holds {', '.join(slices)}"


def slices_of(numbers: Iterable[int]) -> list[range]:
    """Trial numbers as the fewest ranges, ascending."""
    found: list[range] = []
    for number in sorted(numbers):
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def header(path: Path) -> None:
    """Open a safetensors file without reading its tensors."""
    with safe_open(path, "pt"):
        pass


def if_it_fits(path: Path, said: str | None, read: Callable[[Path], Value]) -> tuple[Value] | None:
    """What `read` makes of a file, if that is there and has this digest (or none is known)."""
    try:
        with path.open("rb") as file:
            if said is not None and digest(path) != said:
                return None
            found = read(path)
            # opened all the while, so that no other file can be taken for it
            same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return (found,) if same else None


# -- writing -------------------------------------------------------------------------------------


def history_rows(state: State) -> dict[str, np.ndarray]:
    """The history's columns after one epoch, one row per place."""
    slot, cell = np.divmod(np.arange(len(state.population)), state.experiment.cells)
    epoch = np.full(len(slot), state.epoch)
    where = (np.array(state.trials)[slot], epoch, cell)
    return dict(zip(PLACE_COLUMNS, where, strict=True)) | state.records


def history_of(parts: Iterable[dict[str, np.ndarray]]) -> pd.DataFrame:
    """One table of the columns of several epochs, by trial, epoch and cell."""
    return in_order(pd.concat([pd.DataFrame(part) for part in parts])[COLUMNS])


def in_order(history: pd.DataFrame) -> pd.DataFrame:
    """A history's rows by trial, epoch and cell."""
    return history.sort_values(PLACE_COLUMNS, kind="stable", ignore_index=True)


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over trials of every number that they have; none hides that one is not finite."""
    names = [k for k, value in rows[0].items() if k != "trial" and not isinstance(value, list)]
    values = {name: [row[name] for row in rows] for name in names}
    return {k: None if None in v else float(np.mean(v)) for k, v in values.items()}


def write_config(
    folder: Path, experiment: Experiment, seed: int, changes: Sequence[Sequence[Any]] = ()
) -> None:
    """Write what a run is of: settings, preset, seed, versions; changes, if any were made."""
    packages = ("evoae", "torch", "numpy", "pandas", "safetensors")
    config = {
        "experiment": experiment.settings(),
        "preset": experiment.preset_name,
        "seed": seed,
        "meaning": MEANING,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }
    write_json(folder / CONFIG, config | ({"changes": changes} if changes else {}))


def present(folder: Path) -> Run | None:
    """The run as it is, or None if it has to be computed, for want of a file or of all.

    Raises ValueError if it is damaged.
    """
    try:
        missing = any(
            not (folder / name).exists() and not awaiting(folder / name).exists() for name in FILES
        )
    except OSError as error:
        raise ValueError(f"{named(folder)}: cannot be read ({error.strerror})") from error
    if missing:
        return None
    run = Run(folder)
    run.check()
    return run


def add(folder: Path, more: Sequence[tuple[State, pd.DataFrame]], seconds: float) -> None:
    """Add trials to a run's files, or begin them, from their last states and whole histories.

    `seconds` is what they took together. The caller holds the run's lock.
    """
    stored = present(folder)
    history = pd.concat([table for _, table in more])
    with training.one_thread():
        rows = [row for state, table in more for row in trial_results(state, table)]
    networks = [state.population for state, _ in more]
    steps = sum(state.model_steps for state, _ in more)
    engines = {state.engine for state, _ in more}
    if stored is not None:
        history = pd.concat([stored.history, history])
        rows = stored.result["trials"] + rows
        networks = [stored.population, *networks]
        seconds += stored.result["seconds"]
        steps += stored.result["model_steps"]
        engines |= set(stored.result["engine"].split(" and "))
    order = np.argsort([row["trial"] for row in rows], kind="stable")
    rows = finite([rows[slot] for slot in order])
    settle(folder)
    with whole(awaiting(folder / HISTORY)) as part:
        in_order(history).to_parquet(part, index=False)
    with whole(awaiting(folder / WEIGHTS)) as part:
        population.save(joined(networks, order), part)
    others = {name: digest(awaiting(folder / name)) for name in (HISTORY, WEIGHTS)}
    result = {
        "trials": rows,
        "mean": means(rows),
        "seconds": seconds,
        "model_steps": steps,
        "model_steps_per_second": steps / seconds if seconds else None,
        "engine": " and ".join(sorted(engines)),
        "files": {CONFIG: digest(folder / CONFIG), **others},
    }
    if stored is None:  # a new run is there when its result is, which comes last
        (folder / RESULT).unlink(missing_ok=True)
        for name in others:
            os.replace(awaiting(folder / name), folder / name)
    write_json(folder / RESULT, result)
    settle(folder)


def joined(parts: Sequence[Population], order: np.ndarray) -> Population:
    """The weights of all parts' trials, in an order of these, in the CPU's memory."""
    sides = []
    for networks in zip(*(part.sides for part in parts), strict=True):
        weights = torch.cat([each.weights.cpu() for each in networks])
        by_trial = weights.reshape(len(order), -1, weights.shape[1])[torch.from_numpy(order)]
        sides.append(replace(networks[0], tensors={"weights": by_trial.flatten(0, 1)}))
    return Population(*sides, variational=parts[0].variational)


def settle(folder: Path) -> None:
    """Bring the files that await it to their place, if `result.json` speaks of them.

    Others were left by a process that was killed before it came to that, and are removed. The
    caller holds the run's lock.
    """
    result = folder / RESULT
    said = read_sealed(result)["files"] if result.exists() else {}
    for name in (HISTORY, WEIGHTS):
        path = awaiting(folder / name)
        if path.exists():
            if digest(path) == said.get(name):
                os.replace(path, folder / name)
            else:
                path.unlink()


def keep(
    out: Path | str, state: State, history: Iterable[dict[str, np.ndarray]], seconds: float
) -> Run:
    """Write a training as a run below `out`, and return it. The state is not changed.

    `history` has the `history_rows` of every epoch that was done, `seconds` is what they took.
    Settings that were changed on the way are recorded, and make it a run of its own; so does an end
    before the last epoch, as a change of `epochs`. Raises ValueError if no epoch was done, OSError
    if it cannot be written.
    """
    done, e, changes = state.epoch + 1, state.experiment, list(state.changes)
    if not done:
        raise ValueError("nothing to keep: no epoch is done")
    if done < e.epochs:
        changes.append((done, "epochs", e.epochs, done))
        e = e.replace(epochs=done)
    changes = [[identity.describe(v) if callable(v) else v for v in each] for each in changes]
    folder = Path(out) / e.hash(seed=state.seed, **({"changes": changes} if changes else {}))
    folder.mkdir(parents=True, exist_ok=True)
    state, table = replace(state, experiment=e), history_of(history)
    last = table.epoch == done - 1
    if table.train_l1[last].isna().all():  # it was not to be the last
        with training.one_thread():
            data = [state.data[slot].train for slot in range(len(state.trials))]
            rows = [each for each in data for _ in range(e.cells)]
            losses = training.data_losses(state.population, rows, state.engine).numpy()
        table.loc[last, "train_l1"] = losses
    with locked(folder / LOCK):
        stored = present(folder)
        if stored is None or not set(state.trials) <= set(stored.numbers):
            if not (folder / CONFIG).exists():
                write_config(folder, e, state.seed, changes)
            add(folder, [(state, table)], seconds)
    return Run(folder)
