"""Tables with columns, of numbers or of users and items: frames in memory, Parquet, JSON lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from evoae.data.content import Content, Handle, Options, leaving_out, remaining
from evoae.messages import LONGEST, Refused, display, short
from evoae.resources import require

MUST = "values must be numbers"
NO_GAPS = "fill it in, or remove the row"
UNNAMED = r"Unnamed: \d+"  # as pandas calls a column without a name
WIDE = 8  # columns of which chance does not put the values in order
# How missing values are written.
MISSING = frozenset("na n/a #n/a <na> nan null none nil missing - -- . ?".split())
A_NUMBER_AND_MORE = re.compile(r"\W?[\d.,'\s]*\d[\d.,'\s]*\W?")


# -- frames --------------------------------------------------------------------------------------


def of_frame(frame: pd.DataFrame, options: Options) -> Content:
    """The table in a frame; columns that are only numbered have no names."""
    named = list(frame.columns) != list(range(frame.shape[1]))
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    found = table(frame.reset_index(drop=True), options.left_out, named=named)
    return replace(found, left_out=options.left_out)


def json_lines(handle: Handle, options: Options) -> Content:
    """A table as lines of JSON: objects with the same names, or arrays of numbers."""
    taken = 0
    while block := handle.read(1 << 20):
        taken += len(block)
        require(24 * taken, "its values")
    handle.seek(0)
    frame = pd.read_json(handle, lines=True, precise_float=True, convert_dates=False)
    return of_frame(frame, options)


# -- Parquet -------------------------------------------------------------------------------------


def from_parquet(handle: Handle, options: Options) -> Content:
    """A table as Parquet."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(handle)
    schema = metadata.schema.to_arrow_schema()
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    # as arrow reads it, as pandas holds it, and as one table
    require(24 * rows * len(schema) + sum(group.total_byte_size for group in groups), "its values")
    # a text that stands in many rows lies in the file once, and is read once
    texts = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    handle.seek(0)
    file = parquet.ParquetFile(handle, metadata=metadata, read_dictionary=texts)
    return of_frame(file.read().to_pandas(), options)


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
                f"others, for example with {leaving_out(named[1:])}"
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


