"""What each figure draws: lines, points, colours, labels, reference lines."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb

from evoae import figures, grid, sweep
from evoae.pruning import operators, schedules
from evoae.study.analysis.statistics import mean_interval
from evoae.study.figures import look
from evoae.study.figures.look import OPERATOR_COLOURS, operator_colour

PARAMETERS = (400, 600)


def a_history(operators=("none", "random"), trials=3, cells=2, epochs=21, **labels) -> pd.DataFrame:
    """Loss 1 / (epoch + 1) + 0.1 * trial + 0.01 * cell; 10 * epoch + 2 * cell zeros a part."""
    grid = itertools.product(operators, range(trials), range(epochs), range(cells))
    table = pd.DataFrame(grid, columns=["operator", "trial", "epoch", "cell"]).assign(**labels)
    loss = 1 / (table["epoch"] + 1) + 0.1 * table["trial"] + 0.01 * table["cell"]
    zeros = 10 * table["epoch"] + 2 * table["cell"]
    return table.assign(
        test_loss=loss,
        train_l1=loss.where(table["epoch"] % 10 == 0),
        encoder_zeros=zeros,
        decoder_zeros=zeros,
        encoder_zeros_at_last_prune=2 * zeros,
        decoder_zeros_at_last_prune=zeros,
    )


def some_results(operators=("none", "random"), trials=4) -> pd.DataFrame:
    grid = itertools.product(operators, ["fixed", "final-n"], range(trials))
    table = pd.DataFrame(grid, columns=["operator", "schedule", "trial"])
    steps = np.arange(len(table))
    shares = {"preserved": 1 - steps / 50, "preserved_at_last_prune": 0.9 - steps / 100}
    losses = {"train_l1": 0.1 + steps / 100, "validation_l1": 0.2, "test_l1": 0.2}
    return table.assign(**losses, best_preserved=shares["preserved"], **shares)


def legend(figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def curves(ax) -> dict[str, np.ndarray]:
    """Data by colour of the curves, without reference lines and the like."""
    return {
        to_hex(line.get_color()).upper(): line.get_xydata()
        for line in ax.lines
        if line.get_linestyle() == "-" and len(line.get_xdata()) > 2 and line.get_linewidth() > 1
    }


def points(ax) -> list[list[float]]:
    """Places of the filled points, in the order drawn."""
    dots = [d for d in ax.collections if type(d) is PathCollection and len(d.get_facecolor())]
    return np.concatenate([np.asarray(d.get_offsets()) for d in dots]).tolist()


def heights(ax) -> list[float]:
    return [height for _, height in points(ax)]


def diamonds(ax) -> list:
    """Hollow markers."""
    return [d for d in ax.collections if type(d) is PathCollection and not len(d.get_facecolor())]


# Colours


def lab_of(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour, as seen through a 3 x 3 matrix on linear RGB."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, full severity.
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "deuteranopia": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_operators_and_schedules_can_be_told_apart(vision):
    schedules_of = {colour for colour, _ in look.SCHEDULE_LOOKS.values()}
    for colours, least in ((OPERATOR_COLOURS.values(), 15), (schedules_of, 25)):
        seen = [lab_of(colour, np.array(VISION[vision])) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > least


def test_a_schedule_has_one_colour_and_dash_everywhere():
    assert set(look.SCHEDULE_LOOKS) == {*list(schedules.SCHEDULES.own), *schedules.BY_POINTS}
    assert len(set(look.SCHEDULE_LOOKS.values())) == len(look.SCHEDULE_LOOKS)
    table = pd.DataFrame({"schedule": ["cubic", "fixed"] * 2, "epoch": [0, 0, 1, 1]})
    table["probability"] = 0.5
    for rows in (table, table[table.schedule == "fixed"]):
        for line in figures.schedule_curves(rows).axes[0].lines[: rows.schedule.nunique()]:
            found = to_hex(line.get_color()).upper(), line.get_linestyle()
            assert found in {look.schedule_look(name) for name in rows.schedule}
    assert look.schedule_look("points:0,0;1,1") == look.SCHEDULE_LOOKS["points"]
    drawn = look.palette_of(pd.Series(["points:0,0", "points:1,1"]), "schedule")
    assert len(set(drawn.values())) == 2  # two in one figure are parted


def test_every_operator_of_the_study_has_its_own_colour():
    assert list(OPERATOR_COLOURS) == list(operators.OPERATORS)
    assert len(set(OPERATOR_COLOURS.values())) == len(OPERATOR_COLOURS)


def test_a_users_operator_has_one_colour_that_no_built_in_has():
    assert operator_colour("mine") == operator_colour("mine")
    assert operator_colour("mine") not in OPERATOR_COLOURS.values()
    assert operator_colour("mine") != operator_colour("his")


def test_users_operators_of_one_figure_are_parted():
    names = [f"mine {k}" for k in range(6)]
    assert len({operator_colour(name) for name in names}) < 6
    figure = figures.loss_over_epochs(a_history(names, trials=2))
    assert set(curves(figure.axes[0])) == set(look.USER_COLOURS)


def test_an_operator_has_the_same_colour_in_every_figure():
    colour = OPERATOR_COLOURS["random"]
    over = figures.loss_over_epochs(a_history(["none", "random", "mine"]))
    assert set(curves(over.axes[0])) == {"#000000", colour, operator_colour("mine")}
    alone = figures.preserved_over_epochs(a_history(["random"]), PARAMETERS)
    assert set(curves(alone.axes[0])) == {colour}
    scatter = figures.sparsity_versus_loss(some_results(["wanda", "random"]))
    drawn = [c.get_facecolors() for c in scatter.axes[0].collections]
    dots = {to_hex(rgba).upper() for rgba in np.concatenate(drawn)}
    assert dots == {OPERATOR_COLOURS["wanda"], colour}
    box = figures.capacity_box(some_results(["random"]), "operator")
    assert to_hex(box.axes[0].patches[0].get_edgecolor()).upper() == colour


# Curves


def test_loss_is_the_mean_over_cells_then_over_trials_with_the_interval_of_the_trials():
    history = a_history(["random"], trials=6, cells=2)
    ax = figures.loss_over_epochs(history, "test_loss").axes[0]
    (curve,) = curves(ax).values()
    assert curve[:, 0].tolist() == list(range(21))
    # Trials 0 to 5 add 0.25 on average; cells 0 and 1 add 0.005.
    assert curve[4, 1] == pytest.approx(1 / 5 + 0.25 + 0.005)
    band = ax.collections[0].get_paths()[0].vertices
    low, high = mean_interval(0.205 + 0.1 * np.arange(6))
    at = band[band[:, 0] == 4][:, 1]
    assert (at.min(), at.max()) == pytest.approx((low, high))


def test_few_trials_are_lines_and_have_no_interval():
    figure = figures.loss_over_epochs(a_history(["random"], trials=5), "test_loss")
    ax = figure.axes[0]
    assert not ax.collections
    assert [line.get_linewidth() for line in ax.lines] == [0.7] * 5 + [1.8]
    assert legend(figure) == ["random", "one trial"]


def test_the_mean_ends_where_a_trial_diverges():
    history = a_history(["random"], trials=6)
    history.loc[(history.trial == 2) & (history.epoch >= 10), "train_l1"] = np.nan
    ax = figures.loss_over_epochs(history).axes[0]
    (line,) = ax.lines
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, False]


def test_a_study_may_be_given_for_its_tables(tmp_path):
    settings = {"clusters": 2, "bits": 12, "examples": 4, "epochs": 3}
    experiments = grid("canonical", operator=["none", "random"], **settings)
    study = sweep(experiments, 2, out=tmp_path, workers=1, progress=False)
    for draw, table in [
        (figures.loss_over_epochs, study.history),
        (figures.sparsity_versus_loss, study.results),
        (figures.loss_by_schedule, study.results),
    ]:
        one, other = (look.png(draw(given)) for given in (study, table))
        assert one == other


def test_loss_at_the_few_quality_epochs_has_markers_there_only():
    ax = figures.loss_over_epochs(a_history()).axes[0]
    means = [line for line in ax.lines if line.get_linewidth() > 1]
    assert [line.get_xdata().tolist() for line in means] == [[0, 10, 20]] * 2
    assert {line.get_marker() for line in means} == {"o"}
    ax = figures.loss_over_epochs(a_history(), "test_loss").axes[0]
    assert {line.get_marker() for line in ax.lines} == {"None"}


def test_loss_has_labels_and_a_legend_beside_the_axes():
    figure = figures.loss_over_epochs(a_history(trials=6))
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", look.LABELS["train_l1"])
    assert legend(figure) == ["none", "random", "95 % interval"]
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x0 >= ax.get_window_extent().x1
    assert figure.get_size_inches()[0] * figure.dpi == 900


def test_reference_lines_are_where_they_should_be_and_say_what_they_are():
    ax = figures.loss_over_epochs(a_history(), constant=0.27, floor=0.05).axes[0]
    lines = {line.get_linestyle(): line.get_ydata() for line in ax.lines}
    assert list(lines["--"]) == [0.27, 0.27]
    assert list(lines[":"]) == [0.05, 0.05]
    assert [t.get_text() for t in ax.texts] == ["constant predictor 0.270", "noise floor 0.050"]
    low, high = ax.get_ylim()
    assert low < 0.05 < 0.27 < high
    assert not figures.loss_over_epochs(a_history()).axes[0].texts


def test_published_values_are_hollow_diamonds_in_the_colour_of_the_operator():
    published = pd.DataFrame(
        {"operator": ["random", "random", "wanda"], "epoch": [0, 20, 20], "value": [0.5, 0.1, 0.2]}
    )
    figure = figures.loss_over_epochs(a_history(), published=published)
    (drawn,) = diamonds(figure.axes[0])
    assert drawn.get_offsets().tolist() == [[0, 0.5], [20, 0.1]]  # wanda is not in the history
    assert {to_hex(c).upper() for c in drawn.get_edgecolors()} == {OPERATOR_COLOURS["random"]}
    assert legend(figure)[-1] == "published"


def test_a_panel_per_schedule_with_its_own_published_values():
    history = pd.concat([a_history(schedule=name) for name in ("fixed", "final-n", "increase")])
    published = pd.DataFrame(
        {"operator": "none", "schedule": ["fixed", "final-n"], "epoch": 20, "value": [0.3, 0.4]}
    )
    figure = figures.loss_over_epochs(history, col="schedule", floor=0.05, published=published)
    assert [ax.get_title() for ax in figure.axes] == ["fixed", "final-n", "increase"]
    assert figure.get_supylabel() == look.LABELS["train_l1"]
    drawn = [[d.get_offsets().tolist() for d in diamonds(ax)] for ax in figure.axes]
    assert drawn[:2] == [[[[20, 0.3]]], [[[20, 0.4]]]]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    # the line is in every panel, its name in the last: in a narrow one it would cover the data
    assert [len(ax.texts) for ax in figure.axes] == [0, 0, 1]
    assert all(any(line.get_linestyle() == ":" for line in ax.lines) for ax in figure.axes)


def test_runs_that_the_figure_would_mix_are_refused():
    history = pd.concat([a_history(schedule="fixed"), a_history(schedule="final-n")])
    with pytest.raises(ValueError, match="choose hue and col so that they distinguish"):
        figures.loss_over_epochs(history)


def test_a_history_without_a_value_is_refused():
    with pytest.raises(ValueError, match="no row with a value of train_l1"):
        figures.loss_over_epochs(a_history().assign(train_l1=np.nan))


def test_one_trial_and_one_epoch_can_be_drawn():
    figure = figures.loss_over_epochs(a_history(trials=1, cells=1, epochs=1), constant=0.27)
    assert len(figure.axes[0].lines) == 3


@pytest.mark.parametrize("names", [[1, 2, 3], list("abcdefghijklmnop")])
def test_other_hues_have_a_colour_per_name(names):
    history = pd.concat([a_history(["none"], trials=2, radius=name) for name in names])
    figure = figures.loss_over_epochs(history, hue="radius")
    assert len(curves(figure.axes[0])) == len(names)
    assert legend(figure)[:-1] == [str(name) for name in names]


def test_a_panel_says_which_lines_are_missing_or_lie_behind_another():
    table = pd.DataFrame(
        [
            (operator, name, epoch, p)
            for operator, curves in (
                ("one", {"fixed": 0.501, "final-n": 0.5, "cubic": 0.2, "increase": 0.22}),
                ("other", {"fixed": 0.5}),
            )
            for name, p in curves.items()
            for epoch in range(3)
        ],
        columns=["operator", "schedule", "epoch", "probability"],
    )
    one, other = figures.schedule_curves(table, col="operator").axes[:2]
    assert said(one) == "behind final-n: fixed"
    assert said(other) == "not here: final-n, cubic, increase"
    alone = figures.schedule_curves(table[table.schedule == "cubic"])
    assert alone.axes[0].get_legend() is None


def said(ax) -> str:
    return ax.get_legend().get_title().get_text()


def test_other_figures_say_it_too():
    """What is near in a panel is apart where the panel is not as high."""
    history = a_history(["random", "none"], trials=2)
    history["train_l1"] = np.where(history.operator == "none", 0.3, 0.3005)
    high = figures.loss_over_epochs(history, constant=0.6, floor=0.0)
    assert said(high.axes[0]) == "behind none: random"
    assert figures.loss_over_epochs(history).axes[0].get_legend() is None
    table = pd.DataFrame({"x": [1, 1, 2], "h": list("aba"), "col": [5, 5, 6], "train_l1": 0.1})
    one, other = figures.interaction(table, "x", "h", "col").axes[:2]
    assert one.get_legend() is None
    assert said(other) == "not here: b"
    assert [ax.get_title() for ax in (one, other)] == ["col 5", "col 6"]


def test_preserved_share_now_and_at_the_last_prune():
    now = figures.preserved_over_epochs(a_history(["random"]), PARAMETERS).axes[0]
    (curve,) = curves(now).values()
    # Epoch 20: 200 zeros in each part, and one more by the mean of the cells' 0 and 2; of 1000.
    assert curve[-1].tolist() == pytest.approx([20, 100 * (1 - 402 / 1000)])
    assert now.get_ylabel() == "Preserved share (%)"
    last = figures.preserved_over_epochs(a_history(["random"]), PARAMETERS, at_last_prune=True)
    (curve,) = curves(last.axes[0]).values()
    assert curve[-1, 1] == pytest.approx(100 * (1 - 603 / 1000))
    assert last.axes[0].get_ylabel() == "Preserved share at the last prune (%)"


def test_size_has_encoder_and_decoder_side_by_side():
    figure = figures.size_over_epochs(a_history(), PARAMETERS)
    encoder, decoder = figure.axes
    assert [ax.get_title() for ax in figure.axes] == [
        "encoder (400 parameters)",
        "decoder (600 parameters)",
    ]
    assert encoder.get_ylabel() == "Non-zero parameters (count)"
    assert encoder.get_ylim() == decoder.get_ylim()
    ends = [curves(ax)[OPERATOR_COLOURS["random"]][-1, 1] for ax in figure.axes]
    assert ends == pytest.approx([400 - 201, 600 - 201])


def test_schedules_have_a_line_each():
    table = pd.DataFrame(
        {
            "schedule": ["fixed"] * 3 + ["increase"] * 3,
            "epoch": [0, 1, 2] * 2,
            "probability": [0.5, 0.5, 0.5, 0.0, 0.25, 0.5],
        }
    )
    figure = figures.schedule_curves(table)
    ax = figure.axes[0]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.5, 0.5], [0.0, 0.25, 0.5]]
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Pruning probability (per epoch)")
    assert legend(figure) == ["fixed", "increase"]


# Trials


def test_scatter_has_trials_means_and_the_front_of_means_chosen_on_validation():
    # two settings of random, two of none; by validation random/final-n alone is as good as any
    results = some_results().assign(
        validation_l1=[0.2] * 4 + [0.1] * 4 + [0.3] * 4 + [0.2] * 4,
        test_l1=[0.21] * 4 + [0.11] * 4 + [0.0] * 4 + [0.3] * 2 + [0.2] * 2,
    )
    figure = figures.sparsity_versus_loss(results, constant=0.27, floor=0.05)
    ax = figure.axes[0]
    drawn = sorted(points(ax))
    trials = np.column_stack([100 * (1 - results["best_preserved"]), results["test_l1"]])
    means = [[3, 0.21], [11, 0.11], [19, 0.0], [27, 0.25]]
    np.testing.assert_allclose(drawn, sorted([*trials.tolist(), *means]), atol=1e-12)
    # random/fixed has the least loss on test, and is not on the front: validation chose
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[11, 0.11], [27, 0.25]])
    assert ax.lines[0].get_drawstyle() == "steps-pre"
    assert ax.get_xlabel() == "Sparsity (% of parameters)"
    assert legend(figure)[:5] == ["none", "random", "schedule", "fixed", "final-n"]
    assert legend(figure)[-1] == "front of means,\nchosen on validation"
    assert len(ax.texts) == 2


def test_scatter_without_a_style_needs_no_schedule():
    results = some_results().drop(columns="schedule")
    figure = figures.sparsity_versus_loss(results, "preserved_at_last_prune", "test_l1", style=None)
    assert figure.axes[0].get_xlabel() == "Sparsity at the last prune (% of parameters)"
    assert "schedule" not in legend(figure)


def test_capacity_has_a_box_and_points_per_group_and_published_medians():
    published = pd.DataFrame({"operator": ["random", "wanda"], "value": [0.87, 0.5]})
    results = some_results()
    figure = figures.capacity_box(results, "operator", published)
    ax = figure.axes[0]
    assert len(ax.patches) == 2
    shares = 100 * results["preserved_at_last_prune"]
    assert heights(ax) == pytest.approx(shares.tolist())
    median = shares[results["operator"] == "random"].median()
    assert any(line.get_ydata().tolist() == [median, median] for line in ax.lines)
    (drawn,) = diamonds(ax)
    assert drawn.get_offsets()[:, 1].tolist() == [87.0]
    assert ax.get_ylabel() == "Preserved share at the last prune (%)"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["none", "random"]


def test_groups_may_be_a_categorical_column_and_one_trial_is_enough():
    results = some_results(trials=1).astype({"operator": "category"})
    ax = figures.capacity_box(
        results[results["schedule"] == "fixed"], "operator", value="preserved"
    ).axes[0]
    assert heights(ax) == pytest.approx([100, 96])


def test_a_capacity_is_a_share():
    with pytest.raises(ValueError, match=r"value='train_l1' must be a share: one of preserved"):
        figures.capacity_box(some_results(), "operator", value="train_l1")


def test_published_comparison_has_a_row_per_result():
    table = pd.DataFrame(
        {
            "label": ["none", "random"],
            "published": [0.145, 0.104],
            "reproduced": [0.15, 0.11],
            "low": [0.14, np.nan],
            "high": [0.16, np.nan],
        },
        index=[7, 3],
    )
    figure = figures.published_comparison(table)
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["none", "random"]
    joins, intervals, drawn = ax.collections
    assert [s[:, 0].tolist() for s in joins.get_segments()] == [[0.145, 0.15], [0.104, 0.11]]
    assert intervals.get_segments()[0].tolist() == [[0.14, 0], [0.16, 0]]
    assert drawn.get_offsets().tolist() == [[0.145, 0], [0.104, 1]]
    assert ax.get_xlabel() == look.LABELS["train_l1"]
    assert ax.get_ylim() == (1.5, -0.5)  # the first row on top


def test_shares_are_compared_in_percent():
    row = {"label": ["random"], "published": 0.87, "reproduced": 0.88, "low": 0.86, "high": 0.9}
    figure = figures.published_comparison(pd.DataFrame(row), value="preserved_at_last_prune")
    ax = figure.axes[0]
    joins, intervals, drawn = ax.collections
    assert joins.get_segments()[0][:, 0] == pytest.approx([87, 88])
    assert intervals.get_segments()[0][:, 0] == pytest.approx([86, 90])
    assert drawn.get_offsets()[0].tolist() == pytest.approx([87, 0])
    assert ax.get_xlabel() == "Preserved share at the last prune (%)"


def test_final_loss_by_schedule_has_operators_side_by_side_and_published_values():
    results = some_results(["none", "random"])
    results.loc[results["operator"] == "none", "schedule"] = "control"
    published = pd.DataFrame(
        {
            "operator": ["none", "random", "random", "wanda"],
            "schedule": ["control", "final-n", "increase", "fixed"],
            "value": [0.1, 0.2, 0.3, 0.4],
        }
    )
    figure = figures.loss_by_schedule(results, published=published, constant=0.27)
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["control", "fixed", "final-n"]
    places = {round(x, 2) for x, _ in points(ax)}
    assert places == {0.0, 1.0, 2.0}  # one operator a group, in its middle
    (drawn,) = diamonds(ax)
    assert drawn.get_offsets().tolist() == [[0, 0.1], [2, 0.2]]
    both = figures.loss_by_schedule(some_results(["none", "random"]))
    assert {round(x, 2) for x, _ in points(both.axes[0])} == {-0.3, 0.3, 0.7, 1.3}
    other = results.rename(columns={"schedule": "pruning"})
    assert figures.loss_by_schedule(other, by="pruning").axes[0].get_xlabel() == "Pruning"


def test_schedules_may_have_a_panel_per_operator():
    table = pd.DataFrame(
        {
            "operator": ["random"] * 2 + ["variance-high"] * 2,
            "schedule": "fixed",
            "epoch": [0, 1] * 2,
            "probability": [0.5, 0.5, 0.1, 0.1],
        }
    )
    left, right = figures.schedule_curves(table, col="operator").axes
    assert (left.get_title(), right.get_title()) == ("random", "variance-high")
    assert right.lines[0].get_ydata().tolist() == [0.1, 0.1]
    assert left.lines[0].get_color() == right.lines[0].get_color()


def test_capacity_now_in_a_panel_per_model_with_its_published_medians():
    results = pd.concat([some_results().assign(model=name) for name in ("standard", "small")])
    published = pd.DataFrame({"operator": ["random"], "model": "standard", "value": [0.87]})
    figure = figures.capacity_box(results, "operator", published, value="preserved", col="model")
    standard, small = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["standard", "small"]
    assert standard.get_ylabel() == "Preserved share (%)"
    assert heights(small) == pytest.approx((100 * some_results()["preserved"]).tolist())
    assert [d.get_offsets()[:, 1].tolist() for d in diamonds(standard)] == [[87.0]]
    assert all(len(d.get_offsets()) == 0 for d in diamonds(small))


def test_dead_units_have_trials_means_and_chance():
    table = pd.DataFrame(
        {
            "operator": ["random", "random", "apoz"],
            "covered": [0.1, 0.3, 1.0],
            "covered_by_chance": [0.1, 0.1, 0.4],
            "aimed": [0.2, 0.2, np.nan],
            "aimed_by_chance": [0.2, 0.2, np.nan],
        }
    )
    figure = figures.dead_units(table)
    covered, aimed = figure.axes
    assert heights(covered) == pytest.approx([10, 30, 100])
    means, chance = covered.lines
    assert means.get_ydata() == pytest.approx([20, 100])
    assert chance.get_ydata() == pytest.approx([10, 40])
    assert heights(aimed) == pytest.approx([20, 20])
    assert legend(figure) == ["mean", "as many weights at random"]


def test_change_of_loss_is_beside_chance():
    table = pd.DataFrame(
        {
            "operator": ["random", "random", "apoz"],
            "change": [0.1, 0.3, -0.01],
            "change_by_chance": [0.2, 0.2, 0.4],
        }
    )
    ax = figures.change_of_loss(table).axes[0]
    assert heights(ax) == pytest.approx([0.1, 0.3, -0.01])
    means, chance = ax.lines
    assert means.get_ydata() == pytest.approx([0.2, -0.01])
    assert chance.get_ydata() == pytest.approx([0.2, 0.4])
    assert ax.get_ylabel() == "Change of test loss by one prune (L1)"


# All of them

CALLS = {
    "loss_over_epochs": (a_history, {}, "train_l1"),
    "preserved_over_epochs": (a_history, {"parameters": PARAMETERS}, "decoder_zeros"),
    "size_over_epochs": (a_history, {"parameters": PARAMETERS}, "cell"),
    "sparsity_versus_loss": (some_results, {}, "schedule"),
    "capacity_box": (some_results, {"by": "operator"}, "preserved_at_last_prune"),
}


@pytest.mark.parametrize("name", CALLS)
def test_frames_are_left_alone_and_a_missing_column_is_named(name):
    make, settings, needed = CALLS[name]
    draw, table = getattr(figures, name), make()
    before, look = table.copy(), dict(mpl.rcParams)
    draw(table, **settings)
    pd.testing.assert_frame_equal(table, before)
    assert dict(mpl.rcParams) == look
    with pytest.raises(ValueError, match=f"has no column '{needed}'; it has "):
        draw(table.drop(columns=needed), **settings)


def test_missing_columns_of_other_tables_are_named():
    with pytest.raises(ValueError, match="table has no column 'probability'"):
        figures.schedule_curves(pd.DataFrame({"schedule": ["fixed"], "epoch": [0]}))
    with pytest.raises(ValueError, match="table has no column 'high'"):
        figures.published_comparison(
            pd.DataFrame(columns=["label", "published", "reproduced", "low"])
        )
    with pytest.raises(ValueError, match="published has no column 'value'"):
        figures.loss_over_epochs(a_history(), published=a_history())


def test_save_writes_both_files_and_equal_figures_give_equal_bytes(tmp_path):
    files = []
    for folder in ("one", "two"):
        figure = figures.loss_over_epochs(a_history(trials=2), constant=0.27)
        files.append(look.save(figure, tmp_path / "new" / folder, "loss-0.5"))
    (png, svg), (other_png, other_svg) = files
    assert (png.name, svg.name) == ("loss-0.5.png", "loss-0.5.svg")
    assert mpl.image.imread(png).shape[1] == 9 * 150
    assert png.read_bytes() == other_png.read_bytes()
    assert svg.read_bytes() == other_svg.read_bytes()
    assert b"<dc:date>" not in svg.read_bytes()
