"""Rows in memory: the same rows are the same run, whatever holds them, and stay with the run."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny
from scipy import sparse
from torch.utils import data as torch_data

from evoae import Experiment, evolve, grid, run, sweep
from evoae.data import datasets, memory, splits
from evoae.data.datasets import load, summary
from evoae.data.memory import HELD, named
from evoae.study.runs import workers
from evoae.study.runs.jobs import RunSpec
from evoae.study.runs.merge import history_rows, save_training
from evoae.study.runs.run import Run

X = np.random.default_rng(0).random((60, 8)).astype(np.float32)
NAMES = list("abcdefgh")


class Items(torch_data.Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[index]), index


class Labelled(torch_data.Dataset):
    """Items as dicts."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, number: int) -> dict[str, object]:
        return {"image": X[number], "label": 1}


class Stream(torch_data.IterableDataset):
    def __iter__(self):
        return iter(X)


SAME = {
    "array": X,
    "double": X.astype(np.float64),
    "columns first": np.asfortranarray(X),
    "backwards": X[::-1].copy()[::-1],
    "other end": X.astype(">f4"),
    "objects": X.astype(object),
    "lists": X.tolist(),
    "no masked value": np.ma.array(X),
    "pictures": X.reshape(60, 2, 4),
    "one channel": X.reshape(60, 1, 2, 4),
    "tensor": torch.from_numpy(X),
    "with gradient": torch.from_numpy(X).clone().requires_grad_(),
    "sparse tensor": torch.from_numpy(X).to_sparse(),
    "csr": sparse.csr_matrix(X),
    "csc": sparse.csc_array(X),
    "coo": sparse.coo_array(X),
    "dok": sparse.dok_matrix(X),
    "frame": pd.DataFrame(X),
    "named": pd.DataFrame(X, columns=NAMES),
    "nullable": pd.DataFrame(X, columns=NAMES).convert_dtypes(),
    "sparse frame": pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X)),
    "items": Items(),
    "tensors": torch_data.TensorDataset(torch.from_numpy(X), torch.arange(60)),
    "subset": torch_data.Subset(Items(), range(60)),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_rows_are_the_same_run_whatever_holds_them(kind: str) -> None:
    e, known = tiny(dataset=SAME[kind]), tiny(dataset=X)
    assert e.hash() == known.hash()
    assert torch.equal(e.load_data(1, 0).train, known.load_data(1, 0).train)


