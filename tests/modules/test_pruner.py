"""A user's module, pruned in a user's loop: the masks of evoae's own, and zeros that hold."""

from __future__ import annotations

import copy
import datetime
import gc
import io
import itertools
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune
from torch.optim import optimizer
from torch.optim.swa_utils import AveragedModel, update_bn

from evoae import Pruner, compact
from evoae.modules import checks, masking
from evoae.modules.masking import Mask
from evoae.networks import activations, gradients, population, training
from evoae.pruning import driver, members, operators
from evoae.pruning.operators import OPERATORS
from evoae.randomness import stream

ROWS = torch.from_numpy(np.random.default_rng(5).random((40, 12), np.float32))
SEED = 3
WARN_OF_AVERAGES = checks.warn_of_averages


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads only wait for each other on layers as small as these."""
    # which looks at all objects that there are, and a test process has many
    monkeypatch.setattr(checks, "warn_of_averages", lambda module: None)
    with training.one_thread():
        yield


def convolutional() -> nn.Sequential:
    """Of 8 x 8 images: 1,006 parameters, one layer without bias."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, stride=2, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 64), nn.Sigmoid(),
    )  # fmt: skip


IMAGES = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def train(module: nn.Module, optimiser: torch.optim.Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        F.l1_loss(module(IMAGES), IMAGES.flatten(1)).backward()
        optimiser.step()


def pruned_once(operator: str = "magnitude", **settings: Any) -> tuple[nn.Module, Pruner]:
    """A masked module after its first epoch, a tenth of it pruned."""
    module = convolutional()
    pruner = Pruner(module, operator, "fixed", 20, **(KEPT | settings))
    train(module, torch.optim.SGD(module.parameters(), 0.1))
    assert pruner.epoch_end()
    return module, pruner


KEPT = {"pruned_weights": "masked", "probability": 1.0, "amount": 0.3, "examples": IMAGES}


def zeros(module: nn.Module) -> dict[str, Tensor]:
    """Where the weights and biases of layers are zero."""
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    pairs = itertools.product(layers.items(), ("weight", "bias"))
    parts = {f"{n}.{part}": getattr(m, part) for (n, m), part in pairs}
    return {name: part == 0 for name, part in parts.items() if part is not None}


def assert_zero(module: nn.Module, where: dict[str, Tensor]) -> None:
    now = zeros(module)
    assert now.keys() == where.keys()
    for name, there in where.items():
        assert now[name][there].all(), name


# -- the masks of evoae's own loop ---------------------------------------------------------------


def side_by_side(
    operator: str, schedule: str, masked: bool, **settings: Any
) -> Iterator[tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]]:
    """Weights of a population's member and of the same module, after each of three prunes.

    Both see the same rows, and take the same step in between.
    """
    networks = population.initialise(12, "6-4", "plain", [np.random.default_rng(1)], "cpu")
    module = nn.Sequential(*networks.member(0))
    kept = {"pruned_weights": "masked" if masked else "regrow", "examples": ROWS}
    pruner = Pruner(module, operator, schedule, 3, seed=SEED, **kept, **settings)
    e, record = pruner.experiment, pruner.operator
    training.prepare(networks, "adam", masked)
    gradients.keep(networks, 0, record.lasting, ROWS, "l1")
    if record.regrows and e.has_target:
        first = stream(SEED, 0, 0, 0, "first mask")
        members.prune(
            networks, [0], driver.AT_RANDOM, [first], e.operator_settings(0, e.target_sparsity)
        )
    for t in range(3):
        module.zero_grad()
        F.l1_loss(module(ROWS), ROWS).backward()
        for side, seen in zip(networks.sides, networks.activations(ROWS[None]), strict=True):
            activations.observe(side, seen)
        flat = gradients.flat(networks, 0, ROWS, "l1")
        for side, slope in zip(networks.sides, flat, strict=True):
            side.tensors["second_moment"][0] = slope.square()
        if "movement" in record.lasting:
            gradients.observe_movement(networks, 0, ROWS, "l1")
        drawn = stream(SEED, 0, t, 0, "examples").integers(0, len(ROWS), 100)
        rows = ROWS[drawn] if operator == "conjunctive" else ROWS
        rng = stream(SEED, 0, t, 0, "operator")
        options = e.operator_settings(t)
        there = e.has_target and masked and members.at_target(networks, record, options)[0]
        due = e.pruning_at(t) > 0 and not there
        assert pruner.epoch_end() == due
        if due:
            members.prune(
                networks, [0], record, [rng], options, lambda i, x=rows: x, lambda i: ROWS
            )
            for side in networks.sides:
                activations.reset(side)
        layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
        theirs = [layer for side in networks.sides for layer in side.layers()]
        yield (
            [(weight[0], bias[0]) for weight, bias in theirs],
            [(m.weight.detach(), m.bias.detach()) for m in layers],
        )
        stored = [p for p in module.parameters() if p.grad is not None]
        with torch.no_grad():
            for parameter in stored:
                parameter.sub_(0.5 * parameter.grad)
            for (weight, bias), layer in zip(theirs, layers, strict=True):
                weight[0], bias[0] = layer.weight, layer.bias


def same_masks(*arguments: Any, **settings: Any) -> int:
    """Prunes whose masks were compared entry by entry."""
    changed = 0
    for theirs, ours in side_by_side(*arguments, **settings):
        for one, other in zip(theirs, ours, strict=True):
            for mine, own in zip(one, other, strict=True):
                torch.testing.assert_close(own, mine, rtol=0, atol=1e-7)
                assert torch.equal(own == 0, mine == 0)
                changed += int((own == 0).sum())
    return changed


ALONE = [name for name in OPERATORS if name not in ("none", "noise")]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("operator", ALONE)
def test_masks_are_those_of_the_loop(operator: str, masked: bool) -> None:
    masked = masked or OPERATORS[operator].regrows
    assert same_masks(operator, "fixed", masked, probability=1.0, amount=0.3, threshold=0.4)


