"""What a training loss is made of, collected over an epoch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["LossRecord"]


class LossRecord:
    """Means of the losses of an epoch by name.

    Sums stay on their device until somebody asks, so that no step waits for them; torchmetrics' means would.

    >>> import torch
    >>> record = LossRecord()
    >>> record.add("task", torch.tensor(1.0)); record.add("task", torch.tensor(2.0))
    >>> record.means()
    {'task': 1.5}
    >>> record.clear()
    >>> record.means()
    {'task': 0.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, name: str, loss: Tensor) -> None:
        """Take the loss of one batch, of a single element."""
        value = loss.detach().reshape(())
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + value, count + 1)

    def clear(self) -> None:
        """Begin a new epoch, in which a loss that comes no more is zero: loggers would show its latest value on."""
        self._sums = dict.fromkeys(self._sums, (0.0, 0))

    def means(self) -> dict[str, float]:
        """Return the mean of each loss so far."""
        return {name: float(total) / max(count, 1) for name, (total, count) in self._sums.items()}
