"""Settings declared once: a field's type, default, rule, and a sentence that describes it.

A dataclass declares a setting as `name: Annotated[type, rule, sentence, ...] = default`. A source
(in the paper, the released code or other work), `LIVE` and `Readings` may follow the sentence.
`settings_of` reads the declarations. Checks, listings, the command line and the widgets use them.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
import types
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from evoae.messages import short


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`; `above` leaves `low` out, `below` leaves `high` out."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        if self.high < math.inf:
            left, right = "(" if self.above else "[", ")" if self.below else "]"
            return f"lie in {left}{self.low:g}, {self.high:g}{right}"
        if self.low == 0:
            return "be above 0" if self.above else "not be negative"
        return f"be at least {self.low:g}"

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, with the rule, for a number outside."""
        left_out = (self.above and value == self.low) or (self.below and value == self.high)
        if left_out or not self.low <= value <= self.high:
            raise ValueError(f"{name}={short(value)} must {self}")


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"be one of {', '.join(self.names)}"

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, with the choices, for any other."""
        check_known(value, self.names, f"unknown {name} {short(value)}")


@dataclass(frozen=True)
class Named:
    """What `find` accepts; `words` describe it."""

    find: Callable[[Any], Any]
    words: str

    def __str__(self) -> str:
        return f"be {self.words}"

    def check(self, name: str, value: Any) -> None:
        """Raise the ValueError of `find`."""
        self.find(value)


@dataclass(frozen=True)
class Flag:
    """true or false, or the name `other`."""

    other: str | None = None

    def __str__(self) -> str:
        return f"be true, false or {self.other}" if self.other else "be true or false"

    def check(self, name: str, value: Any) -> None:
        """Its type is enough, which `Setting.typed` checks."""


@dataclass(frozen=True)
class File:
    """The path of a file, or one of some `names`, which stand for themselves."""

    names: tuple[str, ...]
    suffixes: tuple[str, ...]
    words: str

    def __str__(self) -> str:
        return f"be {self.words}"

    def check(self, name: str, value: Any) -> None:
        """A file is looked at when it is needed."""

    def absolute(self, path: str) -> str:
        """The one spelling of a path: absolute, with ~ and links of folders resolved.

        A text that is neither an existing file nor ends in a suffix is returned as it is: it may be
        a misspelt name.
        """
        if path in self.names or "://" in path:
            return path
        whole = os.path.expanduser(path)
        try:
            if not (os.path.exists(whole) or path.lower().endswith(self.suffixes)):
                return path
            folder, name = os.path.split(whole)
            return os.path.join(os.path.realpath(folder), name)
        except (OSError, ValueError):
            return path


MOST_SIZES = 50  # of a front
ENGINES = ("auto", "fused", "batched")  # that train
MOST = 10**12  # for whole numbers: more of anything does not fit into memory
Rule = Range | Choice | Named | Flag | File
POSITIVE, SHARE, NOT_NEGATIVE, FLAG = Range(1), Range(0, 1), Range(0), Flag()


class Readings(NamedTuple):
    """A setting's values as released and as intended; its default is then None."""

    released: Any
    intended: Any


LIVE = object()  # marks a setting that may change while a training runs


@dataclass(frozen=True)
class Setting:
    """A declared setting. `kind` is its type; None is a value if `optional`."""

    name: str
    kind: type[Any]
    optional: bool
    takes_functions: bool
    default: Any
    rule: Rule
    says: str
    source: str
    live: bool
    readings: Readings | None

    def parse(self, text: str) -> Any:
        """A value written on a command line. Raises ValueError for what cannot be one."""
        if isinstance(self.rule, Flag):
            values = {"true": True, "false": False, self.rule.other: self.rule.other}
            if text.lower() not in values:
                raise ValueError(f"{self.name}={short(text)} must {self.rule}")
            return values[text.lower()]
        if self.kind is str:
            return text
        try:
            return self.kind(text)
        except ValueError:
            rule = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"{self.name}={short(text)} must be {rule}") from None

    def typed(self, value: Any) -> Any:
        """The value in the setting's type: whole numbers are accepted for floats, NumPy's numbers
        and flags for Python's, and paths for the names of files.

        Raises ValueError for another type, or a number that is not finite.
        """
        if (value is None and self.optional) or (callable(value) and self.takes_functions):
            return value
        value = plain(value)
        if isinstance(self.rule, File):
            value = os.fspath(value) if isinstance(value, os.PathLike) else value
            value = self.rule.absolute(value) if type(value) is str else value
        if isinstance(self.rule, Flag) and type(value) is str and value == self.rule.other:
            return value
        if self.kind is float and type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                raise ValueError(f"{self.name} is too large to be a float") from None
        if type(value) is not self.kind:
            allowed = "str or a path" if isinstance(self.rule, File) else self.kind.__name__
            allowed += " or a function" if self.takes_functions else ""
            if isinstance(self.rule, Flag) and self.rule.other:
                allowed += f" or {self.rule.other}"
            raise ValueError(
                f"{self.name}={short(value)} is a {type(value).__name__}; it must be {allowed}"
            )
        if self.kind is int and abs(value) > MOST:
            raise ValueError(f"{self.name}={short(value)} must not be more than {MOST}")
        if self.kind is float and not math.isfinite(value):
            raise ValueError(f"{self.name}={short(value)} must be a finite number")
        return value


