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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from evoae.data.content import Content, Options
from evoae.messages import Refused, short, shortened
from evoae.resources import require

NUMBERS = "values must be numbers"
UNNAMED = r"Unnamed: \d+"  # as pandas calls a column without a name
HEAD, HEAD_LINES = 1 << 18, 100  # bytes and lines of a text that say how it is written
PIECE = 1 << 20  # characters that are read at once
SEPARATORS = "\t;|, "  # the first that cuts all lines into as many cells; a blank: any blanks
COMPARED = 10_000  # rows that a first line is compared with
WIDE = 8  # columns of which chance does not put the values in order


# -- text ----------------------------------------------------------------------------------------


def text(handle: BinaryIO, options: Options) -> Content:
    """A table as text: columns separated by commas, semicolons, tabs or blanks."""
    start = handle.read(HEAD)
    for magic, kind in (
        (b"\x1f\x8b", "packed by gzip; its name must end in .gz"),
        (b"PK", "a zip"),
    ):
        if start.startswith(magic):
            raise Refused(f"is not text but {kind}")
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return _text(handle, options, "utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return _text(handle, options, "latin-1")


def packed_text(handle: BinaryIO, options: Options) -> Content:
    """A table as text, packed by gzip."""
    with gzip.open(handle) as unpacked:
        return text(unpacked, options)


def _text(handle: BinaryIO, options: Options, encoding: str) -> Content:
    """Read twice: once to see that all rows are as wide as the first, then by pandas."""
    dialect = _dialect(handle, encoding)
    lines = Lines(handle, dialect)
    rows = _cells(lines, dialect.separator)
    first = next(rows, None)
    if first is None:
        raise Refused("holds no rows")
    begins, quoted = lines.number, dialect.quoted_names
    names = [cell.strip() or f"Unnamed: {n}" for n, cell in enumerate(first)]
    header = _names_columns(first, names, dialect, options) or (options.header == "auto" and quoted)
    interactions = header and pair(names, options) is not None
    if interactions:  # a user may well be called #1
        dialect = Dialect(dialect.encoding, dialect.separator, dialect.trailing, comments=False)
        lines = Lines(handle, dialect)
        rows = _cells(lines, dialect.separator)
        next(rows)
    count, second, commas = 0 if header else 1, None, not header and _comma(first, dialect)
    for row in rows:
        second = second or lines.number
        if len(row) != len(first):
            raise Refused(
                f"row {count} (line {lines.number}) has {len(row)} cells; the first line has "
                f"{len(first)}{_cut_at(dialect)}"
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
    if header:
        frame = frame.set_axis(names, axis=1)
    if options.header == "auto" and not interactions:
        _refuse_names_among_rows(frame, header, second if header else begins, first, options)
    doubt = (
        ""
        if options.header != "auto" or header
        else (f"; if line {begins} holds the names of the columns, say header=yes")
    )
    return _table(frame, options, doubt)


def _comma(row: Sequence[str], dialect: Dialect) -> bool:
    """Whether a number is written with a decimal comma."""
    return dialect.separator != "," and any("," in cell for cell in row)


def _cut_at(dialect: Dialect) -> str:
    names = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas", " ": "blanks"}
    return f" (cut at {names[dialect.separator]})"


@dataclass(frozen=True)
class Dialect:
    """How a text is written. `trailing`: lines end in a separator that separates nothing."""

    encoding: str
    separator: str = ","
    trailing: bool = False
    comments: bool = True
    quoted_names: bool = False


class Lines:
    """The lines of a text that hold something, as text, from its beginning.

    Left out are empty lines and comments: lines that begin with #, everywhere or, if `comments` is
    false, before the first other line. `number` is that of the line in the file, from 1, `taken`
    the characters until then. Also a file for pandas. The handle stays open.
    """

    def __init__(self, handle: BinaryIO, dialect: Dialect, skip: int = 0) -> None:
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
            found += (line, "\n")
            length += len(line) + 1
            if 0 <= size <= length:
                break
        return "".join(found)

    def _cleaned(self, handle: BinaryIO, dialect: Dialect) -> Iterator[str]:
        begun = False
        for line in self._read(handle, dialect.encoding):
            line = line.strip(" \n")
            if not line.strip() or (line.startswith("#") and (dialect.comments or not begun)):
                continue
            begun = True
            if dialect.separator == " ":
                line = " ".join(line.split())
            elif dialect.trailing:
                line = line.removesuffix(dialect.separator)
            yield line

    def _read(self, handle: BinaryIO, encoding: str) -> Iterator[str]:
        wrapped = io.TextIOWrapper(Unclosed(handle), encoding, newline=None)
        while piece := wrapped.readline(PIECE):
            pieces = [piece]
            while not piece.endswith("\n") and (piece := wrapped.readline(PIECE)):
                pieces.append(piece)
                require(30 * PIECE * len(pieces), "the cells of one line")
            line = "".join(pieces)
            self.number += 1
            self.taken += len(line)
            yield line


class Unclosed(io.BufferedIOBase):
    """An open file that stays open when the text wrapper around it is done with."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Bytes of the file."""
        return self._handle.read(-1 if size is None else size)

    read1 = read


def _cells(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _dialect(handle: BinaryIO, encoding: str) -> Dialect:
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
    return Dialect(encoding, separator, trailing, quoted_names=quoted)


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
    """Whether a first line names the columns, as far as itself can tell.

    A line without a single number does: a first row with one bad cell must be refused as data, not
    dropped. So does one that begins with an empty cell, above row numbers, and one with names that
    were asked for.
    """
    if options.header != "auto":
        return options.header == "yes"
    if len(first) > 1 and re.fullmatch(UNNAMED, names[0]):
        return True
    numeric = [_is_number(cell, dialect) for cell in first]
    named = {name for name, number in zip(names, numeric, strict=True) if not number}
    return (
        not any(numeric) or bool(named & set(options.left_out)) or pair(names, options) is not None
    )


def _is_number(cell: str, dialect: Dialect) -> bool:
    if dialect.separator != ",":
        cell = cell.replace(",", ".")
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false")
    return "_" not in cell


def _refuse_names_among_rows(
    frame: pd.DataFrame, header: bool, number: int | None, first: Sequence[str], options: Options
) -> None:
    """Refuse a first row that looks like the names of the columns: wavelengths, years, 1 to n."""
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
    even = width > 2 and bool(_even(first[None])[0]) and not _even(rest).any()
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
    return (steps > 0).all(1) | (steps < 0).all(1)


def _even(rows: np.ndarray) -> np.ndarray:
    """Which rows [n, D] rise or fall by equal steps, booleans [n]."""
    steps = np.diff(rows, axis=1)
    mean = np.abs(steps.mean(1))
    return _ordered(rows) & (np.ptp(steps, axis=1) <= 1e-3 * mean)


# -- Parquet -------------------------------------------------------------------------------------


def from_parquet(handle: BinaryIO, options: Options) -> Content:
    """A table as Parquet.

    Columns are read if their types and number of rows say that they fit. A text that stands in many
    rows lies in the file once, and is read once.
    """
    options.refuse_header(".parquet")
    metadata = parquet.read_metadata(handle)
    schema = metadata.schema.to_arrow_schema()
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    held = [field.name for field in schema if field.name not in index]
    if not metadata.num_rows:
        raise Refused("holds no rows")
    names = left(held, options)
    found = pair(names, options)
    chosen = list(found or names)
    _refuse_doubles(held, chosen)
    kinds = {field.name: field.type for field in schema if field.name in chosen}
    texts = [name for name, kind in kinds.items() if found and _is_text(kind)]
    for name, kind in kinds.items():
        if name not in texts and not _is_numeric(kind):
            rule = "users and items must be numbers or text" if found else NUMBERS + _leave(name)
            raise Refused(f"column {short(name)} holds values of type {short(str(kind))}; {rule}")
    rows = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    # as arrow reads it, as pandas holds it, and as one table
    require(24 * max(rows, metadata.num_rows) * len(kinds), "its values")
    handle.seek(0)
    file = parquet.ParquetFile(handle, metadata=metadata, read_dictionary=texts)
    some = len(chosen) < len(schema)
    frame = file.read(columns=chosen if some else None).to_pandas()
    return _table(frame, Options(), ignored=len(names) - len(chosen))


def _is_text(kind: pa.DataType) -> bool:
    of_texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return any(is_kind(kind) for is_kind in of_texts)


def _is_numeric(kind: pa.DataType) -> bool:
    of_numbers = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return any(is_kind(kind) for is_kind in of_numbers)


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


def pair(names: Sequence[object], options: Options = Options()) -> tuple[str, str] | None:  # noqa: B008
    """The columns of users and of items, if the table has both. Raises ValueError for two of one.

    Columns that are called user and item are meant, whatever else there is.
    """
    kept = [str(name) for name in names if str(name) not in options.left_out]
    found = []
    for exact, known in (("user", USERS), ("item", ITEMS)):
        named = [name for name in kept if name == exact] or [
            name for name in kept if plain(name) in known
        ]
        found.append(named)
    if not all(found):
        return None
    for what, named in zip(("users", "items"), found, strict=True):
        if len(set(named)) > 1:
            raise Refused(
                f"columns {', '.join(map(short, named))} may each hold the {what}; leave out the "
                f"others, for example with leave_out={','.join(named[1:])}"
            )
        if len(named) > 1:
            _refuse_doubles(names, named)
    return found[0][0], found[1][0]


def _refuse_doubles(names: Sequence[object], chosen: Sequence[object]) -> None:
    counts = Counter(names)
    for name in chosen:
        if counts[name] > 1:
            where = [n for n, each in enumerate(names) if each == name]
            times = "twice" if len(where) == 2 else f"{len(where)} times"
            raise Refused(
                f"column {short(name)} occurs {times} (columns {', '.join(map(str, where))}, from "
                "0); names must differ"
            )


def _leave(name: object) -> str:
    return f", or be left out: leave_out={name}"


def left(names: Sequence[object], options: Options) -> list[object]:
    """The columns that are not left out. Raises ValueError for a name that is no column's."""
    known = [str(name) for name in names]
    for name in options.left_out:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise Refused(
                f"leave_out names {short(name)}, which is not a column{hint}; the columns are "
                f"{shortened(', '.join(known))}"
            )
    kept = [name for name in names if str(name) not in options.left_out]
    if not kept:
        raise Refused("leave_out leaves out every column")
    return kept


def _table(frame: pd.DataFrame, options: Options, doubt: str = "", ignored: int = 0) -> Content:
    if frame.empty:
        raise Refused("holds no rows")
    all_names = list(frame.columns)
    kept = left(all_names, options)
    frame = frame.loc[:, [str(name) not in options.left_out for name in frame.columns]]
    named = isinstance(kept[0], str)
    found = pair(kept) if named else None
    if found:
        plainly = found == ("user", "item")
        rest = len(kept) - 2 + ignored
        note = (
            f"taken as interactions: users are in column {found[0]}, items in {found[1]}"
            f"{f', {rest} other column(s) are not read' if rest else ''}; to train on the numbers "
            f"instead, pass leave_out={','.join(found)}"
        )
        pairs = frame[list(found)].set_axis(["user", "item"], axis=1)
        return _interactions(pairs, () if plainly else (note,))
    _refuse_doubles(all_names, kept)
    if named and re.fullmatch(UNNAMED, kept[0]):
        raise Refused(
            "begins with a column without a name, which probably holds row numbers; leave it out "
            f"(pandas: index=False, or here leave_out='{kept[0]}')"
        )
    for name in frame:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
            row = int(text.to_numpy().argmax())
            raise Refused(
                f"row {row}, column {short(name)} holds {short(column.iloc[row])}; "
                f"{NUMBERS}{_leave(name) if named else ''}{doubt if row == 0 else ''}"
            )
    _refuse_missing(frame)
    columns = tuple(map(str, kept)) if named else None
    return Content({"data": frame.to_numpy(dtype=np.float64)}, columns=columns, doubt=doubt)


def _interactions(pairs: pd.DataFrame, notes: tuple[str, ...] = ()) -> Content:
    """Users by items, both sorted: 1 where a user has an item. Repeated pairs count once."""
    _refuse_missing(pairs)
    (users, height), (items, width) = _ranked(pairs["user"]), _ranked(pairs["item"])
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


def _refuse_missing(frame: pd.DataFrame) -> None:
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = divmod(int(missing.argmax()), missing.shape[1])
        raise Refused(f"row {row}, column {short(list(frame)[column])} is empty or NaN")


READERS: dict[str, Callable[[BinaryIO, Options], Content]] = {
    f"{ending}{gz}": packed_text if gz else text
    for ending in (".csv", ".tsv", ".txt")
    for gz in ("", ".gz")
} | {".parquet": from_parquet}
