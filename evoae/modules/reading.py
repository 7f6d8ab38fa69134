"""Which parts of a module are used in another way than through the Sequential that holds them.

That cannot be seen from the tree of modules: a forward may read `self.encoder[0].weight`, call
`self.net[2]`, or collect what every layer gives. So the module is run, and watched. `torch.fx` runs
it on symbols, which stand for any input; what cannot be followed so is run on an example.
"""

from __future__ import annotations

import dis
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from evoae.messages import one_line, shortened
from evoae.modules.plain import copied

WIDTHS = ("in_features", "out_features", "in_channels", "out_channels", "num_features")
MOST_WAYS = 16  # of calling a forward, by its optional arguments, that are looked at
Inputs = tuple[Any, ...]
FX = (fx.__path__[0], __file__)  # whose frames lie between a symbol and who asks about it


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
            if not list(part.children()) and any(width in vars(part) for width in WIDTHS):
                self.watch_widths(name, part)

    def entered(self, name: str, within: list[nn.Module]) -> Callable[..., None]:
        """A hook for the begin of a call."""

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

    def watch_widths(self, name: str, part: nn.Module) -> None:
        """See it if somebody else asks how many inputs or outputs a layer has."""
        watcher, own = self, type(part)

        class Watched(own):  # type: ignore[misc, valid-type]
            def __getattribute__(self, key: str) -> Any:
                if key in WIDTHS and not (watcher.running and watcher.running[-1] is part):
                    watcher.note(name)
                return super().__getattribute__(key)

        Watched.__name__, Watched.__module__ = own.__name__, own.__module__
        part.__class__ = Watched

    def note(self, name: str) -> None:
        """That a layer was looked at, if something runs."""
        if self.running:
            self.read.setdefault(name, "read outside its Sequential")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Any function of PyTorch: whose tensors is it given?"""
        for value in (*args, *(kwargs or {}).values()):
            for tensor in value if isinstance(value, list | tuple) else (value,):
                owners = self.owners.get(id(tensor), []) if isinstance(tensor, Tensor) else []
                if not any(self.running and self.running[-1] is part for _, part in owners):
                    for name, _ in owners:
                        self.note(name)
        return func(*args, **(kwargs or {}))


def is_chain(module: nn.Module) -> bool:
    """Whether a module calls its children one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


# -- on symbols ----------------------------------------------------------------------------------


class Tracer(fx.Tracer):
    """Runs a module on symbols. Modules of PyTorch are not looked into, but their hooks are run."""

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
        """What would raise otherwise; what else depends on a symbol cannot be followed."""
        frame = inspect.currentframe()
        while frame and frame.f_code.co_filename.startswith(FX):
            frame = frame.f_back
        answer = None if frame is None else that_raises_nothing(frame)
        return super().to_bool(obj) if answer is None else answer


def that_raises_nothing(frame: FrameType) -> bool | None:
    """The truth that does not lead straight to a `raise` or a failed `assert`, if the other does.

    The frame is at a condition. For inputs that raise there are no outputs to compare.
    """
    code = [each for each in dis.get_instructions(frame.f_code) if each.opname != "CACHE"]
    at = next(n for n, each in enumerate(code) if each.offset >= frame.f_lasti)
    jump = next((n for n in range(at, min(at + 4, len(code))) if "JUMP" in code[n].opname), None)
    if jump is None or not code[jump].opname.startswith("POP_JUMP"):
        return None
    jumps_if = "TRUE" in code[jump].opname
    if "NONE" in code[jump].opname:
        return None
    if raises(code[jump + 1 :]):
        return jumps_if
    target = code[jump].argval
    return not jumps_if if raises([each for each in code if each.offset >= target]) else None


def raises(code: list[dis.Instruction]) -> bool:
    """Whether instructions do nothing but raise."""
    for each in code:
        if each.opname.startswith(("RAISE", "RERAISE")):
            return True
        if (
            each.opname.startswith(("RETURN", "STORE", "FOR_ITER", "YIELD"))
            or "JUMP" in each.opname
        ):
            return False
    return False


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
    """How many positional inputs a forward takes, and each way of giving its optional ones.

    By default, the other way round if it is a yes or no, and as a symbol (`Parameter.empty`).
    """
    symbol = inspect.Parameter.empty
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    several = any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in parameters)
    required = sum(p.kind in plain and p.default is symbol for p in parameters)
    named = {
        p.name: [symbol]
        for p in parameters
        if p.kind == inspect.Parameter.KEYWORD_ONLY and p.default is symbol
    }
    for p in parameters:
        if p.default is not symbol:
            flag = isinstance(p.default, bool)
            named[p.name] = [p.default, not p.default] if flag else [p.default, symbol]
    ways = itertools.product(*named.values())
    for way in itertools.islice(ways, MOST_WAYS):
        yield max(required, int(several)), dict(zip(named, way, strict=True))


