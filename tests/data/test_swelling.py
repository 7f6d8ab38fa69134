"""Files that would swell are refused by the size they announce or reach, before memory is taken."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from evoae import resources
from evoae.data.datasets import load, summary

ROOM = 200 << 20  # bytes that these tests let readers have


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: ROOM)


def npy(path: Path) -> None:
    np.lib.format.open_memmap(path, "w+", np.float32, (10**5, 10**4)).flush()  # a file with holes


def npz(path: Path) -> None:
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed as archive, archive.open("data.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (250, 10**6)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(250):
            member.write(bytes(10**6))


def idx_gz(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">BBBBII", 0, 0, 8, 2, 250, 10**6))
        for _ in range(250):
            file.write(bytes(10**6))


def numbers(path: Path) -> None:
    column = pa.array(np.zeros(10**6, dtype=np.float32))
    parquet.write_table(pa.table({f"c{n}": column for n in range(16)}), path)


def user_item_parquet(path: Path) -> None:
    names = [f"{n:06}" for n in range(8000)]
    pd.DataFrame({"user": names, "item": names}).to_parquet(path)


def user_item_csv(path: Path) -> None:
    path.write_text("user,item\n" + "".join(f"{n},{n}\n" for n in range(8000)))


def one_line_csv_gz(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(250):
            file.write(b"0," * 500_000)


def rows_tsv_gz(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(10):
            file.write((b"\t".join([b"0", b"1"] * 200) + b"\n") * 10_000)


def rows_jsonl_gz(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(20):
            file.write(b"[" + b"0," * 500_000 + b"0]\n")


def chunks_h5(path: Path) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        file.create_dataset("rows", (10**5, 10**4), np.uint8, chunks=(100, 100))  # none written


def strides(path: Path) -> None:
    torch.save(torch.zeros(1).expand(10**6, 10**6), path)


def packed_pt(path: Path) -> None:
    torch.save(torch.zeros(250, 10**6, dtype=torch.uint8), path.with_suffix(".raw"))
    with (
        zipfile.ZipFile(path.with_suffix(".raw")) as raw,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name in raw.namelist():
            archive.writestr(name, raw.read(name))
    path.with_suffix(".raw").unlink()


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (npy, ".npy"),
        (npz, ".npz"),
        (idx_gz, ".idx.gz"),
        (numbers, ".parquet"),
        (user_item_parquet, ".parquet"),
        (user_item_csv, ".csv"),
        (one_line_csv_gz, ".csv.gz"),
        (rows_tsv_gz, ".tsv.gz"),
        (rows_jsonl_gz, ".jsonl.gz"),
        (chunks_h5, ".h5"),
        (strides, ".pt"),
        (packed_pt, ".pt"),
    ],
)
def test_what_would_swell_is_refused_before_memory_is_taken(
    make, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"swells{suffix}"
    make(path)
    assert os.stat(path).st_blocks * 512 < 20 << 20
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"need .* of memory, and 0\.2 GiB are available"
    ) as caught:
        summary(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_archive_is_not_unpacked_beyond_what_its_members_announce(tmp_path: Path) -> None:
    """Sizes in a zip's directory may lie; so may a header within."""
    path = tmp_path / "lies.npz"
    npz(path)
    content = path.read_bytes()
    true, said = (struct.pack("<I", size) for size in (250 * 10**6 + 128, 10**6))
    assert content.count(true) >= 1
    path.write_bytes(content.replace(true, said))
    with pytest.raises(ValueError, match="header announces") as caught:
        summary(str(path))
    assert str(path) in str(caught.value)


def test_a_packed_file_is_not_unpacked_beyond_its_header(tmp_path: Path) -> None:
    path = tmp_path / "long.idx.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">BBBBII", 0, 0, 8, 2, 3, 2) + bytes(100 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes of data than the 6"):
        summary(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


def test_a_header_that_announces_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"truncated: its header announces 3,725\.3 GiB"):
        summary(str(path))


def test_a_long_text_in_many_rows_is_read_once(tmp_path: Path) -> None:
    """10,000 users with one of three names of 30,000 letters would be 300 MB of text."""
    path = tmp_path / "long.parquet"
    names = [letter * 30_000 for letter in "cab"]
    users = pa.array([n % 3 for n in range(10_000)], pa.int32())
    column = pa.DictionaryArray.from_arrays(users, pa.array(names)).cast(pa.string())
    items = pa.array([n % 7 for n in range(10_000)])
    parquet.write_table(pa.table({"user": column, "item": items}), path)
    data = load(str(path), seed=0, trial=0)
    assert summary(str(path)).size.rows == 3
    assert data.dimension == 7


def test_users_in_a_parquet_are_sorted_by_name_not_by_appearance(tmp_path: Path) -> None:
    pairs = pd.DataFrame({"user": ["c", "a", "b", "a"], "item": ["z", "x", "y", "z"]})
    pairs.to_parquet(tmp_path / "pairs.parquet")
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    one, other = (load(str(tmp_path / f"pairs{s}"), seed=0, trial=0) for s in (".parquet", ".csv"))
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(one, split), getattr(other, split))


def test_a_pt_that_needs_pickle_is_refused_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "module.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    capfd.readouterr()
    recwarn.clear()
    with pytest.raises(ValueError, match="pickle"):
        summary(str(path))
    assert not list(recwarn)
    assert capfd.readouterr().err == ""


def test_the_size_of_data_is_known_without_drawing_them(tmp_path: Path) -> None:
    assert summary("binary-clusters", bits=10**9).size == (1000, 3000, 10**9, True, False)
    assert summary("digits").size == (1797 - 2 * 269, 1797, 64, False, False)
    data = load("digits", seed=1, trial=0)
    assert len(data.train) == summary("digits").size.train
    with pytest.raises(ValueError, match="the data of a trial need"):
        load("binary-clusters", seed=1, trial=0, bits=10**7)
