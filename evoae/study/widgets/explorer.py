"""Explore schedules: what they mean, before anything is trained."""

from __future__ import annotations

from typing import Any

from ipywidgets import HTML, Dropdown, IntText, SelectionSlider, SelectMultiple, VBox

from evoae.experiment import SETTINGS, Experiment
from evoae.pruning import schedules as known
from evoae.pruning.schedules import SCHEDULES
from evoae.rules import check_known
from evoae.study.widgets import views
from evoae.study.widgets.hand import Drawing
from evoae.study.widgets.parts import View, knob, knob_of, row, slider_of
from evoae.study.widgets.plots import Chart

SLIDERS = ("probability", "steepness", "last_share", "target_sparsity", "prune_until", "amount")
READINGS = {"released": True, "intended": False}
SUBPOPULATIONS = [1, 3, 5, 7, 9]
MOST_EPOCHS = 100_000  # in a notebook
DRAWN = "points"  # stands in the lists for the schedule that is drawn, whatever its points
MEANINGS = {"target sparsity": "points", "probability": "probability-points"}
FIRST_POINTS = [[0.0, 0.0], [0.4, 0.9], [1.0, 0.9]]
HOW = (
    "Drag the points. Click beside them to add one, double-click one to remove it; arrow keys "
    "move it, too."
)


class ScheduleExplorer(View):
    """What schedules mean, before anything is trained.

    The arguments are the first values of the knobs; `schedules` are names separated by spaces, at
    most one of them points such as "points:0,0;0.4,0.9;1,0.9", which are then drawn. A
    `subpopulation` of 1 is canonical training, any other is `lipi-ae-s` on its ring of ten. Raises
    ValueError for impossible arguments.
    """

    described = staticmethod(views.schedule_plot)

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
        names = schedules.split()
        by_points = [name for name in names if known.drawn(name)]
        if len(by_points) > 1:
            raise ValueError(f"schedules={schedules!r} must hold at most one drawn by points")
        kind, first = DRAWN, FIRST_POINTS
        for name in by_points:
            kind, first = name.partition(":")[0], list(map(list, known.points_of(name)))
        for name in names or [""]:
            preset, settings = settings_meant(name, reading, subpopulation, epochs, **values)
            Experiment.preset(preset, **settings)
        self.schedules = knob(
            SelectMultiple,
            "Schedules",
            f"{SETTINGS['schedule'].says} Hold Ctrl or Shift to pick several.",
            options=options(),
            value=[DRAWN if name in by_points else name for name in names],
            rows=len(options()),
        )
        self.drawing = Drawing(points=first)
        tip = "What the height of a point is"
        self.means = knob(Dropdown, "Points mean", tip, options=MEANINGS, value=kind)
        self.drawn = VBox([self.means, self.drawing, HTML(HOW)])
        for name in SLIDERS:
            setattr(self, name, slider_of(name, values[name]))
        tip = SETTINGS["as_released"].says
        self.reading = knob(Dropdown, "Reading", tip, options=list(READINGS), value=reading)
        tip = f"A cell and its neighbours; 1 is canonical training. {SETTINGS['radius'].says}"
        sizes = {"options": SUBPOPULATIONS, "value": subpopulation}
        self.subpopulation = knob(SelectionSlider, "Sub-population", tip, **sizes)
        self.epochs = knob_of("epochs", IntText, value=epochs)
        sliders = [getattr(self, name) for name in SLIDERS]
        columns = [*sliders, self.reading, self.subpopulation, self.epochs]
        left, right = VBox(columns[:4]), VBox(columns[4:])
        super().__init__(
            Chart("ScheduleExplorer.csv"), row(self.schedules, left, right), self.drawn
        )
        for each in (self.schedules, self.means, *columns):
            each.observe(self.redraw, "value")
        self.drawing.observe(self.redraw, "points")

    @property
    def knobs(self) -> dict[str, tuple[Any, str]]:
        """All knobs and the trait of each that a user sets, by name."""
        values = ("schedules", *SLIDERS, "reading", "subpopulation", "epochs")
        found = {name: (getattr(self, name), "value") for name in values}
        return found | {"means": (self.means, "value"), "points": (self.drawing, "points")}

    def named(self, option: str) -> str:
        """The name of a schedule in the list: of the drawn one, its points."""
        if option != DRAWN:
            return option
        return known.named_by_points(self.means.value, [(x, y) for x, y in self.drawing.points])

    @property
    def picked(self) -> tuple[str, ...]:
        """The names of the schedules that are picked."""
        return tuple(map(self.named, self.schedules.value))

    def parameters(self) -> dict[str, Any]:
        """The knobs, by the names of the arguments."""
        return {
            "schedules": " ".join(self.picked),
            **{name: round(getattr(self, name).value, 6) for name in SLIDERS},
            "reading": self.reading.value,
            "epochs": self.epochs.value,
            "subpopulation": self.subpopulation.value,
        }

    def settings(self, schedule: str = "") -> tuple[str, dict[str, Any]]:
        """Preset and settings of one schedule, by default the first that is picked."""
        given = self.parameters()
        first = "".join(given.pop("schedules").split()[:1])
        return settings_meant(schedule or first, **given)

    def look(self) -> views.Schedules:
        """The schedules that are picked."""
        # what points replace is no setting beside them, but it is of the other schedules
        others = [name for name in self.picked if not known.drawn(name)]
        preset, settings = self.settings(others[0] if others else "")
        return views.Schedules(Experiment.preset(preset, **settings), self.picked)

    def show(self, state: views.Schedules) -> None:
        """Draw the schedules; what none of them reads is greyed, and the pencil shown if asked."""
        super().show(state)
        found = [known.find(name) for name in state.names]
        read = set(SLIDERS)
        if all(map(known.is_pure, state.names)):
            read = set().union(*(each.reads for each in found))
            read |= {"amount", "prune_until"} if not all(each.target for each in found) else set()
        for name in SLIDERS:
            getattr(self, name).disabled = name not in read
        self.drawn.layout.display = "" if DRAWN in self.schedules.value else "none"


def options() -> list[tuple[str, str]]:
    """The schedules of a list, those that a user has registered included, and the drawn one."""
    return [*((name, name) for name in SCHEDULES), ("drawn by hand", DRAWN)]


def settings_meant(
    schedule: str, reading: str, subpopulation: int, epochs: int, **shares: float
) -> tuple[str, dict[str, Any]]:
    """The preset and settings that the explorer's knobs mean. Raises ValueError."""
    if not schedule:
        raise ValueError(f"pick at least one schedule of {', '.join(SCHEDULES)}, or draw one")
    check_known(reading, READINGS, f"unknown reading {reading!r}")
    if epochs > MOST_EPOCHS:
        raise ValueError(
            f"epochs={epochs} must be at most {MOST_EPOCHS} in a notebook; `evoae run` takes more"
        )
    if subpopulation not in SUBPOPULATIONS:
        raise ValueError(f"subpopulation={subpopulation} must be one of {SUBPOPULATIONS}")
    settings: dict[str, Any] = {"operator": "random", "schedule": schedule}
    settings |= {**shares, "epochs": epochs, "as_released": READINGS[reading]}
    settings.pop(known.replaced_by_points(schedule) or "", None)
    if subpopulation == 1:
        return "canonical", settings
    return "lipi-ae-s", settings | {"radius": subpopulation // 2}
