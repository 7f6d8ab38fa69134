"""Looking into autoencoders: activations, what an operator would remove, and when one prunes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from evoae.experiment import Experiment
from evoae.networks import activations
from evoae.networks.activations import layer_names, record
from evoae.networks.population import Population, hidden_widths, parameter_count
from evoae.pruning import members, operators
from evoae.study.runs.grids import Design

if TYPE_CHECKING:
    from evoae.study.runs.run import Run

EXAMPLES = 60  # shown in a heatmap
HIDDEN = "all hidden"


@dataclass(frozen=True)
class Pruning:
    """One application of an operator to a copy of an autoencoder, by layer name.

    `before` and `after`: activations [examples, units]; `keep`: masks over weights [out, in];
    `pruned`: units of which every incoming weight and the bias were removed [units]; `dead`: units
    that no training example activated, before the prune [units]; `deviation`: of the units'
    activations over the training data [units]; `population`: the pruned copy, alone.
    """

    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    keep: dict[str, np.ndarray]
    pruned: dict[str, np.ndarray]
    dead: dict[str, np.ndarray]
    deviation: dict[str, np.ndarray]
    population: Population

    @property
    def removed_by_unit(self) -> dict[str, np.ndarray]:
        """Share of each unit's incoming weights that the operator removed, [units] by layer."""
        return {layer: 1 - keep.mean(1) for layer, keep in self.keep.items()}


def prune_once(
    population: Population,
    index: int,
    operator: str | operators.Operator,
    train: Tensor,
    examples: Tensor,
    *,
    amount: float = 0.1,
    threshold: float = 0.1,
    seed: int | Sequence[int] = 1,
) -> Pruning:
    """Prune a copy of the autoencoder at `index` once; the population stays as it is.

    Unit statistics are those of the finished autoencoder over `train` [rows, D]; `examples` [n, D]
    are what the activations are shown for.
    """
    rng = np.random.default_rng(seed)
    member = population.take([index])
    with torch.no_grad():
        seen = member.activations(train[None])
    for side, values in zip(member.sides, seen, strict=True):
        activations.reset(side)
        activations.observe(side, values)
    units = [unit for side in member.sides for unit in activations.statistics(side, 0)]
    pruned, drawn = member.take([0]), train[torch.from_numpy(rng.integers(0, len(train), 100))]
    function, settings = operators.find(operator), operators.OperatorSettings(amount, threshold)
    (kept,) = members.prune(pruned, [0], function, [rng], settings, lambda i: drawn)
    weights = [weight for weight, _ in members.layers_of(member, "weights", 0)]

    def named(values: Iterable[Tensor]) -> dict[str, np.ndarray]:
        return {k: v.numpy() for k, v in zip(layer_names(member), values, strict=True)}

    return Pruning(
        before=named(record(member, 0, examples).values()),
        after=named(record(pruned, 0, examples).values()),
        # a weight that was zero before is not removed
        keep=named(mask | (weight == 0) for (mask, _), weight in zip(kept, weights, strict=True)),
        pruned=named(~(mask.any(1) | bias) for mask, bias in kept),
        dead=named(unit.zero_share == 1 for unit in units),
        deviation=named(unit.deviation for unit in units),
        population=pruned,
    )


def prune_each(
    run: Run, names: Sequence[str], trial: int = 0, *, seed: int = 1
) -> dict[str, Pruning]:
    """What each operator would remove from a trial's best autoencoder, by operator.

    Amount and threshold are the run's; activations are shown for the first EXAMPLES of the test
    data. The operators draw independently of each other.
    """
    data = run.data(trial)
    settings = {name: run.setting(name) for name in ("amount", "threshold")}
    networks, index, shown = run.population, run.index(trial), data.test[:EXAMPLES]
    return {
        name: prune_once(
            networks, index, name, data.train, shown, **settings, seed=[seed, trial, number]
        )
        for number, name in enumerate(names)
    }


def each_trial(
    runs: Mapping[str, Run], names: Sequence[str], seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, Pruning]]]:
    """The prunings of every run and trial, with the columns that say whose they are."""
    for label, run in runs.items():
        for trial in run.numbers:
            yield {"label": label, "trial": trial}, prune_each(run, names, trial, seed=seed)


