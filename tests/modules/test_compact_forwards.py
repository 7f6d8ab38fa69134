"""Ways in which people write a forward: each is followed, or what is left is said."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_compact_graphs import silence, size
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from evoae import Pruner, compact, export
from evoae.modules.reading import tensors_of

Forward = Callable[["Model", Tensor], Any]


@dataclass
class Reconstruction:
    y: Tensor
    z: Tensor | None = None


class Model(nn.Module):
    """Eight hidden units, four of them silent, and a forward."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(8, 6)
        self.noise = nn.Parameter(torch.zeros(8)) if forward is noisy else None
        self.threshold = nn.Parameter(torch.rand(8) / 9) if forward is jumping else None
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.run = forward
        silence(self)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def in_dataclass(m: Model, x: Tensor) -> Any:
    return Reconstruction(m.decoder(F.relu(m.encoder(x))))


def distribution(m: Model, x: Tensor) -> Any:
    return Normal(m.decoder(torch.tanh(m.encoder(x))), F.softplus(x) + 1e-3), None, "said", 3


def top_of_rectified(m: Model, x: Tensor) -> Tensor:
    h = m.encoder(x)
    values, at = torch.topk(h, 2, dim=-1)
    return m.decoder(torch.zeros_like(h).scatter_(-1, at, F.relu(values)))


def jumping(m: Model, x: Tensor) -> Tensor:
    h = m.encoder(x)
    return m.decoder((h > m.threshold).float() * F.relu(h))


def on_a_sphere(m: Model, x: Tensor) -> Tensor:
    return m.decoder(F.normalize(m.encoder(x), dim=-1))


def maxout(m: Model, x: Tensor) -> Tensor:
    h = torch.stack([m.encoder(x), m.encoder(-x)])
    return m.decoder(h.amax(0))


def causal(m: Model, x: Tensor) -> Tensor:
    h = m.encoder(x)
    return m.decoder((x @ x.mT + m.mask).softmax(-1) @ h)


def noisy(m: Model, x: Tensor) -> Tensor:
    h = F.relu(m.encoder(x))
    return m.decoder(h + m.noise * torch.randn(8) if m.training else h)


SMALLER = [
    in_dataclass, distribution, top_of_rectified, jumping, on_a_sphere, maxout, causal,
]  # fmt: skip


@pytest.mark.parametrize("forward", SMALLER)
def test_silent_units_go_whatever_the_forward_does_with_them(forward: Forward) -> None:
    module, x = Model(forward), torch.rand(3, 4, 6) if forward is causal else torch.rand(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compact(module, example=x)
    assert small.encoder.out_features == small.decoder.in_features == 4
    for given in (x, torch.randn(7, *x.shape[1:])):
        expected, found = tensors_of(module(given)), tensors_of(small(given))
        assert len(found) == len(expected) > 0
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_what_training_would_miss_is_left_and_said() -> None:
    module, x = Model(noisy), torch.rand(5, 6)
    with pytest.warns(UserWarning, match=r"encoder \(Linear\).* forward in training mode raises"):
        small = compact(module, example=x).train()
    assert small(x).shape == x.shape
    assert small.encoder.out_features == 8


@pytest.mark.parametrize("forward", [in_dataclass, distribution])
def test_what_gives_no_plain_tensors_is_written_as_onnx(forward: Forward, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert export(Model(forward), tmp_path / "a.onnx", torch.rand(5, 6)) <= 1e-5
    with pytest.raises(ValueError, match="a file of ONNX takes tensors"):
        export(Keyed(), tmp_path / "b.onnx", {"x": torch.rand(5, 6)})


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.decoder(F.relu(self.encoder(batch["x"])))}


class Reshaping(nn.Module):
    """The commonest tutorial: Flatten and Unflatten beside Sequentials, called by a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(True))
        self.flatten, self.code = nn.Flatten(), nn.Sequential(nn.Linear(128, 4), nn.ReLU(True))
        self.wide = nn.Sequential(nn.Linear(4, 128), nn.ReLU(True))
        self.unflatten = nn.Unflatten(dim=1, unflattened_size=(8, 4, 4))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.unflatten(self.wide(self.code(self.flatten(self.conv(x))))))


def test_what_is_shaped_beside_sequentials_gets_smaller() -> None:
    module, x = silence(Reshaping()), torch.rand(4, 1, 8, 8)
    small = compact(module, example=x)
    torch.testing.assert_close(module(x), small(x))
    assert small.unflatten.unflattened_size == (4, 4, 4)
    assert size(small) < 0.3 * size(module)


class Crosscoder(nn.Module):
    """Two axes of a parameter are summed over at once, and one is the units'."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Parameter(torch.randn(3, 5, 16) / 4)
        self.decoder = nn.Parameter(torch.randn(16, 3, 5) / 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(torch.einsum("bld,ldn->bn", x, self.encoder))
        return torch.einsum("bn,nld->bld", h, self.decoder)


def test_axes_that_are_summed_over_with_an_input_are_no_units() -> None:
    module, x = Crosscoder(), torch.rand(4, 3, 5)
    pruner = Pruner(module, "magnitude", "one-shot", 1, target_sparsity=0.5, granularity="unit")
    module(x).square().mean().backward()
    pruner.epoch_end()
    pruner.finish()
    silent = (module.encoder == 0).flatten(0, 1).all(0)
    assert silent.sum() == 8
    assert (module.decoder[silent] == 0).all()
    assert not (module.encoder[..., ~silent] == 0).any()
    assert size(compact(module, example=x)) == size(module) / 2


def test_a_transformer_with_a_mask_is_followed() -> None:
    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            layer = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)
            self.decoder = nn.TransformerDecoder(layer, 1)

        def forward(self, x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.decoder(x, x, tgt_mask=mask)

    module, x = Sequences().eval(), torch.rand(3, 4, 8)
    with torch.no_grad():
        inner = module.decoder.layers[0].linear1
        inner.weight[:6] = inner.bias[:6] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compact(module, example=x)
    assert small.decoder.layers[0].linear1.out_features == 10
    torch.testing.assert_close(module(x), small(x))


def test_a_sparse_input_is_an_example_too() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(5, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.decoder(F.relu(torch.sparse.mm(edges, self.encoder(x))))

    module = silence(Graph())
    inputs = torch.rand(4, 5), torch.rand(4, 4).round().to_sparse()
    small = compact(module, example=inputs)
    assert small.encoder.out_features == 4
    torch.testing.assert_close(module(*inputs), small(*inputs))


def test_units_are_found_with_what_is_given_by_name_alone() -> None:
    class Named(Keyed):
        def forward(self, *, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward({"x": x})["y"]

    module = Named()
    pruner = Pruner(module, "magnitude", "one-shot", 1, target_sparsity=0.5, granularity="unit")
    module(x=torch.rand(4, 6)).square().mean().backward()
    pruner.epoch_end()
    assert (copy.deepcopy(pruner.finish()).encoder.weight == 0).all(1).sum() == 4
