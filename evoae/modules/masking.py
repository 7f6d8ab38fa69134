"""Masks on a module's tensors, as parametrizations of PyTorch that copies and pickles survive."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Mask(nn.Module):
    """A parametrization: where `kept` is 0, a tensor is zero, and where it is 1, as it is.

    `kept` is a buffer of the tensor's shape and type: numbers multiply faster than booleans.
    `dense`: the gradient reaches masked entries too, for operators that look at it there; whoever
    sets it takes the gradient away again before an optimiser sees it.
    """

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.dense = False

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor, masked; while `dense`, with the gradient of the unmasked one."""
        if self.dense:
            return torch.addcmul(tensor, tensor.detach(), self.kept - 1)
        return tensor * self.kept


def add(layer: nn.Module, name: str, mask: Mask) -> None:
    """Mask one tensor of a layer. The parameter stays the same object: optimisers go on with it.

    A copy of a parametrized module shares its class in PyTorch, so that taking the masks off one
    breaks the other, and it cannot be pickled: here, both are rebuilt from the plain layer.
    """
    parametrize.register_parametrization(layer, name, mask)
    type(layer).__reduce_ex__ = reduce_masked
    type(layer).__deepcopy__ = copy_masked


def mask_of(layer: nn.Module, name: str) -> Mask | None:
    """The mask of a tensor, if it has one."""
    if not parametrize.is_parametrized(layer, name):
        return None
    return layer.parametrizations[name][0]


def stored(layer: nn.Module, name: str) -> nn.Parameter:
    """The parameter that an optimiser moves: of a masked tensor, what lies behind the mask."""
    if mask_of(layer, name) is not None:
        return layer.parametrizations[name].original
    return getattr(layer, name)


def remove(layer: nn.Module, name: str) -> None:
    """Take the mask off; what it held at zero is zero. The parameter stays the same object."""
    if mask_of(layer, name) is not None:
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def taken_apart(layer: nn.Module) -> tuple[nn.Module, dict[str, Mask]]:
    """A layer without its masks (it shares all tensors), and the masks by name."""
    plain = object.__new__(type(layer).__bases__[0])
    plain.__dict__ = dict(layer.__dict__)
    modules, parameters = dict(plain._modules), dict(plain._parameters)
    chains = modules.pop("parametrizations")
    parameters |= {name: chain.original for name, chain in chains.items()}
    plain.__dict__ |= {"_modules": modules, "_parameters": parameters}
    return plain, {name: chain[0] for name, chain in chains.items()}


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
        parameter.mul_(keep)
        if fresh is not None:
            parameter.add_(fresh.to(parameter).view(parameter.shape) * (1 - keep))
        return
    parameter.mul_(mask.kept * keep)  # momentum may have moved what lies behind the mask
    mask.kept.copy_(keep if opens else keep * mask.kept)
