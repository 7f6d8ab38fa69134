"""Masks on a module's tensors, as parametrizations of PyTorch that copies and pickles survive.

A tensor that others compute (weight norm) is masked behind them, where a forward reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as parametrizations_of_torch
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

THRESHOLD = torch.ops.aten.threshold_backward
KEPT = 0.999  # a mask that was averaged keeps what was kept all the while, but for rounding


def threshold(kept: Tensor) -> float:
    """What a mask is above where it keeps: bfloat16 would round KEPT up to 1."""
    return 1 - 2**-8 if kept.dtype == torch.bfloat16 else KEPT


def in_graph() -> bool:
    """Whether a forward is being compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def select(tensor: Tensor, kept: Tensor) -> Tensor:
    """The tensor where `kept` is above its threshold, and 0 elsewhere, whatever stands there.

    This is relu's own gradient. A product leaves NaN under a mask (0 * NaN is NaN); `torch.where`
    takes eight times as long.
    """
    return THRESHOLD.default(tensor, kept, threshold(kept))


def of_type(kept: Tensor, other: Tensor) -> Tensor:
    """A mask in the type of another tensor, which it mostly has: `to` takes as long as masking."""
    return kept if kept.dtype == other.dtype else kept.to(other.dtype)


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


class Guard:
    """The parameter behind a mask, of which a hook masks the gradient.

    The mask of such a parameter sets it to zero in place, and gives the parameter itself: a masked
    copy, in new memory, and its gradient take more time than the arithmetic. A copy of a module
    gets guards of its own.
    """

    def __init__(self, mask: Mask | None = None, parameter: nn.Parameter | None = None) -> None:
        self.parameter, self.full, self.seen = parameter, False, (0, -1)
        self.handle: Any = None
        if mask is not None:
            self.watch(mask)

    def __reduce__(self) -> tuple[Any, ...]:
        return Guard, ()

    def watch(self, mask: Mask) -> None:
        """Mask gradients from now on, after all hooks that there are."""
        if self.handle:
            self.handle.remove()
        if self.parameter is not None and self.parameter.requires_grad:
            self.handle = self.parameter.register_hook(partial(self.masked, mask))

    def leave(self) -> None:
        """Do no more."""
        if self.handle:
            self.handle.remove()
        self.parameter = self.handle = None

    def is_full(self, kept: Tensor) -> bool:
        """Whether nothing is masked, found anew when the mask has changed."""
        if kept.is_meta or kept.is_inference():
            return False  # which it does not say
        seen = kept.data_ptr(), kept._version
        if seen != self.seen:
            self.seen, self.full = seen, bool((kept > threshold(kept)).all())
        return self.full

    def masked(self, mask: Mask, gradient: Tensor) -> Tensor | None:
        """A gradient, masked."""
        kept = mask._buffers["kept"]
        assert kept is not None
        if self.is_full(kept):
            return None
        kept = of_type(kept, gradient)
        return gradient * kept if gradient.is_sparse else select(gradient, kept)


