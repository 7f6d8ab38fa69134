"""Explore schedules: what they mean, before anything is trained."""

from __future__ import annotations

from typing import Any

from ipywidgets import (
    Dropdown,
    IntText,
    SelectionSlider,
    SelectMultiple,
    VBox,
)

from evoae.experiment import SETTINGS, Experiment
from evoae.pruning.schedules import SCHEDULES
from evoae.study.widgets import views
from evoae.study.widgets.parts import View, knob, knob_of, row, slider_of

SLIDERS = (
    "probability", "steepness", "last_share", "target_sparsity", "prune_until", "amount",
)  # fmt: skip
READINGS = {"released": True, "intended": False}
SUBPOPULATIONS = [1, 3, 5, 7, 9]


class ScheduleExplorer(View):
    """What schedules mean, before anything is trained.

    The arguments are the first values of the knobs; `schedules` are names separated by spaces. A
    `subpopulation` of 1 is canonical training, any other is `lipi-ae-s` on its ring of ten. Raises
    ValueError for impossible arguments.
    """

    render = staticmethod(views.schedule_figure)

    def __init__(
        self,
        schedules: str = "exponential fixed",
        probability: float = 0.5,
        steepness: float = 2.0,
        last_share: float = 0.25,
        target_sparsity: float = 0.5,
        amount: float = 0.1,
        reading: str = "released",
        epochs: int = 400,
        subpopulation: int = 3,
        prune_until: float = 1.0,
    ) -> None:
        shares = (probability, steepness, last_share, target_sparsity, prune_until, amount)
        values = dict(zip(SLIDERS, shares, strict=True))
        for name in schedules.split() or [""]:
            numbers = values | {"epochs": epochs}
            preset, settings = settings_meant(name, reading, subpopulation, numbers)
            Experiment.preset(preset, **settings)
        self.schedules = knob(
            SelectMultiple,
            "Schedules",
            f"{SETTINGS['schedule'].says} Hold Ctrl or Shift to pick several.",
            options=list(SCHEDULES),
            value=schedules.split(),
            rows=len(SCHEDULES),
        )
        for name in SLIDERS:
            setattr(self, name, slider_of(name, values[name]))
        self.reading = knob(
            Dropdown, "Reading", SETTINGS["as_released"].says, options=list(READINGS), value=reading
        )
        self.subpopulation = knob(
            SelectionSlider,
            "Sub-population",
            f"A cell and its neighbours; 1 is canonical training. {SETTINGS['radius'].says}",
            options=SUBPOPULATIONS,
            value=subpopulation,
        )
        self.epochs = knob_of("epochs", IntText, value=epochs)
        sliders = [getattr(self, name) for name in SLIDERS]
        columns = [*sliders, self.reading, self.subpopulation, self.epochs]
        super().__init__(row(self.schedules, VBox(columns[:4]), VBox(columns[4:])))
        for each in (self.schedules, *columns):
            each.observe(self.redraw, "value")

    def parameters(self) -> dict[str, Any]:
        """The knobs, by the names of the arguments."""
        return {
            "schedules": " ".join(self.schedules.value),
            **{name: round(getattr(self, name).value, 6) for name in SLIDERS},
            "reading": self.reading.value,
            "epochs": self.epochs.value,
            "subpopulation": self.subpopulation.value,
        }

    def settings(self, schedule: str = "") -> tuple[str, dict[str, Any]]:
        """Preset and settings of one schedule, by default the first that is picked."""
        numbers = self.parameters()
        picked, reading, size = (
            numbers.pop(name) for name in ("schedules", "reading", "subpopulation")
        )
        return settings_meant(schedule or "".join(picked.split()[:1]), reading, size, numbers)

    def look(self) -> views.Schedules:
        """The schedules that are picked."""
        preset, settings = self.settings()
        return views.Schedules(Experiment.preset(preset, **settings), self.schedules.value)


def settings_meant(
    schedule: str, reading: str, subpopulation: int, numbers: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The preset and settings that the explorer's knobs mean. Raises ValueError."""
    if not schedule:
        raise ValueError(f"pick at least one schedule of {', '.join(SCHEDULES)}")
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; choose one of {', '.join(READINGS)}")
    if subpopulation not in SUBPOPULATIONS:
        raise ValueError(f"subpopulation={subpopulation} must be one of {SUBPOPULATIONS}")
    settings = {"operator": "random", "schedule": schedule, **numbers}
    settings["as_released"] = READINGS[reading]
    if subpopulation == 1:
        return "canonical", settings
    return "lipi-ae-s", settings | {"radius": subpopulation // 2}
