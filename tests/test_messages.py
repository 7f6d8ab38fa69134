"""What is refused gets one line that names it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from evoae.messages import LONGEST, Refused, display, file_errors, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        ("a\0b", r"'a\x00b'"),
        ("", "''"),
        (7, "7"),
        (Path("some/file.npy"), "'some/file.npy'"),
    ],
)
def test_a_value_is_shown_on_one_line(value: object, text: str) -> None:
    assert short(value) == text


def test_of_a_long_value_begin_and_end_are_shown() -> None:
    text = short("begin" + "x" * 5000 + "end")
    assert len(text) <= LONGEST + 3
    assert text.startswith("'begin")
    assert text.endswith("end'")


def test_a_file_is_named_as_it_is_called_or_in_quotes() -> None:
    assert display("some/file.npy") == "some/file.npy"
    assert display("a\nb") == r"'a\nb'"
    assert display("") == "''"
    assert len(display("x/" * 2500)) <= LONGEST + 3


def test_whatever_goes_wrong_while_reading_is_one_line_with_the_name_and_without_warnings() -> None:
    def read() -> None:
        with file_errors("a.bin", "cannot be read as .bin"):
            warnings.warn("beware", stacklevel=1)
            raise KeyError("first line\nsecond line")

    with warnings.catch_warnings(record=True) as warned, pytest.raises(Refused) as caught:
        read()
    assert not warned
    assert str(caught.value) == r"a.bin: cannot be read as .bin: 'first line\nsecond line'"
    with pytest.raises(Refused, match=r"^a\.bin: too large$"), file_errors("a.bin"):
        raise Refused("too large")


def test_a_number_that_python_does_not_write_is_not_written() -> None:
    assert short(10**5000) == "a int of too many digits"
