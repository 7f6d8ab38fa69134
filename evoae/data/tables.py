"""Tables with columns: text (.csv, .tsv, .txt, packed or not) and Parquet, of numbers, or of users
and items.

How a text is written is found out from its first lines: separator, decimal comma, comment lines,
line ends, encoding. Whether its first line names the columns is found out, too, and where that is
not clear the file is refused until `header` says it.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa

from evoae.data.content import Content, Handle, Options, Reader
from evoae.messages import Refused, short, shortened
from evoae.resources import require

MUST = "values must be numbers"
NO_GAPS = "fill it in, or remove the row"
UNNAMED = r"Unnamed: \d+"  # as pandas calls a column without a name
HEAD, HEAD_LINES = 1 << 18, 100  # bytes and lines of a text that say how it is written
PIECE = 1 << 20  # characters that are read at once
# the first that cuts all lines into as many cells is taken; a blank stands for any number of them
SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas", " ": "blanks"}
COMPARED = 10_000  # rows that a first line is compared with
WIDE = 8  # columns of which chance does not put the values in order
# What begins with # and is no comment: an error of Excel, or a column that is called #.
NO_COMMENT = re.compile(r"#([,;|]\S|N/A|DIV/0!|VALUE!|REF!|NAME\?|NUM!|NULL!)")
FOR_EXCEL = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # a first line that names the separator
# How missing values are written.
MISSING = frozenset("na n/a #n/a <na> nan null none nil missing - -- . ?".split())
A_NUMBER_AND_MORE = re.compile(r"\W?[\d.,'\s]*\d[\d.,'\s]*\W?")


# -- text ----------------------------------------------------------------------------------------


def text(handle: Handle, options: Options) -> Content:
    """A table as text: columns separated by commas, semicolons, tabs or blanks."""
    start = handle.read(HEAD)
    for magic, kind in (
        (b"\x1f\x8b", "packed by gzip; its name must end in .gz"),
        (b"PK", "a zip or an Excel workbook; save it as CSV"),
        (b"<", "a web page or XML"),
        (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself by git lfs pull"),
    ):
        if start.startswith(magic):
            raise Refused(f"is not text but {kind}")
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return _text(handle, options, "utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return _text(handle, options, "latin-1")


def packed_text(handle: IO[bytes], options: Options) -> Content:
    """A table as text, packed by gzip."""
    with gzip.open(handle) as unpacked:
        return text(unpacked, options)


def _text(handle: Handle, options: Options, encoding: str) -> Content:
    """Read twice: once to see that all rows are as wide as the first, then by pandas."""
    dialect = _dialect(handle, encoding)
    lines = Lines(handle, dialect)
    rows = _cells(lines, dialect.separator)
    first = next(rows, None)
    if first is None:
        raise Refused("holds no rows")
    begins = lines.number
    if dialect.row_names and options.header != "no":
        first = ["", *first]
    names = [cell.strip() or f"Unnamed: {n}" for n, cell in enumerate(first)]
    header = _names_columns(first, names, dialect, options)
    interactions = header and _holds_pairs(names, options)
    if interactions:  # a user may well be called #1
        dialect = replace(dialect, comments=False)
        lines = Lines(handle, dialect)
        rows = _cells(lines, dialect.separator)
        next(rows)
    count, second, commas = 0 if header else 1, 0, not header and _comma(first, dialect)
    for row in rows:
        second = second or lines.number
        if len(row) != len(first):
            title = f"; if line {begins} is a title, remove it, or begin it with #"
            raise Refused(
                f"row {count} (line {lines.number}) has {len(row)} cells; the first line has "
                f"{len(first)} (cut at {SEPARATORS[dialect.separator]})"
                f"{title if len(first) == 1 else ''}"
            )
        commas = commas or _comma(row, dialect)
        count += 1
        if count % 2**16 == 0:
            require(2 * lines.taken + 32 * count * len(first), "its values")
    # the text, where each of its cells begins, and its numbers, as pandas holds them and as a table
    require(2 * lines.taken + 32 * count * len(first), "its values")
    try:
        frame = pd.read_csv(
            Lines(handle, dialect, skip=int(header)),
            header=None,
            sep=dialect.separator,
            decimal="," if commas else ".",
            skipinitialspace=True,
            keep_default_na=False,  # an item may well be called NA
            na_values=[""],
            low_memory=False,
        )
    except pd.errors.EmptyDataError:
        raise Refused("holds no rows") from None
    frame.columns = names if header else [str(n) for n in range(len(first))]
    if options.header == "auto" and not interactions:
        _refuse_names_among_rows(frame, header, second if header else begins, first)
    doubt = ""
    if options.header == "auto" and not header:
        doubt = f"; if line {begins} holds the names of the columns, say header=yes"
    return _table(frame, options.left_out, named=header, doubt=doubt)


def _comma(row: Sequence[str], dialect: Dialect) -> bool:
    """Whether a number is written with a decimal comma."""
    return dialect.separator != "," and any("," in cell for cell in row)


@dataclass(frozen=True)
class Dialect:
    """How a text is written.

    `trailing`: lines end in a separator that separates nothing. `row_names`: the first line has no
    name for the first column, as R writes a table.
    """

    encoding: str
    separator: str = ","
    trailing: bool = False
    comments: bool = True
    quoted_names: bool = False
    row_names: bool = False


class Lines:
    """The lines of a text that hold something, as text, from its beginning.

    Left out are empty lines and comments: lines that begin with #, everywhere or, if `comments` is
    false, before the first other line. `number` is that of the line in the file, from 1, `taken`
    the characters until then. Also a file for pandas. The handle stays open.
    """

    def __init__(self, handle: Handle, dialect: Dialect, skip: int = 0) -> None:
        handle.seek(0)
        self.number, self.taken = 0, 0
        self._lines = self._cleaned(handle, dialect)
        for _ in range(skip):
            next(self._lines)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def read(self, size: int = -1) -> str:
        """At least so many characters, in whole lines; none at the end."""
        found, length = [], 0
        for line in self._lines:
            found.append(f"{line}\n")
            length += len(found[-1])
            if 0 <= size <= length:
                break
        return "".join(found)

    def _cleaned(self, handle: Handle, dialect: Dialect) -> Iterator[str]:
        begun = False
        for line in self._read(handle, dialect.encoding):
            line = line.strip(" \n")
            comment = line.startswith("#") and not NO_COMMENT.match(line)
            if not line.strip() or (comment and (dialect.comments or not begun)):
                continue
            if not begun and FOR_EXCEL.fullmatch(line):
                continue
            begun = True
            if dialect.separator == " ":
                line = " ".join(line.split())
            elif dialect.trailing:
                line = line.removesuffix(dialect.separator)
            yield line

    def _read(self, handle: Handle, encoding: str) -> Iterator[str]:
        wrapped = Unclosed(handle, encoding, newline=None)
        while piece := wrapped.readline(PIECE):
            pieces = [piece]
            while not piece.endswith("\n") and (piece := wrapped.readline(PIECE)):
                pieces.append(piece)
                require(30 * PIECE * len(pieces), "the cells of one line")
            line = "".join(pieces)
            self.number += 1
            self.taken += len(line)
            yield line


class Unclosed(io.TextIOWrapper):
    """A file as text, which stays open when nobody reads the text any more."""

    def close(self) -> None:
        """Leave it open: whoever opened the file closes it."""


def _cells(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _dialect(handle: Handle, encoding: str) -> Dialect:
    """How the first lines are written."""
    handle.seek(0)
    start = handle.read(HEAD)
    part = io.BytesIO(start)
    lines = []
    try:
        for line in Lines(part, Dialect(encoding, "\t")):
            lines.append(line)
            if len(lines) > HEAD_LINES:
                break
    except UnicodeDecodeError as error:
        if len(start) < HEAD or error.end < len(error.object):
            raise  # else the last character was cut in two
    if len(lines) > 1:
        lines.pop()  # it may be cut short
    if not lines:
        return Dialect(encoding)
    separator = _separator(lines)
    rest = lines[1:]
    trailing = separator != " " and bool(rest) and all(line.endswith(separator) for line in rest)
    if trailing and not lines[0].endswith(separator):  # is the last column empty?
        width, other = (len(next(_cells([line], separator))) for line in (lines[0], rest[0]))
        trailing = other == width + 1
    quoted = '"' in lines[0] and bool(rest) and not any('"' in line for line in rest)
    found = Dialect(encoding, separator, trailing, quoted_names=quoted)
    first, *others = _cells(lines, separator)
    named = [
        line.startswith('"') or not _is_number(row[0], found)
        for line, row in zip(rest, others, strict=False)
        if len(row) == len(first) + 1 > 2
    ]
    unnamed = not trailing and bool(rest) and len(named) == len(rest) and all(named)
    return replace(found, row_names=unnamed and not any(_is_number(cell, found) for cell in first))


def _separator(lines: Sequence[str]) -> str:
    """What cuts all lines into as many cells, two at least; else what cuts most of them."""
    cut = {}
    for separator in SEPARATORS:
        same = (" ".join(line.split()) for line in lines) if separator == " " else lines
        widths = [separator not in line or len(next(_cells([line], separator))) for line in same]
        if widths[0] > 1 and len(set(widths)) == 1:
            return separator
        cut[separator] = sum(width > 1 for width in widths)
    most = max(SEPARATORS, key=lambda separator: cut[separator])
    return most if 2 * cut[most] > len(lines) else ","


# -- the first line ------------------------------------------------------------------------------


def _names_columns(
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
    numeric = [_is_number(cell, dialect) for cell in first]
    words = {name for name, number in zip(names, numeric, strict=True) if not number}
    return (
        not any(numeric) or not words.isdisjoint(options.left_out) or _holds_pairs(names, options)
    )


def _holds_pairs(names: Sequence[str], options: Options) -> bool:
    return pair([name for name in names if name not in options.left_out]) is not None


def _is_number(cell: str, dialect: Dialect) -> bool:
    if dialect.separator != ",":
        cell = cell.replace(",", ".")
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false")
    return "_" not in cell


def _refuse_names_among_rows(
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


def looks_like_names(
    first: np.ndarray, rest: np.ndarray, apart: bool = False, *, wide: bool = False
) -> bool:
    """Whether a first row [D] is more likely the names of the columns than like the rest [n, D].

    Names that are numbers stand in order, mostly at even steps, and mostly beyond all values; and
    no other row is like that. `apart`: the first holds whole numbers, and the rest none. `wide`:
    wide rows alone are looked at. Values in [0, 1] are names only where many are evenly spaced.
    """
    width = len(first)
    if not np.isfinite(first).all() or not np.isfinite(rest).all() or (wide and width < WIDE):
        return False
    outside = bool(((first < rest.min()) | (first > rest.max())).all())
    within = bool(((first >= 0) & (first <= 1)).all())
    ordered = width > 2 and bool(_ordered(first[None])[0])
    certain = width > 3 or (first == first.round()).all()
    if ordered and certain and first.min() > rest.max() and not within:
        return True
    ordered = ordered and not _ordered(rest).any()
    even = width > 2 and bool(evenly_spaced(first[None])[0]) and not evenly_spaced(rest).any()
    if within:
        return even and width >= WIDE
    by_one = even and abs(first[1] - first[0]) == 1
    if even and (by_one or outside or width >= 5):
        return True
    if ordered and (outside or width >= WIDE):
        return True
    return apart and outside and len(np.unique(first)) == width


def _ordered(rows: np.ndarray) -> np.ndarray:
    """Which rows [n, D] rise or fall all along, booleans [n]."""
    steps = np.diff(rows, axis=1)
    return np.all(steps > 0, axis=1) | np.all(steps < 0, axis=1)


def evenly_spaced(rows: np.ndarray) -> np.ndarray:
    """Which rows [n, D] rise or fall by equal steps, booleans [n]."""
    steps = np.diff(rows, axis=1)
    return _ordered(rows) & (np.ptp(steps, axis=1) <= 1e-3 * np.abs(steps.mean(1)))


# -- Parquet -------------------------------------------------------------------------------------


def from_parquet(handle: IO[bytes], options: Options) -> Content:
    """A table as Parquet.

    Columns are read if their types and number of rows say that they fit. A text that stands in many
    rows lies in the file once, and is read once.
    """
    from pyarrow import parquet

    options.refuse_header(".parquet")
    metadata = parquet.read_metadata(handle)
    schema = metadata.schema.to_arrow_schema()
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    held = [field.name for field in schema if field.name not in index]
    if not metadata.num_rows:
        raise Refused("holds no rows")
    names = remaining(held, options.left_out)
    found = pair(names)
    chosen = list(found or names)
    _refuse_doubles(held, chosen)
    kinds = {field.name: field.type for field in schema if field.name in chosen}
    texts = [name for name, kind in kinds.items() if found and _is_any(kind, TEXTS)]
    for name, kind in kinds.items():
        if name not in texts and not _is_any(kind, NUMBERS):
            rule = "users and items must be numbers or text" if found else MUST + _leave(name)
            raise Refused(f"column {short(name)} holds values of type {short(str(kind))}; {rule}")
    rows = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    # as arrow reads it, as pandas holds it, and as one table
    require(24 * max(rows, metadata.num_rows) * len(kinds), "its values")
    handle.seek(0)
    file = parquet.ParquetFile(handle, metadata=metadata, read_dictionary=texts)
    some = len(chosen) < len(schema)
    frame = file.read(columns=chosen if some else None).to_pandas()
    return _table(frame, (), ignored=len(names) - len(chosen))


TEXTS = ("is_string", "is_large_string", "is_dictionary")  # of pyarrow.types
NUMBERS = ("is_boolean", "is_integer", "is_floating")


def _is_any(kind: pa.DataType, checks: Iterable[str]) -> bool:
    return any(getattr(pa.types, name)(kind) for name in checks)


# -- columns -------------------------------------------------------------------------------------

# As they are called in public tables of interactions; capitals, blanks and _ do not count.
USERS = frozenset(
    "user users userid useridx useridentifier username uid customer customers customerid custid "
    "client clientid member memberid visitor visitorid reviewer reviewerid listener listenerid "
    "reader readerid viewer viewerid buyer buyerid shopper shopperid profileid accountid".split()
)
ITEMS = frozenset(
    "item items itemid itemidx iid movie movies movieid film filmid song songid track trackid "
    "artist artistid album albumid product products productid productcode parentasin asin article "
    "articleid book bookid isbn game gameid anime animeid recipe recipeid business businessid "
    "restaurantid venueid placeid poi poiid joke jokeid beer beerid sku stockcode showid videoid "
    "newsid paperid courseid appid contentid".split()
)
PEOPLE = USERS | ITEMS
# Names of what is mostly no measurement.
LABELS = frozenset("id index label labels target targets class classes rowid rownumber".split())


def plain(name: object) -> str:
    """A column's name without capitals, blanks and signs."""
    return re.sub(r"[\W_]", "", str(name)).lower()


