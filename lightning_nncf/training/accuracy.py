"""Accuracy-aware training: how much accuracy compression may cost, and when an epoch holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_nncf.core.stage import CompressionStage

__all__ = ["AccuracyTarget", "EarlyExit", "Epoch"]

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class AccuracyTarget:
    """How far a metric may be from that of the network before compression.

    Args:
        reference: The metric before compression.
        higher_is_better: Whether it is to be large.
        relative: Percent of the reference that it may lose.
        absolute: What it may lose, in its own unit, instead.

    >>> target = AccuracyTarget(reference=0.8, relative=1.0)
    >>> round(target.budget(0.795), 4), round(target.budget(0.79), 4)
    (0.003, -0.002)
    """

    reference: float
    higher_is_better: bool = True
    relative: float | None = None
    absolute: float | None = None

    def drop(self, metric: float) -> float:
        """Return by how much a metric is worse than the reference."""
        return self.reference - metric if self.higher_is_better else metric - self.reference

    def budget(self, metric: float) -> float:
        """Return how much worse a metric may still become; negative where it is too bad already.

        What rounding may make of nothing is nothing.
        """
        allowed = self.absolute if self.absolute is not None else abs(self.reference) * (self.relative or 0.0) / 100
        left = allowed - self.drop(metric)
        return 0.0 if abs(left) < _ROUNDING * max(abs(self.reference), abs(allowed)) else left


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one validation showed.

    Args:
        epochs: Epochs trained before it.
        metric: The metric.
        stage: How far the network was compressed.
        budget: How much worse the metric might still become.
    """

    epochs: int
    metric: float
    stage: CompressionStage
    budget: float


class EarlyExit:
    """Ends training in the first epoch whose network is fully compressed and within the target.

    Args:
        target: What the metric may lose.
        maximal_total_epochs: Epochs after which training ends in any case.

    >>> exit = EarlyExit(AccuracyTarget(reference=0.9, absolute=0.02), maximal_total_epochs=9)
    >>> full = CompressionStage.FULLY_COMPRESSED
    >>> [exit.judge(0, 0.95, CompressionStage.UNCOMPRESSED), exit.judge(1, 0.87, full), exit.judge(2, 0.88, full)]
    [False, False, True]
    """

    def __init__(self, target: AccuracyTarget, maximal_total_epochs: int) -> None:
        self.target = target
        self.maximal_total_epochs = maximal_total_epochs
        self.epochs: list[Epoch] = []

    def judge(self, epochs: int, metric: float, stage: CompressionStage) -> bool:
        """Take note of a validation.

        Args:
            epochs: Epochs trained so far.
            metric: The metric.
            stage: How far the network is compressed.

        Returns:
            Whether training is to end.
        """
        self.epochs.append(Epoch(epochs=epochs, metric=metric, stage=stage, budget=self.target.budget(metric)))
        return self.held or epochs >= self.maximal_total_epochs

    @property
    def held(self) -> bool:
        """Whether the latest network is fully compressed and within the target."""
        return (
            bool(self.epochs)
            and self.epochs[-1].stage is CompressionStage.FULLY_COMPRESSED
            and (self.epochs[-1].budget >= 0)
        )

    @property
    def best(self) -> Epoch | None:
        """The epoch that lost least of those that were compressed furthest."""
        return max(self.epochs, key=lambda each: (each.stage, each.budget), default=None)

    def report(self) -> dict[str, Any]:
        """Return what was reached, as plain values."""
        best = self.best
        found: dict[str, Any] = {"uncompressed": self.target.reference, "held": self.held}
        if best is None:
            return found
        drop = self.target.drop(best.metric)
        relative = 100 * drop / abs(self.target.reference) if self.target.reference else None
        return {
            **found,
            "compressed": best.metric,
            "absolute_drop": drop,
            "relative_drop_percent": relative,
            "budget": best.budget,
            "stage": best.stage.name,
            "best_after_epochs": best.epochs,
            "epochs_spent": self.epochs[-1].epochs,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "target": asdict(self.target),
            "epochs": [asdict(each) | {"stage": int(each.stage)} for each in self.epochs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set everything from `state_dict`."""
        self.target = AccuracyTarget(**state["target"])
        self.epochs = [Epoch(**{**each, "stage": CompressionStage(each["stage"])}) for each in state["epochs"]]
