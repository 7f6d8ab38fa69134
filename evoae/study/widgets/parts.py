"""What the widgets have in common: knobs, words, and a picture drawn from a state.

Curves are drawn by plotly, the inside of a network as pixels. Whatever is wrong appears in the
widget, in words; nothing is printed. Where nobody can answer (papermill, nbconvert) a widget shows
itself as a PNG.
"""

from __future__ import annotations

import base64
import html
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from ipywidgets import (
    HTML,
    Box,
    Button,
    Combobox,
    Dropdown,
    FloatSlider,
    IntSlider,
    Layout,
    SelectMultiple,
    Text,
    ToggleButton,
    VBox,
)
from matplotlib.figure import Figure

from evoae.experiment import SETTINGS
from evoae.resources import attended
from evoae.rules import Range
from evoae.study.figures import look
from evoae.study.widgets.hand import HERE

MOST = 10.0  # of a slider whose setting has no upper bound
NARROWEST, WIDEST = "240px", "900px"  # of a knob, and of a widget
STYLE = f"<style>{(HERE / 'style.css').read_text()}</style>"


class View(VBox):
    """Knobs, a line of words, and a picture of the state that the knobs describe.

    A subclass gives `look() -> state`, which raises ValueError for impossible knobs, and
    `described(state)`, which is what its `canvas` shows and can draw a `figure` of itself by
    matplotlib. `state` is what is on view.
    """

    state = traitlets.Any()
    described: Callable[[Any], Any]

    def __init__(self, canvas: Any, *rows: Any) -> None:
        self.canvas, self.message = canvas, HTML()
        self._drawing = threading.RLock()
        super().__init__([HTML(STYLE), *rows, self.message, canvas])
        self.redraw()

    def look(self) -> Any:
        """The state that the knobs describe. Raises ValueError if they describe none."""
        raise NotImplementedError

    def show(self, state: Any) -> None:
        """Let the picture be that of a state."""
        self.canvas.show(type(self).described(state))

    def words(self, state: Any) -> tuple[str, bool]:
        """What to say about a state, and whether it is an error."""
        return "", False

    def redraw(self, *_: Any) -> None:
        """Show the state of the knobs; if it is impossible, say why and keep the picture."""
        with self._drawing:
            try:
                state = self.look()
                self.show(state)
            except Exception as error:  # a traceback would end in a log that nobody reads
                self.say(error)
                return
            self.say(*self.words(state))
            self.state = state

    def say(self, words: object, wrong: bool = True) -> None:
        """Words between knobs and picture, in colours that both themes define."""
        colour = "var(--jp-error-color1, #b71c1c)" if wrong else "var(--jp-ui-font-color1, #333)"
        text = f'<span style="color: {colour}">{html.escape(str(words))}</span>'
        self.message.value = text if words else ""

    def figure(self) -> Figure:
        """The picture on view, by matplotlib."""
        return type(self).described(self.state).figure()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and for front ends without widgets its picture; in batch only that."""
        bundle = {"text/plain": f"{type(self).__name__}()"}
        if attended():
            return super()._repr_mimebundle_(**kwargs) | bundle
        return bundle | {"image/png": base64.b64encode(look.png(self.figure())).decode()}


# -- knobs ---------------------------------------------------------------------------------------


def row(*knobs: Any) -> Box:
    """Knobs beside each other, in as many lines as the page's width asks for."""
    return Box(knobs, layout=Layout(flex_flow="row wrap", width="100%", max_width=WIDEST))


def knob(kind: type, label: str, tip: str, **more: Any) -> Any:
    """A slider, a field or a list in the common look; a text counts when it is finished."""
    if issubclass(kind, Text):
        more["continuous_update"] = False
    layout, style = Layout(width="280px", min_width=NARROWEST), {"description_width": "105px"}
    if issubclass(kind, Dropdown | SelectMultiple | Combobox):  # these do not show their tooltips
        label = f'<span title="{html.escape(tip)}">{label}</span>'
        more["description_allow_html"] = True
    return kind(description=label, tooltip=tip, layout=layout, style=style, **more)


def knob_of(name: str, kind: type, **more: Any) -> Any:
    """A knob for a setting of an experiment, in the words of its declaration."""
    declared = SETTINGS[name]
    tip = declared.says + (" Applies from the next epoch." if declared.live else "")
    return knob(kind, name.replace("_", " ").capitalize(), tip, **more)


def slider_of(name: str, value: float) -> FloatSlider:
    """A slider for a setting that is a number, over all that its rule allows, in hundredths.

    Where the rule has no upper bound, it ends at MOST, or at the value if that is larger. Where the
    lower bound itself is not allowed, it begins one step above.
    """
    rule = SETTINGS[name].rule
    assert isinstance(rule, Range)
    high = rule.high if math.isfinite(rule.high) else max(MOST, value)
    step = (high - rule.low) / 100
    low = rule.low + step if rule.above else rule.low
    return knob_of(name, FloatSlider, value=value, min=low, max=high, step=step)


def button(description: str, icon: str, tooltip: str, action: Callable[[], object]) -> Button:
    """A button that calls `action` when it is clicked."""
    made = Button(description=description, icon=icon, tooltip=tooltip)
    made.on_click(lambda _: action())
    return made


def switch(description: str, icon: str, tooltip: str, value: bool = False) -> ToggleButton:
    """A button that stays pressed."""
    return ToggleButton(description=description, icon=icon, tooltip=tooltip, value=value)


def fit(slider: IntSlider, low: int, high: int) -> None:
    """New bounds, whichever way they move; the value stays if it can."""
    slider.min, slider.max = min(low, slider.min), max(high, slider.max)
    slider.value = min(max(slider.value, low), high)
    slider.min, slider.max = low, high
    slider.disabled = low == high


def data_name(dataset: object) -> str:
    """What a data set is called: of a file, its name without the folders."""
    return Path(str(dataset)).name


def evenly(size: int, most: int) -> np.ndarray:
    """At most so many whole numbers below `size`, evenly spaced."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int)
