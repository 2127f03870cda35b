"""Leave a network as it was found: flags, buffers, metrics and random number generators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["MetricStates", "preserved"]


class MetricStates:
    """The states of torchmetrics' metrics, noted when first met and written back by `restore`.

    Metrics are recognised by their attributes and kept by identity: the hash of a metric changes with its state.
    """

    def __init__(self) -> None:
        self._states: dict[int, tuple[nn.Module, dict[str, Any]]] = {}

    def note(self, module: nn.Module) -> None:
        """Remember the state of a module if it is a metric that was not met before."""
        defaults = module.__dict__.get("_defaults")
        if not isinstance(defaults, dict) or "_update_count" not in module.__dict__ or id(module) in self._states:
            return
        names = (*defaults, "_update_count", "_computed", "_forward_cache", "_update_called")
        state = {name: _copied(module.__dict__[name]) for name in names if name in module.__dict__}
        self._states[id(module)] = (module, state)

    def restore(self) -> None:
        """Write all remembered states back."""
        for module, state in self._states.values():
            module.__dict__.update(state)
        self._states.clear()


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return [_copied(item) for item in value] if isinstance(value, list) else value


@contextlib.contextmanager
def preserved(network: nn.Module, *, batch_norm: bool = True) -> Iterator[MetricStates]:
    """Restore training flags, buffers, metrics and torch's random number generators at the end.

    Args:
        network: Module whose submodules are covered.
        batch_norm: Whether the statistics of batch norms and the buffers of inserted modules are restored too; not so
            while compression is initialized, which is what sets them.

    Yields:
        The collection of metric states, to note metrics outside the network.
    """
    flags = [(module, module.training) for module in network.modules()]
    buffers = [
        (module._buffers, name, buffer, None if buffer is None else buffer.detach().clone())
        for path, module in network.named_modules()
        if batch_norm or not (isinstance(module, _NormBase) or "lnncf_" in path)
        for name, buffer in module._buffers.items()
    ]
    metrics = MetricStates()
    for module, _ in flags:
        metrics.note(module)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield metrics
    finally:
        for module, training in flags:
            module.training = training
        with torch.no_grad():
            for owner, name, buffer, value in buffers:
                if buffer is not None and value is not None and buffer.shape == value.shape:
                    buffer.copy_(value)
                    owner[name] = buffer
                else:
                    owner[name] = value
        metrics.restore()
