"""What every test of a figure begins and ends with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import matplotlib as mpl
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def no_warnings_and_nothing_left_in_pyplot() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert plt.get_fignums() == []
