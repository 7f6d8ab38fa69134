"""What the activation inspector looks into: a run on disk, or the training of this notebook."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evoae.data.datasets import Dataset
from evoae.experiment import Experiment
from evoae.networks import activations, population, training
from evoae.networks.population import Population
from evoae.pruning import members
from evoae.study.analysis.inspection import EXAMPLES
from evoae.study.runs.files import read_json
from evoae.study.runs.run import Run
from evoae.study.widgets.inside import Inspection
from evoae.study.widgets.parts import count, data_name
from evoae.study.widgets.trainer import WATCHED, Trainer, kept_epochs

IMAGES, ROWS = 10, 16  # inputs beside their reconstructions


@dataclass(frozen=True, eq=False)
class Source:
    """Networks after some epochs, and what belongs to them.

    `stored(trial)` are the epochs that were kept of a trial, `network(trial, cell, epoch)` a
    population and the index of that cell's network in it; `pruned(trial, cell)` are the epochs
    after which that centre was pruned. `note` says why there are no more epochs.
    """

    experiment: Experiment
    trials: Sequence[int]
    stored: Callable[[int], tuple[int, ...]]
    network: Callable[[int, int, int], tuple[Population, int]]
    data: Callable[[int], Dataset]
    pruned: Callable[[int, int], np.ndarray]
    note: str = ""

    @property
    def layers(self) -> list[str]:
        """The names of the layers, input first."""
        trial = self.trials[0]
        return activations.layer_names(self.network(trial, 0, self.stored(trial)[-1])[0])


def of_run(folder: Path | str) -> Source:
    """A finished run. Raises ValueError if it cannot be read."""
    run = Run(folder)
    e, last = run.experiment, run.experiment.epochs - 1
    files = {epoch: path for epoch, path in kept_epochs(run.folder).items() if epoch < last}
    load = functools.cache(population.load)

    def network(trial: int, cell: int, epoch: int) -> tuple[Population, int]:
        if epoch != last:
            return load(files[epoch]), cell
        return run.population, run.numbers.index(trial) * e.cells + cell

    def pruned(trial: int, cell: int) -> np.ndarray:
        h = run.history
        return h.epoch[(h.trial == trial) & (h.cell == cell) & h.pruned].to_numpy()

    note = (
        ""
        if files
        else (
            "This run holds its last epoch only. To watch a network being pruned, train it above: "
            'a training keeps epochs, and Save writes them too while "Save epochs" is on.'
        )
    )
    return Source(
        e,
        run.numbers,
        lambda trial: (*(files if trial == WATCHED else ()), last),
        network,
        functools.cache(run.data),
        pruned,
        note,
    )


def of_trainer(trainer: Trainer) -> Source:
    """What a training has stored so far. Raises ValueError if that is nothing yet."""
    snapshots, curves, data = trainer.snapshots, trainer.curves, trainer.data
    if not snapshots or data is None:
        raise ValueError("nothing was trained here yet: no epoch is done")
    stored = tuple(sorted(snapshots))
    return Source(
        trainer.experiment,
        range(1),
        lambda trial: stored,
        lambda trial, cell, epoch: (snapshots[epoch], cell),
        lambda trial: data,
        lambda trial, cell: np.flatnonzero(curves.pruned[:, cell]),
    )


def runs_in(folder: Path | str) -> dict[str, Path]:
    """The finished runs in a folder, newest first, by a line that tells them apart."""
    folders = {path.parent: path.stat().st_mtime for path in Path(folder).glob("*/result.json")}
    return {line_of(path): path for path in sorted(folders, key=folders.__getitem__, reverse=True)}


def line_of(folder: Path) -> str:
    """What a run is, in a line."""
    try:
        config = read_json(folder / "config.json")
        e = config["experiment"]
        words = [data_name(e["dataset"]), e["operator"], e["schedule"], count(e["cells"], "cell")]
        if config.get("changes"):
            words.append("changed on the way")
    except (ValueError, KeyError):
        words = ["damaged"]
    return f"{folder.name[:8]}: {', '.join(words)}"


def inspect(source: Source, layer: str, trial: int, cell: int, epoch: int) -> Inspection:
    """One layer of one autoencoder, after an epoch that is stored."""
    networks, member = source.network(trial, cell, epoch)
    data, layers = source.data(trial), members.layers_of(networks, "weights", member)
    names = activations.layer_names(networks)
    number = names.index(layer)
    weight, bias = layers[number]
    removed, words = last_prune(source, networks, member, number, trial, cell, epoch)
    inputs = data.test[: IMAGES if data.image_shape else ROWS]
    alone = networks.take([member])
    with torch.no_grad(), training.one_thread():  # more threads wait for each other longer
        seen = activations.record(alone, 0, data.test[:EXAMPLES])[layer]
        outputs = alone.reconstruct(inputs[None])[0]
    zeros = [float((w == 0).float().mean()) for w, _ in layers]
    units = [len(w) for w, _ in layers]
    name = data_name(source.experiment.dataset)
    return Inspection(
        f"{name}, {layer}: trial {trial}, cell {cell}, epoch {epoch}",
        (("input", data.dimension, 0.0), *zip(names, units, zeros, strict=True)),
        seen.numpy(),
        weight.numpy(),
        removed,
        ((weight == 0).all(1) & (bias == 0)).numpy(),
        inputs.numpy(),
        outputs.numpy(),
        data.image_shape,
        words,
    )


def last_prune(
    source: Source,
    networks: Population,
    member: int,
    number: int,
    trial: int,
    cell: int,
    epoch: int,
) -> tuple[np.ndarray | None, str]:
    """Which weights of a layer the last prune removed, where that is known, and words on it."""
    before = source.pruned(trial, cell)
    before = before[before <= epoch]
    when = f"Last pruned after epoch {before[-1]}" if len(before) else ""
    tensors = [side.tensors for side in networks.sides]
    if not all("removed" in t for t in tensors):
        if not len(before):
            if all((t["weights"][member] != 0).all() for t in tensors):
                return None, "This cell was never pruned, and nothing is zero."
            return None, (
                "This cell itself was never pruned.\n\nIts zeros came with the network of a\n"
                "neighbour, or were there at the start."
            )
        return None, (
            f"{when}.\n\nA run on disk does not record\nwhich weights a prune removed;\n"
            "the zeros above include them."
        )
    removed = sum(int((t["removed"][member] != 0).sum()) for t in tensors)
    if not removed:
        zeros = any((t["weights"][member] == 0).any() for t in tensors)
        return None, "Nothing has been pruned yet." + (
            "\n\nThe zeros were there at the start." if zeros else ""
        )
    zero = sum(int((t["weights"][member] == 0).sum()) for t in tensors)
    total = networks.parameters
    words = (
        f"{when or 'Last pruned in another cell'}: {100 * removed / total:.1f} % of the network "
        f"was removed, {100 * zero / total:.1f} % is zero now"
    )
    return (members.layers_of(networks, "removed", member)[number][0] != 0).numpy(), words
