"""The sections of RESULTS.md on design F: equally tuned methods, the recipe's parts, its masks.

Everything is computed from the trials that `results` keeps. A test is printed only where every
method has the PLANNED number of trials; before that the page says how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from evoae.experiment import PRESETS
from evoae.study.analysis import best_methods, frontier, results, statistics
from evoae.study.analysis.markdown import by_method, share, table, tested, with_interval
from evoae.study.analysis.sentences import count, listed, raised
from evoae.study.analysis.statistics import LEVEL, mean_interval
from evoae.study.runs import mask_controls

PLANNED = 10  # trials of every setting of design F, fixed before its first run
SIZES = {"macs": "multiply-accumulates", "compact_parameters": "compacted parameters"}
DEAD = "†"  # marks a method that is no better than a constant
FOUND = "as found"  # the run whose masks are trained again


def values() -> dict[str, Any]:
    """What the text names."""
    front = results.front_trials("front")
    parts, masks = results.front_trials("parts"), results.front_trials("masks")
    head = ["data", "zeros", "trials", "best", "loss", "not told from it", "best baseline"]
    head += ["loss", "best – baseline", "Holm's p"]
    equal = [
        [dataset, f"{share(at)} of the {SIZES[size]}", rows.method.nunique(), *row]
        for size, shares in best_methods.SHARES.items()
        for at in shares
        for dataset, rows in best_methods.at_size(front, size, at).groupby("dataset", sort=False)
        for row in [standing(rows)]
    ]
    return {
        "planned": PLANNED,
        "ring_cells": count(frontier.RING),
        "parts_at": share(frontier.PARTS_AT),
        "recipe_until": share(PRESETS["frontier"].settings["prune_until"]),
        "searched": frontier.CONFIGURATIONS,
        "searched_at": listed(share(target) for target in frontier.TUNED_AT),
        "fair_state": state(front),
        "fair_missing": missing(front),
        "masks_missing": missing(masks, frontier.DATA[:3]),
        "fair_found": fair_found(front),
        "fair_codes": codes(front),
        "fair_steps": steps(),
        "fair_rates": rates(),
        "fair_results": fair_results(front, head, equal),
        "parts_found": parts_found(parts),
        "parts_of_recipe": against(parts, next(iter(frontier.PARTS)), frontier.PARTS),
        "masks_again": against(masks, FOUND, [FOUND, *mask_controls.CONTROLS]),
    }  # fmt: skip


def fair_found(front: pd.DataFrame) -> str:
    """On each data set the best method at every target, and where it beats the best baseline."""
    said = []
    for dataset, here in front.groupby("dataset", sort=False):
        best: dict[str, list[str]] = {}
        clear = []
        for target, rows in here.groupby("target"):
            alive = best_methods.living(rows)
            if not alive:
                continue
            best.setdefault(alive[0], []).append(share(target))
            rival = best_methods.best_baseline(alive)
            if complete(rows) and rival not in (None, alive[0]):
                tests = best_methods.among_best(rows)
                pair = tests[(tests.a == alive[0]) & (tests.b == rival)]
                lower = (pair.p_holm < LEVEL) & (pair["shift"] < 0)
                clear += [share(target)] * int(lower.any())
        if best:
            words = listed(f"`{name}` at {listed(targets)}" for name, targets in best.items())
            where = f"at {listed(clear)}" if clear else "nowhere"
            said.append(
                f"  - {dataset}: {words}. A variant of the recipe has a significantly lower test "
                f"loss than the best baseline {where}."
            )
    return "\n".join(said) or "  - No data set was run."


def steps() -> str:
    """Model steps of a method, by data set."""
    data: dict[int, list[str]] = {}
    for name, number in frontier.STEPS.items():
        data.setdefault(number, []).append(name)
    return listed(f"{number:,} on {', '.join(names)}" for number, names in data.items())


def rates() -> str:
    """How often a search chose the largest rate that it tried; "" of no search."""
    chosen = results.front_tuning()
    if chosen.empty:
        return ""
    largest = max(frontier.SEARCHED["learning_rate"])
    often = int((chosen.learning_rate == largest).sum())
    return f"Of {len(chosen)} chosen rates {often} are the largest that was tried, {largest:g}. "


def codes(front: pd.DataFrame) -> str:
    """How many units the codes of the narrow networks have at each target, by data set."""
    said = []
    for dataset, here in front[front.dataset.isin(frontier.DATA)].groupby("dataset", sort=False):
        for method in ("dense-flat", "dense"):
            own = frontier.methods()[method]
            models = {
                t: frontier.at(dataset, own, t, 1).model for t in sorted(here.target.unique())
            }
            widths = [f"{model.split('-')[-1]} ({share(t)})" for t, model in models.items()]
            said.append(f"`{method}` on {dataset} {listed(widths)}")
    return f"Units of these codes by sparsity: {'; '.join(said)}." if said else ""


def fair_results(front: pd.DataFrame, head: list[str], equal: list[list[Any]]) -> str:
    """The tables of equally tuned methods and what is to be known to read them; "" of no trials."""
    if front.empty:
        return ""
    rows = [
        [dataset, share(target), *standing(rows)]
        for (dataset, target), rows in front.groupby(["dataset", "target"], sort=False)
    ]
    family, best = count(best_methods.FAMILY), count(best_methods.BEST)
    return f"""\