@pytest.mark.parametrize("allocation", ["layer", "erk"])
@pytest.mark.parametrize("operator", ALONE)
def test_masks_on_the_way_to_a_target_are_those_of_the_loop(operator: str, allocation: str) -> None:
    assert same_masks(operator, "cubic", True, target_sparsity=0.7, allocation=allocation)


def test_masks_of_an_exchange_and_of_one_ranking_are_those_of_the_loop() -> None:
    options = {
        "target_sparsity": 0.7,
        "drop_fraction": 0.3,
        "allocation": "global",
        "prune_biases": False,
    }
    assert same_masks("magnitude", "cubic", True, **options)


def test_noise_gives_the_fresh_values_of_the_loop() -> None:
    options = {"probability": 1.0, "amount": 0.3}
    for theirs, ours in side_by_side("noise", "fixed", False, **options):
        for one, other in zip(theirs, ours, strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-7)


def test_prunes_happen_when_the_loop_draws_them() -> None:
    module = convolutional()
    pruner = Pruner(module, "random", "increase", 30, seed=SEED, probability=0.9)
    module(IMAGES)
    happened = [pruner.epoch_end() for _ in range(30)]
    drawn = [stream(SEED, 0, t, 0, "prune or not").random() < 0.9 * t / 30 for t in range(30)]
    assert happened == drawn
    assert 5 < sum(drawn) < 25


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["magnitude", "obd", "apoz"])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_an_exchange_keeps_the_number_where_layers_have_no_bias(
    operator: str, share: float
) -> None:
    module = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 6, bias=False))
    aim = {"target_sparsity": share, "pruned_weights": "masked", "drop_fraction": 0.5}
    pruner = Pruner(module, operator, "cubic", 6, prune_until=0.4, **aim)
    optimiser, x = torch.optim.Adam(module.parameters(), 0.01), torch.rand(20, 6)
    for _ in range(6):
        optimiser.zero_grad()
        F.l1_loss(module(x), x).backward()
        optimiser.step()
        pruner.epoch_end()
    assert pruner.report().zeros.iloc[-1] == round(share * 96)


@pytest.mark.parametrize("policy", ["masked", "regrow"])
@pytest.mark.parametrize("operator", [n for n in ALONE if not OPERATORS[n].regrows])
def test_a_target_is_reached_exactly_where_layers_have_no_bias(operator: str, policy: str) -> None:
    module = convolutional()
    pruner = Pruner(
        module, operator, "cubic", 4, target_sparsity=0.77, pruned_weights=policy, examples=IMAGES
    )
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for t in range(4):
        train(module, optimiser, 2)
        assert pruner.epoch_end() == (t > 0)
    report = pruner.report()
    assert report.zeros.iloc[-1] == round(0.77 * report.parameters.iloc[-1])
    assert report.zeros.iloc[-1] == sum(int(part.sum()) for part in zeros(module).values())


def test_once_it_is_reached_a_masked_module_is_left_alone() -> None:
    module = convolutional()
    options = {"target_sparsity": 0.5, "prune_until": 0.25, "pruned_weights": "masked"}
    pruner = Pruner(module, "magnitude", "cubic", 9, **options)
    module(IMAGES)
    assert [pruner.epoch_end() for _ in range(9)] == [False, True, True] + [False] * 6


def gathers(pruner: Pruner) -> bool:
    """Whether the last epoch was looked at."""
    return any(sum(each.counts.values()) for each in pruner.observers)


@pytest.mark.parametrize("operator", ["variance-low", "taylor", "snip", "wanda"])
def test_nothing_is_gathered_once_no_prune_is_to_come(operator: str) -> None:
    module = convolutional()
    options = KEPT | {"target_sparsity": 0.6, "prune_until": 0.5}
    pruner = Pruner(module, operator, "cubic", 8, **options)
    optimiser, pruned, gathered = torch.optim.SGD(module.parameters(), 0.1), [], []
    for _ in range(8):
        train(module, optimiser)
        gathered.append(gathers(pruner))
        pruned.append(pruner.epoch_end())
    last = max(t for t, each in enumerate(pruned) if each)
    assert last < 7
    assert gathered == [True] * (last + 1) + [False] * (7 - last)


@pytest.mark.parametrize("window", ["visit", "since-prune"])
def test_epochs_that_no_prune_asks_about_are_not_looked_at(window: str) -> None:
    module = convolutional()
    options = KEPT | {"probability": 0.3, "statistics_window": window}
    pruner = Pruner(module, "variance-low", "fixed", 12, **options)
    optimiser, pruned, gathered = torch.optim.SGD(module.parameters(), 0.1), [], []
    for t in range(12):
        train(module, optimiser)
        gathered.append(gathers(pruner))
        pruned.append(pruner.epoch_end())
        if t == 5:  # as if the training had been interrupted here
            state = copy.deepcopy(pruner.state_dict())
            pruner.load_state_dict(state)
    assert 0 < sum(pruned) < 12
    later = [any(pruned[t:]) for t in range(12)]
    assert gathered == (pruned if window == "visit" else later)


def test_masks_that_somebody_changed_are_seen_to() -> None:
    module = convolutional()
    options = KEPT | {"target_sparsity": 0.5, "prune_until": 0.3}
    pruner = Pruner(module, "variance-low", "cubic", 12, **options)
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(6):
        train(module, optimiser)
        pruned = pruner.epoch_end()
    before = pruner.report().zeros.iloc[-1]
    assert not pruned
    for part in module.modules():
        if isinstance(part, Mask):
            part.kept.fill_(1)
    train(module, optimiser)
    assert not pruner.epoch_end()  # nothing was gathered to prune by
    train(module, optimiser)
    assert pruner.epoch_end()
    assert pruner.report().zeros.iloc[-1] == before


