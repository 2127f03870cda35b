"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import lr_scheduler as schedules

__all__ = ["OptimizerName", "ScheduleName", "check_schedule", "group_parameters", "make_optimizer", "make_schedule"]

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "cosine", "multistep", "step", "plateau", "poly", "exponential"]

_OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
_SCHEDULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "constant": (schedules.ConstantLR, {"factor": 1.0}),
    "cosine": (schedules.CosineAnnealingLR, {}),
    "multistep": (schedules.MultiStepLR, {"gamma": 0.1}),
    "step": (schedules.StepLR, {"step_size": 30, "gamma": 0.1}),
    "plateau": (schedules.ReduceLROnPlateau, {"mode": "max", "threshold_mode": "abs", "threshold": 1e-3}),
    "poly": (schedules.PolynomialLR, {"power": 0.9}),
    "exponential": (schedules.ExponentialLR, {"gamma": 0.1}),
}
# What spans the whole training unless it is told otherwise.
_LENGTHS = {"cosine": "T_max", "poly": "total_iters"}


def make_optimizer(name: OptimizerName, groups: Iterable[dict[str, Any]], **arguments: Any) -> Optimizer:
    """Make an optimizer.

    Args:
        name: ``sgd``, ``adam`` or ``adamw``.
        groups: Parameter groups, see `group_parameters`.
        **arguments: Its arguments; momentum and nesterov are left out for others than SGD.
    """
    if name != "sgd":
        arguments = {key: value for key, value in arguments.items() if key not in ("momentum", "nesterov")}
    return _OPTIMIZERS[name](groups, **arguments)


def group_parameters(module: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    r"""Sort the parameters of a module into groups by their names.

    Args:
        module: The module.
        groups: For each group a regular expression ``re`` that is searched in the names, and its own settings such as
            ``lr`` and ``weight_decay``. The first group that matches takes a parameter.

    Returns:
        What an optimizer takes: the groups in their order, then one with all other parameters, if there are any.

    Raises:
        ValueError: A group has no ``re``, or one that matches nothing.

    >>> groups = group_parameters(nn.Linear(2, 3), [{"re": "bias$", "weight_decay": 0.0}])
    >>> [(len(group["params"]), group.get("weight_decay")) for group in groups]
    [(1, 0.0), (1, None)]
    """
    sorted_groups: list[dict[str, Any]] = []
    for group in groups:
        if "re" not in group:
            raise ValueError(
                f"each of `parameter_groups` needs `re`, a regular expression for names; got {dict(group)}"
            )
        sorted_groups.append({"params": [], **{key: value for key, value in group.items() if key != "re"}})
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        index = next((i for i, group in enumerate(groups) if re.search(group["re"], name)), None)
        (rest if index is None else sorted_groups[index]["params"]).append(parameter)
    empty = [group["re"] for group, taken in zip(groups, sorted_groups, strict=True) if not taken["params"]]
    if empty:
        raise ValueError(f"no parameter is left for `parameter_groups` with {', '.join(map(repr, empty))}")
    return [*sorted_groups, {"params": rest}] if rest else sorted_groups


def check_schedule(name: ScheduleName, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a schedule does not have.

    Raises:
        ValueError: There are some, or one is missing.

    >>> check_schedule("multistep", {"steps": [10]})
    Traceback (most recent call last):
    ...
    ValueError: `schedule_args` of 'multistep' may be gamma, milestones, got 'steps'
    """
    make, defaults = _SCHEDULES[name]
    parameters = inspect.signature(make).parameters
    known = sorted(set(parameters) - {"optimizer", "last_epoch", "verbose"})
    for key in arguments:
        if key not in known:
            raise ValueError(f"`schedule_args` of {name!r} may be {', '.join(known)}, got {key!r}")
    given = {*arguments, *defaults, _LENGTHS.get(name, "")}
    missing = [key for key in known if parameters[key].default is inspect.Parameter.empty and key not in given]
    if missing:
        raise ValueError(f"`schedule_args` of {name!r} must hold {', '.join(missing)}, got {dict(arguments)}")


def make_schedule(name: ScheduleName, optimizer: Optimizer, epochs: int, arguments: Mapping[str, Any]) -> Any:
    """Make a learning-rate schedule that is stepped once per epoch.

    Args:
        name: ``constant``; ``cosine`` and ``poly``, which fall to zero in the given epochs; ``multistep``, ``step`` and
            ``exponential``, which multiply by ``gamma``; ``plateau``, which does so where accuracy, from 0 to 1, does
            not rise by more than ``threshold``.
        optimizer: Its optimizer.
        epochs: Epochs of the training.
        arguments: Arguments of PyTorch's class.
    """
    make, defaults = _SCHEDULES[name]
    length = {_LENGTHS[name]: max(epochs, 1)} if name in _LENGTHS else {}
    return make(optimizer, **{**length, **defaults, **arguments})
