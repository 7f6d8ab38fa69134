"""Notebooks are executed by the interpreter that runs evoae, whatever the user has set up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from evoae.study.report import execution

CODE = """
import os, sys
import matplotlib as mpl
print(sys.executable, mpl.rcParams["text.usetex"], mpl.rcParams["font.size"], who)
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    cells = [
        new_markdown_cell("# One\nWhich interpreter?"),
        new_code_cell("who = 'nobody'", metadata={"tags": ["parameters"]}),
        new_code_cell(CODE),
    ]
    made = new_notebook(cells=cells, metadata={"evoae": {"scales": {"smoke": {}}}})
    (tmp_path / "notebooks").mkdir()
    nbformat.write(made, tmp_path / "notebooks" / "one.ipynb")
    monkeypatch.setattr(execution, "folder", lambda: tmp_path / "notebooks")
    return "one"


@pytest.mark.parametrize("installed", [True, False])
def test_the_interpreter_is_the_one_that_runs_evoae(
    installed: bool, notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel of that name is another's, or there is none; and a matplotlibrc is found."""
    data = tmp_path / "jupyter"
    if installed:
        (data / "kernels" / "python3").mkdir(parents=True)
        wrong = {"argv": ["/bin/false"], "display_name": "another's", "language": "R"}
        (data / "kernels" / "python3" / "kernel.json").write_text(json.dumps(wrong))
    monkeypatch.setenv("JUPYTER_PATH", str(data))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "out").mkdir()
    executed, page, *_ = execution.execute(notebook, {"who": "me"}, tmp_path / "out", "smoke")
    (output,) = nbformat.read(executed, 4).cells[-1].outputs
    assert output.text.split() == [sys.executable, "False", "10.0", "me"]
    assert page.exists()
    left = list((tmp_path / "runtime").iterdir()) if (tmp_path / "runtime").exists() else []
    assert not left
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == ["matplotlibrc"]
