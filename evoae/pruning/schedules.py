"""When to prune: plain functions of the epoch (paper, section on pruning schedules).

A schedule is `schedule(t, final, settings) -> float`. Those in `PROBABILITIES` return the
probability of one prune after epoch t; those in `TARGETS` return the share of weights that shall be
zero after epoch t, and the operator prunes up to it. A user's function gives a probability, or a
target if it is registered as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleSettings:
    """What a schedule may read besides the epoch.

    `probability` is the base probability p, `subpopulation` the number of cells in a
    sub-population (1 when canonical), `steepness` bends `exponential`, `last_share` is the part of
    the run in which `final-n` prunes, `target_sparsity` is where `cubic` ends, and `decrease` says
    which reading of that schedule holds: "released" or "intended".
    """

    probability: float = 0.5
    subpopulation: int = 1
    steepness: float = 2.0
    last_share: float = 0.25
    target_sparsity: float = 0.5
    decrease: str = "released"


Schedule = Callable[[int, int, ScheduleSettings], float]


def elapsed(t: int, final: int) -> float:
    """The share of the pruning clock that has run; a clock of length 0 has run out."""
    return t / final if final else 1.0


def fixed(t: int, final: int, s: ScheduleSettings) -> float:
    return s.probability


def increase(t: int, final: int, s: ScheduleSettings) -> float:
    return s.probability * elapsed(t, final)


def decrease(t: int, final: int, s: ScheduleSettings) -> float:
    """As released it starts at 1 and ends at 1 - p; the paper's text means p falling to 0."""
    if s.decrease == "released":
        return 1 - s.probability * elapsed(t, final)
    return s.probability * (1 - elapsed(t, final))


def population(t: int, final: int, s: ScheduleSettings) -> float:
    return s.probability * elapsed(t, final) / s.subpopulation


def exponential(t: int, final: int, s: ScheduleSettings) -> float:
    return s.probability * (1 - math.exp(-s.steepness * elapsed(t, final)))


def final_n(t: int, final: int, s: ScheduleSettings) -> float:
    return s.probability if final - t <= s.last_share * final else 0.0


def prune_after(t: int, final: int, s: ScheduleSettings) -> float:
    """p once the clock has run out. If `final` is the number of epochs, that is never."""
    return s.probability if t >= final else 0.0


def cubic(t: int, final: int, s: ScheduleSettings) -> float:
    """Target sparsity of Zhu & Gupta (2017), from 0 to `target_sparsity`."""
    return s.target_sparsity * (1 - (1 - min(1.0, elapsed(t, final))) ** 3)


PROBABILITIES: dict[str, Schedule] = {
    "fixed": fixed,
    "increase": increase,
    "decrease": decrease,
    "population": population,
    "exponential": exponential,
    "final-n": final_n,
    "prune-after": prune_after,
}
TARGETS: dict[str, Schedule] = {"cubic": cubic}


def names() -> list[str]:
    return [*PROBABILITIES, *TARGETS]


def register(name: str, schedule: Schedule, *, target: bool = False) -> None:
    """Give a user's schedule a name. Raises ValueError if it is none, or the name is taken."""
    if not callable(schedule) or not name:
        raise ValueError(f"schedule {name!r}: {schedule!r} must be a function, and have a name")
    if name in names():
        raise ValueError(f"schedule {name!r} exists already; choose a name other than {names()}")
    (TARGETS if target else PROBABILITIES)[name] = schedule


def find(name: str | Schedule) -> Schedule:
    """The function behind a name; a callable is its own. Raises ValueError with the names."""
    if callable(name):
        return name
    if name not in names():
        raise ValueError(f"unknown schedule {name!r}; choose one of {', '.join(names())}")
    return (PROBABILITIES | TARGETS)[name]
