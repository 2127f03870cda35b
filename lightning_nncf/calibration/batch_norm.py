"""Adaptation of batch-norm statistics to a network whose weights or activations changed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_nncf.calibration.data import CalibrationData, run
from lightning_nncf.calibration.norms import Norm, frozen_norms, measurable, tracking_norms
from lightning_nncf.calibration.reduce import Reduce

__all__ = ["adapt_batch_norm"]


def adapt_batch_norm(network: nn.Module, data: CalibrationData, num_samples: int) -> int:
    """Let the batch norms of a network collect statistics, while everything else is in evaluation mode.

    The running statistics move by each layer's own momentum from where they are; those that are cumulative averages
    become the average of these data. Norms that training leaves alone are left alone. In several processes the
    statistics are averaged at the end, by the number of samples. Training flags are restored, also when a batch fails.

    A batch that has a single value per channel, as one sample behind global pooling, says nothing about a variance: a
    norm that meets it normalizes by the statistics that it has.

    Args:
        network: The network.
        data: The data, whose `forward` must call this network.
        num_samples: Number of samples per process; 0 does nothing.

    Returns:
        The number of samples that ran in this process; 0 if the network has no batch norm that trains.

    Raises:
        InitializationError: The data has no batch.
    """
    frozen = frozen_norms(network, data.owner) if data.frozen is None else data.frozen
    norms = {name: norm for name, norm in tracking_norms(network).items() if norm not in frozen}
    if not norms or num_samples <= 0:
        return 0
    training = {module: module.training for module in network.modules()}
    adapting = {name: _Adapting(norm) for name, norm in norms.items()}
    try:
        network.eval()
        with ExitStack() as stack:
            for norm, hook in zip(norms.values(), adapting.values(), strict=True):
                stack.callback(norm.register_forward_pre_hook(hook, with_kwargs=True).remove)
                stack.callback(hook.end)
                hook.begin()
            seen = run(data, num_samples, "Batch-norm adaptation")
    finally:
        for module, flag in training.items():
            module.training = flag
    _settle(adapting, seen, data.reduce)
    return seen


class _Adapting:
    """One norm while it collects statistics."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm
        self.calls = 0
        self.measured = 0
        self._batches = 0

    def begin(self) -> None:
        self.norm.training = True
        # a cumulative average over all of training would not move
        tracked = self.norm.num_batches_tracked
        if self.norm.momentum is None and tracked is not None:
            self._batches = int(tracked)
            tracked.zero_()

    def end(self) -> None:
        tracked = self.norm.num_batches_tracked
        if self._batches and tracked is not None:
            tracked += self._batches

    def __call__(self, norm: Norm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        self.calls += 1
        norm.training = isinstance(x, Tensor) and measurable(norm, x)
        self.measured += norm.training


def _settle(adapting: Mapping[str, _Adapting], seen: int, reduce: Reduce | None) -> None:
    """Average the statistics of all processes that have some, and name the norms that none of them has any for."""
    called = torch.tensor([float(each.calls > 0) for each in adapting.values()], dtype=torch.float64)
    weights = torch.tensor([float(seen * (each.measured > 0)) for each in adapting.values()], dtype=torch.float64)
    if reduce is not None:
        tensors = [
            part
            for each in adapting.values()
            for part in (each.norm.running_mean, each.norm.running_var)
            if part is not None
        ]
        shares = weights.repeat_interleave(2).tolist()
        weighted = [part.detach().double().cpu() * share for part, share in zip(tensors, shares, strict=True)]
        total = reduce(torch.cat([*weighted, called, weights]), "sum")
        *parts, called, weights = torch.split(total, [*map(len, tensors), len(called), len(weights)])
        for tensor, part, weight in zip(tensors, parts, weights.repeat_interleave(2).tolist(), strict=True):
            if weight:
                tensor.copy_(part / weight)
    without = [
        name
        for name, one, weight in zip(adapting, called.tolist(), weights.tolist(), strict=True)
        if one and not weight
    ]
    if without:
        rank_zero_warn(
            f"{len(without)} of {len(adapting)} batch norms, such as {without[0]!r}, kept their statistics in the "
            "adaptation: every batch gave them a single value per channel, which has no variance; use batches of more "
            "samples",
            category=UserWarning,
        )
