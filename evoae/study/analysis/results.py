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
    mechanism,
    published,
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
    """The first front of full size, which stays as it is: its methods were not tuned alike.

    A row per data set, method and target: trials, mean test L1 with its 95 % interval, the best
    constant's, sizes, steps; and the shift from magnitude with its interval and p.
    """
    return pd.read_csv(FRONTIER)


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
    add(WAYS, table[[*front_ways.KEYS, *front_ways.MEASURED]], front_ways.KEYS)


def design(name: str, dataset: str = "binary-clusters") -> pd.DataFrame:
    """Runs of a design of `confounds` on a data set, a row each, as of `confounds.table_of`.

    "tuning", "gap", "timing" or "populations", whose data seeds share training seeds; they stay as
    they are.
    """
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
    keys = [*IN_BLOCKS[name], *blocks.SEEDS]
    rest = [c for c in table if c not in keys and c != "label"]
    add(file_of(name), table[[*keys, *rest]], keys)


def add(file: Path, table: pd.DataFrame, keys: list[str]) -> None:
    """Add rows to the table in a file, if there is one; what `keys` tell apart is there once."""
    old = [pd.read_csv(file)] if file.exists() else []
    both = pd.concat([*old, table], ignore_index=True).drop_duplicates(keys, keep="last")
    # what tells runs apart stays as it is
    digits = {name: 9 if name == "mean_rate" else 6 for name in both if name not in keys}
    both.sort_values(keys, kind="stable").round(digits).to_csv(file, index=False)


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


def update_front_trials(design: str, table: pd.DataFrame) -> None:
    """Take over trials of a design of `front_trials`, of a table of `frontier.trials`."""
    add(TRIALS, table.assign(design=design)[TRIALS_COLUMNS], TRIAL)


def update_front_tuning(table: pd.DataFrame) -> None:
    """Take over what a search chose."""
    add(TUNING, table, ["dataset", "tuned_at", "method"])


def most(
    old: pd.DataFrame, new: pd.DataFrame, keys: list[str], count: str | list[str]
) -> pd.DataFrame:
    """Of the rows of two tables those of the larger `count`; of the new one where it is equal."""
    both = pd.concat([old, new], ignore_index=True)
    both = both.sort_values(count, kind="stable", na_position="first")
    return both.drop_duplicates(keys, keep="last")
