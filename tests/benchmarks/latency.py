"""What pruned networks cost once they are compacted: python tests/benchmarks/latency.py [RUN ...]

Without a folder of a run, two are trained first: magnitude pruning to 90 % and the conjunctive
operator, both masked, on the paper's data. Every row of a table is measured in turn with the
others, in the same minute, on one thread; see `evoae.analysis.size.latency_table`.
"""

from __future__ import annotations

import argparse

import pandas as pd

from evoae import Experiment, run
from evoae.analysis.size import latency_table
from evoae.runs.run import Run

COMMON = {"pruned_weights": "masked", "loss": "bce", "learning_rate": 1e-3, "epochs": 100}
SETTINGS = {
    "magnitude": {"operator": "magnitude", "schedule": "cubic", "target_sparsity": 0.9},
    "conjunctive": {"operator": "conjunctive", "schedule": "exponential"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs")
    found = [Run(folder) for folder in options.parse_args().runs] or [
        run(Experiment.preset("canonical", **COMMON, **settings), 1, workers=1)
        for settings in SETTINGS.values()
    ]
    names = ["effective_parameters", "macs", "compact_parameters", "best_preserved", "test_l1"]
    for done in found:
        trial = done.trials.iloc[0]
        print(f"\n{done.setting('operator')}, {done.folder}")
        print(", ".join(f"{name} {trial[name]:g}" for name in names))
        print(
            latency_table(done, int(trial.trial)).to_string(
                index=False, float_format="{:.3g}".format
            )
        )


if __name__ == "__main__":
    with pd.option_context("display.width", 200):
        main()
