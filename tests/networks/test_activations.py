"""Streamed statistics equal numpy on recorded activations, and take no more memory with time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import ENGINES, tiny

from evoae import evolve
from evoae.evolution.cells import initial
from evoae.networks import activations, population, training
from evoae.networks.population import Networks, parameter_count


def networks(count: int = 2, widths: tuple[int, ...] = (2, 3, 2)) -> Networks:
    found = Networks(widths, True, {"weights": torch.zeros(count, parameter_count(widths))})
    activations.reset(found)
    return found


def batches(count: int, rows: int = 4) -> list[list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [
        [torch.randn(2, rows, units, generator=draw).relu() for units in (3, 2)]
        for _ in range(count)
    ]


def test_by_hand() -> None:
    one = networks(1, (1, 2))
    activations.observe(one, [torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])])
    activations.observe(one, [torch.tensor([[[0.0, 2.0]]])])
    (layer,) = activations.statistics(one, 0)
    assert one.tensors["count"].tolist() == [3]
    assert layer.mean.tolist() == pytest.approx([4 / 3, 2 / 3])
    assert layer.deviation.tolist() == pytest.approx([(14 / 9) ** 0.5, (8 / 9) ** 0.5])
    assert layer.zero_share.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert layer.norm.tolist() == pytest.approx([(10 / 3) ** 0.5, (4 / 3) ** 0.5])


def test_streaming_equals_numpy_on_all_batches() -> None:
    found, seen = networks(), batches(7)
    for batch in seen:
        activations.observe(found, batch)
    for i in range(2):
        for number, layer in enumerate(activations.statistics(found, i)):
            values = torch.cat([batch[number][i] for batch in seen]).double().numpy()
            np.testing.assert_allclose(layer.mean, values.mean(0), rtol=1e-6)
            np.testing.assert_allclose(layer.deviation, values.std(0), rtol=1e-6)
            np.testing.assert_allclose(layer.zero_share, (values == 0).mean(0))
            np.testing.assert_allclose(layer.norm, np.sqrt((values**2).mean(0)), rtol=1e-6)


def test_sums_of_two_stretches_add_up() -> None:
    whole, parts, seen = networks(), [networks(), networks()], batches(6)
    for number, batch in enumerate(seen):
        activations.observe(whole, batch)
        activations.observe(parts[number >= 2], batch)
    for name in activations.SUMS:
        added = parts[0].tensors[name] + parts[1].tensors[name]
        torch.testing.assert_close(added, whole.tensors[name])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unit_that_never_changes_has_no_deviation(engine: str) -> None:
    """Sums in double precision leave 1e-9 here; in single precision 1e-5 and more."""
    e = tiny(learning_rate=0.0, examples=100, epochs=2)
    for state in evolve(e, engine=engine):
        if state.epoch == 0:
            weight, bias = state.population.encoder.layers()[0]
            weight.zero_()
            bias[:] = torch.tensor([0.1, 0.7, 1.3, 0.01, 5.0])
            activations.reset(state.population.encoder)
    first = activations.statistics(state.population.encoder, 0)[0]
    assert first.mean.tolist() == pytest.approx([0.1, 0.7, 1.3, 0.01, 5.0])
    assert first.deviation.max() < 1e-6


def test_what_one_example_activates_does_not_depend_on_the_row() -> None:
    generators = [np.random.default_rng(0)] * 7
    for bits in (250, 333, 501, 1000):
        found = population.initialise(bits, "30-10", "plain", generators, "cpu")
        for side in found.sides:
            side.weights[:] = side.weights[:1].clone()
        example = torch.rand(1, bits, generator=torch.Generator().manual_seed(bits))
        with training.one_thread():
            seen = [activations.record(found, i, example) for i in range(7)]
        for other in seen[1:]:
            assert all(torch.equal(seen[0][name], other[name]) for name in other)


def test_reset_forgets_the_networks_at_the_index_only() -> None:
    found = networks()
    activations.observe(found, batches(1)[0])
    other = {name: found.tensors[name][1].clone() for name in activations.SUMS}
    activations.reset(found, 0)
    for name in activations.SUMS:
        assert (found.tensors[name][0] == 0).all()
        assert torch.equal(found.tensors[name][1], other[name])
    nothing = activations.statistics(found, 0)[0]
    for values in (nothing.mean, nothing.deviation, nothing.zero_share):
        assert values.tolist() == [0, 0, 0]


def test_layer_names_and_recorded_shapes() -> None:
    state = initial(tiny(), [0], 1, "cpu", "batched")
    recorded = activations.record(state.population, 0, state.data[0].train)
    assert {name: tuple(values.shape) for name, values in recorded.items()} == {
        "encoder 1": (8, 5),
        "code": (8, 3),
        "decoder 1": (8, 5),
        "output": (8, 12),
    }
    for name in ("encoder 1", "code", "decoder 1"):
        assert recorded[name].min() >= 0
    decoded = state.population.member(0)[1][:-1](recorded["code"])
    torch.testing.assert_close(recorded["output"], decoded)  # before the sigmoid


@pytest.mark.parametrize("engine", ENGINES)
def test_training_observes_what_its_batches_activate(engine: str) -> None:
    """Batch by batch, record the activations before the step; sums must equal numpy's."""
    e = tiny(optimiser="adam-per-batch")
    state = initial(e, [0, 1], 1, "cpu", engine)
    data = [d.train for d in state.data]
    seen: list[list[dict[str, np.ndarray]]] = [[], []]
    own = torch.arange(2).reshape(2, 1, 1, 1).expand(2, 1, 1, 2).contiguous()
    for start in range(0, 8, 3):
        order = torch.arange(8)[start : start + 3].expand(2, -1).contiguous()
        for i in range(2):
            recorded = activations.record(state.population, i, data[i][order[i]])
            seen[i].append({k: v.double().numpy() for k, v in recorded.items()})
        rates = torch.full((2,), 0.01, dtype=torch.float64)
        batches = training.Batches(own, data, data, order, rates, 3, "l1", "adam-per-batch")
        training.train(state.population, batches, engine)
    for i in range(2):
        layers = [
            layer for side in state.population.sides for layer in activations.statistics(side, i)
        ]
        for name, layer in zip(activations.layer_names(state.population), layers, strict=True):
            values = np.concatenate([batch[name] for batch in seen[i]])
            assert len(values) == 8
            np.testing.assert_allclose(layer.mean, values.mean(0), atol=1e-5)
            np.testing.assert_allclose(layer.deviation, values.std(0), atol=1e-5)
            np.testing.assert_allclose(layer.zero_share, (values == 0).mean(0))


def state_bytes(epochs: int) -> int:
    *_, state = evolve(tiny(epochs=epochs, optimiser="adam"), 2, engine="batched")
    tensors = [t for side in state.population.sides for t in side.tensors.values()]
    arrays = [state.learning_rate, *state.records.values()]
    return sum(t.nbytes for t in tensors) + sum(a.nbytes for a in arrays)


def test_memory_does_not_depend_on_the_number_of_epochs() -> None:
    assert state_bytes(3) == state_bytes(30) > 0


def test_statistics_are_counted_since_the_last_prune_or_over_a_visit() -> None:
    def at_the_third(t: int, final: int, s: object) -> float:
        return float(t == 2)

    for window, expected in (("since-prune", [8, 16, 0, 8, 16]), ("visit", [8, 8, 8, 8, 8])):
        e = tiny(operator="random", schedule=at_the_third, statistics_window=window, epochs=5)
        counts = [
            float(state.population.encoder.tensors["count"][0])
            for state in evolve(e, engine="batched")
        ]
        assert counts == expected
