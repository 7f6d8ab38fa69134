"""Your data: drop a file, see what it holds and what becomes of it, and train on it."""

from __future__ import annotations

import math
import re
import secrets
from pathlib import Path

from evoae.data import datasets
from evoae.data.files import SUFFIXES
from evoae.data.splits import Dataset
from evoae.messages import count, short
from evoae.rules import nearest
from evoae.study.runs.files import digest, replace_file
from evoae.study.widgets.hand import Drop
from evoae.study.widgets.live import LiveTraining
from evoae.study.widgets.parts import View, data_name
from evoae.study.widgets.pixels import COLUMNS, MOST_BITS, Picture, Pictures, Shown, examples

LINES = 16  # rows in a preview that are no images
LEAST_SIDE = 8  # pixels: smaller squares are hardly pictures
LONGEST = 80  # characters of a file's name
INSTEAD = "Drop one file. For a folder of pictures, write its path into Dataset."


def preview(state: tuple[Dataset, tuple[str, ...]] | None) -> Shown:
    """Rows, range, some of them, and what will be done with them; and notes on the data set."""
    if state is None:
        return Shown("The data set cannot be read.")
    data, notes = state
    side = math.isqrt(data.dimension)
    square = (side, side) if side >= LEAST_SIDE and side * side == data.dimension else None
    shape = data.image_shape or square
    parts = {split: len(getattr(data, split)) for split in datasets.SPLITS}
    rows = sum(parts.values())
    some = data.test[: COLUMNS if shape else LINES].numpy()
    if shape is None:
        words = f"Some of the rows, {min(MOST_BITS, data.dimension)} of {data.dimension} columns"
    else:
        drawn = "" if data.image_shape else ", if they are pictures"
        words = f"Some of the rows, as {' × '.join(map(str, shape))} pixels{drawn}"
    legend = (("0", "#000000"), ("1", "#FFFFFF"))
    picture = Picture(words, examples(some, shape), legend, square=bool(shape))
    columns = count(data.dimension, "column")
    heading = f"{data_name(data.name)}: {count(rows, 'row')} of {columns}, {span(data)}"
    done = (
        f"The values are {data.scaling.words if data.scaling else 'used as they are'}. Parts: "
        f"{count(parts['train'], 'row')} to train on, {parts['validation']:,} to choose by "
        f"(validation), {parts['test']:,} to test."
    )
    return Shown(heading, (picture,), "\n".join([done, *notes]))


def span(data: Dataset) -> str:
    """The range of the values as they came."""
    if data.scaling is not None:
        low, high = data.scaling.minimum.min(), data.scaling.maximum.max()
    else:
        splits = [getattr(data, split).numpy() for split in datasets.SPLITS]
        low, high = min(s.min() for s in splits), max(s.max() for s in splits)
    return f"values from {low:.6g} to {high:.6g}"


class YourData(View):
    """Drop a file, see what it holds, and what will be done with it; it becomes `live`'s data set.

    The preview is of whatever that data set is. Files are kept below `folder` under a digest of
    their bytes, so that the commands of `live` and its runs can be made again.
    """

    described = staticmethod(preview)

    def __init__(self, live: LiveTraining, folder: str | Path = "out/uploads") -> None:
        self.live, self.folder = live, Path(folder)
        self._part: Path | None = None  # what is there of a file that arrives
        tip = f"It is kept in {self.folder} and becomes the data set. Files: {', '.join(SUFFIXES)}"
        self.drop = Drop(tip, self.take)
        super().__init__(Pictures(), self.drop)
        for each in (live.dataset, live.scale, live.more):
            each.observe(self.redraw, "value")

    def take(self, name: str, start: int, size: int, piece: bytes | None) -> bool:
        """Bytes of a file of this `size`, from `start` on. Whether more of it are wanted."""
        try:
            if piece is None:
                raise ValueError(INSTEAD)
            return self._append(name, start, size, piece)
        except (ValueError, OSError) as error:
            self._give_up()
            self.say("; ".join(str(error).splitlines()))
            return False

    def _append(self, name: str, start: int, size: int, piece: bytes) -> bool:
        if start == 0:
            self._give_up()
            if not size:
                raise ValueError(f"{short(name)} is empty")
            if not name.lower().endswith(tuple(SUFFIXES)):
                raise ValueError(
                    f"{short(name)} has an unknown suffix{nearest(Path(name).suffix, SUFFIXES)} "
                    f"(choose one of {', '.join(SUFFIXES)})"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._part = self.folder / f".{secrets.token_hex(8)}.part"
        part = self._part
        if part is None or (start and part.stat().st_size != start):
            raise ValueError(f"{short(name)} did not arrive whole; drop it again")
        with part.open("ab") as file:
            file.write(piece)
            arrived = file.tell()
        if arrived < size:
            return True
        self._part = None
        target = self.folder / digest(part)[:16] / safe(name)
        target.parent.mkdir(exist_ok=True)
        new = not target.exists()  # otherwise runs may be of it
        replace_file(part, target)
        try:
            self._use(str(target))
        except ValueError:
            if new:
                target.unlink()
            raise
        return False

    def _use(self, name: str) -> None:
        """Let a file that has arrived be the data set. Raises ValueError if it cannot be.

        If its values do not lie in [0, 1], they are to be scaled: those of pictures together.
        """
        how, scale = self.live.reading, "no"
        try:
            datasets.summary(name, **how | {"scale": False})
        except ValueError:
            how["scale"] = "columns"
            data = datasets.load(name, seed=self.live.seed, trial=0, **how)
            scale = "yes" if data.image_shape else "columns"
        self.live.scale.value, self.live.dataset.value = scale, name
        self.redraw()

    def _give_up(self) -> None:
        """Forget a file that has not arrived whole."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        self._part = None

    def look(self) -> tuple[Dataset, tuple[str, ...]]:
        """What the data set holds. Raises ValueError if it cannot be read."""
        name = self.live.dataset.value
        how = self.live.reading
        data = datasets.load(name, seed=self.live.seed, trial=0, **how)
        return data, datasets.summary(name, **how).notes


def safe(name: str) -> str:
    """A file's name without anything that a path or a command would take for something else."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w.+-]+", "_", last, flags=re.ASCII)[-LONGEST:].lstrip("._+-")
    return kept if "." in kept else f"data.{kept}"
