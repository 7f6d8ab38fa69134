"""The command line: evoae list | run | reproduce | report | export.

What a command needs is imported when it runs: `--help` and `--version` answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import evoae
from evoae.messages import LONGEST, display, one_line, short, shortened
from evoae.rules import check_known
from evoae.study.runs.signals import Terminated, terminable

EXAMPLES = {
    "list": """examples:
  evoae list                       every name and setting, with a sentence each
  evoae list conjunctive           all about one of them
  evoae list --json > names.json""",
    "run": """examples:
  evoae run canonical operator=conjunctive schedule=exponential --trials 5 --out runs
  evoae run lipi-ae-s dataset=digits learning_rate=0.001 epochs=100 --trials 5:10 --out runs""",
    "reproduce": """examples:
  evoae reproduce --scale smoke --out out
  evoae reproduce 01_canonical_pruning trials=10 --scale paper --out out""",
    "report": """example:
  evoae report out""",
    "export": """examples:
  evoae export out/HASH --trial 0 small.onnx          the best cell of trial 0
  evoae export out/HASH --trial 3 --cell 2 small.safetensors""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns the exit code: 0, 1 (some of it failed), 2 (refused), 130 (Ctrl-C), 143 (SIGTERM).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    top = parser()
    try:
        if given and not given[0].startswith("-"):
            check_known(given[0], EXAMPLES, f"unknown command {short(given[0])}")
        options, rest = top.parse_known_args(given)
        words = getattr(options, "words", None)
        for word in rest:
            if word.startswith("-"):
                option, known = word.partition("=")[0], options.parser.option_names()
                check_known(option, known, f"unknown option {short(option)}")
            if words is None:
                raise ValueError(f"{short(word)} has no meaning here; --help tells more")
        options.words = [*(words or []), *rest]  # settings may stand after options, too
        with terminable(), warnings.catch_warnings():
            warnings.showwarning = tell_warning
            return options.command(options)
    except ValueError as error:
        print(f"evoae: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `evoae list | head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # a sweep's failures, a full disk, a lost worker, memory that others took meanwhile
    except (OSError, RuntimeError, MemoryError) as error:
        print(f"evoae: failed: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as ending:
        print("evoae: interrupted; the same command resumes", file=sys.stderr)
        return 143 if isinstance(ending, Terminated) else 130


def tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as all that is said here: on one line, without the line of code."""
    print(f"evoae: warning: {one_line(str(message))}", file=sys.stderr)


# what a message of argparse repeats whole
LONG = rf"'[^']{{{LONGEST},}}'|\S{{{LONGEST},}}"


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything here does; options are not abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the message, long words cut, and end with exit code 2."""
        words = re.sub(LONG, lambda found: shortened(found[0]), one_line(message))
        self.exit(2, f"evoae: error: {words} ({self.prog} --help tells more)\n")

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
        raise argparse.ArgumentTypeError(f"{short(text)} is no name of a folder")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(
        prog="evoae",
        description="Evolve and prune autoencoders while they train.",
        epilog="evoae COMMAND --help tells more, with examples.",
    )
    top.add_argument("--version", action="version", version=f"evoae {evoae.__version__}")
    commands = top.add_subparsers(required=True, metavar="list | run | reproduce | report | export")

    def command(name: str, function: Any, text: str) -> Parser:
        raw = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name, help=text, description=f"{text}.", epilog=EXAMPLES[name], formatter_class=raw
        )
        made.set_defaults(command=function, parser=made)
        return made

    listing = command("list", list_names, "what can be named: presets, settings, operators ...")
    listing.add_argument("name", nargs="?", metavar="NAME", help="tell all about one name")
    listing.add_argument("--json", action="store_true", help="for programs: one JSON object")

    running = command("run", run, "run one experiment, or resume it")
    running.add_argument("preset", metavar="PRESET", help="where the settings come from")
    running.add_argument(
        "words", nargs="*", metavar="key=value", help="settings that differ from the preset's"
    )
    running.add_argument(
        "--trials", default="1", metavar="N|A:B", help="how many, or a slice (default: 1)"
    )
    running.add_argument(
        "--seed", type=whole, default=1, metavar="S", help="of every random draw (default: 1)"
    )
    running.add_argument(
        "--device", default="cpu", metavar="cpu|cuda", help="where to train (default: cpu)"
    )
    running.add_argument(
        "--engine", default="auto", metavar="auto|fused|batched", help="the kernel or PyTorch alone"
    )

    doing = command("reproduce", reproduce, "execute notebooks by papermill")
    doing.add_argument(
        "words",
        nargs="*",
        metavar="NOTEBOOK | key=value",
        help="notebooks (all by default), and parameters for them",
    )
    doing.add_argument(
        "--scale", default="quick", metavar="smoke|quick|paper", help="how large (default: quick)"
    )
    doing.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, instead of workers")
    doing.add_argument(
        "--index", type=whole, default=0, metavar="I", help="which job of an array this is, from 0"
    )
    doing.add_argument("--of", type=whole, default=1, metavar="N", help="jobs in the array")

    telling = command("report", report, "compare a folder's runs with the paper")
    telling.add_argument("out", type=folder, metavar="DIR", help="the folder given to --out before")

    exporting = command(
        "export", export, "write an autoencoder of a run, really smaller, to a file"
    )
    exporting.add_argument("run", type=Path, metavar="DIR/HASH", help="the folder of a run")
    exporting.add_argument("file", type=Path, metavar="FILE.onnx|FILE.safetensors")
    exporting.add_argument(
        "--trial", type=int, default=0, metavar="T", help="of which trial (default: 0)"
    )
    exporting.add_argument(
        "--cell", type=int, metavar="C", help="of which cell (default: its best)"
    )

    for each in (running, doing):
        each.add_argument(
            "--out", type=folder, default=Path("out"), metavar="DIR", help="folder (default: out)"
        )
        each.add_argument(
            "--workers",
            type=whole,
            metavar="N",
            help="processes (default: one per core; one for what takes seconds, and on a GPU)",
        )
    try:
        import shtab  # tab completion, where the extra is installed
    except ImportError:
        return top
    shtab.add_argument_to(top, "--print-completion", help="print a shell's completion script")
    return top


# -- list ----------------------------------------------------------------------------------------


def list_names(options: argparse.Namespace) -> int:
    """Print every name with a sentence, or all about one, or everything as JSON."""
    known = catalogue()
    if options.name is not None:
        found = {
            kind: [each for each in entries if each["name"] == options.name]
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
        print(f"{kind} [default; as released | as intended]:" if kind == "settings" else f"{kind}:")
        for each in entries:
            default = ""
            if kind == "settings":
                values = each["readings"] or [each["default"]]
                default = f" [{' | '.join('-' if v is None else str(v) for v in values)}]"
            rule = f" ({each['rule']})" if kind == "settings" else ""
            print(f"  {each['name'] + default:34} {each['description']}{rule}")
            if options.name is not None:
                for key in each.keys() - {"name", "description"}:
                    print(f"    {key.replace('_', ' '):12} {each[key]}")
    sys.stdout.flush()
    return 0


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Every name that a setting or an argument may take: name, description, and what else."""
    from evoae.data import built_in, files
    from evoae.experiment import BY_READING, PRESETS, SETTINGS
    from evoae.networks import population
    from evoae.pruning import operators, schedules
    from evoae.pruning.registry import sentence
    from evoae.study.report import notebooks

    def entry(name: str, description: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "description": description, **more}

    readings = [
        entry(name, f"{released} as released, {intended} as the text means.")
        for name, (released, intended) in BY_READING["operator"].items()
    ]
    return {
        "presets": [entry(n, p.description, settings=p.settings) for n, p in PRESETS.items()],
        "operators": [
            *(entry(n, o.description) | o.abilities() for n, o in operators.OPERATORS.items()),
            *readings,
        ],
        "schedules": [
            entry(n, s.description, target=s.target) for n, s in schedules.SCHEDULES.items()
        ],
        "datasets": [
            *(entry(n, sentence(made)) for n, made in built_in.BUILT_IN.items()),
            *(entry(f"FILE{s}", f"{sentence(r)}") for s, r in files.SUFFIXES.items()),
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


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as settings in their types. ValueError for what cannot be one."""
    from evoae.experiment import SETTINGS, check_names

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{short(word)} is no setting; write key=value")
        if key in found:
            raise ValueError(f"setting {short(key)} is given twice")
        check_names({key: value})
        found[key] = SETTINGS[key].parse(value)
    return found


def parse_trials(text: str) -> range:
    """`5` is trials 0 to 4, `5:8` trials 5 to 7."""
    start, colon, stop = text.partition(":")
    if not colon:
        start, stop = "0", text
    numbers = re.fullmatch("[0-9]{1,12}", start) and re.fullmatch("[0-9]{1,12}", stop)
    if not numbers or int(start) >= int(stop):
        raise ValueError(f"trials={short(text)} must be a positive number N, or A:B with A < B")
    return range(int(start), int(stop))


def run(options: argparse.Namespace) -> int:
    """Run one experiment, and print the means of what came out."""
    from evoae.experiment import Experiment
    from evoae.study.analysis import inspection
    from evoae.study.runs import sweeps

    experiment = Experiment.preset(options.preset, **parse_settings(options.words))
    done = sweeps.run(
        experiment,
        parse_trials(options.trials),
        options.seed,
        out=options.out,
        device=options.device,
        engine=options.engine,
        workers=options.workers,
    )
    print(f"means over {len(done.trials)} trial(s)")
    for name, value in done.result["mean"].items():
        if name == "best_cell":  # a mean of cells' numbers says nothing
            continue
        print(f"{name:26}{'not finite' if value is None else number(value)}")
    speed = done.result["model_steps_per_second"]
    print(f"{'model steps per second':26}{speed:,.0f} ({done.result['engine']} engine)")
    if warning := inspection.ending(done):
        print(warning)
    print(done.folder)
    return 0


def number(value: float) -> str:
    """Losses and shares with four digits, counts with one."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


# -- notebooks -----------------------------------------------------------------------------------


def reproduce(options: argparse.Namespace) -> int:
    """Execute notebooks, and print the paths of what they wrote."""
    from evoae.study.report import execution, notebooks

    names = [word for word in options.words if "=" not in word]
    settings = [word for word in options.words if "=" in word]
    written, failures = execution.reproduce(
        names or notebooks.available(),
        options.scale,
        options.out,
        options.workers,
        settings,
        dask=options.dask,
        index=options.index,
        of=options.of,
    )
    return tell(written, failures)


def report(options: argparse.Namespace) -> int:
    """Execute the report over a folder of runs."""
    from evoae.study.report import execution
    from evoae.study.runs.study import collect

    if not os.path.isdir(options.out):
        raise ValueError(f"{display(options.out)} is no folder of runs")
    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        collect(options.out)
    for warning in left_out:
        print(f"evoae: {warning.message}", file=sys.stderr)
    return tell(*execution.reproduce([execution.REPORT], "paper", options.out))


# -- export --------------------------------------------------------------------------------------


def export(options: argparse.Namespace) -> int:
    """Write one autoencoder, compacted, and print its sizes and how far its outputs differ."""
    from evoae.study.runs.exports import check_target, export
    from evoae.study.runs.run import Run

    check_target(options.file)
    done = export(Run(options.run), options.file, options.trial, options.cell)
    small = done.compacted
    print(f"trial {options.trial}, cell {done.cell}")
    print(f"{'parameters':26}{done.parameters:,}")
    print(f"{'compact parameters':26}{small.sizes['compact_parameters']:,}")
    print(f"{'multiply-accumulates':26}{small.sizes['macs']:,}")
    print(f"{'inputs that are read':26}{len(small.inputs):,}")
    difference = f"not compared: {done.reason}" if done.reason else f"{done.difference:.1e}"
    print(f"{'largest difference, test':26}{difference}")
    print(done.path)
    return 0


def tell(written: Sequence[Path], failures: Mapping[str, Exception]) -> int:
    """Print paths, and failures to stderr. Returns the exit code."""
    for path in written:
        print(path)
    for name, error in failures.items():
        # of an error within a notebook papermill tells its traceback, which stands in the notebook
        kind, said = getattr(error, "ename", None), getattr(error, "evalue", error)
        message = one_line(f"{kind}: {said}" if kind else str(said))
        print(f"evoae: {name} failed: {message}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
