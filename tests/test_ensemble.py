"""Mixtures of a sub-population, evolved on validation."""

import numpy as np
import pytest
import torch

from evoae.ensemble import evolve_mixture, mutated
from evoae.population import initialise


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
