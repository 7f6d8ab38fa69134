"""Executed notebooks as pages of their own, and an index over them.

A page asks no other for anything, prints well, and says what made it: the command, the parameters,
the machine, the versions, the time.
"""

from __future__ import annotations

import html
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from evoae.study.report.contents import SHOWN
from evoae.study.report.notebooks import question_of, title_of

WIDGET = "application/vnd.jupyter.widget-view+json"
PACKAGES = ("evoae", "torch", "numpy", "scipy", "statsmodels", "pandas")
WARNINGS = {
    "smoke": "Smoke runs: they show that the software works. Nothing on this page is evidence.",
    "quick": "Quick runs, smaller and fewer than the paper's: they show orderings and are no "
    "evidence. Below six trials no interval is drawn and nothing is tested.",
}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 960px; margin: 0 auto;
  padding: 12px 24px 40px; }
h1 { font-size: 24px; margin: 8px 0; } h2 { font-size: 19px; margin: 28px 0 6px; }
p { margin: 8px 0; } a { color: #0B5394; } a.anchor-link { display: none; }
.warning { background: #FFF0E0; border-left: 5px solid #D55E00; padding: 8px 12px; }
.answer { background: #EEF4FA; border-left: 5px solid #0072B2; padding: 8px 12px; }
.findings { padding-left: 26px; margin: 6px 0; } .findings li { margin: 3px 0; font-size: 14px; }
figure { margin: 14px 0; } figure img { max-width: 100%; } figcaption { font-size: 14px; }
table { border-collapse: collapse; font-size: 12.5px; } .scroll { overflow-x: auto; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #E5E5E5; }
td.text, th.text { text-align: left; } summary { cursor: pointer; font-size: 14px; }
details { margin: 8px 0; } pre { font-size: 12px; overflow-x: auto; background: #F6F6F6;
  padding: 8px; } footer { border-top: 1px solid #CCC; margin-top: 32px; font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
.card { border: 1px solid #DDD; padding: 6px 8px; font-size: 11px; line-height: 1.3; }
.card img { width: 100%; height: 80px; object-fit: contain; }
.card h2 { font-size: 13px; margin: 2px 0; } .card p { margin: 3px 0; }
.card .said { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4;
  overflow: hidden; } .card .warning { padding: 0 5px; border-width: 3px; }
body.index { max-width: 1080px; padding: 4px 10px; } .index h1 { font-size: 20px; margin: 4px 0; }
@media print { .card .said { display: block; } body { max-width: none; padding: 0;
  font-size: 11pt; } h2 { break-after: avoid; } figure, .card, .answer, li { break-inside: avoid; }
  figure img { max-height: 21cm; } a { color: inherit; text-decoration: none; } }
@page { size: A4; margin: 15mm; }
"""


def whole(title: str, body: str, kind: str = "page") -> str:
    """A complete page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body class="{kind}">\n{body}\n</body></html>\n'
    )


def answer_of(notebook: NotebookNode) -> str:
    """What an executed notebook answers, in HTML; empty if it does not say."""
    for one in notebook.cells:
        for output in one.get("outputs", []):
            if output.get("data", {}).get(SHOWN, {}).get("kind") == "answer":
                return output.data[SHOWN]["text"]
    return ""


def warning_of(notebook: NotebookNode) -> str:
    """What a page must say of its scale; nothing if it shows full-size results."""
    about = notebook.metadata.get("evoae", {})
    return "" if about.get("full_size") else WARNINGS.get(about.get("scale"), "")


def page_of(notebook: NotebookNode, name: str) -> str:
    """The page of an executed notebook: its prose and what it shows, without code.

    Its metadata say, under `evoae.scale`, at which scale it was executed.
    """
    scale, warning = notebook.metadata.evoae.scale, warning_of(notebook)
    ran = notebook.metadata.get("papermill", {})
    notebook = nbformat.from_dict({**notebook, "metadata": {}})  # no widgets: they need scripts
    for one in (c for c in notebook.cells if c.cell_type == "code"):
        kept = (o for o in one.outputs if WIDGET not in o.get("data", {}))
        one.outputs = [output for output in kept if "tqdm" not in str(output.get("text", ""))]
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_output_prompt=True,
        config=Config({"HTMLExporter": {"embed_images": True}}),
    )
    body = exporter.from_notebook_node(notebook)[0]
    if warning:
        heading = re.search(r"</h1>", body)
        at = heading.end() if heading else 0
        body = f'{body[:at]}\n<p class="warning">{warning}</p>{body[at:]}'
    return whole(title_of(notebook), body + made_by(name, scale, ran))


def made_by(name: str, scale: str, ran: Mapping[str, Any]) -> str:
    """The foot of a page: command, time, machine, versions, parameters."""
    parameters = dict(ran.get("parameters", {}))
    changed = " ".join(f"{k}={v}" for k, v in parameters.items() if k != "out")
    command = "evoae report out" if name == "report" else f"evoae reproduce {name} --scale {scale}"
    seconds = ran.get("duration")
    took = f"{seconds:.0f} s of wall time (runs that were there already not counted)"
    known = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()}"
    rows = [
        f"Made by <code>{html.escape(command)}</code>" + (f", {took}" if seconds else ""),
        f"On {html.escape(machine)}; Python {platform.python_version()}, {known}",
        f"Parameters: <code>{html.escape(changed) or 'none'}</code>; the rest as in the notebook",
        "Tables are folded: open them, or read their files in <code>tables/</code>",
    ]
    return "<footer>" + "".join(f"<p>{row}.</p>" for row in rows) + "</footer>"


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
    cards = []
    for name in order:
        executed = folder / f"{name}.ipynb"
        if not (executed.exists() and (folder / f"{name}.html").exists()):
            continue
        notebook = nbformat.read(executed, 4)
        picture = f"figures/{name}-{pictures.get(name)}.png"
        there = (folder / picture).exists()
        image = f'<a href="{name}.html"><img alt="" src="{picture}"></a>' if there else ""
        title, said = title_of(notebook).partition(":")[0], answer_of(notebook)
        scale = notebook.metadata.get("evoae", {}).get("scale")
        warning = f'<p class="warning">{scale}: no evidence</p>' if warning_of(notebook) else ""
        cards.append(
            f'<div class="card">{image}<h2><a href="{name}.html">{html.escape(title)}</a></h2>'
            f"<p><i>{html.escape(question_of(notebook))}</i></p>{warning}"
            f'<p class="said" title="{said}">{said}</p></div>'
        )
    body = f'<h1>evoae: the study</h1>\n<div class="cards">{"".join(cards)}</div>'
    return whole("evoae: the study", body, "index")
