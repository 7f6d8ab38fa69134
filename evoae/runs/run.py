"""A run's directory: written whole, resumed, read back.

A run is an experiment, a seed and a slice of trials. Its trials are trained in blocks, which may
run in different processes; what a block has reached lies in a checkpoint until the run is finished.
`result.json` is written last: a directory that has it is a finished run.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from evoae.data import datasets
from evoae.networks import population
from evoae.networks import training
from evoae.evolution.cells import RECORDS, State, initial
from evoae.evolution.evaluation import trial_results
from evoae.evolution.loop import evolve
from evoae.experiment import MEANING, Experiment
from evoae.networks.population import Population

# Between checkpoints; the variable reaches worker processes, too.
CHECKPOINT_SECONDS = float(os.environ.get("EVOAE_CHECKPOINT_SECONDS", "30"))
CHECKPOINT = re.compile(r"checkpoint-(\d+)-(\d+)\.safetensors")
PLACE_COLUMNS = ["trial", "epoch", "cell"]
COLUMNS = [*PLACE_COLUMNS, *RECORDS]


@dataclass(frozen=True)
class RunSpec:
    """What a run is: settings, seed, trials [start, stop), and where and how it is computed."""

    experiment: Experiment
    seed: int
    start: int
    stop: int
    out: Path
    device: str = "cpu"
    engine: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(
                f"trials {self.start}:{self.stop} are none; give a positive number, "
                "or A:B with A < B"
            )
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed={self.seed!r} must be a whole number, 0 or more, below 2**64")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"unknown device {self.device!r}; choose cpu, cuda or cuda:N")
        if self.device != "cpu" and int(self.device[5:] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {self.device!r} is not available on this machine; choose cpu")
        self.experiment.check_files()
        e = self.experiment
        tiny = population.initialise(
            e.dimension, e.model, e.kind, [np.random.default_rng(0)], "cpu"
        )
        if self.device == "cpu":
            chosen = training.choose_engine(self.engine, tiny)
            if chosen != "fused" and self.engine == "auto":
                say_once(
                    "trained by PyTorch, which is slower than the kernel: "
                    f"{training.why_not_fused(tiny)}"
                )

    @cached_property
    def folder(self) -> Path:
        return self.out / self.experiment.hash(seed=self.seed, trials=[self.start, self.stop])

    @property
    def trials(self) -> range:
        return range(self.start, self.stop)

    def checkpoint(self, trials: range) -> Path:
        return self.folder / f"checkpoint-{trials.start}-{trials.stop}.safetensors"

    def config(self) -> dict[str, Any]:
        packages = ("evoae", "torch", "numpy", "pandas", "safetensors")
        return {
            "experiment": self.experiment.settings(),
            "seed": self.seed,
            "trials": [self.start, self.stop],
            "meaning": MEANING,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        }

    def open(self) -> None:
        """Make the directory, or see that it is this run's. Raises ValueError if it is not."""
        path = self.folder / "config.json"
        if path.exists():
            found = read_json(path)
            for key in ("experiment", "seed", "trials"):
                if found.get(key) != json.loads(json.dumps(self.config()[key])):
                    raise ValueError(f"{path} holds another {key}; move the directory away")
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.config())
        except OSError as error:
            raise ValueError(f"{self.out}: cannot be written ({error.strerror})") from error

    def clear(self, locks: bool = False) -> None:
        """Remove what only an unfinished run needs, or a process that was killed has left."""
        half_written = (".*.part", ".tmp*")  # ours, and those of safetensors
        for pattern in ("checkpoint-*", *half_written, *([".lock"] if locks else [])):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def blocks(self, parts: int) -> list[range]:
        """Slices of the trials to train side by side; those that have checkpoints stay as cut."""
        found = (CHECKPOINT.fullmatch(path.name) for path in self.folder.iterdir())
        cut = [range(int(match[1]), int(match[2])) for match in found if match]
        covered = {trial for block in cut for trial in block}
        rest = [trial for trial in self.trials if trial not in covered]
        for part in np.array_split(rest, min(parts, max(1, len(rest)))):
            # a part may have a gap where a checkpoint lies: cut it into contiguous slices
            for piece in np.split(part, np.flatnonzero(np.diff(part) > 1) + 1):
                if len(piece):
                    cut.append(range(int(piece[0]), int(piece[-1]) + 1))
        return sorted(cut, key=lambda block: block.start)


