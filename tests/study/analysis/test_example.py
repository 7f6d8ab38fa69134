"""Three networks in a plain loop: equal sizes and budgets, others' pruning beside, in words."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from test_sentences import check_lowest, plain

from evoae.data import datasets
from evoae.study.analysis import example
from evoae.study.analysis.example_networks import NETWORKS, image_of
from evoae.study.analysis.sentences import lowered

COMMON = {
    "dataset": "digits", "trials": 1, "epochs": 2, "learning_rate": 3e-3, "seed": 1, "repeats": 2
}  # fmt: skip
OURS = ["obd (weights)", "obd (units)"]


@pytest.fixture(scope="module")
def found() -> example.Comparison:
    return example.compare(["VAE"], ["obd"], [0.8], **COMMON)


def test_all_methods_end_at_about_one_size(found: example.Comparison) -> None:
    rows = found.results.set_index("method")
    whole = rows.parameters["unpruned"]
    assert rows.compact_parameters["unpruned"] == whole
    for method, size in rows.parameters.drop("unpruned").items():
        assert size == pytest.approx(0.2 * whole, rel=0.15), method
    exact = [OURS[0], "torch.nn.utils.prune (weights)"]
    assert rows.parameters[exact].to_numpy() == pytest.approx(0.2 * whole, rel=0.03)
    assert (rows.compact_parameters <= whole).all()
    assert (rows.macs[["small network", OURS[1]]] < 0.5 * rows.macs["unpruned"]).all()
    assert rows.milliseconds.gt(0).all()
    assert rows.test_l1.between(0.02, 0.6).all()


def test_a_trial_is_the_same_whatever_is_tried_beside(found: example.Comparison) -> None:
    before = torch.random.get_rng_state()
    again = example.compare(["VAE"], [], [0.8], **COMMON).results.set_index("method")
    assert torch.equal(torch.random.get_rng_state(), before)
    one = found.results.set_index("method")
    for method, value in again.test_l1.items():
        assert one.test_l1[method] == value


def test_filters_are_those_of_the_first_layer(found: example.Comparison) -> None:
    drawn = example.filters(found, "VAE", ["obd"], 0.8)
    assert {k: v.shape for k, v in drawn.items()} == dict.fromkeys(["unpruned", *OURS], (16, 9))
    assert (drawn[OURS[1]] == 0).all(1).any()


def test_without_torch_pruning_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "find_spec", lambda name: None)
    alone = example.compare(["autoencoder"], [], [0.8], **COMMON | {"epochs": 1})
    assert alone.results.method.tolist() == [
        "unpruned", "torch.nn.utils.prune (weights)", "small network"
    ]  # fmt: skip
    assert "Torch-Pruning is not installed here" in example.answer(alone.results, 0.8).sure


def test_wrong_names_and_other_data_are_refused() -> None:
    with pytest.raises(ValueError, match="no network 'u-net'; choose from autoencoder, U-Net, VAE"):
        example.compare(["u-net"], [], [0.8], **COMMON)
    data = datasets.load("binary-clusters", seed=1, trial=0, bits=16)
    with pytest.raises(ValueError, match="binary-clusters must hold images whose sides divide by"):
        example.images(torch.zeros(2, 16), data)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_images_of_any_size_and_follow_their_width(name: str) -> None:
    module, x = NETWORKS[name](3), torch.rand(2, 1, 12, 8)
    assert image_of(module(x)).shape == x.shape
    assert next(module.parameters()).shape[0] == 3


# -- in words --------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
CASES = {
    "pruning wins": (0.1, 0.2, 0.3),
    "the small network wins": (0.2, 0.1, 0.3),
    "a tie": (0.1, 0.1, 0.3),
    "pruning diverged": (INF, 0.1, 0.3),
    "the small network diverged": (0.1, NAN, 0.3),
    "all diverged": (INF, NAN, INF),
}
METHODS = ("magnitude (units)", "small network", "Torch-Pruning (units)")


def table(losses: tuple[float, ...], trials: int, timed: bool = True) -> pd.DataFrame:
    rows = [("unpruned", 0.0, 0.05), *zip(METHODS, [0.8] * 3, losses, strict=True)]
    return pd.DataFrame(
        [
            {"network": n, "method": m, "target": t, "trial": k, "test_l1": loss,
             "milliseconds": 2.5 if timed else NAN}
            for n in ("U-Net", "VAE") for m, t, loss in rows for k in range(trials)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("trials", [1, 8])
@pytest.mark.parametrize("case", CASES)
def test_the_answer_says_who_is_lowest_of_all(case: str, trials: int) -> None:
    said = example.answer(table(CASES[case], trials), 0.8)
    plain(said.found)
    plain(said.sure)
    means = dict(zip((m.partition(" (")[0] for m in METHODS), CASES[case], strict=True))
    check_lowest(said.found.replace(" (units)", ""), means)
    assert "For the U-Net with 80 % fewer parameters, " in said.found
    assert "takes 2.5 ms unpruned, 2.5 ms with fewer units and 2.5 ms as a small net" in said.found
    assert ("diverged" in said.found) == (not np.isfinite(CASES[case]).all())
    assert "not installed" not in said.sure


def test_what_was_not_timed_or_not_compared_is_said() -> None:
    said = example.answer(table(CASES["a tie"], 1, timed=False), 0.8)
    assert "The time of the VAE was not measured." in said.found
    alone = table(CASES["a tie"], 1)
    alone = alone[alone.method.isin(["unpruned", "small network"])]
    assert "nothing was compared" in lowered(example.answer(alone, 0.8).found)
    assert re.search("Torch-Pruning is not installed", example.answer(alone, 0.8).sure)
