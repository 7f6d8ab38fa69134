"""Tables as text: .csv, .tsv, .txt, packed by gzip or not.

How a text is written is found out from its first lines: separator, decimal comma, comment lines,
line ends, encoding. Whether its first line names the columns is found out, too, and where that is
not clear the file is refused until `header` says it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evoae.data.content import Content, Handle, Options
from evoae.data.tables import UNNAMED, looks_like_names, pair, table
from evoae.messages import Refused
from evoae.resources import require

BLOCK = 1 << 20  # bytes that are looked at together
HEAD_LINES = 100  # that say how a text is written
# the first that cuts all lines into as many cells is taken; a blank stands for any number of them
SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas", " ": "blanks"}
COMPARED = 10_000  # rows that a first line is compared with
# What begins with # and is no comment: an error of Excel, or a column that is called #.
NO_COMMENT = re.compile(r"#([,;|]\S|N/A|DIV/0!|VALUE!|REF!|NAME\?|NUM!|NULL!)")
FOR_EXCEL = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # a first line that names the separator
OTHERS = {
    b"\x1f\x8b": "packed by gzip; its name must end in .gz",
    b"PK": "a zip or an Excel workbook; save it as CSV",
    b"<": "a web page or XML",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself by git lfs pull",
}
Lines = list[tuple[int, str]]  # with their numbers in the file, from 1


@dataclass(frozen=True)
class Dialect:
    """How a text is written.

    `trailing`: lines end in a separator that separates nothing. `row_names`: the first line has no
    name for the first column, as R writes a table.
    """

    separator: str = ","
    trailing: bool = False
    quoted_names: bool = False
    row_names: bool = False

    def cut(self, lines: Lines) -> Iterator[str]:
        """Lines in which one separator stands between two cells, and nowhere else."""
        for _, line in lines:
            if self.separator == " ":
                line = " ".join(line.split())
            yield line.removesuffix(self.separator) if self.trailing else line

    def is_number(self, cell: str) -> bool:
        """Whether a cell is read as one."""
        if self.separator != ",":
            cell = cell.replace(",", ".")
        try:
            float(cell)
        except ValueError:
            return cell.strip().lower() in ("true", "false")
        return "_" not in cell


def text(handle: Handle, options: Options) -> Content:
    """A table as text: columns separated by commas, semicolons, tabs, bars or blanks."""
    raw = lines_of(handle)
    lines = cleaned(raw)
    if not lines:
        raise Refused("holds no rows")
    dialect = dialect_of([line for _, line in lines[:HEAD_LINES]])
    first = next(cells(dialect.cut(lines), dialect.separator))
    if dialect.row_names and options.header != "no":
        first = ["", *first]
    names = [cell.strip() or f"Unnamed: {n}" for n, cell in enumerate(first)]
    header = names_columns(first, names, dialect, options)
    interactions = header and holds_pairs(names, options)
    if interactions:  # a user may well be called #1
        lines = cleaned(raw, comments=False)
    begins, body = lines[0][0], lines[int(header) :]
    commas = check_widths(body, len(first), dialect, begins)
    if not body:
        raise Refused("holds no rows")
    frame = pd.read_csv(
        io.BytesIO("\n".join(dialect.cut(body)).encode()),
        header=None,
        sep=dialect.separator,
        decimal="," if commas else ".",
        skipinitialspace=True,
        keep_default_na=False,  # an item may well be called NA
        na_values=[""],
        low_memory=False,
        float_precision="round_trip",  # the numbers that were written, to the last bit
    )
    frame.columns = names if header else [str(n) for n in range(len(first))]
    doubt = ""
    if options.header == "auto" and not interactions:
        refuse_names_among_rows(frame, header, body[0][0], first)
        if not header:
            doubt = f"; if line {begins} holds the names of the columns, say header=yes"
    return table(frame, options.left_out, named=header, doubt=doubt)


def lines_of(handle: Handle) -> list[str]:
    """All lines of a file that there is room for, as text."""
    taken = most = 0
    while block := handle.read(BLOCK):
        for magic, kind in OTHERS.items() if not taken else ():
            if block.startswith(magic):
                raise Refused(f"is not text but {kind}")
        taken += len(block)
        most += block.count(b"\n") + max(block.count(each.encode()) for each in SEPARATORS)
        # the text, its lines, and its numbers, as pandas holds them and as a table
        require(4 * taken + 32 * most, "its values")
    handle.seek(0)
    content = handle.read()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        found = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        found = content.decode("latin-1")
    return re.split("\r\n?|\n", found)


def cleaned(raw: Sequence[str], comments: bool = True) -> Lines:
    """The lines that hold something: not empty, and no comments, which begin with #.

    Without `comments`, only those before the first other line are left out.
    """
    found: Lines = []
    for number, line in enumerate(raw, 1):
        line = line.strip(" ")
        comment = line.startswith("#") and not NO_COMMENT.match(line)
        if not line.strip() or (comment and (comments or not found)):
            continue
        if found or not FOR_EXCEL.fullmatch(line):
            found.append((number, line))
    return found


def cells(lines: Iterable[str], separator: str) -> Any:
    """A reader of each line's cells."""
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def check_widths(lines: Lines, width: int, dialect: Dialect, begins: int) -> bool:
    """Refuse a row that is not as wide as the first. Returns whether numbers hold commas."""
    reader = cells(dialect.cut(lines), dialect.separator)
    commas = False
    for count, row in enumerate(reader):
        if len(row) != width:
            title = f"; if line {begins} is a title, remove it, or begin it with #"
            raise Refused(
                f"row {count} (line {lines[reader.line_num - 1][0]}) has {len(row)} cells; the "
                f"first line has {width} (cut at {SEPARATORS[dialect.separator]})"
                f"{title if width == 1 else ''}"
            )
        commas = commas or (dialect.separator != "," and any("," in cell for cell in row))
    return commas


