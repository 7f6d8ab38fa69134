"""The command line: evoae list | run | front | reproduce | report | export | completion.

What a command needs is imported when it runs, and torch and pandas when something of them is first
used: help, lists and wrong names do not wait for them.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import re
import shutil
import sys
import textwrap
import types
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import evoae
from evoae.messages import LONGEST, count, display, one_line, short, shortened
from evoae.rules import ENGINES, check_known
from evoae.study.runs.signals import Terminated, terminable

EXAMPLES = {
    "list": """examples:
  evoae list                       every name and setting, with one sentence each
  evoae list conjunctive           everything about one of them
  evoae list --json > names.json""",
    "run": """examples:
  evoae run canonical operator=conjunctive schedule=exponential --trials 5 --out runs
  evoae run lipi-ae-s dataset=digits learning_rate=0.001 epochs=100 --trials 5:10 --out runs""",
    "front": """examples:
  evoae front digits --sparsities 0.5,0.8,0.9,0.94 --steps 180000 --trials 4 --out fronts/digits
  evoae front mine.csv scale=columns --sparsities auto --out fronts/mine""",
    "reproduce": """examples:
  evoae reproduce --scale smoke --out out
  evoae reproduce 01_canonical_pruning trials=10 --scale paper --out out""",
    "report": """example:
  evoae report out""",
    "export": """examples:
  evoae export out/HASH --trial 0 small.onnx          the best cell of trial 0
  evoae export out/HASH --trial 3 --cell 2 small.safetensors""",
    "completion": """example:
  eval "$(evoae completion bash)"     completes names with the TAB key; put it into ~/.bashrc""",
}


SETTINGS_TITLE = """settings, written key=value, with their defaults in brackets:
  [a | b] is a as released and b as intended; [-] is none, or follows from other settings"""


class Later(types.ModuleType):
    """A large library that is loaded when something of it is first used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        found = getattr(importlib.import_module(self.__name__), name)
        vars(self)[name] = found  # the next time it is found without asking
        return found


def load_later(*names: str) -> None:
    """Let `import NAME` wait for the first use, unless it is loaded already."""
    for name in names:
        if name not in sys.modules and (found := importlib.util.find_spec(name)):
            later = Later(name)
            later.__spec__ = found
            sys.modules[name] = later


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns the exit code: 0, 1 (some of it failed), 2 (refused), 130 (Ctrl-C), 143 (SIGTERM).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    gc.set_threshold(100_000)  # imports make much that stays: a tenth of a short run's time
    load_later("torch", "pandas", "pyarrow", "scipy")
    top = parser()
    try:
        if given and not given[0].startswith("-"):
            check_known(given[0], EXAMPLES, f"unknown command {short(given[0])}")
        options, rest = top.parse_known_args(given)
        words = getattr(options, "words", None)
        for word in rest:
            if word.startswith("-"):
                check_option(word.partition("=")[0], options.parser, words is not None)
            if words is None:
                raise ValueError(f"{short(word)} is not an argument of this command; see --help")
        options.words = [*(words or []), *rest]  # settings may stand after options, too
        with terminable(), warnings.catch_warnings():
            warnings.showwarning = print_warning
            return options.command(options)
    except ValueError as error:
        complain("error", one_line(str(error)))
        return 2
    except BrokenPipeError:  # `evoae list | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # failures in a sweep, a full disk, a lost worker, too little memory
    except (OSError, RuntimeError, MemoryError) as error:
        complain("failed", str(error) or type(error).__name__)
        return 1
    except (KeyboardInterrupt, Terminated) as ending:
        print("evoae: interrupted; the same command resumes", file=sys.stderr)
        return 143 if isinstance(ending, Terminated) else 130


