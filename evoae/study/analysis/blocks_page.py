"""What the designs in blocks gave, for the page of results: words and tables from kept tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from evoae.study.analysis import blocks, mechanism, results, uniformity
from evoae.study.analysis.markdown import by_place, estimates, number, of_frame, share, table
from evoae.study.analysis.sentences import count, listed, lowered, raised

# At this width a prune takes fewer weights of a layer than the layer has lines, so that nearly
# every draw counts as even.
COARSE = 5
OUTCOMES = tuple(blocks.OUTCOMES.values())
RATES = ("mutated", "constant tuned")
PLACES = {"alone": "Alone", "isolated": "In isolated cells", "ring": "In the ring"}


def values() -> dict[str, Any]:
    """All that the text names of these designs."""
    found = {name: results.in_blocks(name) for name in results.IN_BLOCKS}
    return {
        "blocks_planned": blocks.PLANNED,
        "blocks_margin": blocks.MARGIN,
        "u_family": uniformity.FAMILY,
        "u_blocks": reach(found["uniformity"], ["place", "rate", "bits", "width"]),
        "a_blocks": reach(found["mechanism"], ["bits"]),
        "g_blocks": reach(found["guided"], ["dataset", "bits", "width", "place"]),
        "s_blocks": reach(found["schedules"], ["place"]),
        **explanation(found["uniformity"], found["guided"]),
        **advantages(found["mechanism"], found["mechanism_cells"]),
        **guided(found["guided"]),
        **pairs(found["schedules"]),
    }


def reach(found: pd.DataFrame, by: list[str]) -> str:
    """How many blocks each part of a design has so far, as a table."""
    if not len(found):
        return "No block of this design has been run yet."
    rows = found.groupby(by, sort=True).agg(
        blocks=("data_seed", "nunique"), runs=("data_seed", "size")
    )
    return of_frame(rows.reset_index())


def explanation(found: pd.DataFrame, guided: pd.DataFrame) -> dict[str, Any]:
    """Design U: the verdict on each part of the explanation, and its numbers."""
    if not len(found):
        empty = "There is nothing to say before the first block."
        keys = ("u_found", "u_parts", "u_numbers", "u_inputs", "u_sizes", "u_deviation", "u_dead")
        return dict.fromkeys(keys, empty)
    contrasts = uniformity.all_contrasts(found, guided)
    said = uniformity.parts(contrasts)
    words = [
        f"{raised(verdict)}: {'; '.join(f'that {lowered(words)}' for words in each)}."
        for verdict, each in said.groupby("verdict", sort=False).prediction
    ]
    names = {part.name: part.text for part in (*uniformity.PARTS, *uniformity.GUIDANCE)}
    contrasts = contrasts.assign(
        prediction=contrasts["part"].map(names), outcome=contrasts.value.map(uniformity.NAMED)
    )
    inputs = uniformity.undeclared(found, uniformity.INPUTS_IN_A_RING)
    sized = uniformity.contrasts(found, ["rate", "bits", "width"])
    sized = sized[(sized.value == "train_l1") & (sized.says != "nothing learnt")]
    return {
        "u_found": "\n".join(f"  - {line}" for line in (*words, of_inputs(inputs)) if line),
        "u_parts": of_frame(said[["prediction", "verdict"]]),
        "u_numbers": compared(
            contrasts.rename(columns={"rate": "condition"}), ["prediction", "condition", "outcome"]
        ),
        "u_inputs": compared(inputs, ["rate", "outcome"]),
        "u_sizes": compared(sized, ["part", "rate", "bits", "width"]),
        "u_deviation": deviation(found),
        "u_dead": dead(found),
    }


def dead(found: pd.DataFrame) -> str:
    """Positions that alone, at constant rates, are no better than the constant at some size."""
    own = found[(found.place == "alone") & (found.rate == "constant")]
    means = own.groupby(["bits", "width", "positions"])[["train_l1", "constant_train_l1"]].mean()
    means = means[means.train_l1 >= means.constant_train_l1]
    if means.empty:
        return ""
    sizes = [
        f"{listed(rows.index.get_level_values('positions'))} at {bits} bits and width {width}"
        for (bits, width), rows in means.groupby(["bits", "width"])
    ]
    return (
        "Alone, at constant rates, these positions have a loss no better than the constant's, "
        f"which weighs on means over sizes: {'; '.join(sizes)}. "
    )


def of_inputs(found: pd.DataFrame) -> str:
    """What whole inputs in a ring say of whole units there, which deviate as much."""
    said = set(found.says) if len(found) else set()
    if "higher" in said and "lower" not in said:
        return (
            "Whole inputs are as far from even as whole units, and with them the ring's advantage "
            "is smaller, not larger. So what it gains with whole units is no evidence for "
            "uniformity."
        )
    if "lower" in said and "higher" not in said:
        return (
            "Whole inputs are as far from even as whole units, and with them the ring's advantage "
            "is larger too."
        )
    return ""


def deviation(found: pd.DataFrame) -> str:
    """How far each kind of positions deviates alone, and what that says of a cause."""
    less = uniformity.undeclared(found, uniformity.UNITS_LESS_INPUTS)
    coarse = COARSE in set(found.width)
    found = found[found.width != COARSE]
    means = found[found.place == "alone"].groupby("positions").discrepancy.mean()
    shares = [f"{number(means[name])} ({name})" for name in uniformity.POSITIONS if name in means]
    text = (
        f"Of the weights of a prune, the share that must move to make it even is {listed(shares)}."
    )
    own = found[(found.place == "alone") & (found.positions == "independent")]
    bits = own.groupby("bits").width.nunique().idxmax()
    wide = own[own.bits == bits].groupby("width").discrepancy.mean()
    if len(wide) > 1:
        by_width = listed([f"{number(value)} at width {width}" for width, value in wide.items()])
        text += f" At {bits} bits, independent positions deviate by {by_width} of the first layer."
    if coarse:
        text += (
            f" Width {COARSE} is left out: a prune there takes fewer weights of some layers than "
            "they have lines, so that nearly every draw counts as even."
        )
    rows = less[less.rate == "constant"] if len(less) else less
    if "higher" in set(rows.says if len(rows) else ()):
        text += (
            " Whole units and whole inputs deviate alike by construction, and alone, at constant "
            f"rates, units have the higher loss, by {estimates(rows)[0]}; this was not "
            "declared beforehand. So this measure of deviation alone does not predict the loss."
        )
    return text


def advantages(found: pd.DataFrame, cells: pd.DataFrame) -> dict[str, str]:
    """Design A': arrangements compared, and the luck of a rate."""
    if not len(found):
        empty = dict.fromkeys(("a_dose", "a_means", "a_compared"), "")
        return empty | {"a_state": "not run", "a_found": "  - No block was run."}
    keys = ["bits", "pruning", "rate"]
    dose = (
        "*Random at equal dose* prunes so much at once that as many weights become zero as with "
        "*conjunctive*. "
    )
    return {
        "a_dose": dose if mechanism.PRUNINGS[2] in set(found.pruning) else "",
        "a_state": f"{found.data_seed.nunique()} of {blocks.PLANNED} blocks, on "
        f"{listed(sorted(found.bits.unique()))} bits",
        "a_found": luck_found(found, cells),
        "a_means": of_frame(by_place(found, keys, mechanism.ARRANGEMENTS)),
        "a_compared": of_arrangements(found, cells, keys),
    }


