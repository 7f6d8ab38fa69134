"""Notebooks executed by papermill: parameters checked before, a standalone HTML written after.

A notebook has one cell tagged `parameters` of flat scalars, and its metadata say under
`evoae.scales` which parameters each scale means for it.
"""

from __future__ import annotations

import ast
import contextlib
import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill
import zmq
from IPython import get_ipython
from matplotlib.figure import Figure
from nbformat import NotebookNode
from traitlets.config import Config

from evoae import pages
from evoae.analysis.findings import Finding
from evoae.figures import look
from evoae.pages import Shown
from evoae.refusals import named, shown
from evoae.rules import check_known

REPORT = "report"
SCALES = ("smoke", "quick", "paper")
MAY_BE_ZERO = ("seed", "workers")
KERNEL_STARTS = 3  # kernels started at the same time can race for ports
# what a kernel says passes through ports that others on a shared machine might listen to
ENCRYPTED = Config(
    {"KernelManager": {"transport_encryption": "auto" if zmq.has("curve") else "disabled"}}
)


class Gallery:
    """Keeps what a notebook shows: figures in OUT/figures, tables in OUT/tables; and numbers it.

    It is the first thing that a notebook makes, and raises ValueError for parameters that papermill
    was given and the notebook does not have, or has of another type: papermill itself only warns.
    """

    def __init__(self, out: str | Path, notebook: str) -> None:
        check_injected(notebook)
        index = os.environ.get("EVOAE_SHARE", "0/1").partition("/")[0]
        # of a job array, only the first job writes where people look
        self.out, self.notebook = Path(out) / (f"job-{index}" if index != "0" else ""), notebook
        source = "\n".join(cell.source for cell in read(notebook).cells)
        self.figures, self.tables = (
            re.findall(rf'gallery\.{kind}\(\s*"([^"]+)"', source) for kind in ("figure", "table")
        )

    def figure(self, name: str, figure: Figure, title: str) -> Shown:
        """Write a figure as PNG and SVG; show it with its number and what is compared in it."""
        png, _ = look.save(figure, self.out / "figures", f"{self.notebook}-{name}", title)
        return pages.figure_of(self.figures.index(name) + 1, name, title, png)

    def table(self, name: str, table: pd.DataFrame, title: str, unfolded: bool = False) -> Shown:
        """Write a table as CSV; show it folded away, with consistent decimals.

        Names of the notebook's figures in a column `figure` are shown as links.
        """
        path = self.out / "tables" / f"{self.notebook}-{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
        number = self.tables.index(name) + 1
        if "figure" in table and set(table["figure"]) <= set(self.figures):
            table = table.assign(figure=[self.link(figure) for figure in table["figure"]])
        return pages.table_of(number, path.stem, title, table, unfolded)

    def answer(self, text: str) -> Shown:
        """What the notebook found, in a sentence or two; the index shows it, too."""
        return Shown(f'<p class="answer">{html.escape(text)}</p>', "answer", html.escape(text))

    def findings(self, found: Sequence[Finding]) -> Shown:
        """Sentences with links to their figures; the index shows the first."""
        lines = [
            f"<li><b>{html.escape(one.heading)}.</b> {html.escape(one.text)} "
            f"{self.link(one.figure)}</li>"
            for one in found
        ]
        text = html.escape(" ".join(f"{one.heading}. {one.text}" for one in found[:1]))
        return Shown(f'<ol class="findings">{"".join(lines)}</ol>', "answer", text)

    def link(self, name: str) -> str:
        """A link to one of the notebook's figures."""
        return f'<a href="#figure-{name}">Figure {self.figures.index(name) + 1}</a>'


def folder() -> Path:
    """Where the notebooks are: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "_notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def available() -> list[str]:
    """Names of the notebooks that `reproduce` executes."""
    paths = sorted(folder().glob("*.ipynb"))
    return [path.stem for path in paths if "evoae" in read(path.stem).metadata]


def read(name: str) -> NotebookNode:
    """The notebook as it lies in the package."""
    return nbformat.read(folder() / f"{name}.ipynb", 4)


def question(name: str) -> str:
    """What a notebook asks: the first sentence below its title."""
    return pages.question_of(read(name))


def defaults(notebook: NotebookNode) -> dict[str, Any]:
    """Parameters and their default values, read from the cell tagged `parameters`."""
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return assigned("\n".join(cell.source for cell in tagged))


def assigned(source: str) -> dict[str, Any]:
    """The names and values that a cell of parameters assigns."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Assign)]
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def check_injected(name: str) -> None:
    """Check the parameters that papermill gave to the notebook in which this runs."""
    ran = get_ipython().user_ns["In"] if get_ipython() else []
    given = [source for source in ran if source.startswith(("# Parameters\n", "# Parameters "))]
    known = defaults(read(name))
    for key, value in assigned("\n".join(given)).items():
        check_parameter(name, known, key, value)


