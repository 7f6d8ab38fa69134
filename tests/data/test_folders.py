"""Folders of pictures, HDF5, Keras's archives: what they hold, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import tiny
from helpers import unusable as message
from PIL import Image

from evoae import Experiment
from evoae.data import content
from evoae.data.datasets import summary
from evoae.resources import cache_directory

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 4), dtype=np.uint8)
X = PIXELS.reshape(12, 24) / 255


def pictures(folder: Path, names: list[str], values: np.ndarray = PIXELS) -> Path:
    for name, picture in zip(names, values, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


NUMBERED = [f"{number:02}.png" for number in range(12)]


@pytest.mark.parametrize(
    "names",
    [
        NUMBERED,
        [f"{'cats' if number < 5 else 'dogs'}/{name}" for number, name in enumerate(NUMBERED)],
        [name.replace("png", "BMP") for name in NUMBERED],
    ],
)
def test_pictures_of_a_folder_in_the_order_of_their_names(tmp_path: Path, names: list[str]) -> None:
    folder = pictures(tmp_path, names)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture either")
    e = tiny(dataset=folder)
    assert e.load_data(1, 0).image_shape == (6, 4)
    assert e.hash() == tiny(dataset=PIXELS / 255).hash() == tiny(dataset=X).hash()
    assert tiny(dataset=f"{folder}/").hash() == e.hash()


def test_parts_of_a_folder(tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    names = [f"{part}/a/{name}" for part, name in zip(parts, NUMBERED, strict=True)]
    folder = pictures(tmp_path, names)
    assert tiny(dataset=folder).hash() == tiny(dataset=(X[:6], X[6:9], X[9:])).hash()


def test_sixteen_bits_and_palettes_are_read_as_eight(tmp_path: Path) -> None:
    pictures(tmp_path / "16", NUMBERED, PIXELS.astype(np.uint16) * 257)
    assert tiny(dataset=tmp_path / "16").hash() == tiny(dataset=X).hash()
    (tmp_path / "p").mkdir()
    for name, picture in zip(NUMBERED, PIXELS, strict=True):
        Image.fromarray(picture).convert("P").save(tmp_path / "p" / name)
    assert tiny(dataset=tmp_path / "p").hash() == tiny(dataset=X).hash()


def test_sizes_and_colours(tmp_path: Path) -> None:
    folder = pictures(tmp_path, NUMBERED)
    for size, shape in (("5", (5, 5)), (5, (5, 5)), ("3x7", (3, 7)), ((3, 7), (3, 7))):
        assert tiny(dataset=folder, size=size).load_data(1, 0).image_shape == shape
    red = np.zeros((6, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    Image.fromarray(red).save(folder / "99.png")
    assert "1 pictures are in colour and read as grey; colour=true" in summary(folder).notes[0]
    coloured = tiny(dataset=folder, colour=True)
    assert coloured.load_data(1, 0).image_shape == (6, 4, 3)
    assert summary(folder, colour=True).notes == ()
    rows = np.concatenate([np.repeat(PIXELS[..., None], 3, 3), red[None]]) / 255
    assert coloured.hash() == tiny(dataset=rows).hash()
    for size in ("4x", "0", "a", "4x4x4", "-3"):
        with pytest.raises(ValueError, match=r"size=.* must be a number of pixels, or two such as"):
            Experiment(dataset=folder, size=size)


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", NUMBERED)
    Image.new("L", (9, 8)).save(folder / "a.jpg")
    assert "a.jpg has 8x9 pixels, and 00.png has 6x4; say to which size" in message(folder)
    assert summary(folder, size="4").size.dimension == 16
    (folder / "b.png").write_bytes(b"nothing of the kind")
    assert f"{folder}: b.png: is no picture that Pillow can read" in message(folder, size="4")
    whole = (folder / "00.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    assert "b.png: is no picture that Pillow can read" in message(folder, size="4")
    (folder / "b.png").unlink()
    assert "leave_out=1 applies to columns" in message(folder, size="4", leave_out="1")


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,1\n")
    assert message(tmp_path).endswith("; it holds a.csv")


def test_a_picture_that_would_swell_is_refused_by_the_size_it_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path, NUMBERED)
    monkeypatch.setattr("evoae.resources.available_memory", lambda: 1 << 20)
    Image.new("L", (5000, 5000)).save(folder / "00.png")
    assert "need 0.1 GiB of memory" in message(folder)


def test_a_folder_that_changes_is_read_again(tmp_path: Path) -> None:
    folder = pictures(tmp_path, NUMBERED)
    before = tiny(dataset=folder).hash()
    Image.fromarray(PIXELS[5]).save(folder / NUMBERED[0])
    assert tiny(dataset=folder).hash() != before
    Image.fromarray(PIXELS[0]).save(folder / NUMBERED[0])
    assert tiny(dataset=folder).hash() == before
    (folder / NUMBERED[0]).rename(folder / "zz.png")
    assert tiny(dataset=folder).hash() != before


# Files of several arrays


def test_keras_archives(tmp_path: Path) -> None:
    labels = {"y_train": np.arange(8), "y_test": np.arange(4)}
    np.savez(tmp_path / "mnist.npz", x_train=PIXELS[:8], x_test=PIXELS[8:], **labels)
    e = tiny(dataset=tmp_path / "mnist.npz", scale=True)
    assert e.hash() == tiny(dataset=(PIXELS[:8], PIXELS[8:]), scale=True).hash()
    said = " ".join(summary(e.dataset, scale=True).notes)
    assert "labels are not learnt from: y_train, y_test" in said
    assert "validation is drawn from train" in said
    assert "scale=True" in message(tmp_path / "mnist.npz")
    np.savez(tmp_path / "medmnist.npz", train_images=X[:4], val_images=X[4:8], test_images=X[8:])
    assert (
        tiny(dataset=tmp_path / "medmnist.npz").hash()
        == tiny(dataset=(X[:4], X[4:8], X[8:])).hash()
    )


def test_a_key_takes_one_of_several_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X, y=np.arange(12))
    assert "holds X, y; it must hold one array, or the parts" in message(tmp_path / "a.npz")
    assert "key=X would take one" in message(tmp_path / "a.npz")
    assert tiny(dataset=tmp_path / "a.npz", key="X").hash() == tiny(dataset=X).hash()
    assert "key='Z' is not in it; it holds X, y" in message(tmp_path / "a.npz", key="Z")
    assert "shape is (12,)" in message(tmp_path / "a.npz", key="y")
    for other in ("digits", "binary-clusters"):
        assert "key=X applies to files of several arrays" in message(other, key="X")


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".H5"])
def test_hdf5(tmp_path: Path, suffix: str) -> None:
    h5py = pytest.importorskip("h5py")

    def written(name: str, **arrays: np.ndarray) -> Path:
        with h5py.File(tmp_path / f"{name}{suffix}", "w") as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array, compression="gzip" if array.size else None)
        return tmp_path / f"{name}{suffix}"

    one = written("one", **{"inside/rows": X, "labels": np.arange(12)})
    assert tiny(dataset=one).hash() == tiny(dataset=X).hash()
    assert "left out, as they are no tables: labels" in summary(one).notes
    assert not summary(one, key="inside/rows").notes
    two = written("two", a=X, b=X[:5])
    assert "holds a, b; it must hold one array" in message(two)
    assert tiny(dataset=two, key="b").hash() == tiny(dataset=X[:5]).hash()
    assert "it holds a, b" in message(two, key="c")
    parts = written("parts", x_train=PIXELS[:8], x_test=PIXELS[8:], y_train=np.arange(8))
    assert summary(parts, scale=True).size[:2] == (7, 12)
    assert "holds nothing" in message(written("none", a=np.arange(3)))
    assert "real numbers" in message(written("text", a=np.array([[b"a", b"b"]] * 4)))
    assert "no values" in message(written("empty", a=np.zeros((0, 3))))
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("a", (10**8, 10**6), np.float32, chunks=(1, 1000))
    assert "need" in message(tmp_path / "huge.h5")
    (tmp_path / "cut.h5").write_bytes(one.read_bytes()[:500])
    assert "cut.h5: cannot be read as .h5" in message(tmp_path / "cut.h5")


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(content, "import_module", missing)
    for name, cure in {"a.h5": "evoae[data]", "a.h5ad": "evoae[bio]"}.items():
        (tmp_path / name).write_bytes(b"any")
        assert f"pip install '{cure}'" in message(tmp_path / name)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "dataset_info.json").write_text("{}")
    assert "the package datasets is missing; pip install datasets" in message(saved)


# Lines of JSON


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":0.5,"b":"x"}\n' * 4, "column 'b' holds 'x'"),
        ("[1,0]\n[1]\n[0,1]\n", "row 1, column 1 is empty or NaN"),
        ('{"a":0.5}\n{"b":0.5}\n{"a":1}\n', "is empty or NaN"),
        ('{"a":[0.5,1]}\n' * 4, "column 'a' holds [0.5, 1]; values must be numbers, or be left"),
        ('{"a":0.5,', "cannot be read as .jsonl"),
        ("\n\n", "holds no rows"),
        ('{"a":null}\n' * 4, "is empty or NaN"),
    ],
)
def test_bad_lines_of_json(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    assert words in message(tmp_path / "a.jsonl")


def test_large_pictures_are_shared_like_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("evoae.data.datasets.LARGE", 0)
    for data in (pictures(tmp_path / "p", NUMBERED), PIXELS / 255):
        mapped = tiny(dataset=data).load_data(1, 0)
        np.testing.assert_array_equal(mapped.train, tiny(dataset=X).load_data(1, 0).train)
        assert mapped.image_shape == (6, 4)
    assert len(list(cache_directory().iterdir())) == 3
