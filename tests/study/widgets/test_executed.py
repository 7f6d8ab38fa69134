"""The notebook `explore` where nobody looks: papermill trains, and leaves pictures."""

from __future__ import annotations

import base64
import io

import nbformat
import papermill
import pytest
from PIL import Image

from evoae.study.report import notebooks
from evoae.study.report.pages import WIDGET

GIVEN = {"epochs": 3, "model": "8-3", "schedules": "cubic fixed", "operator": "magnitude"}


def execute(folder, **parameters) -> nbformat.NotebookNode:
    return papermill.execute_notebook(
        notebooks.folder() / "explore.ipynb",
        folder / "explored.ipynb",
        GIVEN | {"out": str(folder / "out")} | parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=str(notebooks.folder()),  # where JupyterLab's kernel would run
    )


def test_it_trains_by_itself_and_shows_what_it_did(one_kernel, tmp_path):
    done = execute(tmp_path)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert [output.output_type for output in outputs] == ["execute_result"] * 5  # and no warnings
    assert not any(WIDGET in output.data for output in outputs)
    shown = [base64.b64decode(output.data["image/png"]) for output in outputs]
    assert [Image.open(io.BytesIO(png)).width for png in shown] == [900] * 5
    assert len(set(shown)) == 5
    figures = sorted(path.name for path in (tmp_path / "out/figures").iterdir())
    names = ("activations", "schedules", "training")
    assert figures == [f"explore-{name}.{kind}" for name in names for kind in ("png", "svg")]
    drawn = (tmp_path / "out/figures/explore-training.svg").read_text()
    for words in ("digits, 8-3: magnitude under cubic, 10 cells", "finished, 3 of 3 epochs"):
        assert f"<!-- {words}" in drawn


def test_what_cannot_be_trained_fails(one_kernel, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=r"no\.npy"):
        execute(tmp_path, dataset="no.npy")
