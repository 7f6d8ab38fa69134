"""Three widgets for a notebook: explore schedules, watch a training, look into a network.

Each keeps a frozen state and shows its picture (`views`) in an Image, which is replaced only when
its bytes change. Whatever is wrong appears in the widget, in words; nothing is printed. Where
nobody can answer (papermill, nbconvert) a widget shows itself as a PNG.
"""

from __future__ import annotations

import base64
import html
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets
from IPython import get_ipython
from ipywidgets import (
    Box,
    Button,
    Combobox,
    Dropdown,
    FloatSlider,
    FloatText,
    HTML,
    Image,
    IntProgress,
    IntSlider,
    IntText,
    Layout,
    SelectionSlider,
    SelectMultiple,
    Text,
    Textarea,
    ToggleButtons,
    VBox,
)
from matplotlib.figure import Figure

from evoae import datasets, operators, population, schedules, views
from evoae.experiment import PRESETS, Experiment
from evoae.live import Progress, Trainer
from evoae.sources import Source, of_run, of_trainer, runs_in

REFRESH = 0.4  # seconds between two pictures of a training
READINGS = {"released": True, "intended": False}
# What a running training takes over from the controls (the rest waits for the next one).
CARRIED = (
    "operator",
    "amount",
    "schedule",
    "probability",
    "steepness",
    "last_share",
    "target_sparsity",
    "decrease",
    "pruning_clock",
    "learning_rate",
)


def attended() -> bool:
    """Whether somebody runs this cell: whoever executes in batch says that nobody can answer."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin"))


class View(VBox):
    """Controls, a line of words, and a picture of the state that the controls describe.

    A subclass gives `look() -> state`, which raises ValueError for impossible controls, and
    `render`, a pure function of that state.
    """

    render: Callable[[Any], Figure]

    def __init__(self, *rows: Any) -> None:
        self.message = HTML()
        self.image = Image(format="png", layout=Layout(max_width="100%", width="900px"))
        self._state: Any = None
        self._drawing = threading.RLock()
        super().__init__([*rows, self.message, self.image])
        self.redraw()

    def look(self) -> Any:
        raise NotImplementedError

    def redraw(self, *_: Any) -> None:
        """Show the state of the controls; if it is impossible, say why and keep the picture."""
        with self._drawing:
            try:
                state = self.look()
                if state == self._state:
                    return
                picture = views.png(type(self).render(state))
            except Exception as error:  # a traceback would end in a log that nobody reads
                self.say(error)
                return
            self._state = state
            if picture != self.image.value:
                self.image.value = picture

    def say(self, words: object, *, wrong: bool = True) -> None:
        """Words between controls and picture, in a colour that both themes define."""
        colour = "var(--jp-error-color1, #b71c1c)" if wrong else "var(--jp-ui-font-color1, #333)"
        text = f'<span style="color: {colour}">{html.escape(str(words))}</span>' if words else ""
        if text != self.message.value:
            self.message.value = text

    def figure(self) -> Figure:
        """The picture on view, as a matplotlib figure."""
        return type(self).render(self._state)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and for front ends without widgets its picture; in batch only that."""
        picture = {"image/png": base64.b64encode(self.image.value).decode()}
        bundle = {"text/plain": f"{type(self).__name__}()"} | picture
        return super()._repr_mimebundle_(**kwargs) | bundle if attended() else bundle
