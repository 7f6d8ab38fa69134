"""What a notebook shows: numbered figures, folded tables, and its answer."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from evoae.resources import to_root
from evoae.study.report.notebooks import check_injected, read, source_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evoae.study.analysis.findings import Finding
    from evoae.study.analysis.sentences import Answer

SHORT = 300  # characters of an answer that is read at once
LARGE = 40, 9  # rows or columns of a table, beyond which it stays folded on paper
MIME = "application/vnd.evoae+json"  # what an output is, beside its HTML


class Report:
    """Keeps what a notebook shows: figures in OUT/figures, tables in OUT/tables; and numbers it.

    It is the first thing that a notebook makes. Whoever opened the notebook by hand finds its paths
    as `evoae reproduce` means them, from the folder above. Raises ValueError for parameters that
    papermill was given and the notebook does not have, or has of another type: papermill itself
    only warns.
    """

    def __init__(self, out: str | Path, notebook: str) -> None:
        check_injected(notebook)
        to_root()
        index = os.environ.get("EVOAE_SHARE", "0/1").partition("/")[0]
        # of a job array, only the first job writes where people look
        self.out, self.notebook = Path(out) / (f"job-{index}" if index != "0" else ""), notebook
        source = "\n".join(source_of(cell) for cell in read(notebook)["cells"])
        self.figures, self.tables = (
            re.findall(rf'report\.{kind}\(\s*"([^"]+)"', source) for kind in ("figure", "table")
        )

    def figure(self, name: str, figure: Figure, title: str) -> Output:
        """Write a figure as PNG and SVG; show it with its number and what is compared in it."""
        from evoae.study.figures import look  # seconds that `evoae list` does without

        png, _ = look.save(figure, self.out / "figures", f"{self.notebook}-{name}", title)
        data, words = base64.b64encode(png.read_bytes()).decode(), html.escape(title)
        number = self.figures.index(name) + 1
        body = (
            f'<figure id="figure-{name}"><figcaption><b>Figure {number}.</b> {words}</figcaption>'
            f'<img alt="{words}" src="data:image/png;base64,{data}"></figure>'
        )
        return Output(body, "figure", f"Figure {number}. {title}")

    def table(self, name: str, table: pd.DataFrame, title: str, unfolded: bool = False) -> Output:
        """Write a table as CSV; show it folded away, with consistent decimals.

        Names of the notebook's figures in a column `figure` become links.
        """
        path = self.out / "tables" / f"{self.notebook}-{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
        number = self.tables.index(name) + 1
        if "figure" in table and set(table["figure"]) <= set(self.figures):
            table = table.assign(figure=[self.link(figure) for figure in table["figure"]])
        return table_of(number, path.stem, title, table, unfolded)

    def answer(self, answer: Answer) -> Output:
        """What the notebook found, and in a second line how sure that is; the index shows it."""
        first, more = head(answer.found)
        body = f'<p class="answer">{html.escape(first)}</p>'
        if more:
            body += f'<details class="sure"><summary>More</summary>{html.escape(more)}</details>'
        body += f'<p class="sure">{html.escape(answer.sure)}</p>' if answer.sure else ""
        return Output(body, "answer", answer.found)

    def findings(self, found: Sequence[Finding]) -> Output:
        """Sentences with links to their figures; the index shows the first."""
        lines = [
            f"<li><b>{html.escape(one.heading)}.</b> {html.escape(one.text)} "
            f"{self.link(one.figure)}</li>"
            for one in found
        ]
        text = " ".join(f"{one.heading}. {one.text}" for one in found[:1])
        body = f'<ol class="findings">{"".join(lines[:1])}</ol>'
        if lines[1:]:
            body += (
                f"<details><summary>{len(lines) - 1} more findings</summary>"
                f'<ol class="findings" start="2">{"".join(lines[1:])}</ol></details>'
            )
        return Output(body, "answer", text)

    def document(self, name: str, text: str) -> Output:
        """Write a text in Markdown to OUT under its name, and show it."""
        from nbconvert.filters import markdown2html

        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / name).write_text(text, encoding="utf-8")
        body = markdown2html(text).replace("<table>", '<div class="scroll"><table>')
        return Output(body.replace("</table>", "</table></div>"), "document", text)

    def link(self, name: str) -> str:
        """A link to one of the notebook's figures."""
        return f'<a href="#figure-{name}">Figure {self.figures.index(name) + 1}</a>'


def head(text: str) -> tuple[str, str]:
    """The first sentence of a long answer, and the others; a short answer as it is."""
    if len(text) <= SHORT:
        return text, ""
    first, *others = re.split(r"(?<=[.?!])\s(?=[A-Z])", text, maxsplit=1)
    return first, "".join(others)


# -- outputs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Output:
    """HTML in a notebook and on its page, and what it is: kind, and text for the index."""

    body: str
    kind: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        said = {"kind": self.kind, "text": self.text}
        return {"text/html": self.body, "text/plain": self.text, MIME: said}


def table_of(number: int, name: str, title: str, table: pd.DataFrame, unfolded: bool) -> Output:
    """A numbered table, folded away; links in its cells stay links."""
    words = pd.DataFrame({str(name): decimals(table[name]) for name in table})
    texts = [pd.api.types.is_string_dtype(table[name]) for name in table]
    cells = {}
    for (column, values), text in zip(words.items(), texts, strict=True):
        form = '<div class="text">{}</div>' if text else "{}"
        cells[form.format(html.escape(column))] = [form.format(linked(v)) for v in values]
    with pd.option_context("display.max_colwidth", None):
        rows = pd.DataFrame(cells).to_html(index=False, border=0, escape=False)
    heading = f"<b>Table {number}.</b> {html.escape(title)} ({len(table)} rows, {name}.csv)"
    large = any(size > most for size, most in zip(table.shape, LARGE, strict=True))
    how = ' class="large"' if large else ""
    body = (
        f"<details{how}{' open' if unfolded else ''}><summary>{heading}</summary>"
        f'<div class="scroll">{rows}</div></details>'
    )
    return Output(body, "table", f"Table {number}. {title}\n{words.to_string(index=False)}")


def linked(value: str) -> str:
    """A value of a table, escaped; only a link made here stays one."""
    if re.fullmatch(r'<a href="#figure-[\w-]+">Figure \d+</a>', value):
        return value
    return html.escape(value)


def decimals(column: pd.Series) -> list[str]:
    """A column's values for people: whole numbers as such, three decimals for others."""
    known, form = column.dropna(), "{:,.3f}"
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        form = "{}"
    elif str(column.name).startswith("p") and known.between(0, 1).all():  # p, p_holm
        return ["–" if pd.isna(v) else "<0.001" if v < 0.001 else f"{v:.3f}" for v in column]
    elif pd.api.types.is_integer_dtype(column) or (
        (known % 1 == 0).all() and known.abs().max() > 1
    ):
        form = "{:,.0f}"
    elif 0 < known.abs().max() < 0.01:
        form = "{:.2g}"
    return ["–" if pd.isna(value) else form.format(value) for value in column]
