"""Names of one kind, evoae's own and those that users add."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from evoae.identity import name_of
from evoae.messages import short
from evoae.rules import check_known

ARGUMENTS = {"operator": "layer, rng, settings", "schedule": "t, final, settings"}
Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry(dict[str, Entry], Generic[Entry]):
    """Entries (operators, or schedules) by name; `kind` is the word for one in messages.

    What is added later than the first entries is a user's.
    """

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        super().__init__(entries)
        self.kind, self.own = kind, frozenset(entries)

    def named(self, name: str) -> Entry:
        """The entry of that name. Raises ValueError, with the names, if there is none."""
        check_known(name, self, f"unknown {self.kind} {short(name)}")
        return self[name]

    def add(self, name: str, entry: Entry) -> None:
        """Name a user's entry. Raises ValueError if it is no function, or the name is taken."""
        if not name or not callable(getattr(entry, "function", entry)):
            raise ValueError(f"{self.kind} {name!r} must be a function and have a name")
        self.check(getattr(entry, "function", entry))
        if name in self:
            raise ValueError(
                f"{self.kind} {name!r} exists already; choose a name other than {', '.join(self)}"
            )
        self[name] = entry

    def of(self, function: Callable[..., Any]) -> Entry | None:
        """The entry of a function, if it has one."""
        return next((e for e in self.values() if getattr(e, "function", e) == function), None)

    def spelt(self, given: Any) -> Any:
        """An entry of evoae's own, or its function, by its name; anything else as it is."""
        own = ((name, self[name]) for name in self.own if callable(given))
        return next((n for n, e in own if given in (e, getattr(e, "function", e))), given)

    def check(self, function: Callable[..., Any]) -> None:
        """Raise ValueError for a function that cannot be called with the arguments of its kind."""
        names = ARGUMENTS[self.kind]
        try:
            inspect.signature(function).bind(*names.split(", "))
        except TypeError:
            raise ValueError(
                f"{self.kind} {name_of(function)} must take three arguments: {names}"
            ) from None
        except ValueError:
            pass  # Python cannot see what it takes

    def of_user(self, names: list[Any]) -> dict[str, Entry]:
        """Those of the names that a user has added, with their entries."""
        return {n: self[n] for n in names if isinstance(n, str) and n in self and n not in self.own}


def sentence(function: Callable[..., Any]) -> str:
    """The first line of a function's docstring."""
    return (function.__doc__ or "").strip().split("\n")[0]
