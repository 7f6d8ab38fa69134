"""What a reader of files takes, and what it returns."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from gzip import GzipFile
from typing import IO, Any

from evoae.messages import Refused, short, shortened

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

    Those from memory may be sparse matrices. `columns`: their names, if they have any. `notes`:
    what a user should know, a line each.
    `doubt`: what a message about row 0 adds, in case that row is a header.
    """

    parts: dict[str, Any]
    image_shape: tuple[int, ...] | None = None
    interactions: bool = False
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    doubt: str = ""


def remaining(names: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """The columns that are not left out. Raises ValueError for a name that is no column's."""
    for name in left_out:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise Refused(
                f"leave_out names {short(name)}, which is not a column{hint}; the columns are "
                f"{shortened(', '.join(names))}"
            )
    found = [name for name in names if name not in left_out]
    if not found:
        raise Refused("leave_out leaves out every column")
    return found


def without_columns(
    content: Content, options: Options, names: tuple[str, ...] | None = None
) -> Content:
    """The arrays without the columns that are left out: by their `names`, or else by number."""
    names = names or content.columns
    if not options.left_out:
        return replace(content, columns=names)
    parts, columns = {}, []
    for part, array in content.parts.items():
        if array.ndim != 2:
            raise Refused(f"leave_out needs columns, and the shape is {array.shape}")
        known = list(names or map(str, range(array.shape[1])))
        columns = remaining(known, options.left_out)
        parts[part] = array[:, [known.index(name) for name in columns]]
    return replace(content, parts=parts, columns=tuple(columns))


def check_array(array: Any, prefix: str = "") -> None:
    """Raise ValueError unless it holds numbers, in rows."""
    if array.dtype.kind not in "biuf":
        raise Refused(f"{prefix}values are of type {array.dtype}; they must be real numbers")
    if array.ndim not in (2, 3, 4):
        raise Refused(
            f"{prefix}shape is {array.shape}; it must be [rows, columns], [rows, height, width], "
            "or with a fourth number, that of the colours"
        )
    if 0 in array.shape:
        raise Refused(f"{prefix}shape is {array.shape}: no values")


Reader = Callable[[IO[bytes], Options], Content]
