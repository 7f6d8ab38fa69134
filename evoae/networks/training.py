"""Gradient steps on a whole population, and its losses.

Two engines compute the same thing up to rounding. `fused` is a small compiled kernel that trains
one autoencoder at a time while its weights stay in cache (CPU). `batched` is plain PyTorch over a
chunk of autoencoders and always works: any device, no compiler.

Batched products give other last bits for other batch sizes and thread counts. Chunks are therefore
padded to a fixed size and run on one thread, so a model's numbers do not depend on its companions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from evoae.messages import short
from evoae.networks import activations, kernel
from evoae.networks.batches import LOSSES, OPTIMISERS, Batches
from evoae.networks.population import Networks, Population
from evoae.rules import check_known

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOSSES", "OPTIMISERS", "Batches"]
ENGINES = ("auto", "fused", "batched")
BETAS, EPSILON = (0.5, 0.999), 1e-8
# Of a chunk on an accelerator: autoencoders, their weights, and their activations for a batch.
CHUNK, WEIGHT_BYTES, ACTIVATION_BYTES = 512, 256 << 20, 1 << 30


def check_device(device: Any) -> None:
    """Raise ValueError for a device that is none, or not there."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", str(device)):
        raise ValueError(f"unknown device {short(device)}; choose cpu, cuda or cuda:N")
    if device != "cpu" and int(device[5:] or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not available on this machine; choose cpu")


def choose_engine(engine: str, widths: Sequence[Sequence[int]], device: str = "cpu") -> str:
    """ "fused" or "batched", for encoders and decoders of these widths; `auto` takes the kernel
    where it can run.

    Raises ValueError for an unknown engine, or if the kernel is asked for and cannot run.
    """
    check_known(engine, ENGINES, f"unknown engine {short(engine)}")
    if engine == "batched":
        return engine
    reason = why_not_fused(widths, device)
    if reason and engine == "fused":
        raise ValueError(f"engine 'fused' cannot run here: {reason}")
    return "batched" if reason else "fused"


def why_not_fused(widths: Sequence[Sequence[int]], device: str = "cpu") -> str | None:
    """None where the kernel can train networks of these widths; else why not, in words."""
    if device != "cpu":
        return "it runs on the CPU only"
    if max(map(len, widths)) > kernel.MAX_LAYERS + 1:
        return f"it is not made for more than {kernel.MAX_LAYERS} layers"
    return kernel.reason_unavailable()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, PyTorch uses one thread: more would change the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def prepare(population: Population, optimiser: str, masked: bool) -> None:
    """Add what training keeps beside the weights: statistics, moments and masks."""
    for side in population.sides:
        activations.reset(side)
        # saved networks may come pruned
        zeros = torch.from_numpy(side.zeros()).to(side.weights.device)
        side.tensors["zeros_at_last_prune"] = zeros
        if optimiser == "adam":
            side.tensors["first_moment"] = torch.zeros_like(side.weights)
            side.tensors["second_moment"] = torch.zeros_like(side.weights)
            side.tensors["steps"] = torch.zeros_like(zeros)
        if masked:
            side.tensors["keep"] = side.weights != 0


def train(population: Population, batches: Batches, engine: str) -> None:
    """Train the population in place by one pass of every visit, and observe its activations."""
    if engine == "fused":
        kernel.train(population, batches)
        return
    for visits, real in chunks(len(batches.pairs), chunk_size(population, batches.batch_size)):
        train_chunk(population, batches, visits, real)


def chunk_size(population: Population, rows: int) -> int:
    """Autoencoders in a chunk that see so many rows each: by their size alone, never their number.

    On the CPU one: there the last bits of a batched product depend on the alignment of each of its
    matrices, so on an autoencoder's position in the chunk.
    """
    if population.encoder.weights.device.type == "cpu":
        return 1
    units = sum(sum(side.widths) for side in population.sides)
    weights, activations = 4 * population.parameters, 4 * rows * units
    return max(1, min(CHUNK, WEIGHT_BYTES // weights, ACTIVATION_BYTES // activations))


def chunks(items: int, size: int) -> Iterator[tuple[Tensor, int]]:
    """Indices of chunks, [size] each, and how many are real: the last is filled up by its first."""
    for chunk in torch.arange(items).split(size):
        yield torch.cat([chunk, chunk[:1].expand(size - len(chunk))]), len(chunk)


def train_chunk(population: Population, batches: Batches, visits: Tensor, real: int) -> None:
    """Train at the visits of a chunk, the first `real` of which count."""
    device = population.encoder.weights.device
    pairs, latent = batches.pairs[visits], batches.latent
    constant = bool((pairs == pairs[:, :1, :1]).all())
    pairs, order = pairs.to(device), batches.order[visits].to(device)
    rates = batches.rates[visits].float().to(device)
    noises = None if latent is None else latent[visits].to(device)
    inputs = targets = Tables(batches.inputs, visits)
    if batches.targets is not batches.inputs:
        targets = Tables(batches.targets, visits)
    first = pairs[:, 0, 0, 0], pairs[:, 0, 0, 1]
    moving = population.take(*first) if constant else None
    for number in range(pairs.shape[1]):
        batch = slice(number * batches.batch_size, (number + 1) * batches.batch_size)
        x = y = inputs.rows(order[:, batch])
        if targets is not inputs:
            y = targets.rows(order[:, batch])
        noise = None if noises is None else noises[:, batch]
        for pair in pairs[:, number].unbind(1):
            encoders, decoders = pair.unbind(1)
            stepping = moving or population.take(encoders, decoders)
            step(stepping, x, y, noise, rates, batches.loss, batches.optimiser)
            if not constant:
                put_first(population, encoders, decoders, stepping, real)
    if moving:
        put_first(population, *first, moving, real)


class Tables:
    """The data of a chunk of visits side by side, [rows of all, D]; what several share, once."""

    def __init__(self, data: Sequence[Tensor], visits: Tensor) -> None:
        own = [data[v] for v in visits]
        distinct = {id(table): table for table in own}
        tables = list(distinct.values())
        self.flat = torch.cat(tables) if len(tables) > 1 else tables[0]
        ends = accumulate(map(len, tables), initial=0)
        begins = dict(zip(distinct, ends, strict=False))
        starts = [begins[id(table)] for table in own]
        self.starts = torch.tensor(starts, device=self.flat.device)[:, None]

    def rows(self, index: Tensor) -> Tensor:
        """Rows of each visit's own table at `index` [V, batch]: [V, batch, D]."""
        found = self.flat.index_select(0, (index + self.starts).flatten())
        return found.view(*index.shape, -1)


def put_first(
    population: Population, encoders: Tensor, decoders: Tensor, other: Population, real: int
) -> None:
    """Write back the first `real` autoencoders of a padded chunk."""
    for networks, index, theirs in zip(
        population.sides, (encoders, decoders), other.sides, strict=True
    ):
        kept = theirs if real == len(theirs) else theirs.take(torch.arange(real))
        networks.put(index[:real], kept)


def step(
    population: Population,
    x: Tensor,
    y: Tensor,
    noise: Tensor | None,
    rates: Tensor,
    loss: str,
    optimiser: str,
) -> None:
    """One gradient step of each of P autoencoders on its own batch [P, batch, D]."""
    encoder, decoder = population.sides
    encoded = encoder.activations(x)
    code = encoded[-1]
    if noise is not None:
        mean, log_variance = code.chunk(2, dim=-1)
        deviation = (0.5 * log_variance).exp()
        code = mean + noise * deviation
    decoded = decoder.activations(code)
    # the loss is a mean over the batch; that of variational autoencoders is a sum
    delta = loss_gradient(decoded[-1], y, loss, 1.0 if noise is not None else 1 / y[0].numel())
    gradient, delta = gradients(decoder, code, decoded, delta)
    if noise is not None:
        # divergence: -1/2 sum (1 + log variance - mean^2 - variance)
        spread = (0.5 * log_variance.exp() - 0.5) + 0.5 * (delta * noise * deviation)
        delta = torch.cat([delta + mean, spread], -1)
    elif encoder.last_relu:
        delta.masked_fill_(code <= 0, 0)
    activations.observe(decoder, decoded)
    update(decoder, gradient, rates, optimiser)
    gradient, _ = gradients(encoder, x, encoded, delta, flows=False)
    activations.observe(encoder, encoded)
    update(encoder, gradient, rates, optimiser)


def loss_gradient(logits: Tensor, y: Tensor, loss: str, scale: float) -> Tensor:
    """Gradient of `scale` times the summed loss, by the outputs before the sigmoid."""
    s = logits.sigmoid()
    if loss == "bce":
        return s.sub_(y).mul_(scale)
    return torch.ops.aten.sigmoid_backward((s - y).sign_().mul_(scale), s)


def gradients(
    networks: Networks, x: Tensor, seen: list[Tensor], delta: Tensor, flows: bool = True
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights [P, parameters], and of the inputs x [P, batch, in] if it `flows`.

    `seen` are the activations of all layers, `delta` the gradient of the last before its ReLU.
    """
    found = torch.empty_like(networks.weights)
    layers, parts = networks.layers(), networks.views(found)
    for number in reversed(range(len(layers))):
        below = seen[number - 1] if number else x
        weight, bias = parts[number]
        torch.bmm(delta.mT, below, out=weight)
        torch.sum(delta, 1, out=bias)
        if number or flows:
            delta = torch.bmm(delta, layers[number][0])
        if number:
            delta.masked_fill_(below <= 0, 0)
    return found, delta


def loss_of(logits: Tensor, y: Tensor, loss: str) -> Tensor:
    """Mean loss over batch and bits, [P], of outputs before the sigmoid [P, batch, D]."""
    if loss == "l1":
        return torch.nn.functional.l1_loss(logits.sigmoid(), y, reduction="none").mean((1, 2))
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return losses.mean((1, 2))


def update(networks: Networks, gradient: Tensor, rates: Tensor, optimiser: str) -> None:
    """Move the weights by Adam: a persistent one, or new for every batch.

    A new Adam's first step has moments g and g^2 after bias correction: the weight moves by
    rate * g / (|g| + 1e-8). A masked weight gets no gradient, so its moments stay zero too.
    """
    tensors, rates = networks.tensors, rates[:, None]
    if "keep" in tensors:
        gradient = gradient * tensors["keep"]
    if optimiser == "adam-per-batch":
        change = rates * gradient
        networks.weights.sub_(change.div_(gradient.abs_().add_(EPSILON)))
        return
    tensors["steps"] += 1
    if networks.weights.device.type == "cpu":
        fused_adam(networks, gradient, rates[:, 0])
    else:
        adam_together(networks, gradient, rates)


def fused_adam(networks: Networks, gradient: Tensor, rates: Tensor) -> None:
    """PyTorch's own step, one network after the other: one pass over memory, which counts here."""
    from torch.optim.adam import adam

    own = (networks.tensors[name] for name in ("weights", "first_moment", "second_moment", "steps"))
    for weights, first, second, steps, g, rate in zip(*own, gradient, rates, strict=True):
        adam(
            [weights],
            [g],
            [first],
            [second],
            [],
            [steps.float() - 1],  # it counts this step itself
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate.item(),
            weight_decay=0.0,
            eps=EPSILON,
        )


def adam_together(networks: Networks, gradient: Tensor, rates: Tensor) -> None:
    """The same for all networks at once, with a rate [P, 1] for each, which PyTorch's has not."""
    tensors, (beta1, beta2) = networks.tensors, BETAS
    steps = tensors["steps"][:, None]
    first = tensors["first_moment"].lerp_(gradient, 1 - beta1)
    second = tensors["second_moment"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # new memory costs more than arithmetic, and the gradient's is free now
    correction = (1 - beta2**steps).sqrt()
    deviation = torch.sqrt(second, out=gradient).add_(EPSILON * correction)
    change = torch.div(first, deviation, out=gradient)
    networks.weights.addcmul_(change, -rates * correction / (1 - beta1**steps))


def batch_losses(
    population: Population,
    pairs: Tensor,
    data: Sequence[Tensor],
    rows: Tensor,
    loss: str,
    engine: str,
) -> Tensor:
    """Losses of several pairs of each of M items on a batch of its own, float64 [M, k].

    `pairs` int64 [M, k, 2] (encoder, decoder), `data` M tensors [rows, D], `rows` int64 [M, batch].
    """
    if engine == "fused":
        return kernel.losses(population, pairs, data, rows, loss)
    found, (items, k) = [], pairs.shape[:2]
    device = population.encoder.weights.device
    index = rows.to(device)
    size = -(-chunk_size(population, rows.shape[1]) // k)  # of items with k pairs each
    for chunk, real in chunks(items, size):
        encoders, decoders = pairs[chunk].to(device).flatten(0, 1).unbind(1)
        member = population.take(encoders, decoders)
        own = [data[item].index_select(0, index[item]) for item in chunk]
        x = torch.stack(own) if size > 1 else own[0][None]  # all of large data: no second copy
        x = x[:, None].expand(size, k, *x.shape[1:]).flatten(0, 1)
        with torch.no_grad():
            logits = member.activations(x)[1][-1]
            found.append(loss_of(logits, x, loss).double().view(size, k)[:real].cpu())
    return torch.cat(found)


def data_losses(
    population: Population, data: Sequence[Tensor], engine: str, loss: str = "l1"
) -> Tensor:
    """Loss of every autoencoder over a data set of its own, float64 [P]: all of as many rows."""
    found = []
    for chunk in torch.arange(len(data)).split(chunk_size(population, len(data[0]))):
        own, tables = chunk[:, None, None].repeat(1, 1, 2), [data[i] for i in chunk]
        everything = torch.arange(len(tables[0])).repeat(len(chunk), 1)
        found.append(batch_losses(population, own, tables, everything, loss, engine)[:, 0])
    return torch.cat(found)
