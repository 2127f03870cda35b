"""The parameters that compression adds to a network, among those that it had."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_nncf.hooks.insertion import inserted

__all__ = ["UndecayedStep", "added_parameters", "compression_parameter_groups"]


def added_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of quantizers, masks and all else that is inserted in a module, each once."""
    found = {id(each): each for _, _, part in inserted(module) for each in part.parameters()}
    return list(found.values())


def compression_parameter_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    compression_lr: float | None = None,
    compression_weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: what a module had, and what compression adds to it.

    Args:
        module: The module, in its ``configure_optimizers``; compressed or not.
        lr: Learning rate.
        weight_decay: Weight decay of what the module had.
        compression_lr: Learning rate of what compression adds. Default: ``lr``.
        compression_weight_decay: Weight decay of what compression adds.

    Returns:
        One group, or two where something was added; parameters without gradients are left out.

    >>> [group["weight_decay"] for group in compression_parameter_groups(nn.Linear(1, 1), lr=0.1, weight_decay=0.01)]
    [0.01]
    """
    added = [each for each in added_parameters(module) if each.requires_grad]
    known = {id(each) for each in added}
    own = [each for each in module.parameters() if each.requires_grad and id(each) not in known]
    groups: list[dict[str, Any]] = [{"params": own, "lr": lr, "weight_decay": weight_decay}]
    if added:
        rate = lr if compression_lr is None else compression_lr
        groups.append({"params": added, "lr": rate, "weight_decay": compression_weight_decay})
    return groups


class UndecayedStep:
    """Keeps weight decay off what compression adds, for the time of an optimizer's step.

    The optimizer's groups are those of its owner before and after, for schedules, loggers and checkpoints. In between,
    a group that decays weights of the network too is without what was added, which is in a group beside it. One that
    holds nothing else was made for it, and is left as it is.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._parted: list[tuple[Any, dict[str, Any], list[Any]]] = []

    def begin(self, optimizer: Optimizer) -> None:
        """Part the groups of an optimizer that is about to step."""
        self.end(optimizer)  # an error may have kept it from being called
        added = {id(each) for each in added_parameters(self._network)}
        for group in list(optimizer.param_groups) if added else ():
            parameters = group["params"]
            mine = [each for each in parameters if id(each) in added]
            if not group.get("weight_decay") or not mine or len(mine) == len(parameters):
                continue
            self._parted.append((optimizer.param_groups, group, parameters))
            optimizer.param_groups.append({**group, "params": mine, "weight_decay": 0.0})
            group["params"] = [each for each in parameters if id(each) not in added]

    def end(self, optimizer: Optimizer) -> None:
        """Give the groups back as they were."""
        ours = [parted for parted in self._parted if parted[0] is optimizer.param_groups]
        self._parted = [parted for parted in self._parted if parted[0] is not optimizer.param_groups]
        for groups, group, parameters in ours:
            groups.pop()
            group["params"] = parameters
