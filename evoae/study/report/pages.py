"""Executed notebooks as pages of their own, and an index over them.

A page asks no other for anything, prints well, and says what made it: the command, the parameters,
the machine, the versions, the time. Below its title stands what was found, and how sure that is.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from evoae.study.report.contents import MIME
from evoae.study.report.notebooks import question_of, title_of

WIDGET = "application/vnd.jupyter.widget-view+json"
PACKAGES = ("evoae", "torch", "numpy", "scipy", "statsmodels", "pandas")
WARNINGS = {
    "smoke": "Smoke runs: they show that the software works. Nothing on this page is evidence.",
    "quick": "Quick runs are smaller and fewer than the paper's: enough for plots, too few to test "
    "a claim. Below six trials no interval is drawn and nothing is tested.",
}


def rendered(**fields: Any) -> str:
    """The page, or with `cards` the index; what is not HTML already is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(autoescape=True, trim_blocks=True, loader=loader)
    return environment.get_template("page.html").render(**fields)


def answer_of(notebook: NotebookNode) -> tuple[int, NotebookNode] | None:
    """The cell of an executed notebook that shows its answer (its number), and that output."""
    for number, data in outputs_of(notebook):
        if data[MIME]["kind"] == "answer":
            return number, data
    return None


def outputs_of(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """What a report has put into an executed notebook, with the numbers of the cells."""
    for number, one in enumerate(notebook.cells):
        for output in one.get("outputs", []):
            if MIME in output.get("data", {}):
                yield number, output.data


def warning_of(notebook: NotebookNode) -> str:
    """What a page must say of its scale; nothing if it shows full-size results."""
    about = notebook.metadata.get("evoae", {})
    return "" if about.get("full_size") else WARNINGS.get(about.get("scale"), "")


def page_of(notebook: NotebookNode, name: str) -> str:
    """The page of an executed notebook: its answer, its prose and what it shows, without code.

    Its metadata say, under `evoae.scale`, at which scale it was executed.
    """
    scale, warning = notebook.metadata.evoae.scale, warning_of(notebook)
    ran = notebook.metadata.get("papermill", {})
    notebook = nbformat.from_dict({**notebook, "metadata": {}})  # no widgets: they need scripts
    for one in (c for c in notebook.cells if c.cell_type == "code"):
        ours = (o for o in one.outputs if WIDGET not in o.get("data", {}))
        one.outputs = [output for output in ours if "tqdm" not in str(output.get("text", ""))]
    answer = ""
    if found := answer_of(notebook):
        number, data = found
        answer = data["text/html"]
        # it stands below the title, and leaves its place with the heading before it
        headed = number > 1 and notebook.cells[number - 1].source.startswith("## Answer")
        del notebook.cells[number - headed : number + 1]
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_output_prompt=True,
        config=Config({"HTMLExporter": {"embed_images": True}}),
    )
    heading, end, body = exporter.from_notebook_node(notebook)[0].partition("</h1>")
    return rendered(
        title=title_of(notebook),
        heading=heading + end,
        answer=answer,
        warning=warning,
        body=body,
        **made_by(name, scale, ran),
    )


def made_by(name: str, scale: str, ran: Mapping[str, Any]) -> dict[str, Any]:
    """What made a page: command, time, machine, versions, parameters."""
    parameters = dict(ran.get("parameters", {}))
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    known = ", ".join([f"Python {platform.python_version()}", *versions])
    return {
        "command": "evoae report out"
        if name == "report"
        else f"evoae reproduce {name} --scale {scale}",
        "seconds": ran.get("duration"),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": known,
        "parameters": " ".join(f"{k}={v}" for k, v in parameters.items() if k != "out"),
    }


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def index_of(folder: Path, order: Sequence[str], pictures: Mapping[str, str]) -> str:
    """The page over all pages in a folder: a picture, the question and the answer of each.

    `order` are the notebooks that may be there, `pictures` the names of their figures to show.
    """
    cards, warnings = [], []
    for name in order:
        executed = folder / f"{name}.ipynb"
        if not (executed.exists() and (folder / f"{name}.html").exists()):
            continue
        notebook = nbformat.read(executed, 4)
        picture = f"figures/{name}-{pictures.get(name)}.png"
        anchor = f'id="figure-{pictures.get(name)}"'
        titles = [d[MIME]["text"] for _, d in outputs_of(notebook) if anchor in d["text/html"]]
        warnings.append(warning_of(notebook))
        found = answer_of(notebook)
        scale = notebook.metadata.get("evoae", {}).get("scale")
        cards.append(
            {
                "name": name,
                "title": title_of(notebook).partition(":")[0],
                "question": question_of(notebook),
                "picture": picture if (folder / picture).exists() else "",
                "alt": titles[0] if titles else title_of(notebook),
                "warning": f"{scale}: no evidence" if warnings[-1] else "",
                "said": found[1][MIME]["text"] if found else "",
            }
        )
    alike = len(set(warnings)) == 1  # then it is said once, above the cards
    for card in cards if alike else []:
        card["warning"] = ""
    return rendered(title="evoae: the study", cards=cards, warning=warnings[0] if alike else "")
