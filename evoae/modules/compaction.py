"""Really smaller modules: units whose value is constant, or that nothing reads, are left out.

With an example, `modules.groups` says which channels go together, `modules.facts` which of them the
outputs depend on, and `modules.shrinking` writes what is left. Without one, `modules.chains` does
that for the layers of Sequentials. Here modules are prepared, and results are compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.weight_norm import WeightNorm

from evoae.messages import words
from evoae.modules import masking, reading
from evoae.modules.chains import REPORTED, Left, chains, shrink, why_fixed
from evoae.modules.graph import exported
from evoae.modules.plain import (
    computed_of,
    copied,
    kind_of,
    unmasked,
    why_not_a_module,
)
from evoae.modules.reading import Inputs
from evoae.modules.shrinking import Number, Plan, owners_of, part_of, tensor_of

TOLERANCE = 1e-5  # of outputs, relative to the largest: more is not rounding
ROWS = 8  # examples that are enough for most
COARSE = 0.05  # where parameters are of half precision


def compact(module: nn.Module, example: Any = None) -> nn.Module:
    """A smaller copy with equal outputs, for every finite input, in evaluation mode.

    With an `example`, the module is read by `torch.export` on it. Units, channels and hidden units
    of any layer are left out if they are always the same, or if nothing reads them: through sums,
    concatenations, pooling, norms, reshapes and tied weights. The copy has the classes of the
    original, with smaller layers, and can be trained. It is called as the example is called; its
    outputs are compared on the example, on random inputs of its shape, and on other batch sizes;
    in training mode it must run where the original does.

    Without an example, layers Linear, Conv1d and Conv2d in Sequentials lose units, and nothing else
    does; a forward is then looked at with its optional arguments at their defaults, and with each
    of them changed alone.

    Tensors that parts share stay shared, unless the copy is smaller with one for each of them: a
    warning says so. Inputs and outputs stay as they are, and no layer is left without units. Masks,
    of evoae and of `torch.nn.utils.prune`, are taken off; weight norms stay. What cannot be proven
    to give equal outputs is left as it is, and one warning, of one line, names it with the reasons:
    a module that `torch.export` cannot read, for example because its forward depends on the values
    of its input, comes back as a whole.

    Args:
        module: left untouched.
        example: an input, or a tuple of inputs, of `module`: a tensor [batch, ...], mostly.

    Raises ValueError, in one line, if `module` is no module with values, or does not take
    `example`.
    """
    if type(module).__name__ == "OptimizedModule":
        module = cast(nn.Module, module._orig_mod)  # which is as good, and can be copied
    if problem := why_not_a_module(module):
        raise ValueError(f"the module to compact {problem}")
    whole = unmasked(module)
    if example is None:
        small, left = without_example(whole)
    else:
        inputs = checked_example(whole, example)
        small, left = with_example(whole, inputs)
    if left:
        warnings.warn(f"compact leaves as it is: {in_words(left)}", stacklevel=2)
    return small


def in_words(left: Left) -> str:
    """What is left, by reason: names and types, and why."""
    reasons: dict[str, list[str]] = {}
    for name, (kind, why) in left.items():
        reasons.setdefault(why, []).append(f"{name} ({kind})")
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())


def take_off_norms(module: nn.Module, plain: Container[str]) -> None:
    """Make computed tensors parameters, where their names are among those of plain ones."""
    for where, part in list(module.named_modules()):
        names = [name for name in computed_of(part) if f"{where}.{name}".lstrip(".") in plain]
        for name in names:
            masking.as_parametrization(part, name)
        if names and parametrize.is_parametrized(part):
            bake(part)


def checked_example(module: nn.Module, example: Any) -> Inputs:
    """An example as a tuple of inputs. Raises ValueError if the module does not take it."""
    inputs = tuple(example) if isinstance(example, tuple | list) else (example,)
    try:
        reading.outputs(module, inputs)
    except Exception as error:  # whatever a user's forward raises
        raise ValueError(f"the module does not take example=: {words(error)}") from error
    return inputs


def why_unknown(module: nn.Module, parts: tuple[type[nn.Module], ...]) -> str | None:
    """Why nothing can be said of a module, if that is so; `parts` are those that are looked at."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "hooks are registered on all modules at once"
    if any(is_lazy(parameter) for parameter in module.parameters()):
        return "other layers are lazy: pass the module some data first"
    known = [part for part in module.modules() if isinstance(part, parts)]
    # a buffer of a user's may be a mask of -inf, for attention
    own = [part for part in known if type(part).__module__.startswith("torch.nn.")]
    held = [
        *(p for part in known for p in part.parameters()),
        *(b for part in own for b in part.buffers(recurse=False)),
    ]
    if not all(tensor.isfinite().all() for tensor in held):  # zero times infinity is no constant
        return "layers or norms hold NaN or infinity"
    return None


# -- with an example -----------------------------------------------------------------------------