def check_option(option: str, of: Parser, takes_settings: bool) -> None:
    """Raise ValueError for an option that a command does not have."""
    from evoae.experiment import SETTINGS

    problem, setting = f"unknown option {short(option)}", option.lstrip("-").replace("-", "_")
    if takes_settings and setting in SETTINGS:
        raise ValueError(f"{problem}; {setting} is a setting: write {setting}=VALUE")
    check_known(option, of.option_names(), problem)


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on one line, without the line of code that raised it."""
    complain("warning", one_line(str(message)))


COLOURS = {"error": 31, "failed": 31, "warning": 33, "name": 36, "title": 1}  # of a terminal


def coloured(text: str, kind: str, stream: TextIO | None = None) -> str:
    """The text in the colour of its kind, where the stream (stdout) is a terminal that has it."""
    stream = stream or sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[{COLOURS[kind]}m{text}\033[0m"


def complain(kind: str, text: str) -> None:
    """Print an error, a failure or a warning to stderr."""
    print(f"evoae: {coloured(f'{kind}:', kind, sys.stderr)} {text}", file=sys.stderr)


# a long word that a message of argparse repeats
LONG = rf"'[^']{{{LONGEST},}}'|\S{{{LONGEST},}}"


class Parser(argparse.ArgumentParser):
    """Errors of one line; options cannot be abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """Print the message, long words cut, and end with exit code 2."""
        words = re.sub(LONG, lambda found: shortened(found[0]), one_line(message))
        complain("error", f"{words} (see {self.prog} --help)")
        self.exit(2)

    def option_names(self) -> list[str]:
        """What may be written with dashes."""
        return [name for action in self._actions for name in action.option_strings]


def whole(text: str) -> int:
    """A whole number of an option."""
    if not re.fullmatch(r"[-+]?[0-9]{1,25}", text):
        raise argparse.ArgumentTypeError(f"{short(text)} must be a whole number")
    return int(text)


