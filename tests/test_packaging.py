"""The package around the code: one list of dependencies, a README that tells the truth."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from evoae.networks import kernel

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

    from evoae.experiment import Experiment
    from evoae.study.report import notebooks

    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"evoae reproduce (\w+)", text):
        assert name in notebooks.available()
    known = {field.name for field in fields(Experiment)}
    for line in re.findall(r"evoae run .*", text):
        for key in re.findall(r" (\w+)=", line):
            assert key in known


def test_the_loop_of_the_readme_runs_as_it_stands(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (example,) = (block for block in blocks if "Pruner" in block)
    assert len([line for line in example.splitlines() if line]) <= 12
    (tmp_path / "mine.py").write_text(example)
    command = [sys.executable, "mine.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines() if " all " in line]
    assert said[0][1:4] == ["all", "305", "244"]  # parameters, zeros: 80 %
    assert "Conv2d(1, " in done.stdout
    assert "Conv2d(1, 16" not in done.stdout


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
        *(f"evoae/networks/{name}" for name in kernel.SOURCES),
        "evoae/study/analysis/published_results.csv",
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
