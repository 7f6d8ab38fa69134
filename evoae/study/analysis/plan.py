"""The full-size designs in blocks: their sizes, fixed beforehand, and the order of their parts.

`python -m evoae.study.analysis.plan uniformity --blocks 10 --out runs` runs the first ten blocks of
a design, part after part, and puts them into the table that the package keeps. It resumes: runs
that are in the folder are not run again. A block takes so many seconds of one core: uniformity 540
(the first seven parts; 1,600 with all), mechanism 650 (the first three parts; 2,000 with all),
guided 250, schedules 110. Before the first block, rates are tuned for some ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from evoae.experiment import Experiment
from evoae.rules import check_known
from evoae.study.analysis import blocks, mechanism, results, uniformity
from evoae.study.analysis.uniformity import Rates, Size
from evoae.study.runs.grids import Design
from evoae.study.runs.study import Study
from evoae.study.runs.sweeps import sweep

Sweep = Callable[..., Study]

# The paper's training has 400 epochs; with half of them the designs cost half.
U_TRAINING: dict[str, Any] = {"epochs": 200, "prune_count": 25}
U_CELLS = 10
U_RATES = [3e-4, 1e-3, 3e-3]
SMALL: list[Size] = [(50, 30), (100, 30), (300, 30)]
WIDTHS: list[Size] = [(100, 5), (100, 10), (100, 100)]
LARGE: list[Size] = [(1000, 30)]
FEW = [("independent", "own"), ("even", "own"), ("independent", "shared")]
OWN = uniformity.arms_of(["independent"])
ALL = uniformity.arms_of(list(uniformity.POSITIONS))
POPULATIONS = ["isolated", "ring"]
# Parts of design U in the order in which they are run: sizes, places, rates and arms. First the
# dearest levels are thinned out; the last two parts complete the design.
U_PARTS: list[tuple[list[Size], list[str], list[str], list[tuple[str, str]]]] = [
    ([*SMALL, *WIDTHS[:2]], ["alone"], [*uniformity.RATES], OWN),
    (SMALL[:1], POPULATIONS, [*uniformity.RATES], OWN),
    (SMALL[1:2], POPULATIONS, [*uniformity.RATES], OWN),
    ([*LARGE, *WIDTHS[2:]], ["alone"], [*uniformity.RATES], OWN),
    (WIDTHS, POPULATIONS, ["constant"], FEW),
    (SMALL[2:], POPULATIONS, [*uniformity.RATES], OWN),
    (LARGE, POPULATIONS, ["as released"], FEW),
    ([*SMALL, *WIDTHS], POPULATIONS, [*uniformity.RATES], ALL),
    (LARGE, POPULATIONS, [*uniformity.RATES], ALL),
]


def u_part(run: Sweep, number: int) -> Design:
    """A part of design U, with the constant rates that it needs, tuned on trials of their own."""
    sizes, places, rates, arms = U_PARTS[number]
    tuned: Rates = {}
    if "constant" in rates:
        tuning = uniformity.tuning(sizes, U_RATES, places, **U_TRAINING)
        tuned = uniformity.rates_of(run(tuning, blocks.TUNING))
    return uniformity.design(sizes, tuned, U_CELLS, arms, places, rates, **U_TRAINING)


# Parts of A': bits, prunings and rates, which are crossed with every arrangement; the last
# two complete it.
EPOCHS = 200
A_PARTS: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = [
    (100, mechanism.PRUNINGS, mechanism.RATES),
    (300, mechanism.PRUNINGS, ("constant tuned", "mutated")),
    (1000, ("none", "random"), ("constant tuned", "mutated")),
    (300, mechanism.PRUNINGS, mechanism.RATES),
    (1000, mechanism.PRUNINGS, mechanism.RATES),
]


def a_part(run: Sweep, number: int) -> Design:
    """A part of design A', with its tuned rates and its equal dose."""
    bits, prunings, rates = A_PARTS[number]
    found = mechanism.tuning([bits], U_RATES, prunings, epochs=EPOCHS)
    tuned = mechanism.rates_of(run(found, blocks.TUNING))
    dose = 0.0
    if "random at equal dose" in prunings:
        how = mechanism.pruned_by("conjunctive", 0) | {"bits": bits, "epochs": EPOCHS}
        rate = tuned["ring", "conjunctive", bits]
        e = Experiment.preset("lipi-ae-s", rate_policy="constant", learning_rate=rate, **how)
        dose = round(mechanism.dose_of(e, blocks.TUNING[0]), 4)
    return mechanism.mechanism(bits, tuned, dose, prunings, rates, epochs=EPOCHS)


