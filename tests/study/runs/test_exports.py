"""Exported autoencoders: the original's outputs in fewer numbers, or one line and no file."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, refused_command
from safetensors import safe_open
from torch import nn

from evoae import Experiment, run
from evoae.cli import main
from evoae.networks import population
from evoae.networks.compaction import Select
from evoae.study.runs import exports
from evoae.study.runs.exports import export
from evoae.study.runs.files import digest, read_json, write_json
from evoae.study.runs.run import Run

PRUNED = TINY | {
    "operator": "magnitude",
    "schedule": "cubic",
    "target_sparsity": 0.5,
    "pruned_weights": "masked",
    "probability": 1.0,
}
SUFFIXES = [".safetensors", ".onnx"]


@pytest.fixture(scope="module", params=["plain", "variational"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = PRUNED | {"kind": request.param, "cells": 3}
    if request.param == "variational":
        settings["loss"] = "bce"
    experiment = Experiment.preset("lipi-ae-s", **settings)
    out = tmp_path_factory.mktemp("out")
    found = run(experiment, 2, workers=1, out=out, progress=False)
    assert found.trials.macs.min() > 0  # something is left to be compared
    return found


def run_on(rows: Path, out: Path, trials: int = 1, **settings: object) -> Run:
    e = Experiment.preset("canonical", **PRUNED | {"dataset": rows} | settings)
    return run(e, trials, workers=1, out=out, progress=False)


def needs_onnx(suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")


def reconstructions(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What the file makes of x, without evoae where that is possible."""
    if path.suffix == ".safetensors":
        with torch.no_grad():
            return nn.Sequential(*exports.load(path))(x)
    import onnxruntime

    found = onnxruntime.InferenceSession(path).run(["reconstruction"], {"x": x.numpy()})
    return torch.from_numpy(found[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("cell", [None, 0, 2])
def test_files_give_the_outputs_of_the_original(
    trained: Run, suffix: str, cell: int | None, tmp_path: Path
) -> None:
    needs_onnx(suffix)
    path = tmp_path / f"small{suffix}"
    done = export(trained, path, 1, cell)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert done.cell == (trained.result["trials"][1]["best_cell"] if cell is None else cell)
    assert done.difference <= 1e-6
    assert "tensor(" not in repr(done)
    assert done.reason is None
    x = trained.data(1).test
    with torch.no_grad():
        expected = nn.Sequential(*trained.best(1, done.cell))(x)
    found = reconstructions(path, x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5
    assert (reconstructions(path, x[:1]) - expected[:1]).abs().max() <= 1e-5


def test_onnx_gives_the_code_and_says_what_it_is_of(trained: Run, tmp_path: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    done = export(trained, tmp_path / "small.onnx", 1)
    x = trained.data(1).test
    encoder, _ = trained.best(1, compact=True)
    session = runtime.InferenceSession(done.path)
    (code,) = session.run(["code"], {"x": x.numpy()})
    with torch.no_grad():
        assert np.abs(code - encoder(x).numpy()).max() <= 1e-5
    (entry,) = onnx.load(done.path).metadata_props
    about = json.loads(entry.value)
    assert (about["run"], about["trial"], about["cell"]) == (trained.folder.name, 1, done.cell)
    row = trained.result["trials"][1]
    for name in ("effective_parameters", "macs", "compact_parameters"):
        assert about[name] == row[name]


def test_best_may_be_compact_and_of_another_cell(trained: Run) -> None:
    x = trained.data(0).test
    for cell in (None, 0, 1, 2):
        whole, small = trained.best(0, cell), trained.best(0, cell, compact=True)
        assert isinstance(small[0][0], Select)
        with torch.no_grad():
            difference = nn.Sequential(*whole)(x) - nn.Sequential(*small)(x)
        assert difference.abs().max() <= 1e-6
    parameters = sum(p.numel() for side in trained.best(0, compact=True) for p in side.parameters())
    assert parameters == trained.result["trials"][0]["compact_parameters"]
    assert parameters < sum(p.numel() for side in trained.best(0) for p in side.parameters())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_of_which_nothing_is_left(suffix: str, tmp_path: Path) -> None:
    needs_onnx(suffix)
    experiment = Experiment.preset("canonical", **PRUNED | {"target_sparsity": 1.0})
    done = run(experiment, 1, workers=1, out=tmp_path / "out", progress=False)
    path = tmp_path / f"small{suffix}"
    assert export(done, path).compacted.sizes["macs"] == 0
    assert (reconstructions(path, torch.rand(3, 12)) == 0.5).all()


def test_the_command_prints_sizes_and_the_path_last(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.safetensors"
    assert main(["export", str(trained.folder), "--trial", "1", "--cell", "2", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "trial 1, cell 2"
    assert printed[-1] == str(path)
    whole = trained.population.parameters
    assert any(line.split() == ["parameters", f"{whole}"] for line in printed)


REFUSED = [
    (["--trial", "7", "small.safetensors"], "trial 7 is not in this run; it holds 0 to 1"),
    (["--trial", "-1", "small.safetensors"], "trial -1 is not in this run"),
    (["--cell", "3", "small.safetensors"], "cell 3 is not in this run; it holds 0 to 2"),
    (["small.pt"], "cannot export to the suffix '.pt'; choose one of .onnx, .safetensors"),
    (["small.safetensor"], "did you mean .safetensors?"),
    (["small"], "cannot export to the suffix ''"),
    (["nowhere/small.safetensors"], "there is no folder"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    trained: Run, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words[:-1], str(tmp_path / words[-1])]
    assert said in refused_command(["export", str(trained.folder), *words], capsys)
    assert not list(tmp_path.iterdir())


def test_no_run_and_no_package_are_refused_before_anything_is_done(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["export", str(tmp_path / "none"), str(tmp_path / "small.safetensors")]
    assert "is not a folder; name that of a run" in refused_command(words, capsys)
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = ["export", str(trained.folder), str(tmp_path / "small.onnx")]
    assert "pip install 'evoae[export]'" in refused_command(words, capsys)
    assert not list(tmp_path.iterdir())


def test_a_file_that_gives_other_outputs_is_not_left_behind(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(small, about, path):
        bias = small.layers[-1].bias
        layers = [*small.layers[:-1], dataclasses.replace(small.layers[-1], bias=bias + 1e-3)]
        exports.write_safetensors(dataclasses.replace(small, layers=layers), about, path)

    form = wrong, exports.read_safetensors
    monkeypatch.setitem(exports.FORMATS, ".safetensors", form)
    path = tmp_path / "small.safetensors"
    path.write_bytes(b"another")
    assert main(["export", str(trained.folder), str(path)]) == 1
    assert "outputs differ by" in capsys.readouterr().err
    assert path.read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnxruntime_it_is_said_that_nothing_was_compared(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "small.onnx"
    assert main(["export", str(trained.folder), str(path)]) == 0
    assert "not compared: onnxruntime is not installed" in capsys.readouterr().out
    assert path.exists()


@pytest.mark.parametrize("scale", [True, "columns"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("large", [False, True])
def test_exports_take_and_give_values_as_they_stand_in_the_file(
    suffix: str, scale: bool | str, large: bool, tmp_path: Path
) -> None:
    needs_onnx(suffix)
    raw = np.random.default_rng(0).normal(size=(60, 5)) * [1, 30, 1e4, 1e-3, 0]
    raw += [0, -5, 3e4, 0, 1_600_000_001 if large else 7]  # float32 cannot hold the first of these
    np.savetxt(tmp_path / "rows.csv", raw, delimiter=";", header="a;b;c;d;e", comments="")
    done = run_on(tmp_path / "rows.csv", tmp_path / "out", scale=scale)
    assert done.config["columns"] == list("abcde")
    assert len(done.config["scaling"]["minimum"]) == (5 if scale == "columns" else 1)
    found = export(done, tmp_path / f"small{suffix}")
    assert found.difference <= 1e-5
    kind = np.float64 if large and scale == "columns" else np.float32
    scaled = torch.from_numpy(done.scaling.scaled(raw.astype(kind)))
    with torch.no_grad():
        expected = done.scaling.raw(nn.Sequential(*done.best())(scaled).numpy())
    given = reconstructions(found.path, torch.from_numpy(raw.astype(kind))).numpy()
    assert given.dtype == kind
    span = done.scaling.divisor
    assert (np.abs(given - expected) / span).max() <= (1e-5 if kind is np.float64 else 1e-3)
    if scale == "columns":
        assert (given[:, 4] == raw[0, 4].astype(kind)).all()  # a constant comes back as it was
    assert metadata(found.path)["scaling"] == done.config["scaling"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("unit", [1e300, 1e39, 1e-42, 1e-300])
def test_values_beyond_the_range_of_float32_come_back(
    unit: float, suffix: str, tmp_path: Path
) -> None:
    needs_onnx(suffix)
    raw = np.random.default_rng(0).random((30, 3)) * [unit, 1, 1]
    np.save(tmp_path / "rows.npy", raw)
    done = run_on(tmp_path / "rows.npy", tmp_path / "out", scale="columns")
    found = export(done, tmp_path / f"small{suffix}")
    with torch.no_grad():
        scaled = nn.Sequential(*done.best())(torch.from_numpy(done.scaling.scaled(raw))).numpy()
    given = reconstructions(found.path, torch.from_numpy(raw)).numpy()
    assert np.abs((given - done.scaling.raw(scaled)) / done.scaling.divisor).max() <= 1e-5


def metadata(path: Path) -> dict[str, object]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["evoae"])
    (entry,) = pytest.importorskip("onnx").load(path).metadata_props
    return json.loads(entry.value)


def test_what_is_not_scaled_is_exported_without_a_scaling(trained: Run, tmp_path: Path) -> None:
    done = export(trained, tmp_path / "small.safetensors", 1)
    assert "scaling" not in metadata(done.path)
    assert trained.scaling is None
    assert trained.config["scaling"] is None
    encoder, decoder = exports.load(done.path)
    assert isinstance(encoder[0], Select)
    assert isinstance(decoder[-1], nn.Sigmoid)


@pytest.mark.parametrize("scale", [False, "columns"])
def test_a_run_whose_data_are_gone_can_be_exported(scale: bool | str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npy"
    raw = np.random.default_rng(0).random((40, 8), np.float32) * (90 if scale else 1)
    np.save(rows, raw)
    done = run_on(rows, tmp_path / "out", scale=scale)
    rows.unlink()
    found = export(Run(done.folder), tmp_path / "small.safetensors")
    assert found.difference is None
    assert "rows.npy" in found.reason
    scaling = done.scaling
    with torch.no_grad():
        given = torch.from_numpy(scaling.scaled(raw) if scaling else raw)
        expected = nn.Sequential(*done.best())(given).numpy()
    expected = scaling.raw(expected) if scaling else expected
    gap = np.abs(reconstructions(found.path, torch.from_numpy(raw)).numpy() - expected)
    assert gap.max() <= (1e-2 if scale else 1e-6)


def test_a_run_of_before_that_says_nothing_of_its_scaling_is_read_and_grows(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    np.savetxt(rows, np.random.default_rng(0).random((40, 8)) * 90, delimiter=",")
    done = run_on(rows, tmp_path / "out", scale=True)
    config = read_json(done.folder / "config.json")
    for name in ("header", "leave_out"):
        del config["experiment"][name]
    for name in ("scaling", "columns"):
        del config[name]
    write_json(done.folder / "config.json", config)
    result = read_json(done.folder / "result.json")
    result["files"]["config.json"] = digest(done.folder / "config.json")
    write_json(done.folder / "result.json", result)
    old = Run(done.folder)
    assert old.scaling.as_json() == done.scaling.as_json()
    assert export(old, tmp_path / "small.safetensors").difference <= 1e-5
    grown = run_on(rows, tmp_path / "out", trials=2, scale=True)
    assert (grown.folder, grown.numbers) == (done.folder, [0, 1])


def test_a_run_is_the_same_after_its_file_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).random((40, 8)))
    monkeypatch.chdir(tmp_path)
    first = run_on(Path("rows.npy"), Path("out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(first.data(0).test) == 6  # read where it lies, wherever one stands
    rows.rename(tmp_path / "elsewhere" / "renamed.npy")
    again = run_on(Path("renamed.npy"), tmp_path / "out", trials=2)
    assert again.folder == first.folder
    assert again.numbers == [0, 1]


def test_other_files_are_no_exported_autoencoders(trained: Run, tmp_path: Path) -> None:
    population.save(trained.population, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights at all")
    for name in ("weights", "text", "missing"):
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(ValueError, match=str(path)):
            exports.load(path)
