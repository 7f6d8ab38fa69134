"""Widgets for a notebook: explore schedules, bring data, watch a training, compare, look inside.

Each shows the picture of a frozen state, drawn by a pure function (`views`). Training runs in a
background thread (`trainer`), so a notebook stays usable.
"""

from evoae.study.widgets.explorer import ScheduleExplorer
from evoae.study.widgets.inspector import ActivationInspector
from evoae.study.widgets.live import LiveTraining
from evoae.study.widgets.trainings import TrainingsSoFar
from evoae.study.widgets.your_data import YourData

__all__ = ["ActivationInspector", "LiveTraining", "ScheduleExplorer", "TrainingsSoFar", "YourData"]
