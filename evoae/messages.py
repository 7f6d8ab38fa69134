"""Messages of one line: values as they show them, and files that cannot be used."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

LONGEST = 160  # characters of a value or a name in a message


class Refused(ValueError):
    """What is wrong with something of the user's, in one line."""


class DataWarning(UserWarning):
    """What somebody who trains on a file should know of it."""


def short(value: object) -> str:
    """A value as a message shows it: as Python writes it, on one line, cut if it is long."""
    try:
        text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except ValueError:  # Python does not write whole numbers of more than some thousand digits
        text = f"a {type(value).__name__} of too many digits"
    return shortened(one_line(text))


def display(path: object) -> str:
    """A file's name as it stands; in quotes if it is empty, or cannot be printed on one line."""
    text = str(path)
    return shortened(text) if text.isprintable() and text else short(text)


def one_line(text: str) -> str:
    """The same words on one line."""
    return " ".join(text.split())


def words(error: Exception) -> str:
    """What an error says, in one short line."""
    return shortened(one_line(str(error)) or type(error).__name__)


def shortened(text: str) -> str:
    """Begin and end of a text that is too long for a message."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in the unit that people would choose."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@cache
def say_once(text: str) -> None:
    """Print a line for the user, once in a process."""
    print(f"evoae: {text}", file=sys.stderr)


@contextmanager
def file_errors(path: object, problem: str = "cannot be read") -> Iterator[None]:
    """Within, whatever goes wrong is the file's fault: `Refused`, one line with its name.

    Libraries that read have exceptions of their own, and some warn before they raise.
    """
    try:
        if "\0" in str(path):
            raise Refused("a file's name cannot hold a null character")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Refused as error:
        raise Refused(f"{display(path)}: {error}") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        line = shortened(" ".join(reason.splitlines()[:1]))
        raise Refused(f"{display(path)}: {problem}: {line}") from error
