"""The package around the code: one list of dependencies, a README that tells the truth."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from evoae.networks import kernel

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


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
    assert said[0][1:4] == ["all", "305", "247"]  # parameters, zeros: 13 units of 19, 81 %
    assert "Conv2d(1, " in done.stdout
    assert "Conv2d(1, 16" not in done.stdout


def test_the_first_example_of_the_readme_is_the_estimator():
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(example.splitlines()) <= 5
    names: dict = {}
    exec(example.replace("random_state=1", "random_state=1, epochs=2"), names)
    assert names["model"].sparsity_ == pytest.approx(0.9, abs=1e-3)
    assert names["codes"].shape == (1797, 10)
    assert names["rows"].shape == names["X"].shape


def test_every_folder_and_file_of_the_package_is_packed():
    """As `.ci/run` finds in a built wheel, but at once."""
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "evoae").rglob("__init__.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(packed["packages"]) == names | {"evoae._notebooks"}
    assert packed["package-dir"] == {"evoae": "evoae", "evoae._notebooks": "notebooks"}
    places = {name: ROOT.joinpath(*name.split(".")) for name in names}
    places["evoae._notebooks"] = ROOT / "notebooks"
    for name, folder in places.items():
        files = {path for path in folder.iterdir() if path.is_file()}
        patterns = ["*.py", "*.pyc", "*.md", *packed["package-data"].get(name, ())]
        assert files == {path for pattern in patterns for path in folder.glob(pattern)} & files
    assert kernel.SOURCES
    assert all((ROOT / "evoae" / "networks" / name).is_file() for name in kernel.SOURCES)


def extras(command: str) -> set[str]:
    return set(re.search(r"\.\[([\w,]+)\]", command)[1].split(","))


def test_the_workflow_tries_what_the_package_says_it_runs_on():
    """Oldest and newest Python on three systems, and the extras of README's command."""
    tests = workflow("tests")
    job = tests["jobs"]["tests"]
    assert set(job["strategy"]["matrix"]["os"]) == {
        "ubuntu-latest", "macos-latest", "windows-latest",
    }  # fmt: skip
    oldest, newest = job["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert [int(each.split(".")[0]) for each in (oldest, newest)] == [3, 3]
    assert int(newest.split(".")[1]) > int(oldest.split(".")[1])
    ran = [step["run"] for step in job["steps"] if "run" in step]
    assert ran[0] == ".ci/run"
    assert ran[2] == "python -m pytest"
    readme = next(line for line in README.splitlines() if "python -m pytest" in line)
    assert extras(ran[1]) == extras(readme)
    # anndata holds pandas below 3, and its tests are skipped without it; no test needs "bench"
    assert set(PROJECT["optional-dependencies"]) - extras(readme) == {"bio", "bench"}


def test_a_tag_is_built_checked_and_published_without_a_password():
    release = workflow("release")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads the word `on` as true
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    ran = "\n".join(step.get("run", "") for step in build["steps"])
    for word in ("python -m build", "twine check --strict", ".ci/contents.py", "tag"):
        assert word in ran + str(release[True])
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    assert "password" not in str(release)
    for name in ("tests", "release"):
        for job in workflow(name)["jobs"].values():
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step)
                assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[\w./-]+", step["uses"])


def test_before_a_commit_and_in_ci_the_same_tools_run():
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repository["hooks"]
    ]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "nbstripout"}
    tools = {re.match("[a-z-]+", each)[0] for each in PROJECT["optional-dependencies"]["test"]}
    ci = (ROOT / ".ci" / "run").read_text()
    for hook in hooks:
        tool = re.fullmatch(r"python -m (\w+).*", hook["entry"])[1]
        assert tool in tools
        assert f"$python -m {tool}" in ci
    assert "--keep-id" in str(hooks)


def test_only_ci_has_an_upper_bound_of_torch():
    """A bound in pyproject would make pip downgrade a user's."""
    (torch,) = (each for each in PROJECT["dependencies"] if each.startswith("torch"))
    assert "<" not in torch
    constraints = (ROOT / ".ci" / "constraints.txt").read_text()
    assert re.fullmatch(r"torch<[\d.]+\n", constraints)
    assert 'PIP_CONSTRAINT="$PWD/.ci/constraints.txt"' in (ROOT / ".ci" / "run").read_text()
