"""What a reader of data takes, and what it returns."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from gzip import GzipFile
from importlib import import_module
from types import ModuleType
from typing import IO, Any

from evoae.messages import Refused, display, short

HEADERS = ("auto", "yes", "no")
Handle = IO[bytes] | GzipFile  # an open file
# What each option is for, and the value that leaves it open.
APPLIES = {
    "header": ("text tables (.csv, .tsv, .txt)", "auto"),
    "leave_out": ("columns of tables and arrays", ""),
    "key": ("files of several arrays (.npz, .pt, .h5)", ""),
    "size": ("folders of pictures", ""),
    "colour": ("folders of pictures", False),
}


@dataclass(frozen=True)
class Options:
    """How data are read; the settings of `Experiment` say what each is for.

    `scale`: False, True (by the minimum and maximum of all values) or "columns" (by those of each).
    `leave_out`: names of columns, or numbers, from 0, where they have no names, separated by
    commas; a name that contains a comma is quoted. `size`: "28", or "28x40", height first.
    """

    scale: bool | str = False
    header: str = "auto"
    leave_out: str = ""
    key: str = ""
    size: str = ""
    colour: bool = False

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

    def only(self, what: str, *taken: str) -> None:
        """Raise ValueError if an option is set that means nothing for `what`."""
        for name, (use, default) in APPLIES.items():
            value = getattr(self, name)
            if name not in taken and value != default:
                raise Refused(f"{name}={value} applies to {use}, not to {what}")


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
    csv.writer(text).writerow(names)
    return text.getvalue().removesuffix("\r\n")


def leaving_out(names: Iterable[object]) -> str:
    """The setting that leaves columns out, as a message of one line shows it."""
    text = joined_names(names)
    return f"leave_out={text if text.isprintable() else repr(text)}"


def sides(size: str) -> tuple[int, int] | None:
    """Height and width of "28" or "28x40". Raises ValueError for anything else."""
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", size)
    if size and not found:
        raise ValueError(f"size={short(size)} must be a number of pixels, or two such as 28x40")
    return (int(found[1]), int(found[2] or found[1])) if found else None


def package(name: str, extra: str = "data") -> ModuleType:
    """A package that is wanted for data alone. Raises ValueError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        wanted = name.partition(".")[0]
        how = f"it comes with the extra: pip install 'evoae[{extra}]'"
        cure = how if extra else f"pip install {wanted}"
        raise Refused(f"the package {wanted} is missing; {cure}") from None


@dataclass(frozen=True)
class Content:
    """Arrays named train, validation and test, or a single array of any name, yet to be split.

    Some may be sparse matrices. `columns`: their names, if they have any. `notes`: what a user
    should know, a line each. `doubt`: what a message about row 0 adds, in case that row is a
    header. `left_out`: columns that are gone already.
    """

    parts: dict[str, Any]
    image_shape: tuple[int, ...] | None = None
    interactions: bool = False
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    doubt: str = ""
    left_out: tuple[str, ...] = ()


Reader = Callable[[IO[bytes], Options], Content]
# As parts are called in public files: x_train, train_images, X_val; and what is beside them.
PART = r"(?:{0})?_?(train|val(?:id(?:ation)?)?|dev|test)(?:ing)?_?(?:{0})?"
ROWS, LABELS = (
    re.compile(PART.format(words), re.IGNORECASE)
    for words in ("x|images?|data|features", "y|labels?|targets?")
)
SPLITS = ("train", "validation", "test")
SAME = {"val": "validation", "valid": "validation", "dev": "validation"}


def of_parts(arrays: Mapping[str, Any], key: str | None = None) -> Content:
    """The one array, or the parts under their names here; a `key` takes one of several.

    Raises ValueError for others. Where no key can be given, it is None.
    """
    if key:
        if key not in arrays:
            raise Refused(f"key={short(key)} is not in it; it holds {display(', '.join(arrays))}")
        return Content({"data": arrays[key]})
    parts, labels = {}, []
    for name, array in arrays.items():
        if found := ROWS.fullmatch(str(name)):
            word = found[1].lower()
            parts[SAME.get(word, word)] = array
        elif LABELS.fullmatch(str(name)):
            labels.append(str(name))
    if {"train", "test"} <= set(parts) and len(parts) + len(labels) == len(arrays):
        notes = (f"labels are not learnt from: {', '.join(labels)}",) if labels else ()
        return Content(parts, notes=notes)
    if len(arrays) == 1:
        return Content({"data": next(iter(arrays.values()))})
    names = [*map(str, arrays)]
    held = display(", ".join(sorted(names)) or "nothing")
    cure = f"; key={display(names[0])} would take one of them" if names and key is not None else ""
    raise Refused(
        f"holds {held}; it must hold one array, or the parts train and test, or "
        f"{', '.join(SPLITS)}{cure}"
    )


def joined(contents: Mapping[str, Content]) -> Content:
    """Parts that were read one by one. Raises ValueError if their columns differ."""
    columns = {content.columns for content in contents.values()}
    if len(columns) > 1:
        raise Refused("parts differ in their columns")
    rows = {name: next(iter(content.parts.values())) for name, content in contents.items()}
    return replace(next(iter(contents.values())), parts=rows)


# -- columns -------------------------------------------------------------------------------------


def remaining(names: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """The columns that are not left out. Raises ValueError for a name that is no column's."""
    padded = {name.strip(): name for name in names}  # which `split_names` strips
    left_out = [name if name in names else padded.get(name, name) for name in left_out]
    for name in left_out:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise Refused(
                f"leave_out names {short(name)}, which is not a column{hint}; the columns are "
                f"{display(', '.join(names))}"
            )
    found = [name for name in names if name not in left_out]
    if not found:
        raise Refused("leave_out leaves out every column")
    return found


def without_columns(content: Content, options: Options) -> Content:
    """The arrays without the columns that are left out: by their names, or else by number."""
    names = [name for name in options.left_out if name not in content.left_out]
    if not names:
        return content
    parts, columns = {}, []
    for part, array in content.parts.items():
        if array.ndim != 2:
            raise Refused(f"leave_out needs columns, and the shape is {array.shape}")
        known = list(content.columns or map(str, range(array.shape[1])))
        columns = remaining(known, names)
        parts[part] = array[:, [known.index(name) for name in columns]]
    return replace(content, parts=parts, columns=tuple(columns))


def check_array(array: Any, prefix: str = "") -> None:
    """Raise ValueError unless it holds numbers, in rows."""
    if array.dtype.kind not in "biuf":
        raise Refused(f"{prefix}values are of type {array.dtype}; they must be real numbers")
    if array.ndim not in (2, 3, 4):
        raise Refused(
            f"{prefix}shape is {array.shape}; it must be [rows, columns], [rows, height, width], "
            "or that with colours"
        )
    if 0 in array.shape:
        raise Refused(f"{prefix}shape is {array.shape}: no values")
