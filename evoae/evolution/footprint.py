"""Memory and time that a run needs, estimated from its settings before anything is made.

The estimate of memory counts the arrays that a run holds at the same time. It should be right
within a factor of two: an experiment that does not fit is refused before it fills the machine.
"""

from __future__ import annotations

from evoae.data.datasets import Size
from evoae.experiment import Experiment
from evoae.messages import Refused
from evoae.networks import population
from evoae.resources import available_memory, in_words

HISTORY_ROW = 750  # bytes: a row's columns, joined, sorted and written
# seconds on a core of some 3 GHz, with the kernel: of a run, an epoch, a step, a row on a weight
RUN, EPOCH, STEP, WEIGHT = 0.05, 2e-3, 8e-6, 1e-10

# The settings that decide how large each part is, for the message.
SHAPED_BY = {
    "data": ("dataset", "clusters", "examples", "bits"),
    "networks": ("cells", "model", "bits", "topology", "pairing"),
    "selection": ("cells", "topology", "radius", "tournament_size"),
    "batches": ("cells", "dataset", "clusters", "examples", "batch_size", "kind"),
    "history": ("epochs", "cells"),
}


def check(experiment: Experiment, trials: int) -> None:
    """Refuse an experiment whose trials, side by side, need more memory than is available.

    Raises ValueError, one line with both numbers and the settings that shape the largest part.
    Reads the file if the data set is one.
    """
    needed, available = estimate(experiment, trials), available_memory()
    if sum(needed.values()) > available:
        largest = max(needed, key=lambda part: needed[part])
        settings = ", ".join(f"{name}={getattr(experiment, name)}" for name in SHAPED_BY[largest])
        raise Refused(
            f"trials={trials} of this experiment need about {in_words(sum(needed.values()))} of "
            f"memory, but {in_words(available)} are available; most of it is for the {largest}: "
            f"{settings}"
        )


def estimate(experiment: Experiment, trials: int) -> dict[str, int]:
    """Bytes that a run needs at its peak, by part."""
    e = experiment
    size = e.data_summary.size
    members, n = trials * e.cells, e.subpopulation
    together = visited_together(e, trials)
    return {
        "data": bytes_of_data(size, trials, n if e.cells > 1 else 0),
        "networks": bytes_of_networks(e, size.dimension, members, together),
        "selection": bytes_of_selection(e, members, together, n),
        "batches": together * bytes_of_batches(e, size),
        "history": e.epochs * members * HISTORY_ROW,
    }


def seconds(experiment: Experiment, trials: int) -> float:
    """Roughly the seconds that a run takes on one core."""
    e = experiment
    size = e.data_summary.size
    widths = population.widths_of(size.dimension, e.model, e.kind)
    parameters = sum(map(population.parameter_count, widths))
    _, batches = rows_and_batches(e, size)
    steps = trials * e.epochs * e.cells * batches * (e.cells if e.pairing == "all-pairs" else 1)
    return RUN + e.epochs * EPOCH + steps * (STEP + WEIGHT * e.batch_size * parameters)


def rows_and_batches(e: Experiment, size: Size) -> tuple[int, int]:
    """How many rows, and batches, a network trains on in a visit."""
    rows = max(1, round(e.data_share * size.train))
    return rows, -(-rows // e.batch_size)


def visited_together(e: Experiment, trials: int) -> int:
    """The most cells of one wave: neighbours are never in the same one."""
    if e.update_order == "synchronous" or e.pairing == "all-pairs" or e.cells == 1:
        return trials * e.cells
    return trials * (1 if e.subpopulation == e.cells else e.cells // 2)


def bytes_of_networks(e: Experiment, dimension: int, members: int, together: int) -> int:
    """All centres with what belongs to them; beside them whatever takes most: the copies that
    learn, a checkpoint that is read or written, or the weights on their way into a file. And one
    autoencoder on which an operator works, in double precision."""
    widths = population.widths_of(dimension, e.model, e.kind)
    parameters = sum(population.parameter_count(side) for side in widths)
    units = sum(sum(side[1:]) for side in widths)
    moments = 8 if e.optimiser == "adam" else 0
    masks = 2 if e.pruned_weights == "masked" else 1  # kept ones, and those of the last prune
    network = (4 + moments + masks) * parameters + 24 * units
    learning = {"selected": 1, "random-partner": e.subpopulation + 2, "all-pairs": 3}[e.pairing]
    beside = max(learning * together * network, members * network, 3 * members * 4 * parameters)
    return members * network + beside + 32 * parameters


def bytes_of_data(size: Size, trials: int, ensemble: int) -> int:
    """Rows of all trials, what is drawn or read on the way, and a mixture's reconstructions."""
    table = 4 * size.rows * size.dimension
    held_out = table if size.held_out else 0
    on_the_way = 12 * size.train * size.dimension if size.drawn else table
    half = (size.rows - size.train) // 2
    mixture = 4 * (ensemble + 4) * half * size.dimension
    return (trials if size.drawn else 1) * table + held_out + max(on_the_way, mixture)


def bytes_of_selection(e: Experiment, members: int, together: int, n: int) -> int:
    """Neighbours of every cell; all pairs of the sub-populations, their losses, tournaments."""
    if e.pairing == "all-pairs":
        return 0
    return 24 * members * n + together * (72 * n * n + 48 * e.tournament_size)


def bytes_of_batches(e: Experiment, size: Size) -> int:
    """The order of the rows, the pairs that take a step on each batch, and noise, of a visit."""
    rows, batches = rows_and_batches(e, size)
    steps = 1 if e.pairing == "selected" else 4
    noise = {"denoising": 4 * size.train * size.dimension, "variational": 8 * rows * 100}
    return 16 * rows + 16 * batches * steps + noise.get(e.kind, 0)