@cache
def say_once(text: str) -> None:
    print(f"evoae: {text}", file=sys.stderr)


# -- files ---------------------------------------------------------------------------------------


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` if all goes well: no reader sees half a file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with whole(path) as part:
        part.write_text(json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """A JSON value with null for what JSON has no number for: the loss of a diverged network."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged or unreadable ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: damaged, it holds no JSON object")
    return value


def history_rows(state: State) -> dict[str, np.ndarray]:
    """The history's columns after one epoch, one row per place."""
    slot, cell = np.divmod(np.arange(len(state.population)), state.experiment.cells)
    epoch = np.full(len(slot), state.epoch)
    where = (np.array(state.trials)[slot], epoch, cell)
    return dict(zip(PLACE_COLUMNS, where, strict=True)) | state.records


def save_checkpoint(path: Path, state: State, history: list[dict], seconds: float) -> None:
    columns = {f"history/{k}": np.concatenate([h[k] for h in history]) for k in history[0]}
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in columns.items()}
    tensors["learning_rate"] = torch.from_numpy(state.learning_rate)
    for side, networks in zip(("encoder", "decoder"), state.population.sides, strict=True):
        tensors |= {f"{side}/{k}": t.contiguous() for k, t in networks.tensors.items()}
    known = {
        "epoch": state.epoch,
        "model_steps": state.model_steps,
        "engine": state.engine,
        "seconds": seconds,
        "changes": state.changes,
    }
    with whole(path) as part:
        save_file(tensors, part, metadata={"state": json.dumps(known)})


def load_checkpoint(
    path: Path, experiment: Experiment, trials: range, seed: int, device: str
) -> tuple[State, list[dict], float]:
    """The state, history and seconds of a block. Raises ValueError if the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            known = json.loads(file.metadata()["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state = initial(experiment, trials, seed, device, known["engine"])
        for side, networks in zip(("encoder", "decoder"), state.population.sides, strict=True):
            for key, tensor in networks.tensors.items():
                tensor.copy_(tensors[f"{side}/{key}"])
        state.learning_rate = tensors["learning_rate"].numpy()
        state.epoch, state.model_steps = known["epoch"], known["model_steps"]
        state.changes = [tuple(change) for change in known["changes"]]
        columns = {k[8:]: t.numpy() for k, t in tensors.items() if k.startswith("history/")}
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: damaged checkpoint ({error}); remove it to begin again"
        ) from error
    return state, [columns], known["seconds"]


# -- training a block ----------------------------------------------------------------------------


def train_block(
    spec: RunSpec,
    trials: range,
    tell: Callable[[int, int], None] = lambda epochs, steps: None,
    stop: threading.Event | None = None,
) -> tuple[float, float, float]:
    """Train a block of a run to its end, from its checkpoint if it has one.

    `tell(epochs, model steps)` is called with what was done since the last call. When `stop` is
    set the block saves a checkpoint after its epoch and raises KeyboardInterrupt. Returns the wall
    clock at start and end, and the seconds that earlier attempts took.
    """
    if stop is not None and stop.is_set():
        raise KeyboardInterrupt
    path, state, history, earlier = spec.checkpoint(trials), None, [], 0.0
    if path.exists():
        state, history, earlier = load_checkpoint(
            path, spec.experiment, trials, spec.seed, spec.device
        )
        tell((state.epoch + 1) * len(trials), 0)  # they were not trained now
    steps = state.model_steps if state else 0
    begun = saved = time.time()
    for state in evolve(  # noqa: B020  (a checkpoint's state is where it continues)
        spec.experiment, trials, spec.seed, device=spec.device, engine=spec.engine, state=state
    ):
        history.append(history_rows(state))
        tell(len(trials), state.model_steps - steps)
        steps, now = state.model_steps, time.time()
        stopping = stop is not None and stop.is_set()
        last = state.epoch + 1 == spec.experiment.epochs
        if stopping or last or now - saved > CHECKPOINT_SECONDS:
            save_checkpoint(path, state, history, earlier + now - begun)
            saved = now
        if stopping and not last:
            raise KeyboardInterrupt
    return begun, time.time(), earlier


# -- the result ----------------------------------------------------------------------------------


def finish(spec: RunSpec, blocks: list[range], seconds: float) -> None:
    """Join the blocks' checkpoints into the files of a finished run."""
    loaded = [
        load_checkpoint(spec.checkpoint(b), spec.experiment, b, spec.seed, spec.device)
        for b in blocks
    ]
    states = [state for state, _, _ in loaded]
    history = pd.concat([pd.DataFrame(part) for _, parts, _ in loaded for part in parts])[COLUMNS]
    history = history.sort_values(PLACE_COLUMNS, kind="stable", ignore_index=True)
    with training.one_thread():
        trials = [row for state in states for row in trial_results(state, history)]
    steps = sum(state.model_steps for state in states)
    names = [k for k, value in trials[0].items() if k != "trial" and not isinstance(value, list)]
    result = {
        "trials": trials,
        "mean": {name: float(np.mean([row[name] for row in trials])) for name in names},
        "seconds": seconds,
        "model_steps": steps,
        "model_steps_per_second": steps / seconds if seconds else None,
        "engine": " and ".join(sorted({state.engine for state in states})),
        "changes": sorted({tuple(change) for state in states for change in state.changes}),
    }
    joined = [
        replace(parts[0], tensors={"weights": torch.cat([part.weights for part in parts]).cpu()})
        for parts in zip(*(state.population.sides for state in states), strict=True)
    ]
    everything = Population(*joined, variational=states[0].population.variational)
    with whole(spec.folder / "weights.safetensors") as part:
        population.save(everything, part)
    with whole(spec.folder / "history.parquet") as part:
        history.to_parquet(part, index=False)
    write_json(spec.folder / "result.json", result)
    spec.clear()


def header(path: Path) -> None:
    """Open a safetensors file without reading its tensors."""
    with safe_open(path, "pt"):
        pass


class Run:
    """A finished run, read from its directory. Raises ValueError if a file is damaged."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        for name in ("config.json", "history.parquet", "weights.safetensors", "result.json"):
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder}: no finished run, {name} is missing")
        self.config = read_json(self.folder / "config.json")
        self.result = read_json(self.folder / "result.json")
        if not {"trials", "mean"} <= set(self.result):
            raise ValueError(f"{self.folder / 'result.json'}: damaged, it lacks trials or mean")
        openers = {"history.parquet": parquet.read_metadata, "weights.safetensors": header}
        for name, opened in openers.items():
            try:
                opened(self.folder / name)
            except (OSError, ValueError, SafetensorError) as error:
                raise ValueError(f"{self.folder / name}: damaged ({error})") from error

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per trial, epoch and cell."""
        path = self.folder / "history.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: damaged or unreadable ({error})") from error

    @cached_property
    def population(self) -> Population:
        """All centres after the last epoch; trial s (by position), cell c at s * cells + c."""
        return population.load(self.folder / "weights.safetensors")

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
    def algorithm(self) -> str:
        """The preset that the run is of; "one cell" for one cell trained as coevolution does."""
        pairing = self.setting("pairing")
        if pairing == "selected" and self.setting("cells") == 1:
            return "canonical" if self.setting("rate_policy") == "step-decay" else "one cell"
        return {"random-partner": "lipi-ae", "all-pairs": "all-vs-all"}.get(pairing, "lipi-ae-s")

    @property
    def experiment(self) -> Experiment:
        """The settings. Raises ValueError if the operator or schedule was a user's function."""
        return Experiment(**self.config["experiment"])

    def place(self, trial: int, cell: int | None = None) -> int:
        """Index into `population` of a trial's cell, by default its best."""
        start, stop = self.config["trials"]
        if not start <= trial < stop:
            raise ValueError(f"trial {trial} is not in this run; it holds {start} to {stop - 1}")
        cells = self.config["experiment"]["cells"]
        if cell is None:
            cell = self.result["trials"][trial - start]["best_cell"]
        if not 0 <= cell < cells:
            raise ValueError(f"cell {cell} is not in this run; it holds 0 to {cells - 1}")
        return (trial - start) * cells + cell

    def best(self, trial: int = 0) -> tuple[nn.Sequential, nn.Sequential]:
        """Encoder and decoder of the trial's best cell, as plain modules."""
        return self.population.member(self.place(trial))

    def data(self, trial: int = 0) -> datasets.Dataset:
        """The data that a trial was trained on."""
        # neither matters to the data, and either may be a user's function
        known = self.config["experiment"] | {"operator": "none", "schedule": "fixed"}
        e = Experiment(**known)
        return datasets.load(e.dataset, seed=self.config["seed"], trial=trial, **e.data_options)
