"""Gradient steps against PyTorch's own Adam; masks, noise, engines; nobody's companions matter."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import ENGINES, evolved, tiny, weights_of
from torch import Tensor, nn
from torch.nn import functional as F

from evoae import evolve
from evoae.evolution.cells import initial
from evoae.networks import kernel, population, training
from evoae.networks.population import Population

ROWS, BITS, BATCH, RATE = 8, 12, 3, 0.01


def drawn(count: int, optimiser: str, kind: str = "plain", masked: bool = False) -> Population:
    generators = [np.random.default_rng(i) for i in range(count)]
    found = population.initialise(BITS, "5-3", kind, generators, "cpu")
    training.prepare(found, optimiser, masked)
    return found


def data(count: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(ROWS, BITS, generator=draw) < 0.7).float() for _ in range(count)]


def batches_of(
    inputs: list[Tensor], loss: str, optimiser: str, rate: float = RATE
) -> training.Batches:
    """One pass; visit v trains autoencoder v; rows in an order of their own."""
    visits = len(inputs)
    pairs = torch.arange(visits)[:, None, None, None].repeat(1, -(-ROWS // BATCH), 1, 2)
    order = torch.from_numpy(
        np.stack([np.random.default_rng(v).permutation(ROWS) for v in range(visits)])
    )
    rates = torch.full((visits,), rate, dtype=torch.float64)
    return training.Batches(pairs, inputs, inputs, order, rates, BATCH, loss, optimiser)


def torch_loss(output: Tensor, y: Tensor, loss: str) -> Tensor:
    return F.l1_loss(output, y) if loss == "l1" else F.binary_cross_entropy(output, y)


def flat(modules: Sequence[nn.Module]) -> Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def everything(found: Population) -> dict[str, Tensor]:
    return {
        f"{number} {name}": tensor.clone()
        for number, side in enumerate(found.sides)
        for name, tensor in side.tensors.items()
    }


# -- against PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", training.LOSSES)
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
def test_steps_equal_pytorchs_adam(optimiser: str, loss: str, engine: str) -> None:
    """Three passes: Adam made anew for each batch, or kept for all."""
    found, x = drawn(2, optimiser), data(2)
    batches = batches_of(x, loss, optimiser)
    modules = [found.member(i) for i in range(2)]
    for _ in range(3):
        training.train(found, batches, engine)
    for i, pair in enumerate(modules):
        start = flat(pair).clone()
        rows = [x[i][batch] for _ in range(3) for batch in batches.order[i].split(BATCH)]
        exact = flat(
            stepped([copy.deepcopy(side).double() for side in pair], rows, loss, optimiser)
        )
        expected = flat(stepped(pair, rows, loss, optimiser))
        assert (expected - start).abs().max() > 5 * RATE  # there was something to get wrong
        actual = torch.cat([side.weights[i] for side in found.sides])
        # Adam divides by a gradient's size: where that is all but zero, rounding decides the step
        rounding = (expected - exact).abs()
        assert rounding.median() < 1e-5
        assert ((actual - exact).abs() <= 1e-4 + 10 * rounding).all()


def stepped(
    pair: Sequence[nn.Module], batches: list[Tensor], loss: str, optimiser: str
) -> Sequence[nn.Module]:
    """An encoder and a decoder after a step of PyTorch's Adam for each batch."""
    parameters = [*pair[0].parameters(), *pair[1].parameters()]

    def adam() -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=RATE, betas=(0.5, 0.999))

    kept = adam()
    for rows in batches:
        stepping = kept if optimiser == "adam" else adam()
        rows = rows.to(parameters[0].dtype)
        stepping.zero_grad()
        torch_loss(pair[1](pair[0](rows)), rows, loss).backward()
        stepping.step()
    return pair


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
def test_a_weight_without_gradient_does_not_move(optimiser: str, engine: str) -> None:
    found, x = drawn(1, optimiser), data(1)
    x[0][:, 4] = 0  # an input that is always 0
    encoder_weight, encoder_bias = found.encoder.layers()[0]
    encoder_bias[0, 2] = -100  # a dead unit
    before = [[part.clone() for part in layer] for side in found.sides for layer in side.layers()]
    training.train(found, batches_of(x, "l1", optimiser), engine)
    assert torch.equal(encoder_weight[0, 2], before[0][0][0, 2])  # into the dead unit
    assert encoder_bias[0, 2] == -100
    assert torch.equal(found.encoder.layers()[1][0][0, :, 2], before[1][0][0, :, 2])  # out of it
    assert torch.equal(encoder_weight[0, :, 4], before[0][0][0, :, 4])
    moved = encoder_weight[0] != before[0][0][0]
    assert moved.any()
    assert not moved[2].any()
    assert not moved[:, 4].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_adam_moves_every_weight_by_the_rate_or_not_at_all(engine: str) -> None:
    """Sign descent, up to the 1e-8 in the denominator."""
    found, x = drawn(1, "adam-per-batch"), data(1)
    one = batches_of(x, "bce", "adam-per-batch")
    one = training.Batches(
        one.pairs[:, :1], x, x, one.order[:, :BATCH].contiguous(), one.rates, BATCH, "bce",
        "adam-per-batch",
    )  # fmt: skip
    before = torch.cat([side.weights for side in found.sides], 1)
    training.train(found, one, engine)
    moved = (torch.cat([side.weights for side in found.sides], 1) - before).abs()
    assert ((moved == 0) | ((moved - RATE).abs() < 1e-5)).all()
    assert (moved > 0).any()


