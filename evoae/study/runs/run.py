"""A run's directory, read: its four files, each compared with its digest.

A run is an experiment and a seed; it holds the trials that were asked for until now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from torch import nn

from evoae.data import datasets, memory
from evoae.data.scaling import Scaling
from evoae.evolution.cells import members_of
from evoae.experiment import SETTINGS, Experiment, with_new_names
from evoae.networks import compaction, population
from evoae.networks.population import RESULT, WEIGHTS, Population, pending
from evoae.study.runs.files import Temporary, damaged, digest, read_sealed

CONFIG, HISTORY = "config.json", "history.parquet"
FILES = (CONFIG, HISTORY, WEIGHTS, RESULT)
Value = TypeVar("Value")


def kept(out: Path, name: str) -> Path:
    """Where rows that were in memory are kept, for all runs of a folder."""
    return out / f"{name}.npz"


class Run:
    """A finished run, or some of its trials, read from its directory.

    Every number comes from a file that fits its digest. Raises ValueError, naming the file, if one
    is missing or damaged. A run that grows meanwhile is read as it was, or as some of what it is.
    """

    def __init__(self, folder: Path | str, trials: Collection[int] | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute()  # the working directory may change
        for name in FILES:
            path = self.folder / name
            if not there(path) and not there(pending(path)):
                raise ValueError(f"{self.folder}: not a finished run: {name} is missing")
        self.temporary: Temporary | None = None  # goes when nothing refers to it
        self.config = read_config(self.folder)
        self._stored = self._read_result()
        held = numbers_in(self._stored)
        self.numbers: list[int] = sorted(held if trials is None else trials)
        if missing := sorted(set(self.numbers) - set(held)):
            raise ValueError(f"{self.folder}: holds no trial {missing[0]}; {held_in_words(held)}")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _read_result(self) -> dict[str, Any]:
        path = self.folder / RESULT
        result = read_sealed(path)
        needed = {"trials", "mean", "files"}
        if not needed <= set(result):
            raise damaged(path, f"it lacks one of {', '.join(sorted(needed))}")
        if result["files"][CONFIG] != digest(self.folder / CONFIG):
            raise damaged(self.folder / CONFIG, f"it is not the one that {RESULT} speaks of")
        return result

    def check(self) -> None:
        """Raise ValueError if a file does not fit its digest."""
        for name in (HISTORY, WEIGHTS):
            self._fitting(name, lambda path: None)

    def _fitting(self, name: str, read: Callable[[Path], Value]) -> tuple[Value, list[int]]:
        """What `read` makes of the file that `result.json` speaks of, and the trials it holds.

        A merge may be under way: the file may be pending, or be newer than the `result.json`
        that was read, which is then read again.
        """
        final = self.folder / name
        while True:
            for path in (final, pending(final), final):  # it may have moved meanwhile
                found = if_it_fits(path, self._stored["files"][name], read)
                if found is not None:
                    return found[0], numbers_in(self._stored)
            newest = self._read_result()
            if newest == self._stored:
                if not there(final):
                    raise damaged(final, FileNotFoundError())
                raise damaged(final, "it does not fit its digest")
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
        slots = np.searchsorted(held, self.numbers)
        return networks.take(members_of(slots.tolist(), self.setting("cells")))

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
        return Experiment(**self._settings())

    def _settings(self) -> dict[str, Any]:
        """The settings; rows that were in memory are those that are kept beside the run."""
        settings = dict(self.config["experiment"])
        if memory.NAME.fullmatch(settings["dataset"]):
            name = settings["dataset"]
            settings["dataset"] = memory.Rows(name, kept(self.folder.parent, name))
        return settings

    def index(self, trial: int, cell: int | None = None) -> int:
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
        member = self.index(trial, cell)
        if compact:
            return compaction.compact_member(self.population, member)
        return self.population.member(member)

    @property
    def scaling(self) -> Scaling | None:
        """How a file's values became those that were learnt from, and back, if they were scaled.

        The networks of `best` take and give scaled values; exported ones those of the file.
        """
        if "scaling" not in self.config:  # a run of before does not hold it, but its file does
            return self.data().scaling if self.setting("scale") else None
        bounds = self.config["scaling"]
        return None if bounds is None else Scaling.from_json(bounds)

    def data(self, trial: int = 0) -> datasets.Dataset:
        """The data that a trial was trained on."""
        # none of them matters to the data, and two may be a user's functions
        plain = {"operator": "none", "schedule": "fixed", "drop_fraction": 0.0}
        return Experiment(**self._settings() | plain).load_data(self.config["seed"], trial)


def there(path: Path) -> bool:
    """Whether a file is there. Raises ValueError if that cannot be seen."""
    try:
        return path.lstat() is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise damaged(path, error) from error


def read_config(folder: Path) -> dict[str, Any]:
    """A run's `config.json`. Raises ValueError if it is damaged."""
    path = folder / CONFIG
    config = read_sealed(path)
    if not {"experiment", "seed"} <= set(config):
        raise damaged(path, "it lacks experiment or seed")
    # a setting that is newer than the run has the default: what was done before there was it
    found = with_new_names(config["experiment"])
    newer = {k: s.default for k, s in SETTINGS.items() if k not in found}
    return config | {"experiment": found | newer}


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


def if_it_fits(path: Path, said: str, read: Callable[[Path], Value]) -> tuple[Value] | None:
    """What `read` makes of a file, if that is there and has this digest."""
    try:
        with path.open("rb") as file:
            if digest(path) != said:
                return None
            try:
                found = (read(path),)
            except (OSError, ValueError) as error:
                found = None
                why = error
            # opened all the while, so that no other file can be taken for it
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return None  # another took its place, before it was read or between two reads
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, error) from error
    if found is None:
        raise damaged(path, why) from why
    return found


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over trials of every number that they have; none hides that one is not finite."""
    names = [k for k, value in rows[0].items() if k != "trial" and not isinstance(value, list)]
    values = {name: [row[name] for row in rows] for name in names}
    return {k: None if None in v else float(np.mean(v)) for k, v in values.items()}
