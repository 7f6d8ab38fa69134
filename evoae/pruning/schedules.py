"""When to prune: plain functions of the epoch (paper, section on pruning schedules).

A schedule is a function `(t, final, settings) -> float`. It returns the probability of one prune
after epoch t; or, if it is declared to set a target, the share of all parameters that shall be
pruned after epoch t, and the operator prunes up to it.
"""

from __future__ import annotations

import functools
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from evoae.messages import short
from evoae.pruning.registry import Registry, sentence
from evoae.rules import check_known

# What stands before points that are drawn by hand, and whether they are target sparsities.
BY_POINTS = {"points": True, "probability-points": False}
POINTS_SAY = {
    "points": "Target sparsities of your own, instead of target_sparsity, joined by straight "
    "lines; X is the share of the run, such as points:0,0;0.4,0.9;1,0.9. Where they fall, masked "
    "weights stay pruned.",
    "probability-points": "The same with probabilities of a prune instead of target sparsities.",
}
REPLACED = {"points": "target_sparsity", "probability-points": "probability"}  # by the points
MOST_POINTS = 100


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
    def reads(self) -> frozenset[str]:
        """The settings that one of evoae's own schedules reads."""
        code = getattr(self.function, "func", self.function).__code__
        return frozenset(code.co_names) & {field.name for field in fields(ScheduleSettings)}

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


def points(
    t: int, final: int, s: ScheduleSettings, x: tuple[float, ...] = (), y: tuple[float, ...] = ()
) -> float:
    """Follow straight lines between points: X is the share of the run, Y a target sparsity."""
    at = elapsed(t, final)
    after = bisect_right(x, at)
    if after in (0, len(x)):  # level before the first point and from the last one on
        return y[0] if after == 0 else y[-1]
    (left, low), (right, high) = ((x[i], y[i]) for i in (after - 1, after))
    return min(1.0, max(0.0, low + (high - low) * (at - left) / (right - left)))


def named_by_points(kind: str, drawn: Iterable[tuple[float, float]]) -> str:
    """The one name of the schedule with these points, such as "points:0,0;0.4,0.9;1,0.9"."""
    numbers = ((repr(float(number)).removesuffix(".0") for number in pair) for pair in drawn)
    return f"{kind}:" + ";".join(map(",".join, numbers))


def points_of(name: str) -> list[tuple[float, float]]:
    """The points that a schedule is named by. Raises ValueError, with the rule, for wrong ones."""
    kind, _, text = name.partition(":")
    found: list[tuple[float, float]] = []
    for pair in text.split(";"):
        numbers = re.fullmatch(r"\s*([^,\s]+)\s*,\s*([^,\s]+)\s*", pair, re.ASCII)
        try:
            x, y = map(float, numbers.groups() if numbers else ())
        except ValueError:
            x = y = math.nan
        rising = not found or x >= found[-1][0]
        if not (0 <= x <= 1 and 0 <= y <= 1 and rising) or len(found) == MOST_POINTS:
            raise ValueError(
                f"schedule={short(name)} must be points X,Y separated by semicolons, at most "
                f"{MOST_POINTS}, X and Y in [0, 1], X never falling, such as "
                f"{kind}:0,0;0.4,0.9;1,0.9; {short(pair)} is not"
            )
        found.append((x + 0.0, y + 0.0))  # -0.0 is 0.0
    return found


@functools.lru_cache
def drawn(name: str) -> Schedule | None:
    """The schedule that is named by its points; None for another name."""
    kind, colon, _ = name.partition(":")
    if not colon or kind not in BY_POINTS:
        return None
    x, y = zip(*points_of(name), strict=True)
    return Schedule(functools.partial(points, x=x, y=y), BY_POINTS[kind])


def spelt(schedule: str | Callable[..., float]) -> str | Callable[..., float]:
    """One of evoae's schedules by its one name; any other as it is."""
    if not isinstance(schedule, str) or not drawn(schedule):
        return SCHEDULES.spelt(schedule)
    return named_by_points(schedule.partition(":")[0], points_of(schedule))


def replaced_by_points(schedule: object) -> str | None:
    """The setting in whose stead a schedule has points; None for a schedule without points."""
    kind, colon, _ = schedule.partition(":") if isinstance(schedule, str) else ("", "", "")
    return REPLACED.get(kind) if colon else None


def is_pure(schedule: str | Callable[..., float]) -> bool:
    """Whether a schedule is one of evoae's, which looks at nothing but epoch and settings."""
    return isinstance(schedule, str) and (schedule in SCHEDULES.own or bool(drawn(schedule)))


def register(
    name: str, function: Callable[[int, int, ScheduleSettings], float], *, target: bool = False
) -> None:
    """Give a user's schedule a name. Raises ValueError if it is none, or the name is taken."""
    if name.partition(":")[0] in BY_POINTS:
        raise ValueError(f"schedule {short(name)} cannot be registered: it is named by points")
    SCHEDULES.add(name, Schedule(function, target))


def find(schedule: str | Callable[..., float]) -> Schedule:
    """The schedule behind a name, or of a function. Raises ValueError with the names."""
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule):
        SCHEDULES.check(schedule)
        return SCHEDULES.of(schedule) or Schedule(schedule)
    if isinstance(schedule, str) and (found := drawn(schedule)):
        return found
    known = [*SCHEDULES, *(f"{kind}:X,Y;..." for kind in BY_POINTS)]
    check_known(schedule, known, f"unknown schedule {short(schedule)}")
    return SCHEDULES[schedule]
