"""What a reader of files takes, and what it returns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from gzip import GzipFile
from typing import IO

import numpy as np

from evoae.messages import Refused, short

HEADERS = ("auto", "yes", "no")
Handle = IO[bytes] | GzipFile  # an open file


@dataclass(frozen=True)
class Options:
    """How a file is read.

    scale: whether values are mapped to [0, 1]: by the minimum and maximum of all of them (True), or
        of each column ("columns").
    header: whether the first line of a text names the columns: "yes", "no", or "auto".
    leave_out: names of columns to leave out, separated by commas; numbers, from 0, where columns
        have no names. A name that contains a comma is quoted.
    """

    scale: bool | str = False
    header: str = "auto"
    leave_out: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.scale, bool) and self.scale != "columns":
            raise ValueError(f"scale must be True, False or 'columns', not {short(self.scale)}")
        if self.header not in HEADERS:
            raise ValueError(f"header must be auto, yes or no, not {short(self.header)}")
        if not isinstance(self.leave_out, str):
            raise ValueError(
                f"leave_out must be names of columns, separated by commas, not "
                f"{short(self.leave_out)}"
            )

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names in `leave_out`."""
        return split_names(self.leave_out)

    def refuse_header(self, what: str) -> None:
        """Raise ValueError if `header` is set for data that cannot have one."""
        if self.header != "auto":
            raise Refused(
                f"header={self.header} applies to text tables (.csv, .tsv, .txt), not to {what}"
            )


def split_names(text: str) -> tuple[str, ...]:
    """Names that are separated by commas, stripped of blanks; empty ones are dropped."""
    try:
        row = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(
            f"leave_out={short(text)} is not a list of column names: {error}"
        ) from None
    return tuple(name.strip() for name in row if name.strip())


def joined_names(names: Iterable[object]) -> str:
    """Names as `split_names` reads them, quoted where one contains a comma."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


@dataclass(frozen=True)
class Content:
    """Arrays named train, validation and test, or a single array of any name, yet to be split.

    `columns`: their names, if they have any. `notes`: what a user should know, a line each.
    `doubt`: what a message about row 0 adds, in case that row is a header.
    """

    parts: dict[str, np.ndarray]
    image_shape: tuple[int, int] | None = None
    interactions: bool = False
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    doubt: str = ""


Reader = Callable[[IO[bytes], Options], Content]
