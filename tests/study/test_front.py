"""A whole front: its files and sentence, more trials, interruption, and what it refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import assert_same_bits, tiny

from evoae import Experiment, front
from evoae.cli import main
from evoae.study.front import Front
from evoae.study.runs import fronts
from evoae.study.runs.run import Run

SIZES = [0.3, 0.6]
STEPS = 3 * 20  # an epoch of the tiny data takes three


def found_in(out: Path | None, trials: Any = 2, sizes: Any = SIZES, **more: Any) -> Front:
    e = tiny("frontier", **more.pop("settings", {}))
    return front(e, sizes, more.pop("steps", STEPS), trials, out=out, progress=False, **more)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the figure, which takes longest."""
    monkeypatch.setattr("evoae.study.front.save", lambda *given: None)
    monkeypatch.setattr("evoae.study.front.front_of", lambda *given: None)


def test_a_front_is_ordinary_runs_and_a_table(tmp_path: Path) -> None:
    found = found_in(tmp_path)
    table = pd.read_csv(tmp_path / "front.csv")
    assert table[["sparsity", "trial"]].values.tolist() == [[s, t] for s in SIZES for t in (0, 1)]
    for row in table.itertuples():
        run = Run(tmp_path / row.run)
        mine = run.trials.set_index("trial").loc[row.trial]
        assert (mine.test_l1, mine.macs) == pytest.approx((row.test_l1, row.macs))
        assert run.setting("target_sparsity") == row.sparsity
        assert row.best_preserved <= 1 - row.sparsity + 0.01
    steps = table.groupby("trial").model_steps.sum()
    assert (steps == STEPS).all()
    for suffix in ("png", "svg"):
        assert (tmp_path / f"front.{suffix}").stat().st_size > 1000
    for size in SIZES:
        encoder, _ = found.best(size, compact=True)
        assert encoder is not None
    with pytest.raises(ValueError, match=r"sparsity=0.5 is not in this front; it has 0.3, 0.6"):
        found.best(0.5)


@pytest.mark.usefixtures("undrawn")
def test_more_trials_add_to_the_same_runs(tmp_path: Path) -> None:
    one = found_in(tmp_path, 1).table
    folders = {path.name for path in tmp_path.iterdir()}
    two = found_in(tmp_path, 2).table
    assert {path.name for path in tmp_path.iterdir()} == folders
    assert_same_bits(two[two.trial == 0], one)
    assert_same_bits(found_in(tmp_path, range(1, 2)).table, two[two.trial == 1])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("sizes", [SIZES, "auto"])
