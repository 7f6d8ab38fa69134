"""A file that is dropped: what is shown of it, what becomes of it, and what is refused."""

from __future__ import annotations

import gzip
import io
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evoae import Run
from evoae.study.figures import look
from evoae.study.widgets import LiveTraining, ScheduleExplorer, YourData
from evoae.study.widgets.your_data import safe

rng = np.random.default_rng(0)
TABLE = "a,b,c\n" + "\n".join(",".join(f"{x:.3f}" for x in row) for row in rng.random((40, 3)) * 9)


def npy(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> YourData:
    folder = tmp_path_factory.mktemp("out")
    explorer = ScheduleExplorer(epochs=2, subpopulation=1)
    live = LiveTraining(explorer, model="2", preset="canonical", folder=folder / "runs")
    return YourData(live, folder / "uploads")


@pytest.fixture
def data(shared) -> YourData:
    shared.live.more.value = ""
    shared.live.dataset.value, shared.live.scale.value = "digits", "no"
    return shared


def drop(data: YourData, name: str, content: bytes) -> None:
    data.take(name, 0, len(content), content)


def test_a_file_is_seen_trained_on_and_found_again(data):
    drop(data, "my table.csv", TABLE.encode())
    assert data.message.value == ""
    path = data.live.dataset.value
    assert path.startswith(str(data.folder))
    assert path.endswith("/my_table.csv")
    shown = data.canvas.shown
    assert shown["heading"].startswith("my_table.csv: 40 rows of 3 columns, values from 0.0")
    assert "each column by its own minimum and maximum" in shown["words"]
    assert "28 rows to train on, 6 to choose by (validation), 6 to test" in shown["words"]
    assert {f"dataset={path}", "scale=columns"} < set(shlex.split(data.live.copy.value))
    data.live.train(wait=True)
    data.live.keep.click()
    assert Run(data.live.saved).data().train.shape == (28, 3)
    data.live.scale.value = "no"
    assert "values must lie in [0, 1]" in data.message.value
    data.live.dataset.value = "digits"
    drop(data, "my table.csv", TABLE.encode())
    assert data.live.dataset.value == path
    drop(data, "my table.csv", TABLE.replace("a,b", "x,y").encode())
    assert data.live.dataset.value != path
    assert look.png(data.figure())


def test_pieces_become_the_file(data):
    content = npy(rng.random((50, 100)).astype(np.float32))
    wants = [
        data.take("a.npy", start, len(content), content[start : start + 7000])
        for start in range(0, len(content), 7000)
    ]
    assert wants == [True] * (len(wants) - 1) + [False]
    whole = data.live.dataset.value
    drop(data, "a.npy", content)
    assert data.live.dataset.value == whole
    shown = data.canvas.shown
    assert "50 rows of 100 columns" in shown["heading"]
    assert "as 10 × 10 pixels, if they are pictures" in shown["pictures"][0]["title"]
    pixels = np.asarray(Image.open(io.BytesIO(shown["pictures"][0]["png"])))
    assert pixels.shape == (10, 7 * 11 - 1, 4)  # of as many images as there are test rows
    assert not list(data.folder.glob("*.part"))


@pytest.mark.parametrize(
    ("rows", "title", "words"),
    [
        (rng.integers(0, 256, (30, 5, 7)).astype(np.uint8), "5 × 7 pixels", "all columns together"),
        (rng.random((30, 4, 4, 3)), "4 × 4 × 3 pixels", "used as they are"),
        (rng.random((30, 16)), "16 of 16 columns", "used as they are"),
        (rng.random((30, 500)), "120 of 500 columns", "used as they are"),
    ],
)
def test_what_is_previewed(data, rows, title, words):
    drop(data, "x.npy", npy(rows))
    assert data.message.value == ""
    assert title in data.canvas.shown["pictures"][0]["title"]
    assert words in data.canvas.shown["words"]


def test_the_data_set_that_is_typed_is_previewed_too(data):
    assert data.canvas.shown["heading"].startswith("digits: 1,797 rows of 64 columns")
    data.live.dataset.value = "nothing"
    assert "neither a built-in name nor an existing file" in data.message.value
    data.live.dataset.value = "digits"
    assert data.message.value == ""


BAD = {
    "empty.csv": (b"", "is empty"),
    "notes.docx": (b"PK", "unknown suffix"),
    "table.cvs": (b"1,2", "did you mean .csv?"),
    "noise.npy": (b"no array", "noise.npy"),
    "words.csv": (b"a,b\nyes,no\nno,yes\n", "words.csv"),
    "cut.csv.gz": (gzip.compress(TABLE.encode())[:50], "cut.csv.gz"),
    "nan.npy": (npy(np.full((9, 2), np.nan)), "nan.npy"),
    "one.npy": (npy(np.zeros((1, 4))), "one.npy"),
    "pickled.npy": (npy(np.array([{"a": 1}], dtype=object)), "pickled.npy"),
    "none": (b"1,2\n", "unknown suffix"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line_and_not_kept(data, name):
    content, words = BAD[name]
    drop(data, name, content)
    assert words in data.message.value
    assert "\n" not in data.message.value
    assert data.live.dataset.value == "digits"
    assert not list(data.folder.glob(f"*/{name}"))
    drop(data, "good.csv", TABLE.encode())
    assert data.message.value == ""


def test_how_a_file_is_read_can_be_said(data):
    content = b"400,401,402\n" + b"".join(b"%d,%d,%d\n" % (n % 3, n % 5, n) for n in range(20))
    data.live.more.value = "header=yes leave_out=402"
    drop(data, "spectra.csv", content)
    assert data.message.value == ""
    assert "20 rows of 2 columns, values from 0 to 4" in data.canvas.shown["heading"]
    assert {"header=yes", "leave_out=402"} < set(shlex.split(data.live.copy.value))
    assert data.live.experiment().header == "yes"
    data.live.more.value = "leave_out=402"
    assert "set header=yes if it is" in data.message.value
    data.live.more.value = "header=perhaps"
    assert "header must be auto, yes or no" in data.message.value
    data.live.more.value = "operator=magnitude"
    assert "operator has a knob of its own; set it there" in data.live.message.value
    data.live.more.value = "leave_out='400"
    assert "No closing quotation" in data.live.message.value
    data.live.more.value = "haeder=yes"
    assert "did you mean header?" in data.live.message.value


def test_a_file_that_is_there_stays_when_it_can_no_longer_be_read(data):
    drop(data, "kept.csv", TABLE.encode())
    path = Path(data.live.dataset.value)
    data.live.more.value = "leave_out=gone"
    drop(data, "kept.csv", TABLE.encode())
    assert "gone" in data.message.value
    assert path.read_bytes() == TABLE.encode()


def test_what_does_not_arrive_whole_is_refused(data):
    content = TABLE.encode()
    assert data.take("a.csv", 0, len(content), content[:100])
    assert not data.take("a.csv", 200, len(content), content[200:])
    assert "did not arrive whole" in data.message.value
    assert not data.take("other.csv", 100, len(content), content[100:])
    assert not data.take("b.csv", 0, 0, None)  # several files, or a folder
    assert "Drop one file" in data.message.value
    assert not list(data.folder.glob(".*"))
    assert data.live.dataset.value == "digits"


def test_a_folder_that_cannot_be_written_is_said(data, tmp_path):
    (tmp_path / "file").write_text("")
    closed = YourData(data.live, tmp_path / "file")
    drop(closed, "a.csv", TABLE.encode())
    assert str(tmp_path / "file") in closed.message.value
    assert data.live.dataset.value == "digits"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a b=c;d.csv", "a_b_c_d.csv"),
        ("../../etc/x.npy", "x.npy"),
        ("C:\\data\\x.npy", "x.npy"),
        ("-rf.csv", "rf.csv"),
        ("..csv", "data.csv"),
        ("Größe.CSV", "Gr_e.CSV"),
        ("train-images-idx3-ubyte", "data.train-images-idx3-ubyte"),
        ("x" * 300 + ".csv.gz", "x" * 73 + ".csv.gz"),
        ("a\nb\0.csv", "a_b_.csv"),
    ],
)
def test_names_are_made_safe(name, kept):
    assert safe(name) == kept
