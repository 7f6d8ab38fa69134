"""The estimator: what scikit-learn asks of one, and that it is an ordinary run underneath."""

from __future__ import annotations

import copy
import gc
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from evoae import Autoencoder, Experiment, Run, run
from evoae.study.runs import exports
from evoae.study.runs.estimator import epochs_of

WINE = load_wine().data
FRAME = load_wine(as_frame=True).data


def quick(**parameters):
    return Autoencoder(**({"epochs": 2, "random_state": 1, "model": "8-3"} | parameters))


@pytest.fixture(scope="module")
def fitted():
    return quick(epochs=20).fit(WINE)


def bits(model, rows=WINE):
    return model.transform(rows).tobytes() + model.reconstruct(rows).tobytes()


def test_scikit_learn_finds_nothing_wrong(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it, one check is skipped
    results = check_estimator(Autoencoder(epochs=1))
    assert len(results) > 40
    assert {result["status"] for result in results} == {"passed"}


# -- in the units of the rows ---------------------------------------------------------------------


def test_codes_and_reconstructions_are_those_of_the_modules(fitted):
    code = fitted.transform(WINE)
    assert code.shape == (178, 3)
    np.testing.assert_array_equal(fitted.inverse_transform(code), fitted.reconstruct(WINE))
    with torch.no_grad():
        by_module = fitted.encoder_(torch.from_numpy(WINE))
        np.testing.assert_allclose(by_module, code, atol=1e-5)
        rows = fitted.decoder_(by_module).numpy()
    np.testing.assert_allclose(rows, fitted.reconstruct(WINE), rtol=1e-4)


def test_scores_are_differences_in_the_units_of_the_rows(fitted):
    gaps = np.abs(WINE - fitted.reconstruct(WINE))
    np.testing.assert_allclose(fitted.score_samples(WINE), gaps.mean(1))
    assert fitted.score(WINE) == pytest.approx(-gaps.mean())
    widths = np.ptp(WINE, axis=0)
    np.testing.assert_allclose(fitted.decision_function(WINE), (gaps / widths).mean(1))


def test_units_change_neither_codes_nor_anomaly_scores(fitted):
    """A power of two leaves all bits as they are."""
    other = WINE * 2.0 ** np.arange(-6, 7)
    model = quick(epochs=20).fit(other)
    np.testing.assert_array_equal(model.transform(other), fitted.transform(WINE))
    np.testing.assert_array_equal(model.decision_function(other), fitted.decision_function(WINE))


def test_unusual_rows_have_higher_scores():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(200, 1)) * np.ones(8) + 0.05 * rng.normal(size=(200, 8))
    strange = 2 * rng.normal(size=(40, 8))
    model = Autoencoder(target_sparsity=0.5, epochs=40, random_state=0).fit(normal[:150])
    rows = np.concatenate([normal[150:], strange])
    truth = np.repeat([0, 1], [50, 40])
    assert roc_auc_score(truth, model.score_samples(rows)) > 0.9
    assert roc_auc_score(truth, model.decision_function(rows)) > 0.9


def test_constant_columns_and_values_beyond_the_range_of_fit():
    rows = np.column_stack([np.full(12, 7.0), np.arange(12), np.zeros(12)])
    model = quick().fit(rows)
    found = model.reconstruct([[9.0, 1e6, -3.0]])
    assert found[0, [0, 2]].tolist() == [7, 0]
    assert np.isfinite(model.score_samples([[9.0, 1e6, -3.0]])).all()


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (10, 1), (3, 40)])
def test_tiny_tables(shape):
    rows = np.random.default_rng(0).normal(size=shape)
    model = quick().fit(rows)
    assert model.reconstruct(rows).shape == shape
    assert model.history_.epoch.nunique() == 2


# -- kinds of rows --------------------------------------------------------------------------------


def test_the_same_rows_of_other_types_give_the_same_bits():
    rows = np.round(WINE)  # whole numbers, which all of these hold
    expected = bits(quick().fit(rows), rows)
    for other in (
        pd.DataFrame(rows),
        rows.tolist(),
        np.asfortranarray(rows),
        rows.astype(">i4"),
        rows.astype(object),
        torch.from_numpy(rows).requires_grad_(),
        torch.from_numpy(rows).to_sparse(),
        torch.utils.data.TensorDataset(torch.from_numpy(rows)),
        sparse.coo_matrix(rows),
        pd.DataFrame(rows).astype("Int64"),
        pd.DataFrame(rows).astype(pd.SparseDtype(float, 0)),
        pd.DataFrame(rows).to_dict("records"),
    ):
        assert bits(quick().fit(other), other) == expected


