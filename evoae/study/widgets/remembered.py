"""Knobs that survive a restart of the kernel: their values in a file beside the runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from traitlets import TraitError

from evoae.study.runs.files import read_json, whole

VERSION = 1  # of the file
FILE = "knobs.json"


class Remembered:
    """The values of knobs, by name, in a file of `folder`.

    `knobs` are (widget, trait) by name; `check` raises ValueError where their values do not go
    together. A value is taken from the file only if the notebook begins with the same value as when
    the file was written: who edits the notebook's parameters means it. `words` say what happened.
    """

    def __init__(
        self, folder: Path, knobs: Mapping[str, tuple[Any, str]], check: Callable[[], object]
    ) -> None:
        self.path, self.knobs, self.check = folder / FILE, knobs, check
        self.given, self.words, self._written = self.values(), "", ""

    def values(self) -> dict[str, Any]:
        """What the knobs say now."""
        found = {name: getattr(*knob) for name, knob in self.knobs.items()}
        return json.loads(json.dumps(found))  # as they come back from the file

    def reset(self) -> None:
        """Bring back what the notebook began with."""
        for name, value in self.given.items():
            self._set(name, value)
        self.words = ""

    def restore(self) -> None:
        """Set the knobs as the file says, where that is still possible."""
        if not self.path.exists():
            return
        try:
            said = read_json(self.path)
            if said.get("version") != VERSION:
                raise ValueError(f"{self.path}: was written by another version of evoae")
            given, values = said["given"], said["knobs"]
            wanted = {n: v for n, v in values.items() if given.get(n) == self.given.get(n)}
        except (ValueError, KeyError, AttributeError) as error:
            known = str(error).partition(";")[0] if isinstance(error, ValueError) else ""
            why = known or f"{self.path}: damaged"
            self.words = f"{why}; the knobs are as the notebook says."
            return
        refused = [name for name, value in wanted.items() if not self._set(name, value)]
        refused += self._until_valid([name for name in wanted if name not in refused])
        words = ["The knobs are as you left them."] if self.values() != self.given else []
        if refused:
            names = ", ".join(refused)
            words.append(f"Not possible any more, and left as the notebook says: {names}.")
        self.words = " ".join(words)

    def write(self) -> None:
        """Write the file, if anything has changed. Raises OSError."""
        said = {"version": VERSION, "given": self.given, "knobs": self.values()}
        text = json.dumps(said, indent=1)
        if text == self._written:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole(self.path) as part:
            part.write_text(text)
        self._written = text

    def _set(self, name: str, value: Any) -> bool:
        """Whether a knob takes a value as it is; otherwise it stays."""
        if name not in self.knobs:
            return False
        widget, trait = self.knobs[name]
        before = getattr(widget, trait)
        with contextlib.suppress(TraitError, ValueError, TypeError):
            setattr(widget, trait, value)
            if json.dumps(getattr(widget, trait)) == json.dumps(value):  # True is not 1
                return True
        setattr(widget, trait, before)
        return False

    def _until_valid(self, names: list[str]) -> list[str]:
        """Bring back what the notebook says of one knob, or of all, if they do not go together."""
        with contextlib.suppress(ValueError):
            self.check()
            return []
        for name in names:
            value = self.values()[name]
            self._set(name, self.given[name])
            with contextlib.suppress(ValueError):
                self.check()
                return [name]
            self._set(name, value)
        self.reset()
        return names
