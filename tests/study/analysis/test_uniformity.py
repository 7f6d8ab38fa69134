"""Distances to uniform: cases by hand, and the null that they are measured against."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from evoae import grid, sweep
from evoae.study.analysis import uniformity
from evoae.study.analysis.uniformity import by_trial, contrasts, departure, measure, shared


def uniform_zeros(rng, networks=1, out=30, fan_in=40, share=0.1) -> np.ndarray:
    """As the random operator prunes: a fixed number in each network, without replacement."""
    zeros = np.zeros((networks, out * fan_in), dtype=bool)
    for one in zeros:
        one[rng.choice(out * fan_in, round(share * out * fan_in), replace=False)] = True
    return zeros.reshape(networks, out, fan_in)


def test_distance_and_expectation_by_hand():
    zeros = np.zeros((1, 2, 20), dtype=bool)
    zeros[0, 0, :15] = zeros[0, 1, :5] = True
    found = departure(zeros, "unit")
    # 15 and 5 of 20, where 10 and 10 are even: a quarter would have to move.
    assert (found.zeros, found.distance) == (20, 0.25)
    # A unit's count is hypergeometric: variance 20 * 1/2 * 1/2 * (40 - 20) / 39.
    deviation = np.sqrt(20 / 4 * 20 / 39)
    assert found.expected == pytest.approx(np.sqrt(2 / np.pi) * deviation / 20)
    assert found.ratio == pytest.approx(found.distance / found.expected)
    # Each unit is off by a half, of which chance explains the variance.
    assert found.unevenness == pytest.approx(0.25 - deviation**2 / 100)
    # One degree of freedom: the square of (15 - 10) / deviation.
    assert found.p == pytest.approx(math.erfc(5 / deviation / np.sqrt(2)))


def test_units_are_rows_and_inputs_are_columns():
    zeros = np.zeros((2, 4, 10), dtype=bool)
    zeros[:, 0] = True
    assert departure(zeros, "unit").distance == pytest.approx(0.75)
    assert departure(zeros, "input").distance == 0
    assert departure(zeros.transpose(0, 2, 1), "input").distance == pytest.approx(0.75)
    with pytest.raises(ValueError, match="unknown axis 'row'; choose one of unit, input"):
        departure(zeros, "row")


@pytest.mark.parametrize("axis", uniformity.AXES)
@pytest.mark.parametrize(("networks", "share"), [(1, 0.1), (1, 0.6), (5, 0.1), (3, 0.03)])
def test_uniform_positions_have_ratio_one_and_are_rejected_at_the_level(axis, networks, share):
    rng = np.random.default_rng(4)
    found = [departure(uniform_zeros(rng, networks, share=share), axis) for _ in range(600)]
    assert np.mean([d.ratio for d in found]) == pytest.approx(1, abs=0.04)
    assert np.mean([d.p < 0.05 for d in found]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([d.distance for d in found]) == pytest.approx(found[0].expected, rel=0.05)


def test_a_larger_pool_is_nearer_to_uniform_but_its_ratio_is_not():
    rng = np.random.default_rng(1)
    alone = [departure(uniform_zeros(rng, 1), "unit") for _ in range(200)]
    pool = [departure(uniform_zeros(rng, 10), "unit") for _ in range(200)]
    distances = [np.mean([d.distance for d in sample]) for sample in (alone, pool)]
    assert distances[1] < distances[0] / 2.5  # sqrt(10) is 3.2
    ratios = [np.mean([d.ratio for d in sample]) for sample in (alone, pool)]
    assert ratios == pytest.approx([1, 1], abs=0.05)


def test_silent_units_are_found():
    zeros = uniform_zeros(np.random.default_rng(0))
    zeros[0, :3] = True
    found = departure(zeros, "unit")
    assert found.ratio > 3
    assert found.p < 1e-12


def test_copies_in_a_pool_are_less_uniform_than_independent_networks():
    one = uniform_zeros(np.random.default_rng(0), share=0.2)
    copies = np.repeat(one, 9, axis=0)
    alone, pool = departure(one, "unit"), departure(copies, "unit")
    assert pool.distance == pytest.approx(alone.distance)
    assert pool.ratio == pytest.approx(3 * alone.ratio)
    assert pool.p < alone.p


def skewed_zeros(rng, networks) -> np.ndarray:
    """Independent entries; the first half of the units has three times the zeros of the other."""
    chance = np.where(np.arange(30) < 15, 0.3, 0.1)[:, None]
    return rng.random((networks, 30, 40)) < chance


def test_unevenness_is_of_one_size_in_one_network_and_in_a_pool():
    rng = np.random.default_rng(3)
    for draw, expected in [(skewed_zeros, 0.25), (uniform_zeros, 0.0)]:
        # Half the units have 1.5 times an even share, half have 0.5: a mean square of 0.25.
        found = [
            np.mean([departure(draw(rng, networks), "unit").unevenness for _ in range(200)])
            for networks in (1, 10)
        ]
        assert found == pytest.approx([expected, expected], abs=0.02)


def test_few_positions_share_bins_and_too_few_are_not_measured():
    rng = np.random.default_rng(0)
    few = uniform_zeros(rng, share=20 / 1200)
    assert 0 <= departure(few, "unit").p <= 1
    for share in (9 / 1200, 0, 1, 1191 / 1200):  # in the last case, too few are left
        found = departure(uniform_zeros(rng, share=share), "unit")
        assert found.zeros == round(share * 1200)
        assert np.isnan(
            [found.distance, found.expected, found.ratio, found.unevenness, found.p]
        ).all()


def test_shared_positions_by_hand():
    zeros = np.zeros((3, 2, 5), dtype=bool)
    zeros[0, 0, :4] = zeros[1, 0, 2:5] = zeros[2, 1, :2] = True
    found = shared(zeros)
    # Pairs share 2, 0 and 0 positions; independent ones 4 * 3, 4 * 2 and 3 * 2 tenths.
    assert found.distance == pytest.approx(2 / 3 / 3)  # of three positions in the mean
    assert found.expected == pytest.approx(2.6 / 3 / 3)
    assert found.ratio == pytest.approx(2 / 2.6)
    assert found.unevenness == pytest.approx(2 / 2.6 - 1)
    assert np.isnan(shared(zeros[:1]).ratio)


def test_independent_networks_share_what_chance_allows_and_copies_more():
    rng = np.random.default_rng(2)
    found = [shared(uniform_zeros(rng, 4)) for _ in range(400)]
    assert np.mean([s.ratio for s in found]) == pytest.approx(1, abs=0.02)
    assert np.mean([s.p < 0.05 for s in found]) == pytest.approx(0.05, abs=0.035)
    copied = uniform_zeros(rng, 4)
    copied[1] = copied[0]
    assert shared(copied).p < 1e-6


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = TINY | {"bits": 40, "operator": "random", "amount": 0.3, "probability": 1.0}
    experiments = grid("lipi-ae-s", cells=[1, 3], schedule="fixed", **settings)
    return sweep(experiments, 4, out=tmp_path_factory.mktemp("runs"), workers=1, progress=False)


def test_a_study_is_measured_by_network_and_by_pool(study):
    table = measure(study)
    one, three = (table[table.cells == cells] for cells in (1, 3))
    # 4 trials, 4 layers, 2 axes; and shared positions of the pool
    assert len(one) == 4 * 4 * (2 * (1 + 1) + 1)
    assert len(three) == 4 * 4 * (2 * (1 + 3) + 1)
    pools = three[(three.scope == "population") & (three.axis == "unit")].set_index("trial")
    cells = three[(three.scope == "network") & (three.axis == "unit")]
    assert (cells.groupby("trial").zeros.sum() == pools.groupby("trial").zeros.sum()).all()
    measured = ["zeros", "distance", "expected", "ratio", "unevenness", "p"]
    alone = [
        one[(one.scope == scope) & (one.axis != "shared")][measured].to_numpy()
        for scope in ("network", "population")
    ]
    np.testing.assert_array_equal(*alone)


def test_zeros_measured_are_those_of_the_weights(study):
    table = measure(study)
    layer = study.runs["3"].population.encoder.layers()[0][0]
    place = study.runs["3"].index(2, 1)
    row = table.query("label == '3' and trial == 2 and cell == 1 and layer == 'encoder 1'")
    assert set(row.zeros) == {int((layer[place] == 0).sum())}


def test_means_by_trial(study):
    table = measure(study)
    trials = by_trial(table)
    assert not trials.duplicated(["label", "trial", "scope", "layer", "axis"]).any()
    where = "cells == 3 and trial == 1 and scope == 'network' and layer == 'output'"
    where += " and axis == 'unit'"
    rows, (mean,) = table.query(where), trials.query(where).itertuples()
    assert mean.ratio == pytest.approx(rows.ratio.mean())
    assert mean.rejected == pytest.approx((rows.p < 0.05).mean())


def test_what_was_not_measured_stays_null_and_in_its_place(study):
    table = measure(study)
    table.loc[(table.layer == "encoder 1") & (table.cells == 1), [*uniformity.MEASURED, "p"]] = None
    trials = by_trial(table)
    assert list(trials.layer.unique()) == ["encoder 1", "code", "decoder 1", "output"]
    unmeasured = trials[(trials.layer == "encoder 1") & (trials.cells == 1)]
    assert unmeasured[["ratio", "rejected"]].isna().all(axis=None)
    found = contrasts(trials[trials.scope == "network"]).set_index(["layer", "axis"])
    assert found.finding["encoder 1", "unit"] == "too few trials"
    assert found.n["encoder 1", "unit"] == 0


def a_trial_table(one: list[float], population: list[float]) -> pd.DataFrame:
    where = {"label": "x", "scope": "network", "layer": "code", "axis": "unit"}
    parts = [
        pd.DataFrame({"cells": cells, "trial": range(len(v)), "unevenness": v, "rejected": share})
        for cells, v, share in ((1, one, 0.0), (10, population, 0.5))
    ]
    return pd.concat(parts, ignore_index=True).assign(**where)


def test_contrasts_say_what_the_test_allows():
    low, high = np.linspace(0.9, 1.1, 8), np.linspace(2, 3, 8)
    for one, population, expected in [
        (high, low, "population closer to uniform"),
        (low, high, "population further from uniform"),
        (low, low[::-1], "no difference shown"),
        (high[:5], low[:5], "too few trials"),
        (high[:1], low[:1], "too few trials"),
    ]:
        (row,) = contrasts(a_trial_table(one, population)).to_dict("records")
        assert row["finding"] == expected
        assert (row["rejected, cells 1"], row["rejected, cells 10"]) == (0, 0.5)
        assert row["unevenness, cells 1"] == pytest.approx(np.mean(one))
        assert row["unevenness, cells 10"] == pytest.approx(np.mean(population))
        assert row["shift"] == pytest.approx(np.median(population - one), abs=0.1)
        assert row["low"] <= row["shift"] <= row["high"] or len(one) < 6


def test_the_family_of_holm_is_the_whole_table():
    low, high = np.linspace(0.9, 1.1, 6), np.linspace(2, 3, 6)
    table = a_trial_table(high, low)
    tables = [table.assign(layer=name) for name in ("encoder 1", "code", "output")]
    assert contrasts(table).finding.tolist() == ["population closer to uniform"]
    found = contrasts(pd.concat(tables))
    assert found.p_holm.tolist() == pytest.approx((3 * found.p).tolist())
    assert set(found.finding) == {"no difference shown"}


def test_too_few_trials_give_no_verdict():
    table = pd.DataFrame({"finding": ["too few trials"] * 2, "n": 3})
    answer = uniformity.verdict(table)
    assert "no verdict" in answer.found
    assert "three trials" in answer.sure


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="both with cells 1 and with cells 1"):
        contrasts(a_trial_table([1.0, 1.1], []))
    with pytest.raises(ValueError, match="has no column 'radius'"):
        contrasts(a_trial_table([1.0], [1.0]), by="radius")
