"""evoae: evolve and prune autoencoders while they train."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
# where a name is defined: it is imported when it is asked for, so that `import evoae` is quick
_HOMES = {
    "Experiment": "experiment",
    "Run": "runs.run",
    "State": "evolution.cells",
    "Study": "runs.study",
    "SweepError": "runs.sweeps",
    "evolve": "evolution.loop",
    "grid": "runs.grids",
    "one_at_a_time": "runs.grids",
    "run": "runs.sweeps",
    "sweep": "runs.sweeps",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evoae' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"evoae.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
