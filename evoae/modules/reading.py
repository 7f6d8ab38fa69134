"""Which parts of a module are used in another way than through the Sequential that holds them.

That cannot be seen from the tree of modules: a forward may read `self.encoder[0].weight`, call
`self.net[2]`, or collect what every layer gives. So the module is run, and watched. `torch.fx` runs
it on symbols, which stand for any input; what cannot be followed so is run on an example.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from evoae.messages import words
from evoae.modules.plain import WEIGHTED, copied

Inputs = tuple[Any, ...]
T = TypeVar("T")
# in what Python and fx say of len(x), range(x), int(x), f"{x:d}" of a symbol, which no user raises
OF_SYMBOLS = ("'Proxy'", "'Attribute'", ".__format__", "symbolic tracing")


class Watcher(TorchFunctionMode):
    """Watches a copy of a module while it runs: `read` says, by name, what was seen from outside.

    A part may be called by the Sequential that holds it (or by anything, if none does), and its
    parameters and buffers read by its own forward.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.read: dict[str, str] = {}
        self.running: list[nn.Module] = []
        self.owners: dict[int, list[tuple[str, nn.Module]]] = {}
        for name, part in module.named_modules():
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                self.owners.setdefault(id(tensor), []).append((name, part))
        holders = [part for part in module.modules() if is_chain(part)]
        for name, part in module.named_modules():
            within = [each for each in holders if any(part is c for c in each._modules.values())]
            part.register_forward_pre_hook(self.entered(name, within), prepend=True)
            part.register_forward_hook(self.left, always_call=True)

    def entered(self, name: str, within: list[nn.Module]) -> Callable[..., None]:
        """A hook for the beginning of a call."""

        def enter(part: nn.Module, inputs: Inputs) -> None:
            caller = self.running[-1] if self.running else None
            if within and not any(caller is each for each in within):
                self.read.setdefault(name, "called outside its Sequential")
            self.running.append(part)

        return enter

    def left(self, part: nn.Module, inputs: Inputs, output: Any) -> None:
        """A hook for the end of a call, whether it went well or not."""
        if self.running:
            self.running.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Any function of PyTorch: whose tensors is it given?"""
        for value in (*args, *(kwargs or {}).values()):
            for tensor in value if isinstance(value, list | tuple) else (value,):
                owners = self.owners.get(id(tensor), []) if isinstance(tensor, Tensor) else []
                if self.running and not any(self.running[-1] is part for _, part in owners):
                    for name, _ in owners:
                        self.read.setdefault(name, "read outside its Sequential")
        return func(*args, **(kwargs or {}))


def is_chain(module: nn.Module) -> bool:
    """Whether a module calls its children one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


# -- on symbols ----------------------------------------------------------------------------------


class Undecided(BaseException):
    """A forward reached a condition on a symbol, and no answer is given.

    No `Exception`, so that a forward that catches those does not catch it.
    """


