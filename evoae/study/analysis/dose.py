"""Schedules of an equal dose: prunes at fixed epochs, each down to one share of zeros.

Runs are identified by the source of these functions, so an edit of this file makes them anew.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from evoae.pruning.schedules import SCHEDULES, ScheduleSettings


@cache
def prune_epochs(name: str, final: int, prunes: int, until: float) -> frozenset[int]:
    """So many epochs of `final` + 1, placed where a schedule has its probability, evenly within it.

    None later than the share `until` of the run.
    """
    s = ScheduleSettings(probability=0.5, last_share=0.3, decrease="intended")
    weights = np.array([SCHEDULES[name](t, final, s) for t in range(int(until * final) + 1)])
    wanted = (np.arange(prunes) + 0.5) / prunes * weights.sum()
    found = np.searchsorted(np.cumsum(weights), wanted)
    for i in range(1, prunes):  # each an epoch of its own
        found[i] = max(found[i], found[i - 1] + 1)
    return frozenset(found.tolist())


def at_dose(
    t: int, final: int, s: ScheduleSettings, *, name: str, prunes: int, until: float
) -> float:
    """A target sparsity at the epochs of a schedule, and nothing at others."""
    return s.target_sparsity if t in prune_epochs(name, final, prunes, until) else 0.0
