"""What pruned networks cost once they are compacted: python tests/benchmarks/latency.py [RUN ...]

Without a folder of a run, two are trained first, on the paper's data: pruned to 90 % by magnitude,
and by the conjunctive operator, which takes whole units. The rows of a table take turns in being
measured, on one thread; see `sizes.latency_table`.
"""

from __future__ import annotations

import argparse

import pandas as pd
from sizes import latency_table

from evoae import Experiment, run
from evoae.study.runs.run import Run

SETTINGS = {
    "schedule": "cubic",
    "target_sparsity": 0.9,
    "pruned_weights": "masked",
    "loss": "bce",
    "learning_rate": 1e-3,
    "epochs": 100,
}
OPERATORS = ("magnitude", "conjunctive")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs")
    found = [Run(folder) for folder in options.parse_args().runs] or [
        run(Experiment.preset("canonical", operator=operator, **SETTINGS), 1, workers=1)
        for operator in OPERATORS
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
