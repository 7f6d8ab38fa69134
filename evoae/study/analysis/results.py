"""Results of full-size runs: small tables in the package, from which RESULTS.md is written.

Hours of computing come in parts, on whatever machine has time. `update` takes from a study what was
measured in more trials than the tables have, and leaves the rest.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evoae.study.analysis import (
    best_methods,
    blocks,
    claims,
    confounds,
    front_ways,
    frontier,
    mechanism,
    published,
    statistics,
    uniformity,
)
from evoae.study.analysis.best_methods import POINT
from evoae.study.runs.study import Study

FOLDER = Path(__file__).parent
REPRODUCED, CONTRASTS = FOLDER / "reproduced_results.csv", FOLDER / "reproduced_contrasts.csv"
FRONTIER = FOLDER / "frontier_results.csv"
WAYS = FOLDER / "front_results.csv"
TRIALS, TUNING = FOLDER / "frontier_trials.csv", FOLDER / "frontier_tuning.csv"
CONTRAST = ["claim", "role", "reading", "a", "b"]
# the designs of `confounds`, and what tells apart the runs of one data seed and trial
DESIGNS = {
    "tuning": ["learning_rate", "optimiser", "rate_policy", "loss"],
    "gap": ["pruning", "optimiser", "rate_policy", "place", "neighbours", "selection"],
    "timing": ["operator", "when"],
    "populations": ["cells", "place"],
}
MEASURED = ["train_l1", "validation_l1", "test_l1"]
# the designs of `plan`, and what tells apart the runs of one block
IN_BLOCKS = {
    "uniformity": uniformity.FACTORS,
    **mechanism.FACTORS,
    "mechanism_cells": ["place", "pruning", "bits", "cell"],
}
TRIAL = ["design", *POINT, "trial"]
TRIALS_COLUMNS = [*TRIAL, *best_methods.LOSSES, "macs", "compact_parameters", "steps"]


def reproduced() -> pd.DataFrame:
    """The published values that full-size runs stand beside, as of `published.summary`."""
    return pd.read_csv(REPRODUCED)


def contrasts() -> pd.DataFrame:
    """The contrasts of the paper's claims in full-size runs, as of `claims.comparisons`."""
    return claims.judged(pd.read_csv(CONTRASTS))


def front() -> pd.DataFrame:
    """Means of every method at every sparsity of the full-size front, as of `points_of`.

    `p_holm` has Holm's correction over the methods of a data set and target.
    """
    table = pd.read_csv(FRONTIER)
    tested = table[table.p.notna()]  # magnitude is what the others are compared with
    by = tested.groupby(["dataset", "target"], sort=False).p
    return table.assign(p_holm=by.transform(statistics.holm))


def front_trials(design: str) -> pd.DataFrame:
    """The trials of a design of `frontier`: "front" (`points`), "parts" (`ablation`), or "masks"
    (`mask_controls.controls`): a row each, as of `frontier.trials`.
    """
    table = pd.read_csv(TRIALS)
    return table[table.design == design].drop(columns="design").reset_index(drop=True)


def front_tuning() -> pd.DataFrame:
    """What `frontier.search` chose for each method."""
    return pd.read_csv(TUNING)


def front_of_ways() -> pd.DataFrame:
    """The fronts of `front_ways.study`, a row per trial and sparsity."""
    return pd.read_csv(WAYS)


def update_front_of_ways(table: pd.DataFrame) -> None:
    """Take over fronts of a table of `front_ways.study`."""
    old = [front_of_ways()] if WAYS.exists() else []
    columns = [*front_ways.KEYS, *front_ways.MEASURED]
    both = pd.concat([*old, table[columns]], ignore_index=True)
    both = both.drop_duplicates(front_ways.KEYS, keep="last").sort_values(front_ways.KEYS)
    both.round(6).to_csv(WAYS, index=False)


def design(name: str, dataset: str = "binary-clusters") -> pd.DataFrame:
    """Runs of a design of `DESIGNS` on a data set, a row each, as of `confounds.table_of`."""
    table = pd.read_csv(file_of(name))
    return confounds.with_blocks(table[table.dataset == dataset].reset_index(drop=True))


def file_of(name: str) -> Path:
    """The table of a design."""
    return FOLDER / f"{name}_results.csv"


def in_blocks(name: str) -> pd.DataFrame:
    """The runs of a design of `IN_BLOCKS`, a row each; a run that diverged has no loss.

    Empty if none was run yet.
    """
    file = file_of(name)
    return pd.read_csv(file) if file.exists() else pd.DataFrame(columns=blocks.SEEDS)


