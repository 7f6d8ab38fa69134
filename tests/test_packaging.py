"""The package around the code: one list of dependencies, a README that tells the truth."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_adds_nothing_to_the_dependencies_of_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert plain == [f"python{PROJECT['requires-python']}", "pip", "c-compiler"]
    (by_pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    (package,) = by_pip
    extras = re.fullmatch(r"-e \.\[(\w+(?:,\w+)*)\]", package)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_readme_has_the_two_commands_and_ci_runs_the_second():
    commands = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "-m venv .venv" in line
    ]
    assert len(commands) == 2
    assert "evoae reproduce 00_tour" in commands[0]
    assert "python -m pytest" in commands[1]
    assert "python -m pytest" in (ROOT / ".ci" / "run").read_text()


def test_every_notebook_and_setting_that_the_readme_names_exists():
    from dataclasses import fields

    from evoae import notebooks
    from evoae.experiment import Experiment

    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"evoae reproduce (\w+)", text):
        assert name in notebooks.available()
    known = {field.name for field in fields(Experiment)}
    for line in re.findall(r"evoae run .*", text):
        for key in re.findall(r" (\w+)=", line):
            assert key in known


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", str(ROOT), "-w", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_notebooks_kernel_and_published_results(wheel):
    names = set(wheel.namelist())
    notebooks = {f"evoae/_notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks
    assert names >= notebooks | {
        "evoae/networks/kernel.c",
        "evoae/analysis/published_results.csv",
        "evoae/cli.py",
    }


def test_code_is_formatted_and_clean():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "evoae", "tests"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