def with_example(whole: nn.Module, inputs: Inputs) -> tuple[nn.Module, Left]:
    """A smaller module, and what is left as it is, with the reasons."""
    bare, dress = undressed(whole)
    try:
        if reason := why_unknown(whole, (nn.Module,)):
            raise ValueError(reason)
        few = first_rows(bare, inputs)
        small, left = shrunk(bare, few)
        if few is not inputs and difference(small, [(inputs, wide_outputs(bare, inputs))]):
            few, (small, left) = inputs, shrunk(bare, inputs)
        if names := untie(bare):
            apart, others = shrunk(bare, few)
            if size_of(apart) < size_of(small):
                small, left = apart, others
                warnings.warn(
                    f"compact does not tie {names} any more: so they are smaller", stacklevel=3
                )
    except ValueError as error:
        return whole, {"the whole module": (type(whole).__name__, str(error))}
    return (dress(small) if small is not bare else whole), left


def first_rows(module: nn.Module, inputs: Inputs) -> Inputs:
    """The first ROWS examples of inputs, if they are enough: outputs for them are as among all.

    Else all. What follows takes time and memory by the number of examples.
    """
    if not all(isinstance(x, Tensor) and x.dim() and len(x) == len(inputs[0]) for x in inputs):
        return inputs
    try:
        few = tuple(x[:ROWS] for x in inputs)
        pairs = zip(reading.outputs(module, few), reading.outputs(module, inputs), strict=True)
        alike = [
            len(a) == len(few[0]) and torch.allclose(a, b[:ROWS], 1e-4, 1e-5) for a, b in pairs
        ]
    except Exception:  # whatever is raised on fewer examples, or of sparse tensors
        return inputs
    return few if all(alike) and len(few[0]) < len(inputs[0]) else inputs


def size_of(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def untie(module: nn.Module) -> str:
    """Give parts that share a parameter one of their own, in place. Returns their names."""
    names = []
    for owners in owners_of(module).values():
        for part, name in owners if len(owners) > 1 else ():
            tensor = part._parameters.get(name)
            if tensor is not None:
                setattr(part, name, nn.Parameter(tensor.detach().clone(), tensor.requires_grad))
                where = next(where for where, each in module.named_modules() if each is part)
                names.append(f"{where}.{name}".lstrip("."))
    return ", ".join(names)


def shrunk(bare: nn.Module, inputs: Inputs) -> tuple[nn.Module, Left]:
    """A smaller copy of a module, or itself, and what is left as it is.

    Where outputs differ, families of channels are taken out by halves, down to each alone. Raises
    ValueError where `torch.export` cannot read the module.
    """
    graph = exported(bare, inputs)
    try:
        plan = Plan(graph)
    except Exception as error:  # an operation may be called in a way that is not known here
        raise ValueError(f"its graph cannot be followed ({words(error)})") from error
    small, taken, numbers, left = bare, list[Tensor](), list[Number](), plan.left(bare)
    tried = list(trials(bare, inputs)) if plan.families else []
    waiting = [plan.families] if plan.families else []
    trains = bool(waiting) and why_not_trained(bare, inputs) is None
    while waiting:
        some = waiting.pop()
        gaps = []
        # a forward may read a number that the module holds, as in view(-1, self.channels, 7, 7)
        for more in [list[Number](), *(plan.numbers(bare, some[0]) if len(some) == 1 else ())]:
            try:
                candidate = plan.write(copied(bare), taken + some, numbers + more)
                gaps.append(difference(candidate, tried))
                if gaps[-1] is None and trains:
                    gaps[-1] = why_not_trained(candidate, inputs)
            except Exception as error:  # a tensor may be held in a way that is not known here
                gaps.append(f"they cannot be taken out ({words(error)})")
            if gaps[-1] is None:
                small, taken, numbers = candidate, taken + some, numbers + more
                break
        if gaps[-1] is not None and len(some) > 1:
            waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
        elif gaps[-1] is not None:
            why = str(gaps[0])
            left |= {name: (kind_of(part_of(bare, name)), why) for name in plan.layers(some[0])}
    return small, left


def undressed(module: nn.Module) -> tuple[nn.Module, Callable[[nn.Module], nn.Module]]:
    """A copy whose masks of `torch.nn.utils.prune` and weight norms are gone, values as they are.

    And what puts the norms on again.
    """
    bare = copied(module)
    norms: list[tuple[str, str, Any, bool]] = []
    for where, part in bare.named_modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)
            elif isinstance(hook, WeightNorm):
                masking.as_parametrization(part, hook.name)
        chains = masking.parametrizations(part) if parametrize.is_parametrized(part) else {}
        alone = [(name, chain[0]) for name, chain in chains.items() if len(chain) == 1]
        own = [each for each in alone if isinstance(each[1], parametrizations._WeightNorm)]
        if own and len(own) == len(chains):
            norms += [(where, name, norm.dim, hasattr(norm, "by_hook")) for name, norm in own]
            bake(part)

    def dress(small: nn.Module) -> nn.Module:
        for where, name, dim, by_hook in norms:
            part = small.get_submodule(where)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                norm = nn.utils.weight_norm if by_hook else parametrizations.weight_norm
                norm(part, name, dim)
            tensors = [f"{name}_g", f"{name}_v"]
            if not by_hook:
                tensors = [f"parametrizations.{name}.original{k}" for k in (0, 1)]
            length, direction = (tensor_of(small, f"{where}.{t}".lstrip(".")) for t in tensors)
            direction.data = direction.data.where(length.data != 0, 1)  # 0 / 0 is no number
            part.train(part.training)
        return small

    return bare, dress


