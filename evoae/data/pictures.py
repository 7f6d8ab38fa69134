"""Folders: of pictures, or as the package datasets of Hugging Face saves them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from evoae.data import tables
from evoae.data.content import Content, Options, joined, of_parts, package, sides
from evoae.messages import Refused, display, file_errors
from evoae.resources import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def listed(folder: Path) -> list[Path]:
    """The files that are read, of a folder and of those below, in order; none that is hidden."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    seen = sorted(path for path in found if not any(part[0] in "._" for part in path.parts))
    return seen if saved(folder) else [path for path in seen if path.suffix.lower() in SUFFIXES]


def saved(folder: Path) -> bool:
    """Whether the package datasets of Hugging Face has saved it."""
    return any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


def read(folder: Path, options: Options) -> Content:
    """The pictures of a folder, in the order of their names, as values in [0, 1].

    Where its subfolders are called train and test, they are the parts.
    """
    if saved(folder):
        options.only("a folder that datasets has saved", "leave_out")
        return of_hub(package("datasets", "").load_from_disk(str(folder)), options)
    chosen = listed(folder)
    if not chosen:
        others = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise Refused(
            f"is a directory without pictures ({', '.join(SUFFIXES)})"
            f"{f'; it holds {display(others)}' if others else ''}"
        )
    options.only("a folder of pictures", "size", "colour")
    parts: dict[str, list[Path]] = {}
    for name in chosen:
        parts.setdefault(name.parts[0] if len(name.parts) > 1 else "", []).append(name)
    split: dict[str, Any] = {}
    with suppress(Refused):
        split = of_parts(parts).parts
    if "train" in split:
        stacks = {part: stack(folder, found, options) for part, found in split.items()}
    else:
        stacks = {"data": stack(folder, chosen, options)}
    coloured = sum(count for _, count in stacks.values())
    notes: tuple[str, ...] = ()
    if coloured and not options.colour:
        notes = (f"{coloured} pictures are in colour and read as grey; colour=true keeps colours",)
    return Content({part: rows for part, (rows, _) in stacks.items()}, notes=notes)


def of_hub(value: Any, options: Options) -> Content:
    """A Dataset of Hugging Face: its one column of pictures or lists of numbers, or its table; a
    DatasetDict of its parts."""
    if isinstance(value, dict):
        return joined({name: of_hub(each, options) for name, each in of_parts(value).parts.items()})
    lists = [
        name
        for name, kind in value.features.items()
        if type(kind).__name__ not in ("Value", "ClassLabel")
    ]
    if len(lists) != 1:
        return tables.of_frame(value.to_pandas(), options)
    column = value.with_format("numpy")[lists[0]]
    if len(column):
        require(len(column) * max(4, np.asarray(column[0]).nbytes), "its values")
    rows = np.asarray(column[:])
    is_picture = type(value.features[lists[0]]).__name__ == "Image"
    return Content({"data": rows / np.float32(255) if is_picture else rows})


def stack(folder: Path, names: list[Path], options: Options) -> tuple[np.ndarray, int]:
    """Pictures [n, height, width], with three colours last if they are kept, in [0, 1]; and how
    many of them were in colour."""
    rows, coloured = None, 0
    for number, name in enumerate(names):
        with file_errors(display(name), "is no picture that Pillow can read"):
            picture, colours = opened(folder / name, options)
        coloured += colours
        if rows is None:
            require(4 * len(names) * picture.size, "its pictures")
            rows = np.empty((len(names), *picture.shape), np.float32)
        if picture.shape != rows.shape[1:]:
            one, other = (
                "x".join(map(str, shape[:2])) for shape in (rows.shape[1:], picture.shape)
            )
            raise Refused(
                f"{display(name)} has {other} pixels, and {display(names[0])} has {one}; "
                f"say to which size all are scaled, for example size={one}"
            )
        np.divide(picture, np.float32(255), out=rows[number])
    assert rows is not None
    return rows, coloured


def opened(path: Path, options: Options) -> tuple[np.ndarray, bool]:
    """A picture's bytes, and whether it has colours."""
    Image: Any = package("PIL.Image")
    with Image.open(path) as image:
        require(4 * image.width * image.height, "its pixels")
        if image.mode.startswith("I"):  # of 16 bits
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        upright = package("PIL.ImageOps").exif_transpose(image)
        colours = upright.convert("RGB")
        if size := sides(options.size):
            colours = colours.resize(size[::-1])
        values = np.asarray(colours)
        return values if options.colour else np.asarray(colours.convert("L")), bool(
            np.ptp(values, axis=2).any()
        )
