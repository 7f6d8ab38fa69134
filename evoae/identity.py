"""A function as a name and a hash: equal while its code, and what it reads, stay the same."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

CONSTANTS = (bool, int, float, complex, str, bytes, tuple, type(None))


def describe(function: Any, *more: str, seen: tuple[Any, ...] = ()) -> str:
    """A name for a function that changes when its code, or a value it holds or reads, does.

    Of the globals that it reads, constants and functions of its own module are looked into. `more`
    is hashed beside them.
    """
    named: Any = function
    held: list[Any] = []
    if isinstance(function, functools.partial):
        named, held = function.func, [function.args, function.keywords]
    elif inspect.ismethod(function):
        owner = function.__self__
        named, held = function.__func__, [type(owner), owner.__getstate__()]
    elif inspect.isfunction(function):
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        held = [cells, function.__defaults__, function.__kwdefaults__, *read_by(function, seen)]
    elif type(function).__module__ != "builtins":
        named, held = type(function), [function.__getstate__()]
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        source = "" if hasattr(named, "__code__") else repr(named)  # no address in memory
    code = as_text(getattr(named, "__code__", None))
    texts = [source, code, *(as_text(value, (*seen, function)) for value in held), *more]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    return f"{named.__module__}.{getattr(named, '__qualname__', named)}:{digest}"


def read_by(function: types.FunctionType, seen: tuple[Any, ...]) -> Iterator[Any]:
    """The constants, and functions of the same module, among the globals that a function reads."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        own = inspect.isfunction(value) and value.__module__ == function.__module__
        if (own and value is not function and value not in seen) or type(value) in CONSTANTS:
            yield name, value


def as_text(value: Any, seen: tuple[Any, ...] = ()) -> str:
    """A held value as text: equal for equal values, and no long one cut short."""
    if isinstance(value, types.CodeType):  # a line of source may hold two functions
        return as_text((value.co_code, value.co_names, value.co_consts))
    if callable(value):
        return describe(value, seen=seen)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(as_text(each, seen) for each in value)})"
    return repr(value)


def name_of(value: Any) -> str:
    """A setting's value for people: a function by its name, also where it was described."""
    if callable(value):
        value = getattr(value, "function", value)
        return getattr(value, "__name__", type(value).__name__)
    name, colon, digest = str(value).rpartition(":")
    described = colon and len(digest) == 12 and "." in name
    return name.rpartition(".")[2] if described else str(value)
