"""Evolution as a way to a whole front: of each trial a few networks, round after round.

In *population* the sizes are cells: in each round a size tries networks of its neighbours, and its
own, and goes on with the best. *pbt* is the same, but a network carries its learning rate, penalty
and exchange, which change a little whenever it is tried (population-based training: Jaderberg et
al. 2017). *random-search* is the control of that: settings from the same prior, each for a short
trajectory, and the best of them for a long one. In *nsga-ii* networks of any size mate and compete
(Deb et al. 2002): a child has the union of its parents' masks, pruned to a size near theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from evoae.experiment import Experiment
from evoae.networks import population
from evoae.randomness import stream
from evoae.study.runs import fronts
from evoae.study.runs.files import whole
from evoae.study.runs.fronts import LOOK, NEXT, Stage
from evoae.study.runs.mask_controls import tensors_of
from evoae.study.runs.run import Run

ROUNDS = 4
TRIED = 0.15  # of a round's steps go to each network that a size tries
CARRIED = ("learning_rate", "l1_penalty", "drop_fraction")  # by a network of `pbt`
PRIOR = 3.0  # they begin within these times, or a part, of the experiment's
CHANGES = (0.8, 1.25)  # whenever a network is tried, as in the paper
CONFIGURATIONS = 4  # of the random search, for half of the steps in all
SPREAD = 0.3  # of the logarithm of the share that a child keeps
Lineage = list[dict[str, Any]]


@dataclass
class Search:
    """One trial's search: what it trains with, and the stages and runs until now."""

    e: Experiment
    trial: int
    seed: int
    bar: tqdm
    where: dict[str, Any]
    plan: list[Stage] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)

    def train(self, stages: Iterable[Stage], epochs: int) -> None:
        """Train stages side by side, which share the epochs."""
        stages = list(stages)
        self.plan += stages
        # rounds are whole epochs, and may take more than was reckoned; tqdm forgets such a total
        self.bar.total = max(self.bar.total or 0, self.bar.n + epochs)
        trials = range(self.trial, self.trial + 1)
        found = fronts.train(stages, self.e, epochs, trials, self.seed, self.bar, **self.where)
        self.runs |= found.runs

    def loss(self, stage: Stage) -> float:
        """On validation; of a diverged network infinite."""
        loss = float(self.runs[stage.name].trials.validation_l1.iloc[0])
        return loss if math.isfinite(loss) else math.inf

    def draws(self, number: int) -> np.random.Generator:
        """The stream of a round."""
        return stream(self.seed, self.trial, number, 0, "search")

    def continued(self, name: str, size: float, start: Path, settings: dict[str, Any]) -> Stage:
        """A stage that begins from saved weights: a candidate if its rates fall in the end."""
        last = settings.items() >= NEXT.items()
        return Stage(name, size, 1.0, {**settings, "initial_weights": str(start)}, None, last)


# -- sizes as cells ------------------------------------------------------------------------------


def in_population(search: Search, sizes: Sequence[float], epochs: int, *, tunes: bool) -> Lineage:
    """Try, select, train and prune on, replace; in the last round rates fall.

    With `tunes` a network carries its settings. A network of a sparser neighbour keeps its zeros.
    Returns whose network each size went on with, by round.
    """
    every, lineage = [0.0, *sizes], []
    each = epochs // (ROUNDS * len(every))  # epochs of a size in a round
    length = max(1, round(TRIED * each))
    draws = search.draws(0)
    networks = {}
    for size in every:
        settings = {**LOOK, **(prior(search.e, draws) if tunes else {})}
        networks[size] = Stage(f"round 0 {size}", size, 1.0, settings, None, False)
    search.train(networks.values(), each * len(every))
    for number in range(1, ROUNDS):
        draws = search.draws(number)
        tried: dict[float, dict[str, Stage]] = {}
        for size, near in neighbours(every).items():
            tried[size] = {}
            for whose, other in near.items():
                start = search.runs[networks[other].name].folder
                settings = {**LOOK, **changed(carried(networks[other]), draws)}
                name = f"round {number} {size} from {whose}"
                tried[size][whose] = search.continued(name, size, start, settings)
        stages = [stage for own in tried.values() for stage in own.values()]
        search.train(stages, length * len(stages))
        for size, own in tried.items():
            whose = min(own, key=lambda name: search.loss(own[name]))
            lineage.append(
                {"round": number, "sparsity": size, "trial": search.trial, "whose": whose}
            )
            start = search.runs[own[whose].name].folder
            settings = {**(NEXT if number == ROUNDS - 1 else LOOK), **carried(own[whose])}
            networks[size] = search.continued(f"round {number} {size}", size, start, settings)
        rest = max(1, each - max(map(len, tried.values())) * length)
        search.train(networks.values(), rest * len(every))
    return lineage


def neighbours(every: Sequence[float]) -> dict[float, dict[str, float]]:
    """Whose networks each size tries: its own, those of the next denser and the next sparser."""
    found: dict[float, dict[str, float]] = {size: {"itself": size} for size in every}
    for dense, sparse in pairwise(every):
        found[sparse]["denser"] = dense
        if dense:  # the dense network takes over none
            found[dense]["sparser"] = sparse
    return found


def prior(e: Experiment, draws: np.random.Generator) -> dict[str, float]:
    """Settings near those of the experiment, in logarithms."""
    factors = PRIOR ** draws.uniform(-1, 1, len(CARRIED))
    found = {n: getattr(e, n) * f for n, f in zip(CARRIED, factors, strict=True)}
    return {name: float(min(value, 1.0)) for name, value in found.items()}


