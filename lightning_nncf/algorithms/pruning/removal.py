"""Physical removal of masked units: slices parameters, buffers and optimizer state, and adjusts attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nncf.algorithms.pruning.insertions import beside_weights, channelwise
from lightning_nncf.algorithms.pruning.optimizer_state import slice_state
from lightning_nncf.dependencies.groups import Structure
from lightning_nncf.errors import HookError

__all__ = ["Keep", "kept_entries", "left_of", "shrink"]

Keep = dict[tuple[str, int], NDArray[np.bool_]]
"""``(parameter, dim)`` to what stays along it, in full size."""


def kept_entries(structure: Structure, masks: Sequence[Tensor], *, activations: bool = False) -> Keep:
    """Return what of each parameter and buffer stays.

    Args:
        structure: The groups.
        masks: For each group which units stay, [units] of bool.
        activations: Return what stays of the tensors between layers instead, by place and axis.
    """
    keep: Keep = {}
    for group, mask in zip(structure.groups, masks, strict=True):
        stays = mask.cpu().numpy()
        for member in group.activations if activations else group.members:
            entry = keep.setdefault((member.name, member.dim), np.ones(member.size, dtype=np.bool_))
            entry[member.positions] = stays[member.units]
    return keep


def left_of(
    structure: Structure, masks: Sequence[Tensor], sizes: Mapping[str, Sequence[int]]
) -> Callable[[str, int], int]:
    """Return a function that tells how many entries are left along one dimension of a parameter.

    Args:
        structure: The groups.
        masks: For each group which units stay.
        sizes: Full shapes of the parameters, for dimensions that no group touches.
    """
    counts = {key: int(entry.sum()) for key, entry in kept_entries(structure, masks).items()}
    return lambda name, dim: counts.get((name, dim), sizes[name][dim])


def shrink(
    network: nn.Module,
    structure: Structure,
    masks: Sequence[Tensor],
    *,
    present: Sequence[Tensor] | None = None,
    optimizers: Iterable[Optimizer] = (),
) -> None:
    """Remove units from a network in place; parameters stay the same objects with less in them.

    Args:
        network: The network.
        structure: Its groups.
        masks: For each group which units stay, [units] of bool.
        present: Which units the network still has; default: all. A network of other sizes than these is given zeros
            in the sizes it should have, for weights that are loaded next.
        optimizers: Optimizers whose state is sliced with the parameters.

    Raises:
        HookError: An inserted module or an optimizer keeps a tensor that cannot be sliced.
    """
    present = present or [torch.ones_like(mask) for mask in masks]
    before, after = (kept_entries(structure, each) for each in (present, masks))
    tensors: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    tensors.update(network.named_buffers(remove_duplicate=False))
    dims: dict[str, dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {}
    for (name, dim), old in before.items():
        dims.setdefault(name, {})[dim] = (old, after[name, dim])
    beside = beside_weights(network)
    for name, changes in dims.items():
        tensor = tensors[name]
        sizes = {dim: int(old.sum()) for dim, (old, _) in changes.items()}
        if all(tensor.shape[dim] == size for dim, size in sizes.items()):
            index = {dim: torch.from_numpy(np.flatnonzero(new[old])) for dim, (old, new) in changes.items()}
            index = {dim: each for dim, each in index.items() if each.numel() != tensor.shape[dim]}
            for other in beside.get(name, ()):
                _check_beside(name, other, sizes)
                fitting = {dim: each for dim, each in index.items() if other.shape[dim] == sizes[dim]}
                _slice(other, fitting, optimizers)
            _slice(tensor, index, optimizers)
        else:
            shape = [int(changes[dim][1].sum()) if dim in changes else size for dim, size in enumerate(tensor.shape)]
            tensor.grad = None
            _replace(tensor, torch.zeros(shape, dtype=tensor.dtype, device=tensor.device))
    between = channelwise(network)
    keep = kept_entries(structure, masks, activations=True)
    for (place, axis), old in kept_entries(structure, present, activations=True).items():
        index = {axis: torch.from_numpy(np.flatnonzero(keep[place, axis][old]))}
        for tensor in between.get(place, ()):
            if axis < tensor.ndim and tensor.shape[axis] == old.sum() != index[axis].numel():
                _slice(tensor, index, optimizers)
    _update_links(network, structure, tensors)


def select(tensor: Tensor, index: Mapping[int, Tensor]) -> Tensor:
    """Take entries along several dimensions and keep the memory format.

    >>> select(torch.arange(6).reshape(2, 3), {0: torch.tensor([1]), 1: torch.tensor([0, 2])})
    tensor([[3, 5]])
    """
    channels_last = (
        tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    result = tensor
    for dim, chosen in index.items():
        result = result.index_select(dim, chosen.to(tensor.device))
    return result.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _slice(tensor: Tensor, index: Mapping[int, Tensor], optimizers: Iterable[Optimizer]) -> None:
    """Slice a parameter or buffer, its gradient and what optimizers remember of it."""
    if not index:
        return
    gradient = tensor.grad if tensor.is_leaf else None
    for optimizer in optimizers:
        slice_state(optimizer, tensor, lambda state: select(state, index))
    tensor.grad = None
    _replace(tensor, select(tensor.data, index))
    if gradient is not None:
        tensor.grad = select(gradient, index)


def _check_beside(name: str, tensor: Tensor, sizes: Mapping[int, int]) -> None:
    """Refuse a tensor that has neither one value for a sliced dimension of its weight nor one per entry.

    Raises:
        HookError: It has values for blocks of entries.
    """
    if any(tensor.shape[dim] not in (1, size) for dim, size in sizes.items()):
        raise HookError(
            f"a module inserted at {name} keeps a tensor of shape {list(tensor.shape)} for blocks of the weight, which "
            "cannot be sliced when filters are removed; put the layer into `ignored_scopes` of one of the algorithms"
        )


def _replace(tensor: Tensor, data: Tensor) -> None:
    """Give a tensor other data of another shape.

    What autograd knows of a leaf's shape lives as long as any graph that the leaf was in, such as that of the last
    loss. It lets go of it when the dtype changes, so the data is of another one in between.
    """
    between = torch.float64 if tensor.dtype == torch.float16 else torch.float16
    tensor.data = torch.empty(0, dtype=between, device=tensor.device)
    tensor.data = data


def _update_links(network: nn.Module, structure: Structure, tensors: Mapping[str, Tensor]) -> None:
    """Set the attributes of modules that follow the size of a parameter."""
    for link in structure.links:
        module = network.get_submodule(link.module)
        setattr(module, link.attribute, tensors[link.parameter].shape[link.dim] // link.divisor * link.factor)
