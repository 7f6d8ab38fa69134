"""Any module of a user's, pruned while it trains in a loop of the user's."""

from __future__ import annotations

import html
import inspect
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from evoae import identity
from evoae.experiment import Experiment, check_names, with_new_names
from evoae.messages import shortened, words
from evoae.modules import checks, masking
from evoae.modules.following import followers_on
from evoae.modules.layers import OF_ACTIVATIONS, Chosen, Part, coverage, find_layers, mask_all
from evoae.modules.observing import FROM_GRADIENTS, NO_EXAMPLES, Observer, together
from evoae.modules.plain import Hook, why_not_a_module
from evoae.modules.units import units_of
from evoae.pruning import driver, operators, schedules
from evoae.pruning.layer import EXAMPLES, Layer, Masks
from evoae.pruning.units import Units
from evoae.randomness import stream
from evoae.rules import check_key

# settings of an experiment that say how a network is pruned, whoever trains it
PRUNING = (
    "amount", "threshold", "probability", "prune_count", "pruning_clock", "decrease", "steepness",
    "last_share", "target_sparsity", "prune_until", "allocation", "prune_biases", "drop_fraction",
    "drop_until", "pruned_weights", "statistics_window", "as_released",
)  # fmt: skip
# in names of what optimisers of PyTorch keep of squares and sizes of gradients
NEVER_NEGATIVE = ("sq", "sum", "acc", "inf")
TINY = 1e-26  # too small to change a step, and no denormal number for 27,000 steps
SAVED = ("operator", "schedule", "epochs", *PRUNING)  # must be the same where a state is loaded


class Report(pd.DataFrame):
    """A table that begins with a line, `coverage`, where it is printed."""

    _metadata: ClassVar = ["coverage"]
    coverage: str

    def __repr__(self) -> str:
        return f"{self.coverage}\n{super().__repr__()}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.coverage)}</p>{pd.DataFrame(self)._repr_html_()}"


