"""Design U changes positions and nothing else, and the verdict follows from the contrasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from evoae import sweep
from evoae.study.analysis import uniformity
from evoae.study.analysis.uniformity import (
    PARTS,
    arms_of,
    at_the_prune,
    contrasts,
    design,
    parts,
    positions_of,
    sizes_of,
    stands,
    table_of,
    verdict_of,
)

SIZES = [(40, 20), (60, 20)]
ARMS = arms_of(list(uniformity.POSITIONS))
SMALL = {k: v for k, v in TINY.items() if k not in ("bits", "model", "epochs", "learning_rate")}
TUNED = {
    (place, positions, *size): 1e-3
    for place in uniformity.PLACES for positions in uniformity.POSITIONS for size in SIZES
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    # pruned in the last epoch: what it took is what is zero
    settings = SMALL | {"epochs": 2, "prune_count": 2, "schedule": "fixed", "prune_until": 1.0}
    made = design(SIZES[:1], TUNED, 3, arms_of(["independent"]), rates=["constant"], **settings)
    return sweep(made, 2, out=tmp_path_factory.mktemp("u"), workers=1, progress=False)


def test_arms_differ_in_positions_masks_and_places_alone() -> None:
    found = design(SIZES, TUNED, 3, ARMS, epochs=8, prune_count=3, **SMALL)
    assert len(found) == 2 * 2 * (2 * len(ARMS) + len(ARMS) // 2)
    for place in ("alone", "isolated", "ring"):
        own = [e.settings() for label, e in found.items() if found.factors[label]["place"] == place]
        differ = {k for k in own[0] if len({str(each[k]) for each in own}) > 1}
        assert differ == {"positions", "bits", "rate_policy", "learning_rate"} | (
            {"shared_pruning"} if place != "alone" else set()
        )
    assert {e.pruning_clock for e in found.values()} == {"last-epoch"}


def test_every_arm_is_pruned_in_the_same_epochs(study) -> None:
    when = study.history[study.history.pruned].groupby(["label", "trial", "cell"]).epoch.agg(tuple)
    assert when.groupby("trial").nunique().eq(1).all()


def test_positions_are_drawn_again_as_they_were(study) -> None:
    for label, run in study.runs.items():
        layers = [w for side in run.population.sides for w, _ in side.layers()]
        shared = run.setting("shared_pruning") == "positions"
        for trial in run.numbers:
            for cell in range(run.setting("cells")):
                again = positions_of(run, trial, 1, 0 if shared else cell)
                at = run.index(trial, cell)
                for weight, taken in zip(layers, again, strict=True):
                    assert (weight[at].numpy()[taken] == 0).all(), label


def test_deviation_at_the_prune_is_that_of_the_positions(study) -> None:
    table = table_of(study).set_index(["place", "positions", "mask"]).sort_index()
    assert table.loc[("alone", "even"), "discrepancy"].eq(0).all()
    assert (table.loc[("alone", "units"), "discrepancy"] > 0.3).all()
    own, shared = (table.loc[("ring", "independent", mask)] for mask in ("own", "shared"))
    assert (own.pooled_discrepancy < own.discrepancy).all()
    assert shared.pooled_discrepancy.to_numpy() == pytest.approx(shared.discrepancy.to_numpy())
    run = study.runs["independent own alone 40 20 constant"]
    assert at_the_prune(run, 0)[0] > 0


def table(effects: dict[tuple[str, str, str], float], n: int = 10, level: float = 0.1):
    """Losses by arm, of two sizes, with a little noise over blocks."""
    rng, rows = np.random.default_rng(0), []
    for block in range(n):
        for bits, width in SIZES:
            for (place, positions, mask), change in effects.items():
                loss = level + change + rng.normal(0, 0.001)
                rows.append({
                    "data_seed": block, "place": place, "positions": positions, "mask": mask,
                    "bits": bits, "width": width, "rate": "constant", "train_l1": loss,
                    "test_l1": loss, "constant_train_l1": 0.27,
                    "discrepancy": 10 / bits, "pooled_discrepancy": 5 / bits,
                })  # fmt: skip
    return pd.DataFrame(rows)


ALL = [("alone", p, "own") for p in uniformity.POSITIONS]
ALL += [(place, p, m) for place in ("isolated", "ring") for p, m in ARMS]


def verdicts(found: pd.DataFrame) -> dict[str, str]:
    said = parts(found).verdict
    return dict(zip([part.name for part in (*PARTS, *uniformity.GUIDANCE)], said, strict=True))


def test_an_explanation_that_holds_is_supported_part_by_part() -> None:
    effects = dict.fromkeys(ALL, 0.0) | {("alone", "even", "own"): -0.05}
    effects |= {("alone", p, "own"): 0.05 for p in ("units", "inputs")}
    effects |= {("ring", p, "own"): -0.05 for p in ("independent", "units")}
    effects["ring", "units", "own"] = -0.1
    said = verdicts(contrasts(table(effects)))
    assert said.pop("even, fewer bits") == "contradicted"  # it is the same in both
    assert {said.pop("guidance"), said.pop("guidance, fewer bits")} == {"not run"}
    assert set(said.values()) == {"supported"}


def test_positions_that_change_nothing_contradict_it() -> None:
    said = verdicts(contrasts(table(dict.fromkeys(ALL, 0.0))))
    assert said.pop("low dimensions") == said.pop("pool") == "supported"  # facts of counting
    assert {v for k, v in said.items() if "guidance" not in k} == {"contradicted"}


def test_what_has_not_learnt_or_has_few_blocks_gives_no_verdict() -> None:
    constant = contrasts(table(dict.fromkeys(ALL, 0.0), level=0.3))
    losses = constant[constant.value == "train_l1"]
    assert set(losses.says) == {"nothing learnt"}
    assert set(losses.verdict) == {"no verdict"}
    few = contrasts(table(dict.fromkeys(ALL, 0.0), n=9))
    assert set(few.says) == {"too few blocks"}
    answer = uniformity.answer(
        table(dict.fromkeys(ALL, 0.0), n=9),
        table({}, n=9).reindex(columns=["data_seed", "dataset", "place"]),
    )
    assert "no verdict" in answer.found


def test_arms_that_were_not_run_are_left_out() -> None:
    found = contrasts(table(dict.fromkeys(ALL[:2], 0.0)))
    assert set(found["part"]) == {"low dimensions", "even", "even, fewer bits"}
    by_size = contrasts(table(dict.fromkeys(ALL[:2], 0.0)), ["rate", "bits", "width"])
    assert by_size["part"].value_counts().to_dict() == {"even": 2}  # two sizes


def test_the_family_is_what_was_declared_whatever_was_run() -> None:
    assert uniformity.FAMILY == 2 + 2 * (4 + 3 * 2)
    found = contrasts(table(dict.fromkeys(ALL[:2], 0.0) | {ALL[0]: 0.0}))
    row = found[found["part"] == "even"].iloc[0]
    assert row.p_equal_holm == pytest.approx(min(1, uniformity.FAMILY * row.p_equal))
    both = pd.concat([table(dict.fromkeys(ALL, 0.0)).assign(rate=r) for r in uniformity.RATES])
    found = contrasts(both)
    assert len(found) == uniformity.FAMILY
    assert (found["part"] == "pool").sum() == 1  # positions are the same at every rate


def test_guidance_is_a_part_of_it() -> None:
    rows = table({("alone", "independent", "own"): 0.0})
    guided = pd.concat(
        rows.assign(operator=name, sparsity=0.8, dataset="binary-clusters",
                    test_l1=rows.test_l1 + gap, train_l1=rows.train_l1 + gap)
        for name, gap in (("random", 0.0), ("conjunctive", -0.05))
    )  # fmt: skip
    found = contrasts(uniformity.as_arms(guided))
    said = found.set_index(["part", "value"]).verdict
    assert said["guidance", "train_l1"] == "supported"
    assert said["guidance, fewer bits", "train_l1"] == "contradicted"
    assert set(found.rate) == {"80 % zeros"}


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        (["supported", "no verdict"], "supported"), (["open", "open"], "open"),
        (["supported", "open"], "supported in part"), (["contradicted", "open"], "open"),
        (["supported", "contradicted"], "mixed"), (["no verdict"], "no verdict"),
        ([], "no verdict"),
    ],
)  # fmt: skip
def test_verdicts_come_together(verdicts, found) -> None:
    assert verdict_of(verdicts) == found


def test_how_a_prediction_stands() -> None:
    assert stands("lower", -1) == stands("higher", 1) == "supported"
    assert stands("lower", 1) == "contradicted"
    assert stands("lower, by less than the margin", -1) == "contradicted"
    assert stands("no difference as large as the margin", 1) == "contradicted"
    assert stands("open", 1) == "open"
    assert stands("too few blocks", 1) == stands("diverged", 1) == "no verdict"


def test_positions_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown positions 'evn'"):
        arms_of(["evn"])


def test_sizes_are_read_or_refused() -> None:
    assert sizes_of("50x30 100x5") == [(50, 30), (100, 5)]
    for text in ("", "50", "50x", "50x30,100x5", "ax30"):
        with pytest.raises(ValueError, match="must be like 50x30 100x5"):
            sizes_of(text)


def test_whole_inputs_in_a_ring_beside_independent_positions() -> None:
    arms = [(place, p, "own") for place in ("isolated", "ring") for p in ("independent", "inputs")]
    effects = dict.fromkeys(arms, 0.0) | {("ring", "independent", "own"): -0.05}
    found = uniformity.undeclared(table(effects), uniformity.INPUTS_IN_A_RING).set_index("outcome")
    assert found.estimate.to_numpy() == pytest.approx(0.05, abs=0.002)
    assert set(found.says) == {"higher"}
    few = table(dict.fromkeys(arms[:2], 0.0))
    assert uniformity.undeclared(few, uniformity.INPUTS_IN_A_RING).empty