def test_float32_stays_float32():
    rows = WINE.astype(np.float32)
    model = quick().fit(rows)
    assert model.transform(rows).dtype == model.reconstruct(rows).dtype == np.float32
    assert model.transform(WINE).dtype == model.inverse_transform(np.ones((1, 3))).dtype == float
    np.testing.assert_allclose(model.transform(rows), model.transform(rows.astype(float)), 1e-5)


def test_frames_in_and_out():
    model = quick().fit(FRAME).set_output(transform="pandas")
    assert list(model.feature_names_in_) == list(FRAME)
    assert list(model.transform(FRAME)) == list(model.get_feature_names_out())
    assert model.get_feature_names_out()[0] == "autoencoder0"
    assert isinstance(copy.deepcopy(model).transform(FRAME), pd.DataFrame)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(FRAME.rename(columns={"ash": "dust"}))


def test_codes_of_another_width_are_refused(fitted):
    with pytest.raises(ValueError, match="Z has 4 columns; the code has 3"):
        fitted.inverse_transform(np.ones((2, 4)))


# -- an ordinary run ------------------------------------------------------------------------------


def test_it_is_the_run_of_its_settings(fitted):
    assert isinstance(fitted.run_, Run)
    part = WINE[::7]
    settings = {"model": "8-3", "epochs": 20, "scale": "columns", "prune_biases": True}
    rows = {"train": WINE, "validation": part, "test": part}
    same = run(Experiment.preset("frontier", dataset=rows, **settings), seed=1, progress=False)
    pd.testing.assert_frame_equal(same.history, fitted.history_, check_exact=True)
    assert same.folder.name == fitted.run_.folder.name
    parameters = [*fitted.encoder_.parameters(), *fitted.decoder_.parameters()]
    assert fitted.n_parameters_ == sum(each.numel() for each in parameters)
    zeros = sum(int((each == 0).sum()) for each in parameters)
    assert fitted.sparsity_ == pytest.approx(zeros / fitted.n_parameters_)
    assert fitted.sparsity_ == pytest.approx(0.9, abs=1 / fitted.n_parameters_)


