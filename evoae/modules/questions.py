"""What an operator asks about a layer, found by asking it, and the sums that answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evoae.networks.gradients import Gradients
from evoae.pruning.layer import Layer, Masks, OperatorSettings
from evoae.pruning.masks import decide
from evoae.pruning.operators import Operator

# what an operator may ask, and the sums that answer it
ANSWERED_BY = {
    "mean": ("total",),
    "deviation": ("total", "squares"),
    "zero_share": ("zeros",),
    "input_norm": ("inputs",),
    "gradients": ("slopes",),
    "curvature": ("slope_squares",),
    "movement": ("movement",),
    "sensitivity": ("sensitivity",),
    "recall": (),
}
LASTING = ("movement", "sensitivity")  # never begun anew


class Answers:
    """Answers to an operator: `answer(name)` for a question of `ANSWERED_BY`."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer

    mean = property(lambda self: self.answer("mean"))
    deviation = property(lambda self: self.answer("deviation"))
    zero_share = property(lambda self: self.answer("zero_share"))

    def layer(self, weight: Tensor, bias: Tensor, active: Masks | None, keeps: tuple) -> Layer:
        """A layer that asks here."""
        kept = {name: self.answer(name) if name in keeps else None for name in LASTING}
        return Layer(
            weight,
            bias,
            lambda: self,
            lambda: self.answer("input_norm"),
            lambda: self.answer("recall"),
            active,
            lambda: self.answer("gradients"),
            lambda: self.answer("curvature"),
            **kept,
        )


def questions_of(operator: Operator, settings: OperatorSettings) -> frozenset[str]:
    """What an operator asks, found by showing it two small layers; everything if it fails there."""
    asked: set[str] = set()
    draw = np.random.default_rng(0).random
    weight, bias = (torch.from_numpy(draw(size, np.float32)) for size in ((4, 3), 4))
    shown = {
        **{name: torch.from_numpy(draw(4)) for name in ("mean", "deviation", "zero_share")},
        **dict.fromkeys(("curvature", *LASTING), (weight, bias)),
        "input_norm": torch.from_numpy(draw(3)),
        "gradients": Gradients(weight, bias),
        "recall": torch.from_numpy(draw((100, 4), np.float32)),
    }

    def answer(name: str) -> Any:
        asked.add(name)
        return shown[name]

    layers = [Answers(answer).layer(weight, bias, None, operator.keeps) for _ in range(2)]
    try:
        decide(operator, layers, np.random.default_rng(0), settings)
    except Exception:  # whatever a function of a user raises on layers that it was not made for
        return frozenset(ANSWERED_BY) - {"recall"} - (set(LASTING) - set(operator.keeps))
    return frozenset(asked)
