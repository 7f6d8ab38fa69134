"""Any module of a user's, pruned while it trains in a loop of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed, nn

from evoae import identity
from evoae.experiment import SETTINGS, Experiment, check_names, with_new_names
from evoae.modules import masking
from evoae.modules.observing import NO_EXAMPLES, Observer, together
from evoae.modules.tracing import Chosen, Place, find_layers
from evoae.pruning import driver, operators, schedules
from evoae.pruning.layer import EXAMPLES, Layer, Masks
from evoae.randomness import stream

# settings of an experiment that say how a network is pruned, whoever trains it
PRUNING = (
    "amount",
    "threshold",
    "probability",
    "pruning_clock",
    "decrease",
    "steepness",
    "last_share",
    "target_sparsity",
    "prune_until",
    "allocation",
    "prune_biases",
    "drop_fraction",
    "drop_until",
    "pruned_weights",
    "statistics_window",
    "as_released",
)


class Pruner:
    """Prunes the Linear, Conv1d and Conv2d layers of a module while a loop of yours trains it.

    Call `epoch_end` after every epoch, `report` when you like, and `finish` at the end, or use it
    as a context manager. A unit is an output, or an output channel, and its activation is after the
    batch normalisation and the ReLU that follow a layer, if any; of a convolution over examples and
    places. Statistics are of forward passes in training mode, of all calls if a layer is called
    more than once; gradients are of your own backward passes. What an operator does not ask for is
    not gathered, and nothing in epochs that no prune to come asks about.

    Masks (`pruned_weights="masked"`) are parametrizations of `torch.nn.utils.parametrize`: weights
    under one are zero whatever an optimiser does. They hold in copies, in pickles, and through
    `state_dict`. Of processes that train together (`torch.distributed`), statistics are summed and
    masks are equal; all must call `epoch_end`. Make the Pruner before wrapping or compiling the
    module.

    Args:
        module: the module; its parameters stay the same objects, so optimisers may exist already.
        operator, schedule, epochs, settings: as those of `Experiment`, with its defaults and rules:
            `PRUNING` names them.
        layers, exclude: names of layers, or of modules that hold them, or types of layers: which
            are pruned (by default all, the output layer too), and which are not.
        relu: names of layers that ReLU follows, where `torch.fx` cannot trace the module.
        examples: rows of training data, [n, ...], for operators that recall examples: 100 of them
            are drawn at a prune, and passed through the module in evaluation mode.
        seed, cell: of all draws, which are those of that cell in trial 0 of a run with that seed.

    Raises ValueError, in one line and before the module is touched, for a wrong setting or name, or
    a module that cannot be pruned.
    """

    def __init__(
        self,
        module: nn.Module,
        operator: str | Callable[..., Any],
        schedule: str | Callable[..., float],
        epochs: int,
        *,
        layers: Chosen | None = None,
        exclude: Chosen = (),
        relu: Collection[str] = (),
        examples: Tensor | None = None,
        seed: int = 1,
        cell: int = 0,
        **settings: Any,
    ) -> None:
        check_names(settings, PRUNING)
        SETTINGS["data_seed"].rule.check("seed", seed)
        self.experiment = Experiment(
            operator=operator, schedule=schedule, epochs=epochs, **settings
        )
        self.module, self.examples, self.seed, self.cell = module, examples, seed, cell
        self.operator = self.experiment.resolved_operator
        self.epoch = -1
        self.places = find_layers(module, layers, exclude, relu)
        weights = sum(place.layer.weight.numel() for place in self.places)
        biases = sum(place.units for place in self.places if "bias" in place.tensors)
        self.size = weights + biases
        self.experiment.check_target(self.size, weights)
        needs = self.needs(has_examples=examples is not None and len(examples) > 0)
        self.called = False
        if self.masked:
            self.add_masks()
        self.observers = [Observer(place, needs, self.note_call) for place in self.places]
        for observer in self.observers:
            observer.register()
        if self.operator.regrows and self.experiment.has_target:
            settings = self.experiment.operator_settings(0, self.experiment.target_sparsity)
            driver.prune(self, driver.AT_RANDOM, settings, self.draw(0, "first mask"))
        self.look_ahead()
        self.watch_if_asked()

    def needs(self, has_examples: bool) -> set[str]:
        """The statistics to gather. Raises ValueError if examples are missing."""
        needed = set(self.operator.needs)
        if self.experiment.operator_settings(0).drop_fraction:
            needed.add("gradients")
        if "recall" in needed and not has_examples:
            if self.operator.needs != operators.ANY:
                name = identity.name_of(self.experiment.operator)
                raise ValueError(NO_EXAMPLES.format(f"operator {name}"))
            needed.remove("recall")  # a function that does not say what it reads may not recall
        return needed

    def note_call(self) -> None:
        """The module was called: there is something to prune by."""
        self.called = True

    @property
    def masked(self) -> bool:
        """Whether pruned weights stay zero."""
        return self.experiment.pruned_weights == "masked"

    def add_masks(self) -> None:
        """Masks that keep everything: a bias that begins at zero may be trained."""
        for place, part in self.parts():
            everything = torch.ones_like(getattr(place.layer, part), requires_grad=False)
            masking.add(place.layer, part, masking.Mask(everything))

    def parts(self) -> list[tuple[Place, str]]:
        """Every tensor that may be pruned."""
        biases = self.experiment.prune_biases
        return [
            (place, part)
            for place in self.places
            for part in place.tensors
            if biases or part == "weight"
        ]

    def draw(self, t: int, purpose: str) -> np.random.Generator:
        """The stream of one purpose after epoch t."""
        return stream(self.seed, 0, t, self.cell, purpose)

    # -- prune -----------------------------------------------------------------------------------

    def epoch_end(self) -> bool:
        """Prune if the schedule says so; whether it did.

        Raises ValueError before any forward pass, after the last epoch, or for an operator that
        does not do what it must: the module is then as it was.
        """
        e, t = self.experiment, self.epoch + 1
        if not self.called:
            raise ValueError("epoch_end before any forward pass: train an epoch first")
        if t >= e.epochs:
            raise ValueError(f"epochs={e.epochs} are over: call finish, or plan for more epochs")
        turn = self.is_turn(t)
        # where somebody else has opened masks, a turn may come that nothing was gathered for
        pruned = turn and all(each.watching or not each.names for each in self.observers)
        if pruned:
            driver.prune(self, self.operator, e.operator_settings(t), self.draw(t, "operator"))
        for observer in self.observers:
            observer.forget(pruned or e.statistics_window == "visit")
        self.epoch = t
        if turn or t == self.next_turn:
            self.look_ahead()
        self.watch_if_asked()
        return pruned

    def is_turn(self, t: int, zeros: int | None = None) -> bool:
        """Whether there is a prune after epoch t: the schedule's draw, or a target not reached.

        `zeros` parameters are pruned, by default as many as there are now.
        """
        e = self.experiment
        value = 0 if e.operator == "none" else e.pruning_at(t)
        if value == 0 or not e.has_target:
            return driver.fires(value, False, self.draw(t, "prune or not"))
        zeros = sum(self.counts()["zeros"]) if zeros is None else zeros
        settings = e.operator_settings(t)
        return not (self.masked and driver.is_reached(self.operator, settings, zeros, self.size))

    def look_ahead(self) -> None:
        """Find the next epoch after which there is a prune, if there is one.

        A schedule of a user's may look at anything: there it may be the next one.
        """
        self.next_turn = self.epoch + 1
        if self.experiment.schedule in schedules.SCHEDULES.own:
            later = range(self.epoch + 1, self.experiment.epochs)
            masked = [masking.mask_of(place.layer, part) for place, part in self.parts()]
            zeros = sum(int((mask.kept == 0).sum()) for mask in masked if mask is not None)
            self.next_turn = next((t for t in later if self.is_turn(t, zeros)), None)

    def watch_if_asked(self) -> None:
        """Gather only what a prune to come asks for: nothing, if there is none."""
        lasts = any(observer.lasts for observer in self.observers)
        every = self.experiment.statistics_window == "since-prune" or lasts
        soon = self.next_turn is not None and (every or self.next_turn == self.epoch + 1)
        for observer in self.observers:
            observer.watch(soon)

    # -- the source of the driver ----------------------------------------------------------------

    @property
    def absent(self) -> int:
        """Biases that layers do not have."""
        return sum(place.units for place in self.places if "bias" not in place.tensors)

    def layers(self) -> list[Layer]:
        """The layers as operators see them after this epoch."""
        recalled = self.recall(self.epoch + 1)
        watched = zip(self.observers, recalled, strict=True)
        return [observer.view(rows) for observer, rows in watched]

    def apply(self, masks: list[Masks], opens: bool, fresh: list[Masks] | None) -> list[Masks]:
        """Apply the masks; of processes that train together, those of the first."""
        if together():
            masks = [tuple(self.of_first(mask) for mask in keep) for keep in masks]
        for number, (place, keep) in enumerate(zip(self.places, masks, strict=True)):
            scale = np.float32(np.sqrt(place.layer.weight[0].numel()))
            for part, (name, kept) in enumerate(zip(place.tensors, keep, strict=False)):
                drawn = None if fresh is None else fresh[number][part] / scale
                masking.prune(place.layer, name, kept, opens, drawn)
        return masks

    def of_first(self, mask: Tensor) -> Tensor:
        """The first process's mask: it is the same in all."""
        sent = mask.to(self.places[0].layer.weight.device, torch.uint8)
        distributed.broadcast(sent, 0)
        return sent.bool().cpu()

    @torch.no_grad()
    def recall(self, t: int) -> list[Tensor | None]:
        """Activations of drawn examples by layer, [100 * places, out], if the operator asks."""
        if "recall" not in self.observers[0].needs:
            return [None] * len(self.observers)
        draw = self.draw(t, "examples").integers(0, len(self.examples), EXAMPLES)
        rows = self.examples[torch.from_numpy(draw).to(self.examples.device)]
        training = [part for part in self.module.modules() if part.training]
        with ExitStack() as stack:
            recorded = [stack.enter_context(each.recording()) for each in self.observers]
            self.module.eval()
            try:
                self.module(rows.to(self.places[0].layer.weight.device))
            finally:
                for part in training:
                    part.training = True
        for place, calls in zip(self.places, recorded, strict=True):
            if not calls:
                raise ValueError(f"layer {place.name} is never called: exclude it")
        return [torch.cat(calls) for calls in recorded]

    # -- what came of it -------------------------------------------------------------------------

    def counts(self) -> dict[str, list[int]]:
        """By layer: parameters, and how many of them are pruned (masked, else zero)."""
        parameters, zeros = [], []
        for place in self.places:
            tensors = [getattr(place.layer, part) for part in place.tensors]
            parameters.append(sum(tensor.numel() for tensor in tensors))
            found = [masking.mask_of(place.layer, part) for part in place.tensors]
            kept = [t if m is None else m.kept for t, m in zip(tensors, found, strict=True)]
            zeros.append(sum(part.numel() - int(part.count_nonzero()) for part in kept))
        return {"parameters": parameters, "zeros": zeros}

    def report(self) -> pd.DataFrame:
        """A row per layer that is pruned, and one for all of them.

        `zeros` are pruned parameters; `preserved` is the share of the others; `dead_units` have no
        incoming weight left; `macs` are multiply-accumulates for one example with the weights that
        are left (unknown before a forward pass).
        """
        table = pd.DataFrame({"layer": [place.name for place in self.places]} | self.counts())
        table["units"] = [place.units for place in self.places]
        left = [place.layer.weight.detach().flatten(1) != 0 for place in self.places]
        table["dead_units"] = [int((~part.any(1)).sum()) for part in left]
        spread = [observer.places for observer in self.observers]
        table["macs"] = [
            None if places is None else int(part.sum()) * places
            for part, places in zip(left, spread, strict=True)
        ]
        table["macs"] = table["macs"].astype("Int64")
        total = table.drop(columns="layer").sum(skipna=False)
        table.loc[len(table)] = {"layer": "all", **total}
        table.insert(3, "preserved", 1 - table.zeros / table.parameters)
        return table

    def finish(self) -> nn.Module:
        """Leave the module plain, without hooks and masks: what was masked is zero. Returns it."""
        for observer in self.observers:
            observer.leave()
        for place, part in self.parts():
            masking.remove(place.layer, part)
        return self.module

    def __enter__(self) -> Pruner:
        return self

    def __exit__(self, *error: Any) -> None:
        self.finish()

    # -- resume ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the module's own state (masks are in that one)."""
        gathered = {each.place.name: each.state_dict() for each in self.observers}
        settings = {name: self.experiment.settings()[name] for name in self.settings_told()}
        return {
            "epoch": self.epoch,
            "called": self.called,
            "seed": self.seed,
            "settings": settings,
            "gathered": gathered,
        }

    def settings_told(self) -> tuple[str, ...]:
        """The settings that must be the same where a state is loaded."""
        return ("operator", "schedule", "epochs", *PRUNING)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ValueError if it was saved under other settings or layers."""
        own = self.state_dict()
        pairs = {"seed": (state["seed"], self.seed)}
        saved = with_new_names(state["settings"])
        pairs |= {k: (saved.get(k), v) for k, v in own["settings"].items()}
        pairs["layers"] = (list(state["gathered"]), list(own["gathered"]))
        for name, (then, here) in pairs.items():
            if then != here:
                raise ValueError(f"the state was saved with {name}={then}; here it is {here}")
        self.epoch, self.called = state["epoch"], state["called"]
        for observer in self.observers:
            observer.load_state_dict(state["gathered"][observer.place.name])
        self.look_ahead()
        if self.experiment.has_target:
            self.next_turn = self.epoch + 1  # masks may be loaded after this
        self.watch_if_asked()
