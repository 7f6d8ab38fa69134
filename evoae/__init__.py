"""evoae: evolve and prune autoencoders while they train."""

from evoae.cells import State
from evoae.evolution import evolve
from evoae.experiment import Experiment
from evoae.runs import Run
from evoae.study import Study, SweepError, grid, one_at_a_time, run, sweep

__version__ = "0.1.0"
__all__ = [
    "Experiment", "Run", "State", "Study", "SweepError",
    "evolve", "grid", "one_at_a_time", "run", "sweep",
]  # fmt: skip
