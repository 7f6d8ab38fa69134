"""The forest of claims: every comparison of every claim, with its interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evoae.figures.look import draw_panels, keys_of, legend, notice

ANSWERS = {
    "yes": "#009E73",
    "tends to yes": "#009E73",
    "open": "#888888",
    "tends to no": "#D55E00",
    "no": "#D55E00",
}


def forest(table: pd.DataFrame) -> Figure:
    """Differences of `comparisons` that were run, by claim: filled where the test decides.

    Left of zero `a` has the lower loss, which is what the claims say; claim 2 says zero.
    """
    table = table[table.says != "not run"].sort_values(
        ["claim", "reading"], ascending=[True, False]
    )
    table = table.reset_index(drop=True)
    if table.empty:
        return notice("No run here is one that a claim of the paper speaks of.")
    labels = [f"{r.claim}. {r.a} – {r.b}" for r in table.itertuples()]
    with draw_panels(height=1.4 + 0.3 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        for at, row in table.iterrows():
            colour, sure = ANSWERS[row.says], not row.says.startswith(("tends", "open"))
            ax.hlines(at, row.low, row.high, color=colour, lw=1.8)
            face = colour if sure else "white"
            mark = "o" if row.reading == "as released" else "s"
            ax.plot(row.difference, at, mark, color=colour, markerfacecolor=face, markersize=7)
        ax.axvline(0, color="#444444", linewidth=1)
        ax.set_yticks(range(len(table)), labels)
        ax.set(
            xlabel="Difference in final training loss, a – b (L1)", ylim=(len(table) - 0.5, -0.5)
        )
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(False, axis="y")
        grey, dot = ANSWERS["open"], {"marker": "o", "linestyle": ""}
        keys = keys_of({f"says {name}": ANSWERS[name] for name in ("yes", "no")}, **dot)
        keys += keys_of({"as released": grey}, **dot)
        keys += keys_of({"as intended": grey}, **dot | {"marker": "s"})
        keys += keys_of({"open": grey}, **dot, mfc="white")
        legend(figure, None, keys)
    return figure