def plain(value: Any) -> Any:
    """A NumPy number, flag or text, and one of a subclass of str, as Python's own."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.floating):  # 0.1 of float32 is 0.1
        return float(str(value))
    if isinstance(value, np.generic):
        return value.item()
    return str.__str__(value) if isinstance(value, str) else value


def settings_of(declared: type) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name; their types are parsed here only."""
    hints, found = get_type_hints(declared, include_extras=True), {}
    for field in dataclasses.fields(declared):
        if get_origin(hints[field.name]) is not Annotated:
            continue
        hint, rule, says, *more = get_args(hints[field.name])
        union = isinstance(hint, types.UnionType) or get_origin(hint) is Union
        parts = get_args(hint) if union else (hint,)
        readings = [each for each in more if isinstance(each, Readings)]
        found[field.name] = Setting(
            name=field.name,
            kind=parts[0],
            optional=type(None) in parts,
            takes_functions=any(get_origin(part) is Callable for part in parts),
            default=field.default,
            rule=rule,
            says=says,
            source="".join(each for each in more if isinstance(each, str)),
            live=LIVE in more,
            readings=readings[0] if readings else None,
        )
    return found


def check_known(name: Any, known: Collection[str], problem: str, all_in: str = "") -> None:
    """Raise ValueError if a name is none of the known ones, with the nearest of them.

    The message lists them all, or, where there are many, says that `all_in` does.
    """
    if isinstance(name, str) and name in known:
        return
    choices = f"{all_in} lists all" if all_in else f"choose one of {', '.join(known)}"
    raise ValueError(f"{problem}{nearest(name, known)}; {choices}")


def nearest(name: Any, known: Collection[str]) -> str:
    """ " (did you mean NAME?)" with the known name that is most alike, or nothing."""
    close = difflib.get_close_matches(str(name).lower(), [each.lower() for each in known], 1)
    found = [each for each in known if each.lower() in close]
    return f" (did you mean {found[0]}?)" if found else ""


def check_key(name: str, value: Any) -> None:
    """Raise ValueError for a seed, trial or cell that cannot be part of a random stream's key."""
    number = plain(value)
    if type(number) is not int or not 0 <= number < 2**64:
        raise ValueError(f"{name}={short(value)} must be a whole number, 0 or more, below 2**64")


def check_counts(sparsities: Sequence[float], size: int) -> None:
    """Raise ValueError if one of these rising sparsities prunes no parameter of `size`, or as many
    as the one before."""
    for before, value in itertools.pairwise([0.0, *sparsities]):
        if round(before * size) == round(value * size):
            same = f"sparsities {before} and {value} prune equally many"
            wrong = same if before else f"sparsity {value} prunes none"
            raise ValueError(f"{wrong} of {size:,} parameters; give sizes that differ")


def rising_shares(values: Any) -> list[float]:
    """Sparsities of a front as floats: 1 to MOST_SIZES numbers within (0, 1), each above the last.

    Raises ValueError, one line, for anything else.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"sparsities={short(values)} must be a list of numbers")
    found = [plain(value) for value in values]
    for value in found:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < 1:
            raise ValueError(f"sparsity {short(value)} must be a number above 0 and below 1")
    if not 1 <= len(found) <= MOST_SIZES:
        raise ValueError(f"sparsities: {len(found)} were given; give 1 to {MOST_SIZES}")
    for before, value in itertools.pairwise(found):
        if value <= before:
            wrong = "is given twice" if value == before else f"stands after {before:g}"
            raise ValueError(
                f"sparsity {value:g} {wrong}; sparsities must rise from one to the next"
            )
    return [float(value) for value in found]
