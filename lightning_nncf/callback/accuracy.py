"""Accuracy-aware training in the Trainer's own loop: metrics in, the end of training out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_nncf.callback.batches.sources import LoopData
from lightning_nncf.callback.evaluation import ValidationScore
from lightning_nncf.config.accuracy import AccuracyAwareConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.files import replacing
from lightning_nncf.training.accuracy import AccuracyTarget, EarlyExit

__all__ = ["AccuracyAware"]

_KEY = "accuracy_aware_training"


class AccuracyAware:
    """Ends a fit once the compressed network is as good as asked for.

    Args:
        config: What is asked for.
    """

    def __init__(self, config: AccuracyAwareConfig) -> None:
        self.config = config
        self.monitor = config.monitor
        self.exit: EarlyExit | None = None
        self._over = False

    def measure_uncompressed(self, trainer: Any, module: Any, data: LoopData) -> None:
        """Validate the network as it is before compression.

        Args:
            trainer: The Trainer, about to fit.
            module: The LightningModule, plain still.
            data: The validation loop's data.

        Raises:
            ConfigError: There is no validation, or it logs no such metric.
        """
        module.to(trainer.strategy.root_device)
        trainer.precision_plugin.convert_module(module)
        name, sign, value = self._measure(trainer, module, data)
        config, params = self.config, self.config.params
        relative, absolute = params.maximal_relative_accuracy_degradation, params.maximal_absolute_accuracy_degradation
        target = AccuracyTarget(
            reference=value if config.uncompressed_accuracy is None else config.uncompressed_accuracy,
            higher_is_better=sign > 0 if config.higher_is_better is None else config.higher_is_better,
            relative=1.0 if relative is None and absolute is None else relative,
            absolute=absolute,
        )
        self.monitor, self.exit = name, EarlyExit(target, params.maximal_total_epochs)
        rank_zero_info(f"Before compression {name} is {target.reference:.4g}")

    def judge_initialized(self, trainer: Any, module: Any, data: LoopData, compressed: CompressedNetwork) -> None:
        """Validate the network as initialization left it: it may be good enough already."""
        _, _, value = self._measure(trainer, module, data)
        self._judge(0, value, compressed)

    def begin(self, trainer: Any) -> None:
        """Train no epoch where the network is good enough already."""
        trainer.should_stop = trainer.should_stop or self._over

    def validated(self, trainer: Any, compressed: CompressedNetwork) -> None:
        """Judge what the validation of an epoch logged."""
        metric = trainer.callback_metrics.get(self.monitor)
        if metric is not None:
            self._judge(trainer.current_epoch + 1, float(metric), compressed)
            self.begin(trainer)

    def finish(self, target: Path | None) -> None:
        """Say what was reached, and write it beside the exported file."""
        if self.exit is None:
            return
        report = self.exit.report()
        rank_zero_info(f"Accuracy-aware training: {json.dumps({'monitor': self.monitor, **report})}")
        if not self.exit.held and "budget" in report:
            rank_zero_warn(
                f"`{_KEY}`: the target could not be held: {self.monitor} was {report['uncompressed']:.4g} before "
                f"compression and is {report['compressed']:.4g} at best, {-report['budget']:.4g} beyond the limit. "
                "Train longer, compress less, or keep that epoch with `CompressionCheckpoint`"
            )
        if target is not None:
            with replacing(target.with_suffix(".accuracy.json")) as temporary:
                temporary.write_text(json.dumps({"monitor": self.monitor, **report}, indent=2) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {} if self.exit is None else {"monitor": self.monitor, **self.exit.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state from `state_dict`."""
        if state:
            target = AccuracyTarget(**state["target"])
            self.monitor, self.exit = state["monitor"], EarlyExit(target, self.config.params.maximal_total_epochs)
            self.exit.load_state_dict(state)
            self._over = self.exit.held

    def _measure(self, trainer: Any, module: Any, data: LoopData) -> tuple[str, float, float]:
        score = ValidationScore(trainer, module, data, asker=_KEY, key=f"{_KEY}.monitor")
        with isolate_rng():
            return score.measure(1.0, self.monitor)

    def _judge(self, epochs: int, metric: float, compressed: CompressedNetwork) -> None:
        assert self.exit is not None
        self._over = self.exit.judge(epochs, metric, compressed.stage)
        budget = self.exit.epochs[-1].budget
        rank_zero_info(
            f"After {epochs} epochs {self.monitor} is {metric:.4g}, {abs(budget):.4g} "
            f"{'within' if budget >= 0 else 'beyond'} what it may lose"
        )
