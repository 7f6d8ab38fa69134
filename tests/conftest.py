"""What every test begins and ends with, and which tests stay together in one of the processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

# The processes of this suite share the processors; a pool of threads in each would only wait for
# the others. It is read when torch is loaded, here and in what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from evoae.pruning import operators, schedules

# What takes longest begins first, so that the processes end at about the same time.
LONG = ("test_explore", "test_notebooks", "test_executed", "test_cluster")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share what its fixtures make: each is a group where it names no other."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            name = item.path.relative_to(item.config.rootpath).as_posix()
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """statsmodels' multipletests collects garbage at each call; what was imported is none."""
    gc.freeze()


@pytest.fixture(autouse=True)
def registered_names_are_forgotten() -> Iterator[None]:
    """Operators and schedules that a test registers are known in that test only."""
    registries = (operators.OPERATORS, schedules.SCHEDULES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)


@pytest.fixture(scope="session")
def kernel() -> Iterator[Any]:
    """The manager of one kernel for the notebooks that a process executes; it starts at the first.

    A kernel's start takes longer than most notebooks do at a tiny scale.
    """
    from jupyter_core.utils import run_sync

    from evoae.study.report import execution

    manager = execution.OwnKernel(kernel_name="python3", config=execution.ENCRYPTED)
    yield manager
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


@pytest.fixture(scope="module")
def one_kernel(kernel: Any) -> Iterator[None]:
    """All that papermill executes goes to `kernel`, which forgets names and history before."""
    import papermill
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    execute = papermill.execute_notebook
    forget = new_notebook(cells=[new_code_cell("get_ipython().reset()")])

    def once_more(*given: Any, **options: Any) -> Any:
        if kernel.has_kernel:
            NotebookClient(forget, km=kernel).execute()
        return execute(*given, **options, km=kernel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papermill, "execute_notebook", once_more)
        yield
