"""What a job of trials has reached, in a file from which it goes on with the same bits.

`checkpoint-A-B.safetensors` holds trials A to B - 1 of a run, with the digest of the file and the
identity of the run: the hash of its settings, its seed, its trials and the engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from evoae.evolution.cells import State, load_data, members_of
from evoae.experiment import Experiment
from evoae.networks import population, training
from evoae.study.runs.files import SEAL, UNSEALED, check_seal, damaged, seal, whole

NAME = re.compile(r"checkpoint-(\d+)-(\d+)\.safetensors")
CURE = "remove it to begin again"


def path_of(folder: Path, trials: range) -> Path:
    """Where the checkpoint of these trials lies."""
    return folder / f"checkpoint-{trials.start}-{trials.stop}.safetensors"


def found_in(folder: Path) -> list[range]:
    """The trials of each checkpoint in a folder, the shortest first.

    A shorter one has gone on from a longer one where they overlap: whoever needs some of the trials
    of a checkpoint takes them over and goes on alone.
    """
    matches = (NAME.fullmatch(path.name) for path in folder.iterdir())
    ranges = [range(int(match[1]), int(match[2])) for match in matches if match]
    return sorted(ranges, key=lambda trials: (len(trials), trials.start))


def source_of(folder: Path, trials: range) -> Path | None:
    """The checkpoint from which these trials go on, if there is one."""
    for held in found_in(folder):
        if trials.start >= held.start and trials.stop <= held.stop:
            return path_of(folder, held)
    return None


def identity(path: Path, seed: int) -> dict[str, Any]:
    """What tells the checkpoints of a run from those of others: its directory's name is its hash.

    A worker process may not be able to hash a function of the user's as its parent does.
    """
    return {"run": path.parent.name, "seed": seed}


def save(
    path: Path, state: State, history: Sequence[dict], seconds: float
) -> dict[str, np.ndarray]:
    """Write the state, the history's columns until then, and the seconds it took.

    Returns the columns: joined, many epochs take less memory.
    """
    joined = {key: np.concatenate([rows[key] for rows in history]) for key in history[0]}
    columns = {f"history/{key}": values for key, values in joined.items()}
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in columns.items()}
    tensors["learning_rate"] = torch.from_numpy(state.learning_rate)
    for side, networks in zip(("encoder", "decoder"), state.population.sides, strict=True):
        tensors |= {f"{side}/{k}": t.contiguous() for k, t in networks.tensors.items()}
    known = {
        SEAL: UNSEALED,
        **identity(path, state.seed),
        "trials": state.trials,
        "engine": state.engine,
        "epoch": state.epoch,
        "model_steps": state.model_steps,
        "seconds": seconds,
    }
    with whole(path) as part:
        save_file(tensors, part, metadata={"state": json.dumps(known)})
        seal(part)
    return joined


def load(
    path: Path, experiment: Experiment, trials: range, seed: int, device: str, engine: str = "auto"
) -> tuple[State, list[dict], float]:
    """The state, history and seconds of some of a checkpoint's trials.

    Raises ValueError if the file is damaged, or of another run, or was made by another engine.
    """
    try:
        with safe_open(path, "pt") as file, path.open("rb") as content:
            known = json.loads(file.metadata()["state"])
            check_seal(path, content, known.get(SEAL), CURE)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (
        OSError,
        SafetensorError,
        KeyError,
        TypeError,
        AttributeError,
        json.JSONDecodeError,
    ) as error:
        raise damaged(path, error, CURE) from error
    wanted = identity(path, seed)
    if {key: known.get(key) for key in wanted} != wanted or not set(trials) <= set(known["trials"]):
        raise ValueError(f"{path}: a checkpoint of another run; {CURE}")
    if engine not in ("auto", known["engine"]):
        raise ValueError(
            f"{path}: begun by engine {known['engine']}, not {engine}; choose another folder"
        )
    e, cells, slots = experiment, experiment.cells, np.searchsorted(known["trials"], list(trials))
    data = load_data(e, trials, seed, device)
    members = members_of(slots.tolist(), cells)
    sides = (
        {
            key.removeprefix(f"{side}/"): tensor[members].to(device)
            for key, tensor in tensors.items()
            if key.startswith(f"{side}/")
        }
        for side in ("encoder", "decoder")
    )
    networks = population.of_tensors(data[0].dimension, e.model, e.kind, *sides)
    widths = [side.widths for side in networks.sides]
    chosen = training.choose_engine(known["engine"], widths, torch.device(device).type)
    rates = tensors["learning_rate"].numpy()[slots]
    state = State(e, seed, list(trials), data, networks, rates, chosen)
    share = len(trials) / len(known["trials"])
    state.epoch, state.model_steps = known["epoch"], round(known["model_steps"] * share)
    columns = {k[8:]: t.numpy() for k, t in tensors.items() if k.startswith("history/")}
    ours = np.isin(columns["trial"], list(trials))
    return state, [{k: v[ours] for k, v in columns.items()}], known["seconds"] * share


def remove_covered(folder: Path, trials: set[int]) -> None:
    """Remove the checkpoints of which all trials are among these."""
    for held in found_in(folder):
        if trials.issuperset(held):
            path_of(folder, held).unlink(missing_ok=True)
