"""Every setting of an experiment, declared once: default, rule, sentence; presets; the hash."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import numbers
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from evoae import identity, topology
from evoae.data import datasets, memory
from evoae.data.built_in import BUILT_IN
from evoae.data.content import HEADERS, joined_names, sides, split_names
from evoae.data.files import SUFFIXES
from evoae.messages import DataWarning, display, short
from evoae.networks import population, training
from evoae.pruning import operators, schedules
from evoae.pruning.allocation import ALLOCATIONS
from evoae.pruning.layer import OperatorSettings
from evoae.pruning.positions import POSITIONS
from evoae.rules import (
    FLAG,
    LIVE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Choice,
    File,
    Flag,
    Named,
    Range,
    Readings,
    check_known,
    settings_of,
)

# Values that mean one thing as released, and another as intended.
BY_READING: dict[str, dict[str, tuple[str, str]]] = {
    "operator": {"variance": ("variance-high", "variance-low")},
    "optimiser": {"by-reading": ("adam-per-batch", "adam")},
}
# Former names of settings, and those of today.
RENAMED = {"shrinkage": "l1_penalty", "exchange": "drop_fraction", "exchange_until": "drop_until"}
SCHEDULE_CHECKS = 1000  # epochs of a long run at which its schedule is checked beforehand
RATE_BOUNDS = (1e-9, 10.0)  # of mutated learning rates
# How a file is read: the rows that come of it are part of a run's hash, these settings are not.
FILE_OPTIONS = ("header", "leave_out", "key", "size", "colour")
# Settings that did not exist when older runs were made, with the value those runs had in effect:
# only another value is part of a run's hash.
LATER = {"positions": "independent", "shared_pruning": "nothing"}
COUNTED_EPOCHS = 1_000_000  # the most, where the number of prunes is given


def meaning(settings: Mapping[str, Any]) -> int:
    """A number that is raised when the same settings begin to give other results.

    Older runs are then not mistaken for new ones, and those whose results stayed keep their hash.
    """
    schedule = schedules.SCHEDULES.get(settings["schedule"])
    if settings["operator"] == "wanda" and not (schedule and schedule.target):
        return 5  # wanda prunes by rows under schedules of probabilities too
    if settings["kind"] == "denoising":
        return 4  # the noise of denoising autoencoders is drawn by PyTorch
    return 3  # everything else, as in the first runs that are kept


@dataclass(frozen=True)
class Experiment:
    """All settings of a training; the defaults are the paper's canonical training.

    `operator` and `schedule` are names, those that a user registered included, or functions. A
    setting that is left at None follows from the others: where the paper's text and the released
    code differ, from `as_released`. Raises ValueError for a wrong value, with the rule and the
    valid choices.
    """

    # fmt: off
    # a table: name, type and rule; sentence; source and default

    # data
    dataset: Annotated[str | Any,
        File(tuple(BUILT_IN), tuple(SUFFIXES), "a built-in name, or the path of a file or folder"),
        "The data: a built-in name, a file with rows of values in [0, 1] or a folder of pictures; "
        "in Python also an array, a tensor, a frame or a sparse matrix.",
        "paper: binary clustering"] = "binary-clusters"
    clusters: Annotated[int, POSITIVE, "Number of clusters K in binary-clusters.", "paper"] = 10
    bits: Annotated[int, POSITIVE, "Bits D per row of binary-clusters.", "paper"] = 1000
    examples: Annotated[int, POSITIVE,
        "Examples E per cluster in each split; must be divisible by K.", "paper"] = 100
    noise: Annotated[float, SHARE,
        "Probability q that a bit of an example is flipped.", "paper"] = 0.05
    centroid_density: Annotated[float | None, SHARE,
        "Share of ones among the bits of the centroids.",
        "released code: 0.75; text: 0.5", Readings(0.75, 0.5)] = None
    shared_test_noise: Annotated[bool | None, FLAG,
        "Whether all clusters share one draw of noise in the test and validation data.",
        "released code: yes; text: no", Readings(True, False)] = None
    scale: Annotated[bool | str, Flag(other="columns"),
        "Scale a file to [0, 1] by its minimum and maximum (true), or each column by its own "
        "(columns)."] = False
    header: Annotated[str, Choice(HEADERS),
        "Whether the first line of a text table holds the names of the columns."] = "auto"
    leave_out: Annotated[str, Named(split_names, "names of columns, separated by commas"),
        "Columns of a table to leave out, such as id,label; by number, from 0, if columns have no "
        "names."] = ""
    key: Annotated[str, Named(str, "the name of an array"),
        "The array to read, in a file of several (.npz, .pt, .h5), such as x_train."] = ""
    size: Annotated[str, Named(sides, "a number of pixels, or height and width such as 28x40"),
        "Height and width to which the pictures of a folder are scaled, such as 28 or 28x40."] = ""
    colour: Annotated[bool, FLAG,
        "Whether the pictures of a folder keep their colours, or are read as grey."] = False
    data_share: Annotated[float, Range(0, 1, above=True),
        "Share of the training rows that each cell sees, drawn with replacement.",
        "prior work (2024)"] = 1.0
    data_seed: Annotated[int | None, NOT_NEGATIVE,
        "Seed of the data; all trials then share the same data. By default each draws its own.",
        "by default data follow seed and trial"] = None
    # autoencoder
    model: Annotated[str,
        Named(population.hidden_widths, "a named model, or widths such as 50-20-5"),
        "Layer widths from the input to the code: a named model, or numbers such as 50-20-5.",
        "paper: autoencoders"] = "standard"
    kind: Annotated[str, Choice(population.KINDS),
        "Plain, denoising or variational autoencoder.", "prior work (2024)"] = "plain"
    loss: Annotated[str | None, Choice((*training.LOSSES, "bce-then-l1")),
        "The training loss: mean absolute error (l1), binary cross entropy (bce), or first bce "
        "and then l1.", "paper: l1; bce as second loss"] = None
    loss_switch: Annotated[float, Range(0, 1, above=True, below=True),
        "Share of the run after which bce-then-l1 changes to l1."] = 0.75
    input_noise: Annotated[float, NOT_NEGATIVE,
        "Standard deviation of the noise added to the inputs of a denoising autoencoder.",
        "prior work (2024)"] = 0.4
    identical_start: Annotated[bool, FLAG,
        "Whether all cells of a trial begin with the same weights.", "prior work (2024)"] = False
    initial_weights: Annotated[str | None,
        File((), (".safetensors",), "the path of a weights.safetensors, or of a run's folder"),
        "Weights to begin from, instead of random ones: the folder of a run, of which each trial "
        "continues the trial of its number, or a weights.safetensors, whose networks are taken in "
        "turn.", "prior work (2024)"] = None
    # population
    cells: Annotated[int, POSITIVE,
        "Number of cells N in the population; 1 is canonical training.", "paper: 10"] = 1
    topology: Annotated[str, Choice(tuple(topology.TOPOLOGIES)),
        "How cells are arranged, which decides who their neighbours are.", "paper: ring"] = "ring"
    radius: Annotated[int, NOT_NEGATIVE,
        "Number of neighbours on each side of a cell.", "paper: 1"] = 1
    update_order: Annotated[str, Choice(("asynchronous", "synchronous")),
        "Whether a cell sees what its neighbours became in this epoch (asynchronous), or before "
        "it.", "released code: asynchronous"] = "asynchronous"
    pairing: Annotated[str, Choice(("selected", "random-partner", "all-pairs")),
        "Which encoders and decoders train together: the selected pair, random partners, or every "
        "encoder with every decoder.",
        "paper: selected; prior work (2024): the others"] = "selected"
    solution_concept: Annotated[str, Choice(("best", "worst", "mean")),
        "A network's fitness: the best, the worst or the mean loss with its partners.",
        "paper: best case"] = "best"
    tournament_size: Annotated[int, POSITIVE,
        "Candidates in a tournament, drawn with replacement; with 1 there is no selection.",
        "paper: 2"] = 2
    selection: Annotated[str, Choice(("joint", "separate")),
        "Whether an encoder and a decoder are selected jointly, as one pair, or separately.",
        "released code: joint"] = "joint"
    replacement: Annotated[str, Choice(("always", "better")),
        "Whether the trained pair always replaces the centre, or only if its loss is not higher.",
        "paper: always"] = "always"
    prune_then_evaluate: Annotated[bool, FLAG,
        "Whether the replacement loss is measured after pruning instead of before.",
        "paper: variant of the algorithm"] = False
    best_cell: Annotated[str | None, Choice(("validation", "first")),
        "How a trial's best cell is chosen: the lowest validation loss, or always the first cell.",
        "released code: first"] = None
    # training
    epochs: Annotated[int, POSITIVE, "Epochs T: passes over the training data.", "paper"] = 400
    batch_size: Annotated[int, POSITIVE, "Number of rows in a batch.", "paper: 5"] = 5
    optimiser: Annotated[str | None, Choice(training.OPTIMISERS),
        "One Adam for the whole run, or a new one for every batch (in effect sign descent).",
        "released code: one for the run alone, new ones in coevolution"] = None
    learning_rate: Annotated[float, NOT_NEGATIVE,
        "Adam's learning rate at the start.", "paper: 1e-5", LIVE] = 1e-5
    rate_policy: Annotated[str, Choice(("step-decay", "mutated", "constant", "cosine")),
        "How the learning rate changes: times 0.1 every T // 4 epochs (step-decay), by a random "
        "walk (mutated), not at all (constant), or along half a cosine to 0.",
        "released code: step-decay alone, mutated in coevolution", LIVE] = "step-decay"
    rate_hold: Annotated[float, Range(0, 1, below=True),
        "Share of the run before the cosine begins to fall, with rate_policy=cosine.", LIVE] = 0.0
    rate_sigma: Annotated[float, NOT_NEGATIVE,
        "Standard deviation of a mutation of a cell's learning rate, with rate_policy=mutated.",
        "paper: 1e-5", LIVE] = 1e-5
    # pruning
    operator: Annotated[str | Callable[..., Any],
        Named(operators.find, "an operator's name, or a function"),
        "The operator: what is pruned.", "paper: pruning operators", LIVE] = "none"
    amount: Annotated[float, SHARE,
        "Share pruned at one time: of all weights and biases (random), of the unpruned ones "
        "(magnitude, wanda, set), or of the unpruned units (apoz).", "paper: 0.1", LIVE] = 0.1
    positions: Annotated[str, Choice(tuple(POSITIONS)),
        "Where the operators random and noise prune weights: at independent positions, as evenly "
        "over units and inputs as possible, or whole units or inputs; always equally many.",
        "paper: independent"] = "independent"
    threshold: Annotated[float, SHARE,
        "Scaled activation below which the operator conjunctive may prune a unit.",
        "paper: 0.1", LIVE] = 0.1
    conjunctive_examples: Annotated[str | None, Choice(("test", "train")),
        "Which data the operator conjunctive looks at.",
        "released code: test; clean: train", LIVE, Readings("test", "train")] = None
    statistics_window: Annotated[str, Choice(("since-prune", "visit")),
        "Activation statistics cover the time since the last prune, or this visit to the cell.",
        "released code: since-prune alone, visit in coevolution"] = "since-prune"
    schedule: Annotated[str | Callable[..., float],
        Named(schedules.find, "a schedule's name, or a function"),
        "When to prune: for each epoch, the probability of a prune or a target sparsity.",
        "paper: schedules", LIVE] = "exponential"
    probability: Annotated[float | None, SHARE,
        "Base probability p of a prune; the default is the paper's value for the operator.",
        "paper: 0.5, variance 0.1, prune-after 1", LIVE] = None
    prune_count: Annotated[int | None, POSITIVE,
        "Exact number of prunes; their epochs are drawn in proportion to the schedule's "
        "probabilities.", "by default the schedule decides how many"] = None
    shared_pruning: Annotated[str, Choice(("nothing", "epochs", "positions")),
        "What the cells of a trial share when they are pruned: nothing, the epochs, or the epochs "
        "and the random positions.", "paper: nothing"] = "nothing"
    pruning_clock: Annotated[str | None, Choice(("epochs", "last-epoch")),
        "When a schedule ends: after the last epoch (prune-after then never prunes), or in it.",
        "released code: epochs alone, last-epoch in coevolution", LIVE,
        Readings("epochs", "last-epoch")] = None
    decrease: Annotated[str | None, Choice(("released", "intended")),
        "How schedule decrease falls: from 1 to 1 - p (released), or from p to 0 (intended).",
        "released code and text", LIVE, Readings("released", "intended")] = None
    steepness: Annotated[float, NOT_NEGATIVE,
        "How fast the exponential schedule rises.", "paper: 2", LIVE] = 2.0
    last_share: Annotated[float, SHARE,
        "The last share of the run, in which final-n prunes.", "paper: 0.25", LIVE] = 0.25
    target_sparsity: Annotated[float, SHARE,
        "Share of all parameters to prune, with the schedules cubic and one-shot (points say their "
        "own).", LIVE] = 0.5
    prune_until: Annotated[float, Range(0, 1, above=True),
        "Share of the run after which the target sparsity is reached and pruning stops.",
        LIVE] = 1.0
    allocation: Annotated[str, Choice(ALLOCATIONS),
        "How a target sparsity is spread over layers: the same share in each (layer), less in "
        "small layers (erk), or by one ranking over all (global).",
        "released code: layer", LIVE] = "layer"
    prune_biases: Annotated[bool, FLAG,
        "Whether biases are pruned as well as weights.", "released code: yes", LIVE] = True
    drop_fraction: Annotated[float, SHARE,
        "Share of the unpruned weights that each epoch swaps for the pruned ones with the largest "
        "gradients, with a target sparsity; it falls along half a cosine.",
        "as RigL (Evci et al. 2020)", LIVE] = 0.0
    drop_until: Annotated[float, Range(0, 1, above=True),
        "Share of the run after which drop_fraction, and the swaps of set and rigl, are 0.",
        LIVE] = 0.7
    l1_penalty: Annotated[float, NOT_NEGATIVE,
        "L1 penalty on weights until prune_until: per step they move towards zero by this times "
        "the learning rate (applied once per epoch).", LIVE] = 0.0
    pruned_weights: Annotated[str | None, Choice(("regrow", "masked")),
        "Whether training may change pruned weights again (regrow), or they and their optimiser "
        "moments stay zero (masked).",
        "released code: regrow; text: masked", Readings("regrow", "masked")] = None
    as_released: Annotated[bool, FLAG,
        "Whether to follow the released code (true) or the paper's text (false) where they "
        "differ."] = True
    # fmt: on
    # no settings: where they came from, and what the names of operator and schedule stand for
    preset_name: str | None = field(default=None, compare=False, repr=False)
    left_open: dict[str, Any] = field(init=False, compare=False, repr=False)
    resolved_operator: operators.Operator = field(init=False, compare=False, repr=False)
    resolved_schedule: schedules.Schedule = field(init=False, compare=False, repr=False)

    @classmethod
    def preset(cls, name: str, *, as_released: bool = True, **settings: Any) -> Experiment:
        """The named row of settings, with some replaced. Raises ValueError for unknown names."""
        check_known(name, PRESETS, f"unknown preset {short(name)}")
        check_names(settings)
        known = PRESETS[name].settings
        by_points = schedules.replaced_by_points(settings.get("schedule"))
        known = {key: value for key, value in known.items() if key != by_points}
        return cls(**known | {"as_released": as_released} | settings, preset_name=name)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in SETTINGS}
        if isinstance(self.model, list | tuple | np.ndarray):
            given["model"] = "-".join(str(width) for width in self.model)
        if isinstance(self.size, list | tuple):
            given["size"] = "x".join(str(side) for side in self.size)
        elif isinstance(self.size, numbers.Integral) and not isinstance(self.size, bool):
            given["size"] = str(self.size)
        if isinstance(self.leave_out, list | tuple):
            given["leave_out"] = joined_names(self.leave_out)
        dataset = given.pop("dataset")
        given = {name: SETTINGS[name].typed(value) for name, value in given.items()}
        given["operator"] = operators.OPERATORS.spelt(given["operator"])
        given["schedule"] = schedules.spelt(given["schedule"])
        given["leave_out"] = joined_names(sorted(set(split_names(given["leave_out"]))))
        if not isinstance(dataset, os.PathLike):
            dataset = memory.named(dataset, given["leave_out"])
        is_name = not isinstance(dataset, memory.Rows)
        given["dataset"] = SETTINGS["dataset"].typed(dataset) if is_name else dataset
        values, left_open = by_reading(given)
        operator, schedule = operators.find(values["operator"]), schedules.find(values["schedule"])
        values |= {k: v for k, v in implied(given, operator).items() if values[k] is None}
        # the only assignment: an experiment does not change
        vars(self).update(values, left_open=left_open)
        vars(self).update(resolved_operator=operator, resolved_schedule=schedule)
        check(self)
        check_schedule(self)

    def replace(self, **settings: Any) -> Experiment:
        """A copy with some settings replaced; what was left at None follows from the new ones."""
        check_names(settings)
        return dataclasses.replace(self, **(self.left_open | settings))

    @property
    def dimension(self) -> int:
        """D, the number of inputs. Reads the file if the data set is one."""
        return self.data_summary.size.dimension

    @property
    def data_options(self) -> dict[str, Any]:
        """What `datasets.load` takes beside the name, the seed and the trial."""
        kinds = (datasets.Clusters, datasets.Options)
        return {f.name: getattr(self, f.name) for kind in kinds for f in dataclasses.fields(kind)}

    @property
    def data_summary(self) -> datasets.Summary:
        """What is known of the data without drawing them. Reads the file if the data set is one."""
        return datasets.summary(self.dataset, **self.data_options)

    @property
    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the layers of an encoder and of a decoder. Reads the file if the data set is one."""
        return population.widths_of(self.dimension, self.model, self.kind)

    @property
    def parameters(self) -> int:
        """Weights and biases of one autoencoder."""
        return sum(map(population.parameter_count, self.widths))

    @property
    def weight_count(self) -> int:
        """How many of its parameters are weights, and no biases."""
        return sum(population.parameter_count(side) - sum(side[1:]) for side in self.widths)

    def load_data(self, seed: int, trial: int) -> datasets.Dataset:
        """The data of one trial; with a `data_seed` of its own, all trials have the same."""
        if self.data_seed is not None:
            seed, trial = self.data_seed, 0
        return datasets.load(self.dataset, seed=seed, trial=trial, **self.data_options)

    @functools.cached_property
    def subpopulation(self) -> int:
        """Number of cells in a sub-population."""
        return topology.subpopulation(self.topology, self.cells, self.radius)

    @property
    def clock_end(self) -> int:
        """The epoch at which the pruning clock has run out."""
        return self.epochs if self.pruning_clock == "epochs" else self.epochs - 1

    @property
    def most_sparse(self) -> float:
        """The largest share of all parameters that may be pruned: of weights, where biases stay."""
        return 1.0 if self.prune_biases else self.weight_count / self.parameters

    def check_target(self, size: int, weights: int) -> None:
        """Raise ValueError if biases stay and the target exceeds the number of weights.

        `size` is the number of all parameters.
        """
        if self.resolved_operator.idle or not self.has_target or self.prune_biases:
            return
        most = max(map(self.pruning_at, self.checked_epochs))
        if round(most * size) > weights:
            asked = f"target_sparsity={self.target_sparsity}"
            if most != self.target_sparsity:
                asked = f"schedule={identity.name_of(self.schedule)} ends at {most:g}, which"
            raise ValueError(
                f"{asked} cannot be reached: {weights} of {size} parameters are weights, and "
                "biases are not pruned (prune_biases=False); it must "
                f"be at most {math.floor(weights / size * 1e4) / 1e4:g}"
            )

    def check_files(self) -> None:
        """Read the files that the settings name, and warn of columns that are no measurements.

        Raises ValueError if a file cannot be used, or if networks for these data have too few
        weights for the target sparsity.
        """
        rows = self.dataset
        words = rows.words if isinstance(rows, memory.Rows) else display(rows)
        for note in self.data_summary.notes:
            warn_once(f"{words}: {note}")
        if not self.prune_biases:  # else no network is too small, and the data need not be asked
            self.check_target(self.parameters, self.weight_count)
        if self.initial_weights is not None:
            saved, _ = population.saved(self.initial_weights)
            found = tuple(side.widths for side in saved.sides)
            if found != self.widths or saved.variational != (self.kind == "variational"):
                raise ValueError(
                    f"initial_weights={display(self.initial_weights)} holds networks of widths "
                    f"{found}; kind={self.kind} and model={self.model} on {display(self.dataset)} "
                    f"need {self.widths}"
                )
            if not all(side.weights.isfinite().all() for side in saved.sides):
                raise ValueError(
                    f"initial_weights={display(self.initial_weights)} holds weights that are not "
                    "finite; training cannot begin from them"
                )

    def pruning_at(self, t: int, name: str | None = None) -> float:
        """The schedule's value after epoch t: a probability, or a target sparsity.

        With a `name`, the value of that schedule under the same settings. Raises ValueError if a
        user's schedule returns anything else.
        """
        names = [f.name for f in dataclasses.fields(schedules.ScheduleSettings)]
        settings = schedules.ScheduleSettings(*(getattr(self, name) for name in names))
        schedule = schedules.find(name) if name else self.resolved_schedule
        # a target is reached in the last epoch, whatever the clock of probabilities says
        final = self.epochs - 1 if schedule.target else self.clock_end
        value = schedule(t, final, settings)
        if not schedule.target and schedules.elapsed(t, self.epochs - 1) > self.prune_until:
            value = 0.0
        if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
            rule = "lie in [0, 1]" if isinstance(value, numbers.Real) else "be a number"
            asked = name or identity.name_of(self.schedule)
            raise ValueError(f"schedule={asked} gives {short(value)} at epoch {t}; it must {rule}")
        return float(value)

    @functools.cached_property
    def pruning_probabilities(self) -> np.ndarray:
        """The schedule's value after each epoch, [epochs]."""
        return np.array([self.pruning_at(t) for t in range(self.epochs)])

    @property
    def checked_epochs(self) -> list[int]:
        """The epochs at which the schedule is checked beforehand: all, or of a long run some."""
        count = min(self.epochs, SCHEDULE_CHECKS)
        return np.linspace(0, self.epochs - 1, count, dtype=np.int64).tolist()

    @property
    def final_target(self) -> float:
        """The share of all parameters that a schedule with a target prunes in the end."""
        return self.pruning_at(self.epochs - 1)

    @property
    def has_target(self) -> bool:
        """Whether the schedule sets a target sparsity and not a probability."""
        return self.resolved_schedule.target

    def operator_settings(self, t: int, target: float | None = None) -> OperatorSettings:
        """The operator's settings after epoch t.

        `target` replaces the schedule's value, for the masks that training begins with.
        """
        operator, amount = self.resolved_operator, self.amount
        if target is not None:
            amount = target
        elif self.has_target and operator.regrows:
            amount = self.amount * self.fading(t)
        elif self.has_target:
            amount = self.pruning_at(t)
        return OperatorSettings(
            amount,
            self.threshold,
            self.has_target,
            self.allocation,
            self.prune_biases,
            self.drop_fraction * self.fading(t) if target is None else 0.0,
            self.positions,
        )

    def fading(self, t: int) -> float:
        """Half a cosine from 1 at the start to 0 at `drop_until`."""
        share = schedules.elapsed(t, self.epochs - 1) / self.drop_until
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def loss_at(self, t: int) -> str:
        """The loss that epoch t trains on: "l1" or "bce"."""
        assert self.loss is not None  # it is resolved
        if self.loss != "bce-then-l1":
            return self.loss
        return "bce" if t < self.loss_switch * self.epochs else "l1"

    @property
    def quality_epochs(self) -> tuple[int, ...]:
        """Epochs at which the loss over the training data is measured: quarters, and the last."""
        return tuple(sorted({q * self.epochs // 4 for q in range(4)} | {self.epochs - 1}))

    def settings(self) -> dict[str, Any]:
        """All settings as JSON values; functions by their name and a digest of their source."""
        values = {name: getattr(self, name) for name in SETTINGS}
        for name in ("operator", "schedule"):
            if callable(values[name]):
                values[name] = described(getattr(self, f"resolved_{name}"))
        return values

    def hash(self, **more: Any) -> str:
        """Hash of all settings, defaults included, of `more`, and of the files they name.

        Data count by the rows that are learnt from, wherever they lie and however they are read.
        """
        every = self.settings().items()
        settings = {
            k: v for k, v in every if k not in FILE_OPTIONS and (k not in LATER or v != LATER[k])
        }
        if self.dataset not in datasets.BUILT_IN:
            settings["dataset"] = "rows"
        files = {settings["dataset"]: self.data_summary.digest}
        if self.initial_weights is not None:
            settings["initial_weights"] = "*"
            files["*"] = population.fingerprint(self.initial_weights)
        kinds = (operators.OPERATORS, self.operator), (schedules.SCHEDULES, self.schedule)
        for registry, given in kinds:
            for key, entry in registry.of_user([given]).items():
                while key in files:  # an operator and a schedule may have one name, or the rows'
                    key = f"{registry.kind} {key}"
                files[key] = described(entry)
        # under their former names, so that older runs are found
        before = {new: old for old, new in RENAMED.items()}
        settings = {before.get(name, name): value for name, value in settings.items()}
        text = json.dumps([meaning(settings), settings, more, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


SETTINGS = settings_of(Experiment)
# The differences between the released code and the paper's text: released, intended.
DIFFERENCES = {name: s.readings for name, s in SETTINGS.items() if s.readings}
MAY_CHANGE = [name for name, s in SETTINGS.items() if s.live]


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as settings in their types. ValueError for what cannot be one."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{short(word)} is not a setting; write key=value")
        if key in found:
            raise ValueError(f"setting {short(key)} is given twice")
        check_names({key: value})
        found[key] = SETTINGS[key].parse(value)
    return found


def described(entry: operators.Operator | schedules.Schedule) -> str:
    """An operator or schedule of a user: its function's name, and a hash of code and abilities."""
    kind: Any = type(entry)
    usual, known, scores = kind(None), vars(entry) | {"function": None}, []
    if isinstance(entry, operators.Operator):
        # as in hashes of older runs; the repr of a score would be of its address in memory
        usual, known["needs"] = kind(None, needs=operators.ANY), entry.statistics
        if score := known.pop("score"):
            scores = [identity.describe(score)]
    extra = [] if kind(**known) == usual and not scores else [repr(kind(**known)), *scores]
    return identity.describe(entry.function, *extra)


# What must stay at its default where every encoder trains with every decoder.
ALL_PAIRS = {
    "topology": "complete",
    "update_order": "synchronous",
    "solution_concept": "best",
    "tournament_size": 2,
    "selection": "joint",
    "replacement": "always",
}
COEVOLVED = {"rate_policy": "mutated", "statistics_window": "visit", "pruning_clock": "last-epoch"}


@dataclass(frozen=True)
class Preset:
    """Settings that differ from the defaults, and a sentence."""

    description: str
    settings: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "canonical": Preset("The paper's training of one autoencoder.", {}),
    # the released code makes a new Adam for every batch; of the prior work that is the algorithm
    "lipi-ae-s": Preset(
        "The paper's ring of ten encoders that coevolves with a ring of ten decoders.",
        {"cells": 10, "optimiser": "by-reading", **COEVOLVED},
    ),
    "lipi-ae": Preset(
        "The prior work's ring, in which selected networks train with random partners.",
        {"cells": 5, "pairing": "random-partner", "optimiser": "adam-per-batch", **COEVOLVED},
    ),
    "all-vs-all": Preset(
        "The prior work's population without neighbourhoods: all encoders train with all decoders.",
        {
            "cells": 5,
            "topology": "complete",
            "pairing": "all-pairs",
            "update_order": "synchronous",
            "optimiser": "adam-per-batch",
            **COEVOLVED,
        },
    ),
    # tuned by hand; RESULTS.md says what each part is worth
    "frontier": Preset(
        "Our best recipe for a small network: one autoencoder, pruned early, with weight swaps.",
        {
            "operator": "obd",
            "schedule": "cubic",
            "target_sparsity": 0.9,
            "prune_until": 0.4,
            "pruned_weights": "masked",
            "allocation": "global",
            "prune_biases": False,
            "drop_fraction": 0.5,
            "l1_penalty": 0.015,
            "learning_rate": 0.003,
            "rate_policy": "cosine",
            "rate_hold": 0.4,
            "loss": "bce-then-l1",
        },
    ),
}


@functools.cache
def warn_once(note: str) -> None:
    """Warn of the data, once in a process."""
    warnings.warn(note, DataWarning, stacklevel=4)


def with_new_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under today's names, where some were written under former ones."""
    return {RENAMED.get(name, name): value for name, value in settings.items()}


def check_names(settings: Mapping[str, Any], known: Collection[str] | None = None) -> None:
    """Raise ValueError for a name that is no setting, or not one of the `known` ones."""
    for name in settings:
        if name in RENAMED:
            raise ValueError(f"setting {short(name)} is now called {RENAMED[name]}")
        all_in = "" if known else "`evoae list`"
        check_known(name, known or SETTINGS, f"unknown setting {short(name)}", all_in)


def by_reading(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings, where a value depends on the reading with that of this reading; and which
    settings were left open, as they were given."""
    values, reading = dict(given), 0 if given["as_released"] else 1
    left_open = {name: None for name, value in given.items() if value is None}
    for name, pairs in BY_READING.items():
        if isinstance(given[name], str) and given[name] in pairs:
            left_open[name], values[name] = given[name], pairs[given[name]][reading]
    return values, left_open


def implied(given: dict[str, Any], operator: operators.Operator) -> dict[str, Any]:
    """What settings are if they are left at None."""
    once = given["schedule"] in ("prune-after", "prune-once")
    found = {name: pair[not given["as_released"]] for name, pair in DIFFERENCES.items()} | {
        "optimiser": "adam",
        "best_cell": "validation",
        "loss": "bce" if given["kind"] == "variational" else "l1",
        "probability": 1.0 if once else operator.probability,
    }
    return found | ({"pruned_weights": "masked"} if operator.regrows else {})


def check(e: Experiment) -> None:
    """Raise ValueError for a setting that breaks its rule, or contradicts another."""
    for name, declared in SETTINGS.items():
        # operator and schedule have been found already
        if getattr(e, name) is not None and name not in ("operator", "schedule"):
            declared.rule.check(name, getattr(e, name))
    low, high = RATE_BOUNDS
    if e.rate_policy == "mutated" and not low <= e.learning_rate <= high:
        raise ValueError(
            f"learning_rate={e.learning_rate} must lie in [{low:g}, {high:g}] with "
            "rate_policy=mutated"
        )
    if e.initial_weights is not None and e.identical_start:
        raise ValueError(
            "identical_start=True needs random initial weights; leave out initial_weights"
        )
    if e.kind == "variational" and e.loss != "bce":
        raise ValueError(f"loss={e.loss} must be bce with kind=variational")
    held = isinstance(e.dataset, memory.Rows) and e.dataset.read
    if held or e.dataset in datasets.BUILT_IN:  # a file is read when it is needed
        _ = e.data_summary  # which checks them
    topology.subpopulation(e.topology, e.cells, e.radius)
    if e.resolved_operator.regrows and e.pruned_weights != "masked":
        raise ValueError(
            f"pruned_weights={e.pruned_weights} must be masked with "
            f"operator={identity.name_of(e.operator)}, which decides itself what regrows"
        )
    for name, value in ALL_PAIRS.items() if e.pairing == "all-pairs" else ():
        if getattr(e, name) != value:
            raise ValueError(
                f"{name}={getattr(e, name)} must be {value} with pairing=all-pairs, which has no "
                "neighbourhoods and no selection"
            )


def check_count(e: Experiment, count: int) -> None:
    """Raise ValueError if the schedule allows fewer prunes than `count`."""
    if e.epochs > COUNTED_EPOCHS:
        raise ValueError(f"epochs={e.epochs} must be at most {COUNTED_EPOCHS} with prune_count")
    possible = 0 if e.has_target else int(np.count_nonzero(e.pruning_probabilities))
    if possible < count:
        raise ValueError(
            f"prune_count={e.prune_count} needs a schedule whose probability is above 0 in at "
            f"least as many epochs; schedule={identity.name_of(e.schedule)} has {possible}"
        )


def check_schedule(e: Experiment) -> None:
    """Raise ValueError if operator and schedule do not fit, or the schedule leaves [0, 1]."""
    operator, name = e.resolved_operator, identity.name_of(e.operator)
    idle = schedules.replaced_by_points(e.schedule)
    usual = operator.probability if idle == "probability" else SETTINGS["target_sparsity"].default
    if idle and getattr(e, idle) != usual:
        raise ValueError(
            f"{idle}={getattr(e, idle)} has no effect with schedule={short(e.schedule)}, whose "
            f"points say it; leave {idle} out"
        )
    ranks = e.allocation == "global" and e.has_target and not operator.idle
    if ranks and not operator.compares:
        able = [known for known, each in operators.OPERATORS.items() if each.compares]
        raise ValueError(
            f"allocation=global ranks all layers together, but scores of operator={name} cannot be "
            f"compared between layers; choose an operator of {', '.join(able)}, or "
            "allocation=layer or erk"
        )
    if e.drop_fraction and not (e.has_target and operator.score and e.pruned_weights == "masked"):
        raise ValueError(
            f"drop_fraction={e.drop_fraction} needs a schedule with a target sparsity (cubic, "
            "one-shot), an operator with scores, and pruned_weights=masked"
        )
    if e.prune_count is not None:
        check_count(e, e.prune_count)
    placed = operator.function in (operators.random, operators.noise) and not e.has_target
    if e.positions != "independent" and not placed:
        raise ValueError(
            f"positions={e.positions} needs operator=random or noise and a schedule of "
            f"probabilities, not operator={name} with schedule={identity.name_of(e.schedule)}"
        )
    if operator.renews and (e.has_target or e.pruned_weights == "masked"):
        raise ValueError(
            f"operator={name} leaves no zeros: it needs pruned_weights=regrow and a schedule of "
            "probabilities, without a target sparsity"
        )
    # first, last, and some between; each of the others when its turn comes
    for t in e.checked_epochs:
        e.pruning_at(t)
