"""Any module of a user's, pruned while it trains in a loop of the user's."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel

from evoae import identity
from evoae.experiment import SETTINGS, Experiment, check_names, with_new_names
from evoae.messages import one_line, shortened
from evoae.modules import masking
from evoae.modules.observing import NO_EXAMPLES, Observer, together
from evoae.modules.plain import why_not_a_module
from evoae.modules.tracing import Chosen, Target, find_layers
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

OF_GRADIENTS = {"gradients", "curvature", "movement", "sensitivity"}


class Pruner:
    """Prunes the Linear, Conv1d and Conv2d layers of a module while a loop of yours trains it.

    Call `epoch_end` after every epoch, `report` when you like, and `finish` at the end, or use it
    as a context manager. A unit is an output, or an output channel, and its activation is after the
    batch normalisation and the ReLU that follow a layer, if any; of a convolution over examples and
    positions. Statistics are of forward passes in training mode, of all calls if a layer is called
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

    Operators that need gradients refuse frozen layers; others warn of them. `apoz` needs a ReLU
    after a layer, whatever normalises, drops or moves its outputs in between: where it sees none
    it refuses a target, but for an output layer. A state dict has the names of the plain module,
    with its masks in the metadata that `torch.save` writes: it loads into masked and plain modules.
    Make copies for averages of weights (EMA) after the Pruner: then they have its masks. An average
    of buffers, too, keeps at zero what was masked at any time meanwhile.

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
        if problem := why_not_a_module(module):
            raise ValueError(f"the module to prune {problem}")
        self.module, self.examples, self.seed, self.cell = module, examples, seed, cell
        self.operator = self.experiment.resolved_operator
        self.epoch = -1
        self.targets = find_layers(module, layers, exclude, relu)
        weights = sum(target.layer.weight.numel() for target in self.targets)
        biases = sum(target.units for target in self.targets if "bias" in target.tensors)
        self.size = weights + biases
        self.experiment.check_target(self.size, weights)
        self.called = self.finished = False
        self.check_frozen()
        self.check_relu()
        needs = self.needs(has_examples=self.check_examples())
        if self.masked:
            self.warn_of_averages()
            self.add_masks()
        self.observers = [Observer(target, needs, self.note_call) for target in self.targets]
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
                raise ValueError(NO_EXAMPLES.format(f"operator {self.name}"))
            needed.remove("recall")  # a function that does not say what it reads may not recall
        return needed

    @property
    def name(self) -> str:
        """The operator's."""
        return identity.name_of(self.experiment.operator)

    # -- what is refused -------------------------------------------------------------------------

    def frozen(self, parts: list[tuple[Target, str]]) -> str:
        """Names of those tensors that do not train, or an empty string."""
        return ", ".join(
            f"{target.name}.{part}".removeprefix(".")
            for target, part in parts
            if not masking.stored(target.layer, part).requires_grad
        )

    def check_frozen(self) -> None:
        """Raise ValueError if the operator needs gradients that frozen tensors do not have.

        Other operators prune what is frozen all the same: a warning says so.
        """
        if self.experiment.operator == "none":
            return
        if frozen := self.frozen(self.parts_with_gradients()):
            raise ValueError(
                f"operator {self.name} needs gradients; frozen (requires_grad=False): {frozen}. "
                "Leave the layer out with exclude=, or let it train"
            )
        if frozen := self.frozen(self.parts()):
            warnings.warn(
                f"frozen parameters (requires_grad=False) will be pruned nevertheless: {frozen}. "
                "Leave the layer out with exclude= if it must not change",
                stacklevel=3,
            )

    def check_relu(self) -> None:
        """Say where `apoz` would count zeros that nothing makes.

        To reach a target it would prune units there that all rank equally, at random: ValueError,
        but for an output layer, which usually has no ReLU, and is warned of. Without a target it
        prunes no unit that was never zero: a warning names the layers that stay whole.
        """
        if self.operator.function is not operators.apoz:
            return
        target = self.experiment.has_target
        unseen = [each for each in self.targets if not each.relu]
        inner = ", ".join(each.name for each in unseen if not each.is_output)
        outputs = ", ".join(each.name for each in unseen if each.is_output)
        cure = "name the layers that ReLU follows in relu=, or leave them out by exclude="
        if inner and target:
            raise ValueError(
                "operator apoz counts how often a ReLU gives zero, but there is no ReLU after "
                f"{inner}: {cure}"
            )
        if inner:
            warnings.warn(
                f"operator apoz finds no ReLU after {inner} and prunes nothing there: {cure}",
                stacklevel=3,
            )
        if outputs and target:
            warnings.warn(
                f"operator apoz finds no ReLU after the output layer {outputs}: it prunes some of "
                "its units at random to reach the target; exclude= leaves the layer out",
                stacklevel=3,
            )

    def check_examples(self) -> bool:
        """Whether there are examples. Raises ValueError for what the module does not take."""
        x = self.examples
        if x is None:
            return False
        if not isinstance(x, Tensor):
            raise ValueError(
                f"examples must be a tensor of rows, [n, ...]; it is of type {type(x).__name__}"
            )
        if not x.dim() or not len(x) or "recall" not in self.operator.needs:
            return x.dim() > 0 and len(x) > 0
        if self.operator.needs == operators.ANY:
            return True  # a function that does not say what it reads may not recall
        try:
            with torch.random.fork_rng():
                self.run(x[:2])
        except Exception as error:  # whatever the module raises on rows that do not fit it
            words = shortened(one_line(str(error)) or type(error).__name__)
            raise ValueError(
                f"the module does not take examples, {list(x.shape)} of {x.dtype}: {words}"
            ) from error
        return True

    def warn_of_averages(self) -> None:
        """Warn of an average of the module's weights that is kept in a copy without masks."""
        own = {name: parameter.shape for name, parameter in self.module.named_parameters()}
        for each in gc.get_referrers(AveragedModel):
            if type(each) is AveragedModel and each.n_averaged == 0:
                theirs = {name: p.shape for name, p in each.module.named_parameters()}
                if theirs == own and type(each.module) is type(self.module):
                    warnings.warn(
                        "an AveragedModel was made before the Pruner and has no masks: make it "
                        "after the Pruner",
                        stacklevel=3,
                    )

    def parts_with_gradients(self) -> list[tuple[Target, str]]:
        """The tensors whose gradients the operator looks at, if it looks at any."""
        needed = self.operator.needs
        if self.experiment.operator_settings(0).drop_fraction:
            needed = (*needed, "gradients")
        if self.operator.needs == operators.ANY or OF_GRADIENTS.isdisjoint(needed):
            return []
        swaps = self.operator.regrows  # weights; biases stay as they are
        return [(target, part) for target, part in self.parts() if part == "weight" or not swaps]

    def check_gradients(self) -> None:
        """Raise ValueError if the operator needs gradients, and no backward pass reached a layer.

        A layer may have been frozen later, or its output not be part of the loss.
        """
        seen = {(each.target.name, part) for each in self.observers for part in each.reached}
        asked = [(target.name, part) for target, part in self.parts_with_gradients()]
        if unseen := [f"{name}.{part}".removeprefix(".") for name, part in asked
                      if (name, part) not in seen]:  # fmt: skip
            frozen = self.frozen(self.parts())
            raise ValueError(
                f"operator {self.name} needs gradients, and no backward pass reached "
                f"{', '.join(unseen)}"
                + (f" (frozen: {frozen})" if frozen else "")
                + ": train the layer first, or leave it out by exclude="
            )

    # -- masks and draws -------------------------------------------------------------------------

    def note_call(self) -> None:
        """The module was called: there is something to prune by."""
        self.called = True

    @property
    def masked(self) -> bool:
        """Whether pruned weights stay zero."""
        return self.experiment.pruned_weights == "masked"

    def add_masks(self) -> None:
        """Masks that keep everything: a bias that begins at zero may be trained."""
        for target in self.targets:
            for part in target.tensors:  # all of them: the order of parameters stays as it is
                everything = torch.ones_like(getattr(target.layer, part), requires_grad=False)
                masking.add(target.layer, part, masking.Mask(everything))

    def parts(self) -> list[tuple[Target, str]]:
        """Every tensor that may be pruned."""
        biases = self.experiment.prune_biases
        return [
            (target, part)
            for target in self.targets
            for part in target.tensors
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
            raise ValueError("epoch_end was called before any forward pass: train an epoch first")
        if self.over:
            raise ValueError(
                f"all epochs={e.epochs} are done: call finish, or set a larger epochs="
            )
        turn = self.is_turn(t)
        # where somebody else has opened masks, a turn may come that nothing was gathered for
        pruned = turn and all(each.watching or not each.names for each in self.observers)
        if pruned:
            self.check_gradients()
            driver.prune(self, self.operator, e.operator_settings(t), self.draw(t, "operator"))
        for observer in self.observers:
            observer.forget(pruned or e.statistics_window == "visit")
        self.epoch = t
        if turn or t == self.next_turn:
            self.look_ahead()
        self.watch_if_asked()
        return pruned

    @property
    def over(self) -> bool:
        """Whether all epochs have ended."""
        return self.epoch + 1 >= self.experiment.epochs

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
            masked = [masking.mask_of(target.layer, part) for target, part in self.parts()]
            zeros = sum(int((~mask.keeps).sum()) for mask in masked if mask is not None)
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
        return sum(target.units for target in self.targets if "bias" not in target.tensors)

    def layers(self) -> list[Layer]:
        """The layers as operators see them after this epoch."""
        recalled = self.recall(self.epoch + 1)
        watched = zip(self.observers, recalled, strict=True)
        return [observer.view(rows) for observer, rows in watched]

    def apply(self, masks: list[Masks], opens: bool, fresh: list[Masks] | None) -> list[Masks]:
        """Apply the masks; of processes that train together, those of the first."""
        if together():
            masks = [tuple(self.of_first(mask) for mask in keep) for keep in masks]
        for number, (target, keep) in enumerate(zip(self.targets, masks, strict=True)):
            scale = np.float32(np.sqrt(target.layer.weight[0].numel()))
            for part, (name, kept) in enumerate(zip(target.tensors, keep, strict=False)):
                drawn = None if fresh is None else fresh[number][part] / scale
                masking.prune(target.layer, name, kept, opens, drawn)
        return masks

    def of_first(self, mask: Tensor) -> Tensor:
        """The first process's mask: it is the same in all."""
        sent = mask.to(self.targets[0].layer.weight.device, torch.uint8)
        distributed.broadcast(sent, 0)
        return sent.bool().cpu()

    @torch.no_grad()
    def recall(self, t: int) -> list[Tensor | None]:
        """Activations of drawn examples by layer, [100 * positions, out], if the operator asks."""
        if "recall" not in self.observers[0].needs:
            return [None] * len(self.observers)
        draw = self.draw(t, "examples").integers(0, len(self.examples), EXAMPLES)
        rows = self.examples[torch.from_numpy(draw).to(self.examples.device)]
        with ExitStack() as stack:
            recorded = [stack.enter_context(each.recording()) for each in self.observers]
            self.run(rows)
        for target, calls in zip(self.targets, recorded, strict=True):
            if not calls:
                raise ValueError(f"layer {target.name} is never called: exclude it")
        return [torch.cat(calls) for calls in recorded]

    @torch.no_grad()
    def run(self, rows: Tensor) -> None:
        """Pass rows through the module in evaluation mode."""
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            self.module(rows.to(self.targets[0].layer.weight.device))
        finally:
            for part in training:
                part.training = True

    # -- what came of it -------------------------------------------------------------------------

    def counts(self) -> dict[str, list[int]]:
        """By layer: parameters, and how many of them are pruned (masked, else zero)."""
        parameters, zeros = [], []
        for target in self.targets:
            tensors = [getattr(target.layer, part) for part in target.tensors]
            parameters.append(sum(tensor.numel() for tensor in tensors))
            found = [masking.mask_of(target.layer, part) for part in target.tensors]
            kept = [t if m is None else m.keeps for t, m in zip(tensors, found, strict=True)]
            zeros.append(sum(part.numel() - int(part.count_nonzero()) for part in kept))
        return {"parameters": parameters, "zeros": zeros}

    def report(self) -> pd.DataFrame:
        """A row per layer that is pruned, and one for all of them.

        `zeros` are pruned parameters; `preserved` is the share of the others; `dead_units` have no
        incoming weight left; `macs` are multiply-accumulates for one example with the weights that
        are left (unknown before a forward pass).
        """
        table = pd.DataFrame({"layer": [target.name for target in self.targets]} | self.counts())
        table["units"] = [target.units for target in self.targets]
        left = [target.layer.weight.detach().flatten(1) != 0 for target in self.targets]
        table["dead_units"] = [int((~part.any(1)).sum()) for part in left]
        spread = [observer.positions for observer in self.observers]
        table["macs"] = [
            None if positions is None else int(part.sum()) * positions
            for part, positions in zip(left, spread, strict=True)
        ]
        table["macs"] = table["macs"].astype("Int64")
        total = table.drop(columns="layer").sum(skipna=False)
        table.loc[len(table)] = {"layer": "all", **total}
        table.insert(3, "preserved", 1 - table.zeros / table.parameters)
        return table

    def finish(self) -> nn.Module:
        """Leave the module plain, without hooks and masks: what was masked is zero. Returns it.

        Warns if the module is more than a hundredth of its parameters away from the target, or if
        `epoch_end` was never called.
        """
        if not self.finished and (shortfall := self.shortfall()):
            warnings.warn(shortfall, stacklevel=2)
        self.release()
        return self.module

    def shortfall(self) -> str | None:
        """What was asked for and not reached, in words."""
        e = self.experiment
        if e.operator == "none":
            return None
        done = f"finished after {self.epoch + 1} of {e.epochs} epochs"
        if self.epoch < 0:
            done = f"finished, and epoch_end was never called (epochs={e.epochs})"
        if not e.has_target:
            return f"{done}: nothing was pruned" if self.epoch < 0 else None
        reached, asked = sum(self.counts()["zeros"]) / self.size, e.target_sparsity
        if asked - reached <= 0.01:
            return None
        return f"{done}: {reached:.1%} of the parameters are pruned, {asked:.1%} were asked for"

    def release(self) -> None:
        """Leave the module plain, and say nothing."""
        self.finished = True
        for observer in self.observers:
            observer.leave()
        for target in self.targets:
            for part in target.tensors:
                masking.remove(target.layer, part)

    def __enter__(self) -> Pruner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind:
            self.release()
        else:
            self.finish()

    # -- resume ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the module's own state: masks too, by tensor."""
        gathered = {each.target.name: each.state_dict() for each in self.observers}
        settings = {name: self.experiment.settings()[name] for name in self.settings_told()}
        return {
            "epoch": self.epoch,
            "called": self.called,
            "seed": self.seed,
            "settings": settings,
            "gathered": gathered,
            "masks": {key: mask.keeps for key, mask in self.masks().items()},
        }

    def masks(self) -> dict[str, masking.Mask]:
        """The masks by the names of their tensors."""
        found = {
            f"{target.name}.{part}": masking.mask_of(target.layer, part)
            for target in self.targets
            for part in target.tensors
        }
        return {key: mask for key, mask in found.items() if mask is not None}

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
            observer.load_state_dict(state["gathered"][observer.target.name])
        for key, mask in self.masks().items():
            if key in state.get("masks", {}):
                mask.kept.copy_(state["masks"][key])
        self.look_ahead()
        if self.experiment.has_target:
            self.next_turn = self.epoch + 1  # masks may be loaded after this
        self.watch_if_asked()
