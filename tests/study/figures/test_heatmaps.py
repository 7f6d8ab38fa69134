"""What each picture shows: images, units, masks, shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_figures import legend

from evoae.study.figures import heatmaps


def test_reconstructions_have_the_inputs_on_top():
    inputs = np.random.default_rng(0).random((3, 6))
    figure = heatmaps.images(inputs, {"none": inputs / 2, "random": 1 - inputs}, (2, 3))
    assert len(figure.axes) == 9
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["input", "none", "random"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), inputs[1].reshape(2, 3))
    np.testing.assert_array_equal(figure.axes[8].images[0].get_array(), 1 - inputs[2].reshape(2, 3))
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(0, 1)}


def test_reconstructions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"'none' has shape \(2, 6\); it must be \(3, 6\)"):
        heatmaps.images(np.zeros((3, 6)), {"none": np.zeros((2, 6))}, (2, 3))
    with pytest.raises(ValueError, match=r"'input' has shape \(3, 6\); it must be \(3, 4\)"):
        heatmaps.images(np.zeros((3, 6)), {}, (2, 2))


def test_activations_have_units_in_rows_and_pruned_units_marked():
    activations = {"code": np.arange(8.0).reshape(4, 2), "output": np.ones((4, 1000))}
    pruned = {"code": [False, True]}
    figure = heatmaps.before_after_heatmap(activations, activations, pruned, max_units=5)
    code, output = figure.axes[2:4]
    np.testing.assert_array_equal(code.collections[0].get_array(), activations["code"].T)
    assert output.collections[0].get_array().shape == (5, 4)
    shown = [tick.get_text() for tick in output.get_yticklabels()]
    assert shown == ["0", "250", "500", "749", "999"]
    assert code.get_title() == "code, after\n2 units\n1 pruned"
    assert output.get_title() == "output, after\n5 of 1000 units"
    assert code.lines[0].get_ydata().tolist() == [1.5]
    assert not output.lines
    assert {ax.get_xlabel() for ax in figure.axes} == {"Example", "activation"}
    assert legend(figure) == ["pruned unit"]


def test_before_and_after_share_the_scale_of_a_layer():
    before = {"code": np.full((4, 2), 3.0), "output": np.ones((4, 3))}
    after = {"code": np.zeros((4, 2)), "output": np.full((4, 3), 2.0)}
    figure = heatmaps.before_after_heatmap(before, after, {"output": [True, False, False]})
    scales = [ax.collections[0].get_clim() for ax in figure.axes[:4]]
    assert scales == [(0, 3), (1, 2), (0, 3), (1, 2)]
    assert figure.axes[2].get_title() == "code, after\n2 units"
    outputs = [figure.axes[n].get_title() for n in (1, 3)]
    assert outputs == ["output, before\n3 units", "output, after\n3 units\n1 pruned"]


def test_a_layer_that_is_not_there_is_refused():
    layer = {"code": np.zeros((2, 2))}
    with pytest.raises(
        ValueError, match=r"pruned has the layer 'cod'; it must be one of \['code'\]"
    ):
        heatmaps.before_after_heatmap(layer, layer, {"cod": [True, False]})
    with pytest.raises(ValueError, match=r"after has the layer 'x'"):
        heatmaps.before_after_heatmap(layer, {"x": layer["code"]}, {})


def test_strips_have_quiet_units_left_and_dead_ones_marked():
    removed = {
        "random": {"code": np.array([0.1, 0.2, 0.3]), "output": np.zeros(4)},
        "conjunctive": {"code": np.array([0.0, 1.0, 0.0]), "output": np.zeros(4)},
    }
    deviation = {"code": np.array([2.0, 0.0, 1.0]), "output": np.arange(4.0)}
    dead = {"code": np.array([False, True, False]), "output": np.zeros(4, bool)}
    figure = heatmaps.removed_by_unit(removed, deviation, dead)
    code, output = figure.axes[:2]
    expected = [[20, 30, 10], [100, 0, 0]]
    np.testing.assert_allclose(code.images[0].get_array(), expected)
    assert code.images[0].get_clim() == output.images[0].get_clim() == (0, 100)
    assert [tick.get_text() for tick in code.get_yticklabels()] == ["random", "conjunctive"]
    assert code.get_title("left") == "code: 3 units, 1 dead"
    assert code.lines[0].get_xdata().tolist() == [0]
    assert not output.lines
    assert legend(figure) == ["dead unit: no example activates it"]


def test_overlap_is_the_mean_over_trials_beside_what_chance_gives():
    table = pd.DataFrame(
        {
            "trial": [0, 0, 0, 0, 1, 1, 1, 1],
            "a": ["random", "random", "apoz", "apoz"] * 2,
            "b": ["random", "apoz"] * 4,
            "jaccard": [0.1, 0.3, 0.3, 1.0, 0.2, 0.1, 0.1, 1.0],
            "expected": [0.1, 0.2, 0.2, 0.1] * 2,
        }
    )
    figure = heatmaps.overlap_heatmap(table)
    measured, expected = figure.axes[:2]
    np.testing.assert_allclose(
        measured.collections[0].get_array(), [[15, 20], [20, 100]], rtol=1e-6
    )
    np.testing.assert_allclose(expected.collections[0].get_array(), [[10, 20], [20, 10]])
    assert [text.get_text() for text in measured.texts] == ["15", "20", "20", "100"]
    assert [ax.get_title() for ax in (measured, expected)] == [
        "measured",
        "expected of random choices",
    ]
    assert measured.collections[0].get_clim() == (0, 30)  # not the diagonal's 100
    with pytest.raises(ValueError, match="has no column 'expected'"):
        heatmaps.overlap_heatmap(table.drop(columns="expected"))


def test_operators_that_remove_nothing_have_an_empty_cell():
    table = pd.DataFrame(
        {"a": list("xxyy"), "b": list("xyxy"), "jaccard": [np.nan, 0, 0, 1], "expected": 0.1}
    )
    figure = heatmaps.overlap_heatmap(table)
    assert figure.axes[0].collections[0].get_array().mask.tolist() == [[True, False], [False] * 2]
