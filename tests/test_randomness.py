"""Streams: the same key gives the same numbers, another key others, and nothing else matters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from evoae.randomness import PURPOSES, normals, stream, streams


def test_the_same_key_gives_the_same_numbers() -> None:
    one, other = stream(1, 2, 3, 4, "order"), stream(1, 2, 3, 4, "order")
    assert np.array_equal(one.random(100), other.random(100))


def test_every_part_of_the_key_gives_another_stream() -> None:
    keys = itertools.product((0, 1), (0, 1), (0, 1), (0, 1), PURPOSES)
    first = [tuple(stream(*key).integers(0, 2**63, 4).tolist()) for key in keys]
    assert len(set(first)) == len(first) == 16 * len(PURPOSES)


def test_neighbouring_streams_do_not_overlap() -> None:
    # Purpose, cell and epoch lie in the upper words of the counter, draws move the lowest one.
    long = set(stream(1, 0, 0, 0, "data").integers(0, 2**63, 100_000).tolist())
    for key in ((1, 0, 1, 0), (1, 0, 0, 1), (1, 1, 0, 0), (2, 0, 0, 0)):
        assert not long & set(stream(*key, "data").integers(0, 2**63, 100).tolist())


def test_draws_of_other_streams_and_global_generators_change_nothing() -> None:
    expected = stream(5, 0, 0, 0, "data").random(5)
    np.random.seed(0)  # noqa: NPY002 (the global generator is what must not matter)
    torch.manual_seed(0)
    stream(5, 0, 0, 0, "split").random(1000)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert np.array_equal(stream(5, 0, 0, 0, "data").random(5), expected)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_draws_are_uniform() -> None:
    means = [stream(1, trial, 0, 0, "operator").random(1000).mean() for trial in range(20)]
    assert np.mean(means) == pytest.approx(0.5, abs=0.01)
    assert np.std(means) == pytest.approx(1 / np.sqrt(12 * 1000), rel=0.6)


def test_an_unknown_purpose_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (a slip of a programmer, not of a user)
        stream(1, 0, 0, 0, "lunch")


def test_large_seeds_are_seeds_of_their_own() -> None:
    assert stream(2**64 - 1, 0, 0, 0, "data").random() != stream(0, 0, 0, 0, "data").random()


def test_streams_are_those_of_the_places_one_after_the_other():
    places = [(0, 0), (0, 3), (7, 1)]
    for generator, (trial, cell) in zip(streams(5, places, 2, "operator"), places, strict=True):
        alone = stream(5, trial, 2, cell, "operator")
        # an odd number of 32-bit draws leaves half a word behind, which must not reach the next
        assert generator.random(3, dtype=np.float32).tolist() == (
            alone.random(3, dtype=np.float32).tolist()
        )
        assert generator.integers(0, 1000, 9).tolist() == alone.integers(0, 1000, 9).tolist()


def test_normals_are_gaussian_and_their_streams_own() -> None:
    before = torch.get_rng_state()
    drawn = [normals(stream(0, trial, 2, 3, "input noise"), (300, 100), 0.5) for trial in (0, 0, 1)]
    try:  # what PyTorch makes by default is another's affair
        torch.set_default_dtype(torch.float64)
        drawn[1] = normals(stream(0, 0, 2, 3, "input noise"), (300, 100), 0.5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] == drawn[2]).float().mean() < 0.01
    for numbers in drawn:
        assert numbers.shape == (300, 100)
        assert numbers.dtype == torch.float32
        ranks = scipy.stats.kstest(numbers.flatten().numpy(), "norm", args=(0, 0.5))
        assert ranks.pvalue > 0.001  # the seeds are fixed