def folder(text: str) -> Path:
    """The name of a folder, which need not be there."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{short(text)} cannot be the name of a folder")
    return Path(text)


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(
        prog="evoae",
        description="Prune autoencoders while they train, alone or in coevolving populations.",
        epilog="See evoae COMMAND --help for its options and examples.",
    )
    top.add_argument("--version", action="version", version=f"evoae {evoae.__version__}")
    commands = top.add_subparsers(required=True, metavar=" | ".join(EXAMPLES))

    def command(name: str, function: Any, text: str) -> Parser:
        raw = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXAMPLES[name],
            formatter_class=raw,
        )
        made.set_defaults(command=function, parser=made)
        top.commands[name] = made
        return made

    def option(
        of: Parser, name: str, takes: str, text: str, default: Any = None, kind: Any = str
    ) -> None:
        said = text if default is None else f"{text} (default: %(default)s)"
        of.add_argument(name, metavar=takes, help=said, default=default, type=kind)

    listing = command(
        "list", list_names, "list all presets, operators, schedules, data sets and settings"
    )
    listing.add_argument("name", nargs="?", metavar="NAME", help="describe only this name, in full")
    listing.add_argument("--json", action="store_true", help="print one JSON object, for programs")

    running = command("run", run, "run an experiment, or resume it")
    preset = "a named set of settings, such as canonical or frontier (see evoae list)"
    running.add_argument("preset", metavar="PRESET", help=preset)
    settings = "settings to change, such as dataset=mine.csv"
    running.add_argument("words", nargs="*", default=[], metavar="key=value", help=settings)

    choosing = command(
        "front", front, "train networks of several sizes, and say how small one may be"
    )
    data = "a built-in name, a file or a folder (see evoae list)"
    choosing.add_argument("dataset", metavar="DATASET", help=data)
    settings = "settings of the preset frontier to change"
    choosing.add_argument("words", nargs="*", default=[], metavar="key=value", help=settings)
    sizes = "shares of the parameters to prune, rising; auto: six where the loss bends (default)"
    choosing.add_argument("--sparsities", default="auto", metavar="S,S,...|auto", help=sizes)
    steps = "model steps of a trial, for all sizes together"
    option(choosing, "--steps", "N", steps, 180_000, whole)
    within = "how far above the dense network's loss the one to take may be"
    option(choosing, "--within", "SHARE", within, 0.05, float)
    for each in (running, choosing):
        option(each, "--trials", "N|A:B", "number of trials, or trials A to B-1", "1")
        option(each, "--seed", "S", "seed of all random draws", 1, whole)
        option(each, "--device", "cpu|cuda", "device to train on", "cpu")
        engines = "fused: the compiled kernel; batched: PyTorch alone"
        option(each, "--engine", "|".join(ENGINES), engines, "auto")

    doing = command(
        "reproduce", reproduce, "execute notebooks and write their pages, figures and tables"
    )
    chosen = "notebooks (default: all), and parameters to change in them"
    doing.add_argument("words", nargs="*", metavar="NOTEBOOK | key=value", help=chosen)
    option(doing, "--scale", "smoke|quick|paper", "size of the runs", "quick")
    option(doing, "--dask", "ADDRESS", "run on the Dask cluster with this scheduler address")
    option(doing, "--index", "I", "number of this job in a job array, from 0", 0, whole)
    option(doing, "--of", "N", "number of jobs in the array", 1, whole)

    telling = command("report", report, "compare the runs in a folder with the paper")
    written = "a folder that --out of reproduce or run wrote to"
    telling.add_argument("out", type=folder, metavar="DIR", help=written)

    exporting = command(
        "export", export, "write one autoencoder of a run to a file, without its unused units"
    )
    exporting.add_argument("run", type=Path, metavar="DIR/HASH", help="the folder of a run")
    file = "file to write, .onnx or .safetensors"
    exporting.add_argument("file", type=Path, metavar="FILE", help=file)
    option(exporting, "--trial", "T", "trial to export", 0, int)
    option(exporting, "--cell", "C", "cell to export (default: the trial's best)", kind=int)

    completing = command("completion", completion, "print a script that completes names")
    completing.add_argument("shell", metavar="bash", help="the shell, which must be bash")

    processes = "number of processes (default: one per core; one for short runs and on a GPU)"
    for each in (running, choosing, doing):
        option(each, "--out", "DIR", "folder to write to", Path("out"), folder)
        option(each, "--workers", "N", processes, kind=whole)
    return top


# -- list ----------------------------------------------------------------------------------------


def list_names(options: argparse.Namespace) -> int:
    """Print every name with a sentence, or all about one, or everything as JSON."""
    from evoae.experiment import RENAMED

    known = catalogue()
    if options.name in RENAMED:
        raise ValueError(f"setting {short(options.name)} is now called {RENAMED[options.name]}")
    if options.name is not None:
        found = {
            kind: [
                each
                for each in entries
                if options.name in (each["name"], each["name"].partition(":")[0], *values(each))
            ]
            for kind, entries in known.items()
        }
        known = {kind: entries for kind, entries in found.items() if entries}
        if not known:
            names = [each["name"] for entries in catalogue().values() for each in entries]
            problem = f"nothing is called {short(options.name)}"
            check_known(options.name, names, problem, "`evoae list`")
    if options.json:
        print(json.dumps(known, indent=1))
        return 0
    for kind, entries in known.items():
        title = f"{kind}:" if options.name or kind != "settings" else SETTINGS_TITLE
        print(coloured(title, "title"))
        for each in entries:
            if options.name is None:
                print_row(*row_of(each), 27)
                continue
            print(f"  {coloured(each['name'], 'name')}")
            print_row("", each["description"], 2)
            for fact, text in facts(each):
                print_row(f"  {fact}", text, 20)
        print()
    sys.stdout.flush()
    return 0


def values(entry: Mapping[str, Any]) -> list[str]:
    """The words that a setting may take, if it takes one of some words."""
    rule = entry.get("rule", "").partition("must be one of ")[2]
    return rule.split(", ") if rule else []


def row_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    """A name and its sentence; a setting's name has its default, its sentence the rule."""
    name, sentence = entry["name"], entry["description"]
    if "rule" not in entry:
        return name, sentence
    return f"{name} [{default_of(entry)}]", f"{sentence} ({entry['rule']})"


def default_of(setting: Mapping[str, Any]) -> str:
    """A setting's default, or its defaults as released and as intended, as one writes them."""
    both = setting["readings"] or [setting["default"]]
    return " | ".join("-" if value in (None, "") else written(value) for value in both)


