"""What a layer does while its module trains: sums gathered by hooks, and only those asked for.

All sums are over examples, and positions of convolutions, so their memory does not depend on how
long they are gathered. Batches are summed in single precision, which is fast, and added up in
double; so that a deviation does not drown in rounding, a unit's mean on the first batch (`pivot`)
is taken off.
The sums add up over processes that train one module together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

from evoae.modules import masking
from evoae.modules.layers import Target
from evoae.modules.plain import Hook
from evoae.modules.reading import tensors_of
from evoae.networks.gradients import Gradients
from evoae.pruning.layer import LASTING, Layer, Masks

# each statistic that an operator may need, and the sums that it is made of
SUMS_OF = {
    "mean": ("total",),
    "deviation": ("total", "squares"),
    "zero_share": ("zeros",),
    "input_norm": ("inputs",),
    "gradients": ("slopes",),
    "curvature": ("slope_squares",),
    "movement": ("movement",),
    "sensitivity": ("sensitivity",),
    "recall": (),
}
OF_UNITS = ("total", "squares", "zeros")
OF_GRADIENTS = ("slopes", "slope_squares")
FROM_GRADIENTS = {"gradients", "curvature", *LASTING}  # statistics that backward passes give
UNSEEN = "the operator reads {} of layer {}, which its calls do not show: leave it out by exclude="
NO_EXAMPLES = "{} recalls examples: give examples=, rows of data"
COUNTED = ("units", "inputs", "gradients")  # examples and positions, or backward passes


class Observer:
    """Watches one layer: `sums` by name, and `positions`, over how many an example's units spread.

    `needs`: the statistics that will be asked for. While `watching` it sees forward passes in
    training mode with gradients.
    """

    def __init__(self, target: Target, needs: Collection[str], on_call: Callable[[], None]) -> None:
        self.target, self.needs, self.on_call = target, needs, on_call
        self.names = {n for needed in needs if target.sees(needed) for n in SUMS_OF[needed]}
        self.positions: int | None = None
        self.handles: list[Any] = []
        self.watching = True
        self.weighed: set[str] = set()  # whose gradients before training were seen
        self.reached: set[str] = set()  # by a backward pass, of those that will be asked about
        self.ignored = ""  # why calls were not looked at
        self.sums: dict[str, Tensor] = {}
        self.ours: dict[str, Tensor] = {}  # memory for products of gradients
        self.begin()

    def begin(self) -> None:
        """Set all sums to zero, those that last from the start of the training too."""
        names = self.names
        sizes = {"inputs": self.target.inputs, **dict.fromkeys(OF_UNITS, self.target.units)}
        sizes = {name: size for name, size in sizes.items() if name in names}
        if "squares" in names:
            sizes["pivot"] = self.target.units
        self.counts = dict.fromkeys(COUNTED, 0)
        device = self.target.weight.value.device
        self.sums = {
            name: torch.zeros(size, dtype=wide(device), device=device)
            for name, size in sizes.items()
        }
        for name in (*OF_GRADIENTS, *LASTING):
            for part, tensor in self.target.tensors.items() if name in names else ():
                self.sums[f"{name}.{part}"] = torch.zeros_like(tensor.value, requires_grad=False)

    def forget(self, pruned: bool) -> None:
        """After an epoch: gradients are begun anew, and what units did if there was a prune."""
        for name, tensor in self.sums.items():
            if name.startswith(OF_GRADIENTS) or (pruned and not name.startswith(LASTING)):
                tensor.zero_()
        if not self.lasts:
            self.reached = set()
        self.counts |= dict.fromkeys(COUNTED if pruned else ("gradients",), 0)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all sums and counts."""
        sums = {name: tensor.clone() for name, tensor in self.sums.items()}
        return sums | self.counts | {"reached": sorted(self.reached)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that were saved."""
        for name, tensor in self.sums.items():
            tensor.copy_(state[name])
        self.counts = {name: state[name] for name in COUNTED}
        self.reached = set(state.get("reached", self.target.tensors))
        parts = self.target.tensors if "sensitivity" in self.names else ()
        self.weighed = {part for part in parts if state[f"sensitivity.{part}"].any()}

    @property
    def of_gradients(self) -> bool:
        """Whether the operator asks for anything that is made of gradients."""
        return not self.names.isdisjoint((*OF_GRADIENTS, *LASTING))

    @property
    def lasts(self) -> bool:
        """Whether a sum runs from the start of the training."""
        return not self.names.isdisjoint(LASTING)

    # -- hooks -----------------------------------------------------------------------------------

    def register(self) -> None:
        """Register the hooks: on the layer, at the end of its units, on its parameters.

        They stay: code that was compiled without a hook never calls one that comes later.
        """
        target = self.target
        ends = [target.end] if len(target.layers) == 1 else target.layers
        for end in ends if not self.names.isdisjoint(OF_UNITS) else ():
            self.handles.append(end.register_forward_hook(Hook(self.see_units)))
        for layer in target.layers if "inputs" in self.names else ():
            self.handles.append(
                layer.register_forward_hook(Hook(self.see_inputs), with_kwargs=True)
            )
        for part, tensor in target.tensors.items() if self.of_gradients else ():
            if (parameter := tensor.stored) is None:
                mask = tensor.mask
                assert mask is not None  # see Pruner
                mask.see = Hook(partial(self.see_computed, part, mask))
            elif parameter.requires_grad:
                see = Hook(partial(self.see_gradient, part, parameter))
                self.handles.append(parameter.register_hook(see))
        self.first = target.layer.register_forward_hook(Hook(self.see_first), with_kwargs=True)
        self.handles.append(self.first)

    def watch(self, watching: bool) -> None:
        """Whether to gather from now on. Masks then let gradients of masked entries through."""
        self.watching = watching
        dense = watching and not self.names.isdisjoint(OF_GRADIENTS)
        for tensor in self.target.tensors.values():
            if (mask := tensor.mask) is not None:
                mask.dense = dense

    def leave(self) -> None:
        """Remove all hooks."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def see_first(
        self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        """Once: that the layer is called, and over how many positions each weight is used."""
        target = self.target
        if target.kind.inputs == "values":
            is_before = target.kind.transposed and target.axis != -1
            values = self.seen((inputs, named) if is_before else output)
            if values is not None:
                over = values.shape[target.axis + 1 :] if target.axis != -1 else values.shape[1:-1]
                self.positions = over.numel()
        elif target.kind.units:
            self.positions = 0  # a lookup multiplies nothing
        self.first.remove()
        self.on_call()

    def seen(self, values: Any) -> Tensor | None:
        """The first tensor of what a call is given or gives, [examples, ...]; None if it has none.

        Of a single example, it is a row.
        """
        found = values if isinstance(values, Tensor) else next(iter(tensors_of(values)), None)
        return found[None] if found is not None and found.dim() == 1 else found

    def see_units(self, end: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add a forward pass of training to the sums of units."""
        if not self.looks() or (output := self.seen(output)) is None:
            return
        seen = output.detach().float()
        seen = self.target.activate(seen)
        over, sums = self.all_but_units(seen), self.sums
        if "zeros" in self.names:  # sums of signs are faster than counts, and exact
            signs = (seen if self.target.relu else seen.abs()).sign()
            self.add("zeros", seen.numel() // self.target.units - signs.sum(over))
        if "squares" in self.names:
            if not self.counts["units"]:
                sums["pivot"] = seen.mean(over).to(sums["total"])
            pivot = sums["pivot"].to(seen).view(-1, *[1] * (-1 - self.target.axis))
            # of what is ours, in target: new memory costs more than arithmetic
            seen = seen.sub_(pivot) if self.target.relu else seen - pivot
        if "total" in self.names:
            self.add("total", seen.sum(over))
        if "squares" in self.names:
            self.add("squares", seen.mul_(seen).sum(over))
        self.counts["units"] += seen.numel() // self.target.units

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Within, the activations of every call are kept: [examples * positions, units] each."""
        rows: list[Tensor] = []

        def record(end: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if (output := self.seen(output)) is None:
                return
            seen = output.detach().float().movedim(self.target.axis, -1).flatten(0, -2)
            rows.append(self.target.activate(seen).cpu())

        with self.target.end.register_forward_hook(record):
            yield rows

    def see_inputs(
        self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        """Add a forward pass of training to the sums of inputs."""
        if not self.looks() or (given := self.seen((inputs, named))) is None:
            return
        seen = given.detach()
        if self.target.kind.inputs == "indices":  # each is an input of 1 among zeros
            self.counts["inputs"] += seen.numel()
            self.add("inputs", seen.flatten().bincount(minlength=self.target.inputs))
            return
        squares = seen.float().square().sum(self.all_but_units(seen))
        self.counts["inputs"] += seen.numel() // len(squares)
        self.add("inputs", squares)

    def looks(self) -> bool:
        """Whether a call counts: it is watched for, and of training."""
        if self.watching and not self.target.layer.training:
            self.ignored = "it was called in evaluation mode: call train() on the module"
        elif self.watching and not torch.is_grad_enabled():
            self.ignored = "it was called without gradients, as under torch.no_grad"
        return self.watching and self.target.layer.training and torch.is_grad_enabled()

    def all_but_units(self, values: Tensor) -> list[int]:
        """Dimensions of inputs or outputs that are examples and positions."""
        axis = values.dim() + self.target.axis
        return [dim for dim in range(values.dim()) if dim != axis]

    def see_computed(self, part: str, mask: masking.Mask, gradient: Tensor) -> Tensor | None:
        """Add one backward pass to a computed tensor; returned is what its parameters get of it."""
        if not self.watching:
            return None
        self.see_gradient(part, None, gradient)
        return masking.select(gradient, mask.kept.to(gradient.dtype))

    def see_gradient(self, part: str, parameter: Tensor | None, gradient: Tensor) -> None:
        """Add one backward pass to a parameter, or to a tensor that is computed.

        Mixed precision scales the loss: gradients then compare with each other, and a pass whose
        gradients overflow counts as zeros.
        """
        if not self.watching:
            return
        self.reached.add(part)
        names = self.names
        if gradient.layout is not torch.strided:  # an embedding's may be sparse
            gradient = gradient.to_dense()
        # of a CPU's gradient a sum is the fast way to ask; of a GPU's, asking is slow
        if gradient.device.type != "cpu" or not math.isfinite(gradient.sum()):
            gradient = torch.nan_to_num(gradient, 0, 0, 0)
        if part == "weight":
            self.counts["gradients"] += 1
        if "slopes" in names:
            self.add(f"slopes.{part}", gradient)
        if "slope_squares" in names:
            self.add(f"slope_squares.{part}", self.product(part, gradient, gradient))
        weighs = "sensitivity" in names and part not in self.weighed
        if weighs or "movement" in names:
            value = self.target.tensors[part].value if parameter is None else parameter
            product = self.product(part, gradient, value.detach())
            if "movement" in names:
                self.sum_of(f"movement.{part}", product).sub_(product)
            if weighs:
                self.weighed.add(part)
                self.add(f"sensitivity.{part}", product)

    def product(self, part: str, a: Tensor, b: Tensor) -> Tensor:
        """a * b, where the last one was: new memory takes longer than the arithmetic."""
        ours = self.ours.get(part)
        if ours is None or ours.device != a.device:
            ours = self.ours[part] = torch.empty_like(a)
        return torch.mul(a, b, out=ours)

    def add(self, name: str, value: Tensor) -> None:
        """Add to a sum, where the module is now."""
        self.sum_of(name, value).add_(value)

    def sum_of(self, name: str, value: Tensor) -> Tensor:
        """A sum, where the module is now."""
        if self.sums[name].device != value.device:  # the module has moved
            self.sums[name] = self.sums[name].to(value.device)
        return self.sums[name]

    # -- statistics ------------------------------------------------------------------------------

    def view(self, recalled: Tensor | None) -> Layer:
        """The layer as an operator sees it, in the CPU's memory: weights as [out, in], of a
        convolution [out, in * height * width]. Where it has no bias, it has zeros, pruned already.
        """
        target, weight = self.target, self.target.weight
        sums = {name: over_processes(tensor).cpu() for name, tensor in self.about_zero().items()}
        own = torch.tensor(list(self.counts.values()), device=weight.value.device)
        counts = dict(zip(self.counts, over_processes(own).tolist(), strict=True))

        def statistic(name: str) -> Any:
            if name == "recall" and recalled is None and target.sees(name):
                raise ValueError(NO_EXAMPLES.format("the operator"))
            if not target.sees(name):
                raise ValueError(UNSEEN.format(name, target.name))
            if name not in self.needs:
                raise ValueError(
                    f"the operator reads {name} of layer {target.name}, which was not gathered: "
                    f"register it with needs=({name!r},), beside what else it reads"
                )
            return recalled if name == "recall" else self.statistic(name, sums, counts)

        now = as_operators_see(target, lambda part: target.tensors[part].value.detach())
        active = None
        if weight.mask is not None:
            active = as_operators_see(target, lambda part: target.tensors[part].keeps)
        return Layer(*now, statistic, active)

    def about_zero(self) -> dict[str, Tensor]:
        """The sums, those of units as if nothing had been subtracted."""
        sums = dict(self.sums)
        pivot, n = sums.pop("pivot", None), self.counts["units"]
        if pivot is not None:
            sums["squares"] = sums["squares"] + 2 * pivot * sums["total"] + n * pivot.square()
            sums["total"] = sums["total"] + n * pivot
        return sums

    def statistic(self, name: str, sums: dict[str, Tensor], counts: dict[str, int]) -> Any:
        """Made of the sums. Raises ValueError if nothing was seen."""

        def mean(of: str, kind: str) -> Tensor:
            if counts[kind] == 0:
                raise ValueError(
                    f"layer {self.target.name} was not trained since the last prune, or is never "
                    "called: train first, or exclude it"
                    + (f" ({self.ignored})" if self.ignored else "")
                )
            return sums[of] / counts[kind]

        def slopes(of: str) -> Masks:
            return as_operators_see(self.target, lambda part: mean(f"{of}.{part}", "gradients"))

        if name == "mean":
            return mean("total", "units")
        if name == "deviation":
            return (mean("squares", "units") - mean("total", "units").square()).clamp(min=0).sqrt()
        if name == "zero_share":
            return mean("zeros", "units")
        if name == "input_norm":
            return self.target.by_entry(mean("inputs", "inputs").sqrt())
        if name == "gradients":
            weight, bias = slopes("slopes")
            there = "bias" in self.target.tensors
            return Gradients(weight, bias if there else torch.full_like(bias, math.nan))
        if name == "curvature":
            return slopes("slope_squares")
        lasting = as_operators_see(self.target, lambda part: sums[f"{name}.{part}"])
        return tuple(part.abs() for part in lasting) if name == "sensitivity" else lasting


def wide(device: torch.device) -> torch.dtype:
    """Double precision, where a device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes that train together (a copy), or the tensor if it is alone."""
    if not together():
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def together() -> bool:
    """Whether several processes train one module."""
    return distributed.is_available() and distributed.is_initialized()


def as_operators_see(target: Target, part_of: Callable[[str], Tensor]) -> Masks:
    """Weight [out, in] and bias [out] on the CPU; a bias that is not there is of zeros."""
    weight = target.as_seen("weight", part_of("weight"))
    weight = weight if weight.dtype == torch.bool else weight.float()
    if "bias" not in target.tensors:
        return weight, torch.zeros(target.units, dtype=weight.dtype)
    return weight, part_of("bias").to(weight.device, weight.dtype)
