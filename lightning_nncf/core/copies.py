"""Copies of a network that its module holds beside it: a mean teacher, an average of its weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from lightning_nncf.errors import CheckpointError

__all__ = ["copies_of", "held_averages", "renew_averages"]


def copies_of(module: nn.Module, path: str, but: Collection[str | None] = ()) -> dict[str, str]:
    """Find the parts of a module that are built as its network is, or as what the network is in, and share nothing.

    A network that is a single layer has no copies: layers of one size are everywhere.

    Args:
        module: The LightningModule.
        path: Path of the network in it, not compressed yet.
        but: Paths of parts that are left out, as those that are compressed too.

    Returns:
        The path of each copy, and that of what it is a copy of.

    >>> student, teacher = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    >>> module = nn.ModuleDict({"student": student, "teacher": teacher, "head": nn.Sequential(nn.Linear(2, 1))})
    >>> copies_of(module, "student")
    {'teacher': 'student'}
    """
    found: dict[str, str] = {}
    names = path.split(".") if path else []
    for end in range(1, len(names) + 1):
        original = ".".join(names[:end])
        part = module.get_submodule(original)
        if not any(True for _ in part.children()):
            continue
        inside = {id(each) for each in part.modules()}
        for name, each in module.named_modules():
            outer = any(name.startswith(f"{known}.") for known in found)
            if id(each) not in inside and name not in but and not outer and _alike(each, part):
                found[name] = original
    return found


def held_averages(module: nn.Module, path: str, others: Collection[str | None] = ()) -> dict[str, str]:
    """Find each `torch.optim.swa_utils.AveragedModel` in a module that averages its network, or what this is in.

    Args:
        module: The LightningModule.
        path: Path of the network in it, not compressed yet.
        others: Paths of networks that are compressed, too. An average is of the one whose values it has.

    Returns:
        The path of each average, and that of what it averages.
    """
    found = [(*name.rpartition("."), original) for name, original in copies_of(module, path).items()]
    rivals = [module.get_submodule(other) for other in others if other is not None and other != path]
    averages = {}
    for holder, _, name, original in found:
        average = module.get_submodule(holder)
        if name != "module" or not isinstance(average, AveragedModel):
            continue
        if _equal(average.module, module.get_submodule(original)) or not any(_equal(average.module, r) for r in rivals):
            averages[holder] = original
    return averages


def renew_averages(module: nn.Module, averages: Mapping[str, str]) -> None:
    """Give averages of a network a copy of it as it is now, with the values that they had.

    An `AveragedModel` pairs all parameters and buffers by order, and demands as many on both sides.

    Args:
        module: The module that holds network and averages.
        averages: What `held_averages` found when the network was plain.

    Raises:
        CheckpointError: The module has no such averages; it is not the one that a checkpoint was saved of.
    """
    for name, original in averages.items():
        try:
            holder = module.get_submodule(name)
        except AttributeError:
            holder = module
        if not isinstance(holder, AveragedModel):
            raise CheckpointError(
                f"the checkpoint was saved of a module with an `AveragedModel` of its network as {name!r}, which "
                f"{type(module).__name__} lacks"
            )
        holder.module = _like(holder.module, module.get_submodule(original))


@torch.no_grad()
def _like(earlier: nn.Module, part: nn.Module) -> nn.Module:
    """Return a copy of a part that is, in all that both have, as another copy was before the part was compressed."""
    renewed = copy.deepcopy(part).to(next(earlier.parameters()).device)
    renewed.train(earlier.training)
    for name, each in earlier.named_modules():
        renewed.get_submodule(name).training = each.training
    own = dict(earlier.named_parameters())
    frozen = not any(parameter.requires_grad for parameter in own.values())
    for name, parameter in renewed.named_parameters():
        parameter.requires_grad_(own[name].requires_grad if name in own else parameter.requires_grad and not frozen)
    values = {**own, **dict(earlier.named_buffers())}
    for name, tensor in (*renewed.named_parameters(), *renewed.named_buffers()):
        if name in values and values[name].shape == tensor.shape:  # filters may be gone
            tensor.data = values[name].clone()
    return renewed


def _alike(part: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are built alike and share nothing."""
    if type(part) is not type(other) or _shapes(part) != _shapes(other):
        return False
    own = {id(tensor) for tensor in (*other.parameters(), *other.buffers())}
    return own.isdisjoint(id(tensor) for tensor in (*part.parameters(), *part.buffers()))


def _equal(part: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters of two modules have the same values."""
    own, values = list(part.parameters()), list(other.parameters())
    return len(own) == len(values) and all(map(torch.equal, own, values))


def _shapes(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    tensors = (*network.named_parameters(), *network.named_buffers())
    return [(name, tuple(tensor.shape)) for name, tensor in tensors if not is_lazy(tensor)]