def keep(name: str, table: pd.DataFrame) -> None:
    """Add runs of a design of `IN_BLOCKS` to its table; those that are there are replaced."""
    file, keys = file_of(name), [*IN_BLOCKS[name], *blocks.SEEDS]
    old = [pd.read_csv(file)] if file.exists() else []
    rest = [c for c in table if c not in keys and c != "label"]
    table = pd.concat([*old, table], ignore_index=True).drop_duplicates(keys, keep="last")
    digits = {name: 9 if name == "mean_rate" else 6 for name in rest}
    table[[*keys, *rest]].sort_values(keys).round(digits).to_csv(file, index=False)


def update(study: Study) -> None:
    """Take over what a study of full-size runs has measured in more trials than the tables."""
    known = published.published()
    values = most(reproduced(), published.summary(study), list(known), "trials")
    known.merge(values).round(5).to_csv(REPRODUCED, index=False)
    measured = claims.contrasted(study)
    ours = measured[measured["size"].isin(published.PAPER)]
    measured = measured[CONTRAST].join(ours.drop(columns=CONTRAST))
    best = most(pd.read_csv(CONTRASTS), measured, CONTRAST, "n")
    measured[CONTRAST].merge(best).to_csv(CONTRASTS, index=False, float_format="%.6g")


def update_front(study: Study) -> None:
    """Take over what a study of `frontier.points` has measured in more trials than the table."""
    measured = points_of(frontier.trials(study))
    most(pd.read_csv(FRONTIER), measured, POINT, ["steps", "n"]).sort_values(POINT).round(6).to_csv(
        FRONTIER, index=False
    )


def update_front_trials(design: str, table: pd.DataFrame) -> None:
    """Take over trials of a design of `front_trials`, of a table of `frontier.trials`."""
    both = pd.concat([pd.read_csv(TRIALS), table.assign(design=design)], ignore_index=True)
    both = both.drop_duplicates(TRIAL, keep="last")[TRIALS_COLUMNS]
    both.sort_values(TRIAL, kind="stable").round(6).to_csv(TRIALS, index=False)


def update_front_tuning(table: pd.DataFrame) -> None:
    """Take over what a search chose."""
    keys = ["dataset", "tuned_at", "method"]
    both = pd.concat([pd.read_csv(TUNING), table], ignore_index=True)
    both = both.drop_duplicates(keys, keep="last").sort_values(keys)
    both.round(6).to_csv(TUNING, index=False)


def update_design(name: str, study: Study) -> None:
    """Take over the runs of a design of `DESIGNS` from a study of full-size runs."""
    file, keys = file_of(name), ["dataset", "data_seed", "trial", *DESIGNS[name]]
    old = [pd.read_csv(file)] if file.exists() else []
    table = pd.concat([*old, confounds.table_of(study)], ignore_index=True)
    table = table.drop_duplicates(keys, keep="last")[[*keys, *MEASURED]]
    digits = dict.fromkeys(MEASURED, 6)  # what tells runs apart stays as it is
    table.sort_values(keys).round(digits).to_csv(file, index=False)


def points_of(table: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, method and target: trials, mean test L1 with its 95 % interval, the best
    constant's, sizes, steps; and the shift from magnitude with its interval and p. `table` is of
    `frontier.trials`.
    """
    sizes = ["constant_test_l1", "macs", "compact_parameters", "steps"]
    means = statistics.summary(table, POINT, ["test_l1", *sizes]).drop(columns="median")
    beside = []
    for (dataset, target), rows in table.groupby(["dataset", "target"], sort=False):
        if "magnitude" in set(rows.method):
            tests = statistics.compare(rows, by="method", value="test_l1", baseline="magnitude")
            named = {"a": "method", "low": "shift_low", "high": "shift_high"}
            tests = tests.rename(columns=named)[["method", "shift", "shift_low", "shift_high", "p"]]
            beside.append(tests.assign(dataset=dataset, target=target))
    return means.merge(pd.concat(beside), on=POINT, how="left") if beside else means


def most(
    old: pd.DataFrame, new: pd.DataFrame, keys: list[str], count: str | list[str]
) -> pd.DataFrame:
    """Of the rows of two tables those of the larger `count`; of the new one where it is equal."""
    both = pd.concat([old, new], ignore_index=True)
    both = both.sort_values(count, kind="stable", na_position="first")
    return both.drop_duplicates(keys, keep="last")