# -- who trains with whom -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
def test_a_visit_does_not_depend_on_its_companions(optimiser: str, engine: str) -> None:
    count = 19  # more than a chunk, and not a multiple of one
    x = data(count)
    batches = batches_of(x, "l1", optimiser)
    together = drawn(count, optimiser)
    training.train(together, batches, engine)
    for picked in ([0], [18], [7, 3], list(reversed(range(count)))):
        apart = drawn(count, optimiser)
        part = training.Batches(
            batches.pairs[picked], [x[i] for i in picked], [x[i] for i in picked],
            batches.order[picked], batches.rates[picked], BATCH, "l1", optimiser,
        )  # fmt: skip
        training.train(apart, part, engine)
        for name, tensor in everything(apart).items():
            assert torch.equal(tensor[picked], everything(together)[name][picked]), name
    untouched = drawn(count, optimiser)
    rest = [i for i in range(count) if i not in (7, 3)]
    training.train(untouched, training.Batches(
        batches.pairs[[7, 3]], [x[7], x[3]], [x[7], x[3]], batches.order[[7, 3]],
        batches.rates[[7, 3]], BATCH, "l1", optimiser,
    ), engine)  # fmt: skip
    for name, tensor in everything(drawn(count, optimiser)).items():
        assert torch.equal(tensor[rest], everything(untouched)[name][rest]), name


@pytest.mark.parametrize("engine", ENGINES)
def test_companions_do_not_matter_at_the_papers_size(engine: str) -> None:
    """Tiny products are computed one way, larger ones by libraries that look at alignment."""
    count, draw = 9, torch.Generator().manual_seed(0)
    x = [(torch.rand(20, 1000, generator=draw) < 0.7).float() for _ in range(count)]

    def trained(picked: list[int]) -> Tensor:
        generators = [np.random.default_rng(i) for i in picked]
        found = population.initialise(1000, "standard", "plain", generators, "cpu")
        training.prepare(found, "adam", masked=False)
        pairs = torch.arange(len(picked))[:, None, None, None].repeat(1, 4, 1, 2)
        rates = torch.full((len(picked),), RATE, dtype=torch.float64)
        order = torch.stack([torch.arange(20)] * len(picked))
        values = [x[i] for i in picked]
        one = training.Batches(pairs, values, values, order, rates, 5, "l1", "adam")
        with training.one_thread():
            training.train(found, one, engine)
        return torch.cat([side.weights for side in found.sides], 1)

    together = trained(list(range(count)))
    for picked in ([0], [1], [7, 3], list(reversed(range(count)))):
        assert torch.equal(trained(picked), together[picked])