class Mask(nn.Module):
    """A parametrization: where `kept` is 0, a tensor is zero, and where it is 1, as it is.

    That holds whatever lies behind the mask, NaN and infinity too. `kept` is a buffer of the
    tensor's shape and type. `dense`: the gradient reaches masked entries too, for operators that
    look at it there; whoever sets it removes the gradient again before an optimiser sees it.
    `see`: is given the gradient of a tensor that is computed, and has no parameter of its own.
    """

    kept: Tensor
    see: Callable[[Tensor], Tensor | None] | None = None

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.dense, self.guard = False, Guard()

    @property
    def keeps(self) -> Tensor:
        """`kept` as booleans."""
        return self.kept > threshold(self.kept)

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor, masked; while `dense`, with the gradient of the unmasked one."""
        guard = self.guard
        if tensor is guard.parameter and not in_graph():
            kept = self._buffers["kept"]  # the fast way to `self.kept`: a step reads every mask
            assert kept is not None
            if not kept.is_inference():
                if guard.handle is None and tensor.requires_grad:
                    guard.watch(self)  # it was frozen until now
                if not guard.is_full(kept):
                    values = tensor.data
                    kept = of_type(kept, values)
                    THRESHOLD.grad_input(values, kept, threshold(kept), grad_input=values)
                return tensor
        kept = self.kept.to(tensor.dtype)  # a state dict may have been read as another type
        if self.see is not None and tensor.requires_grad:
            tensor.register_hook(self.see)
        return Straight.apply(tensor, kept) if self.dense else select(tensor, kept)


# -- the masks of one part of a module -------------------------------------------------------------


def add(layer: nn.Module, name: str, mask: Mask) -> None:
    """Mask one tensor of a layer. The parameter stays the same object: optimisers go on with it.

    A copy of a parametrized module shares its class in PyTorch, so that taking the masks off one
    breaks the other, and it cannot be pickled: here, both are rebuilt from the layer without masks.
    A state dict has the names of the layer without masks, so that such modules load it.
    """
    as_parametrization(layer, name)
    parametrize.register_parametrization(layer, name, mask, unsafe=True)  # no trial call
    if (parameter := stored(layer, name)) is not None and mask.guard.parameter is not parameter:
        mask.guard = Guard(mask, parameter)
    first = {"parametrizations": layer._modules.pop("parametrizations")}
    layer._modules = first | layer._modules  # parameters come in the order that they had
    kind: Any = type(layer)  # a class of this layer's own
    for method, own in OWN_METHODS.items():
        setattr(kind, method, own)
    setattr(kind, name, property(short_read(name, getattr(kind, name)), getattr(kind, name).fset))


def short_read(name: str, computed: property) -> Callable[[Any], Tensor]:
    """How a layer reads a tensor: as PyTorch computes it, but at once where it is only masked."""

    def read(layer: Any) -> Tensor:
        chain = layer._modules["parametrizations"]._modules[name]
        parameter = chain._parameters.get("original")
        alone = parameter is not None and len(chain._modules) == 1
        return chain._modules["0"].forward(parameter) if alone else computed.__get__(layer)

    return read


def as_parametrization(layer: nn.Module, name: str) -> None:
    """Make a weight norm that is a hook the parametrization that PyTorch has instead of it."""
    for key, hook in layer._forward_pre_hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            del layer._forward_pre_hooks[key]
            scale, direction = (layer._parameters.pop(f"{name}_{end}") for end in "gv")
            setattr(layer, name, nn.Parameter(vars(layer).pop(name).detach()))
            parametrizations_of_torch.weight_norm(layer, name, hook.dim)
            chain = parametrizations(layer)[name]
            chain._parameters |= {"original0": scale, "original1": direction}
            vars(chain[0])["by_hook"] = True
            return


def parametrizations(layer: nn.Module) -> Mapping[str, parametrize.ParametrizationList]:
    """What computes the tensors of a parametrized layer, by their names."""
    return cast(Mapping[str, parametrize.ParametrizationList], layer.parametrizations)


def mask_of(layer: nn.Module, name: str) -> Mask | None:
    """The mask of a tensor, if it has one."""
    if not parametrize.is_parametrized(layer, name):
        return None
    last = parametrizations(layer)[name][-1]
    return last if isinstance(last, Mask) else None


def stored(layer: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter that an optimiser moves: of a masked tensor, what lies behind the mask.

    None if something computes the tensor.
    """
    if not parametrize.is_parametrized(layer, name):
        return layer._parameters.get(name)
    chain = parametrizations(layer)[name]
    alone = len(chain) == 1 and isinstance(chain[0], Mask)
    return cast(nn.Parameter, chain.original) if alone else None


