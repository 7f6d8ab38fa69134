"""One layer of one autoencoder: of a run on disk or of the training of this notebook, in pictures.

A source holds networks after some epochs; `inspect` freezes what is seen of one of them, and
`described` makes pictures of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import to_hex

from evoae.data.datasets import Dataset
from evoae.experiment import Experiment
from evoae.messages import count
from evoae.networks import population, training
from evoae.networks.activations import layer_names, record
from evoae.networks.population import Population
from evoae.pruning import members
from evoae.study.analysis.inspection import EXAMPLES
from evoae.study.figures.heatmaps import ACTIVATION_COLOURS, PRUNED
from evoae.study.runs.files import read_json
from evoae.study.runs.run import Run
from evoae.study.widgets.parts import data_name, evenly
from evoae.study.widgets.pixels import MOST_BITS, Picture, Shown, coloured, examples, sampled
from evoae.study.widgets.trainer import WATCHED, Trainer, kept_epochs

IMAGES, ROWS = 10, 16  # inputs beside their reconstructions
LAST_ONLY = (
    "This run holds its last epoch only. To watch a network being pruned, train it above: a "
    'training keeps epochs, and Save writes them too while "Save epochs" is on.'
)
ACCENT = PRUNED["color"]
NOT_ZERO, ZERO = "#0072B2", "#F0E6D8"
LAST_PRUNE = {"left alone": "#DDE3E8", "removed": ACCENT, "grown back": "#56B4E9"}
MOST_UNITS = 60  # of a wider layer, evenly spaced units are drawn
NOTHING = "Nothing to look into yet: train above, or name a folder that holds runs."

# -- where networks are ----------------------------------------------------------------------------


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
        return layer_names(self.network(trial, 0, self.stored(trial)[-1])[0])


def of_run(folder: Path | str) -> Source:
    """A finished run. Raises ValueError if it cannot be read."""
    run = Run(folder)
    e, last = run.experiment, run.experiment.epochs - 1
    files = {epoch: path for epoch, path in kept_epochs(run.folder).items() if epoch < last}
    load = functools.cache(population.load)

    def network(trial: int, cell: int, epoch: int) -> tuple[Population, int]:
        if epoch != last:
            return load(files[epoch]), cell
        return run.population, run.index(trial, cell)

    def pruned(trial: int, cell: int) -> np.ndarray:
        h = run.history
        return h.epoch[(h.trial == trial) & (h.cell == cell) & h.pruned].to_numpy()

    return Source(
        e,
        run.numbers,
        lambda trial: (*(files if trial == WATCHED else ()), last),
        network,
        functools.cache(run.data),
        pruned,
        "" if files else LAST_ONLY,
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


# -- what is seen of one ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inspection:
    """One autoencoder, seen through one layer.

    `layers` are (name, units, share of zeros), input first, which has none. `activations`
    [n, units]; `weights` [out, in]; `removed` [out, in], weights that the last prune took away,
    None if it is unknown; `gone` [units], units that have no incoming weight and no bias; `inputs`
    and `reconstructions` [k, D]. `words` say what the last prune did.
    """

    heading: str
    layers: tuple[tuple[str, int, float], ...]
    activations: np.ndarray
    weights: np.ndarray
    removed: np.ndarray | None
    gone: np.ndarray
    inputs: np.ndarray
    reconstructions: np.ndarray
    image_shape: tuple[int, ...] | None = None
    words: str = ""


def inspect(source: Source, layer: str, trial: int, cell: int, epoch: int) -> Inspection:
    """One layer of one autoencoder, after an epoch that is stored."""
    networks, member = source.network(trial, cell, epoch)
    network, data = networks.take([member]), source.data(trial)
    names, layers = layer_names(network), members.layers_of(network, "weights", 0)
    number = names.index(layer)
    weight, bias = layers[number]
    pruned = source.pruned(trial, cell)
    removed, words = last_prune(network, number, pruned[pruned <= epoch])
    inputs = data.test[: IMAGES if data.image_shape else ROWS]
    with torch.no_grad(), training.one_thread():  # more threads wait for each other longer
        seen = record(network, 0, data.test[:EXAMPLES])[layer]
        outputs = network.reconstruct(inputs[None])[0]
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
    network: Population, number: int, epochs: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """Which weights of a layer the last prune removed, where that is known, and words on it.

    `network` holds one autoencoder; `epochs` are those after which its cell was pruned.
    """
    zero = torch.cat([side.weights[0] == 0 for side in network.sides])
    when = f"Last pruned after epoch {epochs[-1]}" if len(epochs) else ""
    if "removed" not in network.encoder.tensors:
        if when:
            return None, (
                f"{when}.\n\nA run on disk does not record\nwhich weights a prune removed;\n"
                "the zeros above include them."
            )
        if zero.any():
            return None, (
                "This cell itself was never pruned.\n\nIts zeros came with the network of a\n"
                "neighbour, or were there at the start."
            )
        return None, "This cell was never pruned, and nothing is zero."
    removed = torch.cat([side.tensors["removed"][0] != 0 for side in network.sides])
    if not removed.any():
        there = "\n\nThe zeros were there at the start." if zero.any() else ""
        return None, f"Nothing has been pruned yet.{there}"
    shares = [100 * int(each.sum()) / len(each) for each in (removed, zero)]
    words = (
        f"{when or 'Last pruned in another cell'}: {shares[0]:.1f} % of the network was removed, "
        f"{shares[1]:.1f} % is zero now"
    )
    return (members.layers_of(network, "removed", 0)[number][0] != 0).numpy(), words


# -- in pictures -----------------------------------------------------------------------------------


def described(state: Inspection | None) -> Shown:
    """Activations, the mask over the weights, input above reconstruction, the last prune."""
    if state is None:
        return Shown(NOTHING)
    zero = state.weights == 0
    mask = Picture(
        f"Weights (out × in), {100 * zero.mean():.1f} % are zero",
        coloured(sampled(zero), [NOT_ZERO, ZERO]),
        (("zero", ZERO), ("not zero", NOT_ZERO)),
    )
    words = ""
    if state.removed is None:
        last = Picture("What the last prune removed", words=state.words)
    else:
        words, codes = state.words, np.where(state.removed & ~zero, 2, state.removed)
        last = Picture(
            f"The last prune removed {100 * state.removed.mean():.1f} % of these weights",
            coloured(sampled(codes), list(LAST_PRUNE.values())),
            tuple(LAST_PRUNE.items()),
        )
    return Shown(state.heading, (activations(state), mask, reconstructions(state), last), words)


def activations(state: Inspection) -> Picture:
    """Units by examples; dead units are marked on the right."""
    units = state.activations.shape[1]
    shown = evenly(units, MOST_UNITS)
    values, dead = state.activations[:, shown].T, state.gone[shown]
    some = f"{len(shown)} of {units}" if len(shown) < units else count(units, "unit")
    colours = mpl.colormaps[ACTIVATION_COLOURS]
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    span = max(high - low, 1e-12)
    pixels = colours((np.nan_to_num(values, nan=low) - low) / span, bytes=True)
    marks = coloured(np.where(dead, 1, 0)[:, None].repeat(2, 1), ["#FFFFFF00", ACCENT])
    marks[:, 0, 3] = 0  # a gap
    legend = [(f"{low + share * span:.3g}", to_hex(colours(share))) for share in (0.0, 0.5, 1.0)]
    if state.gone.any():
        legend.append((f"{state.gone.sum()} dead", ACCENT))
    words = f"Activations (units × examples), {some}"
    return Picture(words, np.concatenate([pixels, marks], 1), tuple(legend))


def reconstructions(state: Inspection) -> Picture:
    """Inputs above outputs: as images, or as rows of bits."""
    error = np.abs(state.inputs - state.reconstructions).mean()
    bits = state.inputs.shape[1]
    some = "" if state.image_shape else f", {min(MOST_BITS, bits)} of {bits} columns"
    loss = f"L1 {error:.3f}" if np.isfinite(error) else "the network has diverged"
    both = [examples(rows, state.image_shape) for rows in (state.inputs, state.reconstructions)]
    gap = np.zeros_like(both[0][:1])
    words = f"Input above reconstruction, {loss}{some}"
    return Picture(words, np.concatenate([both[0], gap, both[1]]), square=bool(state.image_shape))
