"""How long a slider move takes until the widget holds the new picture, in milliseconds.

Medians of 20: of the wall clock, and of this process's own computing, which does not grow when
others use the machine.

python tests/benchmarks/redraw.py
"""

from __future__ import annotations

import statistics
import tempfile
import time

from evoae.study.widgets import ActivationInspector, LiveTraining, ScheduleExplorer

MOVES = 20


def medians(move) -> tuple[float, float]:
    """Of MOVES calls of `move(number)`: wall clock and computing, in milliseconds."""
    taken = []
    for number in range(MOVES):
        begun = time.perf_counter(), time.process_time()
        move(number)
        ended = time.perf_counter(), time.process_time()
        taken.append([1000 * (end - begin) for begin, end in zip(begun, ended, strict=True)])
    wall, computing = zip(*taken, strict=True)
    return statistics.median(wall), statistics.median(computing)


def main() -> None:
    explorer = ScheduleExplorer("exponential fixed increase", epochs=400)
    live = LiveTraining(explorer)
    explorer.epochs.value = 30
    live.train(wait=True)
    inspector = ActivationInspector(live, tempfile.gettempdir())
    explorer.epochs.value = 400
    moves = {
        "explorer, probability": lambda n: setattr(explorer.probability, "value", 0.3 + n / 100),
        "explorer, steepness": lambda n: setattr(explorer.steepness, "value", 3 + n / 10),
        "inspector, cell": lambda n: setattr(inspector.cell, "value", (n + 1) % 10),
        "inspector, epoch": lambda n: setattr(inspector.epoch, "index", n % 15),
        "training, one more picture": lambda n: live.redraw(),
    }
    for name, move in moves.items():
        wall, computing = medians(move)
        print(f"{name:28}{wall:6.0f} ms, computing {computing:4.0f} ms")


if __name__ == "__main__":
    main()
