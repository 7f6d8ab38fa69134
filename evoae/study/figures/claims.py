"""The forest of claims: every contrast of every claim, with its interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evoae.study.figures.look import draw_panels, intervals, keys_of, legend, notice

ANSWERS = {
    "yes": "#009E73",
    "no": "#D55E00",
    "open": "#555555",
    "nothing learnt": "#AAAAAA",
    "too few trials": "#AAAAAA",
}


def forest(table: pd.DataFrame) -> Figure:
    """Shifts of `claims.comparisons` that were run, by claim: filled where the test decides.

    Left of zero `a` has the lower loss, which is what the claims say; claim 2 says at most 0.01.
    """
    table = table[table.says != "not run"].sort_values(
        ["claim", "reading"], ascending=[True, False], kind="stable"
    )
    table = table.reset_index(drop=True).rename(columns={"shift": "mean"})
    if table.empty:
        return notice("No run here is one that a claim of the paper speaks of.")
    labels = [
        f"{r.claim}{'. ' if r.role == 'claim' else ', control: '}{r.a} – {r.b}"
        for r in table.itertuples()
    ]
    with draw_panels(height=1.4 + 0.3 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        for at, row in table.iterrows():
            colour = ANSWERS[row.says]
            face = colour if row.says in ("yes", "no") else "white"
            shape = "o" if row.reading == "as released" else "s"
            look = {"marker": shape, "markerfacecolor": face, "markersize": 7, "ls": ""}
            intervals(ax, [at], table.loc[[at]], colour, across=True, **look)
        ax.axvline(0, color="#444444", linewidth=1)
        ax.set_yticks(range(len(table)), labels)
        ax.set(
            xlabel="Shift of final training loss,\na – b (L1), and its 95 % interval",
            ylim=(len(table) - 0.5, -0.5),
        )
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(False, axis="y")
        grey, dot = ANSWERS["open"], {"marker": "o", "linestyle": ""}
        keys = keys_of({f"says {name}": ANSWERS[name] for name in ("yes", "no")}, **dot)
        keys += keys_of({"open": grey}, **dot, mfc="white")
        keys += keys_of({"nothing learnt, or too few": "#AAAAAA"}, **dot, mfc="white")
        keys += keys_of({"as released": grey}, **dot)
        keys += keys_of({"as intended": grey}, **dot | {"marker": "s"})
        legend(figure, None, keys)
    return figure