@torch.no_grad()
def remove(layer: nn.Module, name: str) -> None:
    """Take the mask off; what it held at zero is zero. The parameter stays the same object.

    A tensor that is computed becomes a parameter of the masked values: weight norm would divide a
    row of zeros by its length.
    """
    if (mask := mask_of(layer, name)) is not None:
        mask.guard.leave()
        chain = parametrizations(layer)[name]
        chain.eval()  # a spectral norm moves whenever it is looked at in training
        behind = list(chain.parameters())
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
        if behind and name in layer._buffers:  # what PyTorch leaves of several parameters
            value = cast(Tensor, layer._buffers.pop(name)).detach()
            trains = any(each.requires_grad for each in behind)
            layer.register_parameter(name, nn.Parameter(value, trains))


def taken_apart(layer: nn.Module) -> tuple[nn.Module, dict[str, Mask]]:
    """A layer without its masks (it shares all tensors), and the masks by name."""
    masks = {name: mask for name in parametrizations(layer) if (mask := mask_of(layer, name))}
    plain: Any = object.__new__(type(layer).__bases__[0])
    plain.__dict__ = dict(layer.__dict__)
    modules, parameters = dict(plain._modules), dict(plain._parameters)
    computed = nn.ModuleDict()
    for name, chain in parametrizations(layer).items():
        if (parameter := stored(layer, name)) is not None:
            parameters[name] = parameter
        else:
            computed[name] = without_mask(chain)
    modules |= {"parametrizations": computed}
    if not computed:
        del modules["parametrizations"]
    else:  # a class as PyTorch makes one, of its own
        kind, not_so = type(layer), {*OWN_METHODS, *parameters, "__getstate__"}
        own = {key: value for key, value in vars(kind).items() if key not in not_so}
        plain.__class__ = type(kind.__name__, kind.__bases__, own)
    plain.__dict__ |= {"_modules": modules, "_parameters": parameters}
    if "_flat_weights" in plain.__dict__:  # of a recurrent layer, as its last call computed them
        plain._flat_weights = [getattr(plain, name, None) for name in plain._flat_weights_names]
    return plain, masks


def without_mask(chain: parametrize.ParametrizationList) -> parametrize.ParametrizationList:
    """What computes a tensor before it is masked."""
    twin = copy.copy(chain)
    steps = {k: part for k, part in chain._modules.items() if not isinstance(part, Mask)}
    twin.__dict__ = chain.__dict__ | {"_modules": steps}
    return twin


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
    with torch.no_grad():  # a recurrent layer computes its weights again when it is copied
        plain, masks = copy.deepcopy(taken_apart(layer), memo)
    return put_together(plain, masks)


def state_of_masked(layer: nn.Module, *arguments: Any, **named: Any) -> dict[str, Any]:
    """The state dict of a masked layer: that of the plain one, with zeros where it is masked.

    Masks are in its metadata, which `torch.save` writes, and which only masked layers look at.
    """
    plain, masks = taken_apart(layer)
    with torch.no_grad():
        for name, mask in masks.items():
            if (parameter := stored(layer, name)) is not None:
                # what lies behind a mask is never seen; it is the parameter itself that is given
                parameter.data.copy_(select(parameter.data, mask.kept.to(parameter.dtype)))
    state = plain.state_dict(*arguments, **named)
    prefix = named.get("prefix") or (arguments[1] if len(arguments) > 1 else "")
    for name in masks:
        if type((chain := parametrizations(layer)[name])[0]).__name__ == "_WeightNorm":
            state |= state_of_normed(prefix + name, chain)
            for number, end in enumerate("gv") if hasattr(chain[0], "by_hook") else ():
                old = f"{prefix}parametrizations.{name}.original{number}"
                state[f"{prefix}{name}_{end}"] = state.pop(old)
    if hasattr(state, "_metadata"):
        kept = {name: mask.keeps for name, mask in masks.items()}
        state._metadata[prefix[:-1]]["masks"] = kept
    return state


@torch.no_grad()
def state_of_normed(name: str, chain: parametrize.ParametrizationList) -> dict[str, Tensor]:
    """Lengths and directions that give the masked weight without its mask.

    A row of zeros has the length 0, and its direction stays: of zeros there is none.
    """
    where, _, own = name.rpartition(".")
    norm: Any = chain[0]
    lengths, directions = norm.right_inverse(chain())
    directions = torch.where(lengths == 0, cast(Tensor, chain.original1), directions)
    within = f"{where}.parametrizations.{own}.original".lstrip(".")
    return {f"{within}0": lengths, f"{within}1": directions}


