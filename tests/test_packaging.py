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


PAGES = [ROOT / name for name in ("README.md", "notebooks/README.md", "evoae/README.md")]
PAGES += [ROOT / "tests" / "benchmarks" / "README.md", ROOT / "notebooks" / "RESULTS.md"]


def test_every_notebook_and_setting_in_a_command_of_the_pages_exists():
    from dataclasses import fields

    from evoae.experiment import Experiment
    from evoae.study.report import notebooks

    text = "\n".join(path.read_text() for path in PAGES)
    for name in re.findall(r"evoae reproduce (\w+)", text):
        assert name in notebooks.available()
    known = {field.name for field in fields(Experiment)}
    for line in re.findall(r"evoae run .*", text):
        for key in re.findall(r" (\w+)=", line):
            assert key in known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors


def test_the_readme_can_be_read_in_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


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