def read_on_symbols(module: nn.Module) -> dict[str, str]:
    """What is read from outside, in whatever way the module is called, in evaluation mode.

    Raises ValueError, with the reason, if that cannot be followed. In training mode what can be
    followed counts too.
    """
    read: dict[str, str] = {}
    for training in (False, True):
        for positional, given in ways_to_call(module):
            try:
                read |= traced(module, training, positional, given)
            except Exception as error:  # whatever a user's forward raises that is given no data
                if not training:
                    raise ValueError(why_not_followed(module, given, error)) from error
                break
    return read


def why_not_followed(module: nn.Module, given: dict[str, Any], error: Exception) -> str:
    """Why a forward cannot be run on symbols, in words, and what helps."""
    symbols = [name for name, value in given.items() if value is inspect.Parameter.empty]
    where = f"{type(module).__name__}.forward" + (f" with {', '.join(symbols)}" if symbols else "")
    if isinstance(error, fx.proxy.TraceError):
        return f"{where} depends on its input, and cannot be followed without example="
    words = shortened(one_line(str(error)) or type(error).__name__)
    return f"{where} cannot be followed without example= ({words})"


def traced(
    module: nn.Module, training: bool, positional: int, given: dict[str, Any]
) -> dict[str, str]:
    """What is read from outside in one way of calling a module."""
    probe = copied(module).train(training)
    watcher, tracer = Watcher(probe), Tracer()
    whole = Whole(probe, positional, given)
    with quiet(), watcher:
        graph = tracer.trace(whole)
    for node in graph.nodes:
        if node.op == "get_attr":
            name = str(node.target).removeprefix("module.").rpartition(".")[0]
            watcher.read.setdefault(name, "read outside its Sequential")
    return watcher.read


# -- on an example -------------------------------------------------------------------------------


def read_on(module: nn.Module, inputs: Inputs) -> dict[str, str]:
    """What is read from outside on an example, in evaluation mode."""
    probe = copied(module).eval()
    watcher = Watcher(probe)
    with quiet(), torch.no_grad(), watcher:
        probe(*inputs)
    return watcher.read


def outputs(module: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The tensors that a copy of a module gives in evaluation mode; what it draws is seeded."""
    probe = copied(module).eval()
    with quiet(), torch.no_grad():
        torch.manual_seed(0)
        return [
            each for each in tree_leaves(probe(*copied_inputs(inputs))) if isinstance(each, Tensor)
        ]


def copied_inputs(inputs: Inputs) -> Inputs:
    """Inputs that a module may write over."""
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in inputs)


def largest_difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Between outputs, relative to the largest of them; infinite if their shapes differ."""
    if [each.shape for each in one] != [each.shape for each in other]:
        return float("inf")
    found = 0.0
    for a, b in zip(one, other, strict=True):
        a, b = (
            each.to(torch.complex128 if each.is_complex() else torch.float64) for each in (a, b)
        )
        if not a.numel() or torch.equal(a.nan_to_num(), b.nan_to_num()):
            continue
        if not torch.equal(*(each.where(~each.isfinite(), 0).nan_to_num(7) for each in (a, b))):
            return float("inf")
        if (there := a.isfinite()).any():
            largest = a[there].abs().max().clamp(min=1e-30)
            found = max(found, float((a[there] - b[there]).abs().max() / largest))
    return found


def guessed(module: nn.Module) -> Inputs | None:
    """An input that the module takes, made for its first layer; None if none is found."""
    layers = (
        part for part in module.modules() if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
    )
    first = next(layers, None)
    if first is None or first.weight is None:
        return None
    draw = torch.Generator().manual_seed(0)
    if isinstance(first, nn.Linear):
        shapes = [(4, first.in_features)]
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
