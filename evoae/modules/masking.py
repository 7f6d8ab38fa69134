"""Masks on a module's tensors, as parametrizations of PyTorch that copies and pickles survive."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

KEPT = 0.999  # a mask that was averaged keeps what was kept all the while, but for rounding


def select(tensor: Tensor, kept: Tensor) -> Tensor:
    """The tensor where `kept` is above KEPT, and 0 elsewhere, whatever stands there.

    This is relu's own gradient. A product leaves NaN under a mask (0 * NaN is NaN); `torch.where`
    takes eight times as long.
    """
    return torch.ops.aten.threshold_backward(tensor, kept, KEPT)


class Straight(torch.autograd.Function):
    """Masked values, with the gradient of the unmasked ones."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, kept: Tensor) -> Tensor:
        """The tensor, masked."""
        return select(tensor, kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is needed for the gradient."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient as it comes."""
        return gradient, None


class Mask(nn.Module):
    """A parametrization: where `kept` is 0, a tensor is zero, and where it is 1, as it is.

    That holds whatever lies behind the mask, NaN and infinity too. `kept` is a buffer of the
    tensor's shape and type. `dense`: the gradient reaches masked entries too, for operators that
    look at it there; whoever sets it removes the gradient again before an optimiser sees it.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.dense = False

    @property
    def keeps(self) -> Tensor:
        """`kept` as booleans."""
        return self.kept > KEPT

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor, masked; while `dense`, with the gradient of the unmasked one."""
        kept = self.kept.to(tensor.dtype)  # a state dict may have been read as another type
        return Straight.apply(tensor, kept) if self.dense else select(tensor, kept)


def add(layer: nn.Module, name: str, mask: Mask) -> None:
    """Mask one tensor of a layer. The parameter stays the same object: optimisers go on with it.

    A copy of a parametrized module shares its class in PyTorch, so that taking the masks off one
    breaks the other, and it cannot be pickled: here, both are rebuilt from the plain layer. A state
    dict has the names of the plain layer, so that plain modules load it.
    """
    parametrize.register_parametrization(layer, name, mask)
    kind: Any = type(layer)  # a class of this layer's own
    kind.__reduce_ex__ = reduce_masked
    kind.__deepcopy__ = copy_masked
    kind.state_dict = state_of_masked
    kind._load_from_state_dict = load_masked


def parametrizations(layer: nn.Module) -> Mapping[str, parametrize.ParametrizationList]:
    """What computes the tensors of a parametrized layer, by their names."""
    return cast(Mapping[str, parametrize.ParametrizationList], layer.parametrizations)


def mask_of(layer: nn.Module, name: str) -> Mask | None:
    """The mask of a tensor, if it has one."""
    if not parametrize.is_parametrized(layer, name):
        return None
    first = parametrizations(layer)[name][0]
    return first if isinstance(first, Mask) else None


def stored(layer: nn.Module, name: str) -> nn.Parameter:
    """The parameter that an optimiser moves: of a masked tensor, what lies behind the mask."""
    if mask_of(layer, name) is not None:
        return cast(nn.Parameter, parametrizations(layer)[name].original)
    return getattr(layer, name)


def remove(layer: nn.Module, name: str) -> None:
    """Take the mask off; what it held at zero is zero. The parameter stays the same object."""
    if mask_of(layer, name) is not None:
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def taken_apart(layer: nn.Module) -> tuple[nn.Module, dict[str, Mask]]:
    """A layer without its masks (it shares all tensors), and the masks by name."""
    plain: nn.Module = object.__new__(type(layer).__bases__[0])
    plain.__dict__ = dict(layer.__dict__)
    modules, parameters = dict(plain._modules), dict(plain._parameters)
    chains = parametrizations(layer)
    del modules["parametrizations"]
    parameters |= {name: cast(nn.Parameter, chain.original) for name, chain in chains.items()}
    plain.__dict__ |= {"_modules": modules, "_parameters": parameters}
    return plain, {name: cast(Mask, chain[0]) for name, chain in chains.items()}


def put_together(layer: nn.Module, masks: dict[str, Mask]) -> nn.Module:
    """The opposite of `taken_apart`."""
    for name, mask in masks.items():
        add(layer, name, mask)
    return layer


def reduce_masked(layer: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """How a masked layer is pickled."""
    return put_together, taken_apart(layer)


def copy_masked(layer: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """How a masked layer is copied."""
    return put_together(*copy.deepcopy(taken_apart(layer), memo))


def state_of_masked(layer: nn.Module, *arguments: Any, **named: Any) -> dict[str, Any]:
    """The state dict of a masked layer: that of the plain one, with zeros where it is masked.

    Masks are in its metadata, which `torch.save` writes, and which only masked layers look at.
    """
    with torch.no_grad():
        for name in parametrizations(layer):
            if (mask := mask_of(layer, name)) is not None:
                parameter = stored(layer, name)
                # what lies behind a mask is never seen; it is the parameter itself that is given
                parameter.data.copy_(select(parameter.data, mask.kept.to(parameter.dtype)))
    plain, masks = taken_apart(layer)
    state = plain.state_dict(*arguments, **named)
    if hasattr(state, "_metadata"):
        prefix = named.get("prefix") or (arguments[1] if len(arguments) > 1 else "")
        kept = {name: mask.keeps for name, mask in masks.items()}
        state._metadata[prefix[:-1]]["masks"] = kept
    return state


def load_masked(
    layer: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any
) -> None:
    """Load a masked layer: with masks if the state has some, else under the masks there are."""
    saved = metadata.get("masks", {})
    for name, chain in parametrizations(layer).items():
        if prefix + name in state:
            within = f"{prefix}parametrizations.{name}"
            kept = cast(Mask, chain[0]).kept
            state[f"{within}.original"] = state.pop(prefix + name)
            state[f"{within}.0.kept"] = saved.get(name, kept).to(kept, copy=True)
    plain: Any = super(type(layer), layer)
    plain._load_from_state_dict(state, prefix, metadata, *rest)


@torch.no_grad()
def prune(
    layer: nn.Module, name: str, keep: Tensor, opens: bool, fresh: Tensor | None = None
) -> None:
    """Set what `keep` does not mark to zero, or to `fresh` values; masked, it stays so.

    An entry that is opened again (only if `opens`) begins at zero.
    """
    parameter, mask = stored(layer, name), mask_of(layer, name)
    keep = keep.to(parameter).view(parameter.shape)  # as numbers
    if mask is None:
        parameter.copy_(select(parameter, keep))
        if fresh is not None:
            parameter.add_(fresh.to(parameter).view(parameter.shape) * (1 - keep))
        return
    kept = mask.keeps * keep
    # momentum may have moved what lies behind the mask
    parameter.copy_(select(parameter, kept))
    mask.kept.copy_(keep if opens else kept)
