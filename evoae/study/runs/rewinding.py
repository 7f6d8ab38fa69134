"""Iterative magnitude pruning with rewinding (Frankle and Carbin 2019), by ordinary runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evoae.experiment import Experiment
from evoae.study.runs.mask_controls import begin_from
from evoae.study.runs.study import Study
from evoae.study.runs.sweeps import sweep

ROUNDS = 4  # before the last training


def rewound(
    experiments: Mapping[str, Experiment],
    trials: int | range = 1,
    seed: int = 1,
    *,
    out: Path | str,
    **where: Any,
) -> Study:
    """Experiments that prune by magnitude to a target, in rounds instead of one training.

    In each of ROUNDS a network is trained, the smallest of its weights are pruned, and the others
    go back to their initial values; each round leaves the same share of what the last one left, and
    all rounds together take `prune_until` of the epochs. Then the network is trained once more for
    the rest, and that run is in the study. Its factor `steps_before` counts the rounds' model steps
    of a trial. What a training begins with is written into `out`, where runs are found again.
    """
    initial: dict[str, str] = {}
    epochs = {k: max(1, round(e.prune_until * e.epochs / ROUNDS)) for k, e in experiments.items()}
    before = dict.fromkeys(experiments, 0.0)
    for number in range(1, ROUNDS + 1):
        left = {k: (1 - e.target_sparsity) ** (number / ROUNDS) for k, e in experiments.items()}
        this_round = {
            label: e.replace(
                schedule="one-shot",
                prune_until=1.0,
                target_sparsity=e.target_sparsity if number == ROUNDS else 1 - left[label],
                epochs=epochs[label],
                initial_weights=initial.get(label),
            )
            for label, e in experiments.items()
        }
        for label, run in sweep(this_round, trials, seed, out=out, **where).runs.items():
            # other trials of the same run begin with other weights
            span = f"{run.numbers[0]}-{run.numbers[-1]}"
            path = Path(out) / f"{run.folder.name}-rewound-{span}.safetensors"
            initial[label] = str(path if path.exists() else begin_from(run, path))
            before[label] += run.result["model_steps"] / len(run.numbers)
    last = {
        label: e.replace(
            operator="none",
            l1_penalty=0.0,
            epochs=max(1, e.epochs - ROUNDS * epochs[label]),
            initial_weights=initial[label],
        )
        for label, e in experiments.items()
    }
    study = sweep(last, trials, seed, out=out, **where)
    return Study(study.runs, {label: {"steps_before": n} for label, n in before.items()})
