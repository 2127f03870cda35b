"""Adaptation of batch-norm statistics to a network whose weights or activations changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_nncf.calibration.data import CalibrationData, run
from lightning_nncf.calibration.reduce import Reduce

__all__ = ["adapt_batch_norm"]


def adapt_batch_norm(network: nn.Module, data: CalibrationData, num_samples: int) -> int:
    """Let the batch norms of a network collect statistics, while everything else is in evaluation mode.

    The running statistics move by each layer's own momentum from where they are. In several processes they are
    averaged at the end, by the number of samples. Training flags are restored, also when a batch fails.

    Args:
        network: The network.
        data: The data, whose `forward` must call this network.
        num_samples: Number of samples per process; 0 does nothing.

    Returns:
        The number of samples that ran in this process; 0 if the network has no batch norm.

    Raises:
        InitializationError: The data has no batch.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms or num_samples <= 0:
        return 0
    training = {module: module.training for module in network.modules()}
    try:
        network.eval()
        for norm in norms:
            norm.training = True
        seen = run(data, num_samples, "Batch-norm adaptation")
    finally:
        for module, flag in training.items():
            module.training = flag
    if data.reduce is not None:
        _average([part for norm in norms for part in (norm.running_mean, norm.running_var)], seen, data.reduce)
    return seen


def _average(tensors: list[Tensor | None], seen: int, reduce: Reduce) -> None:
    """Replace tensors by their mean over the samples of all processes, with one reduction."""
    present = [tensor for tensor in tensors if tensor is not None]
    flat = torch.cat([tensor.detach().flatten().double().cpu() for tensor in present])
    total = reduce(torch.cat([flat * seen, torch.tensor([seen], dtype=torch.float64)]), "sum")
    parts = torch.split(total[:-1] / total[-1], [tensor.numel() for tensor in present])
    for tensor, part in zip(present, parts, strict=True):
        tensor.copy_(part.reshape(tensor.shape))
