"""Explore schedules: what they mean, before anything is trained."""

from __future__ import annotations

import shlex
from typing import Any

from ipywidgets import (
    Dropdown,
    FloatSlider,
    IntText,
    Layout,
    SelectionSlider,
    SelectMultiple,
    Textarea,
    VBox,
)

from evoae.experiment import Experiment
from evoae.pruning.schedules import SCHEDULES
from evoae.widgets import views
from evoae.widgets.controls import READINGS, SLIDERS, View, control, row

SUBPOPULATIONS = [1, 3, 5, 7, 9]


class ScheduleExplorer(View):
    """What schedules mean, before anything is trained.

    The arguments are the first values of the controls; `schedules` are names separated by spaces.
    A `subpopulation` of 1 is canonical training, any other is `lipi-ae-s` on its ring of ten.
    Raises ValueError for impossible arguments.
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
    ) -> None:
        shares = (probability, steepness, last_share, target_sparsity, amount)
        values = dict(zip(SLIDERS, shares, strict=True))
        for name in schedules.split() or [""]:
            numbers = values | {"epochs": epochs}
            preset, settings = settings_of(name, reading, subpopulation, numbers)
            Experiment.preset(preset, **settings)
        names = list(SCHEDULES)
        self.schedules = control(
            SelectMultiple, "Schedules", options=names, value=schedules.split(), rows=len(names)
        )
        for name, description in SLIDERS.items():
            most, step = (max(10.0, steepness), 0.1) if name == "steepness" else (1.0, 0.01)
            look = {"min": 0.0, "max": most, "step": step}
            setattr(self, name, control(FloatSlider, description, value=values[name], **look))
        self.reading = control(Dropdown, "Reading", options=list(READINGS), value=reading)
        self.subpopulation = control(
            SelectionSlider, "Sub-population", options=SUBPOPULATIONS, value=subpopulation
        )
        self.epochs = control(IntText, "Epochs", value=epochs)
        self.copy = Textarea(
            description="Copy settings",
            tooltip="The command lines for what is on view",
            rows=6,
            layout=Layout(width="850px"),
            style={"description_width": "105px"},
        )
        sliders = [getattr(self, name) for name in SLIDERS]
        columns = [*sliders, self.reading, self.subpopulation, self.epochs]
        super().__init__(row(self.schedules, VBox(columns[:4]), VBox(columns[4:])), row(self.copy))
        for each in (self.schedules, *columns):
            each.observe(self.redraw, "value")

    def parameters(self) -> dict[str, Any]:
        """The controls, by the names of the arguments."""
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
        return settings_of(schedule or "".join(picked.split()[:1]), reading, size, numbers)

    def look(self) -> views.Schedules:
        preset, settings = self.settings()
        state = views.Schedules(Experiment.preset(preset, **settings), self.schedules.value)
        self.copy.value = self.command_lines()
        return state

    def command_lines(self) -> str:
        """An `evoae run` line for every schedule on view, and the notebook with what is on view."""
        lines = []
        for name in self.schedules.value:
            preset, settings = self.settings(name)
            words = [f"{key}={value}" for key, value in settings.items()]
            lines.append(["evoae", "run", preset, *words, "--trials", "1", "--seed", "1"])
        lines.append(["papermill", "notebooks/explore.ipynb", "explored.ipynb"])
        for name, value in self.parameters().items():
            lines[-1] += ["-p", name, str(value)]
        return "\n".join(map(shlex.join, lines))


def settings_of(
    schedule: str, reading: str, subpopulation: int, numbers: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The preset and settings that the explorer's controls mean. Raises ValueError."""
    if not schedule:
        raise ValueError(f"pick at least one schedule of {', '.join(list(SCHEDULES))}")
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; choose one of {', '.join(READINGS)}")
    if subpopulation not in SUBPOPULATIONS:
        raise ValueError(f"subpopulation={subpopulation} must be one of {SUBPOPULATIONS}")
    settings = {"operator": "random", "schedule": schedule, **numbers}
    settings["as_released"] = READINGS[reading]
    if subpopulation == 1:
        return "canonical", settings
    return "lipi-ae-s", settings | {"radius": subpopulation // 2}
