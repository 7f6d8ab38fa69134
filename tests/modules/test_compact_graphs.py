"""Modules of any kind with fewer channels, read by torch.export on an example."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch.utils._pytree import tree_leaves
from zoo import ZOO, Functional, Tied

from evoae import Pruner, compact, export, load_compact

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def silence(module: nn.Module) -> nn.Module:
    """Set the first half of the units of each inner layer to zero, by hand."""
    inner = [part for part in module.modules() if isinstance(part, LAYERS)]
    inner = inner if isinstance(module, Tied) else inner[:-1]
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            gates = [t for t in part.parameters() if len(t) % part.hidden_size == 0]
            for tensor in gates:  # and not a projection
                tensor.view(-1, part.hidden_size, *tensor.shape[1:])[:, : part.hidden_size // 2] = 0
        elif isinstance(part, NORMS) and part.weight is not None:
            for tensor in (part.weight, part.bias):
                tensor[: len(tensor) // 2] = 0
        elif any(part is each for each in inner):
            weight = part.weight
            if parametrize.is_parametrized(part):
                weight = next(part.parametrizations.weight.parameters())  # lengths, of weight norm
            axis = int(isinstance(part, nn.modules.conv._ConvTransposeNd) and part.groups == 1)
            weight.narrow(axis, 0, weight.shape[axis] // 2).zero_()
            if part.bias is not None:
                part.bias[: len(part.bias) // 2] = 0
    for name, tensor in module.named_parameters(recurse=False):
        if name in ("W_enc", "b_enc"):
            tensor[..., : tensor.shape[-1] // 2] = 0
    return module.eval()


def largest_gap(one: nn.Module, other: nn.Module, *inputs: Tensor) -> float:
    gaps = [0.0]
    with torch.no_grad():
        for x in inputs:
            pairs = zip(tree_leaves(one(x)), tree_leaves(other(x)), strict=True)
            gaps += [float((a - b).abs().max()) for a, b in pairs]
    return max(gaps)


# parameters before, and after; as small as Torch-Pruning's groups make them where those are exact
SIZES = {
    "functional": (1022, 475), "gated": (1224, 102), "depthwise": (218, 98),
    "conv-batch-norm": (3131, 862), "residual": (1878, 532), "lstm-layers": (4077, 1209),
    "weight-norm": (230, 80), "shared-layer": (560, 352), "top-k": (1336, 676),
}  # fmt: skip
MORE = {
    "tied": (274, 149), "grouped": (598, 300), "group-norm": (1011, 414), "u-net": (3867, 1016),
    "conv-vae": (2173, 707), "sparse-autoencoder": (1336, 676), "transformer-layers": (1344, 1072),
    "experts": (759, 759), "conv3d": (485, 195), "wave-net": (475, 130), "gru": (837, 277),
    "rnn": (309, 109), "squeeze-excitation": (374, 172), "dense-vae": (1074, 554),
}  # fmt: skip
slow = [pytest.param(name, marks=pytest.mark.campaign) for name in MORE]


@pytest.mark.filterwarnings("ignore:compact")
@pytest.mark.parametrize("name", [*SIZES, *slow])
def test_half_of_the_channels_go(name: str, tmp_path: Path) -> None:
    module, x, loss = ZOO[name]()
    silence(module)
    before = copy.deepcopy(module.state_dict())
    small = compact(module, example=x)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert (size(module), size(small)) == (SIZES | MORE)[name]
    assert type(small) is type(module)
    more = torch.randn(2 * len(x), *x.shape[1:], generator=torch.Generator().manual_seed(1))
    assert largest_gap(module, small, x, more, 5 * more) <= 1e-5
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())
    optimiser = torch.optim.SGD(again.train().parameters(), 0.1)
    loss(again(x), x).backward()
    optimiser.step()
    if name != "shared-layer":  # whose weights are not shared any more
        assert export(small, tmp_path / "small.safetensors", x, original=module) <= 1e-5
        loaded = load_compact(ZOO[name]()[0], tmp_path / "small.safetensors").eval()
        assert largest_gap(small, loaded, x, more) == 0


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore:compact")
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(SIZES | MORE)))
def test_outputs_of_every_kind_are_equal(name: str) -> None:
    module, x, _ = ZOO[name]()
    silence(module)
    small = compact(module, example=x)
    more = x.flip(0) if not x.is_floating_point() else torch.randn(x.shape)
    assert size(small) <= size(module)
    assert largest_gap(module, small, x, more) <= 1e-5


class OwnLinear(nn.Linear):
    pass


def fixed_norm() -> nn.Module:
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    for tensor in (norm.running_mean, norm.bias):
        nn.init.uniform_(tensor, -1, 1)
    return norm


@pytest.mark.parametrize(
    ("parts", "shape", "widths"),
    [
        ([nn.Linear(9, 8), OwnLinear(8, 16), nn.Linear(16, 9)], (5, 9), (4, 8, 9)),
        ([nn.Conv2d(1, 8, 3), fixed_norm(), nn.Conv2d(8, 1, 3)], (3, 1, 8, 8), (4, 1)),
        ([nn.Conv2d(1, 8, 3), nn.AvgPool2d(2), nn.Conv2d(8, 1, 1)], (1, 8, 8), (4, 1)),
        ([nn.Linear(9, 8), nn.ReLU(), nn.ReplicationPad1d(1), nn.Linear(10, 9)], (5, 9), (8, 9)),
        ([nn.Linear(9, 8), nn.Softmax(1), nn.Linear(8, 9)], (5, 9), (8, 9)),
    ],
    ids=["a class of its own", "fixed norm", "no batch", "padded units", "shares of units"],
)
def test_silent_units_before_what_is_rarely_used(
    parts: list[nn.Module], shape: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    module, x = nn.Sequential(*parts).eval(), torch.rand(shape)
    layers = [part for part in parts if isinstance(part, LAYERS)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.weight[: len(layer.weight) // 2] = 0
            layer.bias[: len(layer.bias) // 2] = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = compact(module, example=x)
    assert largest_gap(module, small, x, -x) <= 1e-5
    assert not [each for each in caught if "would differ" in str(each.message)]
    assert not [each for each in caught if "cannot be followed" in str(each.message)]
    layers = [part for part in small if isinstance(part, LAYERS)]
    assert tuple(len(layer.weight) for layer in layers) == widths
    said = [
        part.out_features if isinstance(part, nn.Linear) else part.out_channels for part in layers
    ]
    assert tuple(said) == widths


class Shaped(nn.Module):
    """A reshape by a number: `sides` says how the forward knows the channels."""

    def __init__(self, channels: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.channels = channels
        self.conv, self.code = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(128, 6)
        self.wide, self.up = nn.Linear(6, 128), nn.ConvTranspose2d(8, 4, 2, 2)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        code = self.code(F.relu(self.conv(x)).flatten(1))
        h = F.relu(self.wide(code)).view(-1, self.channels or 8, 4, 4)
        return self.out(F.relu(self.up(h)))


def test_what_a_forward_shapes_by_a_number_stays_or_the_number_is_set() -> None:
    x = torch.rand(4, 1, 8, 8)
    for channels, said in ((8, ""), (None, r"wide \(Linear\), up \(ConvTranspose2d\): with fewer")):
        module = silence(Shaped(channels))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            small = compact(module, example=x)
        assert largest_gap(module, small, x, torch.randn(3, 1, 8, 8)) <= 1e-5
        assert small.conv.out_channels == 4
        assert small.out.in_channels == 2
        assert small.wide.out_features == (64 if channels else 128)
        assert len(caught) == (channels is None)
        for warning in caught:
            with pytest.warns(UserWarning, match=said):
                warnings.warn(warning.message, stacklevel=1)
            assert "\n" not in str(warning.message)


class Depends(Functional):
    """A forward that depends on its input: on its values, or on its shape."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.fc1(x))
        return self.fc2(h * 2 if h.sum() > -1 else h + 1)