def dead_coverage(runs: Mapping[str, Run], names: Sequence[str], seed: int = 1) -> pd.DataFrame:
    """How well each operator finds dead units: those that no training example activates.

    A row per run, trial, operator and hidden layer, and one for all of them. `covered` is the share
    of the dead units' incoming weights that the operator removes, `aimed` the share of what it
    removes there that belongs to dead units; `covered_by_chance` and `aimed_by_chance` are what as
    many weights taken at random give. Null where nothing is dead, or nothing removed.
    """
    rows = []
    for whose, prunings in each_trial(runs, names, seed):
        for name, pruning in prunings.items():
            counts = pd.DataFrame(
                [
                    {
                        "layer": layer,
                        "units": len(keep),
                        "dead_units": pruning.dead[layer].sum(),
                        "weights": keep.size,
                        "dead": keep[pruning.dead[layer]].size,
                        "removed": (~keep).sum(),
                        "both": (~keep[pruning.dead[layer]]).sum(),
                    }
                    for layer, keep in pruning.keep.items()
                    if layer != "output"  # its activations are before the sigmoid: none is 0
                ]
            )
            counts.loc[len(counts)] = counts.sum(numeric_only=True)
            counts["layer"] = counts["layer"].fillna(HIDDEN)
            rows.append(counts.assign(**whose, operator=name))
    table = pd.concat(rows, ignore_index=True)
    dead, removed = table.dead.replace(0, np.nan), table.removed.replace(0, np.nan)
    return table.assign(
        covered=table.both / dead,
        covered_by_chance=(table.removed / table.weights).where(table.dead > 0),
        aimed=table.both / removed,
        aimed_by_chance=(table.dead / table.weights).where(table.removed > 0),
    )


def overlap(runs: Mapping[str, Run], names: Sequence[str], seed: int = 1) -> pd.DataFrame:
    """Do operators remove the same weights? Jaccard index, over all layers, of each pair.

    A row per run, trial and pair of operators (a, b), which draw independently; a pair of the same
    operator says how much it agrees with itself when it draws again. `jaccard` is the share, of the
    weights that either removes, that both remove; `expected` that of weights drawn at random, as
    many in every layer. Null if neither removes any.
    """
    rows = []
    first, second = each_trial(runs, names, seed), each_trial(runs, names, seed + 1)
    for (whose, ones), (_, others) in zip(first, second, strict=True):
        for a, one in ones.items():
            for b, other in others.items():
                pairs = [(~one.keep[layer], ~other.keep[layer]) for layer in one.keep]
                both = sum((x & y).sum() for x, y in pairs)
                total = sum(x.sum() + y.sum() for x, y in pairs)
                chance = sum(x.sum() * y.mean() for x, y in pairs)
                found = {
                    "jaccard": both / (total - both) if total else np.nan,
                    "expected": chance / (total - chance) if total else np.nan,
                }
                rows.append(whose | {"a": a, "b": b} | found)
    return pd.DataFrame(rows)


def change_of_loss(runs: Mapping[str, Run], names: Sequence[str], seed: int = 1) -> pd.DataFrame:
    """What one prune by each operator does to the test loss, at equal removal.

    A row per run, trial and operator: `removed`, the share of all weights and biases that it sets
    to zero; `change` of the test L1; `change_by_chance`, that of as many zeros in each weight
    matrix and bias vector at random positions: the same sizes, shuffled.
    """
    rows = []
    for whose, prunings in each_trial(runs, names, seed):
        run = runs[whose["label"]]
        before = run.population.take([run.index(whose["trial"])])
        test = run.data(whose["trial"]).test
        for number, (name, pruning) in enumerate(prunings.items()):
            rng = np.random.default_rng([seed, whose["trial"], number, 1])
            shuffled, removed = before.take([0]), 0
            members = (before, pruning.population, shuffled)
            for was, now, target in zip(*map(tensors, members), strict=True):
                alive = torch.nonzero(was.flatten())[:, 0].numpy()
                gone = int(((was != 0) & (now == 0)).sum())
                target.view(-1)[rng.choice(alive, gone, replace=False)] = 0
                removed += gone
            unpruned, pruned, chance = (l1(member, test) for member in members)
            found = {"operator": name, "removed": removed / before.parameters}
            found |= {"change": pruned - unpruned, "change_by_chance": chance - unpruned}
            rows.append(whose | found)
    return pd.DataFrame(rows)