def load_masked(
    layer: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any
) -> None:
    """Load a masked layer: with masks if the state has some, else under the masks there are."""
    saved = metadata.get("masks", {})
    for name, chain in parametrizations(layer).items():
        within, mask = f"{prefix}parametrizations.{name}", mask_of(layer, name)
        if mask is not None and (prefix + name in state or stored(layer, name) is None):
            if prefix + name in state:
                state[f"{within}.original"] = state.pop(prefix + name)
            last = f"{within}.{len(chain) - 1}.kept"
            state[last] = saved.get(name, mask.kept).to(mask.kept, copy=True)
    plain: Any = super(type(layer), layer)
    plain._load_from_state_dict(state, prefix, metadata, *rest)


OWN_METHODS = {
    "__reduce_ex__": reduce_masked,
    "__deepcopy__": copy_masked,
    "state_dict": state_of_masked,
    "_load_from_state_dict": load_masked,
}

# -- one tensor, wherever a module has it ---------------------------------------------------------


@dataclass(eq=False)
class Maskable:
    """One tensor of a module that can be masked.

    `holders` are the parts of the module that have it, each with its name there, and `names` are
    those in the whole module. Whoever has it, it is one tensor and has one mask.
    """

    names: list[str]
    holders: list[tuple[nn.Module, str]]

    @property
    def value(self) -> Tensor:
        """The tensor as a forward reads it."""
        layer, name = self.holders[0]
        if not parametrize.is_parametrized(layer, name):
            return getattr(layer, name)
        chain = parametrizations(layer)[name]
        if self.stored is not None:
            return chain()
        modes = [(part, part.training) for part in chain.modules()]
        chain.eval()  # a spectral norm moves whenever it is looked at in training
        try:
            return chain()
        finally:
            for part, mode in modes:
                part.training = mode

    @property
    def shape(self) -> torch.Size:
        """Its shape, found without anything that a checkpoint of activations would count."""
        with torch.no_grad():
            return self.value.shape if self.stored is None else self.stored.shape

    @property
    def stored(self) -> nn.Parameter | None:
        """The parameter behind it, None if it is computed of others."""
        return stored(*self.holders[0])

    @property
    def behind(self) -> list[nn.Parameter]:
        """The parameters that it is made of, which have as many entries."""
        layer, name = self.holders[0]
        chains = parametrizations(layer) if parametrize.is_parametrized(layer, name) else {}
        held = chains[name].parameters(False) if name in chains else layer.parameters(False)
        own = [self.stored] if self.stored is not None else held
        return [each for each in own if each is not None and each.shape == self.shape][-1:]

    @property
    def mask(self) -> Mask | None:
        """Its mask, if it has one."""
        return mask_of(*self.holders[0])

    @property
    def keeps(self) -> Tensor:
        """Which entries are not masked: all where there is no mask."""
        mask = self.mask
        return torch.ones_like(self.value, dtype=torch.bool) if mask is None else mask.keeps

    @torch.no_grad()
    def prune(self, keep: Tensor, opens: bool, fresh: Tensor | None = None) -> None:
        """Set what `keep` does not mark to zero, or to `fresh` values; masked, it stays so.

        An entry that is opened again (only if `opens`) begins at zero, or of a tensor that is
        computed at what it would be.
        """
        parameter, mask = self.stored, self.mask
        keep = keep.to(self.value)  # as numbers
        kept = keep if mask is None else mask.keeps * keep
        if parameter is not None:
            # momentum may have moved what lies behind the mask
            parameter.copy_(select(parameter, kept))
        if mask is not None:
            mask.kept.copy_(keep if opens else kept)
        elif fresh is not None and parameter is not None:
            parameter.add_(fresh.to(parameter) * (1 - keep))
