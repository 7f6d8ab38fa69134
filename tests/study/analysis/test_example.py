"""The convolutional example: equal budgets and sparsities, smaller modules with equal outputs."""

from __future__ import annotations

import pytest
import torch

from evoae.data import datasets
from evoae.study.analysis import example


@pytest.fixture(scope="module")
def comparison() -> example.Comparison:
    options = {"trials": 2, "epochs": 4, "learning_rate": 3e-3, "seed": 1}
    return example.compare("digits", ["magnitude", "apoz"], [0.6], **options)


def test_all_reach_the_target_and_begin_alike(comparison: example.Comparison) -> None:
    results = comparison.results
    assert len(results) == 2 * 5
    assert results.groupby("label").size().eq(2).all()
    pruned = results[results.target > 0]
    assert pruned.preserved.to_numpy() == pytest.approx(0.4, abs=2e-3)
    assert (results.query("operator == 'none'").preserved == 1).all()
    assert results.test_l1.between(0.02, 0.6).all()
    again = example.compare(
        "digits", ["magnitude"], [0.6], trials=1, epochs=4, learning_rate=3e-3, seed=1
    )
    one = results[results.trial == 0].set_index("label").test_l1
    for label, value in again.results.set_index("label").test_l1.items():
        assert one[label] == value  # whatever runs beside it


def test_compacted_modules_are_equal_and_no_larger(comparison: example.Comparison) -> None:
    table = example.sizes(comparison, batch=16, repeats=2).set_index("label")
    assert (table.largest_difference < 1e-5).all()
    assert (table.compact_parameters <= table.parameters).all()
    units = table.loc["apoz, while training, 0.6"]
    assert units.compact_parameters < 0.6 * units.parameters
    assert (table.filter(like="milliseconds") > 0).all(axis=None)
    labels = ["unpruned", "apoz, while training, 0.6"]
    drawn = example.filters(comparison, labels)
    assert {label: values.shape for label, values in drawn.items()} == dict.fromkeys(
        labels, (16, 9)
    )


def test_only_images_will_do() -> None:
    data = datasets.load("binary-clusters", seed=1, trial=0, bits=16)
    with pytest.raises(ValueError, match="binary-clusters must hold images whose sides divide by"):
        example.images(torch.zeros(2, 16), data)
