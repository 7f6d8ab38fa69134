"""What a notebook shows, and the pages that it is shown on."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from evoae.study.analysis.findings import Finding
from evoae.study.analysis.sentences import Answer
from evoae.study.figures import look
from evoae.study.report import pages
from evoae.study.report.contents import Report, decimals, table_of

NASTY = '<script>alert("a & b")</script>'


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path, "00_tour")


def cells(body: str) -> list[str]:
    return re.findall(r"<t[hd]>(.*?)</t[hd]>", body)


def test_a_table_is_folded_escaped_and_rounded() -> None:
    table = pd.DataFrame(
        {
            "name <b>": [NASTY, "a long name of more than fifty characters, which stays whole"],
            "p_holm": [0.0001, np.nan],
            "steps": [1200, 3],
            "loss": [0.12345, 2.0],
            "tiny": [0.00012, 0.002],
        }
    )
    shown = table_of(3, "file", f"Title {NASTY}", table, unfolded=False).body
    assert shown.startswith("<details><summary><b>Table 3.</b> Title &lt;script&gt;")
    assert "(2 rows, file.csv)" in shown
    assert "<script" not in shown
    assert cells(shown)[0] == '<div class="text">name &lt;b&gt;</div>'
    assert "a long name of more than fifty characters, which stays whole" in shown
    assert cells(shown)[6:10] == ["&lt;0.001", "1,200", "0.123", "0.00012"]
    assert cells(shown)[11:] == ["–", "3", "2.000", "0.002"]
    assert "<details open>" in table_of(3, "file", "t", table, unfolded=True).body


def test_only_links_to_figures_stay_links(report: Report) -> None:
    table = pd.DataFrame({"figure": ["loss", "sparsity"], "claim": ["a", '<a href="#figure-x">x']})
    shown = report.table("tests", table, "Title of it").body
    assert '<a href="#figure-loss">Figure 2</a>' in shown
    assert "&lt;a href=" in shown
    written = pd.read_csv(report.out / "tables" / "00_tour-tests.csv")
    pd.testing.assert_frame_equal(written, table)


@pytest.mark.parametrize("empty", [[], [np.nan], [np.inf, 1.0], [True, False], [None, "a"]])
def test_any_column_has_decimals(empty: list) -> None:
    assert len(decimals(pd.Series(empty, name="p"))) == len(empty)
    shown = table_of(1, "f", "t", pd.DataFrame({"a": empty}), unfolded=False)
    assert "nan" not in shown.body.lower()


def notebook_of(*shown: object) -> nbformat.NotebookNode:
    outputs = [new_output("display_data", each._repr_mimebundle_()) for each in shown]
    first = "# Title: of it\n\nWhat is asked? More."
    answer = [new_markdown_cell("## Answer"), new_code_cell("x", outputs=outputs)]
    made = [new_markdown_cell(first), new_code_cell("report.secret()"), *answer]
    made += [new_markdown_cell("## Below\n\nWhat else there is.")]
    return new_notebook(cells=made, metadata={"evoae": {"scale": "smoke"}})


def indexed(folder: Path, *made: nbformat.NotebookNode) -> str:
    """The index of a folder that holds these executed notebooks."""
    names = ["00_tour", "01_canonical_pruning"]
    for name, notebook in zip(names, made, strict=False):
        nbformat.write(notebook, folder / f"{name}.ipynb")
        (folder / f"{name}.html").write_text("page")
    return pages.index_of(folder, names)


def test_a_page_begins_with_what_was_found_and_how_sure_that_is(report: Report) -> None:
    found, sure = f"Found {NASTY}.", "Six trials."
    page = pages.page_of(notebook_of(report.answer(Answer(found, sure))), "00_tour")
    order = [
        "</h1>",
        "What is asked?",
        "Found &lt;script&gt;",
        sure,
        "Nothing on this page",
        "More.",
        "<h2>Below</h2></summary>",
    ]
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    assert page.count("Six trials.") == 1
    assert ">Answer<" not in page
    assert "<script" not in page
    assert "report.secret" not in page
    assert "evoae reproduce 00_tour --scale smoke" in page


def test_one_figure_stands_first_and_is_named_where_it_was(report: Report) -> None:
    made = notebook_of(report.figure("loss", look.blank(1), "Loss"))
    made.cells[2].source = "## A `b` & c\n\nSee below."  # was the answer's heading
    made.metadata.evoae.picture = "loss"
    page = pages.page_of(made, "00_tour")
    folded = page.index("<details")
    assert page.index('<figure id="figure-loss"') < folded
    assert page.count("<figure") == page.count("<img") == 1
    assert page.index('<a href="#figure-loss">Figure 2</a> is at the top') > folded
    assert "<h2>A <code>b</code> &amp; c</h2>" in page
    made.metadata.evoae.picture = "gone"
    page = pages.page_of(made, "00_tour")
    assert page.index("<figure") > page.index("<details")


def test_a_long_answer_is_one_sentence_and_more(report: Report, tmp_path: Path) -> None:
    found = "It is 0.5 or less. " + "Other things were found. " * 20
    made = notebook_of(report.answer(Answer(found.strip(), "Sure.")))
    page = pages.page_of(made, "00_tour")
    assert '<p class="answer">It is 0.5 or less.</p><details class="sure">' in page
    assert '<p class="said">It is 0.5 or less.</p>' in indexed(tmp_path, made)
    ten = [Finding(f"Heading {n}", "Text", "loss") for n in range(10)]
    body = report.findings(ten).body
    assert body.index("Heading 0") < body.index("9 more findings") < body.index("Heading 1")


@pytest.mark.parametrize(("rows", "columns", "large"), [(40, 9, 0), (41, 1, 1), (1, 10, 1)])
def test_large_tables_stay_folded_on_paper(rows: int, columns: int, large: bool) -> None:
    made = table_of(1, "f", "t", pd.DataFrame(np.zeros((rows, columns))), False)
    how = ' class="large"' if large else ""
    assert made.body.startswith(f"<details{how}><summary>")


def test_the_index_escapes_what_it_repeats(report: Report, tmp_path: Path) -> None:
    index = indexed(tmp_path, notebook_of(report.findings([Finding("A & b", NASTY, "loss")])))
    assert index.count('class="entry"') == 1
    assert "A &amp; b. &lt;script&gt;" in index
    assert "<script" not in index
    assert "Nothing on this page is evidence" in index


def test_the_index_says_once_what_holds_of_all_pages(report: Report, tmp_path: Path) -> None:
    one, other = (notebook_of(report.answer(Answer("Found."))) for _ in range(2))
    assert indexed(tmp_path, one, other).count("evidence") == 1
    other.metadata.evoae.full_size = True
    index = indexed(tmp_path, one, other)
    assert index.count("smoke: no evidence") == 1
    assert index.index("smoke: no evidence") < index.index("01_canonical_pruning")


def test_the_index_names_the_pictures_that_it_shows(report: Report, tmp_path: Path) -> None:
    made = notebook_of(report.figure("loss", look.blank(1), "Loss < size"))
    made.metadata.evoae.picture = "loss"
    index = indexed(tmp_path, made)
    assert re.search(r'alt="Figure \d+\. Loss &lt; size"', index)
    assert 'src="figures/00_tour-loss.png"' in index
