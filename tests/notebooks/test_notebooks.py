"""Every notebook is executed once, at a tiny scale, and its recorded results are read back."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from evoae import Autoencoder, Experiment, cli
from evoae.study.report import execution, notebooks

NAMES = notebooks.available()
STUDIES = [name for name in NAMES if name != "explore"]  # that one is for the browser
TRAINED = [name for name in STUDIES if name not in ("report", "12_results")]
READ_BY_REPORT = ("01_canonical_pruning", "02_coevolution_pruning")
IN_THE_INDEX = ("00_tour", "report")
# A notebook and all that is read of it stay in one process of several.
BY_NOTEBOOK = [
    pytest.param(
        name,
        marks=pytest.mark.xdist_group(
            "report" if name in (*READ_BY_REPORT, *IN_THE_INDEX) else name
        ),
    )
    for name in STUDIES
]
MOST_CODE_CELLS = 20
# What a tiny test needs less of than the smoke scale; a notebook is given those that it has.
LESS = {"epochs": 4, "second_epochs": 2, "canonical_epochs": 4, "cells": 3, "workers": 1}
LOSSES = ["train_l1", "mean", "reproduced", "published", "mean_test_l1", "test_l1"]
SHARES = ["p", "p_holm", "covered", "aimed", "jaccard", "distance", "rejected", "preserved"]


def source(name: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks.folder() / f"{name}.ipynb", 4)


def code(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in source(name).cells if cell.cell_type == "code"]


# -- what a notebook may hold ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_flat_commented_scalars_in_one_tagged_cell(name):
    tagged = [cell for cell in code(name) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    known = notebooks.defaults(source(name))
    assert {type(value) for value in known.values()} <= {int, float, str, bool}
    lines = tagged[0].source.splitlines()
    assert len(known) == len(lines)
    assert [line for line in lines if "  # " not in line] == []
    assert known["out"] == "out"


@pytest.mark.parametrize("name", NAMES)
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
                    assert ast.unparse(node.value).startswith("report.")
        else:
            assert before is None or before.cell_type == "code"
        before = cell
    assert source(name).cells[0].cell_type == "markdown"
    assert source(name).cells[0].source.startswith("# ")
    assert notebooks.question_of(source(name)).endswith("?")
    picture = source(name).metadata.evoae.picture
    assert f'report.figure("{picture}"' in "".join(cell.source for cell in code(name))


@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_and_table_has_a_title_of_its_own(name):
    calls = [
        node
        for cell in code(name)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("report.")
    ]
    kinds = {kind: [c for c in calls if c.func.attr == kind] for kind in ("figure", "table")}
    for shown in kinds.values():
        titles = [ast.literal_eval(call.args[2]) for call in shown]
        assert len(set(titles)) == len(titles)
        assert all(len(title) > 15 for title in titles)
    answers = [call for call in calls if call.func.attr in ("answer", "findings")]
    assert len(answers) == 1


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
@pytest.mark.parametrize("name", TRAINED)
def test_wrong_parameters_are_refused_before_anything_runs(name, word, message, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        execution.reproduce([name], "smoke", out, words=[word])
    assert not out.exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"trails": 3}, "did you mean trials"), ({"trials": "3"}, "trials='3' must be of type int")],
)
def test_papermill_alone_refuses_them_too(parameters, message, one_kernel, tmp_path):
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
        execution.reproduce(["tuor"], "smoke", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- executed -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> tuple[Path, dict[str, list[Path]]]:
    """Where notebooks are executed, and what each left; kept while other tests come between."""
    return tmp_path_factory.mktemp("out"), {}


@pytest.fixture(scope="module")
def executed(once, one_kernel):
    """Execute a notebook once, however many tests read it; all share a folder of runs."""
    out, done = once

    def execute(name: str) -> list[Path]:
        if name in done:
            return done[name]
        if name == "report":  # of what the others leave
            for other in READ_BY_REPORT:
                execute(other)
        known = notebooks.defaults(source(name))
        less = LESS | ({"epochs": 8} if name == "08_confounds" else {})  # its last quarter needs 7
        less |= {"workers": 2} if name == "02_coevolution_pruning" else {}  # processes of a kernel
        if name == "09_your_data":
            out.mkdir(exist_ok=True)
            np.save(out / "rows.npy", np.random.default_rng(0).integers(0, 9, (60, 4, 4)))
            less |= {"dataset": out / "rows.npy", "scale": True, "epochs": 1}
            less |= {"operators": "none random"}
        words = [f"{key}={value}" for key, value in less.items() if key in known]
        written, failures = execution.reproduce([name], "smoke", out, words=words)
        assert not failures, failures
        done[name] = written
        return written

    return execute


def tables(written: list[Path]) -> dict[str, pd.DataFrame]:
    """By the name that the notebook gave."""
    paths = [path for path in written if path.suffix == ".csv"]
    return {path.stem.split("-", 1)[1]: pd.read_csv(path) for path in paths}


@pytest.mark.parametrize("name", BY_NOTEBOOK)
def test_it_runs_and_leaves_a_page_figures_and_plausible_numbers(name, executed):
    written = executed(name)
    assert all(path.stat().st_size > 0 for path in written)
    suffixes = [path.suffix for path in written]
    assert suffixes[:2] == [".ipynb", ".html"]
    text = "".join(cell.source for cell in code(name))
    called = text.count("report.figure(")
    assert suffixes.count(".png") == suffixes.count(".svg") == called
    found = tables(written)
    assert len(found) == text.count("report.table(")
    for title, table in found.items():
        assert len(table) or name == "report"
        if title == "differences":  # multiples of a loss
            continue
        for column in table.columns.intersection([*LOSSES, *SHARES]):
            assert table[column].dropna().between(0, 1).all(), column


@pytest.mark.parametrize("name", BY_NOTEBOOK)
def test_a_page_stands_alone_and_says_what_it_is(name, executed):
    page = executed(name)[1].read_text()
    title = source(name).cells[0].source.splitlines()[0].lstrip("# ")
    assert title == html.unescape(re.search("<title>(.*)</title>", page)[1])
    assert not re.search(r"""(src|href)=["']http""", page)
    assert "report." not in page  # no code
    assert "Traceback" not in page
    assert "<script" not in page
    # smoke runs are no evidence, and the page says so before anything else
    warning = page.find("Nothing on this page is evidence")
    if name == "12_results":  # shows the tables of full-size runs at every scale
        assert warning == -1
    else:
        assert 0 < warning < page.index("<p>", page.index("</h1>"))
    figures = re.findall(r"<b>Figure (\d+)\.</b>", page)
    assert sorted(map(int, figures)) == list(range(1, len(figures) + 1))
    lead = re.search(r'<figure id="figure-([^"]+)"', page)  # stands before what is folded
    assert lead[1] == source(name).metadata.evoae.picture
    assert lead.start() < page.index('<details class="section">')
    assert page.count('<details class="section"') == page.count("</h2></summary>") > 0
    assert page.count("<img alt=") == len(figures)
    shown = "".join(c.source for c in code(name)).count("report.table(")
    assert len(re.findall(r"<details[^>]*><summary><b>Table", page)) == shown
    foot = page[page.index("<footer>") :]
    for word in (f"reproduce {name}" if name != "report" else "evoae report", "torch 2", "cores"):
        assert word in foot
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))


