"""When to prune: plain functions of the epoch (paper, section on pruning schedules).

A schedule is a function `(t, final, settings) -> float`. It returns the probability of one prune
after epoch t; or, if it is declared to set a target, the share of all parameters that shall be
pruned after epoch t, and the operator prunes up to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from evoae.pruning.registry import Registry, sentence


@dataclass(frozen=True)
class ScheduleSettings:
    """What a schedule may read besides the epoch.

    `probability` is the base probability p, `subpopulation` the number of cells in a
    sub-population (1 when canonical), `steepness` bends `exponential`, `last_share` is the part of
    the run in which `final-n` prunes and that `prune-once` leaves, `target_sparsity` is where
    `cubic` and `one-shot` end, `prune_until` the share of the run at which they do, and `decrease`
    says which reading of that schedule holds: "released" or "intended".
    """

    probability: float = 0.5
    subpopulation: int = 1
    steepness: float = 2.0
    last_share: float = 0.25
    target_sparsity: float = 0.5
    prune_until: float = 1.0
    decrease: str = "released"


@dataclass(frozen=True)
class Schedule:
    """A schedule's function, and whether what it gives is a target sparsity."""

    function: Callable[[int, int, ScheduleSettings], float]
    target: bool = False

    def __call__(self, t: int, final: int, settings: ScheduleSettings) -> float:
        """What it gives after epoch t."""
        return self.function(t, final, settings)

    @property
    def description(self) -> str:
        """One sentence."""
        return sentence(self.function)


def elapsed(t: int, final: int) -> float:
    """The share of the pruning clock that has run; a clock of length 0 has run out."""
    return t / final if final else 1.0


def fixed(t: int, final: int, s: ScheduleSettings) -> float:
    """Prune with probability p in every epoch."""
    return s.probability


def increase(t: int, final: int, s: ScheduleSettings) -> float:
    """Rise evenly from 0 to p."""
    return s.probability * elapsed(t, final)


def decrease(t: int, final: int, s: ScheduleSettings) -> float:
    """Fall evenly: as released from 1 to 1 - p, as the text means from p to 0."""
    if s.decrease == "released":
        return 1 - s.probability * elapsed(t, final)
    return s.probability * (1 - elapsed(t, final))


def population(t: int, final: int, s: ScheduleSettings) -> float:
    """As `increase`, divided by the number of cells in a sub-population."""
    return s.probability * elapsed(t, final) / s.subpopulation


def exponential(t: int, final: int, s: ScheduleSettings) -> float:
    """Rise quickly, then level off: p (1 - exp(-steepness t / T))."""
    return s.probability * (1 - math.exp(-s.steepness * elapsed(t, final)))


def final_n(t: int, final: int, s: ScheduleSettings) -> float:
    """Prune with probability p in the last share of the run only."""
    return s.probability if final - t <= s.last_share * final else 0.0


def prune_after(t: int, final: int, s: ScheduleSettings) -> float:
    """Prune with probability p once the clock has run out (with `pruning_clock=epochs`: never)."""
    return s.probability if t >= final else 0.0


def prune_once(t: int, final: int, s: ScheduleSettings) -> float:
    """Prune with probability p at one epoch, and leave the last share of the run to recover."""
    return s.probability if t == round((1 - s.last_share) * final) else 0.0


def cubic(t: int, final: int, s: ScheduleSettings) -> float:
    """Rise to a target sparsity, fast first and slow at the end (Zhu & Gupta 2017)."""
    return s.target_sparsity * (1 - (1 - min(1.0, elapsed(t, final) / s.prune_until)) ** 3)


def one_shot(t: int, final: int, s: ScheduleSettings) -> float:
    """Leap to a target sparsity at `prune_until`; what is left of the run fine-tunes."""
    return s.target_sparsity if elapsed(t, final) >= s.prune_until else 0.0


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    {
        "fixed": Schedule(fixed),
        "increase": Schedule(increase),
        "decrease": Schedule(decrease),
        "population": Schedule(population),
        "exponential": Schedule(exponential),
        "final-n": Schedule(final_n),
        "prune-after": Schedule(prune_after),
        "prune-once": Schedule(prune_once),
        "cubic": Schedule(cubic, target=True),
        "one-shot": Schedule(one_shot, target=True),
    },
)


def register(
    name: str, function: Callable[[int, int, ScheduleSettings], float], *, target: bool = False
) -> None:
    """Give a user's schedule a name. Raises ValueError if it is none, or the name is taken."""
    SCHEDULES.add(name, Schedule(function, target))


def find(schedule: str | Callable[..., float]) -> Schedule:
    """The schedule behind a name, or of a function. Raises ValueError with the names."""
    if isinstance(schedule, Schedule):
        return schedule
    return Schedule(schedule) if callable(schedule) else SCHEDULES.named(schedule)