class Tracer(fx.Tracer):
    """Runs a module on symbols. Modules of PyTorch are not looked into, but their hooks are run.

    `answers`: the truth of the conditions on symbols, in the order in which they are reached.
    """

    def __init__(self, answers: Sequence[bool]) -> None:
        super().__init__()
        self.answers = iter(answers)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """What is known and runs no code of a user's inside."""
        return (
            type(m).__module__.startswith(("torch.nn", "torch.ao"))
            and not isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict)
            and "forward" not in vars(m)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Inputs, kwargs: dict[str, Any]
    ) -> Any:
        """Call a part, with its hooks; of a known one, only note that it is called."""
        name = self.submodule_paths.get(m) if self.submodule_paths else None
        if name is None or not self.is_leaf_module(m, name):
            return forward(*args, **kwargs)  # what was made by a forward has no name

        def noted(*given: Any, **named: Any) -> Any:
            return self.create_proxy("call_module", name, given, named)

        vars(m)["forward"] = noted
        try:
            return forward(*args, **kwargs)
        finally:
            del vars(m)["forward"]

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The next answer."""
        answer = next(self.answers, None)
        if answer is None:
            raise Undecided
        return answer


def decided(run: Callable[[list[bool]], T]) -> T:
    """What a run gives if conditions on symbols are answered so that a forward does not refuse.

    An `assert`, or an `if` that leads to a `raise`, has one answer after which a forward goes on,
    to the next condition or to its end, and one after which it raises: for inputs that raise there
    are no outputs to compare. Raises TraceError where a forward goes on after both answers: what
    it does depends on its input.
    """
    answers: list[bool] = []
    end = attempt(run, answers)
    while isinstance(end, Undecided):
        ends = {truth: attempt(run, [*answers, truth]) for truth in (True, False)}
        going_on = [truth for truth, end in ends.items() if not isinstance(end, Exception)]
        if len(going_on) == 2:
            raise TraceError("what the forward does depends on its input")
        answers += going_on or [True]
        end = ends[answers[-1]]
    if isinstance(end, Exception):
        raise end
    return end


def attempt(run: Callable[[list[bool]], T], answers: list[bool]) -> T | Undecided | Exception:
    """What a run gives, or what it raises. Raises TraceError where symbols cannot be used."""
    try:
        return run(answers)
    except Undecided as end:
        return end
    except Exception as error:  # whatever a user's forward raises that is given no data
        if isinstance(error, TypeError | RuntimeError) and any(w in str(error) for w in OF_SYMBOLS):
            raise TraceError(str(error)) from error
        if isinstance(error, TraceError):
            raise
        return error


class Whole(nn.Module):
    """A module that is called with some of its optional arguments given: tracing sees its hooks."""

    def __init__(self, module: nn.Module, positional: int, given: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.positional, self.given = module, positional, given

    def forward(self, inputs: Any) -> Any:
        """The module's output for symbols that come from `inputs`."""
        symbols = [inputs[number] for number in range(self.positional)]
        named = {k: inputs[k] if v is inspect.Parameter.empty else v for k, v in self.given.items()}
        return self.module(*symbols, **named)


def ways_to_call(module: nn.Module) -> Iterator[tuple[int, dict[str, Any]]]:
    """How many positional inputs a forward takes, and ways of giving its optional ones.

    First all by default; then one of them the other way round if it is a yes or no, else as a
    symbol (`Parameter.empty`), each in turn.
    """
    symbol = inspect.Parameter.empty
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    several = any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters)
    required = sum(p.kind in plain and p.default is symbol for p in parameters)
    positional = max(required, int(several))
    optional = {p.name: p.default for p in parameters if p.default is not symbol}
    keywords = (p.name for p in parameters if p.kind == inspect.Parameter.KEYWORD_ONLY)
    default = dict.fromkeys(keywords, symbol) | optional
    yield positional, default
    for name, value in optional.items():
        yield positional, default | {name: not value if isinstance(value, bool) else symbol}


def read_on_symbols(module: nn.Module) -> dict[str, str]:
    """What is read from outside, in whatever way the module is called, in evaluation mode.

    Raises ValueError, with the reason, if that cannot be followed. In training mode what can be
    followed counts too.
    """
    read: dict[str, str] = {}
    for training in (False, True):
        for way in ways_to_call(module):
            try:
                graph, watcher = watched(module, training, *way)
            except Exception as error:  # whatever a user's forward raises that is given no data
                if not training:
                    raise ValueError(why_not_followed(module, way[1], error)) from error
                break
            read |= watcher.read
            for node in graph.nodes:
                if node.op == "get_attr":
                    name = str(node.target).removeprefix("module.").rpartition(".")[0]
                    read.setdefault(name, "read outside its Sequential")
    return read


def watched(
    module: nn.Module, training: bool, positional: int, given: dict[str, Any]
) -> tuple[fx.Graph, Watcher]:
    """A module's graph in one way of calling it, and what was seen on the way."""

    def run(answers: list[bool]) -> tuple[fx.Graph, Watcher]:
        probe = copied(module).train(training)
        with quiet(), Watcher(probe) as watcher:
            return Tracer(answers).trace(Whole(probe, positional, given)), watcher

    return decided(run)


