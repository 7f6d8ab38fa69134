"""evoae: evolve and prune autoencoders while they train.

From rows to a small network, as a scikit-learn estimator:

    from evoae import Autoencoder
    model = Autoencoder("frontier", target_sparsity=0.9, random_state=1).fit(X)
    codes = model.transform(X)

One experiment, and what it leaves behind:

    from evoae import Experiment, Run, run
    experiment = Experiment.preset("canonical", operator="random", dataset="digits", epochs=50)
    result = run(experiment, trials=3, seed=1, out="runs")
    result.history                         # a row per trial, epoch and cell
    encoder, decoder = result.best(trial=0)  # plain nn.Sequential
    Run(result.folder)                     # the same, read from its directory
    experiment.replace(operator="conjunctive")

Many of them, side by side:

    from evoae import figures, grid, sweep
    study = sweep(grid("canonical", operator=["random", "magnitude"], dataset="digits"), trials=5)
    figures.loss_over_epochs(study)

Loss against size, a whole front at once:

    from evoae import front
    found = front(Experiment.preset("frontier", dataset=X), [0.5, 0.8, 0.9], steps=90_000)
    found.table, found.sentence            # a row per trial and sparsity; the network to take

An operator or a schedule of your own is a function; it may be given a name:

    from evoae.pruning import operators, schedules
    operators.register("mine", my_operator)
    schedules.register("my-schedule", my_schedule)

`evoae list` prints every setting, operator, schedule, preset and data set with a sentence each;
`help(evoae.Experiment)` and README tell more.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
# where a name is defined: it is imported when it is asked for, so that `import evoae` is quick
_HOMES = {
    "Autoencoder": "study.runs.estimator",
    "Experiment": "experiment",
    "Pruner": "modules.pruner",
    "Run": "study.runs.run",
    "State": "evolution.cells",
    "Study": "study.runs.study",
    "SweepError": "study.runs.sweeps",
    "compact": "modules.compaction",
    "evolve": "evolution.loop",
    "evolve_modules": "evolution.modules",
    "export": "modules.exports",
    "figures": "study.figures",
    "front": "study.front",
    "front_modules": "modules.fronts",
    "grid": "study.runs.grids",
    "load_compact": "modules.exports",
    "one_at_a_time": "study.runs.grids",
    "run": "study.runs.sweeps",
    "sweep": "study.runs.sweeps",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evoae' has no attribute {name!r}")
    module = importlib.import_module(f"evoae.{_HOMES[name]}")
    value = getattr(module, name, module)  # `figures` is a module itself
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
