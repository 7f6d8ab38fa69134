"""Whether a part of a module does what its class does on its own tensors, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from evoae.modules.masking import Mask, parametrizations, remove

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)  # layers with a weight, and a bias or none


class Hook:
    """A hook that copies and pickles of a module do not carry on: there it does nothing."""

    def __init__(self, call: Callable[..., Any] | None = None) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        """What the hook does, if it still is one."""
        return self.call(*arguments) if self.call else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, ()


def why_not_plain(part: nn.Module) -> str | None:
    """Why a call of a part may be more than its class's forward on its own parameters, if it may.

    Masks of evoae and hooks of a Pruner are plain, and hooks on gradients.
    """
    if computed := why_computed(part):
        return computed
    if "forward" in vars(part):
        return "its forward was replaced"
    hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
    if any(not isinstance(hook, Hook) for hook in hooks):
        return "it has a forward hook"
    return None


def why_computed(part: nn.Module) -> str | None:
    """Why a tensor of a part is not a parameter as it stands, if it is not."""
    for name, tensor in part._parameters.items():
        if tensor is not None and is_lazy(tensor):
            return f"it is lazy and has no {name} yet"
    if parametrize.is_parametrized(part):
        for name, chain in parametrizations(part).items():
            others = [type(each).__name__ for each in chain if not isinstance(each, Mask)]
            if others:
                return f"its {name} is computed by the parametrization {others[0]}"
    names = [name for name, value in vars(part).items() if isinstance(value, Tensor)]
    if computed := [name for name in names if name in ("weight", "bias")]:
        return f"its {computed[0]} is computed by {what_computes(part)}"
    return None


def computed_of(part: nn.Module) -> list[str]:
    """The names of what is computed of a part's parameters, by parametrizations or hooks."""
    chains = list(parametrizations(part)) if parametrize.is_parametrized(part) else []
    held = [name for name, value in vars(part).items() if isinstance(value, Tensor)]
    return chains + [n for n in held if any(p.startswith(f"{n}_") for p in part._parameters)]


def what_computes(part: nn.Module) -> str:
    """What sets a part's weight before every call."""
    for hook in part._forward_pre_hooks.values():
        if type(hook).__module__ == "torch.nn.utils.prune":
            return "torch.nn.utils.prune"
        if type(hook).__module__.startswith("torch.nn.utils."):
            return type(hook).__module__
    return "a hook"


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that keeps results of computations with gradients.

    PyTorch does not copy those; they are copied without their history.
    """
    held = (tensor for part in module.modules() for tensor in tensors_in(vars(part)))
    memo = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
    with torch.no_grad():  # recurrent layers compute weights again when they are copied
        return copy.deepcopy(module, memo)


def unmasked(module: nn.Module) -> nn.Module:
    """A copy without masks of evoae: what they held at zero is zero."""
    made = copied(module)
    for part in list(made.modules()):
        if parametrize.is_parametrized(part):
            for name in list(parametrizations(part)):
                remove(part, name)
    return made


def sharing_parameters(module: nn.Module) -> nn.Module:
    """A copy that has the same parameters: to look at, not to change."""
    held = (tensor for part in module.modules() for tensor in tensors_in(vars(part)))
    own = {id(buffer) for buffer in module.buffers()}
    return copy.deepcopy(module, {id(tensor): tensor for tensor in held if id(tensor) not in own})


def tensors_in(held: Any, depth: int = 3) -> Iterator[Tensor]:
    """The tensors in an attribute's value, or in lists and dictionaries of them."""
    if isinstance(held, Tensor):
        yield held
    elif depth and isinstance(held, dict | list | tuple | set):
        for each in held.values() if isinstance(held, dict) else held:
            yield from tensors_in(each, depth - 1)


def why_not_a_module(module: Any) -> str | None:
    """Why something is no module that can be looked into, in words that end a sentence."""
    if not isinstance(module, nn.Module):
        return f"must be a torch.nn.Module; it is of type {type(module).__name__}"
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by TorchScript, which hides its layers: give the module it was made of"
    compiled = [part for part in module.modules() if part._compiled_call_impl is not None]
    if compiled or any(type(part).__name__ == "OptimizedModule" for part in module.modules()):
        return "is compiled: give the module itself, and compile it afterwards"
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return f"is wrapped in {type(module).__name__}: give its .module, and wrap it afterwards"
    tensors = (*module.parameters(), *module.buffers())
    if any(tensor.is_meta for tensor in tensors):
        return "is on the meta device, where tensors have no values: load some first"
    return None


def kind_of(part: nn.Module) -> str:
    """The name of a part's class, which parametrizations change."""
    kind = type(part)
    return (kind.__bases__[0] if parametrize.is_parametrized(part) else kind).__name__
