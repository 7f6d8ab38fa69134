"""What ipywidgets lacks: a curve to draw, and a button that copies a text or offers a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

HERE = Path(__file__).parent


class Drawing(anywidget.AnyWidget):
    """A curve whose points [x, y], both in [0, 1], are dragged; x never falls."""

    _esm = HERE / "draw.js"
    points: traitlets.List[list[float]] = traitlets.List().tag(sync=True)


class Handing(anywidget.AnyWidget):
    """A button: `give` returns a file's name and a text to offer; without a name it is copied."""

    _esm = HERE / "hand.js"
    description = traitlets.Unicode().tag(sync=True)
    tooltip = traitlets.Unicode().tag(sync=True)

    def __init__(self, description: str, tooltip: str, give: Callable[[], tuple[str, str]]) -> None:
        super().__init__(description=description, tooltip=tooltip)
        self.give = give
        self.on_msg(self._answer)

    def _answer(self, *_: Any) -> None:
        name, text = self.give()
        self.send({"name": name, "text": text})
