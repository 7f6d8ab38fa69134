"""What the inspector shows: one layer of one autoencoder, a frozen state and its pictures."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from evoae.study.figures.heatmaps import ACTIVATION_COLOURS, PRUNED
from evoae.study.widgets.parts import count
from evoae.study.widgets.pixels import (
    MOST_BITS,
    Picture,
    Shown,
    coloured,
    evenly,
    examples,
    sampled,
)

ACCENT = PRUNED["color"]
NOT_ZERO, ZERO = "#0072B2", "#F0E6D8"
LAST_PRUNE = {"left alone": "#DDE3E8", "removed": ACCENT, "grown back": "#56B4E9"}
MOST_UNITS = 60  # of a wider layer, evenly spaced units are drawn
NOTHING = "Nothing to look into yet: train above, or name a folder that holds runs."


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
    if state.removed is None:
        last = Picture("What the last prune removed", words=state.words)
    else:
        codes = np.where(state.removed & ~zero, 2, state.removed.astype(int))
        last = Picture(
            f"The last prune removed {100 * state.removed.mean():.1f} % of these weights",
            coloured(sampled(codes), list(LAST_PRUNE.values())),
            tuple(LAST_PRUNE.items()),
        )
    words = state.words if state.removed is not None else ""
    found = (activations(state), mask, reconstructions(state), last)
    return Shown(state.heading, found, words)


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