def test_layers_that_are_not_chosen_are_left_alone() -> None:
    whole = ["0", "3", "6", "8"]
    for options, layers in (
        ({"layers": [nn.Conv2d]}, whole[:2]),
        ({"layers": ["0", nn.Linear]}, ["0", "6", "8"]),
        ({"exclude": ["8"]}, whole[:3]),
        ({"layers": [nn.Linear], "exclude": ["8"]}, ["6"]),
    ):
        module, pruner = pruned_once(**options)
        assert pruner.report().layer.tolist() == [*layers, "all"]
        for name in whole:
            assert (module.get_submodule(name).weight == 0).any() == (name in layers)
    inside = nn.Sequential(convolutional(), nn.Linear(64, 64))
    assert len(Pruner(inside, "none", "fixed", 1, layers=["0"]).targets) == 4


# -- zeros that hold -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
        lambda p: torch.optim.AdamW(p, 0.01),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    ],
)
@pytest.mark.parametrize("made", ["before", "after"])
def test_masked_weights_are_exactly_zero_after_a_hundred_steps(optimiser: Any, made: str) -> None:
    module = convolutional()
    early = optimiser(module.parameters())
    pruner = Pruner(module, "taylor", "fixed", 20, **KEPT)
    own = early if made == "before" else optimiser(module.parameters())
    train(module, own, 5)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    assert pruner.epoch_end()
    where = zeros(module)
    assert sum(int(part.sum()) for part in where.values()) > 200
    train(module, own, 100)
    assert_zero(module, where)
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert all(moved)
    plain = pruner.finish()
    assert_zero(plain, where)
    assert {id(p) for p in plain.parameters()} == {id(p) for p in own.param_groups[0]["params"]}


def test_weights_that_regrow_begin_at_zero_whatever_momentum_did() -> None:
    module = convolutional()
    pruner = Pruner(module, "set", "fixed", 9, probability=1.0, amount=0.4)
    optimiser = torch.optim.SGD(module.parameters(), 0.5, momentum=0.9)
    regrown = 0
    for _ in range(5):
        train(module, optimiser, 3)
        before = zeros(module)
        kept = [p.layer.parametrizations.weight[0].kept == 0 for p in pruner.targets]
        pruner.epoch_end()
        now = [p.layer.parametrizations.weight[0].kept != 0 for p in pruner.targets]
        opened = [a & b for a, b in zip(kept, now, strict=True)]
        regrown += sum(int(each.sum()) for each in opened)
        for target, each in zip(pruner.targets, opened, strict=True):
            assert (target.layer.weight[each] == 0).all()
        assert before.keys() == zeros(module).keys()
    assert regrown > 100


def test_without_masks_training_moves_pruned_weights() -> None:
    module, _ = pruned_once(pruned_weights="regrow")
    assert not parametrize.is_parametrized(module[0])
    where = zeros(module)
    train(module, torch.optim.Adam(module.parameters(), 0.01))
    assert sum(int((~zeros(module)[name][there]).sum()) for name, there in where.items()) > 100


def test_masks_hold_in_copies_and_both_can_be_finished() -> None:
    module, pruner = pruned_once("variance-high")
    where, other = zeros(module), copy.deepcopy(module)
    train(other, torch.optim.Adam(other.parameters(), 0.01), 5)
    assert_zero(other, where)
    assert not torch.equal(other[0].weight, module[0].weight)
    pruner.finish()
    assert torch.is_tensor(other[0].weight)  # the copy's masks are its own
    assert_zero(other, where)
    assert type(module[0]) is nn.Conv2d
    assert not list(module.buffers())[3:]  # those of batch normalisation
    twice = copy.deepcopy(copy.deepcopy(other))
    assert torch.equal(twice(IMAGES), other(IMAGES))
    parametrize.remove_parametrizations(twice[0], "weight")
    assert_zero(other, where)


def test_hooks_do_not_go_with_copies() -> None:
    module, pruner = pruned_once("apoz")
    seen = pruner.observers[0].sums["zeros"].clone()
    copy.deepcopy(module)(IMAGES)
    assert torch.equal(pruner.observers[0].sums["zeros"], seen)
    module(IMAGES)
    assert not torch.equal(pruner.observers[0].sums["zeros"], seen)


@pytest.mark.parametrize("operator", ["conjunctive", "rigl"])
def test_a_whole_module_is_saved_and_read_back(operator: str) -> None:
    module, _ = pruned_once(operator)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    assert torch.equal(read.eval()(IMAGES), module.eval()(IMAGES))
    train(read.train(), torch.optim.Adam(read.parameters(), 0.01), 5)
    assert_zero(read, zeros(module))


@pytest.mark.parametrize("operator", ["variance-low", "wanda", "movement", "snip", "obd", "set"])
def test_a_run_goes_on_where_it_was(operator: str) -> None:
    options = KEPT | {"probability": 0.7}

    def begin() -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
        module = convolutional()
        optimiser = torch.optim.Adam(module.parameters(), 0.01)
        return module, optimiser, Pruner(module, operator, "fixed", 8, **options)

    whole = begin()
    for t in range(8):
        train(*whole[:2], 2)
        whole[2].epoch_end()
        if t == 3:
            saved = copy.deepcopy([part.state_dict() for part in whole])
    resumed = begin()
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    for _ in range(4):
        train(*resumed[:2], 2)
        resumed[2].epoch_end()
    one, other = whole[0].state_dict(), resumed[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    wrong = Pruner(convolutional(), operator, "fixed", 9, **options)
    with pytest.raises(ValueError, match="the state was saved with epochs=8; here it is 9"):
        wrong.load_state_dict(saved[2])


@pytest.mark.parametrize("operator", ["variance-high", "rigl"])
def test_mixed_precision(operator: str) -> None:
    module = convolutional()
    pruner = Pruner(module, operator, "fixed", 20, **KEPT)
    optimiser = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            train(module, optimiser, 2)
        assert pruner.epoch_end()
    where = zeros(module)
    with torch.autocast("cpu", torch.bfloat16):
        train(module, optimiser, 3)
    if operator != "rigl":
        assert_zero(module, where)
    assert sum(int(part.sum()) for part in where.values()) > 200


@pytest.mark.parametrize("operator", ["apoz", "taylor"])
def test_compiled(operator: str) -> None:
    torch.manual_seed(1)  # a small module, as compiling takes long
    plain = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 64)
    )
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, backend="aot_eager")
    pruners = [Pruner(m, operator, "fixed", 20, **KEPT) for m in (plain, twin)]
    for module, called, pruner in zip((plain, twin), (plain, compiled), pruners, strict=True):
        optimiser = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(2):
            train(called, optimiser, 2)
            assert pruner.epoch_end()
    for name, there in zeros(plain).items():
        assert torch.equal(zeros(twin)[name], there), name