The best method is chosen on validation data, among those that beat the constant. It is compared
with the next best and with the best baseline, all by their test loss, paired by trial. Each row is
a family of {family} tests: all pairs of the best {best}, and each of them with the best baseline.
Below {PLANNED} trials there are no tests. A method marked {DEAD} is not significantly better than
the constant.

{table(head, rows)}

{losses(front)}

### At equal multiply-accumulates and equal compacted size

Methods that reach a sparsity differ in what is left of the computation. Here each trial's losses
are joined by straight lines over the logarithm of the size, and read off at shares of the largest
size that any method has. Methods that do not reach a size in every trial are left out; the column
"methods" counts the others. So a network that is smaller still may have a lower loss.

{table([head[0], "size", "methods", *head[2:]], equal)}"""


def state(front: pd.DataFrame) -> str:
    """How many trials each data set has of how many methods."""
    data: dict[str, list[str]] = {}
    for dataset, rows in front.groupby("dataset", sort=False):
        n = rows.groupby(["method", "target"]).size().min()
        words = f"{n} of {PLANNED} trials of {rows.method.nunique()} methods"
        data.setdefault(words, []).append(str(dataset))
    said = [f"{words} on {listed(names)}" for words, names in data.items()]
    return listed(said) if said else "none was run"


def missing(trials: pd.DataFrame, data: Sequence[str] = frontier.DATA) -> str:
    """The data sets that do not have all trials yet."""
    done = [name for name, rows in trials.groupby("dataset") if complete(rows)]
    left = [name for name in data if name not in done]
    return f"trials on {listed(left)}" if left else "–"


def complete(rows: pd.DataFrame) -> bool:
    """Whether every method of these trials has the planned number of them."""
    return bool((rows.groupby(["method", "target"]).size() >= PLANNED).all())


def loss(rows: pd.DataFrame) -> str:
    """The mean test loss, with its interval if there are trials enough."""
    return with_interval(statistics.mean_loss(rows.test_l1), *mean_interval(rows.test_l1))


def losses(front: pd.DataFrame) -> str:
    """Mean test losses, a row per data set and target, a column per method."""
    cells = {}
    for (dataset, target), rows in front.groupby(["dataset", "target"]):
        alive = best_methods.living(rows)
        for name, own in rows.groupby("method"):
            cells[dataset, target, name] = loss(own) + ("" if name in alive else f" {DEAD}")
    return by_method(cells, dict.fromkeys(front.method))


def standing(rows: pd.DataFrame) -> list[Any]:
    """The best method on validation, which of the best are not told from it, the best baseline."""
    own, alive = dict(list(rows.groupby("method"))), best_methods.living(rows)
    n = rows.groupby("method").size().min()
    if not alive:
        return [n, "no method beats the constant", *["–"] * 6]
    first, rival = alive[0], best_methods.best_baseline(alive)
    found = [n, f"`{first}`", loss(own[first])]
    beside = ["–", "–"] if rival is None else [f"`{rival}`", loss(own[rival])]
    if not complete(rows):
        return [*found, "not tested", *beside, "–", "–"]
    tests = best_methods.among_best(rows)
    open_ = tests[((tests.a == first) | (tests.b == first)) & ~(tests.p_holm < LEVEL)]
    near = [name for name in alive[1 : best_methods.BEST] if name in {*open_.a, *open_.b}]
    found.append(listed(f"`{name}`" for name in near) if near else "none")
    return [*found, *beside, *tested(tests[(tests.a == first) & (tests.b == rival)])]


def against(trials: pd.DataFrame, baseline: str, names: Iterable[str]) -> str:
    """Each of some settings against one, by data set; their tests are the family."""
    lines = []
    for dataset, rows in trials.groupby("dataset", sort=False):
        rows = rows[rows.method.isin(list(names))]
        if baseline not in set(rows.method):
            continue
        tests = statistics.compare(rows, by="method", value="test_l1", baseline=baseline)
        for name, own in rows.groupby("method", sort=False):
            dead = best_methods.living(own) == []
            line = [dataset, name, len(own), loss(own) + f" {DEAD}" * dead]
            lines.append([*line, *tested(tests[(tests.a == name) & complete(rows)])])
    return table(["data", "setting", "trials", "loss", f"difference from “{baseline}”", "Holm's p"],
                 lines)  # fmt: skip


def parts_found(parts: pd.DataFrame) -> str:
    """Which changes of the recipe change its loss, where a data set has all trials."""
    said = []
    for dataset, rows in parts.groupby("dataset", sort=False):
        if not complete(rows):
            continue
        shipped = next(iter(frontier.PARTS))
        tests = statistics.compare(rows, by="method", value="test_l1", baseline=shipped)
        differ = tests[tests.p_holm < LEVEL]
        worse, better = (list(differ.a[differ["shift"] * sign > 0]) for sign in (1, -1))
        words = [
            f"the test loss is {which} with {listed(f'“{name}”' for name in names)}"
            for names, which in ((worse, "higher"), (better, "lower"))
            if names
        ]
        rest = tests.drop(differ.index)
        lower = [f"“{name}”" for name in rest.a[rest["shift"] < 0]]
        but = (
            f", though {listed(lower)} {'have' if lower[1:] else 'has'} a lower loss"
            if lower
            else ""
        )
        words.append(f"{len(rest)} changes make no significant difference{but}")
        said.append(f"on {dataset}, {'; '.join(words)}")
    return f"{'. '.join(map(raised, said))}." if said else ""