def check_parameter(name: str, known: dict[str, Any], key: str, value: Any) -> None:
    """Raise ValueError unless the notebook has the parameter, of that type and large enough."""
    check_known(key, known, f"{name} has no parameter {shown(key)}")
    kind = type(known[key])
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{name}: {key}={shown(value)} must be of type {kind.__name__}")
    least = 0 if key in MAY_BE_ZERO else 1
    if kind is int and value < least:
        raise ValueError(f"{name}: {key}={shown(value)} must be at least {least}")


def parse_parameters(name: str, known: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words with the types of the notebook's defaults. ValueError otherwise."""
    found = {}
    for word in words:
        key, _, text = word.partition("=")
        kind = type(known.get(key))
        value: Any = text
        if kind is not str:
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                value = ast.literal_eval(text.capitalize() if kind is bool else text)
        check_parameter(name, known, key, value)
        found[key] = kind(value)
    return found


def plan(
    names: Sequence[str], scale: str, out: Path, workers: int | None, words: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The parameters of every named notebook. ValueError for anything unknown or mistyped."""
    if scale not in SCALES:
        raise ValueError(f"unknown scale {shown(scale)}; choose one of {', '.join(SCALES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    plans = {}
    for name in names:
        name = Path(name).stem
        if name not in available():
            raise ValueError(
                f"unknown notebook {shown(name)}; choose one of {', '.join(available())}"
            )
        notebook = read(name)
        known = defaults(notebook)
        plans[name] = {"out": str(out.absolute()), **notebook.metadata.evoae.scales[scale]}
        if workers is not None and "workers" in known:
            plans[name]["workers"] = workers
        unknown = set(plans[name]) - set(known)
        if unknown:
            raise ValueError(f"{name}: scale {scale} sets unknown parameters {sorted(unknown)}")
        plans[name] |= parse_parameters(name, known, words)
    return plans


def reproduce(
    names: Sequence[str],
    scale: str,
    out: Path,
    workers: int | None = None,
    words: Sequence[str] = (),
    *,
    dask: str | None = None,
    index: int = 0,
    of: int = 1,
) -> tuple[list[Path], dict[str, Exception]]:
    """Execute notebooks into `out`. Returns the files written, and the failures by notebook.

    Everything is validated before anything runs. A failing notebook does not stop the others.
    `dask` is the address of a scheduler; `index` and `of` say which job of an array this is: all
    jobs share the runs in `out`, and the first writes the notebooks.
    """
    plans = plan(names, scale, out, workers, words)
    if not 0 <= index < of:
        raise ValueError(f"--index {index} --of {of}: the index must be from 0 to {of - 1}")
    target = out / f"job-{index}" if index else out
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"{named(out)}: cannot be written ({error.strerror})") from error
    written: list[Path] = []
    failures: dict[str, Exception] = {}
    # the notebooks' processes inherit where their sweeps run
    with environment(EVOAE_SHARE=f"{index}/{of}", EVOAE_DASK=dask or ""):
        for name, parameters in plans.items():
            try:
                written += execute(name, parameters, target, scale)
            except Exception as error:  # whatever a notebook raises is reported with its name
                failures[name] = error
    names = available()
    pictures = {name: read(name).metadata.evoae.get("picture", "") for name in names}
    page = target / "index.html"
    page.write_text(pages.index_of(target, [REPORT, *(n for n in names if n != REPORT)], pictures))
    return [*written, page], failures


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables as they are to be in the context, and as they were after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def execute(name: str, parameters: dict[str, Any], out: Path, scale: str) -> list[Path]:
    """Execute one notebook; write it, its HTML, and list these and its figures and tables."""
    executed = out / f"{name}.ipynb"
    for attempt in range(KERNEL_STARTS):
        try:
            papermill.execute_notebook(
                folder() / f"{name}.ipynb",
                executed,
                parameters,
                kernel_name="python3",
                iopub_timeout=120,
                start_timeout=120,
                progress_bar=True,
                config=ENCRYPTED,
            )
            break
        except RuntimeError as error:
            if "Kernel died before replying" not in str(error) or attempt + 1 == KERNEL_STARTS:
                raise
    notebook, page = nbformat.read(executed, 4), out / f"{name}.html"
    notebook.metadata.evoae.scale = scale
    nbformat.write(notebook, executed)
    page.write_text(pages.page_of(notebook, name))
    figures = sorted((out / "figures").glob(f"{name}-*"))
    tables = sorted((out / "tables").glob(f"{name}-*"))
    return [executed, page, *figures, *tables]