def together(rank: int, folder: str) -> None:
    """One of two processes: half of the images each."""
    url = f"file://{folder}/meet"
    given = {"init_method": url, "rank": rank, "world_size": 2}
    limit = datetime.timedelta(seconds=120)  # for the other one to begin
    torch.distributed.init_process_group("gloo", timeout=limit, **given)
    for operator in ("variance-high", "conjunctive", "obd", "snip"):
        _, *rest = convolutional()  # which seeds, for the first layer too
        # without batch normalisation, whose statistics are of one process
        module = nn.Sequential(nn.Conv2d(1, 6, 1), *rest[2:])
        whole = copy.deepcopy(module)
        pruner = Pruner(module, operator, "fixed", 5, **(KEPT | {"examples": halves()[rank]}))
        wrapped = nn.parallel.DistributedDataParallel(module)
        images = halves()[rank]
        F.l1_loss(wrapped(images), images.flatten(1)).backward()
        sums = pruner.observers[0].sums
        local = {name: tensor.clone() for name, tensor in sums.items()}
        pruner.epoch_end()
        if rank == 0:
            torch.save((zeros(module), local), f"{folder}/{operator}-0")
        torch.distributed.barrier()
        if rank == 1:
            theirs, _ = torch.load(f"{folder}/{operator}-0")
            assert all(torch.equal(theirs[name], there) for name, there in zeros(module).items())
            alone(whole, operator, zeros(module))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def halves() -> tuple[Tensor, Tensor]:
    return IMAGES.chunk(2)


def alone(module: nn.Module, operator: str, expected: dict[str, Tensor]) -> None:
    """One process that sees both halves prunes the same, where its statistics are the same."""
    group = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False
    pruner = Pruner(module, operator, "fixed", 5, **(KEPT | {"examples": halves()[0]}))
    for images in halves():
        module.zero_grad()
        F.l1_loss(module(images), images.flatten(1)).backward()
    if operator != "snip":  # which sees the first batch alone
        pruner.epoch_end()
        for name, there in zeros(module).items():
            assert torch.equal(expected[name], there), (operator, name)
    torch.distributed.is_initialized = group


def test_two_processes_that_train_together_have_equal_masks(tmp_path: Any) -> None:
    other = torch.multiprocessing.spawn(together, (str(tmp_path),), nprocs=1, join=False)
    together(1, str(tmp_path))  # here: a second process would import everything once more
    assert other.join(timeout=60)
    assert len(list(tmp_path.glob("*-0"))) == 4


# -- plain at the end, and reported --------------------------------------------------------------


def test_a_context_leaves_a_plain_module() -> None:
    module = convolutional()
    names = list(dict(module.named_parameters()))
    with Pruner(module, "wanda", "cubic", 2, target_sparsity=0.6, pruned_weights="masked") as own:
        for _ in range(2):
            train(module, torch.optim.Adam(module.parameters(), 0.01))
            own.epoch_end()
    assert sorted(dict(module.named_parameters())) == sorted(names)
    for part in module.modules():
        assert not part._forward_hooks
        assert type(part).__module__.startswith("torch.nn.modules")
    assert not any(p._backward_hooks for p in module.parameters())
    assert own.report().preserved.iloc[-1] == pytest.approx(0.4, abs=1e-3)
    convolutional().load_state_dict(module.state_dict())


def test_the_report_counts() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, stride=2))
    pruner = Pruner(module, "none", "fixed", 1)
    assert pruner.report().macs.isna().all()
    module(torch.rand(5, 1, 7, 9))
    with torch.no_grad():
        module[0].weight[1] = 0
        module[2].weight[0, 0, 0, :2] = 0
    report = pruner.report()
    assert report.layer.tolist() == ["0", "2", "all"]
    assert report.units.tolist() == [2, 1, 3]
    assert report.zeros.tolist() == [9, 2, 11]
    assert report.dead_units.tolist() == [1, 0, 1]
    assert report.macs.tolist() == [9 * 63, 16 * 3 * 4, 9 * 63 + 16 * 12]
    assert report.preserved.tolist() == pytest.approx([11 / 20, 17 / 19, 28 / 39])


def test_an_operator_of_ones_own() -> None:
    def quietest(layer, rng, settings):
        kept = layer.deviation > layer.deviation.median()
        return kept[:, None].expand_as(layer.weight), kept

    for operator in (quietest, operators.Operator(quietest, needs=("deviation",))):
        _, pruner = pruned_once(operator)
        report = pruner.report()
        assert (report.dead_units[:-1] == [3, 2, 4, 32]).all()
    assert pruner.observers[0].names == {
        "total",
        "squares",
    }  # what it does not need is not gathered


# -- refused, and the module untouched -----------------------------------------------------------


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.ones(2, 2))


def normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))


def reads_more(layer, rng, settings):
    layer.zero_share  # noqa: B018
    return layer.active, layer.active_bias


