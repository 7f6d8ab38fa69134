"""Notebooks executed by papermill: parameters checked before, a standalone HTML written after.

A notebook has one cell tagged `parameters` of flat scalars, and its metadata say under
`evoae.scales` which parameters each scale means for it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

from evoae.messages import display, duration
from evoae.study.report import pages
from evoae.study.report.notebooks import available, folder, plan

REPORT = "report"
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

    async def _async_interrupt_kernel(self) -> None:
        """Interrupt it, but not before it is shut down, when it would print that it was."""
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


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
    if of < 1:
        raise ValueError(f"--of {of} must be at least 1")
    if not 0 <= index < of:
        raise ValueError(f"--index {index} must be from 0 to {of - 1}, as --of is {of}")
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
    with mock.patch.dict(os.environ, EVOAE_SHARE=f"{index}/{of}", EVOAE_DASK=dask or ""):
        begun = time.monotonic()
        for number, (name, parameters) in enumerate(plans.items()):
            said = standing(number, len(plans), name, time.monotonic() - begun)
            try:
                written += execute(name, parameters, target, scale, said)
            except Exception as error:  # whatever a notebook raises is reported with its name
                failures[name] = error
    page = target / "index.html"
    page.write_text(pages.index_of(target, sorted(available(), key=lambda name: name != REPORT)))
    return [*written, page], failures


def standing(done: int, total: int, name: str, seconds: float) -> str:
    """How far a reproduction is: "3 of 14, 03_schedules, about 40 s left".

    The time left is unknown until two notebooks are done, which took `seconds`.
    """
    text = f"{done + 1} of {total}, {name}" if total > 1 else name
    return text if done < 2 else f"{text}, about {duration(seconds / done * (total - done))} left"


def execute(
    name: str, parameters: dict[str, Any], out: Path, scale: str, said: str = ""
) -> list[Path]:
    """Execute one notebook; write it, its HTML, and list these and its figures and tables.

    `said` stands beside the bar, or in a log is a line.
    """
    executed = out / f"{name}.ipynb"
    bar = {"desc": said or name, "bar_format": "{desc} {bar} {n_fmt} of {total_fmt} cells"}
    if not sys.stderr.isatty():
        print(f"evoae: {said or name}", file=sys.stderr)
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
                progress_bar=bar if sys.stderr.isatty() else False,
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