def dialect_of(lines: Sequence[str]) -> Dialect:
    """How the first lines are written."""
    separator = separator_of(lines)
    first, rest = lines[0], lines[1:]
    trailing = separator != " " and bool(rest) and all(line.endswith(separator) for line in rest)
    if trailing and not first.endswith(separator):  # is the last column empty?
        widths = [len(next(cells([line], separator))) for line in (first, rest[0])]
        trailing = widths[1] == widths[0] + 1
    quoted = '"' in first and bool(rest) and not any('"' in line for line in rest)
    found = Dialect(separator, trailing, quoted_names=quoted)
    names, *rows = cells(found.cut(list(enumerate(lines))), separator)
    # R: every row has one cell more than there are names, and it is a name
    row_names = (
        not trailing
        and len(rows) == len(rest) > 0
        and not any(map(found.is_number, names))
        and all(
            len(row) == len(names) + 1 > 2 and (line.startswith('"') or not found.is_number(row[0]))
            for line, row in zip(rest, rows, strict=True)
        )
    )
    return Dialect(separator, trailing, quoted, row_names)


def separator_of(lines: Sequence[str]) -> str:
    """What cuts all lines into as many cells, two at least; else what cuts most of them."""
    cut = {}
    for separator in SEPARATORS:
        same = (" ".join(line.split()) for line in lines) if separator == " " else lines
        widths = [separator not in line or len(next(cells([line], separator))) for line in same]
        if widths[0] > 1 and len(set(widths)) == 1:
            return separator
        cut[separator] = sum(width > 1 for width in widths)
    most = max(SEPARATORS, key=lambda separator: cut[separator])
    return most if 2 * cut[most] > len(lines) else ","


# -- the first line ------------------------------------------------------------------------------


def names_columns(
    first: Sequence[str], names: Sequence[str], dialect: Dialect, options: Options
) -> bool:
    """Whether a first line names the columns, by what it holds itself.

    A line without a single number does: a first row with one bad cell must be refused as data, not
    dropped. So does the only line with quotes, one that begins with an empty cell, above row
    numbers, and one with names that are left out or are those of users and items.
    """
    if options.header != "auto":
        return options.header == "yes"
    if dialect.quoted_names or (len(first) > 1 and re.fullmatch(UNNAMED, names[0])):
        return True
    words = {name for name, cell in zip(names, first, strict=True) if not dialect.is_number(cell)}
    numbers = any(map(dialect.is_number, first))
    return not numbers or not words.isdisjoint(options.left_out) or holds_pairs(names, options)


def holds_pairs(names: Sequence[str], options: Options) -> bool:
    """Whether two of the names are those of users and of items."""
    return pair([name for name in names if name not in options.left_out]) is not None


def refuse_names_among_rows(
    frame: pd.DataFrame, header: bool, number: int, first: Sequence[str]
) -> None:
    """Refuse a first row that looks like the names of the columns: wavelengths, years, 1 to n.

    `number` is that of its line, `first` the cells of the first line of all.
    """
    if len(frame) < 2 or not all(map(pd.api.types.is_numeric_dtype, frame.dtypes)):
        return
    if not header and len(first) > 2 and list(first) == [str(n) for n in range(len(first))]:
        raise Refused(
            f"begins with a line of column numbers; leave it out (pandas: header=False), or set "
            f"header=yes (line {number} is a header) or header=no (it is a row of values)"
        )
    values = frame.to_numpy(dtype=np.float64)
    some = values[1 : COMPARED + 1]
    whole = [column for column in frame if pd.api.types.is_integer_dtype(frame[column])]
    written = not header and all(re.fullmatch(r"\s*[-+]?\d+\s*", cell) for cell in first)
    apart = written and not whole and not (some == some.round()).any()
    if not looks_like_names(values[0], some, apart, wide=header):
        return
    begin = ", ".join(f"{value:g}" for value in values[0][:3])
    row = f"line {number} ({begin}{', ...' if values.shape[1] > 3 else ''})"
    raise Refused(
        f"{row} looks like a second line of names; remove it, or set header=yes if it is a row of "
        "values"
        if header
        else f"{row} looks like column names; set header=yes if it is, or header=no if "
        "it is a row of values"
    )
