"""Norms with running statistics: which there are, which of them train, and what they can measure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

__all__ = ["Norm", "frozen_norms", "measurable", "tracking_norms", "values_per_channel"]

Norm = _NormBase
"""A batch norm of any kind, or an instance norm."""


def tracking_norms(network: nn.Module) -> dict[str, Norm]:
    """Return the norms of a network that keep running statistics, by name.

    A lazy norm that never saw an input has none yet.

    >>> network = nn.Sequential(nn.BatchNorm2d(2), nn.InstanceNorm2d(2), nn.LazyBatchNorm1d())
    >>> list(tracking_norms(network))
    ['0']
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        and module.track_running_stats
        and module.running_mean is not None
        and module.running_var is not None
        and not is_lazy(module.running_mean)
    }


def frozen_norms(network: nn.Module, owner: nn.Module | None = None) -> frozenset[nn.Module]:
    """Return the norms whose running statistics training leaves as they are.

    Those are norms that stay in evaluation mode where the owner's own ``train()`` puts everything else in training
    mode, as many detectors do with their backbones, and those that someone put in evaluation mode by hand in a network
    that otherwise trains. All modes are restored.

    Args:
        network: The network, in the modes that it has outside of calibration.
        owner: The module whose ``train()`` training calls, which holds the network; default: the network.

    >>> network = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    >>> [frozen] = frozen_norms(nn.Sequential(network[0].eval(), network[1]))
    >>> frozen is network[0]
    True
    """
    norms = list(tracking_norms(network).values())
    by_hand = {norm for norm in norms if network.training and not norm.training}
    root = network if owner is None else owner
    with _same_modes(root), _same_modes(network):
        root.train()
        return frozenset(by_hand | {norm for norm in norms if not norm.training})


def values_per_channel(norm: Norm, x: Tensor) -> int:
    """Return over how many values a norm takes the statistics of one channel.

    >>> values_per_channel(nn.BatchNorm2d(3), torch.ones(2, 3, 4, 4))
    32
    >>> values_per_channel(nn.InstanceNorm2d(3, track_running_stats=True), torch.ones(2, 3, 4, 4))
    16
    """
    if x.numel() == 0:
        return 0
    if isinstance(norm, _InstanceNorm):
        return math.prod(x.shape[channel_axis(norm, x) + 1 :])
    return x.numel() // x.shape[1]


def measurable(norm: Norm, x: Tensor) -> bool:
    """Whether a norm can take statistics of an input; one value per channel has no variance.

    Norms that are synchronized over processes see the values of all of them, so all must take the same way.
    """
    if isinstance(norm, nn.SyncBatchNorm) and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(norm.process_group) > 1 or values_per_channel(norm, x) > 1
    return values_per_channel(norm, x) > 1


def channel_axis(norm: Norm, x: Tensor) -> int:
    """Return the axis of the channels: instance norms take single samples too."""
    if not isinstance(norm, _InstanceNorm):
        return 1
    without_batch: int = norm._get_no_batch_dim()  # type: ignore[no-untyped-call]
    return 0 if x.ndim == without_batch else 1


@contextmanager
def _same_modes(module: nn.Module) -> Iterator[None]:
    """Restore training flags in the end."""
    flags = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, flag in flags:
            each.training = flag