def luck_found(found: pd.DataFrame, cells: pd.DataFrame) -> str:
    """Design A' as a list: the ring's advantage where rates wander, and at a constant rate."""
    said = []
    for bits, here in found.groupby("bits"):
        gaps = mechanism.advantages(here)
        gaps = gaps[gaps.contrast == "ring less isolated"].assign(words=estimates)
        words = gaps.set_index(["pruning", "rate", "outcome"]).words
        less, luck = mechanism.of_rates(here), mechanism.luck(cells[cells.bits == bits])
        for pruning, named in (("random", "With random pruning"), ("none", "Unpruned")):
            keys = [(pruning, rate, outcome) for outcome in OUTCOMES for rate in RATES]
            if here.data_seed.nunique() < blocks.PLANNED or words.index.isin(keys).sum() < 4:
                continue
            mean, mean_tuned, best, best_tuned = words.loc[keys]
            gap = less[(less.pruning == pruning) & (less.outcome == OUTCOMES[0])]
            differ = f"{estimates(gap)[0]} ({gap.says.iloc[0]})"
            own = luck[(luck.pruning == pruning) & (luck.place == "isolated")]
            explained = estimates(own, sign=False)[0]
            said.append(
                f"  - {named}, on {bits} bits: averaged over cells, the ring's loss less that of "
                f"isolated cells is {mean} where rates wander and {mean_tuned} at a constant, "
                f"tuned rate. These differ by {differ}. For the best cell they are {best} and "
                f"{best_tuned}. Mean rates explain {explained} of the variance between isolated "
                "cells, beyond chance."
            )
    return "\n".join(said) or "  - Not all blocks are run, so nothing is said yet."