BAD = [
    (nn.Sequential(nn.ReLU()), {}, "Sequential has no layers to prune: no Linear"),
    (nn.Linear(2, 2), {"layers": ["head"]}, "there is no layer 'head' to prune; the layers are"),
    (nn.Linear(2, 2), {"exclude": [nn.Conv1d]}, "there is no layer .*Conv1d"),
    (nn.Linear(2, 2), {"exclude": [nn.Linear]}, "all layers are excluded"),
    (nn.Sequential(nn.LazyLinear(3)), {}, "layer 0 is lazy and has no weight yet: pass it some"),
    (Named(), {}, "keys has the name of a method, keys: rename or exclude it"),
    (normed(), {"pruned_weights": "regrow"}, "the module needs pruned_weights=masked, as its weig"),
    (nn.Linear(2, 2), {"granularity": "row"}, "granularity='row' must be weight or unit"),
    (nn.Linear(2, 2), {"granularity": "unit", "operator": "rigl"}, "score; operator=rigl has none"),
    (nn.LSTM(2, 2), {"operator": "wanda"}, "reads input_norm, which cannot be seen of weight_ih_l"),
    (nn.Linear(2, 2), {"operator": "conjunctive"}, "operator conjunctive recalls examples: give"),
    (nn.Linear(2, 2), {"operator": "spam"}, "unknown operator 'spam'; choose one of none, random"),
    (nn.Linear(2, 2), {"schedule": lambda t, final, s: 1.5}, "gives 1.5 at epoch 0; it must lie"),
    (nn.Linear(2, 2), {"target_sparsity": 1.5}, r"target_sparsity=1.5 must lie in \[0, 1\]"),
    (nn.Linear(2, 2), {"amont": 0.5}, r"unknown setting 'amont' \(did you mean amount\?\); choose"),
    (nn.Linear(2, 2), {"target_sparsity": 0.9, "prune_biases": False}, "reached: 4 of 6 param"),
    (nn.Linear(2, 2), {"epochs": 0}, "epochs=0 must be at least 1"),
    (nn.Linear(2, 2), {"seed": -1}, "seed=-1 must be a whole number, 0 or more, below 2"),
    (nn.Linear(2, 2), {"seed": 2**64}, "seed=18446744073709551616 must be a whole number"),
    (nn.Linear(2, 2), {"seed": "1"}, "seed='1' must be a whole number"),
    (nn.Linear(2, 2), {"cell": -1}, "cell=-1 must be a whole number"),
    (nn.Linear(2, 2), {"cell": 1.5}, "cell=1.5 must be a whole number"),
    (nn.Linear(2, 2), {"operator": "set", "pruned_weights": "regrow"}, "must be masked"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "options", "message"), BAD, ids=[str(n) for n in range(len(BAD))]
)
def test_bad_input_is_refused_and_the_module_untouched(module, options, message) -> None:
    given = {"operator": "magnitude", "schedule": "cubic", "epochs": 3} | options
    given = {"pruned_weights": "masked"} | given
    before, hooks = str(module), [len(m._forward_hooks) for m in module.modules()]
    with pytest.raises(ValueError, match=message) as caught:
        Pruner(module, **given)
    assert "\n" not in str(caught.value)
    assert str(module) == before
    assert [len(m._forward_hooks) for m in module.modules()] == hooks


def test_epoch_end_is_refused_before_a_forward_and_after_the_last_epoch() -> None:
    module = convolutional()
    pruner = Pruner(module, "random", "fixed", 1, **KEPT)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match="epoch_end was called before any forward pass"):
        pruner.epoch_end()
    module(IMAGES)
    pruner.epoch_end()
    with pytest.raises(ValueError, match="all epochs=1 are done"):
        pruner.epoch_end()
    assert before.keys() == module.state_dict().keys()


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            operators.Operator(reads_more, needs=("mean",)),
            "the operator reads zero_share of layer 0, which was not gathered: register it with",
        ),
        ("apoz", "layer 0 was not trained since the last prune"),
        (lambda layer, rng, settings: layer.weight, "must return two masks of torch.bool"),
    ],
)
def test_a_prune_that_fails_leaves_the_module_as_it_was(operator: Any, message: str) -> None:
    module = convolutional()
    pruner = Pruner(module, operator, "fixed", 2, **KEPT)
    with torch.no_grad():
        module(IMAGES)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=message):
        pruner.epoch_end()
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert pruner.epoch == -1


# -- what people bring ---------------------------------------------------------------------------


def dense() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 12))


AIM = {"target_sparsity": 0.5, "pruned_weights": "masked"}
BY_GRADIENTS = ("snip", "movement", "taylor", "obd", "rigl")


def frozen(module: nn.Module, *names: str) -> nn.Module:
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


@pytest.mark.parametrize("operator", BY_GRADIENTS)
def test_frozen_layers_are_refused_where_gradients_are_needed(operator: str) -> None:
    parts = ("0.weight", "0.bias")
    with pytest.raises(ValueError, match=rf"{operator} needs gradients; frozen .*: 0.weight.*excl"):
        Pruner(frozen(dense(), *parts), operator, "cubic", 3, **AIM)
    Pruner(frozen(dense(), *parts), operator, "cubic", 3, exclude=["0"], **AIM)