class Counts(Functional):
    """A forward that computes with how many units there are."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.fc1(x))
        return self.fc2(h / h.shape[1]) + h.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Depends, "the whole module .*depends on the values of its input"),
        (Counts, "fc1 .*: silent units stay, as what reads them needs them"),
    ],
)
def test_what_cannot_be_proven_equal_is_left_and_said(kind: type[nn.Module], said: str) -> None:
    module, x = silence(kind()), torch.rand(4, 24)
    with pytest.warns(UserWarning, match=said) as caught:
        small = compact(module, example=x)
    assert len(caught) == 1
    assert small.fc1.out_features == 16
    assert largest_gap(module, small, x, -x) == 0


class Constants(nn.Module):
    """Units that are constant and not zero, before layers that can take them in, or cannot."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(1, 6, 1)
        self.two, self.three = nn.Conv2d(6, 4, 3, padding=padding, bias=False), nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            self.one.weight[:4] = 0
            self.one.bias[:4] = torch.tensor([1.0, 2.0, -1.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.three(torch.sigmoid(self.two(F.relu(self.one(x)))))


@pytest.mark.filterwarnings("ignore:compact leaves")
@pytest.mark.parametrize(("padding", "left"), [(0, 2), (1, 4)])
def test_constants_are_folded_where_no_border_is_seen(padding: int, left: int) -> None:
    module, x = Constants(padding).eval(), torch.randn(2, 1, 6, 6)
    small = compact(module, example=x)
    assert small.one.out_channels == small.two.in_channels == left
    assert (small.two.bias is None) == (padding == 1)
    assert largest_gap(module, small, x, torch.randn(3, 1, 9, 5)) <= 1e-6


def test_masks_of_torch_and_of_a_pruner_are_taken_off() -> None:
    module, x, _ = ZOO["functional"]()
    prune.ln_structured(module.fc1, "weight", 0.5, n=1, dim=0)
    prune.random_unstructured(module.fc1, "bias", 1.0)
    options = {"target_sparsity": 0.9, "pruned_weights": "masked", "exclude": ["fc1"]}
    pruner = Pruner(module, "magnitude", "one-shot", 1, **options)
    module(x).sum().backward()
    assert pruner.epoch_end()
    small = compact(module, example=x)
    assert type(small.fc1) is nn.Linear
    assert small.fc1.out_features <= 8
    assert prune.is_pruned(module.fc1)
    assert largest_gap(module.eval(), small.eval(), x, -x) <= 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_a_copy_is_in_the_mode_of_the_original(training: bool) -> None:
    module, x, _ = ZOO["weight-norm"]()
    silence(module).train(training)
    assert all(part.training == training for part in compact(module, example=x).modules())


def test_several_inputs_and_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 8), nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.a(x) * self.b(y))
            return {"h": h[:, 4:].sum(1), "x": self.out(h)}

    module = silence(Pair())
    inputs = torch.rand(5, 3), torch.rand(5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compact(module, example=inputs)
    for key, value in module(*inputs).items():
        torch.testing.assert_close(small(*inputs)[key], value)


# -- files ---------------------------------------------------------------------------------------


def test_a_state_dict_alone_is_loaded_by_its_shapes(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("depthwise", "conv-batch-norm", "group-norm"):
        module, x, _ = ZOO[name]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = compact(silence(module), example=x)
        save_file({key: t.contiguous() for key, t in small.state_dict().items()}, tmp_path / "a")
        loaded = load_compact(lambda name=name: ZOO[name]()[0], tmp_path / "a").eval()
        assert largest_gap(small, loaded, x) == 0
        assert size(module) > size(loaded)


def test_a_norm_without_parameters_is_loaded(tmp_path: Path) -> None:
    def make() -> nn.Module:
        norms = nn.LayerNorm(6, elementwise_affine=False), nn.GroupNorm(2, 6, affine=False)
        return nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 6), *norms, nn.Linear(6, 9))

    module, x = make().eval(), torch.rand(5, 9)
    export(module, tmp_path / "a.safetensors", x)
    assert largest_gap(module, load_compact(make, tmp_path / "a.safetensors").eval(), x) == 0


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    module, x, _ = ZOO["functional"]()
    path = tmp_path / "a.safetensors"
    export(module, path, x)
    with pytest.raises(ValueError, match=r"Tied has no fc\d.(weight|bias)"):
        load_compact(ZOO["tied"]()[0], path)
    (tmp_path / "b").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="not a file of safetensors"):
        load_compact(module, tmp_path / "b")
    with pytest.raises(ValueError, match=r"cannot export to the suffix '.pt'"):
        export(module, tmp_path / "a.pt", x)
    with pytest.raises(ValueError, match="there is no folder"):
        export(module, tmp_path / "no" / "a.safetensors", x)
    with pytest.raises(ValueError, match="does not take example="):
        export(module, path, x[:, :3])
    other, *_ = ZOO["dense"]()
    with pytest.raises(RuntimeError, match=r"outputs differ by .* not written"):
        export(module, tmp_path / "c.safetensors", x, original=copy_of(module, other))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.safetensors", "b"]


