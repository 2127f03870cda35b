"""What all algorithms of a network have together: one loss, one number of batches per step, one set of statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.errors import ConfigError

__all__ = ["JointStatistics", "joint_batch_multiplier", "joint_loss", "no_loss"]


def joint_loss(losses: Mapping[str, Tensor]) -> Tensor | None:
    """Return the sum of losses by algorithm, shape [], or nothing if there are none."""
    return torch.stack([loss.reshape(()) for loss in losses.values()]).sum() if losses else None


def no_loss(network: nn.Module) -> Tensor:
    """Return a zero to add to the loss of a network, on its device and of its type, shape []."""
    first = next(network.parameters(), torch.empty(0))
    return torch.zeros((), device=first.device, dtype=first.dtype if first.is_floating_point() else None)


def joint_batch_multiplier(algorithms: Sequence[Algorithm]) -> int:
    """Return the number of batches whose gradients are to be accumulated before each optimizer step.

    Raises:
        ConfigError: The algorithms disagree.
    """
    wanted = {algorithm.batch_multiplier for algorithm in algorithms} - {1}
    if len(wanted) > 1:
        raise ConfigError(f"`params.batch_multiplier` must be the same in all algorithms, got {sorted(wanted)}")
    return wanted.pop() if wanted else 1


class JointStatistics:
    """The metrics of all algorithms.

    Args:
        algorithms: The algorithms.
    """

    def __init__(self, algorithms: Sequence[Algorithm]) -> None:
        self._algorithms = algorithms
        metrics = {name: metric for algorithm in algorithms for name, metric in algorithm.metrics().items()}
        self._metrics = MetricCollection(metrics) if metrics else None  # type: ignore[arg-type]

    def compute(self) -> dict[str, float]:
        """Return all statistics, as they are now, as plain numbers by name."""
        if self._metrics is None:
            return {}
        self._metrics.reset()
        observations: dict[str, Tensor] = {}
        for algorithm in self._algorithms:
            observations.update(algorithm.observations())
        self._metrics.update(**observations)
        return {name: float(value) for name, value in self._metrics.compute().items()}
