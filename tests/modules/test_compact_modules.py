"""Modules with fewer units and equal outputs."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
from helpers import tiny
from test_compact_graphs import size
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from evoae import Pruner, compact, evolve
from evoae.networks.compaction import Link, analyse, compact_member


def without_units(module: nn.Sequential, share: float, biased: bool) -> nn.Sequential:
    """Some units lose all incoming weights, some all outgoing ones, some both."""
    layers = [m for m in module if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in layers[:-1]:
            dead = torch.rand(layer.weight.shape[0], generator=draw) < share
            layer.weight[dead] = 0
            if layer.bias is not None and not biased:
                layer.bias[dead] = 0
        for layer in layers[1:]:
            layer.weight[:, torch.rand(layer.weight.shape[1], generator=draw) < share] = 0
    for norm in (m for m in module if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 2)
    return module


def equal(module: nn.Module, x: torch.Tensor) -> nn.Module:
    small = compact(module)
    assert type(small) is type(module)
    torch.testing.assert_close(small.eval()(x), module.eval()(x), rtol=1e-5, atol=1e-5)
    return small


CHAINS = {
    "dense": (
        lambda: [nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 9),
                 nn.Sigmoid()],
        (7, 9),
    ),
    "normalised": (
        lambda: [nn.Linear(9, 20, bias=False), nn.BatchNorm1d(20), nn.LeakyReLU(), nn.Dropout(),
                 nn.Linear(20, 20), nn.BatchNorm1d(20, affine=False), nn.Linear(20, 5, bias=False)],
        (7, 9),
    ),
    "convolutions, padded": (
        lambda: [nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True),
                 nn.MaxPool2d(2), nn.Conv2d(12, 10, 3, padding="same", bias=False), nn.Sigmoid(),
                 nn.Upsample(scale_factor=2), nn.Conv2d(10, 2, 3, padding=1)],
        (3, 2, 8, 8),
    ),
    "convolutions, not padded": (
        lambda: [nn.Conv1d(2, 12, 3), nn.Tanh(), nn.Conv1d(12, 10, 3, bias=False), nn.ReLU(),
                 nn.Conv1d(10, 4, 1)],
        (3, 2, 12),
    ),
    "flattened": (
        lambda: [nn.Conv2d(1, 12, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(12 * 36, 16), nn.ReLU(),
                 nn.Linear(16, 5)],
        (3, 1, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", CHAINS)
def test_outputs_are_equal_and_parameters_fewer(name: str, share: float, biased: bool) -> None:
    torch.manual_seed(0)
    layers, shape = CHAINS[name]
    module = without_units(nn.Sequential(*layers()), share, biased)
    small = equal(module, torch.randn(shape))
    assert (size(small) < size(module)) == (share > 0)
    assert size(compact(small)) == size(small)


def test_a_chain_by_hand() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
        module[0].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
        module[2].weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [4.0, 3.0, 0.0]]))
        module[2].bias.zero_()
    small = compact(module)
    assert small[0].weight.tolist() == [[1.0, 2.0]]  # unit 1 is constant, nobody reads unit 2
    assert small[2].weight.tolist() == [[1.0], [4.0]]
    assert small[2].bias.tolist() == [10.0, 15.0]
    assert (small[0].out_features, small[2].in_features) == (1, 1)
    assert module[0].weight.shape == (3, 2)


@pytest.mark.parametrize("operator", ["magnitude", "random", "wanda"])
@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_a_member_of_a_population_gets_as_small_as_by_its_own_compaction(
    operator: str, sparsity: float
) -> None:
    """The same layers, but for the inputs; a Sequential keeps one unit where none is needed."""
    options = {"model": "8-4", "operator": operator, "schedule": "cubic", "epochs": 2}
    e = tiny(target_sparsity=sparsity, cells=2, pruned_weights="masked", **options)
    for seed in (1, 2, 3):
        *_, state = evolve(e, 1, seed, engine="batched")
        for member in range(2):
            module = nn.Sequential(*state.population.member(member))
            own = nn.Sequential(*compact_member(state.population, member))
            small = compact(module)
            widths = [[m.out_features for m in each.modules() if isinstance(m, nn.Linear)]
                      for each in (small, own)]  # fmt: skip
            assert widths[0] == [max(1, width) for width in widths[1]]
            x = torch.rand(20, 12)
            torch.testing.assert_close(small(x), module(x), rtol=0, atol=1e-6)


def negative(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """A layer whose first unit is never above 0 if nothing that it reads is below."""
    with torch.no_grad():
        layer.weight[1:].abs_()
        layer.weight[0] = -layer.weight[0].abs()
        layer.bias.copy_(torch.linspace(-0.5, 0.5, len(layer.bias)))
    return layer


SIGNS = {
    "ReLU": ([nn.ReLU()], [nn.ReLU()], 4),
    "ReLU6": ([nn.ReLU6()], [nn.ReLU6()], 4),
    "a Sigmoid before": ([nn.Sigmoid()], [nn.Hardtanh(0, 2), nn.Tanh()], 4),
    "dropped and normalised units": (
        [nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout()], [nn.Identity(), nn.ReLU(), nn.BatchNorm1d(5)],
        4,
    ),
    "nothing before": ([], [nn.ReLU()], 5),
    "a Tanh before": ([nn.Tanh()], [nn.ReLU()], 5),
    "a norm before, which has a bound": ([nn.ReLU(), nn.BatchNorm1d(5)], [nn.ReLU()], 4),
    "a bound below 0 before": ([nn.ReLU(), nn.Hardtanh(-2, -1)], [nn.ReLU()], 5),
    "a norm behind": ([nn.ReLU()], [nn.BatchNorm1d(5), nn.ReLU()], 5),
    "a leaky ReLU behind": ([nn.ReLU()], [nn.LeakyReLU()], 5),
    "a bound below 0 behind": ([nn.ReLU()], [nn.Hardtanh()], 5),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNS)
def test_a_unit_is_silent_where_nothing_that_it_reads_is_positive(name: str) -> None:
    before, behind, left = SIGNS[name]
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(6, 5), *before, negative(nn.Linear(5, 5)), *behind, nn.Linear(5, 2)
    )
    for norm in (part for part in module if isinstance(part, nn.BatchNorm1d)):
        norm.running_mean += torch.linspace(-1, 1, 5)
    small = equal(module, 3 * torch.randn(200, 6))
    assert [each.out_features for each in small if isinstance(each, nn.Linear)] == [5, left, 2]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_silent_channels_of_convolutions(mode: str) -> None:
    """A bicubic map swings below the lowest of its values."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode),
        negative(nn.Conv2d(5, 5, 3, padding=1)), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 36, 3),
    )  # fmt: skip
    small = equal(module, torch.randn(20, 1, 8, 8))
    assert small[3].out_channels == (5 if mode == "bicubic" else 4)
    assert small[7].in_features == 36 * small[3].out_channels


