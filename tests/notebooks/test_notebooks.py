"""Every notebook is executed once, at a tiny scale, and its recorded results are read back."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from evoae import notebooks

NAMES = notebooks.available()
STUDIES = [
    name
    for name in NAMES
    if "trials" in notebooks.defaults(nbformat.read(notebooks.folder() / f"{name}.ipynb", 4))
]
MOST_CODE_CELLS = 20
# What a tiny test needs less of than the smoke scale; a notebook is given those that it has.
LESS = {"epochs": 4, "canonical_epochs": 4, "cells": 3, "workers": 1}
LOSSES = ["train_l1", "mean", "reproduced", "published", "mean_test_l1", "test_l1"]
SHARES = ["p", "p_holm", "a12", "covered", "aimed", "jaccard", "distance", "rejected", "preserved"]


def source(name: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks.folder() / f"{name}.ipynb", 4)


def code(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in source(name).cells if cell.cell_type == "code"]


# -- what a notebook may hold ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "explore"])
def test_parameters_are_flat_commented_scalars_in_one_tagged_cell(name):
    tagged = [cell for cell in code(name) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    known = notebooks.defaults(source(name))
    assert {type(value) for value in known.values()} <= {int, float, str, bool}
    assert len(known) == len(tagged[0].source.splitlines())
    assert known["out"] == "out"


@pytest.mark.parametrize("name", [*NAMES, "explore"])
def test_notebooks_are_thin_and_stripped(name):
    cells = code(name)
    assert len(cells) <= MOST_CODE_CELLS
    for cell in cells:
        assert not cell.outputs
        assert cell.execution_count is None
        work = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.For, ast.While, ast.Import)
        for node in ast.walk(ast.parse(cell.source)):
            allowed = isinstance(node, ast.Lambda) and "assign(" in cell.source
            allowed |= isinstance(node, ast.Import) and node.names[0].name == "pandas"
            assert allowed or not isinstance(node, work), ast.unparse(node)


@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_and_table_is_kept_and_comes_after_prose(name):
    before = None
    for cell in source(name).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    assert ast.unparse(node.value).startswith("gallery.")
        else:
            assert before is None or before.cell_type == "code"
        before = cell
    assert source(name).cells[0].cell_type == "markdown"
    assert source(name).cells[0].source.startswith("# ")


# -- parameters that are refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trails=3", r"no parameter 'trails' \(did you mean trials\?\)"),
        ("trials=three", "trials='three' must be of type int"),
        ("trials=2.5", "trials=2.5 must be of type int"),
        ("trials=True", "trials=True must be of type int"),
    ],
)
@pytest.mark.parametrize("name", STUDIES)
def test_wrong_parameters_are_refused_before_anything_runs(name, word, message, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        notebooks.reproduce([name], "smoke", out, words=[word])
    assert not out.exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"trails": 3}, "did you mean trials"), ({"trials": "3"}, "trials='3' must be of type int")],
)
def test_papermill_alone_refuses_them_too(parameters, message, tmp_path):
    path = notebooks.folder() / "00_tour.ipynb"
    given = parameters | {"out": str(tmp_path / "out")}
    with pytest.raises(papermill.PapermillExecutionError, match=re.escape(message)):
        papermill.execute_notebook(
            path, tmp_path / "tour.ipynb", given, kernel_name="python3", progress_bar=False
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", notebooks.SCALES)
def test_every_scale_sets_known_parameters_of_the_right_type(name, scale):
    known = notebooks.defaults(source(name))
    settings = source(name).metadata.evoae.scales[scale]
    assert {key: type(value) for key, value in settings.items()} == {
        key: type(known[key]) for key in settings
    }
    planned = notebooks.plan([name], scale, Path("x"), None, [])[name]
    assert planned == settings | {"out": str(Path("x").absolute())}


def test_a_notebook_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"unknown notebook 'tuor'; choose one of {NAMES[0]}"):
        notebooks.reproduce(["tuor"], "smoke", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- executed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Execute a notebook once, however many tests read it; all share a folder of runs."""
    out = tmp_path_factory.mktemp("out")

    @cache
    def execute(name: str) -> list[Path]:
        known = notebooks.defaults(source(name))
        words = [f"{key}={value}" for key, value in LESS.items() if key in known]
        written, failures = notebooks.reproduce([name], "smoke", out, words=words)
        assert not failures, failures
        return written

    return execute


def tables(written: list[Path]) -> dict[str, pd.DataFrame]:
    """By the name that the notebook gave."""
    paths = [path for path in written if path.suffix == ".csv"]
    return {path.stem.split("-", 1)[1]: pd.read_csv(path) for path in paths}


