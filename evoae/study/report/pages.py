"""Executed notebooks as pages of their own, and an index over them.

A page asks no other for anything, prints well, and says what made it: the command, the parameters,
the machine, the versions, the time. Below its title stands what was found, how sure that is, and
one figure. All else is folded; on paper everything but large tables is unfolded.
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
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from evoae.study.report.contents import MIME, head
from evoae.study.report.notebooks import question_of, title_of

WIDGET = "application/vnd.jupyter.widget-view+json"
PACKAGES = ("evoae", "torch", "numpy", "scipy", "statsmodels", "pandas")
WARNINGS = {
    "smoke": "Smoke runs: they show that the software works. Nothing on this page is evidence.",
    "quick": "Quick runs are smaller and fewer than the paper's: enough for plots, too few to test "
    "a claim. Below six trials no interval is drawn and nothing is tested.",
}
# the page, or with `entries` the index; what is not HTML already is escaped
LOADER = FileSystemLoader(Path(__file__).parent)
TEMPLATE = Environment(autoescape=True, trim_blocks=True, loader=LOADER).get_template("page.html")


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
    """The page of an executed notebook, without code: its question, its answer and one figure.

    All else is folded, a section each. Its metadata say, under `evoae`, at which `scale` it was
    executed, and which `picture` is the one figure.
    """
    about, warning = notebook.metadata.evoae, warning_of(notebook)
    ran = notebook.metadata.get("papermill", {})
    notebook = nbformat.from_dict({**notebook, "metadata": {}})  # no widgets: they need scripts
    for one in (c for c in notebook.cells if c.cell_type == "code"):
        ours = (o for o in one.outputs if WIDGET not in o.get("data", {}))
        one.outputs = [output for output in ours if "tqdm" not in str(output.get("text", ""))]
    title, question, answer = title_of(notebook), question_of(notebook), ""
    if found := answer_of(notebook):
        number, data = found
        answer = data["text/html"]
        # it stands below the title, and leaves its place with the heading before it
        headed = number > 1 and notebook.cells[number - 1].source.startswith("## Answer")
        del notebook.cells[number - headed : number + 1]
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_output_prompt=True, embed_images=True
    )
    figure = lead(notebook, about.get("picture", ""))
    sections = []
    for heading, cells in sections_of(notebook, question):
        body = exporter.from_notebook_node(new_notebook(cells=cells))[0].strip()
        words = markdown2html(heading).strip().removeprefix("<p>").removesuffix("</p>")
        sections.append({"heading": words, "body": body})
    return TEMPLATE.render(
        title=title,
        question=question,
        answer=answer,
        warning=warning,
        figure=figure,
        sections=sections,
        **made_by(name, about.scale, ran),
    )


def shown_as(notebook: NotebookNode, picture: str) -> NotebookNode | None:
    """The output that shows the figure of that name."""
    begins = f'<figure id="figure-{picture}"'
    shown = (data for _, data in outputs_of(notebook) if data["text/html"].startswith(begins))
    return next(shown, None)


def lead(notebook: NotebookNode, picture: str) -> str:
    """The figure of that name, which is to stand first; in its place a link to it is left."""
    data = shown_as(notebook, picture)
    if data is None:
        return ""
    figure, number = data["text/html"], data[MIME]["text"].partition(".")[0]
    link = f'<a href="#figure-{picture}">{number}</a>'
    data["text/html"] = f"<p>{link} is at the top of the page.</p>"
    return figure


def sections_of(notebook: NotebookNode, question: str) -> list[tuple[str, list[NotebookNode]]]:
    """The headings of a notebook, and the cells below each; first what follows the question."""
    first, *others = notebook.cells
    text = " ".join(first.source.partition("\n\n")[2].splitlines())
    intro = first.source.partition("\n\n")[2][len(question) :] if question in text else text
    sections = [("What was done", [new_markdown_cell(intro.strip())])]
    for one in others:
        if one.cell_type == "markdown" and one.source.startswith("## "):
            heading, _, below = one.source.removeprefix("## ").partition("\n")
            sections.append((heading, [new_markdown_cell(below.strip())]))
        else:
            sections[-1][1].append(one)
    return [section for section in sections if any(map(shows, section[1]))]


def shows(cell: NotebookNode) -> bool:
    """Whether a cell leaves anything on a page."""
    return bool(cell.source if cell.cell_type == "markdown" else cell.get("outputs"))


def made_by(name: str, scale: str, ran: Mapping[str, Any]) -> dict[str, Any]:
    """What made a page: command, time, machine, versions, parameters."""
    again = "evoae report out" if name == "report" else f"evoae reproduce {name} --scale {scale}"
    parameters = ran.get("parameters", {}).items()
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    return {
        "command": again,
        "seconds": ran.get("duration"),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "parameters": " ".join(f"{key}={value}" for key, value in parameters if key != "out"),
    }


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def index_of(folder: Path, order: Sequence[str]) -> str:
    """The page over all pages in a folder: the question, the answer and a picture of each.

    `order` are the notebooks that may be there.
    """
    entries = []
    for name in order:
        executed = folder / f"{name}.ipynb"
        if not (executed.exists() and (folder / f"{name}.html").exists()):
            continue
        notebook = nbformat.read(executed, 4)
        about, title, found = notebook.metadata.evoae, title_of(notebook), answer_of(notebook)
        picture = about.get("picture", "")
        file, shown = f"figures/{name}-{picture}.png", shown_as(notebook, picture)
        entries.append(
            {
                "name": name,
                "title": title.partition(":")[0],
                "question": question_of(notebook),
                "picture": file if (folder / file).exists() else "",
                "alt": shown[MIME]["text"] if shown else title,
                "warning": warning_of(notebook),
                "scale": about.get("scale"),
                "said": head(found[1][MIME]["text"])[0] if found else "",
            }
        )
    warnings = {entry["warning"] for entry in entries}
    alike = len(warnings) == 1  # then it is said once, above them
    warning = warnings.pop() if alike else ""
    return TEMPLATE.render(title="evoae: the study", entries=entries, alike=alike, warning=warning)
