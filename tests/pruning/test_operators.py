"""Every operator on tiny layers worked out by hand: exact counts, edge cases, nothing changed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from evoae import Experiment, evolve
from evoae.networks import activations, population, training
from evoae.networks.gradients import Gradients
from evoae.pruning import driver, members, operators
from evoae.pruning.operators import OPERATORS, Layer, OperatorSettings

# 4 units of 3 inputs
WEIGHT = [[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0], [7.0, -8.0, 9.0], [-10.0, 11.0, -12.0]]
BIAS = [0.1, -0.2, 0.3, -0.4]


def layer(
    weight: list | None = None,
    bias: list | None = None,
    deviation: list | None = None,
    zero_share: list | None = None,
    input_norm: list | None = None,
    recalled: list | None = None,
) -> Layer:
    weight, bias = torch.tensor(weight or WEIGHT), torch.tensor(bias or BIAS)
    units, inputs = weight.shape

    def values(given: list | None, size: int) -> Tensor:
        return torch.tensor(given or [0.0] * size, dtype=torch.float64)

    return Layer(
        weight,
        bias,
        {
            "mean": values(None, units),
            "deviation": values(deviation, units),
            "zero_share": values(zero_share, units),
            "input_norm": values(input_norm, inputs),
            "recall": torch.tensor(recalled or [[0.0] * units] * 2),
            "gradients": Gradients(weight + 1, bias + 1),
            "curvature": (weight.square(), bias.square()),
            "movement": (weight, bias),
            "sensitivity": (weight.abs(), bias.abs()),
        }.__getitem__,
    )


def apply(name: str, on: Layer, seed: int = 0, **settings: object) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    keep_weight, keep_bias = OPERATORS[name](on, rng, OperatorSettings(**settings))
    assert keep_weight.dtype == keep_bias.dtype == torch.bool
    assert keep_weight.shape == on.weight.shape
    assert keep_bias.shape == on.bias.shape
    return keep_weight, keep_bias


def pruned_units(keep_weight: Tensor, keep_bias: Tensor) -> list[int]:
    """The units pruned; whole units or nothing."""
    assert torch.equal(keep_weight.any(1), keep_bias)
    assert torch.equal(keep_weight.all(1), keep_bias)
    return torch.nonzero(~keep_bias).flatten().tolist()


# -- all of them ----------------------------------------------------------------------------------

SOMETHING = {
    "deviation": [0.1, 0.4, 0.2, 0.3],
    "zero_share": [0.1, 0.9, 0.5, 0.2],
    "input_norm": [1.0, 2.0, 3.0],
    "recalled": [[0.0, 1.0, 0.0, 2.0]] * 100,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pure(name: str) -> None:
    on = layer(**SOMETHING)
    tensors = ("weight", "bias", "mean", "deviation", "zero_share", "input_norm")
    before = {key: getattr(on, key).clone() for key in tensors}
    first = apply(name, on, amount=0.5)
    for key in tensors:
        assert torch.equal(getattr(on, key), before[key])
    second = apply(name, on, amount=0.5)
    assert torch.equal(first[0], second[0])  # the same generator, the same masks
    assert torch.equal(first[1], second[1])


def test_the_hand_worked_layers_let_every_operator_but_none_prune() -> None:
    for name in OPERATORS:
        keep_weight, keep_bias = apply(name, layer(**SOMETHING), amount=0.5)
        assert bool(keep_weight.all() and keep_bias.all()) == (name == "none"), name


@pytest.mark.parametrize("name", ["random", "magnitude", "wanda", "apoz"])
@pytest.mark.parametrize("amount", [0.0, 0.1, 0.125, 0.3, 0.5, 0.99, 1.0])
def test_exact_counts(name: str, amount: float) -> None:
    keep_weight, keep_bias = apply(name, layer(**SOMETHING), amount=amount)
    units = round(amount * 4)
    assert (~keep_bias).sum() == units
    assert (~keep_weight).sum() == (units * 3 if name == "apoz" else round(amount * 12))


def test_none_keeps_everything() -> None:
    keep_weight, keep_bias = apply("none", layer(), amount=1.0)
    assert keep_weight.all()
    assert keep_bias.all()


# -- random ---------------------------------------------------------------------------------------


def test_random_draws_uniformly_from_all_entries_also_from_zeros() -> None:
    on = layer(weight=[[0.0, 0.0], [1.0, 1.0]], bias=[0.0, 1.0])
    picked = sum((~apply("random", on, seed, amount=0.5)[0]).int() for seed in range(400))
    assert picked.sum() == 800
    assert ((picked > 160) & (picked < 240)).all()  # 200 each, sd 10


# -- variance -------------------------------------------------------------------------------------


def test_variance_high_prunes_the_highest_deviation_entirely_and_the_lowest_never() -> None:
    on = layer(deviation=[0.3, 0.1, 0.5, 0.2])
    for seed in range(50):
        keep_weight, keep_bias = apply("variance-high", on, seed)
        assert not keep_weight[2].any()
        assert not keep_bias[2]
        assert keep_weight[1].all()
        assert keep_bias[1]


def test_variance_low_is_the_other_way_round() -> None:
    on = layer(deviation=[0.3, 0.1, 0.5, 0.2])
    for seed in range(50):
        keep_weight, keep_bias = apply("variance-low", on, seed)
        assert not keep_weight[1].any()
        assert not keep_bias[1]
        assert keep_weight[2].all()
        assert keep_bias[2]


@pytest.mark.parametrize(
    ("name", "shares"),
    [("variance-high", [0.5, 1.0, 0.0, 0.75]), ("variance-low", [0.5, 0.0, 1.0, 0.25])],
)
def test_variance_keeps_with_the_scaled_deviation(name: str, shares: list[float]) -> None:
    on = layer(deviation=[0.3, 0.1, 0.5, 0.2])
    masks = [apply(name, on, seed) for seed in range(1000)]
    weight = torch.stack([mask[0] for mask in masks]).double()
    bias = torch.stack([mask[1] for mask in masks]).double()
    assert weight.mean((0, 2)).tolist() == pytest.approx(shares, abs=0.04)
    assert bias.mean(0).tolist() == pytest.approx(shares, abs=0.06)
    # independently: two weights of the first unit are both kept in 1/4 of the cases
    assert (weight[:, 0, 0] * weight[:, 0, 1]).mean().item() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("name", "share"), [("variance-high", 0.7), ("variance-low", 0.3)])
def test_equal_deviations_are_left_unscaled(name: str, share: float) -> None:
    on = layer(deviation=[0.3] * 4)
    kept = torch.stack([apply(name, on, seed)[0] for seed in range(300)]).double()
    assert kept.mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("name", "kept"), [("variance-high", True), ("variance-low", False)])
def test_units_that_do_not_vary(name: str, kept: bool) -> None:
    keep_weight, keep_bias = apply(name, layer(deviation=[0.0] * 4))
    assert (keep_weight == kept).all()
    assert (keep_bias == kept).all()


def test_equal_deviations_above_one_keep_nothing() -> None:
    assert not apply("variance-high", layer(deviation=[1.5] * 4))[0].any()


def test_a_layer_of_one_unit_is_unscaled() -> None:
    on = layer(weight=[[1.0] * 200], bias=[1.0], deviation=[0.25])
    assert apply("variance-high", on)[0].double().mean().item() == pytest.approx(0.75, abs=0.1)


# -- conjunctive ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recalled", "pruned"),
    [
        # low on every example: 0 and 3, to the end
        ([[0.0, 1.0, 2.0, 0.0], [0.0, 2.0, 1.0, 0.1]], [0, 3]),
        # {0, 1, 3} and {0, 1} leave two; {1} leaves one: stop, though 1 is high on the last
        ([[0, 0, 9, 0], [0, 0, 9, 9], [9, 0, 9, 9], [9, 9, 0, 0]], [1]),
        # {0, 1} and {2, 3} leave nobody: stop, nothing is pruned
        ([[0, 0, 9, 9], [9, 9, 0, 0], [0, 9, 9, 9]], []),
        # one candidate on the first example: stop at once
        ([[0, 9, 9, 9], [9, 0, 0, 0]], [0]),
        # all equal: no candidate, stop
        ([[5, 5, 5, 5], [0, 0, 9, 9]], []),
        # all dead is all equal
        ([[0, 0, 0, 0], [0, 0, 9, 9]], []),
        # scaled over the layer's units, so a shift and a factor change nothing
        ([[-50.0, 50.0, 50.0, -49.0], [7.0, 9.0, 8.0, 7.0]], [0, 3]),
    ],
)
def test_conjunctive_by_hand(recalled: list, pruned: list[int]) -> None:
    recalled = [[float(value) for value in row] for row in recalled]
    masks = apply("conjunctive", layer(recalled=recalled), threshold=0.1)
    assert pruned_units(*masks) == pruned


def test_conjunctive_candidates_are_strictly_below_the_threshold() -> None:
    on = layer(recalled=[[0.0, 0.25, 0.5, 1.0]])
    assert pruned_units(*apply("conjunctive", on, threshold=0.5)) == [0, 1]
    assert pruned_units(*apply("conjunctive", on, threshold=0.25)) == [0]
    assert pruned_units(*apply("conjunctive", on, threshold=0.0)) == []
    assert pruned_units(*apply("conjunctive", on, threshold=1.0)) == [0, 1, 2]


def test_conjunctive_on_a_layer_of_one_unit_prunes_nothing() -> None:
    on = layer(weight=[[1.0, 2.0]], bias=[1.0], recalled=[[0.0], [1.0]])
    assert pruned_units(*apply("conjunctive", on)) == []


# -- baselines ------------------------------------------------------------------------------------


def test_magnitude_by_hand() -> None:
    keep_weight, keep_bias = apply("magnitude", layer(), amount=0.25)
    assert keep_weight.tolist() == [[False] * 3] + [[True] * 3] * 3
    assert keep_bias.tolist() == [False, True, True, True]


@pytest.mark.parametrize("name", ["magnitude", "wanda"])
def test_what_is_pruned_already_is_not_pruned_again(name: str) -> None:
    on = layer(weight=[[0.0, 2.0], [3.0, 0.0], [5.0, 4.0]], bias=[0.0, 1.0, 2.0], input_norm=[1, 1])
    keep_weight, keep_bias = apply(name, on, amount=0.5)
    assert keep_weight.tolist() == [[True, False], [False, True], [True, True]]
    assert keep_bias.tolist() == [True, False, True]


def test_wanda_by_hand() -> None:
    # |w| times norm: 1 10 300, 4 25 600, 7 40 900, 10 55 1200
    on = layer(input_norm=[1.0, 5.0, 100.0])
    keep_weight, keep_bias = apply("wanda", on, amount=0.5)
    # the six lowest: 1, 4, 7, 10, 10 and 25
    assert keep_weight.tolist() == [
        [False, False, True],
        [False, False, True],
        [False, True, True],
        [False, True, True],
    ]
    assert keep_bias.tolist() == [False, False, True, True]


def test_apoz_by_hand() -> None:
    on = layer(zero_share=[0.1, 0.9, 0.5, 0.2])
    assert pruned_units(*apply("apoz", on, amount=0.25)) == [1]
    assert pruned_units(*apply("apoz", on, amount=0.5)) == [1, 2]


def test_apoz_leaves_units_alone_that_are_pruned_already() -> None:
    weight = [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    on = layer(weight=weight, bias=[1.0, 0.0, 1.0, 1.0], zero_share=[0.1, 1.0, 0.5, 0.2])
    assert pruned_units(*apply("apoz", on, amount=0.34)) == [2]  # one of the three that are left
    assert pruned_units(*apply("apoz", on, amount=1.0)) == [0, 2, 3]


def test_set_by_hand() -> None:
    on = layer(weight=[[0.5, 0.0, -0.1], [0.0, 2.0, 0.0], [-3.0, 0.2, 1.0], [0.0, 0.4, 5.0]])
    seen = set()
    for seed in range(40):
        # 8 weights are not zero: a quarter of them, -0.1 and 0.2, make room for two of four zeros
        keep_weight, keep_bias = apply("set", on, seed, amount=0.25)
        assert keep_bias.all()
        assert keep_weight.sum() == 8
        assert not keep_weight[0, 2]
        assert not keep_weight[2, 1]
        active = on.weight != 0
        assert keep_weight[active].sum() == 6
        seen.add(tuple(torch.nonzero((keep_weight & ~active).flatten()).flatten().tolist()))
    assert {entry for pair in seen for entry in pair} == {1, 3, 5, 9}
    keep_weight, _ = apply("set", layer(), amount=0.25)  # dense: nothing to regrow
    assert keep_weight.tolist() == [[False] * 3] + [[True] * 3] * 3


# -- on a population ------------------------------------------------------------------------------


def untrained(masked: bool = False, optimiser: str = "adam") -> population.Population:
    generators = [np.random.default_rng(i) for i in range(3)]
    found = population.initialise(6, "5-3", "plain", generators, "cpu")
    training.prepare(found, optimiser, masked)
    return found


def prune(
    found: population.Population, operator: str | Callable, i: int = 1, **settings: object
) -> None:
    function = operators.find(operator)
    rng, examples = np.random.default_rng(0), torch.rand(4, 6)
    members.prune(found, [i], function, [rng], OperatorSettings(**settings), lambda i: examples)


def test_prune_counts_in_every_matrix_and_every_vector_of_one_autoencoder() -> None:
    found = untrained()
    before = [side.weights.clone() for side in found.sides]
    prune(found, "random", amount=0.3)
    for side, old in zip(found.sides, before, strict=True):
        zeros = 0
        for weight, bias in side.layers():
            for part in (weight[1], bias[1]):
                assert (part == 0).sum() == round(0.3 * part.numel())
                zeros += int((part == 0).sum())
        assert side.zeros().tolist() == [0, zeros, 0]
        assert side.tensors["zeros_at_last_prune"].tolist() == [0, zeros, 0]
        left = side.weights[1] != 0
        assert torch.equal(side.weights[1][left], old[1][left])
        assert torch.equal(side.weights[[0, 2]], old[[0, 2]])


def test_prune_shows_every_layer_what_it_needs() -> None:
    found, shown = untrained(), []

    def look(on: Layer, rng: np.random.Generator, s: OperatorSettings) -> operators.Masks:
        shown.append((on, on.recall()))
        return operators.none(on, rng, s)

    examples = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    recorded = list(activations.record(found, 1, examples).values())
    for side, seen in zip(found.sides, (recorded[:2], recorded[2:]), strict=True):
        one = side.take(torch.tensor([1]))
        activations.observe(one, [values[None] for values in seen])
        side.put(torch.tensor([1]), one)
    rng = np.random.default_rng(0)
    members.prune(found, [1], operators.find(look), [rng], OperatorSettings(), lambda i: examples)
    assert [on.weight.shape for on, _ in shown] == [(5, 6), (3, 5), (5, 3), (6, 5)]
    inputs = [examples, *recorded[:-1]]
    for (on, recalled), x, y in zip(shown, inputs, recorded, strict=True):
        assert torch.equal(recalled, y)
        x, y = x.double().numpy(), y.double().numpy()
        np.testing.assert_allclose(on.mean, y.mean(0), atol=1e-5)
        np.testing.assert_allclose(on.deviation, y.std(0), atol=1e-5)
        np.testing.assert_allclose(on.zero_share, (y == 0).mean(0))
        np.testing.assert_allclose(on.input_norm, np.sqrt((x**2).mean(0)), atol=1e-5)


def test_prune_leaves_examples_alone_unless_asked() -> None:
    found = untrained()
    count = found.encoder.tensors["count"].clone()
    prune(found, "random")
    assert torch.equal(found.encoder.tensors["count"], count)


def test_masks_remember_every_prune_and_moments_are_cleared() -> None:
    found = untrained(masked=True)
    for side in found.sides:
        side.tensors["first_moment"].fill_(1.0)
        side.tensors["second_moment"].fill_(1.0)
    for _ in range(2):
        prune(found, "random", amount=0.5)
    for side in found.sides:
        keep = side.tensors["keep"]
        assert keep[[0, 2]].all()
        assert torch.equal(side.weights[1] == 0, ~keep[1])
        for moment in ("first_moment", "second_moment"):
            assert torch.equal(side.tensors[moment][1] == 0, ~keep[1])
            assert (side.tensors[moment][[0, 2]] == 1).all()


def test_without_masks_moments_stay() -> None:
    found = untrained()
    found.encoder.tensors["first_moment"].fill_(1.0)
    prune(found, "random", amount=0.5)
    assert "keep" not in found.encoder.tensors
    assert (found.encoder.tensors["first_moment"] == 1).all()


# -- names ----------------------------------------------------------------------------------------


def test_names_registration_and_the_users_functions() -> None:
    operators.register("mine", operators.none)
    assert operators.find("mine").function is operators.none
    assert "mine" in list(operators.OPERATORS)
    for taken in ("mine", "random"):
        with pytest.raises(ValueError, match=f"{taken}.*exists already"):
            operators.register(taken, operators.none)
    for name, operator in (("three", 3), ("", operators.none)):
        with pytest.raises(ValueError, match="must be a function and have a name"):
            operators.register(name, operator)
    for short in (lambda layer, rng: None, functools.partial(operators.none, None)):
        with pytest.raises(ValueError, match=r"must take three arguments: layer, rng, settings$"):
            operators.register("short", short)
    assert operators.find(operators.apoz) is OPERATORS["apoz"]
    with pytest.raises(ValueError, match="unknown operator 'axe'") as caught:
        operators.find("axe")
    for name in OPERATORS:
        assert name in str(caught.value)


def test_regrowing_leaves_pruned_biases_pruned_and_starts_at_zero() -> None:
    found = untrained(masked=True)
    prune(found, "random", amount=0.4)
    side = found.encoder
    masks = [bias[1].clone() for _, bias in side.views(side.tensors["keep"])]
    before = [weight[1].clone() for weight, _ in side.views(side.tensors["keep"])]
    assert any((~mask).any() for mask in masks)
    prune(found, "set", amount=0.5)
    for (weight, bias), (kept, kept_bias), mask, old in zip(
        side.layers(), side.views(side.tensors["keep"]), masks, before, strict=True
    ):
        assert torch.equal(kept_bias[1], mask)
        assert (bias[1][~mask] == 0).all()
        opened = kept[1] & ~old
        assert opened.any()
        assert (weight[1][opened] == 0).all()
        assert kept[1].sum() == old.sum()


def test_an_operator_that_gives_no_masks_is_named() -> None:
    def forgetful(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> None:
        return None

    with pytest.raises(ValueError, match="operator forgetful must return two masks"):
        prune(untrained(), forgetful)

    def of_numpy(layer: Layer, rng: np.random.Generator, s: OperatorSettings) -> object:
        return layer.weight.numpy() != 0, layer.bias.numpy() != 0

    with pytest.raises(ValueError, match=r"it returned array\(") as caught:
        prune(untrained(), of_numpy)
    assert "\n" not in str(caught.value)


def test_a_users_operator_may_regrow() -> None:
    def everything(layer: Layer, rng: np.random.Generator, s: OperatorSettings):
        return torch.ones_like(layer.weight) > 0, torch.ones_like(layer.bias) > 0

    found = untrained(masked=True)
    prune(found, "random", amount=0.4)
    prune(found, everything)
    assert not found.encoder.tensors["keep"][1].all()
    prune(found, operators.Operator(everything, regrows=True))
    assert found.encoder.tensors["keep"][1].all()


@pytest.mark.parametrize("variational", [False, True])
def test_the_input_norm_of_a_layer_is_that_of_what_it_was_fed(variational: bool) -> None:
    kind = "variational" if variational else "plain"
    found = population.initialise(6, "5-3", kind, [np.random.default_rng(0)], "cpu")
    training.prepare(found, "adam", False)
    x = torch.rand(50, 6)
    encoded = found.encoder.activations(x[None])
    decoded = found.decoder.activations(found.code(encoded[-1]))
    for side, seen in zip(found.sides, (encoded, decoded), strict=True):
        activations.observe(side, seen)
    shown = []

    def look(layer: Layer, rng: np.random.Generator, s: OperatorSettings):
        shown.append(layer.input_norm)
        return operators.none(layer, rng, s)

    members.prune(
        found,
        [0],
        operators.find(look),
        [np.random.default_rng(0)],
        OperatorSettings(),
        lambda i: x,
    )
    fed = [x[None], encoded[0], found.code(encoded[-1]), decoded[0]]
    for norm, inputs in zip(shown, fed, strict=True):
        torch.testing.assert_close(norm, inputs[0].double().square().mean(0).sqrt())


@pytest.mark.parametrize("operator", ["set", "rigl"])
def test_at_a_target_no_more_is_pruned_than_can_regrow(operator: str) -> None:
    # erk leaves the small layers dense, where there is nothing to regrow
    e = Experiment.preset(
        "canonical", operator=operator, schedule="cubic", target_sparsity=0.4, allocation="erk",
        amount=0.3, epochs=5, clusters=2, bits=30, examples=8, model="8-2", learning_rate=0.01,
        prune_biases=False,
    )  # fmt: skip
    found = [state.population for state in evolve(e)]
    pruned = {int(sum(side.zeros() for side in each.sides)[0]) for each in found}
    assert pruned == {round(0.4 * found[0].parameters)}


def test_set_keeps_the_number_and_moves_the_places() -> None:
    e = Experiment.preset(
        "canonical", operator="set", schedule="fixed", probability=1.0, amount=0.25, epochs=6,
        pruned_weights="masked", clusters=2, bits=16, examples=40, learning_rate=0.01,
    )  # fmt: skip
    masks = [
        state.population.encoder.views(state.population.encoder.tensors["keep"])[0][0].clone()
        for state in evolve(e)
    ]
    assert {int((~mask).sum()) for mask in masks} == {round(0.25 * masks[0].numel())}
    assert any((after & ~before).any() for before, after in itertools.pairwise(masks))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_reads_exactly_the_statistics_that_it_names(name: str) -> None:
    operator, read, known = OPERATORS[name], set(), layer(zero_share=[0.1, 0.5, 0.2, 0.9])

    def statistic(asked: str) -> object:
        read.add(asked)
        return known.statistic(asked)

    for to_target in (False, True):
        seen = Layer(known.weight, known.bias, statistic)
        s = OperatorSettings(amount=0.5, to_target=to_target)
        driver.decide(operator, [seen], np.random.default_rng(0), s)
        assert read == set(operator.needs)
        read.clear()


def test_a_statistic_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown statistic 'deviatoin' .did you mean deviation"):
        operators.Operator(operators.none, needs=("deviatoin",))


def test_what_is_summed_from_the_start_must_be_named() -> None:
    def look(on: Layer, rng: np.random.Generator, s: OperatorSettings) -> operators.Masks:
        return on.movement[0] > 0, on.active_bias

    with pytest.raises(ValueError, match=r"register it with needs=\('movement',\)"):
        prune(untrained(), look)


def test_wanda_prunes_the_same_share_of_every_row_whatever_was_pruned_before() -> None:
    weight = [[1.0, -2.0, 3.0, 4.0], [0.1, 0.2, 0.0, 0.4], [0.0, 0.0, 9.0, 8.0]]
    on = layer(weight, [0.1, 0.2, 0.3], input_norm=[1.0, 1.0, 1.0, 0.1])
    keep, _ = apply("wanda", on, amount=5 / 9)
    # worth: 1 2 3 .4; .1 .2 - .04; - - 9 .8: of 4, 3 and 2 active ones go 2, 2 and 1
    pruned = ~keep & on.active
    assert pruned.tolist() == [
        [True, False, False, True],
        [True, False, False, True],
        [False, False, False, True],
    ]
