"""How an operator meets a population: what it is shown, and how its masks are applied."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from evoae.networks import activations
from evoae.networks.activations import UnitStatistics
from evoae.networks.gradients import Gradients, RowGradients, by_row
from evoae.networks.population import Networks, Population, initial_bounds
from evoae.pruning import allocation
from evoae.pruning.layer import Layer, Masks, OperatorSettings
from evoae.pruning.operators import Operator
from evoae.pruning.scores import random as random_scores


class Examined:
    """What operators may ask about autoencoder i, computed once and only if one asks.

    Layers are counted through, from the encoder's first to the output.
    """

    def __init__(
        self,
        population: Population,
        i: int,
        examples: Callable[[], Tensor],
        rows: Callable[[], Tensor],
        loss: str,
    ) -> None:
        self.population, self.i, self.examples = population, i, examples
        self.rows, self.loss = rows, loss

    def layers(self) -> list[Layer]:
        """Every layer of the autoencoder, from the encoder's first to the output."""
        kept = {name: self.tensors(name) for name in ("weights", "keep", "movement", "sensitivity")}
        return [
            Layer(
                weight,
                bias,
                lambda n=number: self.statistics[n],
                lambda n=number: self.input_norm(n),
                lambda n=number: self.recalled[n],
                kept["keep"][number],
                lambda n=number: self.gradients[n],
                lambda n=number: self.curvature[n],
                kept["movement"][number],
                kept["sensitivity"][number],
            )
            for number, (weight, bias) in enumerate(kept["weights"])
        ]

    def tensors(self, name: str) -> list[Masks] | list[None]:
        """What the autoencoder has by that name, by layer; None for each if it has nothing."""
        if name in self.population.encoder.tensors:
            return layers_of(self.population, name, self.i)
        return [None] * sum(len(side.widths) - 1 for side in self.population.sides)

    @functools.cached_property
    def by_row(self) -> list[RowGradients]:
        """Gradients of the training loss at the present weights, by layer and row."""
        return by_row(self.population, self.i, self.rows(), self.loss)

    @functools.cached_property
    def gradients(self) -> list[Gradients]:
        """Their means, by layer."""
        return [layer.mean() for layer in self.by_row]

    @functools.cached_property
    def curvature(self) -> list[Masks]:
        """Mean square gradients of weight and bias, by layer: Adam's if they are kept."""
        if "second_moment" in self.population.encoder.tensors:
            return self.tensors("second_moment")
        return [layer.mean_squares() for layer in self.by_row]

    @functools.cached_property
    def drawn(self) -> Tensor:
        """The examples that an operator recalls, [n, D]."""
        return self.examples().cpu()

    @functools.cached_property
    def recalled(self) -> list[Tensor]:
        """Activations for those examples, by layer: [n, out] each."""
        return list(activations.record(self.population, self.i, self.drawn).values())

    @functools.cached_property
    def statistics(self) -> list[UnitStatistics]:
        """What units did while training, by layer."""
        sides = (activations.statistics(side, self.i) for side in self.population.sides)
        return [layer for side in sides for layer in side]

    def input_norm(self, number: int) -> Tensor:
        """Root mean square of each input of a layer, [in]: of the data, or of units before it."""
        if number == 0:
            return self.drawn.double().square().mean(0).sqrt()
        norm = self.statistics[number - 1].norm
        first_of_decoder = len(self.population.encoder.widths) - 1
        return self.population.code(norm) if number == first_of_decoder else norm


def nothing_to_look_at(i: int) -> Tensor:
    """Stands where no examples, or rows for gradients, were given."""
    raise ValueError("the operator asks for examples or gradients, and none were given")


def prune(
    population: Population,
    index: Sequence[int],
    operator: Operator,
    generators: Iterable[np.random.Generator],
    settings: OperatorSettings,
    examples: Callable[[int], Tensor] = nothing_to_look_at,
    rows: Callable[[int], Tensor] = nothing_to_look_at,
    loss: str = "l1",
) -> list[list[Masks]]:
    """Apply an operator to all layers of the autoencoders at `index`, in place; count their zeros.

    Each draws from its generator; `examples(i)` gives the [n, D] that `Layer.recall` shows of
    autoencoder i, and `rows(i)` those for the gradients of `loss`, if an operator asks. Where the
    population keeps masks, the pruned entries and their optimiser moments stay zero from now on.
    Returns the masks of what was kept, per autoencoder and layer. Raises ValueError if the
    operator's masks are not boolean tensors of the layer's shapes.
    """
    on_cpu, found = population.encoder.weights.device.type == "cpu", []
    near = population if on_cpu else population.take(index).cpu()
    encoders = len(near.encoder.widths) - 1
    opens = operator.regrows or settings.exchange > 0
    places = index if on_cpu else range(len(index))
    for at, i, rng in zip(places, index, generators, strict=True):
        given = functools.partial(examples, i), functools.partial(rows, i)
        layers = Examined(near, at, *given, loss).layers()
        masks = decide(operator, layers, rng, settings)
        fresh = initial_values(near, rng) if operator.renews else [None, None]
        apply(near.encoder, at, masks[:encoders], opens, fresh[0])
        apply(near.decoder, at, masks[encoders:], opens, fresh[1])
        found.append(masks)
    if not on_cpu:
        population.put(index, near)
    return found


