"""The command line: what it prints, refuses, and leaves behind."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import refused_command

from evoae import experiment
from evoae.cli import main, parse_trials
from evoae.experiment import Experiment, parse_settings
from evoae.study.report import notebooks
from evoae.study.runs.run import Run

TINY = ["clusters=2", "bits=12", "examples=4", "model=5-3", "epochs=3"]


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("lipi-ae-s", "conjunctive", "final-n", "digits", "standard", "00_tour", "torus"):
        assert name in printed


def test_a_run_that_ends_at_the_constant_says_so(capsys, tmp_path):
    words = ["run", "canonical", "bits=20", "epochs=1", "--workers", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    *_, warning, folder = capsys.readouterr().out.splitlines()
    assert warning.startswith("nothing was learnt: the training loss")
    assert "loss=bce" in warning
    assert folder.startswith(str(tmp_path))


def test_run_prints_the_path_last(capsys, tmp_path):
    assert main(["run", "canonical", *TINY, "--trials", "2", "--out", str(tmp_path)]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    run = Run(folder)
    assert run.folder.parent == tmp_path
    assert [trial["trial"] for trial in run.result["trials"]] == [0, 1]
    names = {"config.json", "history.parquet", "result.json", "weights.safetensors"}
    assert {path.name for path in run.folder.iterdir()} == names


def test_a_file_s_columns_are_warned_of_once(tmp_path, capfd):
    rows = "".join(f"{n};{n % 7},5;{n % 5}\n" for n in range(40))
    (tmp_path / "rows.csv").write_text("id;f;label\n" + rows)
    words = ["run", "canonical", f"dataset={tmp_path / 'rows.csv'}", "scale=columns", *TINY[3:]]
    experiment.warn_once.cache_clear()
    assert main([*words, "--workers", "2", "--trials", "2", "--out", str(tmp_path)]) == 0
    error = capfd.readouterr().err
    for name in ("id", "label"):
        assert error.count(f"leave_out={name}") == 1
    assert f"evoae: warning: {tmp_path / 'rows.csv'}: " in error
    left = ["leave_out=id,label", "header=yes", "scale=true"]
    assert main(["run", "canonical", words[2], *TINY[3:], *left, "--out", str(tmp_path)]) == 0
    printed = capfd.readouterr()
    assert "leave_out" not in printed.err
    run = Run(printed.out.splitlines()[-1])
    assert run.config["columns"] == ["f"]
    assert run.config["scaling"] == {"minimum": [0.5], "maximum": [6.5]}


def test_settings_may_stand_before_and_after_options(capsys, tmp_path):
    words = ["run", "canonical", *TINY[:2], "--out", str(tmp_path), *TINY[2:]]
    assert main(words) == 0
    assert main(["run", "canonical", *TINY, "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == 1


REFUSED = [
    ("run canonica", "unknown preset 'canonica' (did you mean canonical?)"),
    ("run canonical epoch=3", "(did you mean epochs?)"),
    ("run canonical cls=3", "unknown setting 'cls'"),
    ("run canonical epochs", "write key=value"),
    ("run canonical epochs=3 epochs=4", "given twice"),
    ("run canonical epochs=many", "must be a whole number"),
    ("run canonical scale=maybe", "must be true, false or columns"),
    ("run canonical epochs=0", "epochs=0"),
    ("run canonical probability=nan", "probability=nan"),
    ("run canonical threshold=-0.1", "threshold=-0.1"),
    ("run canonical operator=magnitud", "(did you mean magnitude?)"),
    ("run canonical schedule=Cubic", "(did you mean cubic?)"),
    ("run canonical kind=denoise", "(did you mean denoising?)"),
    ("run canonical model=Standart", "(did you mean standard?)"),
    ("run canonical dataset=digit", "(did you mean digits?)"),
    ("run canonical dataset=nothing.csv", "nothing.csv"),
    ("run canonical clusters=7", "divisible"),
    ("run lipi-ae-s radius=5", "at most 4"),
    ("run canonical --trials 0", "trials='0'"),
    ("run canonical --trials 4:4", "trials='4:4'"),
    ("run canonical --seed -1", "seed=-1"),
    ("run canonical --device tpu", "choose cpu, cuda"),
    ("run canonical --device cpu:1", "choose cpu, cuda"),
    ("run canonical --workers 0", "workers=0"),
    ("run canonical --nonsense", "unknown option '--nonsense'"),
    ("run canonical --trial 3", "'--trial' (did you mean --trials?)"),
    ("reproduce 99_nothing", "unknown notebook '99_nothing'"),
    ("reproduce 00_tuor", "(did you mean 00_tour?)"),
    ("reproduce 00_tour --scale huge", "choose one of smoke, quick, paper"),
    ("reproduce 00_tour --scale smok", "(did you mean smoke?)"),
    ("reproduce 00_tour trails=3", "did you mean trials"),
    ("reproduce 00_tour trials=three", "must be of type int"),
    ("reproduce 00_tour trials=2.5", "must be of type int"),
    ("reproduce 00_tour trials=-1", "trials=-1 must be at least 1"),
    ("export a b.onnx --trials=3", "'--trials' (did you mean --trial?)"),
    ("export no/folder a.onnx", "no/folder is not a folder"),
    ("report no/folder", "no/folder is not a folder"),
    ("lst", "unknown command 'lst' (did you mean list?)"),
    ("list drop_fractio", "(did you mean drop_fraction?)"),
    ("list exchange", "setting 'exchange' is now called drop_fraction"),
    ("list drop_fraction more", "'more' is not an argument"),
    ("completion bsh", "unknown shell 'bsh' (did you mean bash?)"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    words, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert said in refused_command(words.split(), capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["run", "canonical", *TINY], ["reproduce", "00_tour"]])
def test_a_folder_that_cannot_be_written(words, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        error = refused_command([*words, "--out", str(out)], capsys)
        assert str(out) in error
        assert "cannot be written" in error
    assert (tmp_path / "file").read_text() == "in the way"


def test_values_have_the_types_of_their_settings():
    found = parse_settings(["epochs=3", "amount=1", "scale=true", "dataset=7"])
    assert found == {"epochs": 3, "amount": 1.0, "scale": True, "dataset": "7"}
    assert Experiment.preset("canonical", epochs=3, amount=1).amount == 1.0
    assert parse_trials("3") == range(3)
    assert parse_trials("2:5") == range(2, 5)


def test_notebook_parameters_are_those_of_its_cell():
    notebook = notebooks.read("00_tour")
    known = notebooks.defaults(notebook)
    assert known["dataset"] == "digits"
    assert notebooks.parse_parameters("00_tour", known, ["trials=3", "learning_rate=1"]) == {
        "trials": 3,
        "learning_rate": 1.0,
    }


LONG = "run lipi-ae-s clusters=2 bits=200 examples=50 cells=4 epochs=300 operator=random".split()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert main([*LONG, "--trials", "2", "--workers", "1", "--out", str(out)]) == 0
    return Run(next(out.iterdir()))


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "1"), (signal.SIGTERM, 143, "2")],
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    number, code, workers, uninterrupted, tmp_path
):
    words = [*LONG, "--trials", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "evoae.cli", *words, "--workers", workers],
        env=os.environ | {"EVOAE_CHECKPOINT_SECONDS": "0.1"},
        start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    while not list(tmp_path.glob("*/checkpoint-*")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert b"the same command resumes" in errors
    assert not list(tmp_path.glob("*/result.json"))
    assert main([*words, "--workers", "1"]) == 0
    first, second = uninterrupted, Run(next(tmp_path.iterdir()))
    assert first.history.equals(second.history)
    weights = [(run.folder / "weights.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]
    results = [json.loads((run.folder / "result.json").read_text()) for run in (first, second)]
    for result in results:
        del result["seconds"], result["model_steps_per_second"], result["sha256"]
    assert results[0] == results[1]


@pytest.mark.parametrize("word", ["x" * 5000, "x " * 2500])
def test_a_long_word_is_not_repeated_whole(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.startswith("evoae: error: ")
    assert "report" in error
    assert len(error) < 600


NOT_LOADED = """
import sys
from evoae.cli import main
for words in sys.argv[1:]:
    assert main(words.split()) in (0, 2)
