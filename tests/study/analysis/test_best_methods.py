"""The best methods: no dead yardstick, tests among the best and with a baseline, equal sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evoae.study.analysis import best_methods, statistics


def trials_of(means: dict[str, float], n: int = 10, **columns: object) -> pd.DataFrame:
    """Trials that scatter about a mean for each method."""
    noise = np.random.default_rng(0).normal(0, 0.001, (len(means), n))
    rows = [
        {"dataset": "d", "method": name, "target": 0.9, "trial": t, "macs": 10.0,
         "validation_l1": mean, "test_l1": mean + noise[k, t], "constant_test_l1": 0.2}
        for k, (name, mean) in enumerate(means.items())
        for t in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


MEANS = {"frontier": 0.1, "frontier-ring": 0.11, "obd": 0.12, "frontier-magnitude": 0.13}
MEANS |= {"magnitude": 0.14, "random": 0.2, "dense": 0.3}


def test_no_dead_network_is_a_yardstick() -> None:
    table = trials_of(MEANS)
    assert best_methods.living(table) == list(MEANS)[:5]
    collapsed = table.assign(macs=table.macs.where(table.method != "frontier", 0.0))
    assert best_methods.living(collapsed)[0] == "frontier-ring"
    assert best_methods.living(trials_of(MEANS, n=2)) in (list(MEANS)[:5], list(MEANS)[:6])
    diverged = table.assign(validation_l1=table.validation_l1.mask(table.method == "frontier"))
    assert best_methods.living(diverged)[-1] == "frontier"
    nothing = best_methods.among_best(trials_of({"random": 0.2, "dense": 0.3}))
    assert nothing.empty


def test_the_best_are_tested_among_each_other_and_against_the_best_baseline() -> None:
    found = best_methods.among_best(trials_of(MEANS))
    assert len(found) == 6  # the best baseline, obd, is one of the four
    assert (found.p_holm >= found.p * (best_methods.FAMILY - 5) - 1e-12).all()
    assert found.p_holm.min() == pytest.approx(best_methods.FAMILY * 2 / 2**10)
    others = {f"frontier-{k}": 0.1 + 0.001 * k for k in range(4)} | {"magnitude": 0.14}
    found = best_methods.among_best(trials_of(others))
    assert len(found) == best_methods.FAMILY
    assert (found.b == "magnitude").sum() == 4
    assert 2 * best_methods.FAMILY / 2**10 < statistics.LEVEL  # ten trials can decide


def test_losses_are_compared_at_one_size() -> None:
    rows = []
    for method, slope in (("a", 0.0), ("b", 0.1), ("short", 0.0)):
        for macs in (100.0, 10.0, 1.0) if method != "short" else (100.0,):
            loss = 0.5 + slope * np.log10(macs)
            rows += [{"dataset": "d", "method": method, "target": macs, "trial": t, "macs": macs,
                      "validation_l1": loss, "test_l1": loss, "constant_test_l1": 1.0}
                     for t in range(2)]  # fmt: skip
    table = pd.DataFrame(rows)
    found = best_methods.at_size(table, "macs", 10**0.5 / 100)
    assert found.groupby("method").size().to_dict() == {"a": 2, "b": 2}
    assert found.set_index("method").test_l1["b"].to_numpy() == pytest.approx(0.55)
    assert found.macs.to_numpy() == pytest.approx(10**0.5)
    # a method of which one trial does not reach the size is left out
    dead = table.assign(macs=table.macs.mask((table.method == "b") & (table.trial == 1), 0.0))
    assert set(best_methods.at_size(dead, "macs", 0.1).method) == {"a"}
    assert best_methods.at_size(table, "macs", 0.001).empty


def test_the_answer_names_the_best_and_sets_it_against_the_best_baseline() -> None:
    assert "frontier has the lowest mean test loss" in str(best_methods.answer(trials_of(MEANS)))
    assert "Holm's correction over ten tests" in best_methods.answer(trials_of(MEANS)).sure
    dead = best_methods.answer(trials_of({"random": 0.2, "dense": 0.3}))
    assert dead.found == "No method beats the constant predictor."
    ours = best_methods.answer(trials_of({"frontier": 0.1, "random": 0.2}))
    assert "frontier has the lowest mean test loss, 0.100" in ours.found


def test_every_size_has_tests_of_its_own() -> None:
    rows = [
        trials_of(MEANS, target=target).assign(macs=1000 * (1 - target), compact_parameters=1)
        for target in (0.5, 0.9, 0.97)
    ]
    found = best_methods.at_sizes(pd.concat(rows))
    assert set(found["size"]) == {"macs"}  # compacted, all are of one size
    assert found.groupby("share").size().to_dict() == {0.4: 6, 0.2: 6, 0.1: 6}
    assert best_methods.at_sizes(pd.concat(rows).iloc[:0]).empty
