"""The notebooks: where they are, their parameters and the questions that they ask.

Apart from what executes notebooks and makes their pages, which takes seconds to load.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evoae
from evoae.messages import short
from evoae.rules import check_known

MAY_BE_ZERO = ("seed", "workers")
SCALES = ("smoke", "quick", "paper")


def folder() -> Path:
    """Where the notebooks are: in the installed package, or beside it in a checkout."""
    package = Path(evoae.__file__).parent
    installed = package / "_notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def available() -> list[str]:
    """Names of the notebooks that `reproduce` executes."""
    paths = sorted(folder().glob("*.ipynb"))
    return [path.stem for path in paths if "evoae" in read(path.stem)["metadata"]]


def read(name: str) -> dict[str, Any]:
    """The notebook as it lies in the package."""
    return json.loads((folder() / f"{name}.ipynb").read_text(encoding="utf-8"))


def source_of(cell: Mapping[str, Any]) -> str:
    """A cell's text, which files hold as lines."""
    return "".join(cell["source"])


def title_of(notebook: Mapping[str, Any]) -> str:
    """The notebook's first heading."""
    return source_of(notebook["cells"][0]).splitlines()[0].lstrip("# ").strip()


def question_of(notebook: Mapping[str, Any]) -> str:
    """What a notebook asks: the first sentence below its title."""
    text = source_of(notebook["cells"][0]).partition("\n\n")[2].replace("\n", " ")
    return re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]


def defaults(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and their default values, read from the cell tagged `parameters`."""
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    return assigned("\n".join(map(source_of, tagged)))


def assigned(source: str) -> dict[str, Any]:
    """The names and values that a cell of parameters assigns."""
    return {
        target.id: ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def check_injected(name: str) -> None:
    """Check the parameters that papermill gave to the notebook in which this runs."""
    from IPython import get_ipython  # it takes a moment to load

    ran = get_ipython().user_ns["In"] if get_ipython() else []
    given = [source for source in ran if source.startswith(("# Parameters\n", "# Parameters "))]
    known = defaults(read(name))
    for key, value in assigned("\n".join(given)).items():
        check_parameter(name, known, key, value)


def check_parameter(name: str, known: dict[str, Any], key: str, value: Any) -> None:
    """Raise ValueError unless the notebook has the parameter, of that type and large enough."""
    check_known(key, known, f"{name} has no parameter {short(key)}")
    kind = type(known[key])
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{name}: {key}={short(value)} must be of type {kind.__name__}")
    least = 0 if key in MAY_BE_ZERO else 1
    if kind is int and value < least:
        raise ValueError(f"{name}: {key}={short(value)} must be at least {least}")


def parse_parameters(name: str, known: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words with the types of the notebook's defaults. ValueError otherwise."""
    found = {}
    for word in words:
        key, _, text = word.partition("=")
        kind: type = type(known.get(key))
        value: Any = text
        if kind is not str:
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                value = ast.literal_eval(text.capitalize() if kind is bool else text)
        check_parameter(name, known, key, value)
        found[key] = kind(value)
    return found


def plan(
    names: Sequence[str], scale: str, out: Path, workers: int | None, words: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The parameters of every named notebook. ValueError for anything unknown or mistyped."""
    check_known(scale, SCALES, f"unknown scale {short(scale)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    plans = {}
    for name in names:
        name = Path(name).stem
        check_known(name, available(), f"unknown notebook {short(name)}")
        notebook = read(name)
        known = defaults(notebook)
        plans[name] = {"out": str(out.absolute()), **notebook["metadata"]["evoae"]["scales"][scale]}
        if workers is not None and "workers" in known:
            plans[name]["workers"] = workers
        unknown = set(plans[name]) - set(known)
        if unknown:
            raise ValueError(f"{name}: scale {scale} sets unknown parameters {sorted(unknown)}")
        plans[name] |= parse_parameters(name, known, words)
    return plans