def trained_apart_and_together(batch: int, kind: str, optimiser: str, engine: str) -> dict:
    """Three visits of two batches and a part of a third: all at once, and number 1 alone."""
    rows, loss = 2 * batch + batch // 2, "bce" if kind == "variational" else "l1"
    draw = torch.Generator().manual_seed(0)
    x = [(torch.rand(rows, 33, generator=draw) < 0.7).float() for _ in range(3)]
    order = torch.stack([torch.randperm(rows, generator=draw) for _ in range(3)])
    noise = torch.randn(3, rows, 5, generator=draw) if kind == "variational" else None
    found = {}
    for name, picked in {"together": [0, 1, 2], "apart": [1]}.items():
        generators = [np.random.default_rng(i) for i in picked]
        networks = population.initialise(33, "12-5", kind, generators, "cpu")
        training.prepare(networks, optimiser, masked=False)
        pairs = torch.arange(len(picked))[:, None, None, None].repeat(1, -(-rows // batch), 1, 2)
        values = [x[i] for i in picked]
        rates = torch.full((len(picked),), RATE, dtype=torch.float64)
        training.train(
            networks,
            training.Batches(
                pairs, values, values, order[picked], rates, batch, loss, optimiser,
                None if noise is None else noise[picked],
            ),
            engine,
        )  # fmt: skip
        found[name] = everything(networks)
    return found


@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
@pytest.mark.parametrize("kind", ["plain", "variational"])
@pytest.mark.parametrize("batch", [1, 5, 7, 64, 100, 256])
def test_every_batch_size_has_its_bits_and_engines_agree(
    batch: int, kind: str, optimiser: str
) -> None:
    last = {}
    for engine in ENGINES:
        found = trained_apart_and_together(batch, kind, optimiser, engine)
        for name, tensor in found["apart"].items():
            assert torch.equal(tensor[0], found["together"][name][1]), name
        last[engine] = found["together"]
        assert last[engine]["0 count"].tolist() == [2 * batch + batch // 2] * 3
    for name, tensor in last["batched"].items():
        other = last[ENGINES[-1]][name].double()
        # where a gradient is of the size of its rounding, a new Adam may go the other way
        off = (tensor.double() - other).abs() > 1e-3 * (1 + other.abs())
        assert off.double().mean() < 0.01, name


@pytest.mark.parametrize("switching", [False, True])
def test_a_padded_chunk_gives_what_its_autoencoders_give_alone(
    switching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are of one on the CPU; a GPU's are of several, the last filled up with copies."""
    x = data(6)
    one = batches_of(x, "l1", "adam")
    if switching:  # encoder v of the first batch trains with decoder v + 1 of a second pair
        v, batches = torch.arange(6)[:, None, None], one.pairs.shape[1]
        pairs = torch.stack([torch.cat([v, v + 6], 2), torch.cat([v + 6, v], 2)], 2)
        one = replace(one, pairs=pairs.expand(6, batches, 2, 2).contiguous())
    alone, chunked = drawn(13, "adam"), drawn(13, "adam")
    training.train(alone, one, "batched")
    monkeypatch.setattr(training, "chunk_size", lambda found, rows: 4)
    training.train(chunked, one, "batched")
    for name, tensor in everything(chunked).items():
        torch.testing.assert_close(tensor, everything(alone)[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(tensor[12], everything(drawn(13, "adam"))[name][12]), name
    moved = chunked.encoder.weights != drawn(13, "adam").encoder.weights
    assert moved.any(1).tolist() == [True] * (12 if switching else 6) + [False] * (
        1 if switching else 7
    )


def test_a_chunk_is_of_one_on_the_cpu_and_elsewhere_of_what_fits() -> None:
    """By parameters and rows alone: a trial's bits do not depend on how many run beside it."""
    few, many = drawn(1, "adam"), drawn(7, "adam")
    assert training.chunk_size(many, 3) == 1
    for found in (few, many):
        for side in found.sides:
            side.tensors = {key: tensor.to("meta") for key, tensor in side.tensors.items()}
    assert training.chunk_size(few, 3) == training.chunk_size(many, 3) == training.CHUNK
    rows = 1 << 20  # each 12 + 5 + 3 and 3 + 5 + 12 values of 4 bytes
    assert training.chunk_size(many, rows) == (1 << 30) // (4 * rows * 40) == 6
    assert training.chunk_size(many, 1 << 30) == 1


def test_data_that_visits_share_lie_in_a_chunk_once() -> None:
    short, long = torch.arange(6.0).view(3, 2), torch.arange(10.0).view(5, 2) + 100
    tables = training.Tables([short, long, short], torch.tensor([2, 1, 0, 1]))
    assert tables.flat.shape == (8, 2)
    index = torch.tensor([[0, 2], [4, 0], [1, 1], [3, 2]])
    expected = [short[[0, 2]], long[[4, 0]], short[[1, 1]], long[[3, 2]]]
    assert torch.equal(tables.rows(index), torch.stack(expected))


def test_adam_of_many_at_once_is_that_of_each() -> None:
    """Networks of different rates, one of them with more steps behind it."""
    draw = torch.Generator().manual_seed(0)
    together, alone = drawn(3, "adam").encoder, drawn(3, "adam").encoder
    start, rates = together.weights.clone(), torch.tensor([0.1, 0.01, 0.001])
    for step in range(20):
        for networks in (together, alone):
            networks.tensors["steps"] += 1 if step else torch.tensor([1, 1, 8])
        gradient = torch.randn(start.shape, generator=draw)
        training.adam_together(together, gradient.clone(), rates[:, None])
        training.fused_adam(alone, gradient, rates)
    for name in ("weights", "first_moment", "second_moment"):
        torch.testing.assert_close(
            together.tensors[name], alone.tensors[name], atol=1e-5, rtol=1e-4
        )
    moved = (together.weights - start).abs().mean(1)
    assert (moved > 2 * rates).all()


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_losses_in_padded_chunks_are_those_of_each_alone(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five items with two pairs each; two have the same data. And each over all of its data."""
    found, x = drawn(5, "adam"), data(5)
    x[3] = x[1]
    pairs = torch.tensor([[[i, i], [i, (i + 1) % 5]] for i in range(5)])
    rows = torch.tensor([[i, i + 1, 7] for i in range(5)])
    alone = training.batch_losses(found, pairs, x, rows, "l1", "batched")
    for i, j in itertools.product(range(5), range(2)):
        encoder, decoder = found.take([i]), found.take(pairs[i, j, 1:])
        both = Population(encoder.encoder, decoder.decoder)
        expected = (both.reconstruct(x[i][rows[i]][None]) - x[i][rows[i]]).abs().mean()
        torch.testing.assert_close(alone[i, j], expected.double())
    whole = training.data_losses(found, x, "batched")
    monkeypatch.setattr(training, "chunk_size", lambda found, rows: size)
    chunked = training.batch_losses(found, pairs, x, rows, "l1", "batched")
    torch.testing.assert_close(chunked, alone, rtol=1e-6, atol=0)
    chunked = training.data_losses(found, x, "batched")
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    assert whole.shape == (5,)
    assert alone.shape == (5, 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_take_their_steps_one_after_the_other(engine: str) -> None:
    """Encoder 0 with decoder 1, then encoder 2 with decoder 0, on every batch."""
    x, optimiser = data(1), "adam-per-batch"
    one = batches_of(x, "l1", optimiser)
    pairs = torch.tensor([[0, 1], [2, 0]]).repeat(1, 3, 1, 1)
    found = drawn(3, optimiser)
    both = training.Batches(pairs, x, x, one.order, one.rates, BATCH, "l1", optimiser)
    assert both.model_steps == 6
    training.train(found, both, engine)
    by_hand = drawn(3, optimiser)
    for rows, pair in itertools.product(one.order[0].split(BATCH), pairs[0, 0]):
        step = training.Batches(
            pair[None, None, None].contiguous(), x, x, rows[None].contiguous(), one.rates, BATCH,
            "l1", optimiser,
        )  # fmt: skip
        training.train(by_hand, step, engine)
    for name, tensor in everything(found).items():
        assert torch.equal(tensor, everything(by_hand)[name]), name
    fresh = drawn(3, optimiser)
    assert torch.equal(found.encoder.weights[1], fresh.encoder.weights[1])
    assert torch.equal(found.decoder.weights[2], fresh.decoder.weights[2])
    assert not torch.equal(found.decoder.weights[0], fresh.decoder.weights[0])


@pytest.mark.skipif(len(ENGINES) < 2, reason="the kernel is not available")
@pytest.mark.parametrize("loss", training.LOSSES)
def test_engines_agree_up_to_rounding(loss: str) -> None:
    found = {}
    for engine in ENGINES:
        found[engine] = drawn(2, "adam")
        for _ in range(3):
            training.train(found[engine], batches_of(data(2), loss, "adam"), engine)
    for name, tensor in everything(found["batched"]).items():
        other = everything(found["fused"])[name]
        torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-4, msg=name)


# -- regrowth and masks ---------------------------------------------------------------------------


def once(t: int, final: int, s: object) -> float:
    """Prune after epoch 1 only."""
    return float(t == 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
@pytest.mark.parametrize("preset", ["canonical", "lipi-ae-s", "lipi-ae", "all-vs-all"])
def test_masked_weights_stay_exactly_zero(preset: str, optimiser: str, engine: str) -> None:
    e = tiny(
        preset, operator="random", schedule="fixed", probability=0.7, amount=0.2, epochs=5,
        optimiser=optimiser, pruned_weights="masked",
    )  # fmt: skip
    gone = 0
    for state in evolve(e, 2, engine=engine):
        for side in state.population.sides:
            keep = side.tensors["keep"]
            gone += int((~keep).sum())
            assert (side.weights[~keep] == 0).all()
            if optimiser == "adam":
                assert (side.tensors["first_moment"][~keep] == 0).all()
                assert (side.tensors["second_moment"][~keep] == 0).all()
    assert gone > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", training.OPTIMISERS)
def test_masked_zeros_remain_and_regrown_ones_move_again(optimiser: str, engine: str) -> None:
    zeros = {}
    for policy in ("masked", "regrow"):
        e = tiny(
            operator="random", schedule=once, amount=0.5, optimiser=optimiser,
            pruned_weights=policy, epochs=5,
        )  # fmt: skip
        history, _ = evolved(e, engine=engine)
        assert history.pruned.tolist() == [False, True, False, False, False]
        zeros[policy] = (history.encoder_zeros + history.decoder_zeros).tolist()
        last = history.encoder_zeros_at_last_prune + history.decoder_zeros_at_last_prune
        assert last.tolist() == [0, *[zeros[policy][1]] * 4]
    sizes = [12 * 5, 5, 5 * 3, 3, 3 * 5, 5, 5 * 12, 12]
    exact = sum(round(0.5 * size) for size in sizes)
    assert zeros["masked"] == [0, exact, exact, exact, exact]
    assert zeros["regrow"][:2] == [0, exact]
    assert zeros["regrow"][2] < exact


# -- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_denoising_adds_noise_while_training(engine: str) -> None:
    _, plain = evolved(tiny(epochs=1), engine=engine)
    _, noisy = evolved(tiny(epochs=1, kind="denoising"), engine=engine)
    _, silent = evolved(tiny(epochs=1, kind="denoising", input_noise=0.0), engine=engine)
    assert not torch.equal(weights_of(plain), weights_of(noisy))
    assert torch.equal(weights_of(plain), weights_of(silent))


@pytest.mark.parametrize("engine", ENGINES)
def test_denoising_adds_no_noise_while_evaluating(engine: str) -> None:
    still = {"learning_rate": 0.0, "rate_policy": "constant", "epochs": 2}
    plain, _ = evolved(tiny("lipi-ae-s", **still), engine=engine)
    noisy, _ = evolved(tiny("lipi-ae-s", **still, kind="denoising"), engine=engine)
    columns = ["selection_loss", "replacement_loss", "test_loss", "train_l1"]
    assert plain[columns].notna().all().all()
    assert plain[columns].equals(noisy[columns])


def test_denoising_noise_has_its_deviation_and_targets_are_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.setattr(training, "train", lambda found, batches, engine: seen.append(batches))
    evolved(tiny(kind="denoising", input_noise=0.3, bits=200, examples=100, epochs=2))
    noises = [(one.inputs[0] - one.targets[0]) for one in seen]
    for one, noise in zip(seen, noises, strict=True):
        assert noise.std().item() == pytest.approx(0.3, rel=0.02)
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert set(one.targets[0].unique().tolist()) == {0, 1}
    assert not torch.equal(*noises)  # drawn anew in every epoch


@pytest.mark.parametrize("engine", ENGINES)
def test_variational_autoencoders_learn(engine: str) -> None:
    e = tiny(kind="variational", epochs=30, learning_rate=0.02, rate_policy="constant", examples=10)
    assert e.loss == "bce"
    history, state = evolved(e, 2, engine=engine)
    first, last = (history[history.epoch == t].train_l1 for t in (0, 29))
    assert (last.to_numpy() < 0.8 * first.to_numpy()).all()
    encoder, decoder = state.population.member(1)
    x = state.data[1].train
    assert encoder(x).shape == (20, 3)
    assert F.l1_loss(decoder(encoder(x)), x).item() == pytest.approx(last.iloc[1], abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_variational_loss_is_summed_bce_plus_divergence(engine: str) -> None:
    """One step from the same weights against the formula written with PyTorch's own parts."""
    found, x = drawn(1, "adam-per-batch", "variational"), data(1)
    encoder, decoder = found.encoder.module(0), found.decoder.module(0)
    noise = torch.randn(1, BATCH, 3, generator=torch.Generator().manual_seed(1))
    pairs, order = torch.zeros(1, 1, 1, 2, dtype=torch.int64), torch.arange(BATCH)[None]
    rates = torch.tensor([RATE], dtype=torch.float64)
    training.train(
        found,
        training.Batches(pairs, x, x, order, rates, BATCH, "bce", "adam-per-batch", noise),
        engine,
    )
    y = x[0][:BATCH]
    mean, log_variance = encoder(y).chunk(2, dim=1)
    logits = decoder(mean + noise[0] * torch.exp(log_variance / 2))
    total = F.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    total = total - 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    total.backward()
    expected = flat((encoder, decoder)) - RATE * torch.cat(
        [p.grad.flatten() / (p.grad.flatten().abs() + 1e-8) for p in parameters]
    )
    actual = torch.cat([side.weights[0] for side in found.sides])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


# -- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", training.LOSSES)
def test_losses_of_pairs_and_of_whole_data(loss: str, engine: str) -> None:
    found, x = drawn(3, "adam"), data(2)
    pairs = torch.tensor([[[0, 0], [0, 1], [2, 1]], [[1, 2], [1, 1], [0, 2]]])
    rows = torch.tensor([[0, 3, 5], [7, 1, 2]])
    losses = training.batch_losses(found, pairs, x, rows, loss, engine)
    assert losses.shape == (2, 3)
    assert losses.dtype == torch.float64
    for item, k in itertools.product(range(2), range(3)):
        encoder, decoder = pairs[item, k].tolist()
        batch = x[item][rows[item]]
        output = found.member(decoder)[1](found.member(encoder)[0](batch))
        expected = torch_loss(output, batch, loss).item()
        assert losses[item, k].item() == pytest.approx(expected, abs=1e-5)
    whole = training.data_losses(found.take([0, 2], [0, 2]), x, engine, loss)
    for value, i, batch in zip(whole.tolist(), (0, 2), x, strict=True):
        encoder, decoder = found.member(i)
        expected = torch_loss(decoder(encoder(batch)), batch, loss).item()
        assert value == pytest.approx(expected, abs=1e-5)


def test_losses_do_not_train() -> None:
    for engine in ENGINES:
        found = drawn(2, "adam")
        before = everything(found)
        pairs, rows = torch.tensor([[[0, 1]]]), torch.tensor([[0, 1]])
        training.batch_losses(found, pairs, data(1), rows, "l1", engine)
        training.data_losses(found, data(2), engine)
        for name, tensor in everything(found).items():
            assert torch.equal(tensor, before[name])


# -- engines --------------------------------------------------------------------------------------


def test_engines_are_chosen_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [population.widths_of(BITS, "6-3", kind) for kind in ("plain", "variational")]
    with pytest.raises(ValueError, match=r"'warp'.*auto, fused, batched"):
        training.choose_engine("warp", found[0])
    for each in found:
        assert training.choose_engine("batched", each) == "batched"
        assert training.choose_engine("auto", each) == ENGINES[-1]
    deep = population.widths_of(BITS, "-".join(["3"] * 17), "plain")
    assert training.choose_engine("auto", deep) == "batched"
    with pytest.raises(ValueError, match="more than 16 layers"):
        training.choose_engine("fused", deep)
    with pytest.raises(ValueError, match="on the CPU only"):
        training.choose_engine("fused", found[0], "cuda")
    monkeypatch.setattr(kernel, "reason_unavailable", lambda: "no C compiler: 'cc' cannot be run")
    assert training.choose_engine("auto", found[0]) == "batched"
    with pytest.raises(ValueError, match="no C compiler"):
        training.choose_engine("fused", found[0])


def test_the_number_of_threads_is_restored() -> None:
    def fail_inside() -> None:
        with training.one_thread():
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert torch.get_num_threads() == 2
        assert next(evolve(tiny(), engine="batched")).epoch == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_global_generators_are_not_read(engine: str) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the global generator is what must not matter)
        e = tiny("lipi-ae-s", operator="conjunctive", probability=1.0, kind="denoising")
        found.append(weights_of(evolved(e, engine=engine)[1]))
    assert torch.equal(*found)


def test_prepared_tensors_follow_the_optimiser_and_the_policy() -> None:
    for optimiser, masked in itertools.product(training.OPTIMISERS, (False, True)):
        names = set(drawn(2, optimiser, masked=masked).encoder.tensors)
        assert ("first_moment" in names) == (optimiser == "adam")
        assert ("keep" in names) == masked
    assert initial(tiny(), [0], 1, "cpu", "batched").population.encoder.tensors["steps"] == 0