@pytest.mark.parametrize("name", STUDIES)
def test_it_runs_and_leaves_a_page_figures_and_plausible_numbers(name, executed):
    written = executed(name)
    assert all(path.stat().st_size > 0 for path in written)
    suffixes = [path.suffix for path in written]
    assert suffixes[:2] == [".ipynb", ".html"]
    page = written[1].read_text()
    assert not re.search(r"""(src|href)=["']http""", page)
    assert "embed-amd" not in page
    assert "trials" in page or name == "report"
    assert "gallery" not in page  # of the code only the parameters
    called = "".join(cell.source for cell in code(name)).count("gallery.figure(")
    assert suffixes.count(".png") == suffixes.count(".svg") == called
    found = tables(written)
    assert len(found) == "".join(cell.source for cell in code(name)).count("gallery.table(")
    for title, table in found.items():
        assert len(table)
        if title == "differences":  # multiples of a loss
            continue
        for column in table.columns.intersection([*LOSSES, *SHARES]):
            assert table[column].dropna().between(0, 1).all(), column


def test_schedules_compares_every_pair_with_the_paper(executed):
    found = tables(executed("03_schedules"))
    assert len(found["published"]) == 3 * 6
    compared = found["published"]
    assert compared.difference.tolist() == pytest.approx(
        (compared.reproduced - compared.published).tolist()
    )
    assert len(found["tests"]) == 3 * 6
    assert set(found["tests"].b) == {"none"}
    assert (found["tests"].p_holm >= found["tests"].p).all()


def test_capacity_prunes_after_training_only_if_the_clock_says_so(executed):
    found = tables(executed("04_capacity"))
    assert set(found["small-tests"].a) == {"random", "conjunctive", "variance-high"}
    assert {"random, after, once", "none, control"} <= {
        *found["after-tests"].a,
        *found["after-tests"].b,
    }
    assert len(found["small-published"]) == 16


def test_activations_cover_dead_units_as_operators_do(executed):
    found = tables(executed("05_activations"))
    dead = found["dead"]
    assert set(dead.label) == {"alone", "coevolved"}
    assert (dead.both <= dead[["dead", "removed"]].min(axis=1)).all()
    random = dead[(dead.operator == "random") & (dead.layer == "all hidden")]
    np.testing.assert_allclose(random.covered_by_chance.dropna(), 0.1, atol=0.01)
    shared = found["overlap"].groupby(["a", "b"]).jaccard.mean()
    assert shared["apoz", "apoz"] == 1
    assert shared["random", "random"] < 0.2


def test_uniformity_measures_every_layer_and_gives_a_verdict(executed):
    found = tables(executed("06_uniformity"))
    layers = ["encoder 1", "code", "decoder 1", "output"]
    assert set(found["measured"].layer) == set(layers)
    one = found["measured"].query("operator == 'random' and cells == 1 and axis != 'shared'")
    both = [one[one.scope == scope].drop(columns="scope") for scope in ("network", "population")]
    pd.testing.assert_frame_equal(*(rows.reset_index(drop=True) for rows in both))
    zeros = found["measured"].query("operator == 'random' and scope == 'network'")
    zeros = zeros.groupby("pruned_weights").zeros.sum()
    assert zeros["masked"] > zeros["regrow"]  # the same amount at this scale
    for name in ("verdict-regrow", "verdict-masked", "verdict-small"):
        assert set(found[name].finding) == {"too few trials to tell"}  # of two trials


def test_readings_differ_in_one_setting_at_a_time(executed):
    found = tables(executed("07_readings"))
    shown = found["differences"].set_index(["pair", "difference"])["mean"]
    assert shown.groupby("pair", sort=False).size().to_dict() == {
        "random": 5, "conjunctive": 7, "variance": 6,
    }  # fmt: skip
    means = found["means"].query("algorithm == 'lipi-ae-s'")
    whole = means.set_index(["reading", "operator"])["mean"]
    for operator in ("random", "conjunctive"):  # the same runs, the loss of the same constant
        constants = whole.xs(operator, level="operator") / shown[operator]
        assert constants["as released"] == pytest.approx(0.27, abs=0.05)
        assert constants["as intended"] == pytest.approx(0.4, abs=0.1)


def test_your_data_may_be_a_file(executed, tmp_path):
    found = tables(executed("09_your_data"))
    assert set(found["results"].training) == {"alone", "coevolved"}
    assert found["results"].ensemble_test_l1.notna().sum() == len(found["results"]) / 2
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).integers(0, 3, (60, 9)))
    tiny = ["epochs=1", "trials=1", "cells=3", "workers=1", "operators=none random"]
    words = [f"dataset={path}", "scale=True", *tiny]
    written, failures = notebooks.reproduce(["09_your_data"], "smoke", tmp_path, words=words)
    assert not failures
    results = tables(written)["results"]
    assert results.operator.tolist() == ["none", "random"] * 2
    words[1] = "scale=False"
    _, failures = notebooks.reproduce(["09_your_data"], "smoke", tmp_path, words=words)
    assert "[0, 1]" in str(failures["09_your_data"])