def test_what_pools_over_units_behind_flatten_ends_a_chain() -> None:
    torch.manual_seed(0)
    module = without_units(
        nn.Sequential(nn.Conv1d(1, 6, 3), nn.Flatten(), nn.MaxPool1d(2), nn.Linear(9, 3)), 0.5, True
    )
    with pytest.warns(UserWarning, match=r"2 \(MaxPool1d\): what it does to the units before"):
        equal(module, torch.randn(7, 1, 5))


def test_what_would_overflow_half_precision_is_left() -> None:
    module = chain().half()
    with torch.no_grad():
        module[0].weight[:3], module[0].bias[:3] = 0, 6e4  # constant, and their sum is not finite
        module[2].weight[:, 0], module[2].weight[:, 1:3] = -1, 1
        module[2].weight[0] = 1
    x = torch.randn(20, 5).half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compact(module)
    assert torch.equal(small(x).isfinite(), module(x).isfinite())


def test_a_padded_convolution_keeps_a_constant_that_is_not_zero() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))
    with torch.no_grad():
        module[0].weight[:2] = 0
        module[0].bias.copy_(torch.tensor([2.0, -2.0, 0.0]))
    small = equal(module, torch.randn(2, 1, 5, 5))
    assert small[0].out_channels == 2  # the one that ReLU silences goes


