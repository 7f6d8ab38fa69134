"""How trials are added to a run's files, and how a training becomes a run.

The files are replaced together: the new ones are written beside the old under names of their own,
then `result.json`, which names the digests of the others, takes its place, and the others follow.
So a reader finds every file that `result.json` speaks of, under one name or the other, whenever the
writer is killed.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import torch

import evoae
from evoae import identity
from evoae.data import memory
from evoae.evolution.cells import RECORDS, State, members_of
from evoae.evolution.evaluation import trial_results
from evoae.experiment import Experiment, meaning
from evoae.networks import population, training
from evoae.networks.population import Population
from evoae.study.runs.files import digest, finite, read_sealed, replace_file, whole, write_json
from evoae.study.runs.locks import locked
from evoae.study.runs.run import (
    CONFIG,
    FILES,
    HISTORY,
    RESULT,
    WEIGHTS,
    Run,
    kept,
    means,
    pending,
    there,
)

KEYS = ["trial", "epoch", "cell"]
COLUMNS = [*KEYS, *RECORDS]
LOCK = ".lock"  # held while a run's files are changed, not while its trials are trained


def history_rows(state: State) -> dict[str, np.ndarray]:
    """The history's columns after one epoch, one row per network."""
    slot, cell = np.divmod(np.arange(len(state.population)), state.experiment.cells)
    epoch = np.full(len(slot), state.epoch)
    where = (np.array(state.trials)[slot], epoch, cell)
    return dict(zip(KEYS, where, strict=True)) | state.records


def history_of(parts: Iterable[dict[str, np.ndarray]]) -> pd.DataFrame:
    """One table of the columns of several epochs, by trial, epoch and cell."""
    return in_order(pd.concat([pd.DataFrame(part) for part in parts])[COLUMNS])


def in_order(history: pd.DataFrame) -> pd.DataFrame:
    """A history's rows by trial, epoch and cell."""
    return history.sort_values(KEYS, kind="stable", ignore_index=True)


def keep_rows(out: Path, experiment: Experiment) -> None:
    """Write rows that are in memory into a folder of runs, once for all of them. Raises OSError."""
    rows = experiment.dataset
    if isinstance(rows, memory.Rows):
        path = kept(out, rows)
        if not path.exists():
            with whole(path) as part:
                memory.write(rows, part)
        rows.path = path


def write_config(
    folder: Path, experiment: Experiment, seed: int, changes: Sequence[Sequence[Any]] = ()
) -> None:
    """Write what a run is of: settings, preset, seed, versions; changes, if any were made."""
    # what importlib.metadata finds takes a fifth of a second: it parses licences
    versions = {p.__name__: str(p.__version__) for p in (evoae, torch, np, pd, safetensors)}
    config = {
        "experiment": experiment.settings(),
        **experiment.data_summary.described,
        "preset": experiment.preset_name,
        "seed": seed,
        "meaning": meaning(experiment.settings()),
        "versions": {"python": platform.python_version()} | versions,
    }
    write_json(folder / CONFIG, config | ({"changes": changes} if changes else {}))


def present(folder: Path) -> Run | None:
    """The run as it is, or None if it has to be computed, for want of a file or of all.

    Raises ValueError if it is damaged.
    """
    if not all(there(folder / name) or there(pending(folder / name)) for name in FILES):
        return None
    run = Run(folder)
    run.check()
    return run


def add(
    folder: Path,
    more: Sequence[tuple[State, pd.DataFrame]],
    seconds: float,
    rows: Sequence[dict[str, Any]],
) -> None:
    """Add trials to a run's files, or begin them: their last states, whole histories and results.

    Those that are there already are left out: they are the same. `seconds` is what they took
    together. The caller holds the run's lock.
    """
    stored = present(folder)
    known = [] if stored is None else stored.numbers
    more = [missing for each in more if (missing := without(*each, known))]
    if not more:
        return
    history = pd.concat([table for _, table in more])
    found = {row["trial"]: row for row in rows}
    rows = [found[trial] for state, _ in more for trial in state.trials]
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
    recover(folder)
    with whole(pending(folder / HISTORY)) as part:
        in_order(history).to_parquet(part, index=False)
    with whole(pending(folder / WEIGHTS)) as part:
        population.save(joined(networks, order), part)
    others = {name: digest(pending(folder / name)) for name in (HISTORY, WEIGHTS)}
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
            replace_file(pending(folder / name), folder / name)
    write_json(folder / RESULT, result)
    recover(folder)


def without(
    state: State, history: pd.DataFrame, known: Collection[int]
) -> tuple[State, pd.DataFrame] | None:
    """A last state and a history without the trials that are known; None if nothing is left."""
    slots = [slot for slot, trial in enumerate(state.trials) if trial not in known]
    if len(slots) == len(state.trials):
        return state, history
    if not slots:
        return None
    chosen = members_of(slots, state.experiment.cells)
    fewer = replace(
        state,
        trials=[state.trials[slot] for slot in slots],
        data=[state.data[slot] for slot in slots],
        population=state.population.take(chosen),
        learning_rate=state.learning_rate[slots],
        records={name: values[chosen] for name, values in state.records.items()},
        model_steps=state.model_steps * len(slots) // len(state.trials),
    )
    return fewer, history[~history.trial.isin(known)]


def joined(parts: Sequence[Population], order: np.ndarray) -> Population:
    """The weights of all parts' trials, in an order of these, in the CPU's memory."""
    sides = []
    for networks in zip(*(part.sides for part in parts), strict=True):
        weights = torch.cat([each.weights.cpu() for each in networks])
        by_trial = weights.reshape(len(order), -1, weights.shape[1])[torch.from_numpy(order)]
        sides.append(replace(networks[0], tensors={"weights": by_trial.flatten(0, 1)}))
    encoder, decoder = sides
    return Population(encoder, decoder, parts[0].variational)


def recover(folder: Path) -> None:
    """Bring the pending files to their place, if `result.json` speaks of them.

    Others were left by a process that was killed before it came to that, and are removed. The
    caller holds the run's lock.
    """
    result = folder / RESULT
    said = read_sealed(result)["files"] if result.exists() else {}
    for name in (HISTORY, WEIGHTS):
        path = pending(folder / name)
        if path.exists():
            if digest(path) == said.get(name):
                replace_file(path, folder / name)
            else:
                path.unlink()


def save_training(
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
        raise ValueError("nothing to save: no epoch is done")
    if done < e.epochs:
        changes.append((done, "epochs", e.epochs, done))
        e = e.replace(epochs=done)
    named = [[identity.describe(v) if callable(v) else v for v in each] for each in changes]
    folder = Path(out) / e.hash(seed=state.seed, **({"changes": named} if named else {}))
    folder.mkdir(parents=True, exist_ok=True)
    keep_rows(folder.parent, e)
    state, table = replace(state, experiment=e), history_of(history)
    last = table.epoch == done - 1
    if table.train_l1[last].isna().all():  # it was not to be the last
        with training.one_thread():
            data = [state.data[slot].train for slot in range(len(state.trials))]
            inputs = [each for each in data for _ in range(e.cells)]
            losses = training.data_losses(state.population, inputs, state.engine).numpy()
        table.loc[last, "train_l1"] = losses
    with locked(folder / LOCK):
        stored = present(folder)
        if stored is None or not set(state.trials) <= set(stored.numbers):
            if not (folder / CONFIG).exists():
                write_config(folder, e, state.seed, named)
            with training.one_thread():
                rows = trial_results(state, table)
            add(folder, [(state, table)], seconds, rows)
    return Run(folder)