def numbers_read(module: nn.Module) -> list[int | float] | None:
    """The numbers that a forward computes with, in evaluation mode; None if it is not followed.

    A layer's width is such a number where a forward divides by it.
    """
    try:
        graphs = [watched(module, False, *way)[0] for way in ways_to_call(module)]
    except Exception:  # whatever a user's forward raises that is given no data
        return None
    leaves = [tree_leaves((node.args, node.kwargs)) for g in graphs for node in g.nodes]
    return [leaf for each in leaves for leaf in each if isinstance(leaf, int | float)]


def why_not_followed(module: nn.Module, given: dict[str, Any], error: Exception) -> str:
    """Why a forward cannot be run on symbols, in words, and what helps."""
    symbols = [name for name, value in given.items() if value is inspect.Parameter.empty]
    where = f"{type(module).__name__}.forward" + (f" with {', '.join(symbols)}" if symbols else "")
    if isinstance(error, TraceError):
        return f"{where} depends on its input, and cannot be followed without example="
    return f"{where} cannot be followed without example= ({words(error)})"


# -- on an example -------------------------------------------------------------------------------


def read_on(module: nn.Module, inputs: Inputs) -> dict[str, str]:
    """What is read from outside on an example, in evaluation mode."""
    probe = copied(module).eval()
    with quiet(), torch.no_grad(), Watcher(probe) as watcher:
        probe(*inputs)
    return watcher.read


def outputs(module: nn.Module, inputs: Inputs, training: bool = False) -> list[Tensor]:
    """The tensors that a copy of a module gives, by default in evaluation mode.

    What it draws is seeded.
    """
    probe = copied(module).train(training)
    own = [each.clone() if isinstance(each, Tensor) else each for each in inputs]
    with quiet(), torch.no_grad():
        torch.manual_seed(0)
        return tensors_of(probe(*own))


def tensors_of(output: Any, depth: int = 4) -> list[Tensor]:
    """The tensors in what a forward gives: in dataclasses and other objects (distributions) too."""
    found: list[Tensor] = []
    for each in tree_leaves(output):
        if isinstance(each, Tensor):
            found.append(each)
        elif depth and is_dataclass(each):
            held = [getattr(each, field.name) for field in fields(each)]
            found += tensors_of(held, depth - 1)
        elif depth and hasattr(each, "__dict__") and not isinstance(each, nn.Module):
            public = [value for name, value in vars(each).items() if not name.startswith("_")]
            found += tensors_of(public, depth - 1)
    return found


def largest_difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Between outputs, relative to the largest of them; infinite if their shapes differ."""
    if [each.shape for each in one] != [each.shape for each in other]:
        return float("inf")
    found = 0.0
    for a, b in zip(one, other, strict=True):
        wide = torch.complex128 if a.is_complex() else torch.float64
        a, b = a.to(wide), b.to(wide)
        if not torch.equal(*(each.where(~each.isfinite(), 0).nan_to_num(7) for each in (a, b))):
            return float("inf")  # what is not finite must be the same
        finite = a.isfinite()
        gap = (a - b)[finite].abs()
        if gap.any():
            found = max(found, float(gap.max() / a[finite].abs().max().clamp(min=1e-30)))
    return found


def guessed(module: nn.Module) -> Inputs | None:
    """An input that the module takes, made for its first layer; None if none is found."""
    first = next((part for part in module.modules() if isinstance(part, WEIGHTED)), None)
    if first is None or first.weight is None:
        return None
    draw = torch.Generator().manual_seed(0)
    if isinstance(first, nn.Linear):
        shapes: list[tuple[int, ...]] = [(4, first.in_features)]
    else:
        sides = first.weight.dim() - 2
        shapes = [(4, first.in_channels, *[side] * sides) for side in (28, 32, 16, 8, 64)]
    for shape in shapes:
        x = torch.rand(shape, generator=draw).to(first.weight)
        try:
            outputs(module, (x,))
        except Exception:  # whatever a user's forward raises on an input that does not fit
            continue
        return (x,)
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing is warned of, and PyTorch's generator is as it was afterwards."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        yield
