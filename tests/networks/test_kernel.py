"""The fused kernel against a plain loop in double precision, and against torch."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from evoae import resources
from evoae.networks import kernel
from evoae.networks.batches import Batches
from evoae.networks.population import Networks, Population

RATE = 1e-3
EVERY_LOSS = {"l1": functional.l1_loss, "bce": functional.binary_cross_entropy}

needs_kernel = pytest.mark.skipif(
    kernel.reason_unavailable() is not None, reason=str(kernel.reason_unavailable())
)


def make_side(widths: Sequence[int], n: int, seed: int, *, kept: bool = False) -> Networks:
    draw = torch.Generator().manual_seed(seed)
    parts = []
    for i, o in itertools.pairwise(widths):
        bound = 1 / math.sqrt(i)
        parts.append((torch.rand(n, o * (i + 1), generator=draw) * 2 - 1) * bound)
    weights = torch.cat(parts, 1)
    units = sum(widths[1:])
    tensors = {"weights": weights, "count": torch.zeros(n, dtype=torch.float64)}
    for name in ("total", "squares", "zeros"):
        tensors[name] = torch.zeros(n, units, dtype=torch.float64)
    if kept:
        tensors["first_moment"] = torch.zeros_like(weights)
        tensors["second_moment"] = torch.zeros_like(weights)
        tensors["steps"] = torch.zeros(n, dtype=torch.int64)
    return Networks(tuple(widths), True, tensors)


def make_data(rows: int, width: int, seed: int) -> Tensor:
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed))


def layers(row: Tensor, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    result, start = [], 0
    for i, o in itertools.pairwise(widths):
        weight = row[start : start + o * i].reshape(o, i)
        result.append((weight, row[start + o * i : start + o * i + o]))
        start += o * (i + 1)
    return result


def activations(row: Tensor, widths: Sequence[int], x: Tensor, *, decoder: bool) -> list[Tensor]:
    result = []
    network = layers(row, widths)
    for number, (weight, bias) in enumerate(network):
        x = functional.linear(x, weight, bias)
        if not (decoder and number == len(network) - 1):
            x = torch.relu(x)
        result.append(x)
    return result


class Reference:
    """The same training in float64, by autograd and torch.optim.Adam."""

    def __init__(self, encoder: Networks, decoder: Networks) -> None:
        self.sides = (encoder, decoder)
        self.rows = [
            [torch.nn.Parameter(row.double()) for row in side.weights.clone()]
            for side in self.sides
        ]
        self.kept: dict[tuple[int, int], torch.optim.Adam] = {}
        self.seen: dict[tuple[int, int], list[Tensor]] = {}
        self.clear = [torch.ones(side.weights.shape, dtype=torch.bool) for side in self.sides]

    def train(self, pairs, x, y, order, batch_size, rate, loss, optimiser) -> None:
        for b, rows in enumerate(order.split(batch_size)):
            for pair in pairs[b].tolist():
                networks = [rows_[i] for rows_, i in zip(self.rows, pair, strict=True)]
                code = activations(
                    networks[0], self.sides[0].widths, x[rows].double(), decoder=False
                )
                out = activations(networks[1], self.sides[1].widths, code[-1], decoder=True)
                for side, values in enumerate((code, out)):
                    units = torch.cat(values, 1).detach()
                    self.seen.setdefault((side, pair[side]), []).append(units)
                gradients = torch.autograd.grad(
                    EVERY_LOSS[loss](torch.sigmoid(out[-1]), y[rows].double()), networks
                )
                for side, (network, gradient) in enumerate(zip(networks, gradients, strict=True)):
                    keep = self.sides[side].tensors.get("keep")
                    network.grad = gradient if keep is None else gradient * keep[pair[side]]
                    unclear = (network.grad != 0) & (network.grad.abs() < 1e-7)
                    self.clear[side][pair[side]] &= ~unclear
                    key = (side, pair[side])
                    if optimiser == "adam-per-batch" or key not in self.kept:
                        self.kept[key] = torch.optim.Adam([network], lr=rate, betas=(0.5, 0.999))
                    self.kept[key].step()


def one_visit(n: int, batch_size: int, pair: tuple[int, int] = (0, 0)) -> Tensor:
    return torch.tensor(pair).repeat(1, -(-n // batch_size), 1, 1)


def train(
    encoder: Networks, decoder: Networks, x: Tensor, order: Tensor, pairs: Tensor, **options
) -> None:
    visits = len(order)
    batches = {
        "pairs": pairs,
        "inputs": [x] * visits,
        "targets": [x] * visits,
        "order": order,
        "rates": torch.full((visits,), RATE, dtype=torch.float64),
        "batch_size": 5,
        "loss": "l1",
        "optimiser": "adam-per-batch",
    }
    kernel.train(Population(encoder, decoder), Batches(**(batches | options)))


def assert_same_training(reference: Reference, rate: float = RATE) -> None:
    # where positive and negative terms cancel to about Adam's 1e-8, their rounding decides the step
    for number, (side, rows) in enumerate(zip(reference.sides, reference.rows, strict=True)):
        for n, row in enumerate(rows):
            off = (side.weights[n].double() - row.detach()).abs()
            steps = len(reference.seen.get((number, n), []))
            clear = reference.clear[number][n]
            assert clear.double().mean() > 0.9
            assert (off[clear] < 1e-6).double().mean() > 0.999
            assert off.max() <= 2 * rate * steps + 1e-6


WIDTHS = {
    "standard": ((1000, 30, 10), (10, 30, 1000)),
    "large": ((200, 60, 30, 10), (10, 30, 60, 200)),
    "small": ((64, 30, 2), (2, 30, 64)),
    "odd": ((7, 5, 3), (3, 4, 7)),
    "flat": ((16, 16), (16, 16)),
}


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
@pytest.mark.parametrize("loss", ["l1", "bce"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
def test_training_and_statistics_agree_with_autograd(widths, loss, optimiser):
    kept = optimiser == "adam"
    encoder, decoder = (make_side(w, 1, 3 + k, kept=kept) for k, w in enumerate(widths))
    x, y = make_data(40, widths[0][0], 1), make_data(40, widths[0][0], 2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))[:23]
    pairs = one_visit(23, 5)
    reference = Reference(encoder, decoder)
    before = encoder.weights.clone()
    train(encoder, decoder, x, order[None], pairs, targets=[y], loss=loss, optimiser=optimiser)
    reference.train(pairs[0], x, y, order, 5, RATE, loss, optimiser)
    assert (encoder.weights - before).abs().max() > RATE / 2
    assert_same_training(reference)
    for number, side in enumerate((encoder, decoder)):
        seen = torch.cat(reference.seen[number, 0])
        assert side.tensors["count"].tolist() == [23]
        torch.testing.assert_close(side.tensors["total"][0], seen.sum(0), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            side.tensors["squares"][0], (seen**2).sum(0), rtol=1e-3, atol=1e-3
        )
        assert (side.tensors["zeros"][0] - (seen == 0).sum(0)).abs().max() <= 1
        assert (seen == 0).sum() > 0 or number == 1
        if kept:
            assert side.tensors["steps"].tolist() == [5]


@needs_kernel
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6, 7, 8, 9, 16, 33, 64, 100, 256])
def test_every_batch_size_agrees_with_autograd(batch_size):
    encoder, decoder = make_side((20, 9, 4), 1, 1), make_side((4, 9, 20), 1, 2)
    n = 2 * batch_size + batch_size // 2
    x = make_data(n, 20, 1)
    order = torch.arange(n)
    reference = Reference(encoder, decoder)
    pairs = one_visit(n, batch_size)
    train(encoder, decoder, x, order[None], pairs, batch_size=batch_size)
    reference.train(pairs[0], x, x, order, batch_size, RATE, "l1", "adam-per-batch")
    assert_same_training(reference)
    assert decoder.tensors["count"].item() == n


@needs_kernel
@pytest.mark.parametrize(
    ("batch_size", "last"), [(5, 1), (9, 8), (64, 63), (256, 208), (300, 256), (300, 9)]
)
def test_a_smaller_last_batch_has_the_bits_of_one_in_a_call_of_its_own(batch_size, last):
    n = batch_size + last
    x, order = make_data(n, 400, 1), torch.randperm(n, generator=torch.Generator().manual_seed(1))
    trained = []
    for parts in ([order], order.split(batch_size)):
        encoder, decoder = (
            make_side(w, 1, 3 + k, kept=True) for k, w in enumerate(((400, 17, 16), (16, 17, 400)))
        )
        for part in parts:
            pairs = one_visit(len(part), batch_size)
            train(
                *(encoder, decoder, x, part[None].contiguous(), pairs),
                batch_size=batch_size,
                optimiser="adam",
            )
        trained.append([*encoder.tensors.values(), *decoder.tensors.values()])
    for together, alone in zip(*trained, strict=True):
        if together.dtype == torch.float64:  # statistics are summed in another order
            torch.testing.assert_close(together, alone)
        else:
            assert torch.equal(together, alone)


@needs_kernel
@pytest.mark.parametrize("widths", [(37, 5), (37, 20, 5)])
def test_batches_of_one_have_the_bits_of_calls_of_their_own_where_encoders_switch(widths):
    x, order = make_data(12, 37, 1), torch.arange(12)
    encoders = torch.tensor([0, 0, 0, 1, 1, 0, 1, 0, 0, 2, 2, 2])
    pairs = torch.stack([encoders, torch.arange(12) % 2], 1)[None, :, None].contiguous()
    trained = []
    for size in (12, 1):
        encoder, decoder = (make_side(w, 3, 7, kept=True) for w in (widths, widths[::-1]))
        for rows, pair in zip(order.split(size), pairs.split(size, 1), strict=True):
            options = {"batch_size": 1, "optimiser": "adam"}
            train(encoder, decoder, x, rows[None].contiguous(), pair.contiguous(), **options)
        trained.append([*encoder.tensors.values(), *decoder.tensors.values()])
    for together, alone in zip(*trained, strict=True):
        assert torch.equal(together, alone)


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 64])
def test_variational_autoencoders_agree_with_autograd(batch_size, optimiser):
    """Summed BCE and divergence; the noise of a row is that of its place in the order."""
    kept, n = optimiser == "adam", 2 * batch_size + (batch_size + 1) // 2
    encoder, decoder = (
        make_side((37, 20, 18), 1, 1, kept=kept),
        make_side((9, 20, 37), 1, 2, kept=kept),
    )
    x, order = make_data(n, 37, 1), torch.randperm(n, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(1, n, 9, generator=torch.Generator().manual_seed(6))
    rows = [torch.nn.Parameter(side.weights[0].double().clone()) for side in (encoder, decoder)]
    adam = torch.optim.Adam(rows, lr=RATE, betas=(0.5, 0.999))
    seen, unclear = [], [torch.zeros(len(row), dtype=torch.bool) for row in rows]
    for batch, drawn in zip(
        order.split(batch_size), noise[0].double().split(batch_size), strict=True
    ):
        said = activations(rows[0], encoder.widths, x[batch].double(), decoder=True)
        mean, log_variance = said[-1].chunk(2, 1)
        code = mean + drawn * (log_variance / 2).exp()
        out = activations(rows[1], decoder.widths, code, decoder=True)
        loss = functional.binary_cross_entropy_with_logits(
            out[-1], x[batch].double(), reduction="sum"
        )
        loss = loss - 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        for row, gradient in zip(rows, torch.autograd.grad(loss, rows), strict=True):
            row.grad = gradient
        if not kept:
            adam = torch.optim.Adam(rows, lr=RATE, betas=(0.5, 0.999))
        for mask, row in zip(unclear, rows, strict=True):
            mask |= (row.grad != 0) & (row.grad.abs() < 1e-5)
        adam.step()
        seen.append([torch.cat(values, 1).detach() for values in (said, out)])
    batches = Batches(
        one_visit(n, batch_size), [x], [x], order[None], torch.tensor([RATE]).double(), batch_size,
        "bce", optimiser, noise,
    )  # fmt: skip
    before = encoder.weights.clone()
    kernel.train(Population(encoder, decoder, variational=True), batches)
    assert (encoder.weights - before).abs().max() > RATE / 2
    for number, side in enumerate((encoder, decoder)):
        off = (side.weights[0].double() - rows[number].detach()).abs()[~unclear[number]]
        assert len(off) > 0.9 * len(rows[number])
        assert (off < 1e-6).double().mean() > 0.999
        total = torch.cat([batch[number] for batch in seen]).sum(0)
        torch.testing.assert_close(side.tensors["total"][0], total, rtol=1e-3, atol=1e-3)


@needs_kernel
def test_a_variational_autoencoder_is_scored_by_its_means():
    encoder, decoder = make_side((20, 8, 6), 1, 1), make_side((3, 8, 20), 1, 2)
    x = make_data(12, 20, 1)
    said = activations(encoder.weights[0], encoder.widths, x, decoder=True)[-1]
    assert (said[:, :3] < 0).any()  # no ReLU after means
    out = activations(decoder.weights[0], decoder.widths, said[:, :3], decoder=True)[-1]
    both = Population(encoder, decoder, variational=True)
    pairs, rows = torch.zeros(1, 1, 2, dtype=torch.int64), torch.arange(12)[None]
    found = kernel.losses(both, pairs, [x], rows, "l1").item()
    assert found == pytest.approx((torch.sigmoid(out) - x).abs().mean().item(), rel=1e-6)


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
def test_switching_pairs_agree_with_autograd(optimiser):
    kept = optimiser == "adam"
    encoder, decoder = (
        make_side((50, 20, 6), 4, 1, kept=kept),
        make_side((6, 20, 50), 4, 2, kept=kept),
    )
    x, order = make_data(30, 50, 1), torch.arange(30)
    pairs = torch.randint(0, 3, (1, 6, 2, 2), generator=torch.Generator().manual_seed(1))
    reference, untouched = Reference(encoder, decoder), encoder.weights[3].clone()
    train(encoder, decoder, x, order[None], pairs, optimiser=optimiser)
    reference.train(pairs[0], x, x, order, 5, RATE, "l1", optimiser)
    assert_same_training(reference)
    assert torch.equal(encoder.weights[3], untouched)
    for number, side in enumerate((encoder, decoder)):
        uses = torch.bincount(pairs[..., number].flatten(), minlength=4)
        assert torch.equal(side.tensors["count"], 5.0 * uses)
        if kept:
            assert torch.equal(side.tensors["steps"], uses)


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
def test_masked_weights_never_move_whatever_their_moments(optimiser):
    kept = optimiser == "adam"
    encoder, decoder = (
        make_side((33, 9, 5), 1, 1, kept=kept),
        make_side((5, 9, 33), 1, 2, kept=kept),
    )
    for side in (encoder, decoder):
        side.tensors["keep"] = (
            torch.rand(side.weights.shape, generator=torch.Generator().manual_seed(3)) < 0.5
        )
        side.weights.mul_(side.tensors["keep"])
    reference = Reference(encoder, decoder)
    pairs, order, x = one_visit(20, 5), torch.arange(20), make_data(20, 33, 1)
    train(encoder, decoder, x, order[None], pairs, optimiser=optimiser)
    reference.train(pairs[0], x, x, order, 5, RATE, "l1", optimiser)
    assert_same_training(reference)
    if kept:
        encoder.tensors["first_moment"] += 1.0
        train(encoder, decoder, x, order[None], pairs, optimiser=optimiser)
    for side in (encoder, decoder):
        assert (side.weights[~side.tensors["keep"]] == 0).all()


def sparse_side(widths: Sequence[int], seed: int, *, kept: bool, left: float) -> Networks:
    """Three networks with masks that leave the biases and a share of the weights."""
    side = make_side(widths, 3, seed, kept=kept)
    draw = torch.Generator().manual_seed(seed)
    keep = side.tensors["keep"] = torch.rand(side.weights.shape, generator=draw) < left
    for _, biases in side.views(keep):
        biases[:] = True
    side.weights.mul_(keep)
    return side


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
@pytest.mark.parametrize("left", [0.0, 0.01, 0.06])
@pytest.mark.parametrize("batch_size", [1, 5, 8, 9, 64])
def test_layers_of_which_little_is_left_have_the_bits_of_full_ones(batch_size, left, optimiser):
    """A masked weight that is not zero keeps its layer full; this one is too small to be felt."""
    n, x = 2 * batch_size + batch_size // 2, make_data(200, 45, 1)
    order, pairs = torch.arange(n)[None], one_visit(n, batch_size, (1, 1))
    noise = torch.randn(1, n, 9, generator=torch.Generator().manual_seed(6))
    for variational in (False, True):
        code = 18 if variational else 9
        found = {}
        for packed in ("thin", "full"):
            sides = [
                sparse_side(widths, 1, kept=optimiser == "adam", left=left)
                for widths in ((45, 70, 30, code), (9, 30, 70, 45))
            ]
            if packed == "full":
                for side in sides:
                    for layer, mask in zip(
                        side.layers(), side.views(side.tensors["keep"]), strict=True
                    ):
                        i, j = torch.nonzero(~mask[0][1])[0].tolist()
                        layer[0][1, i, j] = 1e-37
            batches = Batches(
                pairs, [x], [x], order, torch.tensor([RATE]).double(), batch_size, "bce", optimiser,
                noise if variational else None,
            )  # fmt: skip
            kernel.train(Population(*sides, variational=variational), batches)
            found[packed] = sides
        for thin, full in zip(found["thin"], found["full"], strict=True):
            keep = thin.tensors["keep"]
            assert (thin.weights[~keep] == 0).all()
            for name, tensor in thin.tensors.items():
                other = full.tensors[name]
                same = tensor == other
                if tensor.shape == keep.shape:
                    same |= ~keep
                assert same.all(), name
        start = sparse_side((9, 30, 70, 45), 1, kept=False, left=left)
        assert (found["thin"][1].weights[1] != start.weights[1]).any()


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
def test_training_with_little_left_agrees_with_autograd(optimiser):
    kept = optimiser == "adam"
    encoder, decoder = (
        sparse_side(widths, 1, kept=kept, left=0.08) for widths in ((80, 60, 40), (40, 60, 80))
    )
    reference, before = Reference(encoder, decoder), encoder.weights.clone()
    x, order, pairs = make_data(40, 80, 1), torch.arange(40), one_visit(40, 7, (2, 2))
    train(encoder, decoder, x, order[None], pairs, batch_size=7, optimiser=optimiser)
    reference.train(pairs[0], x, x, order, 7, RATE, "l1", optimiser)
    assert_same_training(reference)
    moved = encoder.weights != before
    assert moved[2].any()
    assert not moved[:2].any()


@needs_kernel
def test_a_visit_has_the_same_bits_alone_and_among_others():
    def fresh():
        return make_side((37, 12, 5), 3, 1, kept=True), make_side((5, 12, 37), 3, 2, kept=True)

    x = make_data(23, 37, 1)
    order = torch.stack(
        [torch.randperm(23, generator=torch.Generator().manual_seed(v)) for v in range(3)]
    )
    pairs = torch.arange(3)[:, None, None, None].expand(3, 5, 1, 2).contiguous()
    rates = torch.tensor([1e-3, 1e-2, 1e-4], dtype=torch.float64)
    together, apart = fresh(), fresh()
    train(*together, x, order, pairs, rates=rates, optimiser="adam")
    for v in (2, 0, 1):
        one = slice(v, v + 1)
        train(*apart, x, order[one], pairs[one], rates=rates[one], optimiser="adam")
    for a, b in zip(together, apart, strict=True):
        for name in (
            "weights",
            "first_moment",
            "second_moment",
            "steps",
            "total",
            "squares",
            "zeros",
        ):
            assert torch.equal(a.tensors[name], b.tensors[name]), name


@needs_kernel
@pytest.mark.parametrize("optimiser", ["adam-per-batch", "adam"])
@pytest.mark.parametrize("left", [1.0, 0.02])
def test_a_network_that_diverged_spoils_no_other(left, optimiser):
    """What it leaves in memory that the next one uses must not be read: 0 times NaN is NaN."""

    def fresh():
        sides = [
            sparse_side(widths, seed, kept=optimiser == "adam", left=left)
            for seed, widths in enumerate([(60, 17, 5), (5, 17, 60)])
        ]
        for side in sides:
            side.weights[0].masked_fill_(side.tensors["keep"][0], math.nan)
            side.tensors["keep"][1] = True  # full layers after thin ones
        return sides

    x, order = make_data(23, 60, 1), torch.arange(23).repeat(2, 1)
    pairs = torch.arange(2)[:, None, None, None].expand(2, 5, 1, 2).contiguous()
    rates = torch.tensor([1e-3, 1e-3], dtype=torch.float64)
    together, alone = fresh(), fresh()
    train(*together, x, order, pairs, rates=rates, optimiser=optimiser)
    train(*alone, x, order[1:], pairs[1:], rates=rates[1:], optimiser=optimiser)
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.weights[1], b.weights[1])
        assert b.weights[1].isfinite().all()


@needs_kernel
def test_statistics_are_added_to_and_may_be_absent():
    once, twice, without = (
        (make_side((20, 8, 3), 1, 1), make_side((3, 8, 20), 1, 2)) for _ in range(3)
    )
    order, pairs, x = torch.arange(10)[None], one_visit(10, 5), make_data(10, 20, 1)
    for side in without:
        for name in kernel.SUMS:
            del side.tensors[name]
    for side in twice:
        side.tensors["total"] += 100.0
    for sides in (once, twice, without):
        train(*sides, x, order, pairs)
    assert torch.allclose(twice[0].tensors["total"], once[0].tensors["total"] + 100.0, rtol=1e-12)
    assert torch.equal(without[1].weights, once[1].weights)


@needs_kernel
def test_nan_is_not_hidden():
    encoder, decoder = make_side((20, 8, 3), 1, 1), make_side((3, 8, 20), 1, 2)
    x = make_data(10, 20, 1)
    x[3, 4] = math.nan
    train(encoder, decoder, x, torch.arange(10)[None], one_visit(10, 5))
    assert encoder.weights.isnan().any()
    assert decoder.weights.isnan().any()


def torch_loss(
    encoder: Networks, decoder: Networks, pair: Sequence[int], x: Tensor, loss: str
) -> float:
    code = activations(encoder.weights[pair[0]], encoder.widths, x, decoder=False)[-1]
    z = activations(decoder.weights[pair[1]], decoder.widths, code, decoder=True)[-1].double()
    if loss == "bce":
        return functional.binary_cross_entropy_with_logits(z, x.double()).item()
    return functional.l1_loss(torch.sigmoid(z), x.double()).item()


@needs_kernel
@pytest.mark.parametrize("loss", ["l1", "bce"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
def test_losses_agree_with_torch_and_do_not_depend_on_other_items(widths, loss):
    encoder, decoder = make_side(widths[0], 3, 1), make_side(widths[1], 3, 2)
    decoder.weights.mul_(5)  # into the sigmoid's tails
    x = make_data(50, widths[0][0], 1)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(4, 1, 1)
    both = Population(encoder, decoder)
    for n in (5, 1, 13, 50):
        rows = torch.randint(0, 50, (4, n))
        result = kernel.losses(both, pairs, [x] * 4, rows, loss)
        expected = [
            [torch_loss(encoder, decoder, pair, x[r], loss) for pair in item.tolist()]
            for item, r in zip(pairs, rows, strict=True)
        ]
        torch.testing.assert_close(result, torch.tensor(expected).double(), rtol=2e-6, atol=1e-7)
        for m in (3, 1):
            one = slice(m, m + 1)
            alone = kernel.losses(both, pairs[one], [x], rows[one], loss)
            assert torch.equal(alone[0], result[m])


@needs_kernel
def test_sigmoid_is_accurate_and_saturates_as_float32_does():
    """An L1 against 0 is the sigmoid itself; decoder k says z[k], its bias."""

    def sigmoids(z: Tensor) -> Tensor:
        zero = torch.zeros(len(z))
        encoder = Networks((1, 1), True, {"weights": torch.zeros(1, 2)})
        decoder = Networks((1, 1), False, {"weights": torch.stack([zero, z], 1)})
        pairs = torch.stack([zero.long(), torch.arange(len(z))], 1)[None]
        found = kernel.losses(
            Population(encoder, decoder), pairs, [torch.zeros(1, 1)], torch.tensor([[0]]), "l1"
        )
        return found[0]

    z = torch.cat([torch.linspace(-86, 30, 20_001), torch.tensor([1e-30, -1e-30, 0.0])])
    exact = torch.sigmoid(z.double())
    assert ((sigmoids(z) - exact).abs() / exact).max() < 3e-7
    edge = torch.tensor([0.0, 17.5, 1e30, math.inf, -1e30, -math.inf, math.nan])
    s = sigmoids(edge)
    assert s[:4].tolist() == [0.5, 1.0, 1.0, 1.0]
    assert 0 <= s[4] < 1e-37
    assert 0 <= s[5] < 1e-37
    assert s[6].isnan()


@needs_kernel
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "l2"}, "loss='l2': must be one of l1, bce"),
        ({"optimiser": "sgd"}, "optimiser='sgd'"),
        ({"optimiser": "adam"}, "needs first_moment"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"order": torch.tensor([[0, 99]])}, "rows hold 0 to 99: must be 0 to 9"),
        ({"order": torch.tensor([[0.0, 1.0]])}, "order is torch.float32"),
        ({"pairs": torch.tensor([[[[0, 1]]]])}, "decoders of pairs hold 1 to 1: must be 0 to 0"),
        ({"pairs": torch.zeros(1, 2, 1, 2, dtype=torch.int64)}, r"pairs is .* must be"),
        ({"inputs": [torch.rand(10, 9)]}, "inputs is"),
        ({"inputs": [torch.rand(20, 10).T]}, "contiguous"),
        ({"inputs": []}, "one per visit, 1"),
        ({"rates": torch.tensor([1e-3])}, "rates is torch.float32"),
        ({"decoder": make_side((4, 20), 1, 1)}, "the decoder must take the encoder's code"),
        ({"decoder": make_side((3, *[8] * 16, 20), 1, 1)}, "takes 16 layers"),
    ],
)
def test_what_would_crash_is_refused(change, message):
    x = make_data(10, 20, 1)
    change = dict(change)
    decoder = change.pop("decoder", make_side((3, 20), 1, 2))
    population = Population(make_side((20, 3), 1, 1), decoder)
    call = {
        "pairs": one_visit(2, 5),
        "inputs": [x],
        "targets": [x],
        "order": torch.tensor([[0, 1]]),
        "batch_size": 5,
        "rates": torch.tensor([1e-3], dtype=torch.float64),
        "loss": "l1",
        "optimiser": "adam-per-batch",
    }
    with pytest.raises(ValueError, match=message):
        kernel.train(population, Batches(**(call | change)))


@needs_kernel
def test_variational_autoencoders_need_their_noise():
    both = Population(make_side((20, 6), 1, 1), make_side((3, 20), 1, 2), variational=True)
    x, order = make_data(10, 20, 1), torch.arange(10)[None]
    rates = torch.tensor([1e-3], dtype=torch.float64)
    call = (one_visit(10, 5), [x], [x], order, rates, 5)
    for loss, noise, message in (
        ("bce", None, "train on latent noise"),
        ("l1", torch.zeros(1, 10, 3), "and loss='bce'"),
        ("bce", torch.zeros(1, 9, 3), "latent is"),
    ):
        with pytest.raises(ValueError, match=message):
            kernel.train(both, Batches(*call, loss, "adam-per-batch", noise))


LATER = torch.tensor([[0, 9], [0, 1]])  # rows of a first visit to 10 examples, a second to 2


@needs_kernel
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": torch.tensor([[[[1, 0]]], [[[1, 1]]]])}, None),
        ({"pairs": torch.tensor([[[[0, 0]]], [[[2, 1]]]])}, "encoders of pairs hold 0 to 2"),
        ({"pairs": torch.tensor([[[[0, 0]]], [[[1, -1]]]])}, "decoders of pairs hold -1 to 0"),
        ({"order": torch.tensor([[0, 9], [0, 2]])}, "rows hold 0 to 2: must be 0 to 1"),
        ({"order": torch.tensor([[0, 9], [-1, 1]])}, "rows hold -1 to 1: must be 0 to 1"),
    ],
)
def test_every_index_of_every_visit_is_checked_before_anything_moves(change, message):
    data = [make_data(10, 20, 1), make_data(2, 20, 2)]
    encoder, decoder = make_side((20, 3), 2, 1), make_side((3, 20), 2, 2)
    both, pairs = Population(encoder, decoder), torch.tensor([[[[0, 0]]], [[[1, 1]]]])
    call = {"pairs": pairs, "order": LATER, **change}
    rates = torch.full((2,), 1e-3, dtype=torch.float64)
    batches = Batches(
        inputs=data, targets=data, rates=rates, batch_size=5, loss="l1", optimiser="adam-per-batch",
        **call,
    )  # fmt: skip
    before = encoder.weights.clone()
    score = (both, batches.pairs[:, 0].contiguous(), data, batches.order, "l1")
    if message is None:
        kernel.losses(*score)
        kernel.train(both, batches)
        assert not torch.equal(encoder.weights, before)
        return
    with pytest.raises(ValueError, match=message):
        kernel.train(both, batches)
    with pytest.raises(ValueError, match=message):
        kernel.losses(*score)
    assert torch.equal(encoder.weights, before)


@pytest.fixture
def _forgotten_library():
    kernel._library.cache_clear()
    kernel.reason_unavailable.cache_clear()
    yield
    kernel._library.cache_clear()
    kernel.reason_unavailable.cache_clear()


@pytest.mark.usefixtures("_forgotten_library")
def test_a_missing_or_failing_compiler_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no-such-compiler" in kernel.reason_unavailable()
    kernel._library.cache_clear()
    kernel.reason_unavailable.cache_clear()
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'kernel.c:1: error: told to fail' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CC", str(failing))
    assert "told to fail" in kernel.reason_unavailable()


@needs_kernel
@pytest.mark.usefixtures("_forgotten_library")
def test_compiled_once_into_the_cache_directory(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel.reason_unavailable() is None
    assert capfd.readouterr().err.count("compiling the training kernel") == 1
    assert [path.suffix for path in Path(tmp_path, "evoae").iterdir()] == [".so"]
    kernel._library.cache_clear()
    kernel.reason_unavailable.cache_clear()
    assert kernel.reason_unavailable() is None
    assert capfd.readouterr().err == ""


@needs_kernel
@pytest.mark.usefixtures("_forgotten_library")
def test_where_no_cache_can_be_written_it_is_compiled_once_all_the_same(
    monkeypatch, tmp_path, capfd
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for compiled in (1, 0):
        assert kernel.reason_unavailable() is None
        assert capfd.readouterr().err.count("compiling the training kernel") == compiled
        kernel._library.cache_clear()
        kernel.reason_unavailable.cache_clear()
    (own,) = (path for path in tmp_path.iterdir() if path.name != "file")
    assert [path.suffix for path in own.iterdir()] == [".so"]
    own.chmod(0o777)  # whoever else wrote there might have put other code in its place
    resources._usable.cache_clear()
    assert "the compiled kernel cannot be kept" in kernel.reason_unavailable()