@pytest.mark.xdist_group("report")
def test_the_index_has_the_picture_question_and_answer_of_every_page(executed):
    written = [executed(name) for name in IN_THE_INDEX][-1]
    index = written[-1]
    assert index.name == "index.html"
    entries = index.read_text().split('class="entry"')[1:]
    assert "Report" in entries[0]
    of_all = index.read_text().count("is evidence")  # said once, where it holds for all pages
    assert of_all <= 1
    for name in IN_THE_INDEX:
        (entry,) = [c for c in entries if f'href="{name}.html"' in c]
        picture = re.search(r'src="([^"]+)"', entry).group(1)
        assert (index.parent / picture).exists()
        assert notebooks.question_of(source(name)) in html.unescape(entry)
        assert ("smoke: no evidence" in entry) == (of_all == 0)
        assert re.search(r'alt="Figure \d+\. [^"]+"', entry)
        said = re.search(r'class="said"[^>]*>([^<]+)', entry).group(1)
        page = html.unescape((index.parent / f"{name}.html").read_text())
        assert html.unescape(said) in re.sub("</?b>", "", page)


@pytest.mark.xdist_group("report")
def test_the_report_says_ten_sentences_and_gives_no_verdict_on_smoke(executed):
    written = executed("report")
    page = written[1].read_text()
    sentences = re.findall(r"<li>(.*?)</li>", page, re.DOTALL)[:10]
    assert sentences[0].startswith("<b>No evidence.</b>")
    assert [f"<b>Claim {n}, no verdict: " in s for n, s in enumerate(sentences)][1:8] == [True] * 7
    assert all(re.search(r'<a href="#figure-[\w-]+">Figure \d</a>', s) for s in sentences)
    found = tables(written)
    assert len(found["verdicts"]) == 14
    assert found["verdicts"].verdict.str.startswith("no verdict").all()
    assert set(found["claims-map"].figure) == {"claims"}
    assert len(found["comparisons"]) > 5
    assert page.index('id="figure-claims"') > page.index("<li>")


