"""Bad command lines: one line on stderr, exit code 2, before any work, with hardly any memory.

The campaign (`pytest -m campaign`) draws a thousand of them; the ordinary suite tries those that
once filled the memory, kept silent or ended in a traceback, and some that are drawn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evoae.experiment import PRESETS, SETTINGS
from evoae.study.report import notebooks
from evoae.study.runs.run import Run

TINY = {"clusters": 1, "bits": 6, "examples": 4, "model": "3-2", "epochs": 2}
DIGITS = "9" * 5000
FEW = 300  # MiB: of the least that was once filled before it was refused, a tenth
Guard = Callable[[list[str]], dict]


if not hasattr(os, "fork"):
    pytest.skip("limits of memory and work need fork", allow_module_level=True)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    folder = tmp_path_factory.mktemp("guarded")
    command = [sys.executable, str(Path(__file__).parent / "guarded.py"), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as server:

        def ask(words: list[str]) -> dict:
            server.stdin.write(json.dumps(words) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline()) | {"folder": folder}

        ask(["list"])  # until here the server may still be importing
        yield ask
        server.stdin.close()


def refused(done: dict) -> None:
    """One line that begins as every refusal does, and nothing else."""
    assert done["code"] == 2, done
    assert done["err"].startswith("evoae: error: "), done
    assert done["err"].count("\n") == 1, done
    assert len(done["err"]) < 2000, done
    assert not done["out"], done
    assert done["used"] < FEW, done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("cells=100000", "GiB are available"),
        ("bits=10000000", "GiB are available"),
        ("bits=1000000000", "GiB are available"),
        (f"bits={10**30}", "must not be more than"),
        ("examples=10000000", "GiB are available"),
        ("examples=1000000000000", "GiB are available"),
        ("tournament_size=1000000000", "GiB are available"),
        ("model=10000000", "GiB are available"),
        ("epochs=1000000000000", "GiB are available"),
        ("topology=complete cells=100000 model=1 bits=1 clusters=1", "GiB are available"),
        ("--trials 1000000000", "GiB are available"),
        (f"--trials {DIGITS}", "must be a positive number"),
        (f"--seed {DIGITS}", "must be a whole number"),
        (f"epochs={DIGITS}", "must be a whole number"),
        (f"amount={DIGITS}", "must be a finite number"),
        (f"model={DIGITS}", "unknown model"),
        (f"--device cuda:{DIGITS}", "unknown device"),
        (f"dataset={'x/' * 2500}", "neither a built-in name"),
        (f"--out {'x' * 5000}", "File name too long"),
        ("initial_weights=", "''"),
    ],
    ids=lambda text: text[:40],
)
def test_what_once_was_not_refused_well(words: str, said: str, guard: Guard) -> None:
    done = guard(["run", "canonical", *words.split()])
    refused(done)
    assert said in done["err"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "canonical", "--out", ""],
        ["run", "canonical", "--out", "a\0b"],
        ["run", "canonical", "operator=a\nb"],
        ["run", "canonical", "dataset=a\nb.npy"],
        ["run", "canonical", "dataset=a\0b.npy"],
        ["run", "canonical", "initial_weights=a\0b"],
        ["run", "a\nb"],
        ["run", "canonical", "--workers", "a\nb"],
        ["run"],
        ["report", "a\0b"],
        ["report", "x" * 5000],
        ["list", "x" * 5000],
        ["reproduce", "x" * 5000],
        ["reproduce", "00_tour", f"trials={DIGITS}"],
        ["reproduce", "00_tour", "trials=" + "(" * 5000],
        ["reproduce", "00_tour", "--out", ""],
    ],
    ids=lambda words: repr(" ".join(words))[:40],
)
def test_values_that_break_a_line_or_fill_a_screen(words: list[str], guard: Guard) -> None:
    done = guard(words)
    refused(done)
    for unhelpful in ("embedded null", "Exceeds the limit", "Errno"):
        assert unhelpful not in done["err"]


def test_a_long_run_of_tiny_data_begins_at_once_and_shows_progress(guard: Guard) -> None:
    words = [f"{name}={value}" for name, value in (TINY | {"epochs": 10**6}).items()]
    done = guard(["run", "canonical", *words, "--workers", "1", "--out", "long"])
    assert done["code"] == 130
    assert "epoch" in done["err"]
    assert "the same command resumes" in done["err"]


# -- drawn ---------------------------------------------------------------------------------------

STRANGE = ["", " ", "nan", "inf", "-1", "0", "1", "2", "1e999", "1e-320", "None", "true", "a\nb"]
STRANGE += ["\0", "\u2028", "\x1b[2J", "../..", ".", "é" * 300, "x" * 5000, DIGITS, "0" * 5000]
STRANGE += [str(10**power) for power in (3, 5, 7, 9, 12, 18, 30)] + ["1-" * 2000 + "1", "{", "%s"]
NAMES = [name for s in SETTINGS.values() for name in getattr(s.rule, "names", ())]
values = st.one_of(
    st.sampled_from(STRANGE + NAMES + ["digits", "random", "cubic", "magnitude", "0.5", "3"]),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)
PLAUSIBLE = {int: ["1", "2", "3"], float: ["0.1", "0.5", "1"], bool: ["true", "false"]}


def plausible(name: str) -> list[str]:
    """Values that a setting may have, if the others allow it."""
    declared = SETTINGS[name]
    named = {"operator": ["random", "conjunctive", "set"], "schedule": ["fixed", "cubic"]}
    return [*getattr(declared.rule, "names", named.get(name, PLAUSIBLE.get(declared.kind, ["2"])))]


strange_pair = st.tuples(st.sampled_from([*SETTINGS]), values)
plausible_pair = st.sampled_from([(name, value) for name in SETTINGS for value in plausible(name)])
pairs = st.lists(plausible_pair | plausible_pair | strange_pair, min_size=1, max_size=3).map(dict)
relative = values.filter(lambda text: not text.startswith(("/", "~")) and ".." not in text)
options = st.one_of(
    *(st.tuples(st.just(f"--{name}"), values) for name in ("trials", "seed", "device", "engine")),
    st.tuples(st.just("--out"), relative),
    st.tuples(st.text(min_size=1, max_size=9)),
)


@st.composite
def running(draw: st.DrawFn) -> list[str]:
    """`evoae run` of tiny settings, some replaced by whatever comes."""
    preset = draw(st.sampled_from([*PRESETS] * 3) | st.sampled_from(STRANGE))
    chosen = {**TINY, **draw(pairs)}
    words = ["run", preset, *(f"{name}={value}" for name, value in chosen.items())]
    words += ["--workers", "1", "--out", "out"]
    return words + [
        word for each in draw(st.just([]) | st.lists(options, max_size=2)) for word in each
    ]


unknown = values.filter(lambda text: "=" not in text and Path(text).stem not in KNOWN)
KNOWN = notebooks.available()
others = st.one_of(
    st.tuples(st.just("report"), values.map(lambda text: f"no/{text}")),
    st.tuples(st.just("list"), values),
    st.tuples(st.just("reproduce"), unknown),
    st.tuples(st.just("reproduce"), st.just("00_tour"), st.just("--scale"), unknown),
    st.tuples(st.just("reproduce"), st.just("00_tour"), unknown.map(lambda text: f"{text}=1")),
    st.lists(values, max_size=4),
).map(list)


def try_one(guard: Guard, words: list[str], counts: Counter) -> None:
    """A command line is refused in one line, or does what it says; `counts` keeps which."""
    done = guard(words)
    assert "Traceback" not in done["err"], (words, done)
    counts["tried"] += 1
    if done["code"] == 2:
        refused(done)
        counts["refused"] += 1
        return
    assert done["code"] in (0, 130), (words, done)  # 130: it works, and says so
    counts["accepted" if done["code"] == 0 else "begun"] += 1
    if done["code"] == 0 and words[0] == "run" and not done["out"].startswith("usage"):
        run = Run(done["folder"] / done["out"].splitlines()[-1])
        expected = len(run.trials) * run.setting("epochs") * run.setting("cells")
        assert len(run.history) == expected


def tried(guard: Guard, examples: int) -> Counter:
    """Draw that many command lines; what became of them."""
    counts: Counter = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples < 1000,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(running() | running() | running() | others)
    def one(words: list[str]) -> None:
        try_one(guard, words, counts)

    one()
    return counts


def test_some_drawn_command_lines(guard: Guard) -> None:
    counts = tried(guard, 100)
    assert counts["refused"] > 20
    assert counts["accepted"] > 0


@pytest.mark.campaign
def test_the_campaign_of_drawn_command_lines(guard: Guard) -> None:
    counts = tried(guard, 1000)
    print(dict(counts))
    assert counts["refused"] > 300
    assert counts["accepted"] > 20
