"""The page of results is what the tables of results say, and it says it for other tables, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evoae.study.analysis import blocks, blocks_page, results, results_page

PAGE = Path(__file__).parents[3] / "notebooks" / "RESULTS.md"


def test_making_the_page_again_changes_nothing() -> None:
    assert results_page.page() == PAGE.read_text(encoding="utf-8")


def test_another_table_changes_the_numbers_and_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    front = results.front()
    known = front.method == "frontier"
    worse = front["mean"].mask(known, 0.9)
    monkeypatch.setattr(results, "front", lambda: front.assign(mean=worse))
    page = results_page.page()
    assert "(`frontier`)" not in page
    assert "(`frontier-ring`)" in page
    assert "0.900" in page


def test_a_method_that_does_not_beat_the_constant_is_marked() -> None:
    alive = pd.Series({"mean": 0.1, "low": 0.09, "high": 0.11, "constant_test_l1": 0.2, "macs": 5})
    assert results_page.loss_of(alive) == "0.100 [0.090, 0.110]"
    for changed in ({"high": 0.2}, {"macs": 0}, {"mean": np.inf, "low": np.nan, "high": np.inf}):
        shown = results_page.loss_of(pd.Series({**alive, **changed}))
        assert shown.endswith(results_page.DEAD)


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0001, "0.000"), (0.1234, "0.123"), (float("nan"), "–"), (1, "1.000")]
)
def test_numbers_have_three_decimals_and_no_negative_zero(value: float, said: str) -> None:
    assert results_page.number(value) == said


@pytest.mark.parametrize("name", results.IN_BLOCKS)
def test_tables_in_blocks_hold_each_run_once_with_streams_of_its_own(name: str) -> None:
    table = results.in_blocks(name)
    if len(table):
        keys = [*results.IN_BLOCKS[name], "data_seed", "training_seed"]
        assert not table.duplicated(keys).any()
        assert (table.data_seed == table.training_seed).all()  # of a block that nothing shares
        assert table.data_seed.max() < blocks.PLANNED


def test_designs_that_were_not_run_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = pd.DataFrame(columns=["data_seed", "training_seed"])
    monkeypatch.setattr(results, "in_blocks", lambda name: empty)
    found = blocks_page.values()
    for design in ("u", "a", "g", "s"):
        assert found[f"{design}_blocks"] == "No block of this design has been run yet."
    assert found["s_pairs"] + found["guided"] + found["a_compared"] == ""


def test_few_blocks_give_no_verdict_and_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = results.in_blocks

    def some(most: int):
        return lambda name: kept(name)[lambda table: table.data_seed < most]

    monkeypatch.setattr(results, "in_blocks", some(5))
    few = blocks_page.values()
    assert "supported" not in few["u_parts"]
    assert few["a_compared"] == "Arrangements are compared when 10 blocks are there."
    assert few["a_found"] == "  - Not all blocks are run, so nothing is said yet."
    monkeypatch.setattr(results, "in_blocks", kept)
    assert blocks_page.values()["a_found"].startswith("  - With random pruning, on 100 bits: ")
    assert "too few blocks" in few["u_numbers"]


def test_the_paper_s_operators_are_counted_where_one_has_learnt() -> None:
    rows = [
        {"dataset": "d", "target": target, "method": method, "mean": mean, "high": mean}
        for target, pair in ((0.5, (0.1, 0.2)), (0.8, (0.2, 0.1)), (0.9, (0.4, 0.5)))
        for method, mean in zip(("conjunctive", "random"), pair, strict=True)
    ]
    front = pd.DataFrame(rows).assign(constant_test_l1=0.3)  # at 90 % both are worse
    assert results_page.earlier(front) == (
        "in 1 of the 2 settings in which one of them beats the constant, `conjunctive` has a lower "
        "mean loss than `random`: d at 50 %."
    )
    assert results_page.earlier(front[front.target == 0.8]).startswith("in none of the 1 settings")


def test_operators_at_equal_sparsity_are_counted() -> None:
    losses = {"random": 0.2, "magnitude": 0.1, "conjunctive": 0.4}
    rows = [
        {"operator": name, "sparsity": 0.5, "data_seed": block, "test_l1": loss + block / 10_000}
        for name, loss in losses.items()
        for block in range(blocks.PLANNED)
    ]
    table = pd.DataFrame(rows).assign(dataset="d", bits=9, width=5, place="alone")
    table = table.assign(
        train_l1=table.test_l1, constant_train_l1=0.3, constant_test_l1=0.3, training_seed=0
    )
    said = blocks_page.guided(table)["g_found"]
    # settings, lower, of these beside a random one that is dead, higher, itself dead
    assert "| `magnitude` | alone | 1 | 1 | 0 | 0 | 0 |" in said
    assert "| `conjunctive` | alone | 1 | 0 | 0 | 1 | 1 |" in said
    dead = blocks_page.guided(table.assign(constant_test_l1=0.15))["g_found"]
    assert "| `magnitude` | alone | 1 | 1 | 1 | 0 | 0 |" in dead


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (["higher", "open"], "is smaller, not larger"),
        (["lower", "open"], "is larger too"),
        (["higher", "lower"], ""),
        (["open"], ""),
        ([], ""),
    ],
)
def test_what_whole_inputs_say_of_whole_units(says: list[str], words: str) -> None:
    said = blocks_page.of_inputs(pd.DataFrame({"says": says}))
    assert words in said
    assert bool(said) == bool(words)
