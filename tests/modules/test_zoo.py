"""A Pruner on every module of the zoo: what is claimed of any, of each of them."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from zoo import ZOO

from evoae import Pruner
from evoae.modules import checks
from evoae.networks import training
from evoae.pruning.operators import OPERATORS

# where no calls show activations, or inputs, of some layer, and where some layer has no ReLU
UNSEEN = set(
    "bilinear sparse-autoencoder tied-matrix functional-parameters low-rank experts graph lstm "
    "lstm-layers lstm-projected gru gru-layers rnn cells token-lstm transformer-layers transformer "
    "attention masked-autoencoder".split()
)
UNITS = ["top-k", "tied", "grouped", "u-net", "attention", "weight-norm-by-hook"]
# an input or an output goes through every weight
WITHOUT_UNITS = ["shared-layer"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # which looks at all objects that there are, and a test process has many
    monkeypatch.setattr(checks, "warn_of_averages", lambda module: None)
    with training.one_thread():
        yield


def step(module: nn.Module, x: Tensor, loss: zoo.Loss, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss(module(x), x).backward()
    optimiser.step()


def pruned(name: str, operator: str = "magnitude", target: float = 0.9, **options: Any) -> Any:
    """A module after the only epoch of its Pruner, with the optimiser that goes on."""
    module, x, loss = ZOO[name]()
    given = {"target_sparsity": target} | options
    pruner = Pruner(module.train(), operator, "one-shot", 1, **given)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2, weight_decay=0.01)
    torch.manual_seed(4)
    step(module, x, loss, optimiser)
    pruner.epoch_end()
    return module, x, loss, pruner, optimiser


def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tree_leaves(module.eval()(x))


def assert_same(module: nn.Module, other: nn.Module, x: Tensor, atol: float = 0.0) -> None:
    for a, b in zip(outputs(module, x), outputs(other, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def tensors(pruner: Pruner) -> list[Any]:
    return [tensor for target in pruner.targets for tensor in target.tensors.values()]


@pytest.mark.parametrize("name", ZOO)
def test_nine_tenths_of_any_module_are_pruned_and_stay_so(name: str) -> None:
    module, x, loss, pruner, optimiser = pruned(name)
    before = [*dict(ZOO[name]()[0].named_parameters())]
    for _ in range(5):
        step(module, x, loss, optimiser)
    assert all((tensor.value[~tensor.keeps] == 0).all() for tensor in tensors(pruner))
    table = pruner.report()
    assert table.zeros.iloc[-1] == round(0.9 * pruner.size)
    assert table.parameters.iloc[-1] == pruner.size
    every = {id(p): p.numel() for p in module.parameters()}
    assert str(table).startswith(f"covers {pruner.size:,} of {sum(every.values()):,} parameters")
    twin = copy.deepcopy(module)
    assert_same(module, twin, x)
    expected = outputs(module, x)
    pruner.finish()
    for a, b in zip(expected, outputs(module, x), strict=True):
        torch.testing.assert_close(
            a, b, rtol=0, atol=1e-6
        )  # plain layers have kernels of their own
    assert not any(hasattr(part, "parametrizations") for part in module.modules())
    assert not any(part._forward_hooks for part in module.modules())
    if "norm" not in name or name.endswith(("group-norm", "batch-norm", "layer-norm")):
        assert [*dict(module.named_parameters())] == before
    assert_same(module, twin, x, atol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_a_state_dict_goes_into_fresh_modules_masked_or_not(name: str) -> None:
    module, x, loss, pruner, optimiser = pruned(name)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    for masked in (False, True):
        file.seek(0)
        fresh = ZOO[name]()[0]
        if masked:
            other = Pruner(fresh, "magnitude", "one-shot", 1, target_sparsity=0.9)
        elif name == "spectral-norm":  # which computes another weight of a sparse one
            continue
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert_same(module, fresh, x, atol=1e-5)  # plain layers have kernels of their own
    pairs = zip(tensors(pruner), tensors(other), strict=True)
    assert all(torch.equal(a.keeps, b.keeps) for a, b in pairs)
    goes_on = torch.optim.Adam(fresh.parameters(), 1e-2, weight_decay=0.01)
    goes_on.load_state_dict(optimiser.state_dict())
    step(fresh.train(), x, loss, goes_on)


@pytest.mark.parametrize("name", ZOO)
def test_every_operator_prunes_any_module_or_names_the_layers_it_cannot_see(name: str) -> None:
    scored = "lamp obd taylor snip movement rigl set random".split()
    for operator in (scored[[*ZOO].index(name) % 8], "wanda"):  # of all, one for each module
        unseen = name in UNSEEN | {"bag"} and operator == "wanda"
        if unseen:
            with pytest.raises(ValueError, match="wanda reads input_norm, which cannot be seen of"):
                pruned(name, operator)
        else:
            *_, pruner, _ = pruned(name, operator)
            assert sum(pruner.counts()["zeros"]) == round(0.9 * pruner.size)
    if name in UNSEEN:
        with pytest.raises(ValueError, match="reads deviation, which cannot be seen of"):
            pruned(name, "variance-low")


def unit_size(pruner: Pruner) -> int:
    """Parameters of the largest unit."""
    layers = pruner.layers()
    ones = [(torch.ones_like(layer.weight), torch.ones_like(layer.bias)) for layer in layers]
    return int(pruner.unit_groups.total(ones).max())


@pytest.mark.parametrize("name", [*UNITS, *WITHOUT_UNITS])
def test_units_go_whole_and_to_the_nearest(name: str) -> None:
    target, operator = 0.6, "taylor" if len(name) % 2 else "magnitude"
    if name in WITHOUT_UNITS:
        with pytest.raises(ValueError, match="granularity=unit finds no unit that may go: "):
            pruned(name, operator, target, granularity="unit")
        return
    module, x, loss, pruner, optimiser = pruned(name, operator, target, granularity="unit")
    zeros, goal = sum(pruner.counts()["zeros"]), round(target * pruner.size)
    assert abs(zeros - goal) <= unit_size(pruner) / 2
    masks = {t.names[0]: t.keeps for t in tensors(pruner)}
    groups = pruner.unit_groups
    live = groups.total([(layer.active, layer.active_bias) for layer in pruner.layers()])
    assert 0 < (live == 0).sum() < len(live)
    step(module, x, loss, optimiser)
    assert all((t.value[~masks[t.names[0]]] == 0).all() for t in tensors(pruner))
    assert ("no unit of it may go: out" in str(pruner.report())) == (name == "attention")
    pruner.finish()


@pytest.mark.parametrize("name", ["tied", "u-net", "lstm", "token-lstm", "gpt", "weight-norm"])
def test_checkpointed_accumulated_averaged_and_rewound(name: str) -> None:
    module, x, loss = ZOO[name]()
    begin = copy.deepcopy(module.state_dict())
    pruner = Pruner(module.train(), "snip", "one-shot", 1, target_sparsity=0.8)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for part in x.chunk(2):
        loss(checkpoint(module, part, use_reentrant=False), part).backward()
    optimiser.step()
    pruner.epoch_end()
    average = AveragedModel(module)
    step(module, x, loss, optimiser)
    average.update_parameters(module)
    assert_same(average.module, module, x)
    for inner, own in zip(average.module.parameters(), module.parameters(), strict=True):
        assert inner.shape == own.shape
    module.train()
    pruner.rewind(begin, optimiser)
    plain = dict(ZOO[name]()[0].named_parameters(remove_duplicate=False))
    for tensor in tensors(pruner):
        if tensor.stored is not None:
            assert torch.equal(tensor.value, plain[tensor.names[0]] * tensor.keeps)
            moments = optimiser.state[tensor.stored]["exp_avg"]
            assert (moments[~tensor.keeps] == 0).all()


def test_a_rewind_that_does_not_fit_changes_nothing() -> None:
    module, x, _, pruner, _ = pruned("dense")
    with pytest.raises(ValueError, match="holds the module's own tensors: deepcopy it"):
        pruner.rewind(module.state_dict())
    expected, other = outputs(module, x), ZOO["u-net"]()[0].state_dict()
    with pytest.raises(ValueError, match="does not fit the module: Error") as caught:
        pruner.rewind(other)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(expected, outputs(module, x), strict=True))
    pruner.finish()
    with pytest.raises(
        ValueError, match="rewind needs pruned_weights=masked, and comes before fin"
    ):
        pruner.rewind(copy.deepcopy(module.state_dict()))


# -- one tensor, one mask ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shared-layer", "token-lstm", "gpt", "transformer"])
def test_a_shared_tensor_counts_once_and_stays_tied(name: str) -> None:
    module, x, loss, pruner, optimiser = pruned(name)
    shared = [tensor for tensor in tensors(pruner) if len(tensor.holders) > 1]
    assert len(shared) == 1
    for _ in range(3):
        step(module, x, loss, optimiser)
    (part, own), (other, its) = shared[0].holders
    assert torch.equal(getattr(part, own), getattr(other, its))
    pruner.finish()
    assert getattr(part, own) is getattr(other, its)
    with pytest.raises(ValueError, match="there is no layer 'spam'"):
        Pruner(module, "magnitude", "cubic", 2, exclude=["spam"], target_sparsity=0.5)
    second = shared[0].names[1].removesuffix(".weight")  # either name will do
    left = Pruner(module, "magnitude", "cubic", 2, exclude=[second], target_sparsity=0.5)
    assert shared[0].names[0] not in [tensor.names[0] for tensor in tensors(left)]


def test_what_is_left_out_is_warned_of() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale

    with pytest.warns(UserWarning, match=r"covers 20 of 24 parameters \(83.3%\); left out: scale"):
        Pruner(Scaled(), "magnitude", "cubic", 2, target_sparsity=0.5)


# -- what operators see --------------------------------------------------------------------------


def test_layers_are_seen_as_out_by_in_however_they_have_their_weight() -> None:
    module, x, loss = ZOO["grouped"]()
    pruner = Pruner(module.train(), "wanda", "one-shot", 1, target_sparsity=0.5)
    loss(module(x), x).backward()
    inputs = {}
    for name in ("4", "6"):
        module[int(name)].register_forward_pre_hook(
            lambda m, given, name=name: inputs.update({name: given[0].detach()})
        )
    module(x)
    seen = {each.target.name: each.view(None) for each in pruner.observers}
    weight = module[4].weight.detach()  # transposed, [12, 4, 2, 2] in two groups of channels
    assert seen["4"].weight.shape == (8, 6 * 4)
    for unit, row in enumerate(seen["4"].weight):
        group, own = divmod(unit, 4)
        assert torch.equal(row, weight[6 * group : 6 * group + 6, own].flatten())
    norms = inputs["4"].double().square().mean((0, 2, 3)).sqrt().view(2, 6)
    expected = norms.repeat_interleave(4, 0).repeat_interleave(4, 1)
    torch.testing.assert_close(seen["4"].input_norm, expected, rtol=1e-5, atol=0)
    target = pruner.targets[2]
    assert torch.equal(target.from_matrix(target.matrix(weight)), weight)
    assert pruner.report().macs.notna().all()


def test_a_lookup_is_a_linear_layer_of_ones_and_zeros() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    x = torch.tensor([[0, 0, 1], [2, 0, 1]])
    pruner = Pruner(module, "wanda", "one-shot", 1, target_sparsity=0.5)
    module(x).sum().backward()
    view = pruner.observers[0].view(None)
    assert torch.equal(view.weight, module[0].weight.detach().t())
    expected = (torch.tensor([3.0, 2, 1, 0, 0], dtype=torch.float64) / 6).sqrt()
    torch.testing.assert_close(view.input_norm, expected)


# -- units ---------------------------------------------------------------------------------------


def masked_rows(pruner: Pruner, name: str) -> set[int]:
    (target,) = (each for each in pruner.targets if each.name == name)
    gone = ~target.matrix(target.weight.keeps).any(1)
    return set(gone.nonzero().flatten().tolist())


def test_what_is_summed_or_read_goes_with_the_channel() -> None:
    *_, pruner, _ = pruned("residual", target=0.6, granularity="unit")
    stream = masked_rows(pruner, "first")
    assert stream
    assert stream == masked_rows(pruner, "conv2")
    for reader in ("conv1", "down", "shortcut"):
        (target,) = (each for each in pruner.targets if each.name == reader)
        assert not target.weight.keeps[:, sorted(stream)].any()


def test_heads_and_hidden_units_go_with_all_their_rows() -> None:
    *_, pruner, _ = pruned("gpt", target=0.5, granularity="unit")
    assert all(len(masked_rows(pruner, "c_attn") & set(range(k, k + 4))) in (0, 4) for k in (0, 4))
    *_, pruner, _ = pruned("lstm", target=0.6, granularity="unit")
    rows = masked_rows(pruner, "encoder.weight_ih_l0")
    assert rows
    assert {row % 8 + 8 * gate for row in rows for gate in range(4)} == rows
    assert rows == masked_rows(pruner, "encoder.weight_hh_l0")


def test_values_of_an_attention_without_heads_go_with_what_reads_them() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))
            self.out = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))

    module, x = Attention(), torch.rand(3, 5, 6)
    given = {"target_sparsity": 0.5, "granularity": "unit"}
    pruner = Pruner(module, "magnitude", "one-shot", 1, **given)
    module(x).sum().backward()
    pruner.epoch_end()
    assert masked_rows(pruner, "q") == masked_rows(pruner, "k") != set()
    gone = ~pruner.masks()["out.weight"].keeps.any(0)
    assert masked_rows(pruner, "v") == set(gone.nonzero().flatten().tolist()) != set()


@pytest.mark.parametrize("allocation", ["layer", "erk", "global"])
def test_units_of_the_lowest_sums_go_first(allocation: str) -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
    with torch.no_grad():
        module[0].weight.copy_(torch.arange(1.0, 9)[:, None].expand(8, 6))
    given = {"target_sparsity": 0.5, "granularity": "unit", "allocation": allocation}
    pruner = Pruner(module, "magnitude", "one-shot", 1, **given)
    module(torch.ones(2, 6)).sum().backward()
    pruner.epoch_end()
    assert masked_rows(pruner, "0") == {0, 1, 2, 3}


def test_units_that_are_too_few_or_cannot_be_seen_are_refused() -> None:
    module = nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 20, bias=False))
    given = {"target_sparsity": 0.5, "granularity": "unit"}
    pruner = Pruner(module, "magnitude", "one-shot", 1, **given)
    module[1](module[0](torch.ones(1, 20))).sum().backward()
    with pytest.raises(
        ValueError, match="follows channels through the whole module, which was nev"
    ):
        pruner.epoch_end()
    pruner.finish()
    alone = nn.Linear(4, 4)
    pruner = Pruner(alone, "magnitude", "one-shot", 1, **given)
    alone(torch.ones(1, 4)).sum().backward()
    with pytest.raises(ValueError, match="granularity=unit finds no unit that may go: "):
        pruner.epoch_end()


def test_every_score_is_summed_over_units() -> None:
    module, x, loss = ZOO["conv2d"]()
    common = {"target_sparsity": 0.5, "granularity": "unit"}
    found = None
    for name, operator in OPERATORS.items():
        if operator.score is None or name in ("apoz", "conjunctive"):
            continue
        fresh = copy.deepcopy(module).train()
        pruner = Pruner(fresh, name, "one-shot", 1, **common)
        pruner.unit_groups = found  # the same for all: found once
        loss(fresh(x), x).backward()
        pruner.epoch_end()
        found = pruner.unit_groups
        size = unit_size(pruner) / 2
        assert abs(sum(pruner.counts()["zeros"]) - round(0.5 * pruner.size)) <= size, name