@pytest.mark.xdist_group("report")
def test_evoae_report_is_the_page_of_a_folder(executed, capsys):
    folder = executed("report")[0].parent
    assert cli.main(["report", str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out.splitlines()


@pytest.mark.xdist_group("03_schedules")
def test_schedules_compares_every_pair_with_the_paper(executed):
    found = tables(executed("03_schedules"))
    assert len(found["published"]) == 3 * 6
    compared = found["published"]
    assert compared.difference.tolist() == pytest.approx(
        (compared.reproduced - compared.published).tolist()
    )
    assert len(found["tests"]) == 4 * 6  # magnitude, too, which the paper lacks
    assert set(found["tests"].b) == {"none"}
    assert found["tests"].p.isna().all()  # of two trials
    assert len(found["late-early"]) == 4  # the best of random, and late against early
    assert (found["means"].model_steps == 3 * 4 * 200).all()  # cells, epochs, batches


@pytest.mark.xdist_group("04_capacity")
def test_capacity_compares_within_an_operator_and_with_dense_models_of_its_size(executed):
    found = tables(executed("04_capacity"))
    assert set(found["small-tests"].a) == {"random", "conjunctive", "variance-high"}
    after = found["after-tests"]
    assert set(after.b) == {"while training"}
    assert after.groupby("operator").a.apply(set).map(len).eq(2).all()
    assert set(after.a) == {"after", "after, recovered"}
    assert len(found["small-published"]) == 16
    sizes = found["dense-means"]
    assert sizes.network.tolist() == ["pruned"] * 4 + ["dense"] * 4
    assert (sizes[sizes.network == "dense"].preserved == 1).all()
    for label, preserved in zip(sizes.label[4:], sizes.preserved[:4], strict=True):
        first, code = (
            int(width) for width in label.split(", ")[0].removeprefix("dense ").split("-")
        )
        parameters = (101 * first + (first + 1) * code) + ((code + 1) * first + (first + 1) * 100)
        assert parameters == pytest.approx(preserved * 6770, abs=150)  # 30-10 has 6770


@pytest.mark.xdist_group("05_activations")
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
    change = found["change"].set_index("a")
    assert change.removed["random"] == pytest.approx(0.1, abs=0.01)
    assert set(change.b) == {"as many at random"}


@pytest.mark.xdist_group("06_uniformity")
def test_uniformity_changes_positions_alone_and_gives_no_verdict_on_two_blocks(executed):
    found = tables(executed("06_uniformity"))
    assert set(found["parts"].verdict) == {"no verdict", "not run"}  # it has one size
    assert set(found["contrasts"].says) == set(found["by-size"].says) == {"too few blocks"}
    assert set(found["contrasts"]["part"]) >= {"even", "units", "shared", "guidance"}
    deviation = found["means"].groupby("positions").discrepancy.mean()
    assert deviation["even"] == 0 < deviation["independent"] < deviation["units"]
    shared = found["means"].query("place == 'ring' and mask == 'shared'")
    assert shared.pooled_discrepancy.to_numpy() == pytest.approx(shared.discrepancy.to_numpy())
    assert not found["means"].isna().any(axis=None)


@pytest.mark.xdist_group("08_confounds")
def test_confounds_compares_arrangements_and_times_in_blocks(executed):
    found = tables(executed("08_confounds"))
    assert set(found["advantages"].says) == {"too few blocks"}
    assert set(found["advantages"].outcome) == {"mean over cells", "best cell"}
    assert set(found["pairs"].place) == {"alone", "ring"}
    assert found["pairs"].says.tolist().count("best") == 2


@pytest.mark.xdist_group("07_readings")
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


@pytest.mark.xdist_group("09_your_data")
def test_your_data_may_be_a_file(executed, tmp_path):
    found = tables(executed("09_your_data"))
    assert set(found["results"].training) == {"alone", "one cell", "ring"}
    assert found["results"].ensemble_test_l1.notna().sum() == len(found["results"]) / 3
    assert found["results"].model_steps.nunique() == 1  # equal budgets
    assert set(found["tests-training"].b) == {"ring"}
    network, folder = found["network"].iloc[0], executed("09_your_data")[0].parent
    assert network.sparsity == pytest.approx(0.9, abs=1e-3)
    exported = (folder / network.file).read_bytes()
    assert len(exported) == network.bytes
    # this process makes the same network, to the last bit
    train = Experiment.preset("frontier", dataset=folder / "rows.npy", scale=True).load_data(1, 0)
    model = Autoencoder(target_sparsity=0.9, epochs=3, settings={"scale": True}, random_state=1)
    same = model.fit(train.raw("train")).export(tmp_path / "same.safetensors")
    assert same.path.read_bytes() == exported
    words = [f"dataset={folder / 'rows.npy'}"]
    _, failures = execution.reproduce(["09_your_data"], "smoke", tmp_path, words=words)
    assert "[0, 1]" in str(failures["09_your_data"])
