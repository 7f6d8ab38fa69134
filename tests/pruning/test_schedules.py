"""Schedules: hand-worked values in both readings, targets, and functions of the user."""

from __future__ import annotations

import math
import pickle
import re
from types import ModuleType

import pytest
import torch
from helpers import tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evoae import Experiment, Pruner, Run, run
from evoae.evolution.cells import initial
from evoae.pruning import operators, schedules
from evoae.pruning.registry import Registry
from evoae.pruning.schedules import ScheduleSettings

PROBABILITIES = {name: s for name, s in schedules.SCHEDULES.items() if not s.target}
SETTINGS = ScheduleSettings(probability=0.5, subpopulation=3)

# name, t, value on a clock of 8 epochs with p = 0.5 and a sub-population of 3
VALUES = [
    ("fixed", 0, 0.5),
    ("fixed", 8, 0.5),
    ("increase", 0, 0.0),
    ("increase", 2, 0.125),
    ("increase", 8, 0.5),
    ("decrease", 0, 1.0),
    ("decrease", 2, 0.875),
    ("decrease", 8, 0.5),
    ("population", 0, 0.0),
    ("population", 6, 0.125),
    ("population", 8, 0.5 / 3),
    ("exponential", 0, 0.0),
    ("exponential", 4, 0.5 * (1 - math.exp(-1))),
    ("exponential", 8, 0.5 * (1 - math.exp(-2))),
    ("final-n", 0, 0.0),
    ("final-n", 5, 0.0),
    ("final-n", 6, 0.5),
    ("final-n", 8, 0.5),
    ("prune-after", 0, 0.0),
    ("prune-after", 7, 0.0),
    ("prune-after", 8, 0.5),
    ("prune-once", 5, 0.0),
    ("prune-once", 6, 0.5),  # a quarter of the run is left
    ("prune-once", 7, 0.0),
]


@pytest.mark.parametrize(("name", "t", "value"), VALUES)
def test_hand_worked_values(name: str, t: int, value: float) -> None:
    assert schedules.find(name)(t, 8, SETTINGS) == pytest.approx(value, abs=1e-12)


def test_the_hand_worked_values_cover_the_papers_seven_and_one() -> None:
    paper = {"fixed", "increase", "decrease", "population", "exponential", "final-n", "prune-after"}
    assert {name for name, _, _ in VALUES} == paper | {"prune-once"} == set(PROBABILITIES)


def test_the_last_share_begins_when_it_says() -> None:
    for share, first in ((0.7, 3), (0.1, 9), (0.3, 7), (1.0, 0)):
        s = ScheduleSettings(probability=0.5, last_share=share)
        assert next(t for t in range(11) if schedules.final_n(t, 10, s)) == first


@pytest.mark.parametrize(("t", "value"), [(0, 0.5), (2, 0.375), (8, 0.0)])
def test_decrease_as_intended_falls_to_nothing(t: int, value: float) -> None:
    intended = ScheduleSettings(probability=0.5, decrease="intended")
    assert schedules.decrease(t, 8, intended) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", sorted(PROBABILITIES.keys() - {"decrease"}))
def test_only_decrease_has_two_readings(name: str) -> None:
    intended = ScheduleSettings(probability=0.5, subpopulation=3, decrease="intended")
    for t in range(9):
        assert PROBABILITIES[name](t, 8, intended) == PROBABILITIES[name](t, 8, SETTINGS)


@pytest.mark.parametrize("name", sorted(PROBABILITIES))
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_probabilities_stay_probabilities(name: str, p: float) -> None:
    settings = ScheduleSettings(probability=p, subpopulation=3)
    for final in (0, 1, 7):
        for t in range(final + 1):
            assert 0 <= PROBABILITIES[name](t, final, settings) <= 1


def test_prune_after_fires_only_on_the_clock_of_the_last_epoch() -> None:
    sure = ScheduleSettings(probability=1.0)
    epochs = 6
    as_released = [schedules.prune_after(t, epochs, sure) for t in range(epochs)]
    as_intended = [schedules.prune_after(t, epochs - 1, sure) for t in range(epochs)]
    assert as_released == [0, 0, 0, 0, 0, 0]
    assert as_intended == [0, 0, 0, 0, 0, 1]