def copy_of(module: nn.Module, other: nn.Module) -> nn.Module:
    """A module with the values of another one, and names of its own."""
    made = copy.deepcopy(module)
    for parameter, value in zip(made.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(value.data + 0.1)
    return made


@pytest.mark.parametrize("name", ["conv2d", "lstm"])
def test_onnx_takes_and_gives_values_of_the_file(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    module, x, _ = ZOO[name]()
    small = compact(silence(module), example=x)
    path = tmp_path / "a.onnx"
    assert export(small, path, x, original=module, scaling=(10.0, 20.0)) <= 1e-5
    assert "20.0" in onnx.load(str(path)).metadata_props[0].value
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = torch.rand(7, *x.shape[1:])
    (found,) = session.run(None, {session.get_inputs()[0].name: (10 * rows + 10).numpy()})
    expected = 10 * module(rows).detach() + 10
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["weight-norm", "weight-norm-by-hook", "spectral-norm"])
def test_a_weight_that_was_normed_is_loaded_by_the_class_that_norms(
    name: str, tmp_path: Path
) -> None:
    module, x, loss = ZOO[name]()
    pruner = Pruner(module, "magnitude", "one-shot", 1, target_sparsity=0.6)
    loss(module(x), x).backward()
    pruner.epoch_end()
    pruner.finish().eval()
    export(module, tmp_path / "plain.safetensors", x)
    fresh = ZOO[name]()[0]
    keys = list(fresh.state_dict())
    loaded = load_compact(fresh, tmp_path / "plain.safetensors").eval()
    assert largest_gap(module, loaded, x) == 0
    assert list(fresh.state_dict()) == keys
    fresh.eval()(x)


@pytest.mark.parametrize("first", [True, False])
def test_a_large_example_is_compared_as_a_whole(first: bool) -> None:
    class ByNumber(nn.Module):
        """What reads unit 0 is there for many examples only: for all, or for those behind."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.one(x))
            y, start = self.two(h[:, 1:]), 0 if first else 8
            return torch.cat([y[:start], y[start:] + h[start:, :1]]) if len(x) > 8 else y

    torch.manual_seed(0)
    module, x = ByNumber().eval(), torch.rand(20, 5)
    with torch.no_grad():
        module.one.weight[3], module.one.bias[3] = 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compact(module, example=x)
    assert largest_gap(module, small, x) <= 1e-5
    wide = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).eval()
    with torch.no_grad():
        wide[0].weight[3], wide[0].bias[3] = 0, 0
    assert compact(wide, example=x)[0].out_features == 5
