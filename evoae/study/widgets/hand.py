"""What ipywidgets lacks, drawn by a little JavaScript in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from evoae.pruning import schedules

HERE = Path(__file__).parent


class Drawing(anywidget.AnyWidget):
    """A curve whose points [x, y], both in [0, 1], are dragged; x never falls."""

    _esm = HERE / "draw.js"
    points: traitlets.List[list[float]] = traitlets.List().tag(sync=True)

    @traitlets.validate("points")
    def _are_points(self, proposal: Any) -> Any:
        try:
            schedules.points_of(schedules.named_by_points("points", proposal["value"]))
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(str(error)) from error
        return proposal["value"]


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


class Network(anywidget.AnyWidget):
    """A drawing of `layers` (name, units, share of zeros), input first; `value` is the chosen."""

    _esm = HERE / "inside.js"
    layers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    value = traitlets.Unicode("code").tag(sync=True)
    tooltip = "The layer to look into: click on it"


class Drop(anywidget.AnyWidget):
    """A field to drop a file on.

    `take(name, start, size, piece)` says whether it wants more; the piece is None where something
    else was dropped: several files, or a folder.
    """

    _esm = HERE / "drop.js"
    description = traitlets.Unicode("Drop a file here, or click to choose one").tag(sync=True)
    tooltip = traitlets.Unicode().tag(sync=True)

    def __init__(self, tooltip: str, take: Callable[[str, int, int, bytes | None], bool]) -> None:
        super().__init__(tooltip=tooltip)
        self.take = take
        self.on_msg(self._piece)

    def _piece(self, _: Any, said: dict[str, Any], buffers: Any) -> None:
        piece = bytes(buffers[0]) if buffers else None
        more = self.take(said.get("name", ""), said.get("start", 0), said.get("size", 0), piece)
        self.send({"more": more})