def bake(part: nn.Module) -> None:
    """Make what parametrizations of a part compute plain parameters.

    PyTorch's own function does so in all copies of a module, which share a class.
    """
    values = {name: getattr(part, name) for name in masking.parametrizations(part)}
    part.__class__ = type(part).__bases__[0]
    del part._modules["parametrizations"]
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value.detach(), value.requires_grad))


def trials(module: nn.Module, inputs: Inputs) -> Iterator[tuple[Inputs, list[Tensor]]]:
    """Inputs, and what a module gives for them: the example, random ones, other batch sizes."""
    draw = torch.Generator().manual_seed(0)

    def random(x: Any, scale: float) -> Any:
        if not isinstance(x, Tensor) or not x.numel():
            return x
        if x.is_floating_point():
            return (scale * torch.randn(x.shape, generator=draw)).to(x)
        return x.flatten()[torch.randint(x.numel(), x.shape, generator=draw)]

    def rows(x: Any, twice: bool) -> Any:
        return (torch.cat([x, x]) if twice else x[:1]) if isinstance(x, Tensor) and x.dim() else x

    yield inputs, wide_outputs(module, inputs)
    changes = (
        partial(random, scale=1), partial(random, scale=5),
        partial(rows, twice=True), partial(rows, twice=False),
    )  # fmt: skip
    for change in changes:
        try:
            tried = tuple(map(change, inputs))
            yield tried, wide_outputs(module, tried)
        except Exception:  # whatever a forward raises on an input of another kind; sparse ones too
            continue


def wide_outputs(module: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Outputs in double precision, where a module can be of that, else as they are."""

    def doubled(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    try:
        return reading.outputs(copied(module).double(), tuple(map(doubled, inputs)))
    except Exception:  # whatever a forward raises that counts on another precision
        return reading.outputs(module, inputs)


def why_not_trained(module: nn.Module, inputs: Inputs) -> str | None:
    """Why a module's forward does not go in training mode, if it does not."""
    try:
        reading.outputs(module, inputs, training=True)
    except Exception as error:  # whatever a user's forward raises
        return f"with fewer units its forward in training mode raises {words(error)}"
    return None


def difference(small: nn.Module, tried: list[tuple[Inputs, list[Tensor]]]) -> str | None:
    """How a smaller module differs by more than rounding, in words, if it does."""
    coarse = any(p.is_floating_point() and p.element_size() < 4 for p in small.parameters())
    for inputs, expected in tried:
        try:
            gap = reading.largest_difference(expected, wide_outputs(small, inputs))
        except Exception as error:  # whatever a user's forward raises
            return f"with fewer units its forward raises {type(error).__name__}: {words(error)}"
        if not gap <= (COARSE if coarse else TOLERANCE):
            return f"with fewer units outputs would differ by {gap:.2g} of the largest"
    return None


# -- without an example --------------------------------------------------------------------------


def without_example(whole: nn.Module) -> tuple[nn.Module, Left]:
    """A module whose Sequentials are smaller, and what is left as it is, with the reasons."""
    tried, read = reading.guessed(whole), dict[str, str]()
    reason = why_unknown(whole, REPORTED)
    if not reason:
        try:
            read = reading.read_on_symbols(whole)
            read |= {} if tried is None else reading.read_on(whole, tried)
        except ValueError as error:
            reason = str(error)
    small, left = copied(whole), Left()
    for chain in list(chains(small, "", left, why_fixed(small, read))):
        why = reason or shrink(chain)
        left |= {stage.name: (kind_of(stage.layer), why) for stage in chain if why}
    if not reason and (gap := why_different(whole, small, tried)):
        return whole, {"the whole module": (type(whole).__name__, gap)}
    return small, left


def why_different(whole: nn.Module, small: nn.Module, inputs: Inputs | None) -> str | None:
    """How a smaller module differs by more than rounding on guessed inputs, if it does."""
    if reading.numbers_read(whole) != reading.numbers_read(small):
        return "its forward computes with how many units a layer has"
    if inputs is None:
        return None
    expected, again = (wide_outputs(whole, inputs) for _ in range(2))
    if reading.largest_difference(expected, again) > 0:
        return None  # it draws from a generator of its own: nothing can be compared
    return difference(small, [(inputs, expected)])