def test_steepness_and_last_share_are_read() -> None:
    steep = ScheduleSettings(probability=1.0, steepness=5.0, last_share=0.5)
    assert schedules.exponential(4, 8, steep) == pytest.approx(1 - math.exp(-2.5))
    assert [schedules.final_n(t, 8, steep) for t in (3, 4)] == [0, 1]


@pytest.mark.parametrize(
    ("t", "value"), [(0, 0.0), (4, 0.8 * 0.875), (6, 0.8 * (1 - 1 / 64)), (8, 0.8), (9, 0.8)]
)
def test_cubic_is_a_target_sparsity(t: int, value: float) -> None:
    settings = ScheduleSettings(target_sparsity=0.8)
    assert schedules.cubic(t, 8, settings) == pytest.approx(value, abs=1e-12)
    assert schedules.find("cubic").target
    assert not schedules.find("fixed").target


def test_a_users_function_is_its_own_schedule() -> None:
    def every_third(t: int, final: int, s: ScheduleSettings) -> float:
        return float(t % 3 == 0)

    assert schedules.find(every_third).function is every_third


@pytest.mark.parametrize("kind", [operators, schedules])
def test_a_function_is_found_with_what_is_known_of_it(kind: ModuleType) -> None:
    registry = next(each for each in vars(kind).values() if isinstance(each, Registry))
    kind.register("mine", lambda one, two, three: 0.0)
    for name, entry in registry.items():
        assert kind.find(name) is kind.find(entry) is kind.find(entry.function) is entry
        given = {registry.kind: entry.function}, {registry.kind: entry}, {registry.kind: name}
        if name in registry.own:
            assert len({Experiment(**each).hash() for each in given}) == 1
            assert {getattr(Experiment(**each), registry.kind) for each in given} == {name}


def test_the_function_of_a_target_sets_a_target() -> None:
    by_name, by_function = (
        Experiment(operator="magnitude", schedule=cubic) for cubic in ("cubic", schedules.cubic)
    )
    assert by_function == by_name
    assert by_function.final_target == by_name.target_sparsity
    schedules.register("half", half := lambda t, final, s: 0.5, target=True)
    assert Experiment(schedule=half).has_target
    with Pruner(nn.Linear(4, 4), "magnitude", schedules.cubic, 1) as pruner:
        pruner.module(torch.ones(1, 4))
        assert pruner.masked
        assert pruner.epoch_end()
        assert pruner.report().zeros.iloc[-1] == 10


def test_a_registered_name_is_found_and_cannot_be_taken_again() -> None:
    schedules.register("never", lambda t, final, s: 0.0)
    schedules.register("half", lambda t, final, s: 0.5, target=True)
    assert schedules.find("never")(3, 8, SETTINGS) == 0
    assert not schedules.find("never").target
    assert schedules.find("half").target
    assert set(schedules.SCHEDULES.of_user(["never", "half", "cubic"])) == {"never", "half"}
    for taken in ("never", "half", "fixed", "cubic"):
        with pytest.raises(ValueError, match=f"{taken}.*exists already"):
            schedules.register(taken, lambda t, final, s: 0.0)


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'sometimes'") as caught:
        schedules.find("sometimes")
    for name in schedules.SCHEDULES:
        assert name in str(caught.value)


DRAWN = "points:0,0;0.4,0.9;1,0.9"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (DRAWN, [0, 0.45, 0.9, 0.9, 0.9, 0.9]),
        ("points:0.2,0.5;0.6,0.1", [0.5, 0.5, 0.3, 0.1, 0.1, 0.1]),  # level at both ends
        ("points:0,0;0.4,0;0.4,1;1,1", [0, 0, 1, 1, 1, 1]),  # a step
        ("probability-points:0,1;1,0", [1, 0.8, 0.6, 0.4, 0.2, 0]),
        ("points:0.5,0.25", [0.25] * 6),
    ],
)
def test_points_are_joined_by_straight_lines(name: str, values: list[float]) -> None:
    schedule = schedules.find(name)
    assert [schedule(t, 5, SETTINGS) for t in range(6)] == pytest.approx(values, abs=1e-12)
    assert schedule.target is name.startswith("points")
    assert schedule(0, 0, SETTINGS) == values[-1]  # a run of one epoch is at its end


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9),
    st.integers(1, 50),
)
def test_any_points_make_a_schedule_and_a_name_that_is_read_back(pairs, epochs) -> None:
    pairs.sort(key=lambda pair: pair[0])
    name = schedules.named_by_points("points", pairs)
    assert schedules.points_of(name) == pairs
    assert schedules.spelt(name) == name
    e = Experiment.preset("canonical", operator="magnitude", schedule=name, epochs=epochs)
    assert e.schedule == name
    low, high = min(y for _, y in pairs), max(y for _, y in pairs)
    assert ((e.pruning_probabilities >= low) & (e.pruning_probabilities <= high)).all()


