"""The command line: evoae list | run | reproduce | report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from evoae import notebooks
from evoae.data import datasets, files
from evoae.experiment import CHOICES, PRESETS, Experiment, check_names
from evoae.networks import population, training
from evoae.pruning import operators, schedules
from evoae.runs import sweeps
from evoae.runs.study import collect


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 (some of it failed), 2 (refused), 130 (Ctrl-C)."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    words = getattr(options, "words", None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    options.words = [*(words or []), *rest]  # settings may stand after options, too
    try:
        return options.command(options)
    except ValueError as error:
        print(f"evoae: error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:  # a sweep's failures, a full disk, a lost worker
        print(f"evoae: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evoae: interrupted; the same command resumes", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="evoae", description="Evolve and prune autoencoders.")
    commands = top.add_subparsers(required=True, metavar="list | run | reproduce | report")

    listing = commands.add_parser("list", help="what can be named")
    listing.set_defaults(command=list_names)

    running = commands.add_parser("run", help="run one experiment, or resume it")
    running.set_defaults(command=run)
    running.add_argument("preset", metavar="PRESET", help=", ".join(PRESETS))
    running.add_argument("words", nargs="*", metavar="key=value", help="any field of Experiment")
    running.add_argument("--trials", default="1", metavar="N|A:B", help="how many, or a slice")
    running.add_argument("--seed", type=int, default=1, metavar="S")
    running.add_argument("--device", default="cpu", metavar="cpu|cuda")
    running.add_argument("--engine", default="auto", choices=training.ENGINES)

    doing = commands.add_parser("reproduce", help="execute notebooks by papermill")
    doing.set_defaults(command=reproduce)
    doing.add_argument(
        "words", nargs="*", metavar="NOTEBOOK | key=value", help="all notebooks by default"
    )
    doing.add_argument("--scale", default="quick", metavar="|".join(notebooks.SCALES))

    doing.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, instead of workers")
    doing.add_argument("--index", type=int, default=0, metavar="I", help="of a job array")
    doing.add_argument("--of", type=int, default=1, metavar="N", help="jobs in the array")

    telling = commands.add_parser("report", help="compare a folder's runs with the paper")
    telling.set_defaults(command=report)
    telling.add_argument("out", type=Path, metavar="DIR")

    for command in (running, doing):
        command.add_argument("--out", type=Path, default=Path("out"), metavar="DIR")
        command.add_argument("--workers", type=int, metavar="N", help="processes; all cores")
    return top


def list_names(options: argparse.Namespace) -> int:
    """Print every name that a setting or an argument may take."""
    kinds: dict[str, Any] = {
        "presets": PRESETS,
        "operators": [*operators.names(), "variance (high as released, low as intended)"],
        "schedules": schedules.names(),
        "datasets": [*datasets.BUILT_IN, *(f"FILE{suffix}" for suffix in files.SUFFIXES)],
        "models": [*population.MODELS, "widths such as 50-20-5"],
        "notebooks": notebooks.available(),
    }
    for kind, names in (kinds | CHOICES).items():
        print(f"{kind + ':':22}{', '.join(names)}")
    defaults = Experiment()
    print("settings (default of the canonical preset):")
    for field in fields(Experiment):
        print(f"  {field.name} = {getattr(defaults, field.name)}")
    return 0


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as settings of the fields' types. ValueError for what cannot be one."""
    types = {field.name: str(field.type).split(" | ")[0] for field in fields(Experiment)}
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is no setting; write key=value")
        if key in found:
            raise ValueError(f"setting {key!r} is given twice")
        found[key] = parse_value(key, value, types.get(key, "str"))
    return found


def parse_value(key: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{key}={text!r} must be true or false")
        return text.lower() == "true"
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            rule = "a whole number" if kind == "int" else "a number"
            raise ValueError(f"{key}={text!r} must be {rule}") from None
    return text


def parse_trials(text: str) -> range:
    """`5` is trials 0 to 4, `5:8` trials 5 to 7."""
    start, colon, stop = text.partition(":")
    if not colon:
        start, stop = "0", text
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ValueError(f"trials={text!r} must be a positive number N, or A:B with A < B")
    return range(int(start), int(stop))


def run(options: argparse.Namespace) -> int:
    settings = parse_settings(options.words)
    check_names(settings)
    experiment = Experiment.preset(options.preset, **settings)
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
        print(f"{name:26}" + ("not finite" if value is None else f"{value:.4f}"))
    speed = done.result["model_steps_per_second"]
    print(f"{'model steps per second':26}{speed:,.0f} ({done.result['engine']} engine)")
    print(done.folder)
    return 0


def reproduce(options: argparse.Namespace) -> int:
    names = [word for word in options.words if "=" not in word]
    settings = [word for word in options.words if "=" in word]
    written, failures = notebooks.reproduce(
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
    if not options.out.is_dir():
        raise ValueError(f"{options.out} is no folder of runs")
    collect(options.out)
    return tell(*notebooks.reproduce([notebooks.REPORT], "paper", options.out))


def tell(written: Sequence[Path], failures: Mapping[str, Exception]) -> int:
    for path in written:
        print(path)
    for name, error in failures.items():
        print(f"evoae: {name} failed: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
