"""The plan of the house: imports go down only, and the recipes for additions work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
RECIPES = [(ROOT / name / "README.md").read_text() for name in ("evoae", "notebooks")]


def lint(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its plan, to be changed."""
    shutil.copytree(
        ROOT / "evoae", tmp_path / "evoae", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_down_the_house_only() -> None:
    assert lint_imports(str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize(
    ("module", "upward"),
    [
        ("networks/population.py", "from evoae.study.runs.run import Run"),
        ("pruning/schedules.py", "from evoae import experiment"),
        ("data/files.py", "from evoae.data import datasets"),  # inside a room, too
    ],
)
def test_an_upward_import_is_found(copy: Path, module: str, upward: str) -> None:
    path = copy / "evoae" / module
    path.write_text(path.read_text() + f"\n\ndef late():\n    {upward}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_a_new_module_must_be_given_its_floor(copy: Path) -> None:
    (copy / "evoae" / "attic.py").write_text('"""Nobody said where this belongs."""\n')
    assert lint(copy).returncode == 1


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("evoae", "torch pandas"),
        ("evoae.study.report.contents", "torch papermill nbformat nbconvert seaborn"),
        ("evoae.study.report.notebooks", "torch papermill nbformat nbconvert seaborn"),
        ("evoae.study.runs.workers", "seaborn matplotlib papermill scipy.stats"),
    ],
)
def test_what_begins_often_loads_little(module: str, unwanted: str, tmp_path: Path) -> None:
    """`evoae list`, a notebook's kernel, a worker: each of these takes a second and more."""
    loaded = run(f"import sys, {module}; print(*sys.modules)", tmp_path).split()
    assert module in loaded
    assert not set(unwanted.split()) & set(loaded)


def recipe(title: str) -> str:
    """The Python block below a heading of the pages for those who extend evoae."""
    (after,) = [text.split(f"## {title}\n")[1] for text in RECIPES if f"## {title}\n" in text]
    return re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def added(path: Path, registry: str, title: str) -> str:
    """Follow a recipe: its function before the registry, its row as the first. Returns the name."""
    function, entry = recipe(title).split(f"# in {registry}:\n")
    text = path.read_text()
    at = re.search(rf"^{registry}: .*?\{{\n", text, re.DOTALL | re.MULTILINE)
    row = f"    {entry.strip()}\n"
    path.write_text(f"{text[: at.start()]}{function}\n\n{at[0]}{row}{text[at.end() :]}")
    return entry.split('"')[1]


def test_an_operator_is_added_as_its_recipe_says(copy: Path) -> None:
    name = added(copy / "evoae/pruning/operators.py", "OPERATORS", "Add an operator")
    code = (
        "from evoae import Experiment, evolve\n"
        f"e = Experiment.preset('canonical', operator={name!r}, schedule='fixed', probability=1.0,"
        " amount=0.25, clusters=2, bits=20, examples=4, epochs=2)\n"
        "for state in evolve(e): pass\n"
        "print(int(state.population.encoder.zeros()[0]) > 0)\n"
        f"from evoae import cli; cli.main(['list', {name!r}])\n"
    )
    printed = run(code, copy)
    assert printed.startswith("True\n")
    assert name in printed


def test_a_schedule_is_added_as_its_recipe_says(copy: Path) -> None:
    name = added(copy / "evoae/pruning/schedules.py", "SCHEDULES", "Add a schedule")
    code = (
        "from evoae import Experiment\n"
        f"e = Experiment.preset('canonical', operator='random', schedule={name!r}, epochs=40)\n"
        "print([t for t in range(40) if e.pruning_at(t)])\n"
    )
    assert run(code, copy).strip() not in ("[]", str(list(range(40))))


def test_a_data_format_is_added_as_its_recipe_says(copy: Path) -> None:
    suffix = added(copy / "evoae/data/files.py", "ARRAYS", "Add a data format")
    (copy / f"images{suffix}").write_bytes(bytes(range(64)) * 20)
    code = (
        "from evoae import Experiment, evolve\n"
        f"e = Experiment.preset('canonical', dataset='images{suffix}', epochs=1)\n"
        "print([tuple(state.data[0].train.shape) for state in evolve(e)])\n"
    )
    assert run(code, copy).strip() == "[(14, 64)]"


def test_a_notebook_is_added_as_its_recipe_says(copy: Path) -> None:
    folder = copy / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("out"))
    exec(recipe("Add a notebook"), {"folder": folder})
    words = "reproduce 14_mine --scale smoke --workers 1 operators=random".split()
    code = f"import sys\nfrom evoae import cli\nsys.exit(cli.main({words}))"
    assert "14_mine.html" in run(code, copy)


def test_tests_of_a_file_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    """With releases of pytest and pytest-xdist that do not fit, they are scattered in silence."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@tests/test_house.py")
