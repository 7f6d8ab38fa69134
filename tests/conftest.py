"""What every test begins and ends with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evoae.pruning import operators, schedules


@pytest.fixture(autouse=True)
def registered_names_are_forgotten() -> Iterator[None]:
    """Operators and schedules that a test registers are known in that test only."""
    registries = (operators.OPERATORS, schedules.SCHEDULES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)
