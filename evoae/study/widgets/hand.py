"""What ipywidgets lacks, drawn by a little JavaScript in the files beside this one."""

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


class Pictures(anywidget.AnyWidget):
    """Pictures of pixels: `shown` has a heading, pictures (title, png, legend, ...) and words."""

    _esm = HERE / "inside.js"
    shown: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)


class Network(anywidget.AnyWidget):
    """A drawing of `layers` (name, units, share of zeros), input first; `value` is the chosen."""

    _esm = HERE / "inside.js"
    layers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    value = traitlets.Unicode("code").tag(sync=True)
    tooltip = "The layer to look into: click on it"
