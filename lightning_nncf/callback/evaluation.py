"""A score of the network by the module's own validation step, outside of the validation loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from pytorch_lightning.utilities.data import extract_batch_size
from torch import Tensor
from torchmetrics import Metric

from lightning_nncf.callback.batches.loaders import on_device
from lightning_nncf.callback.batches.sources import LoopData
from lightning_nncf.callback.running.snapshot import kept
from lightning_nncf.callback.running.stand_ins import StandIns
from lightning_nncf.callback.running.steps import defines, step_arguments
from lightning_nncf.errors import ConfigError, near

__all__ = ["ValidationScore"]


class ValidationScore:
    """Runs validation steps on a share of the validation batches and returns one of the metrics that they log.

    The metric is the one asked for, else the one that a checkpoint or early-stopping callback monitors, else the only
    one that is logged; a loss, and what such a callback minimizes, counts negative.

    Validation's loaders, the module, its metrics and loggers are left as they were.

    Args:
        trainer: The Trainer, about to fit.
        module: The LightningModule; it runs in evaluation mode.
        data: The validation loop's data.
        asker: Key that asks for scores, for errors.
        key: Key that names the metric.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        data: LoopData,
        *,
        asker: str = "initializer.precision.type: autoq",
        key: str = "initializer.precision.metric",
    ) -> None:
        self._asker = asker
        self._key = key
        self._trainer = trainer
        self._module = module
        self._data = data

    def __call__(self, share: float, metric: str | None = None) -> float:
        """Return the score, higher is better.

        Args:
            share: Share of the batches to run, at least one.
            metric: Name of a logged metric to maximize, or a minus sign and the name of one to minimize.

        Raises:
            ConfigError: There are no validation batches, or it is unclear which metric to take.
        """
        _, sign, value = self.measure(share, metric)
        return sign * value

    def measure(self, share: float, metric: str | None = None) -> tuple[str, float, float]:
        """Return the name of the metric, 1 if higher is better and else -1, and its value.

        Args:
            share: As of a score.
            metric: As of a score.

        Raises:
            ConfigError: As of a score.
        """
        if not defines(self._module, "validation_step") or self._data.total() == 0:
            raise ConfigError(
                f"`{self._asker}` judges networks by validation, but there is no validation loader or no "
                "`validation_step`"
            )
        record = _Record()
        with ExitStack() as stack:
            stack.enter_context(kept(self._module, self._trainer.datamodule))
            stack.enter_context(_evaluating(self._module))
            stack.enter_context(torch.no_grad())
            stack.enter_context(StandIns(self._trainer, self._module, {"log": record.log, "log_dict": record.log_dict}))
            for part in self._module.modules():
                if isinstance(part, Metric):
                    part.reset()
            self._module.on_validation_epoch_start()
            self._run(share, record)
            record.begin(1, None)
            self._module.on_validation_epoch_end()
            values = record.values()
        name, sign = self._metric(metric, values)
        return name, sign, values[name]

    def _run(self, share: float, record: _Record) -> None:
        """Run validation steps on a share of the batches."""
        several = self._data.sequential and self._data.loaders > 1
        total = self._data.total()
        limit = None if math.isinf(total) else math.ceil(share * total)
        reader = self._data.read()
        try:
            for batch, batch_idx, dataloader_idx in islice(reader, limit):
                on_its_device = on_device(self._trainer, self._module, batch, dataloader_idx)
                record.begin(extract_batch_size(on_its_device), dataloader_idx if several else None)
                step = self._module.validation_step
                with self._trainer.precision_plugin.forward_context():
                    step(*step_arguments(step, on_its_device, batch_idx, dataloader_idx if several else None))
        finally:
            reader.close()  # type: ignore[attr-defined]

    def _metric(self, asked: str | None, values: Mapping[str, float]) -> tuple[str, float]:
        """Return the name of the metric and its sign."""
        if asked is not None:
            name, sign = asked.removeprefix("-"), -1.0 if asked.startswith("-") else 1.0
            if name in values:
                return name, sign
            hint = near(name, values) or "it logs nothing"
            raise ConfigError(f"`{self._key}`: validation logs no {name!r}; {hint}")
        for callback in self._trainer.callbacks:
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor in values:
                return monitor, -1.0 if getattr(callback, "mode", "max") == "min" else 1.0
        judging = [name for name in values if "loss" not in name.lower()] or list(values)
        if len(judging) != 1:
            raise ConfigError(
                f"`{self._asker}` cannot tell which validation metric is to be best: "
                f"{', '.join(map(repr, judging)) or 'none'} is logged; name one with `{self._key}`"
            )
        return judging[0], -1.0 if "loss" in judging[0].lower() else 1.0


class _Record:
    """What a module logs: means of numbers by batch size, and metrics that compute themselves."""

    def __init__(self) -> None:
        self._weight = 1
        self._loader: int | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._metrics: dict[str, Metric] = {}

    def begin(self, weight: int, loader: int | None) -> None:
        """Begin a batch of a number of samples, from one of several loaders."""
        self._weight = weight
        self._loader = loader

    def log(self, name: str, value: Any, *_args: Any, add_dataloader_idx: bool = True, **_kwargs: Any) -> None:
        if self._loader is not None and add_dataloader_idx:
            name = f"{name}/dataloader_idx_{self._loader}"
        if isinstance(value, Metric):
            self._metrics[name] = value
            return
        number = float(value.detach().float().mean()) if isinstance(value, Tensor) else float(value)
        total, weight = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + self._weight * number, weight + self._weight

    def log_dict(self, values: Mapping[str, Any], *_args: Any, add_dataloader_idx: bool = True, **_kwargs: Any) -> None:
        for name, value in values.items():
            self.log(name, value, add_dataloader_idx=add_dataloader_idx)

    def values(self) -> dict[str, float]:
        computed = {name: float(metric.compute()) for name, metric in self._metrics.items()}
        return {**{name: total / weight for name, (total, weight) in self._sums.items()}, **computed}


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
