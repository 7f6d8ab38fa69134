"""Members of a population as a source of layers to prune: their statistics, and their masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evoae.networks import activations
from evoae.networks.activations import UnitStatistics
from evoae.networks.gradients import Gradients, RowGradients, by_row
from evoae.networks.population import Population, initial_bounds
from evoae.pruning import driver
from evoae.pruning.layer import LASTING, Layer, Masks, OperatorSettings
from evoae.pruning.operators import Operator


def not_given(i: int) -> Tensor:
    """Stands where no examples, or rows for gradients, were given."""
    raise ValueError("the operator reads examples or gradients, but none were given")


class Member:
    """Autoencoder i of a population on the CPU: a `driver.Source`.

    Its layers are numbered from the encoder's first to the output. `examples()` gives the rows
    [n, D] that `Layer.recall` passes through it, and `rows()` those for the gradients of `loss`.
    Each is called, and each statistic computed, once, and only if an operator asks.
    """

    absent, unit_groups = 0, None

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
        self.size = population.parameters

    def layers(self) -> list[Layer]:
        """Every layer of the autoencoder."""
        weights, masks = layers_of(self.population, "weights", self.i), self.tensors("keep")
        return [
            Layer(
                *layer,
                functools.partial(self.statistic, number),
                None if masks is None else masks[number],
            )
            for number, layer in enumerate(weights)
        ]

    def statistic(self, number: int, name: str) -> Any:
        """One of `layer.STATISTICS` of a layer."""
        if name == "input_norm":
            return self.input_norm(number)
        if name in LASTING:
            found = self.tensors(name)
            if found is None:
                raise ValueError(
                    f"the operator reads {name}, which is summed from the start of training only "
                    f"for operators that need it: register it with needs=({name!r},)"
                )
            return found[number]
        by_layer = getattr(self, name, None)  # recall, gradients, curvature
        return getattr(self.units[number], name) if by_layer is None else by_layer[number]

    def tensors(self, name: str) -> list[Masks] | None:
        """What the autoencoder has by that name, by layer; None if it has nothing."""
        if name in self.population.encoder.tensors:
            return layers_of(self.population, name, self.i)
        return None

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
        """Mean square gradients of weight and bias, by layer: Adam's if it is persistent."""
        moments = self.tensors("second_moment")
        return moments or [layer.mean_squares() for layer in self.by_row]

    @functools.cached_property
    def drawn(self) -> Tensor:
        """The examples that an operator recalls, [n, D]."""
        return self.examples().cpu()

    @functools.cached_property
    def recall(self) -> list[Tensor]:
        """Activations for those examples, by layer: [n, out] each."""
        return list(activations.record(self.population, self.i, self.drawn).values())

    @functools.cached_property
    def units(self) -> list[UnitStatistics]:
        """What units did while training, by layer."""
        sides = (activations.statistics(side, self.i) for side in self.population.sides)
        return [layer for side in sides for layer in side]

    def input_norm(self, number: int) -> Tensor:
        """Root mean square of each input of a layer, [in]: of the data, or of units before it."""
        if number == 0:
            return self.drawn.double().square().mean(0).sqrt()
        norm = self.units[number - 1].norm
        first_of_decoder = len(self.population.encoder.widths) - 1
        return self.population.code(norm) if number == first_of_decoder else norm

    def apply(self, masks: list[Masks], opens: bool, fresh: list[Masks] | None) -> list[Masks]:
        """Apply the masks, and count the zeros. It works on arrays: small steps of torch are slow.

        Where the population has masks, pruned entries and their moments stay zero from now on.
        """
        start = 0
        for side in self.population.sides:
            tensors = {key: tensor.numpy()[self.i] for key, tensor in side.tensors.items()}
            stop = start + len(side.widths) - 1
            keep = flat(masks[start:stop])
            factor = keep.view(np.uint8)
            if "removed" in tensors:  # added by whoever wants to see what the last prune took away
                tensors["removed"][:] = tensors["weights"] * ~keep
            tensors["weights"] *= factor
            if fresh is not None:
                bounds = initial_bounds(side.widths)
                tensors["weights"] += flat(fresh[start:stop]) * bounds * ~keep
            if "keep" in tensors:
                tensors["keep"][:] = keep if opens else keep & tensors["keep"]
                for moment in {"first_moment", "second_moment"} & tensors.keys():
                    tensors[moment] *= factor
            if "zeros_at_last_prune" in tensors:
                pruned = ~tensors["keep"] if "keep" in tensors else tensors["weights"] == 0
                side.tensors["zeros_at_last_prune"].numpy()[self.i] = np.count_nonzero(pruned)
            start = stop
        return masks


def flat(layers: list[Masks]) -> np.ndarray:
    """Weights and biases of layers side by side, [parameters]."""
    return np.concatenate([part.numpy().ravel() for layer in layers for part in layer])


def layers_of(population: Population, name: str, i: int) -> list[tuple[Tensor, Tensor]]:
    """Views, from the first layer to the output, of what autoencoder i has by that name."""
    rows = ((side, side.tensors[name].numpy()[i]) for side in population.sides)
    layers = [layer for side, row in rows for layer in side.views(row)]
    return [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]


def prune(
    population: Population,
    index: Sequence[int] | np.ndarray,
    operator: Operator,
    generators: Iterable[np.random.Generator],
    settings: OperatorSettings,
    examples: Callable[[int], Tensor] = not_given,
    rows: Callable[[int], Tensor] = not_given,
    loss: str = "l1",
) -> list[list[Masks]]:
    """Prune the autoencoders at `index` once, in place, each with its generator.

    `examples(i)` and `rows(i)` are those of `Member` for autoencoder i. Returns the masks of what
    was kept, per autoencoder and layer. Raises ValueError for masks that do not fit the layers.
    """
    on_cpu, found = population.encoder.weights.device.type == "cpu", []
    near = population if on_cpu else population.take(index).cpu()
    for at, (i, rng) in enumerate(zip(index, generators, strict=True)):
        given = functools.partial(examples, i), functools.partial(rows, i)
        member = Member(near, i if on_cpu else at, *given, loss)
        found.append(driver.prune(member, operator, settings, rng))
    if not on_cpu:
        population.put(index, near)
    return found


def at_target(population: Population, operator: Operator, settings: OperatorSettings) -> np.ndarray:
    """Of which autoencoders nothing is left to prune, or to swap, [P]."""
    pruned = population.encoder.zeros() + population.decoder.zeros()
    return driver.is_reached(operator, settings, pruned, population.parameters)