def tensors(population: Population) -> list[Tensor]:
    """Weights and biases of all layers, which share memory with the population."""
    layers = [layer for side in population.sides for layer in side.layers()]
    return [tensor for layer in layers for tensor in layer]


def l1(member: Population, rows: Tensor) -> float:
    """Mean absolute error of one autoencoder on rows [n, D]."""
    with torch.no_grad():
        return float((member.reconstruct(rows[None]) - rows).abs().mean())


def dense(runs: Mapping[str, Run]) -> Design:
    """For each run the same training of an unpruned model with as many parameters as it left.

    Its label is the widths of that model and the run's label, which is its factor `size_of`.
    """
    found = Design()
    for label, run in runs.items():
        left = run.trials.preserved.mean() * run.population.parameters
        model = equal_widths(run.data().dimension, run.setting("model"), left)
        unpruned = {"operator": "none", "drop_fraction": 0.0, "l1_penalty": 0.0, "model": model}
        e = run.experiment.replace(**unpruned)
        found.add(f"dense {model}, {label}", e, size_of=label)
    return found


def equal_widths(dimension: int, model: str, left: float) -> str:
    """Widths of a dense autoencoder with as many parameters as were `left` of a model.

    The hidden layers of the model are narrowed by one factor, to the widths whose number of
    parameters is nearest: with wide data one unit more or less is a few per cent of them.
    """
    hidden = hidden_widths(model)

    def parameters(widths: tuple[int, ...]) -> int:
        encoder = (dimension, *widths)
        return parameter_count(encoder) + parameter_count(encoder[::-1])

    narrower = {
        tuple(max(1, round(width * share)) for width in hidden)
        for share in np.linspace(0, 1, 10 * max(hidden) + 1)
    }
    nearest = min(sorted(narrower), key=lambda widths: abs(parameters(widths) - left))
    return "-".join(map(str, nearest))


def ending(run: Run) -> str | None:
    """A warning where a trial diverged or the run ends no better than the constant predictor.

    Otherwise None. The constant predictor is asked of runs that end on L1 only.
    """
    table = run.trials[["train_l1", "constant_train_l1"]]
    if table.train_l1.isna().any():
        return f"{table.train_l1.isna().sum()} of {len(table)} trials diverged; lower learning_rate"
    means = table.mean()
    if run.setting("loss") == "bce" or means.train_l1 < 0.99 * means.constant_train_l1:
        return None
    return (
        f"nothing was learnt: the training loss, {means.train_l1:.4f}, is not better than that of "
        f"the best constant, {means.constant_train_l1:.4f}. For sparse data such as ratings use "
        "loss=bce; otherwise train for more epochs or with a larger learning_rate"
    )


def outputs(runs: Mapping[str, Run], examples: Tensor, trial: int = 0) -> dict[str, np.ndarray]:
    """What the best autoencoder of a trial makes of examples [n, D], by run: [n, D] each."""
    found = {}
    for label, run in runs.items():
        member = run.population.take([run.index(trial)])
        with torch.no_grad():
            found[label] = member.reconstruct(examples[None])[0].numpy()
    return found


def pruning_probabilities(experiments: Mapping[str, Experiment]) -> pd.DataFrame:
    """What each experiment's schedule says after every epoch.

    Columns label, operator, schedule, epoch, probability.
    """
    rows = [
        (label, e.operator, e.schedule, epoch, e.pruning_at(epoch))
        for label, e in experiments.items()
        for epoch in range(e.epochs)
    ]
    return pd.DataFrame(rows, columns=["label", "operator", "schedule", "epoch", "probability"])
