"""What the widgets have in common: controls, words, and a picture drawn from a state.

The picture is replaced only when its bytes change. Whatever is wrong appears in the widget, in
words; nothing is printed. Where nobody can answer (papermill, nbconvert) a widget shows itself as a
PNG.
"""

from __future__ import annotations

import base64
import html
import threading
from collections.abc import Callable
from typing import Any

import traitlets
from IPython import get_ipython
from ipywidgets import (
    HTML,
    Box,
    Button,
    FloatSlider,
    Image,
    IntSlider,
    Layout,
    SelectionSlider,
    VBox,
)
from matplotlib.figure import Figure

from evoae.figures.look import png

READINGS = {"released": True, "intended": False}
SLIDERS = {
    "probability": "Probability",
    "steepness": "Steepness",
    "last_share": "Last share",
    "target_sparsity": "Target",
    "amount": "Amount",
}


def attended() -> bool:
    """Whether somebody runs this cell: whoever executes in batch says that nobody can answer."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin"))


class View(VBox):
    """Controls, a line of words, and a picture of the state that the controls describe.

    A subclass gives `look() -> state`, which raises ValueError for impossible controls, and
    `render`, a pure function of that state. `state` is what is on view.
    """

    state = traitlets.Any()
    render: Callable[[Any], Figure]

    def __init__(self, *rows: Any) -> None:
        self.message = HTML()
        self.image = Image(format="png", layout=Layout(max_width="100%", width="900px"))
        self._drawing = threading.RLock()
        super().__init__([*rows, self.message, self.image])
        self.redraw()

    def look(self) -> Any:
        raise NotImplementedError

    def words(self, state: Any) -> tuple[str, bool]:
        """What to say about a state, and whether it is an error."""
        return "", False

    def redraw(self, *_: Any) -> None:
        """Show the state of the controls; if it is impossible, say why and keep the picture."""
        with self._drawing:
            try:
                state = self.look()
                picture = png(type(self).render(state))
            except Exception as error:  # a traceback would end in a log that nobody reads
                self.say(error)
                return
            if picture != self.image.value:
                self.image.value = picture
            self.say(*self.words(state))
            self.state = state

    def say(self, words: object, wrong: bool = True) -> None:
        """Words between controls and picture, in colours that both themes define."""
        colour = "var(--jp-error-color1, #b71c1c)" if wrong else "var(--jp-ui-font-color1, #333)"
        text = f'<span style="color: {colour}">{html.escape(str(words))}</span>' if words else ""
        if text != self.message.value:
            self.message.value = text

    def figure(self) -> Figure:
        """The picture on view, as a matplotlib figure."""
        return type(self).render(self.state)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and for front ends without widgets its picture; in batch only that."""
        picture = base64.b64encode(self.image.value).decode()
        bundle = {"text/plain": f"{type(self).__name__}()", "image/png": picture}
        return super()._repr_mimebundle_(**kwargs) | bundle if attended() else bundle


def row(*controls: Any) -> Box:
    return Box(controls, layout=Layout(flex_flow="row wrap", max_width="900px"))


TIPS = {
    "Schedules": "Schedules to compare; hold Ctrl or Shift to pick several",
    "Probability": "Base probability p of a prune",
    "Steepness": "How fast exponential rises: p (1 - exp(-steepness t / T))",
    "Last share": "The part of the run in which final-n prunes",
    "Target": "The sparsity at which cubic ends",
    "Amount": "Share a of all weights that one prune removes (random). Expected preserved share: "
    "1 - p a with regrowth; without, the product of 1 - p a over the epochs",
    "Reading": "As the released code does it, or as the paper's text says",
    "Sub-population": "Cells in a sub-population; 1 is canonical training",
    "Epochs": "Epochs T of the run: passes over the training data",
    "Dataset": "A built-in data set, or the path of a file",
    "Model": "A named autoencoder, or widths down to the code such as 50-20-5",
    "Preset": "Canonical training of one cell, or a way to coevolve several",
    "Operator": "What a prune removes; applies from the next epoch",
    "Schedule": "When to prune; applies from the next epoch",
    "Learning rate": "Of every cell; applies from the next epoch",
    "Folder": "Where runs are: the folder given to evoae run --out",
    "Run": "The training above, or a finished run of the folder",
    "Layer": "The layer to look into",
    "Trial": "An independent run",
    "Cell": "A place in the population",
    "Epoch": "After which epoch",
}


def control(kind: type, description: str, **settings: Any) -> Any:
    """A control in the common look; a slider reports when it is let go."""
    if issubclass(kind, FloatSlider | IntSlider | SelectionSlider):
        settings["continuous_update"] = False
    layout, style = Layout(width="280px"), {"description_width": "105px"}
    words = {"description": description, "tooltip": TIPS[description]}
    return kind(**words, layout=layout, style=style, **settings)


def button(description: str, icon: str, tooltip: str, action: Callable[[], None]) -> Button:
    made = Button(description=description, icon=icon, tooltip=tooltip)
    made.on_click(lambda _: action())
    return made


def fit(slider: IntSlider, low: int, high: int) -> None:
    """New bounds, whichever way they move; the value stays if it can."""
    slider.min, slider.max = min(low, slider.min), max(high, slider.max)
    slider.value = min(max(slider.value, low), high)
    slider.min, slider.max = low, high
    slider.disabled = low == high
