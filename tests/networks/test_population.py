"""Stacked networks agree with plain modules; copies are copies; files come back as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evoae.networks import population
from evoae.networks.population import (
    KINDS,
    MODELS,
    Networks,
    Population,
    hidden_widths,
    parameter_count,
)


def drawn(
    count: int = 3, kind: str = "plain", model: str = "5-3", dimension: int = 7
) -> Population:
    generators = [np.random.default_rng(i) for i in range(count)]
    return population.initialise(dimension, model, kind, generators, "cpu")


@pytest.mark.parametrize(
    ("model", "encoder", "decoder"),
    [("standard", 30_340, 31_330), ("small", 30_092, 31_090), ("large", None, None)],
)
def test_the_papers_models(model: str, encoder: int | None, decoder: int | None) -> None:
    widths = population.widths_of(1000, model, "plain")
    assert widths[0] == (1000, *MODELS[model])
    assert widths[1] == widths[0][::-1]
    if encoder:
        assert (parameter_count(widths[0]), parameter_count(widths[1])) == (encoder, decoder)


def test_variational_code_layers_hold_mean_and_variance() -> None:
    assert population.widths_of(12, "5-3", "variational") == ((12, 5, 6), (3, 5, 12))


@pytest.mark.parametrize("model", ["huge", "", "5-", "5--3", "0-3", "-5", "5.5", "5-x"])
def test_a_bad_model_is_refused_with_the_choices(model: str) -> None:
    with pytest.raises(ValueError, match="unknown model") as caught:
        hidden_widths(model)
    for word in (repr(model), *MODELS, "50-20-5"):
        assert word in str(caught.value)


def test_initial_weights_are_pytorchs_default() -> None:
    found = drawn(200, dimension=16, model="4")
    weight, bias = found.encoder.layers()[0]
    assert weight.shape == (200, 4, 16)
    assert bias.shape == (200, 4)
    for values, bound in ((weight, 1 / 4), (bias, 1 / 4)):  # uniform within 1 / sqrt(16)
        assert values.abs().max() <= bound
        assert values.mean().item() == pytest.approx(0, abs=0.03)
        assert values.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.06)
    reference = nn.Linear(16, 4)
    assert reference.weight.abs().max() <= 1 / 4
    assert found.decoder.layers()[0][0].abs().max() <= 1 / 2  # fan in 4


def test_networks_depend_on_their_own_generator_only() -> None:
    together, alone = drawn(3), drawn(1)
    assert torch.equal(together.encoder.weights[0], alone.encoder.weights[0])
    assert not torch.equal(together.encoder.weights[0], together.encoder.weights[1])


def test_layers_are_views_laid_out_layer_by_layer() -> None:
    networks = Networks((2, 2, 1), True, {"weights": torch.arange(9.0)[None].clone()})
    (w1, b1), (w2, b2) = networks.layers()
    assert w1.tolist() == [[[0, 1], [2, 3]]]
    assert b1.tolist() == [[4, 5]]
    assert w2.tolist() == [[[6, 7]]]
    assert b2.tolist() == [[8]]
    w1[0, 1, 0] = 0
    assert networks.weights[0, 2] == 0
    assert networks.zeros().tolist() == [2]


def test_activations_by_hand() -> None:
    # Unit 1: 2 x - 1, unit 2: -x; then their sum + 0.5.
    flat = torch.tensor([[2.0, -1.0, -1.0, 0.0, 1.0, 1.0, 0.5]])
    x = torch.tensor([[[1.0], [-2.0]]])
    with_relu = Networks((1, 2, 1), True, {"weights": flat}).activations(x)
    assert [layer.tolist() for layer in with_relu] == [[[[1, 0], [0, 2]]], [[[1.5], [2.5]]]]
    negative = flat.clone()
    negative[0, -1] = -5
    assert Networks((1, 2, 1), True, {"weights": negative}).activations(x)[-1].max() == 0
    last = Networks((1, 2, 1), False, {"weights": negative}).activations(x)[-1]
    assert last.tolist() == [[[-4], [-3]]]


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_plain_modules_that_compute_the_same(kind: str) -> None:
    found = drawn(kind=kind)
    x = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))
    expected = found.reconstruct(x.expand(3, 4, 7))
    for i in range(3):
        encoder, decoder = found.member(i)
        assert isinstance(encoder, nn.Sequential)
        assert isinstance(decoder, nn.Sequential)
        assert isinstance(decoder[-1], nn.Sigmoid)
        assert encoder(x).shape == (4, 3)
        torch.testing.assert_close(decoder(encoder(x)), expected[i])
    if kind != "variational":
        assert (encoder(x) >= 0).all()  # ReLU after the code layer too


def test_a_member_is_a_copy() -> None:
    found = drawn()
    before = found.encoder.weights.clone()
    with torch.no_grad():
        for parameter in found.member(0)[0].parameters():
            parameter.zero_()
    assert torch.equal(found.encoder.weights, before)


def test_take_and_put_carry_all_that_belongs_to_a_network() -> None:
    found = drawn(3)
    found.encoder.tensors["steps"] = torch.tensor([10, 11, 12])
    found.decoder.tensors["steps"] = torch.tensor([20, 21, 22])
    taken = found.take(np.array([2, 2]), np.array([0, 1]))
    assert taken.encoder.tensors["steps"].tolist() == [12, 12]
    assert taken.decoder.tensors["steps"].tolist() == [20, 21]
    taken.encoder.weights.zero_()
    assert (found.encoder.weights[2] != 0).any()  # a copy
    found.put(np.array([0, 1]), taken)
    assert found.encoder.tensors["steps"].tolist() == [12, 12, 12]
    assert found.decoder.tensors["steps"].tolist() == [20, 21, 22]
    assert found.encoder.zeros().tolist() == [found.encoder.parameters] * 2 + [0]


def test_parameters() -> None:
    found = drawn()
    assert found.encoder.parameters == (7 + 1) * 5 + (5 + 1) * 3 == 58
    assert found.parameters == 58 + (3 + 1) * 5 + (5 + 1) * 7
    assert len(found) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_saved_weights_come_back(kind: str, tmp_path: Path) -> None:
    found = drawn(kind=kind)
    population.save(found, tmp_path / "w.safetensors")
    back = population.load(tmp_path / "w.safetensors")
    assert back.variational == (kind == "variational")
    for mine, theirs in zip(found.sides, back.sides, strict=True):
        assert (mine.widths, mine.last_relu) == (theirs.widths, theirs.last_relu)
        assert torch.equal(mine.weights, theirs.weights)


def test_files_that_hold_no_population_are_refused_by_name(tmp_path: Path) -> None:
    population.save(drawn(), tmp_path / "good")
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-10])
    (tmp_path / "text").write_text("not weights at all")
    (tmp_path / "empty").write_bytes(b"")
    save_file({"other": torch.zeros(3)}, tmp_path / "other")
    save_file(
        {"encoder.0.weight": torch.zeros(3), "encoder.0.bias": torch.zeros(3)}, tmp_path / "flat"
    )
    for name in ("cut", "text", "empty", "other", "flat", "missing"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            population.load(tmp_path / name)


def changed(**tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The tensors of three autoencoders 7-5-3, some replaced or (None) left out."""
    shapes = {"encoder.0": (5, 7), "encoder.1": (3, 5), "decoder.0": (5, 3), "decoder.1": (7, 5)}
    whole = {f"{name}.weight": torch.zeros(3, *shape) for name, shape in shapes.items()}
    whole |= {f"{name}.bias": torch.zeros(3, shape[0]) for name, shape in shapes.items()}
    whole |= {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in whole.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"encoder_0_bias": None}, ["lacks encoder.0.bias"]),
        ({"decoder_0_weight": None}, ["lacks decoder.0.weight"]),
        ({"decoder_1_weight": torch.zeros(2, 7, 5)}, ["decoder.1", "3 networks"]),
        ({"encoder_1_weight": torch.zeros(3, 3, 4)}, ["encoder.1", "5 inputs"]),
        ({"encoder_1_bias": torch.zeros(3, 2)}, ["encoder.1", "[3, 2]"]),
        ({"encoder_0_weight": torch.zeros(3, 5, 8)}, ["encoder.0", "7 inputs"]),
        ({"decoder_0_weight": torch.zeros(3, 5, 3).double()}, ["decoder.0", "float64"]),
        ({"decoder_0_bias": torch.zeros(3, 5).half()}, ["decoder.0", "float16"]),
        ({"other": torch.zeros(1)}, ["other", "no layer"]),
        ({"encoder_0_weight": torch.zeros(3)}, ["encoder.0"]),
    ],
)
def test_layers_that_make_no_autoencoders_are_refused(
    tensors: dict[str, torch.Tensor | None], words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "start.safetensors"
    save_file(changed(), path)
    assert len(population.load(path)) == 3
    save_file(changed(**tensors), path)
    with pytest.raises(ValueError, match=r"start\.safetensors: ") as caught:
        population.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(caught.value)


def test_no_networks_at_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    save_file({name: tensor[:0] for name, tensor in changed().items()}, path)
    with pytest.raises(ValueError, match="which is empty"):
        population.load(path)


def test_means_and_log_variances_are_as_many(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(changed(), path, metadata={"variational": "True"})
    with pytest.raises(ValueError, match="its code has an odd width, 3"):
        population.load(path)