def test_other_spellings_of_points_are_the_same_experiment() -> None:
    one, other = (
        Experiment.preset("canonical", operator="random", schedule=name)
        for name in (DRAWN, "points: 0, -0.0;.40,9e-1 ;1.0,0.90")
    )
    assert one == other
    assert one.hash() == other.hash()
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0,0;",
        "0.5,0;0.4,1",
        "0,1.1",
        "0,nan",
        "-0.1,0",
        "a,b",
        "0,0,0",
        "0,0 1,1",
        "0;0",
        ";".join(["0,0"] * 101),
    ],
)
@pytest.mark.parametrize("kind", schedules.BY_POINTS)
def test_wrong_points_are_refused_in_one_line(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="X never falling") as caught:
        schedules.find(f"{kind}:{text}")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at most 100"):
        schedules.find(f"{kind}:" + ";".join(["0,0"] * 101))


@pytest.mark.parametrize(
    ("name", "idle", "value"),
    [(DRAWN, "target_sparsity", 0.9), (f"probability-{DRAWN}", "probability", 0.4)],
)
def test_what_points_replace_is_refused_beside_them(name: str, idle: str, value: float) -> None:
    words = f"{idle}={value} has no effect with schedule='{name}', whose points say it"
    for preset in ("canonical", "frontier"):
        settings = {"operator": "magnitude", "schedule": name, "drop_fraction": 0.0}
        e = Experiment.preset(preset, **settings)  # the preset's own is not meant
        assert getattr(e, idle) == getattr(Experiment(), idle)
        with pytest.raises(ValueError, match=re.escape(words)):
            Experiment.preset(preset, **settings, **{idle: value})
        with pytest.raises(ValueError, match=re.escape(words)):
            e.replace(**{idle: value})
    with pytest.raises(ValueError, match=re.escape(words)):
        Experiment(schedule="cubic", **{idle: value}).replace(schedule=name)
    with pytest.raises(ValueError, match=re.escape(words)):
        Pruner(nn.Linear(4, 4), operator="magnitude", schedule=name, epochs=5, **{idle: value})


def test_points_are_no_name_to_register() -> None:
    with pytest.raises(ValueError, match="named by points"):
        schedules.register("points:0,0", lambda t, final, s: 0.0)


def test_a_run_prunes_along_drawn_points_to_the_entry(tmp_path) -> None:
    e = tiny(epochs=11, operator="magnitude", schedule=DRAWN, pruned_weights="masked")
    done = run(e, out=tmp_path, workers=1, progress=False)
    zeros = done.history.encoder_zeros + done.history.decoder_zeros
    total = done.population.parameters
    assert (zeros[2:] == [round(e.pruning_at(t) * total) for t in range(2, 11)]).all()
    assert Run(done.folder).experiment == e
    assert run(e, out=tmp_path, workers=1, progress=False).folder == done.folder


@pytest.mark.parametrize("operator", ["set", "rigl"])
def test_operators_that_begin_at_the_target_begin_at_the_last_point(operator: str) -> None:
    e = tiny(epochs=4, operator=operator, schedule=DRAWN)
    state = initial(e, [0], 1, "cpu", "auto")
    zeros = sum(int((~side.tensors["keep"].bool()).sum()) for side in state.population.sides)
    assert zeros == round(0.9 * state.population.parameters)


def test_a_module_is_pruned_along_drawn_points() -> None:
    module = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 20))
    pruner = Pruner(module, operator="magnitude", schedule=DRAWN, epochs=11)
    shares = []
    for _ in range(11):
        module(torch.rand(8, 20)).sum().backward()
        pruner.epoch_end()
        shares.append(sum(pruner.counts()["zeros"]) / pruner.size)
    assert shares == pytest.approx([pruner.experiment.pruning_at(t) for t in range(11)], abs=0.003)