def table(
    frame: pd.DataFrame, left_out: Sequence[str], *, named: bool = True, doubt: str = ""
) -> Content:
    """What a table holds."""
    if frame.empty:
        raise Refused("holds no rows")
    names = list(frame.columns)
    columns = remaining(names, left_out)
    found = pair(columns) if named else None
    if found:
        rest = len(columns) - 2
        note = (
            f"taken as interactions: users are in column {display(found[0])}, items "
            f"in {display(found[1])}"
            f"{f', {rest} other column(s) are not read' if rest else ''}; to train on the numbers "
            f"instead, pass {leaving_out(found)}"
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
    values = numbers(frame, named, doubt, left_out=left_out)
    return Content({"data": values}, columns=tuple(columns) if named else None, doubt=doubt)


def numbers(
    frame: pd.DataFrame,
    named: bool = True,
    doubt: str = "",
    cure: str = ", or be left out: {}",
    left_out: Sequence[str] = (),
) -> np.ndarray:
    """The values of a frame, float64 [n, D]. Raises ValueError for a cell that is no number.

    `cure`: what a message says about the column; {} is the setting that leaves it out, beside those
    that are `left_out` and others in which no cell is a number.
    """
    converted, columns = {}, list(frame)
    _refuse_doubles(columns, columns)
    for name in columns:
        column = frame[name]
        if column.dtype.kind in "cmM":
            rule = f"{MUST}{_left_out_too(frame, name, left_out, cure)}"
            raise Refused(f"column {short(name)} holds values of type {column.dtype}; {rule}")
        if pd.api.types.is_numeric_dtype(column):
            continue
        try:
            found = _parsed(column)
        except (TypeError, OverflowError) as error:
            raise Refused(f"column {short(name)} holds no numbers: {error}") from None
        wrong = column.map(np.iscomplexobj) if found.dtype.kind == "c" else found.isna()
        wrong &= column.notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            cure = _left_out_too(frame, name, left_out, cure)
            rule = _rule_for_text(frame, row, name, cure) if named else f"; {MUST}"
            raise Refused(
                f"{_cell(row, name, named)} holds {short(column.iloc[row])}{rule}"
                f"{doubt if row == 0 else ''}"
            )
        converted[name] = found.astype(np.float64)
    frame = frame.assign(**converted) if converted else frame
    _refuse_missing(frame, named)
    return frame.to_numpy(dtype=np.float64)


def _parsed(column: pd.Series) -> pd.Series:
    """The numbers in a column, NaN where there is none."""
    # as Python's objects, for pandas makes numbers of periods and of some dates
    return pd.to_numeric(column.astype(object), errors="coerce")


def _left_out_too(frame: pd.DataFrame, name: str, left_out: Sequence[str], cure: str) -> str:
    """The cure by which a column and all others without any number are left out, if some remain."""

    def holds_none(other: str) -> bool:
        column = frame[other]
        if column.dtype.kind in "cmM" or pd.api.types.is_numeric_dtype(column):
            return column.dtype.kind in "cmM"
        try:
            return bool(_parsed(column).isna().all())
        except (TypeError, OverflowError):
            return False

    useless = [each for each in frame if each == name or holds_none(each)]
    if len(useless) == len(frame.columns) > 1:
        return ""
    every = leaving_out([*left_out, *useless])
    return cure.format(every if len(every) <= LONGEST else leaving_out([*left_out, name]))


def _rule_for_text(frame: pd.DataFrame, row: int, name: str, cure: str) -> str:
    """What to do about a text among numbers, in words that follow it."""
    cell = frame[name].iloc[row]
    value = cell if isinstance(cell, str) else ""
    if value.strip().lower() in MISSING:
        return f", which stands for a missing value; {NO_GAPS}"
    following = pd.to_numeric(frame.iloc[1:2].T.squeeze(axis=1), errors="coerce")
    names = pd.to_numeric(frame.iloc[0], errors="coerce").isna() & frame.iloc[0].notna()
    if row == 0 and len(frame.columns) > 1 and names.all() and following.notna().any():
        return "; if this is a second line of names, or of units, remove it"
    if len(frame.columns) == 1 and re.search(r"\d\W+\d", value):
        return (
            f"; {MUST}, separated by commas, semicolons, tabs, vertical bars or blanks (none of "
            "these was found)"
        )
    plainly = (
        ", without units and separators of thousands"
        if (A_NUMBER_AND_MORE.fullmatch(value))
        else ""
    )
    return f"; {MUST}{plainly}{cure}"


def _interactions(frame: pd.DataFrame, columns: tuple[str, str], notes: tuple[str, ...]) -> Content:
    """Users by items, both sorted: 1 where a user has an item. Repeated pairs count once."""
    _refuse_missing(frame[list(columns)])
    try:
        (users, height), (items, width) = (_ranked(frame[name]) for name in columns)
    except TypeError:  # lists, say
        names = ", ".join(map(short, columns))
        raise Refused(f"columns {names} must hold numbers or text: users and items") from None
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


# -- rows of numbers that are names ---------------------------------------------------------------


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
    ordered = width > 2 and bool(in_order(first[None])[0])
    certain = width > 3 or (first == first.round()).all()
    if ordered and certain and first.min() > rest.max() and not within:
        return True
    ordered = ordered and not in_order(rest).any()
    even = width > 2 and bool(evenly_spaced(first[None])[0]) and not evenly_spaced(rest).any()
    if within:
        return even and width >= WIDE
    by_one = even and abs(first[1] - first[0]) == 1
    if even and (by_one or outside or width >= 5):
        return True
    if ordered and (outside or width >= WIDE):
        return True
    return apart and outside and len(np.unique(first)) == width


def in_order(rows: np.ndarray) -> np.ndarray:
    """Which rows [n, D] rise or fall all along, booleans [n]."""
    steps = np.diff(rows, axis=1)
    return np.all(steps > 0, axis=1) | np.all(steps < 0, axis=1)


def evenly_spaced(rows: np.ndarray) -> np.ndarray:
    """Which rows [n, D] rise or fall by equal steps, booleans [n]."""
    steps = np.diff(rows, axis=1)
    return in_order(rows) & (np.ptp(steps, axis=1) <= 1e-3 * np.abs(steps.mean(1)))