def test_a_frozen_bias_counts_where_biases_are_pruned() -> None:
    with pytest.raises(ValueError, match=r"needs gradients; frozen .*: 2.bias"):
        Pruner(frozen(dense(), "2.bias"), "snip", "cubic", 3, **AIM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pruner(frozen(dense(), "2.bias"), "snip", "cubic", 3, prune_biases=False, **AIM)
    with pytest.raises(ValueError, match=r"magnitude needs gradients; frozen .*: 2.weight"):
        Pruner(frozen(dense(), "2.weight"), "magnitude", "cubic", 3, drop_fraction=0.2, **AIM)


@pytest.mark.parametrize("operator", ["magnitude", "random", "set", "wanda"])
def test_other_operators_warn_of_frozen_layers(operator: str) -> None:
    with pytest.warns(UserWarning, match=r"frozen parameters .* pruned nevertheless: 0.weight"):
        Pruner(frozen(dense(), "0.weight"), operator, "cubic", 3, **AIM)


@pytest.mark.parametrize("operator", BY_GRADIENTS[:-1])
@pytest.mark.parametrize("how", ["frozen", "detached"])
def test_layers_that_no_gradient_reaches_are_not_pruned_by_ties(operator: str, how: str) -> None:
    module = dense()
    pruner = Pruner(module, operator, "one-shot", 2, prune_until=0.5, **AIM)
    if how == "frozen":
        module[0].requires_grad_(False)
    before = pruner.report().zeros.tolist()

    def epoch() -> None:
        module[1:](module[0](ROWS).detach()).sum().backward()
        pruner.epoch_end()

    epoch()
    with pytest.raises(ValueError, match=r"no backward pass reached 0\.weight"):
        epoch()
    assert pruner.report().zeros.tolist() == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dense_gradients", [False, True])
def test_masks_hold_whatever_lies_behind_them(value: float, dense_gradients: bool) -> None:
    module = dense()
    pruner = Pruner(module, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    module(ROWS).sum().backward()
    for _ in range(2):
        pruner.epoch_end()
    (kept,) = (mask.kept for name, mask in pruner.masks().items() if name == "0.weight")
    away, parameter = kept == 0, module[0].parametrizations.weight.original
    assert away.any()

    def spoil() -> None:
        parameter.data[away] = value

    spoil()
    for mask in pruner.masks().values():
        mask.dense = dense_gradients
    parameter.grad = None
    module(ROWS).sum().backward()
    assert parameter.grad.isfinite().all()
    assert (module[0].weight[away] == 0).all()
    assert (module.state_dict()["0.weight"][away] == 0).all()
    spoil()
    assert (copy.deepcopy(module)[0].weight[away] == 0).all()
    assert (pruner.finish()[0].weight[away] == 0).all()


@pytest.mark.parametrize("policy", ["masked", "regrow"])
def test_a_weight_that_is_not_a_number_can_be_pruned(policy: str) -> None:
    module = dense()
    options = {"probability": 1.0, "amount": 1.0, "pruned_weights": policy}
    pruner = Pruner(module, "random", "fixed", 1, **options)
    masking.stored(module[0], "weight").data[0, 0] = torch.nan
    module(ROWS)
    pruner.epoch_end()
    assert all((parameter == 0).all() for parameter in pruner.finish().parameters())


def test_a_copy_masks_gradients_by_itself_and_a_parameter_that_was_frozen_too() -> None:
    module = dense()
    module[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match="frozen parameters"):
        pruner = Pruner(module, "random", "one-shot", 1, **AIM)
    module(ROWS).sum().backward()
    pruner.epoch_end()
    twin = copy.deepcopy(module)
    for each in (module, twin, pickle.loads(pickle.dumps(module))):
        parameter = masking.stored(each[0], "weight").requires_grad_()
        keeps = pruner.masks()["0.weight"].keeps
        each.zero_grad()
        each(ROWS).sum().backward()
        assert ((parameter.grad != 0) <= keeps).all()
        (given,) = torch.autograd.grad(each(ROWS).sum(), [parameter])
        assert torch.equal(given, parameter.grad)
    assert masking.stored(twin[0], "weight") is not masking.stored(module[0], "weight")


def test_a_masked_module_is_read_by_other_tools() -> None:
    module = dense()
    pruner = Pruner(module, "random", "one-shot", 1, **AIM)
    module(ROWS).sum().backward()
    pruner.epoch_end()
    expected = module.eval()(ROWS)
    with torch.inference_mode():
        copied = copy.deepcopy(module)
        assert torch.equal(copied(ROWS), expected)
    with torch.no_grad():
        assert torch.equal(copied(ROWS), expected)
    assert copy.deepcopy(module).to("meta")(ROWS.to("meta")).shape == expected.shape
    others = [
        torch.jit.trace(module, ROWS),
        torch.export.export(module, (ROWS,), strict=False).module(),
        torch.vmap(module),
    ]
    for other in others:
        torch.testing.assert_close(other(ROWS), expected)


@pytest.mark.parametrize("operator", ["magnitude", "obd"])
def test_sparse_gradients_are_masked(operator: str) -> None:
    module = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3))
    pruner = Pruner(module, operator, "one-shot", 1, **AIM)
    moves = torch.optim.SparseAdam([masking.stored(module[0], "weight")], 0.1)
    for _ in range(3):
        module.zero_grad()
        module(torch.arange(8)).square().sum().backward()
        moves.step()
        if not pruner.over:
            pruner.epoch_end()
    keeps, gradient = pruner.masks()["0.weight"].keeps, masking.stored(module[0], "weight").grad
    assert gradient.is_sparse
    assert (gradient.to_dense()[~keeps] == 0).all()
    assert (module[0].weight[~keeps] == 0).all()
    assert (~keeps).any()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_optimisers_forget_what_is_masked_and_are_let_go(kind: type) -> None:
    module, hooks = dense(), optimizer._global_optimizer_post_hooks
    gc.collect()  # Pruners of other tests
    before = len(hooks)
    pruner = Pruner(module, "magnitude", "one-shot", 1, **AIM)
    moves = kind(
        module.parameters(), 0.01, **({"momentum": 0.9} if kind is torch.optim.SGD else {})
    )
    module(ROWS).square().sum().backward()
    moves.step()
    pruner.epoch_end()
    for name, mask in pruner.masks().items():
        where, _, own = name.rpartition(".")
        state = moves.state[masking.stored(module.get_submodule(where), own)]
        first = state["exp_avg"] if kind is torch.optim.Adam else state["momentum_buffer"]
        assert (first[~mask.keeps] == 0).all()
        # a root of an exact zero is slow
        assert kind is torch.optim.SGD or (state["exp_avg_sq"][~mask.keeps] > 0).any()
    pruner.finish()
    assert len(hooks) == before
    Pruner(dense(), "magnitude", "cubic", 2, **AIM)  # forgotten
    gc.collect()
    assert len(hooks) == before


