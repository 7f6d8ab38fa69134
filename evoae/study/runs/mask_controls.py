"""Controls made from finished runs: a run's masks, with trained, rewound or new weights.

What is a mask worth without the weights that it was found with, or its layers' shares without its
positions? Such controls are trainings of masked networks, whose start is written here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from evoae.evolution.cells import starting_networks
from evoae.experiment import Experiment
from evoae.messages import short
from evoae.networks import population
from evoae.networks.population import Population
from evoae.randomness import stream
from evoae.study.runs.files import whole
from evoae.study.runs.run import Run

MASKS = ("same", "shuffled")
WEIGHTS = ("trained", "rewound", "new")
# Same mask and rewound weights are the lottery ticket (Frankle and Carbin 2019); of a shuffled mask
# only the shares of the layers are left.
CONTROLS = {
    "same mask, rewound": ("same", "rewound"),
    "same mask, new weights": ("same", "new"),
    "shuffled mask, rewound": ("shuffled", "rewound"),
    "shuffled mask, new weights": ("shuffled", "new"),
}


def begin_from(run: Run, path: Path | str, *, mask: str = "same", weights: str = "rewound") -> Path:
    """Write a start for `initial_weights`: the trials of a run of one cell, their zeros the mask.

    `mask`: "same", or "shuffled" within each weight matrix and each bias vector. `weights` at what
    is kept: "trained" (shuffled, they move along), "rewound" to the trial's own start, or "new", as
    a run of the next seed begins. With `pruned_weights=masked` the zeros stay. Returns the path.
    Raises ValueError for other words, and for runs of several cells.
    """
    for name, word, known in (("mask", mask, MASKS), ("weights", weights, WEIGHTS)):
        if word not in known:
            raise ValueError(f"{name}={short(word)} must be one of {', '.join(known)}")
    if run.setting("cells") != 1:
        raise ValueError(f"{run.folder}: has cells={run.setting('cells')}; it must be 1")
    e, trials, seed = run.experiment, run.numbers, run.config["seed"]
    found = run.population.take(np.arange(len(trials)))
    dimension = found.encoder.widths[0]
    if weights == "trained":
        values = run.population
    elif weights == "rewound":
        values = starting_networks(e, trials, seed, dimension)
    else:
        values = starting_networks(e.replace(initial_weights=None), trials, seed + 1, dimension)
    for i, trial in enumerate(trials):
        rng = stream(seed, trial, 0, 0, "shuffled mask")
        for kept, given in zip(tensors_of(found), tensors_of(values), strict=True):
            order = np.arange(kept[i].numel())
            if mask == "shuffled":
                order = rng.permutation(order)
            zeros = (kept[i].flatten() == 0)[order]
            value = given[i].flatten()[order if weights == "trained" else slice(None)]
            kept[i] = value.masked_fill(zeros, 0).view_as(kept[i])
    # trial t begins with network t % n: that of its own number
    order = np.argsort(np.array(trials) % len(trials), kind="stable")
    with whole(Path(path)) as part:
        population.save(found.take(order), part)
    return Path(path)


def tensors_of(networks: Population) -> list[Tensor]:
    """Views of all weights [P, out, in] and biases [P, out], layer after layer."""
    return [part for side in networks.sides for layer in side.layers() for part in layer]


def controls(run: Run, folder: Path | str) -> dict[str, Experiment]:
    """Trainings of a run's masks alone, of as many steps, by name.

    The weights that each begins with go into `folder`. Their zeros stay; nothing else is pruned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (mask, weights) in CONTROLS.items():
        path = folder / f"{run.folder.name}-{mask}-{weights}.safetensors"
        begin_from(run, path, mask=mask, weights=weights)
        found[name] = run.experiment.replace(
            operator="none",
            drop_fraction=0.0,
            l1_penalty=0.0,
            pruned_weights="masked",
            initial_weights=str(path),
        )
    return found