def decide(
    operator: Operator, layers: list[Layer], rng: np.random.Generator, s: OperatorSettings
) -> list[Masks]:
    """The keep-masks of one autoencoder's layers: by scores if there is a target, else by layer."""
    if s.to_target and operator.score is not None:
        scores = [operator.score(layer, rng, s) for layer in layers]
        units = isinstance(scores[0], Tensor)
        if units:
            scores = [allocation.by_unit(*each, rng) for each in zip(layers, scores, strict=True)]
        masks = allocation.select(layers, scores, rng, s, units)
        if s.exchange:
            masks = allocation.exchange(layers, masks, scores, rng, s)
        return masks
    masks = [checked(operator(layer, rng, s), layer, operator) for layer in layers]
    if s.prune_biases:
        return masks
    return [(mask, layer.active_bias) for (mask, _), layer in zip(masks, layers, strict=True)]


def begin_sparse(
    population: Population, i: int, rng: np.random.Generator, settings: OperatorSettings
) -> None:
    """Mask autoencoder i at random, up to the target: where `set` and `rigl` begin."""
    random = Operator(nothing_to_look_at, random_scores)
    prune(population, [i], random, [rng], dataclasses.replace(settings, exchange=0.0))


def at_target(population: Population, operator: Operator, settings: OperatorSettings) -> np.ndarray:
    """Of which autoencoders nothing is left to prune, or to swap, [P]."""
    pruned = sum(side.zeros() for side in population.sides)
    return is_reached(operator, settings, pruned, population.parameters)


def is_reached(
    operator: Operator, settings: OperatorSettings, pruned: np.ndarray, parameters: int
) -> np.ndarray:
    """Of which counts of pruned parameters, of so many, a target is reached and nothing swaps."""
    if operator.regrows or settings.exchange:
        return np.full_like(pruned, operator.regrows and settings.amount == 0, dtype=bool)
    return pruned >= round(settings.amount * parameters)


def layers_of(population: Population, name: str, i: int) -> list[tuple[Tensor, Tensor]]:
    """Views, from the first layer to the output, of what autoencoder i has by that name."""
    rows = ((side, side.tensors[name].numpy()[i]) for side in population.sides)
    layers = [layer for side, row in rows for layer in side.views(row)]
    return [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]


def initial_values(population: Population, rng: np.random.Generator) -> list[np.ndarray]:
    """Fresh weights of one autoencoder as they are before training: of encoder and decoder."""
    bounds = (initial_bounds(side.widths) for side in population.sides)
    return [(2 * rng.random(len(bound), np.float32) - 1) * bound for bound in bounds]


def apply(
    networks: Networks,
    i: int,
    masks: list[Masks],
    regrow: bool,
    fresh: np.ndarray | None = None,
) -> None:
    """Set to zero, or to `fresh` values, what the masks of network i do not keep.

    It works on arrays: a wave prunes few networks, and small steps of torch take longer.
    """
    tensors = {key: tensor.numpy() for key, tensor in networks.tensors.items()}
    keep = np.concatenate([part.numpy().ravel() for layer in masks for part in layer])
    factor = keep.view(np.uint8)
    if "removed" in tensors:  # added by whoever wants to see what the last prune took away
        tensors["removed"][i] = tensors["weights"][i] * ~keep
    tensors["weights"][i] *= factor
    if fresh is not None:
        tensors["weights"][i] += fresh * ~keep
    if "keep" in tensors:
        tensors["keep"][i] = keep if regrow else keep & tensors["keep"][i]
        for moment in {"first_moment", "second_moment"} & tensors.keys():
            tensors[moment][i] *= factor
    if "zeros_at_last_prune" in tensors:
        pruned = ~tensors["keep"][i] if "keep" in tensors else tensors["weights"][i] == 0
        tensors["zeros_at_last_prune"][i] = np.count_nonzero(pruned)


def checked(masks: Masks, layer: Layer, operator: Operator) -> Masks:
    """The two masks, if they fit the layer. Raises ValueError if they do not."""
    shapes = [tuple(layer.weight.shape), tuple(layer.bias.shape)]
    given = list(masks) if isinstance(masks, tuple | list) else [masks]
    if [(getattr(m, "dtype", None), getattr(m, "shape", None)) for m in given] != [
        (torch.bool, shape) for shape in shapes
    ]:
        name = getattr(operator.function, "__name__", operator.function)
        came = [
            f"{m.dtype} {tuple(m.shape)}" if isinstance(m, Tensor) else repr(m)[:60] for m in given
        ]
        raise ValueError(
            f"operator {name} must give two masks of torch.bool, of the weights {shapes[0]} and of "
            f"the biases {shapes[1]} to keep; it gave {' and '.join(came)}"
        )
    return masks