def test_adam_in_half_precision_does_not_get_through_a_mask() -> None:
    module = dense().half()
    pruner = Pruner(module, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)  # whose eps is 0 there: 0 / 0
    for _ in range(2):
        module(ROWS.half()).abs().mean().backward()
        pruner.epoch_end()
        optimiser.step()
    for name, mask in pruner.masks().items():
        layer, part = name.rsplit(".", 1)
        assert (getattr(module.get_submodule(layer), part)[mask.kept == 0] == 0).all()


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_masks_of_every_precision_keep_what_they_say(dtype: torch.dtype, later: bool) -> None:
    module = dense() if later else dense().to(dtype)
    pruner = Pruner(module, "magnitude", "one-shot", 1, **AIM)
    module = module.to(dtype)
    module(ROWS.to(dtype)).square().mean().backward()
    pruner.epoch_end()
    zeros = sum(int((p == 0).sum()) for p in pruner.finish().parameters())
    assert zeros == pruner.report().zeros.iloc[-1] == round(0.5 * pruner.size)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.filterwarnings("ignore:frozen")
def test_a_weight_that_was_computed_is_a_parameter_after_finish(frozen: bool) -> None:
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(12, 8)), nn.Linear(8, 12))
    module[0].requires_grad_(not frozen)
    pruner = Pruner(module, "magnitude", "one-shot", 1, **AIM)
    module(ROWS).mean().backward()
    pruner.epoch_end()
    found = dict(pruner.finish().named_parameters())
    assert set(found) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert found["0.weight"].requires_grad is not frozen
    assert not dict(module.named_buffers())


def test_a_recurrent_layer_with_a_norm_is_copied_after_a_call() -> None:
    layer = parametrizations.weight_norm(nn.LSTM(12, 4), "weight_hh_l0")
    pruner = Pruner(layer, "magnitude", "one-shot", 1, **AIM)
    layer(ROWS)[0].mean().backward()
    pruner.epoch_end()
    expected = layer(ROWS)[0]
    assert torch.equal(copy.deepcopy(layer)(ROWS)[0], expected)
    torch.testing.assert_close(compact(layer, example=ROWS)(ROWS)[0], expected)


def test_two_parameters_in_one_memory_are_warned_of() -> None:
    module = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 12))
    module[1].weight.data = module[0].weight.data.T
    with pytest.warns(UserWarning, match=r"0\.weight and 1\.weight are two parameters in one mem"):
        Pruner(module, "magnitude", "one-shot", 1, **AIM)