def test_what_is_pruned_while_training_is_compacted() -> None:
    torch.manual_seed(0)
    layers, shape = CHAINS["convolutions, padded"]
    module = nn.Sequential(*layers())
    options = {"probability": 1.0, "amount": 0.5, "pruned_weights": "masked"}
    pruner = Pruner(module, "apoz", "fixed", 3, **options)
    module(torch.randn(shape)).sum().backward()
    assert pruner.epoch_end()
    small = equal(module, torch.randn(shape))
    assert size(small) < size(module)
    assert hasattr(module[0], "parametrizations")
    assert type(small[0]) is nn.Conv2d


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 4), nn.Softmax(1), nn.Linear(4, 4)
        )
        self.decoder = nn.Sequential(nn.Sequential(nn.Linear(4, 9), nn.ReLU()), nn.Linear(9, 8))
        self.own = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self.decoder(self.encoder(x)))


def test_what_cannot_be_traced_is_left_and_said() -> None:
    module = Parts()
    for chain in (module.encoder, nn.Sequential(module.decoder[0][0], module.decoder[1])):
        without_units(chain, 0.4, True)
    with pytest.warns(
        UserWarning, match=r"as it is: encoder.3 \(Softmax\): .*; own \(Linear\): .*$"
    ):
        small = compact(module)
    x = torch.randn(5, 8)
    torch.testing.assert_close(small(x), module(x), rtol=1e-5, atol=1e-5)
    assert small.encoder[2].out_features == 4
    assert small.encoder[0].out_features < 9
    assert small.decoder[0][0].out_features < 9


def test_tied_and_grouped_layers_are_left() -> None:
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    with torch.no_grad():
        one.weight[1] = 0
    with pytest.warns(UserWarning, match=r"0 \(Linear\), 2 \(Linear\)"):
        small = compact(nn.Sequential(one, nn.ReLU(), other))
    assert small[0].weight is small[2].weight
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3))
    with pytest.warns(UserWarning, match="0 "):
        assert compact(grouped)[0].weight.shape == (4, 2, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compact(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))