def pair(names: Sequence[str]) -> tuple[str, str] | None:
    """The columns of users and of items, if the table has both. Raises ValueError for two of one.

    Columns that are called user and item are taken, whatever else there is.
    """
    found = []
    for exact, known in (("user", USERS), ("item", ITEMS)):
        named = [name for name in names if name == exact]
        found.append(named or [name for name in names if plain(name) in known])
    users, items = found
    if not users or not items:
        return None
    for what, named in (("users", users), ("items", items)):
        _refuse_doubles(names, named)
        if len(named) > 1:
            raise Refused(
                f"columns {', '.join(map(short, named))} may each hold the {what}; leave out the "
                f"others, for example with leave_out={','.join(named[1:])}"
            )
    return users[0], items[0]


def _refuse_doubles(names: Sequence[str], chosen: Iterable[str]) -> None:
    counts = Counter(names)
    for name in chosen:
        if counts[name] > 1:
            where = [n for n, each in enumerate(names) if each == name]
            times = "twice" if len(where) == 2 else f"{len(where)} times"
            raise Refused(
                f"column {short(name)} occurs {times} (columns {', '.join(map(str, where))}, from "
                "0); names must differ"
            )


def _leave(name: str) -> str:
    return f", or be left out: leave_out={name}"


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


def _table(
    frame: pd.DataFrame,
    left_out: Sequence[str],
    *,
    named: bool = True,
    doubt: str = "",
    ignored: int = 0,
) -> Content:
    """What a table holds. `ignored`: columns beside users and items that were not read at all."""
    if frame.empty:
        raise Refused("holds no rows")
    names = list(frame.columns)
    columns = remaining(names, left_out)
    found = pair(columns) if named else None
    if found:
        rest = len(columns) - 2 + ignored
        note = (
            f"taken as interactions: users are in column {found[0]}, items in {found[1]}"
            f"{f', {rest} other column(s) are not read' if rest else ''}; to train on the numbers "
            f"instead, pass leave_out={','.join(found)}"
        )
        return _interactions(frame, found, () if found == ("user", "item") else (note,))
    _refuse_doubles(names, columns)
    frame = frame[columns]
    if named and re.fullmatch(UNNAMED, columns[0]):
        raise Refused(
            "begins with a column without a name, which probably holds row numbers or names; "
            "leave it out (pandas: index=False, R: row.names=FALSE, or here "
            f"leave_out='{columns[0]}')"
        )
    numbers = {}
    for name in frame:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):  # of whole numbers, they are too large
            numbers[name] = pd.to_numeric(column, errors="coerce").astype(np.float64)
            text = numbers[name].isna() & column.notna()
            if text.any():
                row = int(text.to_numpy().argmax())
                rule = _rule_for_text(frame, row, name) if named else f"; {MUST}"
                raise Refused(
                    f"{_cell(row, name, named)} holds {short(column.iloc[row])}{rule}"
                    f"{doubt if row == 0 else ''}"
                )
    frame = frame.assign(**numbers) if numbers else frame
    _refuse_missing(frame, named)
    values = frame.to_numpy(dtype=np.float64)
    return Content({"data": values}, columns=tuple(columns) if named else None, doubt=doubt)


