"""A matplotlibrc of the user's changes no figure, and no figure changes the user's settings."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import pytest
from helpers import tiny
from matplotlib.backends.backend_agg import FigureCanvasAgg

from evoae.study.figures import look
from evoae.study.widgets import views

USERS = (
    {"text.usetex": True},
    {"font.family": "serif", "font.size": 30, "mathtext.fontset": "cm"},
    {"axes.facecolor": "black", "lines.linewidth": 9, "xtick.direction": "in"},
    {"savefig.transparent": True, "savefig.dpi": 20, "savefig.bbox": "tight", "figure.dpi": 300},
    {"svg.fonttype": "none", "pdf.fonttype": 42, "path.sketch": (1, 100, 2)},
)


def panels() -> look.Figure:
    with look.draw_panels(count=3) as (figure, axes):
        for ax in axes.flat:
            ax.plot([1, 2, 3], [3, 1, 2], label="one")
            ax.set(title="of $x^2$", xlabel="b")
        figure.legend()
    return figure


def pictures() -> list[bytes]:
    """A figure as files, as a notebook shows it, and a widget's."""
    found = []
    for suffix in ("png", "pdf"):
        buffer = io.BytesIO()
        panels().savefig(
            buffer, format=suffix, metadata={} if suffix == "png" else {"CreationDate": None}
        )
        found.append(buffer.getvalue())
    shown = io.BytesIO()
    FigureCanvasAgg(panels()).print_png(shown)
    state = views.Schedules(tiny(epochs=5), ["fixed"])
    widget = look.png(views.schedule_plot(state).figure())
    made = [shown.getvalue(), panels()._repr_png_(), widget, look.png(look.notice("nothing"))]
    return [*found, *made]


@pytest.fixture(scope="module")
def expected() -> list[bytes]:
    return pictures()


@pytest.mark.parametrize("settings", USERS, ids=lambda settings: next(iter(settings)))
def test_no_setting_of_the_users_changes_a_picture(
    settings: dict[str, Any], expected: list[bytes]
) -> None:
    with mpl.rc_context(settings):
        before = dict(mpl.rcParams)
        found = pictures()
        assert dict(mpl.rcParams) == before
    assert found == expected


def test_where_the_defaults_are_in_force_nothing_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However a backend was chosen."""
    for fallback in (True, False):
        monkeypatch.setitem(mpl.rcParams, "backend_fallback", fallback)
        with monkeypatch.context() as patch:
            patch.setattr(mpl, "rc_context", lambda *more: pytest.fail("rcParams were changed"))
            with look.plain():
                pass


def test_saved_files_are_the_same_under_any_settings(tmp_path: Any) -> None:
    one = look.save(panels(), tmp_path / "one", "a")
    with mpl.rc_context({"savefig.transparent": True, "svg.fonttype": "none", "svg.hashsalt": "x"}):
        other = look.save(panels(), tmp_path / "other", "a")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_a_backend_that_cannot_be_loaded_stops_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "switch_backend", lambda name: pytest.fail(f"loads {name}"))
    monkeypatch.setattr(plt, "figure", lambda *_, **__: pytest.fail("makes a figure of pyplot's"))
    assert panels()._repr_png_().startswith(b"\x89PNG")