def masked() -> tuple[nn.Module, Pruner]:
    """A module with batch normalisation, half of it masked."""
    module = convolutional()
    pruner = Pruner(module, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    for _ in range(2):
        train(module, torch.optim.SGD(module.parameters(), 0.1))
        pruner.epoch_end()
    return module, pruner


def test_a_masked_state_dict_is_that_of_a_plain_module() -> None:
    module, pruner = masked()
    state = module.state_dict()
    assert list(state) == list(convolutional().state_dict())
    other = convolutional()
    its = Pruner(other, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    other.load_state_dict(state, assign=True)
    assert torch.equal(other.eval()(IMAGES), module.eval()(IMAGES))
    for name, mask in pruner.masks().items():
        assert torch.equal(its.masks()[name].kept, mask.kept)


def test_a_plain_state_dict_is_loaded_under_the_masks_there_are() -> None:
    module, _ = masked()
    where = zeros(module)
    module.load_state_dict(convolutional().state_dict())
    assert_zero(module, where)
    assert not torch.equal(module[0].weight, torch.zeros_like(module[0].weight))
    with pytest.raises(RuntimeError, match=r"size mismatch for .*weight"):
        module.load_state_dict(convolutional().state_dict() | {"0.weight": torch.ones(3)})


def test_a_state_dict_of_before_with_the_names_of_masks_is_read() -> None:
    module, pruner = masked()
    other = convolutional()
    its = Pruner(other, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    old = {
        k: v for k, v in module.state_dict().items() if not hasattr(module[int(k[0])], "paramet")
    }
    for name, mask in pruner.masks().items():
        layer, part = name.split(".")
        inside = f"{layer}.parametrizations.{part}"
        if f"{layer}.{part}" in old:
            old[f"{inside}.original"] = old.pop(f"{layer}.{part}")
            old[f"{inside}.0.kept"] = mask.kept
    other.load_state_dict(old)
    assert all(torch.equal(its.masks()[n].kept, mask.kept) for n, mask in pruner.masks().items())


@pytest.mark.parametrize("prune_biases", [False, True])
def test_parameters_keep_their_order(prune_biases: bool) -> None:
    module = convolutional()
    before = [id(parameter) for parameter in module.parameters()]
    Pruner(module, "magnitude", "cubic", 2, prune_biases=prune_biases, **AIM)
    assert [id(parameter) for parameter in module.parameters()] == before


def test_averages_made_after_are_sparse_and_those_made_before_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "warn_of_averages", WARN_OF_AVERAGES)
    module = convolutional()
    pruner = Pruner(module, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    averages = AveragedModel(module)
    for _ in range(2):
        train(module, torch.optim.SGD(module.parameters(), 0.1, momentum=0.9), 2)
        averages.update_parameters(module)
        pruner.epoch_end()
    averages.update_parameters(module)
    update_bn(IMAGES.split(10), averages)
    assert_zero(averages.module, zeros(module))
    of_buffers = convolutional()
    pruner = Pruner(of_buffers, "magnitude", "one-shot", 2, prune_until=0.5, **AIM)
    averages = AveragedModel(of_buffers, use_buffers=True)
    for _ in range(2):
        train(of_buffers, torch.optim.SGD(of_buffers.parameters(), 0.1), 2)
        averages.update_parameters(of_buffers)
        pruner.epoch_end()
    averages.update_parameters(of_buffers)
    assert_zero(averages.module, zeros(of_buffers))
    other = convolutional()
    early = AveragedModel(other)
    with pytest.warns(UserWarning, match="made before the Pruner and has no masks"):
        Pruner(other, "magnitude", "cubic", 2, **AIM)
    assert early.n_averaged == 0


@pytest.mark.parametrize("policy", ["masked", "regrow"])
def test_a_second_pruner_is_refused_until_the_first_is_finished(policy: str) -> None:
    module = dense()
    options = {"pruned_weights": policy}
    first = Pruner(module, "none", "fixed", 2, layers=["0"], **options)
    Pruner(module, "none", "fixed", 2, layers=["2"], **options).release()  # of another layer
    with pytest.raises(ValueError, match="layer 0 is pruned by another Pruner already: finish"):
        Pruner(module, "magnitude", "fixed", 2, **options)
    first.finish()
    Pruner(module, "magnitude", "fixed", 2, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ROWS.numpy(), "must be a tensor of rows, .*; it is of type ndarray"),
        ([ROWS], "it is of type list"),
        (torch.utils.data.DataLoader(ROWS), "it is of type DataLoader"),
        (torch.utils.data.TensorDataset(ROWS), "it is of type TensorDataset"),
        (ROWS.double(), r"does not take examples, \[40, 12\] of torch.float64: "),
        (ROWS[:, :5], r"does not take examples, \[40, 5\] of torch.float32: "),
        (ROWS[:0], "recalls examples: give examples="),
        (torch.tensor(1.0), "recalls examples: give examples="),
    ],
)
def test_examples_that_do_not_fit_are_refused_at_once(given: Any, message: str) -> None:
    module, state = dense(), torch.get_rng_state()
    with pytest.raises(ValueError, match=message) as caught:
        Pruner(module, "conjunctive", "fixed", 2, examples=given)
    assert "\n" not in str(caught.value)
    assert not any(part._forward_hooks for part in module.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_operator_that_says_what_it_reads_is_taken_at_its_word() -> None:
    """Also where it names all that one may read that says nothing."""
    undeclared = operators.Operator(operators.none)
    Pruner(dense(), undeclared, "fixed", 2).release()
    for needs in (undeclared.statistics, ("recall",)):
        with pytest.raises(ValueError, match="recalls examples: give examples="):
            Pruner(dense(), operators.Operator(operators.none, needs=needs), "fixed", 2)


WRAPPED = {
    "is compiled: give the module itself": lambda m: torch.compile(m, backend="eager"),
    "is wrapped in DataParallel: give its .module": nn.DataParallel,
    "is on the meta device, where tensors": lambda m: m.to("meta"),
    "must be a torch.nn.Module; it is of": lambda m: [m],
    "the weight of layer 0.0 is torch.complex64": lambda m: nn.Sequential(
        nn.Sequential(nn.Linear(2, 2, dtype=torch.cfloat))
    ),
    "layer 0 cannot be pruned: its weight is computed by torch.nn.utils.prune; exclude": (
        lambda m: nn.Sequential(torch_prune.l1_unstructured(m[0], "weight", 0.3))
    ),
    "layer 2 is pruned by another": lambda m: Pruner(m, "none", "fixed", 1, layers=["2"]).module,
}


@pytest.mark.parametrize("message", WRAPPED)
def test_modules_that_cannot_be_pruned_are_refused_by_their_cause(message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Pruner(WRAPPED[message](dense()), "magnitude", "cubic", 2, **AIM)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_empty_layers_are_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"the weight of layer 0 is empty, \[0, 3\]: exclude"):
        Pruner(module, "magnitude", "cubic", 2)
    Pruner(module, "magnitude", "cubic", 2, exclude=["0", "1"])


@pytest.mark.parametrize(
    ("mode", "said"), [("eval", "called in evaluation mode: call train"), ("no_grad", "no_grad")]
)
def test_what_was_never_seen_in_training_is_said(mode: str, said: str) -> None:
    module = dense()
    pruner = Pruner(module, "variance-low", "fixed", 2, **KEPT)
    with torch.set_grad_enabled(mode == "eval"):
        module.train(mode != "eval")(ROWS)
    with pytest.raises(ValueError, match=f"layer 0 was not trained since .*{said}"):
        pruner.epoch_end()


def test_finish_warns_once_of_a_target_that_was_not_reached() -> None:
    module = dense()
    pruner = Pruner(module, "magnitude", "cubic", 10, target_sparsity=0.9, pruned_weights="masked")
    for _ in range(3):
        module(ROWS)
        pruner.epoch_end()
    reached = pruner.report().zeros.iloc[-1] / pruner.size
    said = f"after 3 of 10 epochs: {reached:.1%} of the parameters are pruned, 90.0% were asked"
    with pytest.warns(UserWarning, match=said):
        pruner.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finish()
    with pytest.warns(UserWarning, match=r"epoch_end was never called \(epochs=2\): 0.0% of"):
        Pruner(dense(), "magnitude", "cubic", 2, **AIM).finish()
    with pytest.warns(UserWarning, match="never called .*: nothing was pruned"):
        Pruner(dense(), "random", "fixed", 2).finish()


def test_finish_says_nothing_where_the_target_is_reached_or_an_error_came() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module, pruner = masked()
        pruner.finish()
        Pruner(dense(), "none", "fixed", 2).finish()
        with pytest.raises(KeyError), Pruner(module, "magnitude", "cubic", 2, **AIM):
            raise KeyError
        assert type(module[0]) is nn.Conv2d


def test_no_moment_of_what_was_never_trained_is_an_exact_zero_that_a_root_is_slow_on() -> None:
    module = dense()
    pruner = Pruner(module, "rigl", "cubic", 2, **AIM)
    optimiser = torch.optim.Adam(module.parameters())
    module(ROWS).sum().backward()
    optimiser.step()
    masked = 0
    for name, mask in pruner.masks().items():
        layer, part = module[int(name.split(".")[0])], name.split(".")[1]
        kept = optimiser.state[masking.stored(layer, part)]
        first, second = kept["exp_avg"][~mask.keeps], kept["exp_avg_sq"][~mask.keeps]
        assert (first == 0).all()
        assert ((second > 0) & (second < 1e-25)).all()
        masked += len(first)
    assert masked