def written(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def facts(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `evoae list NAME` says beside the sentence: a word and its text each."""
    found = []
    if "rule" in entry:
        value = default_of(entry)
        if entry["readings"]:
            value = value.replace(" | ", " as released, ") + " as intended"
        found += [
            ("default", "none, or it follows from other settings" if value == "-" else value),
            ("value", entry["rule"]),
            ("source", entry["source"]),
            ("in training", "can be changed in explore.ipynb" if entry["may_change"] else "fixed"),
        ]
    if "settings" in entry:
        words = " ".join(f"{name}={written(v)}" for name, v in entry["settings"].items())
        found.append(("settings", words or "the defaults"))
    if "target" in entry:
        found.append(
            ("gives", "a target sparsity" if entry["target"] else "a probability of pruning")
        )
    if "needs" in entry and entry["name"] != "none":
        found += [
            ("reads", ", ".join(entry["needs"]) or "the weights alone"),
            ("target sparsity", "reached exactly" if entry["reaches_target"] else "not possible"),
            ("allocation", "layer, erk or global" if entry["compares_layers"] else "layer or erk"),
        ]
        notes = {
            "regrows": "it also brings pruned weights back",
            "renews": "it gives fresh initial values instead of zeros",
            "reads_test_as_released": "in the released code it looks at test data",
        }
        found.append(("note", "; ".join(text for key, text in notes.items() if entry[key])))
    return [(fact, text) for fact, text in found if text]


def print_row(name: str, text: str, width: int) -> None:
    """A name and its text beside it, wrapped; a long name has its own line."""
    rest = " " * (width - len(name)) if len(name) < width else f"\n{'':{width + 2}}"
    first = f"  {coloured(name, 'name')}{rest}"
    columns = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines = textwrap.wrap(text, max(30, columns - width - 2), break_on_hyphens=False)
    print(first + f"\n{'':{width + 2}}".join(lines))


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Every name that a setting or an argument may take, with its description and properties."""
    from evoae.data import built_in, files, pictures
    from evoae.experiment import BY_READING, PRESETS, SETTINGS
    from evoae.networks import population
    from evoae.pruning import operators, schedules
    from evoae.pruning.registry import sentence
    from evoae.study.report import notebooks

    def entry(name: str, description: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "description": description, **more}

    readings = [
        entry(name, f"{released} as released, {intended} as intended.")
        for name, (released, intended) in BY_READING["operator"].items()
    ]
    return {
        "presets": [entry(n, p.description, settings=p.settings) for n, p in PRESETS.items()],
        "operators": [
            *(entry(n, o.description) | o.abilities() for n, o in operators.OPERATORS.items()),
            *readings,
        ],
        "schedules": [
            *(entry(n, s.description, target=s.target) for n, s in schedules.SCHEDULES.items()),
            *(
                entry(f"{kind}:X,Y;...", schedules.POINTS_SAY[kind], target=target)
                for kind, target in schedules.BY_POINTS.items()
            ),
        ],
        "datasets": [
            *(entry(n, sentence(made)) for n, made in built_in.BUILT_IN.items()),
            *(entry(f"FILE{s}", f"{sentence(r)}") for s, r in files.SUFFIXES.items()),
            entry("FOLDER", sentence(pictures.read)),
        ],
        "models": [
            *(
                entry(n, f"Widths from the input to the code: {'-'.join(map(str, widths))}.")
                for n, widths in population.MODELS.items()
            ),
            entry("N-M-...", "Widths of your own from the input to the code, such as 50-20-5."),
        ],
        "notebooks": [
            entry(n, notebooks.question_of(notebooks.read(n))) for n in notebooks.available()
        ],
        "settings": [
            entry(
                name,
                s.says,
                default=s.default,
                rule=f"must {s.rule}",
                type=s.kind.__name__,
                source=s.source,
                may_change=s.live,
                readings=s.readings,
            )
            for name, s in SETTINGS.items()
        ],
    }


# -- run -----------------------------------------------------------------------------------------


def parse_trials(text: str) -> range:
    """`5` is trials 0 to 4, `5:8` trials 5 to 7."""
    start, colon, stop = text.partition(":")
    if not colon:
        start, stop = "0", text
    numbers = re.fullmatch("[0-9]{1,12}", start) and re.fullmatch("[0-9]{1,12}", stop)
    if not numbers or int(start) >= int(stop):
        raise ValueError(f"trials={short(text)} must be a positive number N, or A:B with A < B")
    return range(int(start), int(stop))


def where_of(options: argparse.Namespace) -> dict[str, Any]:
    """Where and how runs are trained, as `sweep` takes it. Raises ValueError for no engine."""
    check_known(options.engine, ENGINES, f"unknown engine {short(options.engine)}")
    return {name: getattr(options, name) for name in ("out", "device", "engine", "workers")}


def run(options: argparse.Namespace) -> int:
    """Run one experiment, and print the means of what came out."""
    from evoae.data import datasets
    from evoae.experiment import Experiment, parse_settings

    experiment = Experiment.preset(options.preset, **parse_settings(options.words))
    trials = parse_trials(options.trials)
    datasets.check_there(experiment.dataset)  # before torch is loaded

    from evoae.study.analysis import inspection
    from evoae.study.runs import sweeps

    done = sweeps.run(experiment, trials, options.seed, **where_of(options))
    summary = experiment.data_summary
    print(f"data: {summary.sentence}")
    losses = ", losses of the scaled values" if summary.scaling else ""
    print(f"means over {count(len(done.trials), 'trial')}{losses}")
    for name, value in done.result["mean"].items():
        if name == "best_cell":  # the mean of cell numbers means nothing
            continue
        print(f"{name:26}{'not finite' if value is None else number(value)}")
    speed = done.result["model_steps_per_second"]
    print(f"{'model steps per second':26}{speed:,.0f} ({done.result['engine']} engine)")
    if warning := inspection.ending(done):
        print(coloured(warning, "warning"))
    print(done.folder)
    return 0


def front(options: argparse.Namespace) -> int:
    """Train a whole front; print its table, and which network to take."""
    from evoae.data import datasets
    from evoae.experiment import Experiment, parse_settings
    from evoae.study.runs.fronts import DECIDED

    settings = parse_settings(options.words)
    for name in settings:
        if name in (*DECIDED, "dataset"):
            raise ValueError(
                f"setting {name} cannot be given: {DECIDED_BY.get(name, 'a front')} decides it"
            )
    trials = parse_trials(options.trials)
    datasets.check_there(options.dataset)
    experiment = Experiment.preset("frontier", dataset=options.dataset, **settings)

    from evoae.study.front import front as train_front
    from evoae.study.front import printed

    found = train_front(
        experiment,
        parse_sparsities(options.sparsities),
        options.steps,
        trials,
        options.seed,
        within=options.within,
        **where_of(options),
    )
    print(f"data: {experiment.data_summary.sentence}")
    print(printed(found))
    print(found.sentence)
    for name in ("front.csv", "front.png"):
        print(found.out / name)
    return 0


# which argument of a front says what a setting says of a run
DECIDED_BY = {"dataset": "DATASET", "target_sparsity": "--sparsities", "epochs": "--steps"}


def parse_sparsities(text: str) -> str | list[float]:
    """`auto`, or numbers separated by commas. Raises ValueError for anything else."""
    if text == "auto":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"sparsities={short(text)} must be auto, or numbers separated by commas such as 0.5,0.9"
        ) from None


def number(value: float) -> str:
    """Losses and shares with four digits, counts with one."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


# -- notebooks -----------------------------------------------------------------------------------


def reproduce(options: argparse.Namespace) -> int:
    """Execute notebooks, and print the paths of what they wrote."""
    from evoae.study.report import notebooks

    names = [word for word in options.words if "=" not in word] or notebooks.available()
    settings = [word for word in options.words if "=" in word]
    notebooks.plan(names, options.scale, options.out, options.workers, settings)

    from evoae.study.report import execution  # seconds, in which a wrong name would wait

    written, failures = execution.reproduce(
        names,
        options.scale,
        options.out,
        options.workers,
        settings,
        dask=options.dask,
        index=options.index,
        of=options.of,
    )
    return print_outcome(written, failures)


def report(options: argparse.Namespace) -> int:
    """Execute the report over a folder of runs."""
    if not os.path.isdir(options.out):
        raise ValueError(f"{display(options.out)} is not a folder; name one that holds runs")

    from evoae.study.report import execution
    from evoae.study.runs.study import collect

    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        collect(options.out)
    for warning in left_out:
        print(f"evoae: {warning.message}", file=sys.stderr)
    return print_outcome(*execution.reproduce([execution.REPORT], "paper", options.out))


# -- export --------------------------------------------------------------------------------------


def export(options: argparse.Namespace) -> int:
    """Write one autoencoder, compacted, and print its sizes and how far its outputs differ."""
    if not os.path.isdir(options.run):
        raise ValueError(f"{display(options.run)} is not a folder; name that of a run, DIR/HASH")

    from evoae.study.runs.exports import check_target, export
    from evoae.study.runs.run import Run

    check_target(options.file)
    done = export(Run(options.run), options.file, options.trial, options.cell)
    small = done.compacted
    print(f"trial {options.trial}, cell {done.cell}")
    print(f"{'parameters':26}{done.parameters:,}")
    print(f"{'compact parameters':26}{small.sizes['compact_parameters']:,}")
    print(f"{'multiply-accumulates':26}{small.sizes['macs']:,}")
    print(f"{'inputs used':26}{len(small.inputs):,}")
    difference = f"not compared: {done.reason}" if done.reason else f"{done.difference:.1e}"
    print(f"{'largest difference':26}{difference}")
    print(done.path)
    return 0


def print_outcome(written: Sequence[Path], failures: Mapping[str, Exception]) -> int:
    """Print what was written, and failures to stderr. Returns the exit code."""
    *files, index = written
    for path in files:
        if path.suffix == ".html":
            print(path)
    count = Counter(path.suffix for path in files)
    words = {".html": "page", ".png": "figure", ".csv": "table"}
    sizes = [f"{count[s]} {name}{'s' * (count[s] != 1)}" for s, name in words.items() if count[s]]
    if sizes:
        print(f"{', '.join(sizes)} in {display(index.parent)}")
    print(index)
    for name, error in failures.items():
        # papermill reports a traceback; it is in the executed notebook
        kind, said = getattr(error, "ename", None), getattr(error, "evalue", error)
        complain("failed", f"{name}: {one_line(f'{kind}: {said}' if kind else str(said))}")
    return 1 if failures else 0


# -- completion ----------------------------------------------------------------------------------

# `known` holds the words that may follow a command or an option, and a setting with its =.
BASH = """_evoae() {
    local word="${COMP_LINE:0:COMP_POINT}" words before="${COMP_WORDS[COMP_CWORD-1]}"
    word="${word##*[[:space:]]}"
    local -A known=(
%s
    )
    case "$word" in
        *=*) words="${known[${word%%%%=*}=]}" word="${word#*=}" ;;
        *) if ((COMP_CWORD == 1)); then words="${known[evoae]}"
           elif [[ $before == -* && ${known[$before]} ]]; then words="${known[$before]}"
           else words="${known[${COMP_WORDS[1]}]}"; fi ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _evoae evoae