large = "torch._C pandas._libs pyarrow.lib scipy._lib matplotlib IPython papermill".split()
assert not [name for name in large if name in sys.modules]
"""
QUICK = [
    "list",
    "list obd --json",
    "completion bash",
    "lst",
    "run canonicl",
    "run canonical operator=magnitud",
    "run canonical schedule=cubik",
    "run canonical dataset=digit",
    "reproduce 00_tuor",
    "reproduce trails=3",
    "report nowhere",
    "export nowhere a.onnx",
]


def test_lists_and_wrong_names_wait_for_no_large_library(tmp_path):
    command = [sys.executable, "-c", NOT_LOADED, *QUICK]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("evoae: error: ") == 9


def completed(line: str, tmp_path, capsys) -> list[str]:
    """What bash offers for the end of a command line."""
    assert main(["completion", "bash"]) == 0
    words = [*line.replace("=", " = ").split(), *([""] if line.endswith((" ", "=")) else [])]
    script = f"""{capsys.readouterr().out}
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
_evoae 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("evoae re", ["reproduce", "report"]),
        ("evoae run lip", ["lipi-ae-s", "lipi-ae"]),
        ("evoae run canonical target", ["target_sparsity="]),
        ("evoae run canonical operator=ma", ["magnitude"]),
        ("evoae run canonical prune_biases=", ["true", "false"]),
        ("evoae run canonical allocation=", ["layer", "erk", "global"]),
        ("evoae run canonical --out here dataset=di", ["digits"]),
        ("evoae reproduce --scale ", ["smoke", "quick", "paper"]),
        ("evoae reproduce 00", ["00_tour"]),
        ("evoae run canonical --wor", ["--workers"]),
        ("evoae completion b", ["bash"]),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(line, expected, tmp_path, capsys):
    assert completed(line, tmp_path, capsys) == expected


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_that_has_colours_shows_them(environment, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for terminal in (True, False):
        for stream, words in (("stdout", "list obd"), ("stderr", "list odb")):
            made = io.StringIO()
            made.isatty = lambda terminal=terminal: terminal
            with monkeypatch.context() as patched:
                patched.setattr(sys, stream, made)
                main(words.split())
            assert "obd" in made.getvalue()
            assert ("\033[" in made.getvalue()) is (coloured and terminal)