PLACES: dict[str, dict[str, Any]] = dict.fromkeys(("alone", "ring"), mechanism.CONSTANT)
SPARSITIES = [0.5, 0.8, 0.9]
MORE = [*mechanism.GUIDED, "variance-low", "magnitude"]


# Parts of guided against random pruning: place, operators, sizes of clusters, and images. First
# one autoencoder on small data, then the ring, then one autoencoder on what takes longest.
DIGITS: dict[str, Any] = {"dataset": "digits", "epochs": EPOCHS}
MNIST: dict[str, Any] = {"dataset": "mnist_5k", "epochs": 114}
G_PARTS: list[tuple[str, Sequence[str], list[Size], dict[str, Any]]] = [
    ("alone", MORE, SMALL, DIGITS),
    ("ring", mechanism.GUIDED, SMALL[1:], DIGITS),
    ("alone", MORE, [*LARGE, *WIDTHS], MNIST),
]


def guided_parts() -> Iterator[Design]:
    """Guided against random pruning at equal sparsity: over bits and widths, and on images."""
    for place, operators, sizes, pictures in G_PARTS:
        found, here = Design(), {place: PLACES[place]}
        clusters = [({"bits": bits, "epochs": EPOCHS}, width) for bits, width in sizes]
        for settings, width in [*clusters, (pictures, 30)]:
            found |= mechanism.guided(settings, width, SPARSITIES, here, operators)
        yield found


CHOSEN = ["random", "conjunctive", "variance-high", "variance-low", "magnitude"]
WHEN = ["decrease", "fixed", "increase", "exponential", "final-n"]


def schedules_part() -> Design:
    """Every operator with every schedule, a tenth of the weights zero after each of 25 prunes."""
    return mechanism.schedules({"bits": 100}, PLACES, CHOSEN, WHEN, 25, 0.1, epochs=EPOCHS)


# -- computing -----------------------------------------------------------------------------------


# The parts of a design, each made in its turn: some need rates that are tuned first.
DESIGNS: dict[str, Callable[[Sweep], Iterable[Design]]] = {
    "uniformity": lambda run: (u_part(run, number) for number in range(len(U_PARTS))),
    "mechanism": lambda run: (a_part(run, number) for number in range(len(A_PARTS))),
    "guided": lambda run: guided_parts(),
    "schedules": lambda run: [schedules_part()],
}


def compute(name: str, number: int, out: Path | str, most: int = 100, **how: Any) -> None:
    """Run the first blocks of the first parts of a design, and keep what came out.

    `how` goes to `sweep`. Raises ValueError for the name of no design, or no number of blocks.
    """
    check_known(name, DESIGNS, f"unknown design {name!r}")
    if number < 1:
        raise ValueError(f"blocks={number} must be at least 1")

    def run(design: Design, trials: int | range) -> Study:
        return sweep(design, trials, blocks.SEED, out=out, **how)

    for part in islice(DESIGNS[name](run), most):
        keep(name, run(part, number))


def keep(name: str, study: Study) -> None:
    """Put the runs of a design into the tables that the package keeps."""
    if name == "uniformity":
        results.keep(name, uniformity.table_of(study))
        return
    results.keep(name, blocks.table_of(study, mechanism.FACTORS[name]))
    if name == "mechanism":
        results.keep("mechanism_cells", mechanism.cells_of(study))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evoae.study.analysis.plan", description=__doc__
    )
    parser.add_argument("design", choices=DESIGNS)
    parser.add_argument("--blocks", type=int, default=blocks.PLANNED, help="10 were planned")
    parser.add_argument("--parts", type=int, default=100, help="only the first so many parts")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", default="runs")
    given = parser.parse_args()
    compute(given.design, given.blocks, given.out, given.parts, workers=given.workers)


if __name__ == "__main__":
    main()