def test_its_folder_goes_with_it_or_stays_where_it_should(tmp_path):
    model = quick().fit(WINE)
    folder = model.run_.folder
    assert folder.exists()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del model
        gc.collect()
    assert not warned
    assert not folder.exists()
    model = quick(settings={"out": tmp_path}).fit(WINE)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    again = quick(settings={"out": tmp_path}).fit(WINE)  # it is found, not computed
    assert (
        again.run_.folder == model.run_.folder == next(iter(tmp_path.glob("*/config.json"))).parent
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == times


def test_copies_need_no_folder(tmp_path):
    model = quick().fit(WINE)
    before, name = bits(model), model.run_.folder.name
    joblib.dump(model, tmp_path / "model")
    copied = copy.deepcopy(model)
    del model
    gc.collect()
    for other in (joblib.load(tmp_path / "model"), copied):
        assert bits(other) == before
        assert other.run_.folder.name == name
        assert len(other.history_) == 2
        assert other.run_.trials.best_preserved[0] == 1 - other.sparsity_
        exported = other.export(tmp_path / "small.safetensors")
        assert exported.difference < 1e-5, exported.reason  # on random rows
    stored = (tmp_path / "model").read_bytes()
    assert b"encoder.0.weight" in stored  # of safetensors
    assert b"torch._utils" not in stored


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_an_exported_file_takes_and_gives_the_units_of_the_rows(fitted, suffix, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    exported = fitted.export(str(tmp_path / f"small{suffix}"))
    assert exported.difference < 1e-5
    rows = torch.from_numpy(WINE.astype(np.float32))
    found = exports.FORMATS[suffix][1](exported.path)(rows).detach().numpy()
    np.testing.assert_allclose(found, fitted.reconstruct(WINE), rtol=1e-4)
    with pytest.raises(ValueError, match="cannot export to the suffix"):
        fitted.export(tmp_path / "small.pdf")


def test_epochs_follow_the_number_of_rows():
    assert epochs_of(1797, 5) == 139  # 50,000 steps
    assert epochs_of(20, 5) == 100
    assert epochs_of(2, 5) == epochs_of(60_000, 5) == epochs_of(10**7, 5) == 20
    small = Autoencoder(random_state=0).fit(WINE[:6])
    assert small.run_.setting("epochs") == 30
    assert Autoencoder(settings={"epochs": 3}).fit(WINE).run_.setting("epochs") == 3


# -- randomness -----------------------------------------------------------------------------------


def test_a_random_state_decides_all_bits():
    first = bits(quick().fit(WINE))
    assert bits(quick(n_jobs=2).fit(WINE)) == bits(quick().fit(WINE)) == first
    assert bits(quick(random_state=np.int64(1)).fit(WINE)) == first
    assert bits(quick(random_state=2).fit(WINE)) != first
    drawn = [bits(quick(random_state=np.random.RandomState(5)).fit(WINE)) for _ in range(2)]
    assert drawn[0] == drawn[1] != first
    one = quick(random_state=np.random.RandomState(5))
    assert bits(one.fit(WINE)) == drawn[0] != bits(one.fit(WINE))  # it has moved on
    assert bits(quick(random_state=None).fit(WINE)) != bits(quick(random_state=None).fit(WINE))


def test_a_row_is_computed_as_among_others(fitted):
    rows = np.tile(WINE, (20, 1))  # several blocks
    one_by_one = np.concatenate([fitted.transform(row[None]) for row in WINE])
    np.testing.assert_allclose(fitted.transform(rows)[-178:], one_by_one, rtol=1e-12, atol=1e-12)
    threads = clone(fitted).set_params(n_jobs=2).fit(WINE)
    np.testing.assert_array_equal(threads.transform(rows), fitted.transform(rows))


# -- among other estimators -----------------------------------------------------------------------


def test_in_pipelines_and_column_transformers():
    labels = load_wine().target
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression())
    assert 0 <= pipeline.fit(WINE, labels).score(WINE, labels) <= 1
    there_and_back = make_pipeline(StandardScaler(), quick()).fit(WINE)
    assert there_and_back.inverse_transform(there_and_back.transform(WINE)).shape == WINE.shape
    columns = ColumnTransformer(
        [("few", quick(), ["ash", "hue"]), ("as_is", "passthrough", ["proline"])]
    )
    found = columns.set_output(transform="pandas").fit_transform(FRAME)
    assert list(found) == [*(f"few__autoencoder{n}" for n in range(3)), "as_is__proline"]


def test_a_grid_over_every_operator_and_many_sparsities():
    """The preset's settings that an operator cannot follow are left out."""
    operators = ["none", "random", "magnitude", "wanda", "apoz", "conjunctive", "obd", "rigl"]
    grid = {"operator": operators, "target_sparsity": [0.5, 0.97]}
    once = {"cv": [(range(100), range(100, 178))], "error_score": "raise"}
    search = GridSearchCV(quick(epochs=1), grid, **once).fit(WINE)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.run_.setting("operator") == search.best_params_["operator"]
    schedules = {
        "schedule": ["cubic", "one-shot", "exponential"],
        "preset": ["frontier", "lipi-ae-s"],
    }
    GridSearchCV(quick(epochs=1), schedules, **once).fit(WINE)


def test_settings_that_are_given_are_not_left_out():
    with pytest.raises(ValueError, match="allocation=global ranks all layers"):
        quick(operator="apoz", settings={"allocation": "global"}).fit(WINE)
    with pytest.raises(ValueError, match=r"drop_fraction=0\.3 needs"):
        quick(schedule="exponential", settings={"drop_fraction": 0.3}).fit(WINE)
    with pytest.raises(ValueError, match=r"target_sparsity=0\.97 cannot be reached"):
        quick(target_sparsity=0.97, settings={"prune_biases": False}).fit(WINE)


def test_threads_give_the_numbers_of_one():
    """That another process does, too, is among the tests of the notebook `09_your_data`."""
    one = cross_val_score(quick(), WINE, cv=2)
    with parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(cross_val_score(quick(), WINE, cv=2), one)


def drop_all_but_first(layer, rng, settings):
    keep = torch.zeros_like(layer.weight, dtype=torch.bool)
    keep[:, :1] = True
    return keep, torch.ones_like(layer.bias, dtype=torch.bool)


def test_an_operator_of_ones_own_survives_being_copied(tmp_path):
    always = {"schedule": "fixed", "settings": {"probability": 1.0}}
    model = quick(operator=drop_all_but_first, **always).fit(WINE)
    assert model.sparsity_ > 0.5
    joblib.dump(model, tmp_path / "model")
    assert bits(joblib.load(tmp_path / "model")) == bits(model)


# -- wrong parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "frontie"}, "unknown preset 'frontie' (did you mean frontier?)"),
        ({"operator": "obdd"}, "unknown operator 'obdd' (did you mean obd?)"),
        ({"schedule": "cubik"}, "unknown schedule 'cubik' (did you mean cubic?)"),
        ({"model": "big"}, "unknown model 'big'"),
        ({"target_sparsity": 1.5}, "target_sparsity=1.5 must lie in [0, 1]"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"epochs": 2.5}, "epochs=2.5 is a float; it must be int"),
        ({"learning_rate": -1}, "learning_rate=-1.0 must not be negative"),
        ({"settings": {"epoch": 3}}, "unknown setting 'epoch' (did you mean epochs?)"),
        ({"settings": {"epochs": 3}}, "epochs is given twice"),
        ({"settings": {"dataset": "digits"}}, "settings cannot hold dataset"),
        ({"settings": {"leave_out": "0"}}, "settings cannot hold leave_out"),
        ({"settings": {"size": "8"}}, "X: size=8 applies to folders of pictures, not to X"),
        (
            {"settings": {"scale": False}},
            "X: row 0, column 0 holds 14.23; with scale=False",
        ),
        ({"settings": {1: 2}}, "settings holds 1, which is not a setting's name"),
        ({"settings": {"preset": "canonical"}}, "unknown setting 'preset'"),
        ({"settings": {"out": 5}}, "out=5 cannot be the name of a folder"),
        ({"settings": ["epochs"]}, "settings=['epochs'] must be a dict"),
        ({"settings": {"device": "gpu"}}, "unknown device 'gpu'"),
        ({"settings": {"device": None}}, "unknown device None"),
        ({"random_state": -1}, "random_state=-1 must be None"),
        ({"random_state": "one"}, "random_state='one' must be None"),
        ({"n_jobs": 0}, "n_jobs=0 must be None or a whole number other than 0"),
        ({"n_jobs": "all"}, "n_jobs='all' must be None or a whole number"),
        ({"verbose": "x"}, "verbose='x' must be 0 (silent) or 1"),
        ({"verbose": -1}, "verbose=-1 must be 0 (silent) or 1"),
        ({"verbose": None}, "verbose=None must be 0 (silent) or 1"),
    ],
)
def test_wrong_parameters_are_refused_by_fit_in_one_line(wrong, message):
    model = quick(**wrong)
    assert model.get_params().items() >= wrong.items()
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        model.fit(WINE)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (WINE[:1], r"1 sample\(s\).* minimum of 2 is required by Autoencoder"),
        (WINE.reshape(-1, 13, 1), "X: Found array with dim 3.* Reshape your data"),
        (np.where(WINE > 1000, np.nan, WINE), "Input X contains NaN: row 0, column 12"),
        (np.where(WINE > 1000, np.inf, WINE), "Input X contains infinity: row 0, column 12"),
        (
            sparse.csr_array(np.where(WINE > 1000, np.nan, WINE)),
            "Input X contains NaN: row 0, column 12",
        ),
        (FRAME.replace({"ash": {2.43: np.inf}}), "Input X contains infinity: row 0, column 'ash'"),
        (WINE + 1j, "Complex data not supported"),
        (np.array(["2026"] * 4, "M8[s]").reshape(2, 2), r"X: values of type datetime64\[s\]"),
        (np.ma.masked_greater(WINE, 1000), "X: masked values are gaps"),
        ([["a", "b"], ["c", "d"]], "X: values of type <U1"),
        ([[1, 2], [3]], "X: rows differ in length"),
        ([[10**400, 1], [0, 1]], "X: int too large"),
        ([[1e308, 0], [-1e308, 1]], "cannot be scaled"),
        ((row for row in WINE), "X: <generator .* must be an array, a list of rows"),
        ({"train": WINE, "test": WINE}, "must be an array"),
        ("digits", "X: 'digits' must be an array"),
        (torch.empty(4, 2, device="meta"), "X: Cannot copy out of meta tensor"),
        (torch.utils.data.DataLoader(WINE), "X: a DataLoader shuffles"),
        (FRAME.assign(ash=pd.Timestamp("2026")), "X: column 'ash' holds values of type"),
        (FRAME.assign(ash=pd.Timedelta("1s")), "X: column 'ash' holds values of type"),
        (FRAME.assign(ash=pd.Period("2026")), "X: row 0, column 'ash' holds Period"),
        (FRAME.assign(ash=1j), "X: column 'ash' holds values of type complex128"),
        (FRAME.assign(ash="x"), "X: row 0, column 'ash' holds 'x'; .*encode the column, or drop"),
        (FRAME.assign(ash=pd.Categorical(["x"] * 178)), "X: row 0, column 'ash' holds 'x'"),
        (FRAME.assign(ash=[[1, 2]] * 178), r"X: row 0, column 'ash' holds \[1, 2\]"),
        (FRAME.assign(ash=pd.array([1, None] * 89, "Int64")), "X: row 1, column 'ash' is empty"),
        (FRAME.rename(columns={"ash": "hue"}), "X: column 'hue' occurs twice"),
        (FRAME[[]], r"0 feature\(s\)"),
        (FRAME[:0], r"0 sample\(s\)"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, message):
    with pytest.raises(ValueError, match=message) as error:
        quick().fit(rows)
    assert len(str(error.value).splitlines()) == 1


def test_progress_is_shown_where_it_is_asked_for(capfd):
    quick().fit(WINE)
    assert capfd.readouterr().err == ""
    quick(verbose=1).fit(WINE)
    assert "epochs" in capfd.readouterr().err
