"""What a Pruner refuses or warns of, before it changes anything."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from evoae.experiment import Experiment
from evoae.messages import short, words
from evoae.modules.layers import Part, Target
from evoae.modules.plain import why_computed
from evoae.pruning.operators import Operator

GRANULARITIES = ("weight", "unit")


def names_of(parts: list[Part]) -> str:
    """Names of tensors, as in a state dict."""
    return ", ".join(target.tensors[part].names[0] for target, part in parts)


def frozen(parts: list[Part]) -> list[Part]:
    """The tensors that do not train."""
    return [(t, part) for t, part in parts if not t.tensors[part].value.requires_grad]


def check_frozen(operator: str, with_gradients: list[Part], parts: list[Part]) -> None:
    """Raise ValueError if an operator needs gradients that frozen tensors do not have.

    Other operators prune what is frozen all the same: a warning says so.
    """
    if never := frozen(with_gradients):
        raise ValueError(
            f"operator {operator} needs gradients; frozen (requires_grad=False): "
            f"{names_of(never)}. Leave the layer out with exclude=, or let it train"
        )
    if never := frozen(parts):
        warnings.warn(
            "frozen parameters (requires_grad=False) will be pruned nevertheless: "
            f"{names_of(never)}. Leave the layer out with exclude= if it must not change",
            stacklevel=3,
        )


def check_gradients(
    operator: str, with_gradients: list[Part], reached: list[Part], parts: list[Part]
) -> None:
    """Raise ValueError if an operator needs gradients, and no backward pass reached a tensor.

    A layer may have been frozen later, or its output not be part of the loss.
    """
    if unseen := [part for part in with_gradients if part not in reached]:
        never = names_of(frozen(parts))
        raise ValueError(
            f"operator {operator} needs gradients, and no backward pass reached {names_of(unseen)}"
            + (f" (frozen: {never})" if never else "")
            + ": train the layer first, or leave it out by exclude="
        )


def check_granularity(granularity: str, operator: str, e: Experiment) -> None:
    """Raise ValueError for a granularity that is unknown, or that an operator does not have."""
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity={short(granularity)} must be weight or unit")
    if granularity == "weight" or e.resolved_operator.idle:
        return
    if e.resolved_operator.score is None:
        raise ValueError(
            f"granularity=unit needs an operator with a score; operator={operator} has none"
        )
    if e.drop_fraction:
        raise ValueError(f"drop_fraction={e.drop_fraction} needs granularity=weight")


def check_seen(operator: str, needs: Collection[str], targets: list[Target]) -> None:
    """Raise ValueError if calls of layers do not show what an operator looks at."""
    for statistic in sorted(needs):
        if unseen := [t.name or "the module" for t in targets if not t.sees(statistic)]:
            raise ValueError(
                f"operator {operator} reads {statistic}, which cannot be seen of "
                f"{', '.join(unseen)}: leave them out by exclude="
            )


def check_computed(targets: list[Target]) -> None:
    """Raise ValueError for tensors that others compute, where nothing is masked."""
    for target in targets:
        for tensor in target.tensors.values():
            if tensor.stored is None:
                why = why_computed(tensor.holders[0][0])
                where = f"layer {target.name}" if target.name else "the module"
                raise ValueError(f"{where} needs pruned_weights=masked, as {why}; or exclude it")


def check_relu(targets: list[Target], has_target: bool) -> None:
    """Say where `apoz` would count zeros that no ReLU makes.

    To reach a target it would prune units there that all rank equally, at random: ValueError,
    except for an output layer, which usually has no ReLU: there a warning. Without a target it
    prunes no unit that was never zero: a warning names the layers that stay whole.
    """
    inner = ", ".join(each.name for each in targets if not (each.relu or each.is_output))
    outputs = ", ".join(each.name for each in targets if each.is_output and not each.relu)
    cure = "name the layers that ReLU follows in relu=, or leave them out by exclude="
    if inner and has_target:
        raise ValueError(
            "operator apoz counts how often a ReLU gives zero, but there is no ReLU after "
            f"{inner}: {cure}"
        )
    if inner:
        warnings.warn(
            f"operator apoz finds no ReLU after {inner} and prunes nothing there: {cure}",
            stacklevel=3,
        )
    if outputs and has_target:
        warnings.warn(
            f"operator apoz finds no ReLU after the output layer {outputs}: it prunes some of its "
            "units at random to reach the target; exclude= leaves the layer out",
            stacklevel=3,
        )


def check_examples(x: Any, operator: Operator, run: Callable[[Tensor], None]) -> bool:
    """Whether there are examples. Raises ValueError for what the module does not take in `run`."""
    if x is None:
        return False
    if not isinstance(x, Tensor):
        raise ValueError(
            f"examples must be a tensor of rows, [n, ...]; it is of type {type(x).__name__}"
        )
    if not x.dim() or not len(x):
        return False
    # a function that does not say what it reads may not recall
    if operator.needs is not None and "recall" in operator.needs:
        try:
            with torch.random.fork_rng():
                run(x[:2])
        except Exception as error:  # whatever the module raises on rows that do not fit it
            raise ValueError(
                f"the module does not take examples, {list(x.shape)} of {x.dtype}: {words(error)}"
            ) from error
    return True


def warn_of_one_memory(targets: list[Target]) -> None:
    """Warn of parameters that are two and lie in one memory, as `b.data = a.data.T` leaves them."""
    names: dict[tuple[int, int], str] = {}
    for tensor in (each for target in targets for each in target.tensors.values()):
        if (parameter := tensor.stored) is None:
            continue
        first = names.setdefault((parameter.data_ptr(), parameter.numel()), tensor.names[0])
        if first != tensor.names[0]:
            warnings.warn(
                f"{first} and {tensor.names[0]} are two parameters in one memory: both count, and "
                "what is pruned of one is zero in the other. Make them one parameter instead",
                stacklevel=3,
            )


def warn_of_averages(module: nn.Module) -> None:
    """Warn of an `AveragedModel` that was made of a module before it has masks.

    It averages what lies behind them. It does not know its module, nor the module it: so all that
    there are of the same class and shapes, and not in use yet, are found.
    """
    own = {name: parameter.shape for name, parameter in module.named_parameters()}
    for each in gc.get_referrers(AveragedModel):
        if type(each) is AveragedModel and each.n_averaged == 0:
            theirs = {name: p.shape for name, p in each.module.named_parameters()}
            if theirs == own and type(each.module) is type(module):
                warnings.warn(
                    "an AveragedModel was made before the Pruner and has no masks: make it after "
                    "the Pruner",
                    stacklevel=3,
                )