class Scaled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def dense(*widths: int) -> list[nn.Linear]:
    """Layers, each with a unit that is off for every input, and one that is constant."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for layer in layers:
            layer.weight[:2] = 0
            layer.bias[0], layer.bias[1] = -3, 0.7
    return layers


def called_twice() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    relu, norm, twice = nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 6)
    norm.running_mean += torch.rand(6)
    bare = nn.BatchNorm1d(6, affine=False)
    bare.running_mean += torch.rand(6)
    one, two, three = dense(5, 6, 6, 4)
    residual = Residual(dense(6, 6)[0], nn.ReLU())
    return {
        "a ReLU": nn.Sequential(one, relu, two, relu, three),
        "a layer": nn.Sequential(one, nn.ReLU(), twice, nn.ReLU(), twice, nn.ReLU(), three),
        "a BatchNorm": nn.Sequential(one, norm, nn.ReLU(), two, norm, nn.ReLU(), three),
        "a BatchNorm without parameters": nn.Sequential(
            one, bare, nn.ReLU(), two, bare, nn.ReLU(), three
        ),
        "a forward of its own": Scaled(one, nn.ReLU(), two, nn.ReLU(), three),
        "one inside": nn.Sequential(Scaled(one, nn.ReLU()), two, nn.ReLU(), three),
        "a residual": nn.Sequential(one, nn.ReLU(), residual, two, nn.ReLU(), three),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a layer", "2 (Linear), 4 (Linear)"),
        ("a BatchNorm", "1 (BatchNorm1d), 4 (BatchNorm1d)"),
        ("a BatchNorm without parameters", "1 (BatchNorm1d), 4 (BatchNorm1d)"),
        ("a forward of its own", "0 (Linear), 2 (Linear), 4 (Linear)"),
        ("one inside", "0.0 (Linear)"),
        ("a residual", "2.0 (Linear)"),
    ],
)
def test_what_is_called_twice_or_in_another_way_is_left_and_said(name: str, said: str) -> None:
    module = called_twice()[name].eval()
    with pytest.warns(UserWarning, match=rf"as it is: {re.escape(said)}: [^;]*$"):
        small = compact(module)
    x = torch.randn(50, 5)
    torch.testing.assert_close(small(x), module(x), atol=1e-6, rtol=0)


def test_a_chain_goes_on_behind_an_activation_that_is_called_twice() -> None:
    module, x = called_twice()["a ReLU"], torch.randn(50, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compact(module)
    torch.testing.assert_close(small(x), module(x), atol=1e-6, rtol=0)
    widths = [small[number].out_features for number in (0, 2, 4)]
    assert widths[0] == widths[2] == 4
    assert widths[1] <= 4  # one more may be silent: nothing that it reads raises it above 0


def test_a_layer_of_two_names_is_said_twice_and_an_empty_name_passed_over() -> None:
    module = nn.Module()
    module.one = module.other = nn.Linear(3, 3)
    module.chain = nn.Sequential(*dense(3, 6, 3))
    module.add_module("nothing", None)
    module.chain.add_module("nothing", None)
    with pytest.warns(UserWarning, match=r"as it is: one \(Linear\), other \(Linear\): it is in"):
        small = compact(module)
    assert small.chain[0].out_features == 4


# -- parts that do more than their class ---------------------------------------------------------


class Shifted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class OwnReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class OwnDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def chain(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    one, two, three = dense(5, 6, 6, 4)
    return nn.Sequential(one, *(between or (nn.ReLU(),)), two, nn.ReLU(), three)


def pruned_by_torch(module: nn.Module) -> None:
    for part, name in itertools.product((module[0], module[2]), ("weight", "bias")):
        prune.l1_unstructured(part, name, 0.4)


def by_old_weight_norm(module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module[2])


def replaced(module: nn.Module) -> None:
    module[1].forward = lambda x: x.abs() + 1


CHANGED = {
    "torch.nn.utils.prune": (chain, pruned_by_torch, "0 (Linear), 2 (Linear): its weight is comp"),
    "old weight_norm": (chain, by_old_weight_norm, "computed by torch.nn.utils.weight_norm"),
    "old spectral_norm": (
        chain, lambda m: nn.utils.spectral_norm(m[2]), "computed by torch.nn.utils.spectral_norm"
    ),
    "weight_norm": (chain, lambda m: parametrizations.weight_norm(m[2]), "_WeightNorm"),
    "spectral_norm": (chain, lambda m: parametrizations.spectral_norm(m[0]), "_SpectralNorm"),
    "orthogonal": (chain, lambda m: parametrizations.orthogonal(m[0]), "_Orthogonal"),
    "a parametrization": (
        chain, lambda m: nn.utils.parametrize.register_parametrization(m[2], "weight", Shifted()),
        "2 (Linear): its weight is computed by the parametrization Shifted",
    ),
    "a hook": (
        chain, lambda m: m[0].register_forward_hook(lambda m, x, y: y + 1), "0 (Linear): it has a"
    ),
    "a hook with names": (
        chain, lambda m: m[0].register_forward_hook(lambda m, a, k, y: y + 1, with_kwargs=True),
        "0 (Linear): it has a forward hook",
    ),
    "a hook before": (
        chain, lambda m: m[2].register_forward_pre_hook(lambda m, x: (x[0] + 1,)), "2 (Linear)"
    ),
    "a hook on ReLU": (
        chain, lambda m: m[1].register_forward_hook(lambda m, x, y: y + 1), "1 (ReLU): it has a for"
    ),
    "a hook on BatchNorm": (
        lambda: chain(nn.BatchNorm1d(6)),
        lambda m: m[1].register_forward_hook(lambda m, x, y: y + 1), "1 (BatchNorm1d)",
    ),
    "a hook on an inner Sequential": (
        lambda: nn.Sequential(chain(), nn.ReLU(), nn.Linear(4, 3)),
        lambda m: m[0].register_forward_hook(lambda m, x, y: y + 1), "0 (Sequential): it has a for",
    ),
    "a hook that reads": (
        chain, lambda m: m.register_forward_hook(lambda m, x, y: y @ m[4].weight), "4 (Linear): "
    ),
    "another forward": (chain, replaced, "1 (ReLU): its forward was replaced"),
    "a Linear of a class": (lambda: chain(OwnLinear(6, 6)), None, "1 (OwnLinear): it is of a "),
    "a ReLU of a class": (lambda: chain(OwnReLU()), None, "1 (OwnReLU)"),
    "a Dropout of a class": (lambda: chain(OwnDropout()), None, "1 (OwnDropout)"),
    "a pool over units": (lambda: chain(nn.MaxPool1d(3, 1, 1)), None, "1 (MaxPool1d): what it"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_does_more_than_its_class_is_left_and_said(name: str) -> None:
    make, change, said = CHANGED[name]
    module = make()
    x = torch.randn(50, 5)
    if change:
        change(module)
        module(x)  # which leaves weights with gradients behind, that PyTorch does not copy
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        small = compact(module)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    # a weight norm of zeros is NaN
    close = {"atol": 1e-5, "rtol": 0, "equal_nan": True}
    torch.testing.assert_close(small.eval()(x), module.eval()(x), **close)


def test_hooks_on_gradients_and_those_of_a_pruner_do_not_matter() -> None:
    module = chain()
    module[0].register_full_backward_hook(lambda m, x, y: None)
    pruner = Pruner(module, "wanda", "fixed", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(compact(module)) < size(module)
    pruner.release()


def test_hooks_on_all_modules_leave_everything() -> None:
    module, x = chain().eval(), torch.randn(9, 5)
    handle = nn.modules.module.register_module_forward_hook(lambda m, x, y: y + 1)
    try:
        with pytest.warns(UserWarning, match="hooks are registered on all modules at once"):
            small = compact(module)
        assert torch.equal(small(x), module(x))
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_other_precisions_are_compacted(dtype: torch.dtype) -> None:
    module, x = chain().to(dtype), torch.randn(20, 5, dtype=dtype)
    small = compact(module)
    assert size(small) < size(module)
    atol = 10 * torch.finfo(dtype).eps
    torch.testing.assert_close(small(x), module(x), atol=atol, rtol=atol)


def test_complex_and_empty_layers_are_left() -> None:
    empty = nn.Sequential(nn.Linear(3, 0), nn.ReLU(), nn.Linear(0, 3))
    imaginary = nn.Sequential(*(nn.Linear(3, 3, dtype=torch.cfloat) for _ in range(2)))
    for module, said in ((empty, "it has no weights"), (imaginary, "complex64")):
        with pytest.warns(UserWarning, match=said):
            assert size(compact(module)) == size(module)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_left(value: float) -> None:
    module, x = chain(nn.BatchNorm1d(6)), torch.randn(9, 5)
    module[1].running_mean[1] = value
    with pytest.warns(UserWarning, match="layers or norms hold NaN or infinity"):
        small = compact(module)
    torch.testing.assert_close(small.eval()(x), module.eval()(x), equal_nan=True)


def test_a_compiled_module_gives_a_plain_one_and_what_has_no_values_is_refused() -> None:
    module = chain()
    small = compact(torch.compile(module, backend="eager"))
    assert type(small) is nn.Sequential
    assert size(small) < size(module)
    with pytest.raises(ValueError, match="is on the meta device"):
        compact(chain().to("meta"))
    with pytest.raises(ValueError, match=r"must be a torch.nn.Module; it is of type list"):
        compact([chain()])
    with pytest.warns(UserWarning, match="it is lazy and has no weight yet"):
        compact(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.LazyLinear(3)))


def test_a_difference_on_an_example_leaves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from evoae.modules import chains

    def without_folding(links: list[Link]) -> tuple[list[Tensor], list[Tensor]]:
        return [link.bias for link in links], analyse(links)[1]

    monkeypatch.setattr(chains, "analyse", without_folding)  # a bug, as there may be one
    module = chain()
    with pytest.warns(UserWarning, match=r"module \(Sequential\): with fewer units outputs would"):
        small = compact(module)
    x = torch.randn(20, 5)
    assert torch.equal(small(x), module(x))
