"""What every test begins and ends with, and which tests stay together in one of the processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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


@pytest.fixture(autouse=True)
def registered_names_are_forgotten() -> Iterator[None]:
    """Operators and schedules that a test registers are known in that test only."""
    registries = (operators.OPERATORS, schedules.SCHEDULES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)
