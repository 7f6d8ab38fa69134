"""Recurrent layers in a module's graph: which hidden units go together, are silent, or are read.

A hidden unit is silent if what it would be set to is always 0, and it begins at 0. Layers and
directions of one module keep equally many units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evoae.modules.graph import Node, name_of, shape_of, shapes_of
from evoae.networks.compaction import Known, zero_where

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
NEW = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}  # the gate that says what a unit becomes


@dataclass(frozen=True)
class Recurrent:
    """A call of a recurrent layer: nodes of its input, its states and its tensors.

    `layers`: for each layer and each direction, weights of inputs and of states, and biases.
    """

    kind: str
    x: Node
    states: list[Node]
    layers: list[list[list[Node]]]

    @property
    def units(self) -> int:
        """Hidden units of each layer and direction."""
        return shape_of(self.layers[0][0][1])[1]


def recurrent(node: Node) -> Recurrent | None:
    """A node as a call of a recurrent layer, or None: one with projections, or packed sequences."""
    kind = name_of(node.target)
    if kind not in GATES or getattr(node.target, "_overloadname", "") != "input":
        return None
    x, states, tensors, biased, layers, _, _, both_ways = node.args[:8]
    directions = 2 if both_ways else 1
    size = 4 if biased else 2
    if len(tensors) != layers * directions * size:
        return None
    parts = [list(tensors[k : k + size]) for k in range(0, len(tensors), size)]
    rows = [parts[k : k + directions] for k in range(0, len(parts), directions)]
    states = list(states) if isinstance(states, list | tuple) else [states]
    return Recurrent(kind, x, states, rows)


def couple(coupling: Any, node: Node, call: Recurrent, axes: Any) -> list[Any] | None:
    """Unite all that belongs to a hidden unit: its gates, and what reads them."""
    of_tensors, tensors = coupling.of_tensors, coupling.graph.tensors
    names = [[[tensors.get(each, "") for each in d] for d in layer] for layer in call.layers]
    if call.units == 1 or not all((d[1], 1) in of_tensors for layer in names for d in layer):
        return None
    given, inputs = coupling.axes[call.x], None
    for atoms in given.atoms:
        if coupling.varying(atoms) == {len(given.shape) - 1}:
            inputs = atoms.movedim(-1, 0).flatten(1)[:, 0]
        else:
            coupling.fix([atoms], f"{call.kind} reads them")
    units: list[Tensor] = []
    for layer in names:
        here = []
        for weight, states, *biases in layer:
            unit = of_tensors[states, 1]
            for each in (weight, states, *biases):
                coupling.unite(of_tensors[each, 0].view(GATES[call.kind], -1), unit)
            both = [each for each in (of_tensors.get((weight, 1)), inputs) if each is not None]
            if len(both) == 2:
                coupling.unite(*both)
            else:
                coupling.fix(both, f"{call.kind} reads them")
            here.append(unit)
        inputs = torch.cat(here)
        units += here
    table = torch.stack(units)
    coupling.keep_even(table)
    for state in call.states:
        begun = coupling.axes[state]
        if begun.free:
            continue
        if begun.atoms:
            coupling.unite(begun.atoms[0], table[:, None])
        else:
            coupling.fix([table], f"{call.kind} begins with what cannot shrink")
    first, *rest = shapes_of(node)
    assert inputs is not None
    return [axes(first, [inputs]), *(axes(shape, [table[:, None]]) for shape in rest)]


def silent(facts: Any, call: Recurrent) -> tuple[list[Tensor], list[Tensor]]:
    """Which inputs [in] of every layer are always 0, and which units [units], by direction too."""
    known = facts.known[call.x]
    inputs = known.zero.flatten(0, -2).all(0)
    begun = torch.stack([facts.known[s].zero.all(1) for s in call.states]).all(0)
    of_inputs, of_units, number = [], [], 0
    for layer in call.layers:
        here = []
        for weight, states, *biases in layer:
            rows = slice(NEW[call.kind] * call.units, (NEW[call.kind] + 1) * call.units)
            added = [facts.known[each].value[rows] for each in biases]
            zero = begun[number] & ~(facts.known[weight].value[rows] != 0)[:, ~inputs].any(1)
            if added:  # of gru, each by itself: a gate is between them
                zero &= (added[0] == 0) & (added[1] == 0) if call.kind == "gru" else sum(added) == 0
            links, before = facts.known[states].value[rows] != 0, None
            while before is None or not torch.equal(zero, before):
                before, zero = zero, zero & ~links[:, ~zero].any(1)
            here.append(zero)
            number += 1
        of_inputs.append(inputs)
        of_units += here
        inputs = torch.cat(here)
    return of_inputs, of_units


def known(facts: Any, node: Node, call: Recurrent) -> list[Known]:
    """What is known of the outputs, and of the last states: which are always 0."""
    _, units = silent(facts, call)
    first, *rest = shapes_of(node)
    last = torch.cat(units[-len(call.layers[0]) :]).expand(*first)
    zeros = [last, *(torch.stack(units)[:, None].expand(shape) for shape in rest)]
    return [zero_where(zero) for zero in zeros]


def look_back(facts: Any, node: Node, call: Recurrent, read: dict[int, Any]) -> None:
    """Which inputs, states and entries of weights the outputs depend on that are read."""
    of_inputs, of_units = silent(facts, call)
    directions, units = len(call.layers[0]), call.units
    needed = torch.zeros(len(of_units), units, dtype=torch.bool)
    for number, mask in read.items():
        if number == 0:
            needed[-directions:] |= mask.flatten(0, -2).any(0).view(directions, units)
        else:
            needed |= mask.any(1)
    needed &= ~torch.stack(of_units)
    for number in reversed(range(len(call.layers))):
        inputs = torch.zeros_like(of_inputs[number])
        for k, tensors in enumerate(call.layers[number], number * directions):
            inputs |= within(facts, tensors, of_inputs[number], of_units[k], needed[k])
        if number:
            needed[(number - 1) * directions : number * directions] |= inputs.view(directions, -1)
    facts.add(call.x, inputs)
    for state in call.states:
        facts.add(state, needed[:, None])


def within(facts: Any, tensors: list[Node], zero: Tensor, silent: Tensor, needed: Tensor) -> Tensor:
    """Add to `needed` [units] those that they read, in place. Returns which inputs they read."""
    weight, states, *biases = tensors
    nonzero = [facts.known[each].value != 0 for each in (weight, states)]
    links = nonzero[1].view(-1, len(needed), len(needed)).any(0) & ~silent
    before = None
    while before is None or not torch.equal(needed, before):
        before = needed.clone()
        needed |= links[needed].any(0)
    rows = needed.repeat(len(nonzero[0]) // len(needed))[:, None]
    for each, there, zeros in zip((weight, states), nonzero, (zero, silent), strict=True):
        facts.add(each, there & rows & ~zeros)
    for each in biases:
        facts.add(each, rows[:, 0])
    return nonzero[0][rows[:, 0]].any(0) & ~zero