@pytest.mark.parametrize("scale", [False, True, "columns"])
def test_files_of_the_same_rows_are_the_same_run_too(tmp_path: Path, scale: bool | str) -> None:
    rows = np.random.default_rng(1).random((60, 8)) ** 3
    frame = pd.DataFrame(rows, columns=NAMES)
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "a.npz", rows)
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_matrix(rows))
    frame.to_csv(tmp_path / "a.csv.gz", index=False, header=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, double_precision=15)
    (tmp_path / "b.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows.tolist()))
    torch.save(torch.from_numpy(rows), tmp_path / "a.pt")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/rows"] = rows
    if scale:
        (tmp_path / "a.jsonl").unlink()  # of 15 digits
    found = {tiny(dataset=path, scale=scale).hash() for path in tmp_path.iterdir()}
    assert found == {tiny(dataset=rows, scale=scale).hash()}


@pytest.mark.parametrize("scale", [True, "columns"])
def test_how_values_are_scaled_back_is_part_of_a_run(scale: bool | str) -> None:
    """What is learnt from is the same; what an exported network gives is not."""
    assert tiny(dataset=X * 2, scale=scale).hash() != tiny(dataset=X, scale=scale).hash()


@pytest.mark.parametrize(
    "other",
    [
        X[::-1],
        X[:59],
        X[:, ::-1],
        X[:, :7],
        np.where(X > 0.9, 0.9, X),
        {"train": X[:42], "test": X[42:]},
        {"train": X[:20], "validation": X[20:40], "test": X[40:]},
        {"train": X[:30], "validation": X[30:40], "test": X[40:]},
    ],
)
def test_other_rows_and_other_parts_are_other_runs(other: object) -> None:
    assert tiny(dataset=other).hash() != tiny(dataset=X).hash()


def test_one_zero() -> None:
    negative = np.where(X > 0.5, X, -0.0)
    kinds = [np.where(X > 0.5, X, 0), negative, sparse.csr_array(negative)]
    assert len({tiny(dataset=rows).hash() for rows in kinds}) == 1


def test_items_of_several_types_lose_nothing() -> None:
    items = [[0, 1], [0.5, 0.25], [1, 0], [True, False]]

    class Mixed(Items):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> np.ndarray:
            return np.array(items[index])

    assert tiny(dataset=Mixed()).hash() == tiny(dataset=np.array(items)).hash()


def test_rows_are_loaded_without_an_experiment() -> None:
    data = load(X, seed=1, trial=0)
    assert torch.equal(data.train, tiny(dataset=X).load_data(1, 0).train)
    assert summary(X).size[:3] == (42, 60, 8)


# Parts


@pytest.mark.parametrize(
    "parts",
    [
        (X[:30], X[30:45], X[45:]),
        {"train": X[:30], "val": X[30:45], "test": X[45:]},
        {"x_train": X[:30], "x_valid": X[30:45], "x_test": X[45:], "y_train": np.arange(30)},
        {"test": torch.from_numpy(X[45:]), "dev": X[30:45], "train": pd.DataFrame(X[:30])},
        ((X[:30], np.arange(30)), (X[30:45], np.arange(15)), (X[45:], np.arange(15))),
    ],
)
def test_parts_are_kept_as_they_stand(parts: object) -> None:
    data = tiny(dataset=parts).load_data(3, 0)
    for split, expected in zip(splits.SPLITS, (X[:30], X[30:45], X[45:]), strict=True):
        np.testing.assert_array_equal(getattr(data, split), expected)


@pytest.mark.parametrize("parts", [(X[:40], X[40:]), {"train": X[:40], "test": X[40:]}])
def test_a_missing_validation_part_is_drawn_from_train_and_said(parts: object) -> None:
    e = tiny(dataset=parts)
    assert any("validation is drawn from train" in text for text in summary(e.dataset).notes)
    assert summary(e.dataset).size[:2] == (34, 60)
    one, other = (e.load_data(seed, 0) for seed in (1, 2))
    for data in (one, other):
        np.testing.assert_array_equal(data.test, X[40:])
        together = torch.cat([data.train, data.validation]).tolist()
        assert sorted(together) == sorted(X[:40].tolist())
    assert not torch.equal(one.validation, other.validation)


def test_pictures_of_three_colours_keep_their_shape() -> None:
    values = np.random.default_rng(0).random((9, 3, 2, 4))
    for rows, shape in ((values, (3, 2, 4)), (np.moveaxis(values, 1, 3), (2, 4, 3))):
        data = tiny(dataset=rows).load_data(1, 0)
        assert data.image_shape == shape
        assert data.dimension == 24
        drawn = splits.pictures(data.train.numpy(), shape)
        assert drawn.shape == (7, 2, 4, 3)
        assert drawn[0, 0, 0].tolist() in values.astype(np.float32)[:, :, 0, 0].tolist()


# What is refused


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (X * 255, "ndarray [60, 8]: row 0 holds 162.42523193359375; values must lie in [0, 1] ("),
        (np.where(X > 0.99, np.nan, X), "values must be finite; fill it in (column "),
        (np.where(X > 0.99, np.inf, X).reshape(60, 2, 4), "fill it in, or remove the row"),
        (Labelled(), "its items are dicts of image, label"),
        (X[0], "shape is (8,); it must be [rows, columns]"),
        (X[:2], "has fewer than 3 rows"),
        (X[:0], "no values"),
        (np.zeros((3, 2, 2, 2, 2)), "shape is (3, 2, 2, 2, 2)"),
        (X.astype(str), "they must be real numbers"),
        (X * 1j, "complex"),
        (np.zeros((5, 2), "i4,f4"), "they must be real numbers"),
        (np.array([[1, "a"]] * 3, object), "could not convert string to float: 'a'"),
        (np.ma.masked_less(X, 0.5), "masked values are gaps"),
        (torch.empty(3, 3, device="meta"), "Tensor [3, 3]: cannot be used as rows"),
        (pd.DataFrame({"a": [0, 1, 1], "b": list("xyz")}), "column 'b' holds 'x'; values must be"),
        (pd.DataFrame({"a": [0, 1, 1], "b": pd.Categorical(list("xyz"))}), "leave_out=b"),
        (
            pd.DataFrame({"a": pd.date_range("2026", periods=3)}),
            "column 'a' holds values of type",
        ),
        (pd.DataFrame({"a": pd.period_range("2026", periods=3)}), "holds Period("),
        (pd.DataFrame({"a": [1j, 0, 1]}, dtype=object), "row 0, column 'a' holds 1j"),
        (
            pd.DataFrame({"a": [10**400, 0, 1]}, dtype=object),
            "column 'a' holds no numbers: int too",
        ),
        ([[1, 2], [3]], "rows differ in length"),
        (pd.DataFrame({"a": [1j, 0, 1]}), "complex128"),
        (pd.DataFrame({"a": pd.array([1, None, 0], "Int64")}), "row 1, column 'a' is empty or NaN"),
        (pd.DataFrame(X[:, :2], columns=["a", "a"]), "column 'a' occurs twice"),
        (pd.DataFrame(), "holds no rows"),
        (pd.Series([0.5, 1, 0]), "shape is (3,)"),
        ((X, np.arange(60)), "the second has one dimension, as labels have; pass the rows alone"),
        ((X, X, X, X), "4 parts"),
        ({"data": X, "target": X}, "holds data, target; it must hold one array, or the parts"),
        ({"train": X, "test": X[:, :7]}, "splits differ in the shape of a row"),
        ({"train": X[:1], "test": X}, "train has fewer than 2 rows"),
        (
            {"train": pd.DataFrame(X, columns=NAMES), "test": pd.DataFrame(X)},
            "parts differ in their columns",
        ),
        (torch_data.DataLoader(Items()), "pass its .dataset"),
        (Stream(), "cannot be counted"),
        (None, "dataset=None is a NoneType; it must be str or a path, or an array"),
        (0.5, "dataset=0.5 is a float"),
        ({1, 2}, "must be str or a path, or an array"),
    ],
)
def test_what_holds_no_rows_is_refused_in_one_line(value: object, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are the match)
        Experiment(dataset=value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_with_named_fields_are_a_table() -> None:
    frame = pd.DataFrame(X, columns=NAMES)
    assert tiny(dataset=frame.to_records(index=False)).hash() == tiny(dataset=frame).hash()


def test_options_of_files_mean_nothing_in_memory() -> None:
    for options in ({"header": "yes"}, {"size": 3}, {"key": "a"}, {"colour": True}):
        with pytest.raises(ValueError, match=r"applies to .*, not to ndarray \[60, 8\]"):
            Experiment(dataset=X, **options)


def test_a_sparse_matrix_too_large_for_memory_is_refused_before_it_is_made_dense() -> None:
    huge = sparse.csr_matrix(([1.0], ([0], [0])), shape=(10**5, 10**8))
    with pytest.raises(ValueError, match=r"csr_matrix \[100000, 100000000\]: its values need"):
        Experiment(dataset=huge)


def test_columns_are_left_out_by_name_or_number() -> None:
    frame = pd.DataFrame(X, columns=NAMES).assign(species="setosa")
    e = tiny(dataset=frame, leave_out="species,a")
    assert e.dimension == 7
    assert summary(e.dataset).columns == tuple(NAMES[1:])
    assert e.hash() == tiny(dataset=X, leave_out="0").hash() == tiny(dataset=X[:, 1:]).hash()
    assert e.replace(leave_out="species").dimension == 8
    with pytest.raises(ValueError, match="did you mean species"):
        e.replace(leave_out="specis")


def test_users_and_items_in_a_frame_are_interactions() -> None:
    pairs = pd.DataFrame({"user": [1, 1, 2, 3, 4], "item": [1, 2, 2, 1, 2]})
    assert tiny(dataset=pairs).load_data(1, 0).held_out is not None


# With the run


def forget() -> None:
    """As another process would begin."""
    datasets.summaries.clear()
    datasets._read.cache_clear()
    datasets._fixed_dataset.cache_clear()
    gc.collect()


def test_rows_stay_with_the_runs_that_learn_from_them(tmp_path: Path) -> None:
    rows = X.copy()
    e = tiny(dataset=rows, epochs=2)
    expected = e.load_data(1, 0).train.clone()
    rows[:] = 0  # the caller goes on with their array
    done = run(e, 1, out=tmp_path, progress=False)
    run(e.replace(learning_rate=0.5), 1, out=tmp_path, progress=False)
    assert len(list(tmp_path.glob("rows-*.npz"))) == 1  # of two runs
    with np.load(next(tmp_path.glob("rows-*.npz"))) as kept:
        np.testing.assert_array_equal(kept["data"], X)
    name = str(e.dataset)
    assert done.config["experiment"]["dataset"] == name
    del e, rows
    forget()
    assert name not in HELD  # as in another process
    again = Run(done.folder)
    assert torch.equal(again.data().train, expected)
    assert again.experiment.hash(seed=1) == done.folder.name
    more = run(again.experiment, 2, out=tmp_path, progress=False)
    assert more.folder == done.folder
    assert len(more.trials) == 2


def test_a_run_read_without_its_rows_says_where_they_were(tmp_path: Path) -> None:
    done = run(tiny(dataset=X[:30], epochs=1), 1, out=tmp_path, progress=False)
    (path,) = tmp_path.glob("rows-*.npz")
    path.rename(tmp_path / "elsewhere.npz")
    forget()
    with pytest.raises(ValueError, match=r"rows-\w+\.npz: the rows .* are not there"):
        Run(done.folder).data()
    np.savez(path, data=X)
    forget()
    with pytest.raises(ValueError, match="damaged: it holds other rows than its name says"):
        Run(done.folder).data()
    path.unlink()
    (tmp_path / "elsewhere.npz").rename(path)
    forget()
    assert len(Run(done.folder).data().train) == 22


def test_rows_of_a_training_that_is_saved_are_kept(tmp_path: Path) -> None:
    e = tiny(dataset=X[:33], epochs=2)
    states = [(state, history_rows(state)) for state in evolve(e, 1, 7)]
    done = save_training(tmp_path, states[-1][0], [rows for _, rows in states], 1.0)
    assert done.config["experiment"]["dataset"] == e.dataset
    assert (tmp_path / f"{e.dataset}.npz").exists()


def test_workers_are_given_a_path_and_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, packed = [], workers.packed

    def counted(spec: RunSpec, job: range) -> bytes:
        found = packed(spec, job)
        sizes.append(len(found))
        _, known, *_ = cloudpickle.loads(found)
        assert {key[0] for key in known} == {e.dataset}  # so that they need not be read again
        return found

    monkeypatch.setattr(workers, "packed", counted)
    e = tiny(dataset=np.tile(X, (20, 1)), epochs=2)
    two = run(e, 2, out=tmp_path / "two", workers=2, progress=False)
    assert max(sizes) < 20_000 < 20 * X.nbytes
    one = run(e, 2, out=tmp_path / "one", workers=1, progress=False)
    pd.testing.assert_frame_equal(one.history, two.history)


def test_a_grid_looks_through_rows_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked, content_of = [], memory.content_of
    monkeypatch.setattr(memory, "content_of", lambda *g: (looked.append(1), content_of(*g))[1])
    rates = {"learning_rate": [0.1, 0.2]}
    found = grid("canonical", dataset=X, epochs=1, model="4-2", **rates)
    assert len(looked) == 1
    study = sweep(found, 1, out=tmp_path, progress=False)
    assert set(study.results.label) == {"0.1", "0.2"}
    both = grid("canonical", dataset=[X, X[:30]], **rates)
    assert list(both) == [f"{named(rows)} {rate}" for rows in (X, X[:30]) for rate in (0.1, 0.2)]


def test_rows_go_when_nobody_needs_them() -> None:
    e = tiny(dataset=X[:31])
    name = str(e.dataset)
    assert Experiment(dataset=name).dataset is e.dataset
    del e
    gc.collect()
    assert name not in HELD
    with pytest.raises(ValueError, match="neither a built-in name nor an existing file"):
        load(name, seed=0, trial=0)


# Frames of other packages


def test_polars_and_arrow() -> None:
    pa = pytest.importorskip("pyarrow")
    assert (
        tiny(dataset=pa.table(dict(zip(NAMES, X.T, strict=True)))).hash() == tiny(dataset=X).hash()
    )
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(X, schema=NAMES)
    for each in (frame, frame.lazy()):
        assert tiny(dataset=each).hash() == tiny(dataset=X).hash()
    with pytest.raises(ValueError, match="leave_out=s"):
        tiny(dataset=frame.with_columns(s=pl.lit("x")))


def test_anndata(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    anndata.settings.allow_write_nullable_strings = True
    for number, matrix in enumerate((X, sparse.csr_matrix(X), sparse.csc_matrix(X))):
        cells = anndata.AnnData(matrix)
        cells.var_names = NAMES
        cells.write_h5ad(tmp_path / f"{number}.h5ad")
        for each in (cells, tmp_path / f"{number}.h5ad"):
            e = tiny(dataset=each)
            assert e.hash() == tiny(dataset=X).hash()
            assert summary(e.dataset).columns == tuple(NAMES)
            assert e.replace(leave_out="a,b").dimension == 6


def test_hugging_face(tmp_path: Path) -> None:
    hub = pytest.importorskip("datasets")
    hub.disable_progress_bars()
    rows = hub.Dataset.from_dict({"x": X.tolist(), "label": list(range(60))})
    rows.save_to_disk(tmp_path / "rows")
    parts = hub.DatasetDict({"train": rows.select(range(40)), "test": rows.select(range(40, 60))})
    parts.save_to_disk(tmp_path / "parts")
    for each in (rows, tmp_path / "rows", hub.Dataset.from_pandas(pd.DataFrame(X, columns=NAMES))):
        assert tiny(dataset=each).hash() == tiny(dataset=X).hash()
    for each in (parts, tmp_path / "parts"):
        assert tiny(dataset=each).hash() == tiny(dataset=(X[:40], X[40:])).hash()
