"""The copy of a network that is exported, and the calls it is exported with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from lightning_nncf.errors import ExportError
from lightning_nncf.export.structure import flatten, rebuild
from lightning_nncf.hooks.notices import take_down

__all__ = ["FlatNetwork", "cpu_copy", "cpu_inputs", "double_batch", "float_inputs", "require_finite"]


def cpu_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the CPU, in float32 and eval mode; the network stays as it is."""
    copied = copy.deepcopy(network).cpu().float().eval()
    for module in copied.modules():
        take_down(module)
    return copied


def require_finite(network: nn.Module) -> None:
    """Refuse a network whose training went wrong, before runtimes complain about what came of it.

    Buffers may hold infinities on purpose, as masks of attention do, but no NaN; statistics of batch norms neither, and
    no negative variance.

    Raises:
        ExportError: A parameter is NaN or infinite, or a buffer is not what it must be; the first ones are named.
    """
    bad = [name for name, parameter in network.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if bad:
        raise ExportError(
            f"{len(bad)} parameters are NaN or infinite, as {_few(bad)}: training diverged. Load an earlier "
            "checkpoint, or train again with a lower learning rate or clipped gradients"
        )
    bad = [name for name, buffer in network.named_buffers() if bool(torch.isnan(buffer).any())]
    variances = []
    for path, module in network.named_modules():
        for name in ("running_mean", "running_var"):
            statistics = getattr(module, name, None)
            if not isinstance(module, _BatchNorm) or not isinstance(statistics, Tensor):
                continue
            full = f"{path}.{name}" if path else name
            if not bool(torch.isfinite(statistics).all()):
                bad.append(full)
            elif name == "running_var" and bool((statistics < 0).any()):
                variances.append(full)
    bad = list(dict.fromkeys(bad))
    if bad:
        raise ExportError(
            f"{len(bad)} buffers are NaN or infinite, as {_few(bad)}: a batch with such values went through the "
            "network in training mode. Load an earlier checkpoint, or look for NaN in the data"
        )
    if variances:
        raise ExportError(
            f"{len(variances)} variances are negative, as {_few(variances)}: nothing that training computes. Load an "
            "earlier checkpoint, or call reset_running_stats() on these layers and run a few batches in training mode"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3])


def float_inputs(tensor: Any) -> Any:
    """Return a detached CPU tensor, floating-point values in float32; anything but a tensor is returned as it is."""
    if not isinstance(tensor, Tensor):
        return tensor
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor


def cpu_inputs(inputs: tuple[Sequence[Any], Mapping[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return ``(args, kwargs)`` with all tensors on the CPU and floating-point ones in float32."""
    args, kwargs = inputs
    return tuple(tree_map(float_inputs, tuple(args))), dict(tree_map(float_inputs, dict(kwargs)))


def double_batch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Repeat a batch of one, because exporters take a size of one for a constant.

    The batch size is the first size of the first tensor; tensors that share it are repeated.

    >>> [tuple(t.shape) for t in double_batch([torch.zeros(1, 3), torch.zeros(5)])]
    [(2, 3), (5,)]
    """
    batched = [tensor.ndim > 0 and tensor.shape[0] == 1 for tensor in tensors]
    if not batched or not batched[0]:
        return list(tensors)
    return [torch.cat([t, t]) if repeat else t for t, repeat in zip(tensors, batched, strict=True)]


class FlatNetwork(nn.Module):
    """A network behind flat tensors: the form that is exported.

    Args:
        network: The network.
        inputs: Structure of ``(args, kwargs)``.
        restart: Called at the start of each pass, if given.
    """

    def __init__(
        self, network: nn.Module, inputs: Mapping[str, Any], restart: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.structure: dict[str, Any] = {}
        self._inputs = inputs
        self._restart = restart

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call the network and return the tensors of its output; `structure` then describes the output."""
        if self._restart is not None:
            self._restart()
        args, kwargs = rebuild(self._inputs, tensors)
        found, self.structure = flatten(self.network(*args, **kwargs))
        return tuple(found)