class Pruner:
    """Prunes a module while a loop of yours trains it: all that has two or more dimensions.

    Call `epoch_end` after every epoch, `report` when you like, and `finish` at the end, or use it
    as a context manager. A layer is a weight of two or more dimensions, with its bias if it has
    one: of Linear, convolutions (transposed ones too), Embedding, recurrent layers, attention, or
    any parameter of yours. All of them together are the base of `target_sparsity`. A tensor that
    several layers share is one, with one mask, and counts once. Of a weight that is computed from
    other tensors (weight norm), the result is masked; `finish` makes it a plain parameter.

    A unit is an output, or an output channel, and its activation is after the batch normalisation
    and the ReLU that follow a layer, if any; of a convolution over examples and positions.
    Statistics are of forward passes in training mode, of all calls if a layer is called more than
    once. An operator that reads what calls of a layer do not show (the activation of a recurrent
    gate, the input of a parameter) is refused by the layer's name. What an operator does not ask
    for is not gathered, and nothing in epochs that no prune to come asks about.

    Gradients are of your own backward passes, each by itself. Where you accumulate several before a
    step, `obd` sees the mean square of the gradients of single passes, and `snip` those of the
    first pass alone.

    Masks (`pruned_weights="masked"`) are parametrizations of `torch.nn.utils.parametrize`: weights
    under one are zero whatever an optimiser does. They hold in copies, in pickles, and through
    `state_dict`. Of processes that train together (`torch.distributed`), statistics are summed and
    masks are equal; all must call `epoch_end`. Make the Pruner before wrapping or compiling the
    module.

    Args:
        module: the module; its parameters stay the same objects, so optimisers may exist already.
        operator, schedule, epochs, settings: as those of `Experiment`, with its defaults and rules:
            `PRUNING` names them. On the way to a target, pruned weights are masked by default.
        granularity: "weight", or "unit" for whole channels, hidden units and attention heads: all
            entries that write one or read one, in all layers that must agree on it (sums,
            concatenations, tied weights). Any score is summed over them, and targets are reached to
            the nearest unit. Inputs and outputs of the module stay. Channels are followed through
            the module by `torch.export`, on the input of its first call.
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
    (A plain one has no masks on what a spectral norm or a parametrization of yours computes.)
    Make copies for averages of weights (EMA, SWA) after the Pruner, and update them before
    `finish`: they have its masks. An average of buffers, too, keeps at zero what was masked at any
    time meanwhile. What optimisers keep of the gradients of masked entries is set to zero.

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
        granularity: str = "weight",
        layers: Chosen | None = None,
        exclude: Chosen = (),
        relu: Collection[str] = (),
        examples: Tensor | None = None,
        seed: int = 1,
        cell: int = 0,
        **settings: Any,
    ) -> None:
        check_names(settings, PRUNING)
        check_key("seed", seed)
        check_key("cell", cell)
        if schedules.find(schedule).target and "as_released" not in settings:
            settings = {"pruned_weights": "masked"} | settings
        self.experiment = Experiment(
            operator=operator, schedule=schedule, epochs=epochs, **settings
        )
        if problem := why_not_a_module(module):
            raise ValueError(f"the module to prune {problem}")
        self.module, self.examples, self.seed, self.cell = module, examples, seed, cell
        self.operator = self.experiment.resolved_operator
        checks.check_granularity(granularity, self.name, self.experiment)
        self.granularity = granularity
        self.call: inspect.BoundArguments | None = None  # until units are found with it
        self.unit_groups: Units | None = None
        self.epoch = -1
        self.next_turn: int | None = None  # the next epoch after which there is a prune
        given = module, layers, exclude, relu
        followed = not set(self.operator.statistics).isdisjoint(OF_ACTIVATIONS)
        self.targets = find_layers(*given, followed=followed)
        unclear = not all(target.relu or target.is_output for target in self.targets)
        if self.operator.function is operators.apoz and unclear:
            rows = (examples[:2],) if isinstance(examples, Tensor) and len(examples) else None
            self.targets = find_layers(*given, followers_on(module, rows))
        tensors = [(p, each) for t in self.targets for p, each in t.tensors.items()]
        self.size = sum(tensor.value.numel() for _, tensor in tensors)
        weights = sum(tensor.value.numel() for part, tensor in tensors if part == "weight")
        self.experiment.check_target(self.size, weights)
        self.called = self.finished = False
        if not self.operator.idle:
            checks.check_frozen(self.name, self.parts_with_gradients(), self.parts())
        if self.operator.function is operators.apoz:
            checks.check_relu(self.targets, self.experiment.has_target)
        has_examples = checks.check_examples(examples, self.operator, self.evaluate)
        needs = self.needs(has_examples)
        if self.operator.needs is not None:
            checks.check_seen(self.name, needs, self.targets)
        checks.warn_of_one_memory(self.targets)
        self.coverage, unasked = coverage(module, self.targets)
        if unasked > 0.1:
            warnings.warn(f"the Pruner {self.coverage}", stacklevel=2)
        self.masks_at: list[tuple[nn.Module, str]] = []
        if self.masked:
            checks.warn_of_averages(module)
            self.masks_at = mask_all(module, self.targets)
        else:
            checks.check_computed(self.targets)
        self.handles = [module.register_forward_hook(Hook(self.see_call), with_kwargs=True)]
        self.optimisers = weakref.WeakSet[torch.optim.Optimizer]()  # that have made a step
        seen_steps, held = self.optimisers, {id(each) for each in module.parameters()}
        own = weakref.ref(self)

        def see_step(optimiser: torch.optim.Optimizer, *_: Any) -> None:
            groups = optimiser.param_groups if optimiser not in seen_steps else ()
            if any(id(each) in held for group in groups for each in group["params"]):
                seen_steps.add(optimiser)
                if pruner := own():
                    pruner.forget_moments([optimiser])

        self.step_handle = register_optimizer_step_post_hook(see_step)
        weakref.finalize(self, self.step_handle.remove)
        self.observers = [Observer(target, needs, self.note_call) for target in self.targets]
        for observer in self.observers:
            observer.register()
        for mask in self.masks().values():  # after the observers, which see gradients unmasked
            mask.guard.watch(mask)
        if self.operator.regrows and self.experiment.has_target:
            whole = self.experiment.operator_settings(0, self.experiment.final_target)
            driver.prune(self, driver.AT_RANDOM, whole, self.draw(0, "first mask"))
        self.look_ahead()
        self.watch_if_asked()

    def needs(self, has_examples: bool = True) -> set[str]:
        """The statistics to gather. Raises ValueError if examples are missing."""
        needed = set(self.operator.statistics)
        if self.experiment.operator_settings(0).drop_fraction:
            needed.add("gradients")
        if "recall" in needed and not has_examples:
            if self.operator.needs is not None:
                raise ValueError(NO_EXAMPLES.format(f"operator {self.name}"))
            needed.remove("recall")  # a function that does not say what it reads may not recall
        return needed

    @property
    def name(self) -> str:
        """The operator's."""
        return identity.name_of(self.experiment.operator)

    def parts(self) -> list[Part]:
        """Every tensor that may be pruned."""
        biases = self.experiment.prune_biases
        return [(t, part) for t in self.targets for part in t.tensors if biases or part == "weight"]

    def parts_with_gradients(self) -> list[Part]:
        """The tensors whose gradients the operator looks at, if it looks at any."""
        if self.operator.needs is None or FROM_GRADIENTS.isdisjoint(self.needs()):
            return []
        swaps = self.operator.regrows  # weights; biases stay as they are
        return [(target, part) for target, part in self.parts() if part == "weight" or not swaps]

    # -- masks and draws -------------------------------------------------------------------------

    def note_call(self) -> None:
        """The module was called: there is something to prune by."""
        self.called = True

    def see_call(
        self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        """Once: what the whole module was called with, from which units are found."""
        self.note_call()
        self.handles.pop().remove()
        if self.granularity == "unit":
            self.call = inspect.signature(module.forward).bind(*given, **named)

    def find_units(self) -> None:
        """The units, before the first prune. Raises ValueError where there are none."""
        if self.granularity == "weight" or self.unit_groups is not None:
            return
        if self.call is None:
            raise ValueError(
                "granularity=unit follows channels through the whole module, which was never called"
            )
        self.unit_groups, self.call = units_of(self.module, self.targets, self.call), None
        pairs = zip(self.targets, self.unit_groups.weights, strict=True)
        if whole := [t.name for t, units in pairs if all((each < 0).all() for each in units)]:
            self.coverage += f"; no unit of it may go: {shortened(', '.join(whole))}"

    @property
    def masked(self) -> bool:
        """Whether pruned weights stay zero."""
        return self.experiment.pruned_weights == "masked"

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
        # a loop may call methods of a module alone, and no layer of it
        if not (self.called or any(each.grad is not None for each in self.module.parameters())):
            raise ValueError("epoch_end was called before any forward pass: train an epoch first")
        if self.over:
            raise ValueError(
                f"all epochs={e.epochs} are done: call finish, or set a larger epochs="
            )
        turn = self.is_turn(t)
        # where somebody else has opened masks, a turn may come that nothing was gathered for
        pruned = turn and all(each.watching or not each.names for each in self.observers)
        if pruned:
            reached = [(each.target, part) for each in self.observers for part in each.reached]
            checks.check_gradients(self.name, self.parts_with_gradients(), reached, self.parts())
            self.find_units()
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
        if self.operator.idle:
            return False
        if e.prune_count is not None:
            drawn = self.seed, 0, self.cell, e.prune_count, tuple(e.pruning_probabilities)
            return t in driver.drawn_epochs(*drawn)
        value = e.pruning_at(t)
        if value == 0 or not e.has_target:
            return value > self.draw(t, "prune or not").random()
        zeros = sum(self.counts()["zeros"]) if zeros is None else zeros
        settings = e.operator_settings(t)
        pruned = np.asarray(zeros)
        return not (self.masked and driver.is_reached(self.operator, settings, pruned, self.size))

    def look_ahead(self) -> None:
        """Find the next epoch after which there is a prune, if there is one.

        A schedule of a user's may look at anything: there it may be the next one.
        """
        self.next_turn = self.epoch + 1
        if schedules.is_pure(self.experiment.schedule):
            later = range(self.epoch + 1, self.experiment.epochs)
            zeros = sum(int((~target.tensors[part].keeps).sum()) for target, part in self.parts())
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
            masks = [(self.of_first(weight), self.of_first(bias)) for weight, bias in masks]
        for number, (target, keep) in enumerate(zip(self.targets, masks, strict=True)):
            scale = float(np.float32(np.sqrt(keep[0].shape[1])))
            for part, (name, tensor) in enumerate(target.tensors.items()):
                drawn = (
                    None if fresh is None else target.as_stored(name, fresh[number][part] / scale)
                )
                tensor.prune(target.as_stored(name, keep[part]), opens, drawn)
        self.forget_moments(list(self.optimisers))
        return masks

    def of_first(self, mask: Tensor) -> Tensor:
        """The first process's mask: it is the same in all."""
        sent = mask.to(self.targets[0].weight.value.device, torch.uint8)
        distributed.broadcast(sent, 0)
        return sent.bool().cpu()

    @torch.no_grad()
    def recall(self, t: int) -> list[Tensor | None]:
        """Activations of drawn examples by layer, [100 * positions, out], if the operator asks."""
        if "recall" not in self.observers[0].needs:
            return [None] * len(self.observers)
        assert self.examples is not None  # else nothing needs recall
        draw = self.draw(t, "examples").integers(0, len(self.examples), EXAMPLES)
        rows = self.examples[torch.from_numpy(draw).to(self.examples.device)]
        with ExitStack() as stack:
            recorded = [stack.enter_context(each.recording()) for each in self.observers]
            self.evaluate(rows)
        for target, calls in zip(self.targets, recorded, strict=True):
            if not calls and target.kind.units:
                raise ValueError(f"layer {target.name} is never called: exclude it")
        return [torch.cat(calls) if calls else None for calls in recorded]

    @torch.no_grad()
    def evaluate(self, rows: Tensor) -> None:
        """Pass rows through the module in evaluation mode."""
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            self.module(rows.to(self.targets[0].weight.value.device))
        finally:
            for part in training:
                part.training = True

    # -- what came of it -------------------------------------------------------------------------

    def counts(self) -> dict[str, list[int]]:
        """By layer: parameters, and how many of them are pruned (masked, else zero)."""
        parameters, zeros = [], []
        for target in self.targets:
            tensors = list(target.tensors.values())
            parameters.append(sum(tensor.value.numel() for tensor in tensors))
            kept = [each.value if each.mask is None else each.mask.keeps for each in tensors]
            zeros.append(sum(part.numel() - int(part.count_nonzero()) for part in kept))
        return {"parameters": parameters, "zeros": zeros}

    def report(self) -> Report:
        """A row per layer that is pruned, and one for all of them; printed, its first line says how
        much of the module these are, and what is left out.

        `zeros` are pruned parameters; `preserved` is the share of the others; `dead_units` have no
        incoming weight left; `macs` are multiply-accumulates for one example with the weights that
        are left (unknown before a forward pass, and where calls do not show outputs).
        """
        table = pd.DataFrame({"layer": [target.name for target in self.targets]} | self.counts())
        table["units"] = [target.units for target in self.targets]
        left = [target.matrix(target.weight.value.detach()) != 0 for target in self.targets]
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
        report = Report(table)
        report.coverage = self.coverage
        return report

    def finish(self) -> nn.Module:
        """Leave the module plain, without hooks and masks: what was masked is zero. Returns it.

        A weight that a norm computed is a plain parameter now: the class that makes the norm loads
        it by `evoae.load_compact`, and not by `load_state_dict`.

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
        if self.operator.idle:
            return None
        done = f"finished after {self.epoch + 1} of {e.epochs} epochs"
        if self.epoch < 0:
            done = f"finished, and epoch_end was never called (epochs={e.epochs})"
        if not e.has_target:
            return f"{done}: nothing was pruned" if self.epoch < 0 else None
        reached, asked = sum(self.counts()["zeros"]) / self.size, e.final_target
        nearest = 0 if self.unit_groups is None else self.unit_groups.largest / self.size
        if asked - reached <= max(0.01, nearest):
            return None
        return f"{done}: {reached:.1%} of the parameters are pruned, {asked:.1%} were asked for"

    def release(self) -> None:
        """Leave the module plain, and say nothing."""
        self.finished = True
        for handle in (*self.handles, self.step_handle):
            handle.remove()
        for observer in self.observers:
            observer.leave()
        for part, name in self.masks_at:
            masking.remove(part, name)

    def __enter__(self) -> Pruner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind:
            self.release()
        else:
            self.finish()

    # -- rewind ----------------------------------------------------------------------------------

    def rewind(
        self, state: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Set the module back to a state dict, under the present masks: a lottery ticket.

        Args:
            state: a deep copy of the module's state dict of before, masked or not; masks that it
                has are not looked at.
            optimiser: what it keeps of the gradients of masked entries becomes zero.

        Raises ValueError, in one line and with the module as it was, if nothing is masked, or for a
        state that does not fit, or that is not a copy.
        """
        tensors = [tensor for target in self.targets for tensor in target.tensors.values()]
        if not self.masked or self.finished:
            raise ValueError("rewind needs pruned_weights=masked, and comes before finish")
        held = {p.data_ptr() for each in tensors if (p := each.stored) is not None}
        if any(value.data_ptr() in held for value in state.values()):
            raise ValueError("the state to rewind to holds the module's own tensors: deepcopy it")
        before = {key: value.clone() for key, value in self.module.state_dict().items()}
        try:
            self.module.load_state_dict(dict(state))  # without the masks in its metadata
        except RuntimeError as error:
            self.module.load_state_dict(before)
            why = words(error)
            raise ValueError(f"the state to rewind to does not fit the module: {why}") from error
        for tensor in tensors:
            tensor.prune(tensor.keeps, opens=False)
        self.forget_moments([optimiser] if optimiser else [])

    def forget_moments(self, optimisers: Iterable[torch.optim.Optimizer]) -> None:
        """Set to zero what optimisers keep of the gradients of masked entries (Adam's `exp_avg`).

        It would decay to denormal numbers, with which processors are slow: from some 600 steps on,
        an Adam's step would take four times as long. What is never negative stays, or is TINY: it
        does nothing by itself, and the root of a zero takes PyTorch 20 times as long as that of
        other numbers.
        """
        for tensor in (each for target in self.targets for each in target.tensors.values()):
            if tensor.mask is None or (stored := tensor.stored) is None:
                continue
            for key, value in (i for o in optimisers for i in o.state.get(stored, {}).items()):
                if not isinstance(value, Tensor) or value.shape != tensor.shape:
                    continue
                if any(word in key for word in NEVER_NEGATIVE):
                    value.masked_fill_(~tensor.keeps & (value < TINY), TINY)
                else:
                    value.mul_(tensor.keeps)

    # -- resume ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the module's own state: masks too, by tensor."""
        gathered = {each.target.name: each.state_dict() for each in self.observers}
        settings = {name: self.experiment.settings()[name] for name in SAVED}
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
            f"{target.name}.{part}": tensor.mask
            for target in self.targets
            for part, tensor in target.tensors.items()
        }
        return {key: mask for key, mask in found.items() if mask is not None}

    def continue_after(self, epoch: int, masks: Mapping[str, Tensor] | None = None) -> None:
        """Continue after an epoch, with masks by the names of their tensors."""
        self.epoch = epoch
        for key, mask in self.masks().items():
            if masks and key in masks:
                mask.kept.copy_(masks[key])
        self.look_ahead()
        self.watch_if_asked()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises ValueError if it has other settings or layers."""
        own = self.state_dict()
        pairs: dict[str, tuple[Any, Any]] = {"seed": (state["seed"], self.seed)}
        saved = with_new_names(state["settings"])
        pairs |= {k: (saved.get(k), v) for k, v in own["settings"].items()}
        pairs["layers"] = (list(state["gathered"]), list(own["gathered"]))
        for name, (then, here) in pairs.items():
            if then != here:
                raise ValueError(f"the state was saved with {name}={then}; here it is {here}")
        self.called = state["called"]
        for observer in self.observers:
            observer.load_state_dict(state["gathered"][observer.target.name])
        self.continue_after(state["epoch"], state.get("masks", {}))
        if self.experiment.has_target:
            self.next_turn = self.epoch + 1  # masks may be loaded after this
        self.watch_if_asked()
