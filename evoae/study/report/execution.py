"""Notebooks executed by papermill: parameters checked before, a standalone HTML written after.

A notebook has one cell tagged `parameters` of flat scalars, and its metadata say under
`evoae.scales` which parameters each scale means for it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

from evoae.messages import display, short
from evoae.rules import check_known
from evoae.study.report import pages
from evoae.study.report.notebooks import available, check_parameter, defaults, folder, read

REPORT = "report"
SCALES = ("smoke", "quick", "paper")
KERNEL_STARTS = 3  # kernels started at the same time can race for ports
# what a kernel says passes through ports that others on a shared machine might listen to
ENCRYPTED = Config(
    {"KernelManager": {"transport_encryption": "auto" if zmq.has("curve") else "disabled"}}
)
# a matplotlibrc of the user's changes no page
PLAIN_PICTURES = "--IPKernelApp.exec_lines=['import matplotlib; matplotlib.rcdefaults()']"


class OwnKernel(AsyncKernelManager):
    """Starts the interpreter that runs evoae, whatever kernels are installed under its name."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """ipykernel in this interpreter."""
        known = get_kernel_dict()
        return KernelSpec(**known | {"argv": [*known["argv"], PLAIN_PICTURES]})


def parse_parameters(name: str, known: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words with the types of the notebook's defaults. ValueError otherwise."""
    found = {}
    for word in words:
        key, _, text = word.partition("=")
        kind: type = type(known.get(key))
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
    check_known(scale, SCALES, f"unknown scale {short(scale)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    plans = {}
    for name in names:
        name = Path(name).stem
        check_known(name, available(), f"unknown notebook {short(name)}")
        notebook = read(name)
        known = defaults(notebook)
        plans[name] = {"out": str(out.absolute()), **notebook["metadata"]["evoae"]["scales"][scale]}
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
        raise ValueError(f"{display(out)}: cannot be written ({error.strerror})") from error
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
    pictures = {name: read(name)["metadata"]["evoae"].get("picture", "") for name in names}
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
                language="python",
                kernel_manager_class=OwnKernel,
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