"""


def completion(options: argparse.Namespace) -> int:
    """Print the script that completes commands, options, and names of every kind."""
    check_known(options.shell, ["bash"], f"unknown shell {short(options.shell)}")
    names = {kind: [each["name"] for each in entries] for kind, entries in catalogue().items()}
    commands = parser().commands
    known = {"evoae": list(commands)} | {n: p.option_names() for n, p in commands.items()}
    known["list"] += [name for found in names.values() for name in found if ".." not in name]
    known["run"] += [*names["presets"], *(f"{name}=" for name in names["settings"])]
    known["front"] += [*names["datasets"], *(f"{name}=" for name in names["settings"])]
    known["reproduce"] += names["notebooks"]
    known["completion"] += ["bash"]
    for each in catalogue()["settings"]:
        known[f"{each['name']}="] = values(each) or re.findall("true|false|columns", each["rule"])
    known |= {"--scale": ["smoke", "quick", "paper"], "--device": ["cpu", "cuda"]}
    known["--engine"] = [*ENGINES]
    for setting, kind in (("operator", "operators"), ("schedule", "schedules")):
        known[f"{setting}="] = [name for name in names[kind] if "..." not in name]
    known["model="] = [name for name in names["models"] if "..." not in name]
    known["dataset="] = [name for name in names["datasets"] if not name.startswith("FILE")]
    lines = [f"        [{word}]='{' '.join(words)}'" for word, words in known.items() if words]
    print(BASH % "\n".join(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
