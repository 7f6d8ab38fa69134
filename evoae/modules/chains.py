"""Chains of layers in a module's Sequentials, of which the units in between are nobody else's.

Whatever stands between layers and is not known here ends a chain: the units before it are all kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils import parametrize

from evoae.modules.plain import why_not_plain
from evoae.modules.reading import is_chain
from evoae.modules.tracing import LAYERS, Prunable

# operations that map each unit by itself, and a constant to a constant; of what is at least 0 they
# make what is at least 0, except BOUNDS
EACH_UNIT = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish,
    nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.Hardsigmoid, nn.Hardswish,
)  # fmt: skip
BOUNDS = (nn.Hardtanh, nn.Softplus)  # which may lie below 0
UNCHANGED = (nn.Identity, nn.Dropout, nn.AlphaDropout)
# operations on a map of positions that leave a constant as it is, by the layer before
OVER_POSITIONS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.Conv1d: (nn.Dropout1d, nn.Upsample, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    nn.Conv2d: (nn.Dropout2d, nn.Upsample, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NORM_OF = dict(zip(LAYERS, (nn.BatchNorm1d, *BATCH_NORMS), strict=True))
KNOWN = {*EACH_UNIT, *UNCHANGED, *OVER_POSITIONS[nn.Conv1d], *OVER_POSITIONS[nn.Conv2d], nn.Flatten}
REPORTED = (*LAYERS, *BATCH_NORMS, nn.BatchNorm3d)

Left = dict[str, tuple[str, str]]  # what is left as it is, by name: its type, and the reason


@dataclass
class Stage:
    """A layer of a chain, and the operations between it and the next layer."""

    name: str
    layer: Prunable
    after: list[nn.Module] = field(default_factory=list)
    spread: int = 1  # inputs of the next layer for each unit: more than one behind Flatten

    @property
    def is_flat(self) -> bool:
        """Whether units and positions have become one axis."""
        return any(isinstance(part, nn.Flatten) for part in self.after)


def why_fixed(module: nn.Module, read: dict[str, str]) -> dict[str, str]:
    """Why parts must stay as they are, by name; `read` is what is read outside of Sequentials."""
    fixed: dict[str, str] = {}
    owners: dict[int, str] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        why = why_not_plain(part)
        if not why and isinstance(part, LAYERS) and type(part) not in LAYERS:
            why = "it is of a class of its own"
        if why := why or read.get(name):
            fixed[name] = why
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None and owners.setdefault(id(tensor), name) != name:
                for each in (owners[id(tensor)], name):
                    fixed.setdefault(each, "others have its parameters or buffers")
    return fixed


def chains(
    module: nn.Module, name: str, left: Left, fixed: dict[str, str]
) -> Iterator[list[Stage]]:
    """The chains of layers in a module; what is in none is added to `left`."""
    if is_chain(module):
        called = list(leaves(module, name, fixed))
        yield from split(called, left, fixed)
        inside = [(where, part) for where, part in called if list(part.children())]
    else:
        inside = children(module, name)
    for where, child in inside:
        yield from chains(child, where, left, fixed)
    said = any(name == each or name.startswith(f"{each}.") for each in left)
    if not list(module.children()) and isinstance(module, REPORTED) and not said:
        left[name or "the module"] = kind_of(module), "it is in no plain Sequential"


def children(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The children by name; one that has two names comes twice, unlike in `named_children`."""
    parts = module._modules.items()
    return [(f"{name}.{key}".lstrip("."), child) for key, child in parts if child is not None]


def leaves(module: nn.Module, name: str, fixed: dict[str, str]) -> Iterator[tuple[str, nn.Module]]:
    """What a Sequential calls one after the other, plain ones inside it taken apart."""
    for where, child in children(module, name):
        if is_chain(child) and where not in fixed:
            yield from leaves(child, where, fixed)
        else:
            yield where, child


def split(
    called: list[tuple[str, nn.Module]], left: Left, fixed: dict[str, str]
) -> Iterator[list[Stage]]:
    """Chains of layers whose next is reached through known operations only."""
    chain: list[Stage] = []
    for where, part in called:
        why = fixed.get(where) or why_unknown(part, chain[-1] if chain else None)
        if why:
            looked_into = list(part.children()) or type(part) is nn.Flatten
            if (where in fixed or not looked_into) and (chain or type(part) not in KNOWN):
                left[where] = kind_of(part), why
            if chain:
                yield chain
            chain = []
        elif isinstance(part, LAYERS):
            if chain and not (spread := inputs_of_each_unit(chain[-1], part)):
                yield chain
                chain = []
            if chain:
                chain[-1].spread = spread
            chain.append(Stage(where, part))
        elif chain:
            chain[-1].after.append(part)
    if chain:
        yield chain


def why_unknown(part: nn.Module, before: Stage | None) -> str | None:
    """Why a part cannot follow a stage, or begin a chain, if it cannot."""
    if not isinstance(part, LAYERS):
        known = type(part) in KNOWN if before is None else is_known(part, before)
        return None if known else "what it does to the units before it is not known"
    if getattr(part, "groups", 1) != 1:
        return "it has groups"
    if not part.weight.numel():
        return "it has no weights"
    if not part.weight.is_floating_point():
        return f"its weights are {part.weight.dtype}"
    return None


def is_known(part: nn.Module, before: Stage) -> bool:
    """Whether what a part does to a stage's units is known, so that a constant can be followed."""
    kind, layer = type(part), before.layer
    if kind in (*EACH_UNIT, *UNCHANGED):
        return True
    if before.is_flat:
        return False
    if kind is NORM_OF[type(layer)]:
        assert isinstance(part, BATCH_NORMS)
        there = part.track_running_stats and part.running_mean is not None
        return there and part.num_features == layer.weight.shape[0]
    if type(part) is nn.Flatten:
        return part.start_dim == 1 and part.end_dim == -1
    if kind in OVER_POSITIONS.get(type(layer), ()):
        return not getattr(part, "return_indices", False)
    return False


def inputs_of_each_unit(stage: Stage, layer: Prunable) -> int:
    """How many inputs of the next layer each unit of a stage makes; 0 if it is not its input."""
    units, inputs = stage.layer.weight.shape[0], layer.weight.shape[1]
    before, now = (isinstance(each, nn.Linear) for each in (stage.layer, layer))
    if now and not before:
        return inputs // units if stage.is_flat and inputs % units == 0 else 0
    return int(before == now and inputs == units and not stage.is_flat)


def kind_of(part: nn.Module) -> str:
    """The name of a part's class, which parametrizations change."""
    kind = type(part)
    return (kind.__bases__[0] if parametrize.is_parametrized(part) else kind).__name__
