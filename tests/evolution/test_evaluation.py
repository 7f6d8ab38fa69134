"""What a finished trial is worth: retrieval metrics by hand, mixtures evolved on validation."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny

from evoae import Experiment, run
from evoae.evolution.evaluation import evolve_mixture, mutated, ndcg, recall
from evoae.networks.population import initialise

SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
KNOWN = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]])
HIDDEN = torch.tensor([[0, 1.0, 0, 1.0, 0], [1.0, 0, 0, 0, 0]])


def test_recall_by_hand():
    # user 0 is shown items 1, 2: one of two hidden found; user 1 items 3, 2: none of one
    assert recall(SCORES, KNOWN, HIDDEN, 2) == pytest.approx((1 / 2 + 0) / 2)
    # with four places everything that is not known is shown
    assert recall(SCORES, KNOWN, HIDDEN, 4) == 1
    # at most k hidden items can be found
    assert recall(SCORES[:1], KNOWN[:1], HIDDEN[:1], 1) == 1


def test_ndcg_by_hand():
    # user 0: hits at ranks 1 and 3 of the best 1 and 2; user 1: a hit at rank 4 of the best 1
    first = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    second = 1 / math.log2(5)
    assert ndcg(SCORES, KNOWN, HIDDEN, 4) == pytest.approx((first + second) / 2, rel=1e-6)


def test_known_items_are_never_recommended():
    scores = torch.tensor([[1.0, 0.0]])
    assert recall(scores, torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]]), 1) == 1


def test_users_without_hidden_items_do_not_count():
    nothing = torch.cat([HIDDEN[:1], torch.zeros(1, 5)])
    assert recall(SCORES, KNOWN, nothing, 2) == recall(SCORES[:1], KNOWN[:1], HIDDEN[:1], 2)


def test_k_beyond_the_number_of_items():
    assert recall(SCORES, KNOWN, HIDDEN, 100) == 1
    assert ndcg(SCORES, KNOWN, HIDDEN, 100) == ndcg(SCORES, KNOWN, HIDDEN, 5)


def test_an_interactions_table_gives_retrieval_results(tmp_path):
    pairs = [(user, item) for user in range(40) for item in range(12) if (user + item) % 3]
    path = tmp_path / "plays.csv"
    pd.DataFrame(pairs, columns=["user", "item"]).to_csv(path, index=False)
    experiment = Experiment.preset("canonical", dataset=str(path), model="5-3", epochs=3)
    trial = run(experiment, 1, workers=1, progress=False).result["trials"][0]
    for name in ("recall_20", "recall_100", "ndcg_50"):
        assert 0 <= trial[name] <= 1
        assert 0 <= trial[f"popularity_{name}"] <= 1
    assert trial["recall_100"] == 1  # twelve items: all are shown


def test_a_trial_has_the_sizes_of_its_best_cell():
    settings = {"operator": "magnitude", "schedule": "cubic", "target_sparsity": 0.5}
    experiment = tiny("lipi-ae-s", cells=3, pruned_weights="masked", **settings)
    done = run(experiment, 2, workers=1, progress=False)
    for trial in (0, 1):
        row = done.result["trials"][trial]
        layers = [part for side in done.best(trial, compact=True) for part in side]
        parameters = [p for part in layers for p in part.parameters()]
        weights = [p for p in parameters if p.dim() == 2]
        assert row["compact_parameters"] == sum(p.numel() for p in parameters)
        assert row["macs"] == sum(int((p != 0).sum()) for p in weights)
        assert row["effective_parameters"] == sum(int((p != 0).sum()) for p in parameters)
        left = round(row["best_preserved"] * done.population.parameters)
        assert 0 < row["macs"] < row["effective_parameters"]
        assert row["macs"] < left
    for name in ("effective_parameters", "macs", "compact_parameters"):
        values = [row[name] for row in done.result["trials"]]
        assert done.result["mean"][name] == pytest.approx(np.mean(values))


def population(count: int = 3):
    generators = [np.random.default_rng(i) for i in range(count)]
    return initialise(6, "4-2", "plain", generators, "cpu")


def rows(seed: int, count: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, 6), np.float32))


def test_a_single_autoencoder_is_its_own_mixture():
    found = evolve_mixture(population(), [1], rows(0), rows(1), np.random.default_rng(0))
    one = torch.tensor([1])
    alone = population().take(one, one).reconstruct(rows(1)[None])[0]
    assert found.weights == [1.0]
    assert found.test_l1 == pytest.approx(float((alone - rows(1)).abs().mean()))


def test_validation_never_gets_worse_and_weights_stay_a_mixture():
    networks = population()
    losses = [
        evolve_mixture(
            networks, [0, 1, 2], rows(0), rows(1), np.random.default_rng(5), generations
        ).validation_l1
        for generations in (0, 10, 100)
    ]
    assert losses[0] >= losses[1] >= losses[2]
    assert losses[0] > losses[2]
    found = evolve_mixture(networks, [0, 1, 2], rows(0), rows(1), np.random.default_rng(5))
    assert sum(found.weights) == pytest.approx(1)
    assert min(found.weights) >= 0


def test_it_finds_the_one_good_autoencoder():
    networks, wanted = population(), rows(0)
    with torch.no_grad():  # decoder 2 says what is wanted, whatever its code: by its bias
        decoder = networks.decoder.take([2])
        decoder.weights.zero_()
        decoder.layers()[-1][1][0] = wanted[0].logit()
        networks.decoder.put([2], decoder)
    same = wanted[:1].repeat(8, 1)
    found = evolve_mixture(networks, [0, 1, 2], same, same, np.random.default_rng(0), 400)
    assert found.weights[2] > 0.9
    assert found.test_l1 < 0.05


def test_mutants_are_weights():
    rng = np.random.default_rng(0)
    for _ in range(100):
        found = mutated(np.array([1.0, 0.0, 0.0]), rng)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1)
