"""How an operator meets a population: what it is shown, and how its masks are applied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from evoae.networks import activations
from evoae.networks.activations import UnitStatistics
from evoae.networks.population import Networks, Population
from evoae.pruning.operators import Layer, Masks, Operator, OperatorSettings


class Examined:
    """What operators may ask about autoencoder i, computed once and only if one asks.

    Layers are counted through, from the encoder's first to the output.
    """

    def __init__(self, population: Population, i: int, examples: Callable[[], Tensor]) -> None:
        self.population, self.i, self.examples = population, i, examples

    def layer(self, number: int, weight: Tensor, bias: Tensor, masks: Masks | None) -> Layer:
        return Layer(
            weight,
            bias,
            lambda: self.statistics[number],
            lambda: self.input_norm(number),
            lambda: self.recalled[number],
            masks,
        )

    @functools.cached_property
    def drawn(self) -> Tensor:
        return self.examples().cpu()

    @functools.cached_property
    def recalled(self) -> list[Tensor]:
        return list(activations.record(self.population, self.i, self.drawn).values())

    @functools.cached_property
    def statistics(self) -> list[UnitStatistics]:
        sides = (activations.statistics(side, self.i) for side in self.population.sides)
        return [layer for side in sides for layer in side]

    def input_norm(self, number: int) -> Tensor:
        if number == 0:
            return self.drawn.double().square().mean(0).sqrt()
        norm = self.statistics[number - 1].norm
        first_of_decoder = len(self.population.encoder.widths) - 1
        return self.population.code(norm) if number == first_of_decoder else norm


def prune(
    population: Population,
    index: Sequence[int],
    operator: Operator,
    generators: Iterable[np.random.Generator],
    settings: OperatorSettings,
    examples: Callable[[int], Tensor],
) -> list[list[Masks]]:
    """Apply an operator to all layers of the autoencoders at `index`, in place; count their zeros.

    Each draws from its generator; `examples(i)` gives the [n, D] that `Layer.recall` shows of
    autoencoder i, if an operator asks. Where the population keeps masks, the pruned entries and
    their optimiser moments stay zero from now on. Returns the masks of what was kept, per
    autoencoder and layer. Raises ValueError if the operator's masks are not boolean tensors of the
    layer's shapes.
    """
    near, found = population.cpu(), []
    masked = "keep" in near.encoder.tensors
    encoders = len(near.encoder.widths) - 1
    for i, rng in zip(index, generators, strict=True):
        looked_at, masks = Examined(near, i, functools.partial(examples, i)), []
        weights = layers_of(near, "weights", i)
        kept = layers_of(near, "keep", i) if masked else [None] * len(weights)
        for number, (own, before) in enumerate(zip(weights, kept, strict=True)):
            layer = looked_at.layer(number, *own, before)
            masks.append(checked(operator(layer, rng, settings), layer, operator))
        apply(near.encoder, i, masks[:encoders], operator.regrows)
        apply(near.decoder, i, masks[encoders:], operator.regrows)
        found.append(masks)
    for side, theirs in zip(population.sides, near.sides, strict=True):
        for key, tensor in side.tensors.items():
            tensor.copy_(theirs.tensors[key])  # on the CPU it is the same: nothing is done
    return found


def layers_of(population: Population, name: str, i: int) -> list[tuple[Tensor, Tensor]]:
    """Views, from the first layer to the output, of what autoencoder i has by that name."""
    rows = ((side, side.tensors[name].numpy()[i]) for side in population.sides)
    layers = [layer for side, row in rows for layer in side.views(row)]
    return [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]


def apply(networks: Networks, i: int, masks: list[Masks], regrow: bool) -> None:
    """Set to zero what the masks of network i, layer by layer, do not keep.

    It works on arrays: a wave prunes few networks, and small steps of torch take longer.
    """
    tensors = {key: tensor.numpy() for key, tensor in networks.tensors.items()}
    keep = np.concatenate([part.numpy().ravel() for layer in masks for part in layer])
    factor = keep.view(np.uint8)
    if "removed" in tensors:  # added by whoever wants to see what the last prune took away
        tensors["removed"][i] = tensors["weights"][i] * ~keep
    tensors["weights"][i] *= factor
    if "keep" in tensors:
        tensors["keep"][i] = keep if regrow else keep & tensors["keep"][i]
        for moment in {"first_moment", "second_moment"} & tensors.keys():
            tensors[moment][i] *= factor
    if "zeros_at_last_prune" in tensors:
        tensors["zeros_at_last_prune"][i] = np.count_nonzero(tensors["weights"][i] == 0)


def checked(masks: Masks, layer: Layer, operator: Operator) -> Masks:
    """The two masks, if they fit the layer."""
    name = getattr(operator.function, "__name__", operator.function)
    two = isinstance(masks, tuple | list) and len(masks) == 2
    if not two or not all(isinstance(mask, Tensor) for mask in masks):
        raise ValueError(f"operator {name} gave {masks!r}; it must give two masks (tensors)")
    for mask, entries in zip(masks, (layer.weight, layer.bias), strict=True):
        if mask.dtype != torch.bool or mask.shape != entries.shape:
            raise ValueError(
                f"operator {name} gave a mask of {mask.dtype} "
                f"{tuple(mask.shape)}; it must be torch.bool {tuple(entries.shape)}"
            )
    return masks