def carried(stage: Stage) -> dict[str, float]:
    """The settings that its network brings along."""
    return {name: stage.settings[name] for name in CARRIED if name in stage.settings}


def changed(settings: dict[str, float], draws: np.random.Generator) -> dict[str, float]:
    """The settings as a copy carries them, each a little larger or smaller."""
    return {n: min(float(v * draws.choice(CHANGES)), 1.0) for n, v in settings.items()}


# -- its control ---------------------------------------------------------------------------------


def by_random_search(search: Search, sizes: Sequence[float], epochs: int) -> Lineage:
    """Short trajectories of random settings for half of the steps, one of the best for the rest."""
    draws, plan = search.draws(0), fronts.stages(sizes)
    given = [prior(search.e, draws) for _ in range(CONFIGURATIONS)]
    tried = [configured(plan, f"configuration {i}", s) for i, s in enumerate(given)]
    short = epochs // 2 // CONFIGURATIONS
    for stages in tried:
        search.train(stages, max(short, len(stages)))
    losses = [
        np.mean([search.loss(stage) for stage in stages if stage.name in search.runs])
        for stages in tried
    ]
    used = CONFIGURATIONS * max(short, len(plan))
    best = given[int(np.argmin(losses))]
    search.train(configured(plan, "best", best), max(epochs - used, len(plan)))
    return []


def configured(plan: Sequence[Stage], name: str, settings: dict[str, float]) -> list[Stage]:
    """The stages under a name of their own, with settings."""
    return [
        replace(
            stage,
            name=f"{name} {stage.name}",
            settings={**stage.settings, **settings},
            begin=f"{name} {stage.begin}" if stage.begin else None,
        )
        for stage in plan
    ]


# -- non-dominated sorting, and crossover of masks -----------------------------------------------


def by_dominance(search: Search, sizes: Sequence[float], epochs: int) -> Lineage:
    """NSGA-II over validation loss and size; in the end each size begins from the nearest network.

    In each generation as many children are trained as there are sizes, and as many networks
    survive. All networks of a trial descend from the same random weights, so units of two
    networks are alike.
    """
    every = [0.0, *sizes]
    each = epochs // (ROUNDS * len(every)) * len(every)  # epochs of a generation
    alive = [Stage(f"generation 0 {s}", s, 1.0, LOOK, None, False) for s in every]
    dense = alive[0]
    search.train(alive, each)
    for number in range(1, ROUNDS - 1):
        draws, children = search.draws(number), []
        order = best_first(objectives(search, alive))
        for child in range(len(every)):
            # the best first, so the smaller of two positions wins a tournament
            first, second = (alive[order[draws.integers(len(alive), size=2).min()]] for _ in "ab")
            size = size_of_child(first.size, second.size, sizes[-1], draws)
            start = crossed(search, *sorted((first, second), key=search.loss))
            name = f"generation {number} {child} {size}"
            children.append(search.continued(name, size, start, LOOK))
        search.train(children, each)
        alive += children
        alive = [alive[i] for i in best_first(objectives(search, alive))[: len(every)]]
    last = []
    for size in every:
        denser = [network for network in alive if network.size <= size] or [dense]
        start = search.runs[max(denser, key=lambda network: network.size).name].folder
        last.append(search.continued(f"last {size}", size, start, NEXT))
    search.train(last, epochs - (ROUNDS - 1) * each)
    return []


def size_of_child(one: float, other: float, most: float, draws: np.random.Generator) -> float:
    """Near the geometric mean of what the parents keep, and at most the sparsest size."""
    kept = math.sqrt((1 - one) * (1 - other)) * math.exp(draws.normal(0, SPREAD))
    return round(float(np.clip(1 - kept, 0.01, most)), 3)


def crossed(search: Search, first: Stage, second: Stage) -> Path:
    """A start: the weights of the first and, where it has none, those of the second."""
    runs = [search.runs[stage.name] for stage in (first, second)]
    child, other = (run.population.take([0]) for run in runs)
    for mine, theirs in zip(tensors_of(child), tensors_of(other), strict=True):
        mine[:] = torch.where(mine == 0, theirs, mine)
    folder = Path(search.where["out"]) / "starts"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'-'.join(run.folder.name for run in runs)}-{search.trial}.safetensors"
    with whole(path) as part:
        population.save(child, part)
    return path


def objectives(search: Search, stages: Sequence[Stage]) -> np.ndarray:
    """Validation loss and share of kept parameters, [stages, 2]; less is better."""
    return np.array([(search.loss(stage), 1 - stage.size) for stage in stages])


def best_first(objectives: np.ndarray) -> np.ndarray:
    """Positions by the number of the front, and within one by crowding distance, [n]."""
    mine, others = objectives[:, None], objectives[None]
    worse = np.all(mine >= others, axis=2) & np.any(mine > others, axis=2)  # i is dominated by j
    front, left = np.zeros(len(objectives), int), np.ones(len(objectives), bool)
    distance = np.zeros(len(objectives))
    while left.any():
        front[left] += 1
        now = np.flatnonzero(left & ~worse[:, left].any(1))
        distance[now] = crowding(objectives[now])
        left[now] = False
    return np.lexsort((-distance, front))


def crowding(objectives: np.ndarray) -> np.ndarray:
    """How far the neighbours of each point of a front are apart, in shares of its extent, [n]."""
    distance = np.zeros(len(objectives))
    for values in np.nan_to_num(objectives, posinf=1e9).T:
        order = np.argsort(values, kind="stable")
        gaps = values[order[2:]] - values[order[:-2]]
        distance[order[1:-1]] += gaps / max(np.ptp(values), 1e-12)
        distance[order[[0, -1]]] = math.inf
    return distance
