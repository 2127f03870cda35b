"""The training loss of a batch, outside of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from lightning_nncf.calibration.data import CalibrationData
from lightning_nncf.errors import InitializationError

__all__ = ["computing_loss", "loss_of", "training_loss"]


@contextmanager
def computing_loss(network: nn.Module) -> Iterator[None]:
    """Let a network compute its training loss without noise, then restore its modes.

    Many networks compute their loss in training mode alone, so that is where they are; batch norm keeps the statistics
    it has and dropout drops nothing.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    >>> with computing_loss(network.eval()):
    ...     network.training, network[1].training
    (True, False)
    """
    training = {module: module.training for module in network.modules()}
    try:
        network.train()
        for module in network.modules():
            if isinstance(module, (_NormBase, _DropoutNd)):
                module.eval()
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def training_loss(data: CalibrationData, batch: Any) -> Tensor:
    """Return the loss of one batch, with its graph if gradients are enabled.

    Args:
        data: The data; its ``loss`` is asked, or ``forward`` where it has none.
        batch: One of its batches.

    Raises:
        InitializationError: Neither returns a loss.
    """
    return loss_of((data.loss or data.forward)(batch))


def loss_of(result: object) -> Tensor:
    """Return the loss in what running a batch returned.

    Raises:
        InitializationError: There is none.

    >>> import torch
    >>> loss_of({"loss": torch.tensor(1.0), "extra": 2})
    tensor(1.)
    """
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    raise InitializationError(
        f"the training loss of a batch is needed, but running one returned {type(loss).__name__} and no loss; use "
        "NNCFCallback with a `training_step` that returns the loss, or give `compress` a `loss`"
    )