def of_arrangements(found: pd.DataFrame, cells: pd.DataFrame, keys: list[str]) -> str:
    """The comparisons of design A', once one of its sizes has all blocks."""
    if found.groupby("bits").data_seed.nunique().max() < blocks.PLANNED:
        return f"Arrangements are compared when {blocks.PLANNED} blocks are there."
    tables = {
        "Arrangements, compared over blocks. *Neighbours* is the ring without selection less "
        "isolated cells, *selection* the ring less the ring without selection, and negative is "
        "better:": compared(mechanism.advantages(found), [*keys, "contrast", "outcome"]),
        "The ring's advantage with rates that wander, less its advantage with a constant, tuned "
        "rate:": compared(mechanism.of_rates(found), ["bits", "pruning", "outcome"]),
        "Where rates wander: the share of the differences in loss between the cells of a run that "
        "their mean rates explain, less what chance explains; it may be negative:": compared(
            mechanism.luck(cells), ["bits", "pruning", "place"]
        ),
    }
    return "\n\n".join(f"{words}\n\n{numbers}" for words, numbers in tables.items())


def compared(found: pd.DataFrame, keys: list[str]) -> str:
    """A table of `blocks.compared` in Markdown."""
    words = ["says"] if "says" in found else []
    found = found.assign(blocks=found["n"], estimate=estimates(found))
    return of_frame(found.reindex(columns=[*keys, "blocks", "estimate", *words]))


def guided(found: pd.DataFrame) -> dict[str, str]:
    """Operators against random pruning at equal sparsity, by the best cell: words and numbers."""
    if not len(found):
        return dict.fromkeys(("g_found", "guided"), "")
    where = ["dataset", "bits", "width", "place", "sparsity"]
    constant = found.groupby(where, as_index=False).constant_test_l1.mean()
    compared = pd.concat(
        mechanism.guided_less_random(found, name).assign(operator=name)
        for name in found.operator.unique()
        if name != "random"
    )
    compared = compared[compared.outcome == "best cell"].merge(constant, on=where)
    names = {"dataset": "data", "mean guided": "its loss", "mean random": "random"}
    names["constant_test_l1"] = "constant"
    shown = compared.sort_values(where, kind="stable").rename(columns=names)
    shown = shown.assign(zeros=shown.sparsity.map(share), difference=estimates(shown))
    columns = ["data", "bits", "width", "place", "zeros", "operator", "its loss", "random"]
    columns += ["constant", "difference", "says"]
    lines = []
    for operator, own in compared.groupby("operator", sort=False):
        lower = own[own.says == "lower"]
        dead = int((lower["mean random"] >= lower.constant_test_l1).sum())
        places = listed(sorted(own.place.unique()))
        worse = int((own["mean guided"] >= own.constant_test_l1).sum())
        higher = int((own.says == "higher").sum())
        lines.append([f"`{operator}`", places, len(own), len(lower), dead, higher, worse])
    head = ["operator", "place", "settings", "significantly lower than random"]
    head += ["of these, random no better than the constant", "significantly higher"]
    return {
        "g_found": "In how many settings each operator has a lower or higher loss than random "
        f"pruning:\n\n{table([*head, 'itself no better than the constant'], lines)}",
        "guided": of_frame(shown[columns]),
    }


def pairs(found: pd.DataFrame) -> dict[str, str]:
    """Operators with schedules: the best of each place, and the set that is not told from it."""
    if not len(found):
        return dict.fromkeys(("s_found", "s_pairs"), "")
    compared, said, averages = mechanism.best_pairs(found), [], []
    for place, group in compared.groupby("place", sort=False):
        best = group.iloc[0]
        same = group[group.says.isin(["open", "no difference as large as the margin"])]
        few = "there are too few blocks to tell any apart" if best["n"] < blocks.PLANNED else ""
        others = few or f"{count(len(same), 'pair')} cannot be told from it"
        said.append(
            f"{PLACES[place]}, the lowest test loss of the best cell is that of {best.operator}, "
            f"{best.when} ({number(best['mean'])}); {others}."
        )
        own = group.groupby("operator")["mean"].mean().sort_values()
        averages.append(
            f"Averaged over schedules, the operators {PLACES[place].lower()} have "
            f"{listed([f'{number(v)} ({k})' for k, v in own.items()])}."
        )
    shown = compared.rename(columns={"mean": "best cell"})
    shown["difference from the best"] = estimates(compared)
    columns = ["place", "operator", "when", "best cell", "difference from the best", "says"]
    return {
        "s_found": " ".join([*said, *averages]),
        "s_pairs": of_frame(shown[columns]),
    }