def _rule_for_text(frame: pd.DataFrame, row: int, name: str) -> str:
    """What to do about a text among numbers, in words that follow it."""
    value = str(frame[name].iloc[row])
    if value.strip().lower() in MISSING:
        return f", which stands for a missing value; {NO_GAPS}"
    following = pd.to_numeric(frame.iloc[1:2].T.squeeze(axis=1), errors="coerce")
    names = pd.to_numeric(frame.iloc[0], errors="coerce").isna() & frame.iloc[0].notna()
    if row == 0 and len(frame.columns) > 1 and names.all() and following.notna().any():
        return "; if this is a second line of names, or of units, remove it"
    if len(frame.columns) == 1:
        return (
            f"; {MUST}, separated by commas, semicolons, tabs, vertical bars or blanks (none of "
            "these was found)"
        )
    plainly = (
        ", without units and separators of thousands"
        if (A_NUMBER_AND_MORE.fullmatch(value))
        else ""
    )
    return f"; {MUST}{plainly}{_leave(name)}"


def _interactions(frame: pd.DataFrame, columns: tuple[str, str], notes: tuple[str, ...]) -> Content:
    """Users by items, both sorted: 1 where a user has an item. Repeated pairs count once."""
    _refuse_missing(frame[list(columns)])
    (users, height), (items, width) = (_ranked(frame[name]) for name in columns)
    require(4 * height * width, f"the values of {height} users by {width} items")
    rows = np.zeros((height, width), dtype=np.float32)
    rows[users, items] = 1
    return Content({"data": rows}, interactions=True, notes=notes)


def _ranked(column: pd.Series) -> tuple[np.ndarray, int]:
    """The rank of each entry among the sorted distinct ones, and the number of these."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = column.cat.remove_unused_categories().cat
        ranks, _ = pd.factorize(names.categories, sort=True)
        return ranks[names.codes], len(ranks)
    ranks, distinct = pd.factorize(column, sort=True)
    return ranks, len(distinct)


def _refuse_missing(frame: pd.DataFrame, named: bool = True) -> None:
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = divmod(int(missing.argmax()), missing.shape[1])
        raise Refused(f"{_cell(row, list(frame)[column], named)} is empty or NaN; {NO_GAPS}")


def _cell(row: int, column: str, named: bool) -> str:
    return f"row {row}, column {short(column) if named else column}"


READERS: dict[str, Reader] = {}
for _ending in (".csv", ".tsv", ".txt"):
    READERS |= {_ending: text, f"{_ending}.gz": packed_text}
READERS[".parquet"] = from_parquet