def test_an_interrupted_front_resumes_with_the_same_bits(
    sizes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found_in(tmp_path / "whole", 1, sizes).table
    real, left = fronts.sweep, 0

    def killed(*given: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(fronts, "sweep", killed)
    again = None
    for attempt in (0, 1, 2, 3, 5, 9, 99):
        left = attempt
        with contextlib.suppress(KeyboardInterrupt):
            again = found_in(tmp_path / "parts", 1, sizes).table
            break
    assert_same_bits(again, whole)
    if sizes == "auto":
        assert 1 < again.sparsity.nunique() <= fronts.AUTO_SIZES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sizes": [0.0, 0.5]}, "sparsity 0.0 must be a number above 0 and below 1"),
        ({"sizes": [0.5, 1]}, "sparsity 1 must be a number"),
        ({"sizes": [0.5, "x"]}, "sparsity 'x' must be a number"),
        ({"sizes": [float("nan")]}, "sparsity nan must be a number"),
        ({"sizes": np.array([0.6, 0.3])}, "sparsity 0.3 stands after 0.6"),
        ({"sizes": (0.5, 0.5)}, "sparsity 0.5 is given twice"),
        ({"sizes": []}, "sparsities: 0 were given"),
        ({"sizes": 0.5}, "sparsities=0.5 must be a list"),
        ({"sizes": [0.5, 0.5000001]}, "sparsities 0.5 and 0.5000001 prune equally many of "),
        ({"sizes": [1e-9, 0.5]}, "sparsity 1e-09 prunes none of "),
        ({"sizes": "all"}, "sparsities='all' must be auto"),
        ({"sizes": [0.5, 0.99]}, "target_sparsity=0.99 cannot be reached"),
        ({"steps": 8}, "steps=8 must be at least 9: 3 epochs of 3 model steps"),
        ({"steps": 8, "sizes": "auto"}, "for sparsities=auto and the dense network"),
        ({"steps": 1.5}, "steps=1.5 must be a positive whole number"),
        ({"within": -0.1}, "within=-0.1 must be a share"),
        ({"within": True}, "within=True must be a share"),
        ({"trials": 0}, "trials 0:0 are empty"),
        ({"trials": 1.5}, "trials=1.5 must be a number or a range"),
        ({"trials": range(0, 4, 2)}, "must be a number or a range of step 1"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"workers": 0}, "workers=0 must be"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        (
            {"settings": {"schedule": "points:0,0;1,0.9"}},
            "schedule=points:0,0;1,0.9 reaches no target sparsity; a front needs",
        ),
    ],
)
def test_what_is_refused_before_any_work(given: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        found_in(tmp_path / "out", **({"trials": 1} | given))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged, so no other can begin from it; choose a learn"):
        found_in(tmp_path, 1, settings={"learning_rate": 1e20})


def test_only_an_experiment_has_a_front() -> None:
    with pytest.raises(ValueError, match="must be an Experiment"):
        front("digits", SIZES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operator=none with schedule=exponential reaches no"):
        front(Experiment.preset("canonical"), SIZES)


def a_front(validation: list[float], constant: float = 0.5, within: float = 0.05) -> Front:
    table = pd.DataFrame({"sparsity": [0.5, 0.5, 0.9, 0.9], "validation_l1": validation})
    table = table.assign(trial=[0, 1, 0, 1], stage="branch", run="abc", compact_parameters=1234)
    return Front(
        Path("my runs"),
        table.assign(dense_validation_l1=0.1, dense_test_l1=0.1, constant_test_l1=constant),
        within,
        {},
    )


def test_the_sentence_names_the_smallest_network_that_is_near_enough() -> None:
    found = a_front([0.09, 0.11, 0.106, 0.102])
    assert (found.sparsity, found.row(0.9).trial) == (0.9, 1)
    assert found.sentence == (
        "The smallest network within 5 % of the dense network's 0.1000 validation loss has "
        "sparsity 0.9: validation loss 0.1040, 1,234 parameters after compaction. Export it with: "
        "evoae export 'my runs/abc' --trial 1 small.safetensors"
    )
    assert a_front([0.09, 0.11, 0.106, 0.102], within=0.01).sparsity == 0.5
    # a diverged trial is not left out
    assert a_front([0.09, 0.11, 0.09, np.nan]).sparsity == 0.5


def test_the_sentence_says_if_no_network_is_near_enough() -> None:
    found = a_front([0.12, 0.12, 0.2, 0.2])
    assert found.sparsity is None
    assert found.sentence == (
        "No size has a validation loss within 5 % of the dense network's 0.1000; the nearest is "
        "0.5 with 0.1200."
    )
    with pytest.raises(ValueError, match="Name the sparsity that you want"):
        found.best()


def test_the_sentence_says_if_nothing_was_learnt() -> None:
    words = "The dense network is no better than a constant, so this says little."
    assert words in a_front([0.1, 0.1, 0.1, 0.1], constant=0.1).sentence
    assert words in a_front([0.2, 0.2, 0.2, 0.2], constant=0.1).sentence
    assert words not in a_front([0.1, 0.1, 0.1, 0.1]).sentence


TINY = ["clusters=2", "bits=12", "examples=4", "model=5-3", "batch_size=3"]


def test_the_command_prints_the_table_and_the_sentence(capsys, tmp_path: Path) -> None:
    words = ["front", "binary-clusters", *TINY, "--sparsities", "0.3,0.6", "--steps", "60"]
    assert main([*words, "--trials", "2", "--out", str(tmp_path)]) == 0
    data, head, dense, *rows = capsys.readouterr().out.splitlines()
    assert data.startswith("data: 8 rows of 12 columns to train on")
    assert head.split()[:3] == ["sparsity", "validation", "L1"]
    assert dense.split()[0] == "dense"
    assert [row.split()[0] for row in rows[:2]] == ["0.3", "0.6"]
    assert "network" in rows[2]
    assert rows[3:] == [str(tmp_path / name) for name in ("front.csv", "front.png")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epochs=3"], "setting epochs cannot be given: --steps decides it"),
        (["target_sparsity=0.5"], "setting target_sparsity cannot be given: --sparsities decides"),
        (["dataset=digits"], "setting dataset cannot be given: DATASET decides it"),
        (["rate_hold=0.5"], "setting rate_hold cannot be given: a front decides it"),
        (["--sparsities", "0.5;0.9"], "must be auto, or numbers separated by commas"),
        (["--within", "nan"], "within=nan must be a share"),
        (["--sparsities", "0.5,0.999"], "target_sparsity=0.999 cannot be reached"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, words: list[str], said: str, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["front", "digits", *words, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()
