"""A score of the network by the module's own validation step, outside of the validation loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.data import extract_batch_size
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_nncf.callback.loaders import TrainBatches
from lightning_nncf.callback.steps import defines
from lightning_nncf.callback.wrappers import Instead, unwrap, wrap
from lightning_nncf.errors import ConfigError, near

__all__ = ["ValidationScore"]


class ValidationScore:
    """Runs validation steps on a share of the validation batches and returns one of the metrics that they log.

    The metric is the one asked for, else the one that a checkpoint or early-stopping callback monitors, else the only
    one that is logged; a loss, and what such a callback minimizes, counts negative.

    Args:
        trainer: The Trainer, about to fit.
        module: The LightningModule.
        network: The network inside it; it runs in evaluation mode.
    """

    def __init__(self, trainer: Any, module: Any, network: nn.Module) -> None:
        self._trainer = trainer
        self._module = module
        self._network = network

    def __call__(self, share: float, metric: str | None = None) -> float:
        """Return the score, higher is better.

        Args:
            share: Share of the batches to run, at least one.
            metric: Name of a logged metric to maximize, or a minus sign and the name of one to minimize.

        Raises:
            ConfigError: There are no validation batches, or it is unclear which metric to take.
        """
        batches = self._batches(share)
        if not batches:
            raise ConfigError(
                "`initializer.precision.type: autoq` judges bit widths by validation, but there is no validation "
                "loader or no `validation_step`"
            )
        record = _Record()
        with torch.no_grad(), _evaluating(self._module), _recorded(self._module, record):
            self._module.on_validation_epoch_start()
            for index, batch in enumerate(batches):
                on_device = TrainBatches(self._trainer, self._module).to_device(batch)
                record.weight = extract_batch_size(on_device)
                with self._trainer.precision_plugin.forward_context():
                    self._module.validation_step(on_device, index)
            record.weight = 1
            self._module.on_validation_epoch_end()
            values = record.values()
        name, sign = self._metric(metric, values)
        return sign * values[name]

    def _batches(self, share: float) -> list[Any]:
        loop = self._trainer.fit_loop.epoch_loop.val_loop
        if not defines(self._module, "validation_step") or not loop._data_source.is_defined():
            return []
        loop.setup_data()
        loaders = self._trainer.val_dataloaders
        if loaders is None:
            return []
        combined = loaders if hasattr(loaders, "flattened") else CombinedLoader(loaders, "sequential")
        limit = math.ceil(share * sum(min(size, 10**9) for size in loop.max_batches))
        batches = []
        for (batch, _, _), _ in zip(combined, range(limit), strict=False):
            batches.append(batch)
        return batches

    def _metric(self, asked: str | None, values: Mapping[str, float]) -> tuple[str, float]:
        """Return the name of the metric and its sign."""
        if asked is not None:
            name, sign = asked.removeprefix("-"), -1.0 if asked.startswith("-") else 1.0
            if name in values:
                return name, sign
            hint = near(name, values) or "it logs nothing"
            raise ConfigError(f"`initializer.precision.metric`: validation logs no {name!r}; {hint}")
        for callback in self._trainer.callbacks:
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor in values:
                return monitor, -1.0 if getattr(callback, "mode", "max") == "min" else 1.0
        judging = [name for name in values if "loss" not in name.lower()] or list(values)
        if len(judging) != 1:
            raise ConfigError(
                f"`initializer.precision.type: autoq` cannot tell which validation metric is to be best: "
                f"{', '.join(map(repr, judging)) or 'none'} is logged; name one with `initializer.precision.metric`"
            )
        return judging[0], -1.0 if "loss" in judging[0].lower() else 1.0


class _Record:
    """What a module logs: means of numbers by batch size, and metrics that compute themselves."""

    def __init__(self) -> None:
        self.weight = 1
        self._sums: dict[str, tuple[float, int]] = {}
        self._metrics: dict[str, Metric] = {}

    def log(self, name: str, value: Any, *_args: Any, **_kwargs: Any) -> None:
        if isinstance(value, Metric):
            self._metrics[name] = value
            return
        number = float(value.detach().float().mean()) if isinstance(value, Tensor) else float(value)
        total, weight = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + self.weight * number, weight + self.weight

    def log_dict(self, values: Mapping[str, Any], *_args: Any, **_kwargs: Any) -> None:
        for name, value in values.items():
            self.log(name, value)

    def drop(self, *_args: Any, **_kwargs: Any) -> None:
        """Take what is printed."""

    def values(self) -> dict[str, float]:
        computed = {name: float(metric.compute()) for name, metric in self._metrics.items()}
        return {**{name: total / weight for name, (total, weight) in self._sums.items()}, **computed}


@contextmanager
def _recorded(module: Any, record: _Record) -> Iterator[None]:
    """Send what a module logs to a record, its metrics empty before and after."""
    metrics = [each for each in module.modules() if isinstance(each, Metric)]
    names: dict[str, Callable[..., None]] = {"log": record.log, "log_dict": record.log_dict, "print": record.drop}
    for metric in metrics:
        metric.reset()
    for name, action in names.items():
        wrap(module, name, Instead, action)
    try:
        yield
    finally:
        for name in names:
            unwrap(module, name)
        for metric in metrics:
            metric.reset()


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put a module in evaluation mode, then every part back in its own."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
