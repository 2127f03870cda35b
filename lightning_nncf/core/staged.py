"""Learning rate and weight decay of staged training, which its recipe decides and not the user's optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from lightning_nncf.config.staged import StagedConfig
from lightning_nncf.schedules.polynomial_drop import polynomial_drop

__all__ = ["StagedOptimizers"]


class StagedOptimizers:
    """Sets learning rates and weight decays of optimizers by the epochs done.

    What the recipe does not mention stays as the user's optimizer and schedule have it.

    Args:
        config: The recipe.
    """

    def __init__(self, config: StagedConfig) -> None:
        self.config = config
        self._optimizers: list[Optimizer] = []
        self._rates: list[float] = []
        self.current = (0.0, 0.0)
        """Learning rate and weight decay of the first parameter group in the latest step, for logging; the user's own
        schedule may change them between steps."""

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Take the optimizers to act on."""
        self._optimizers = list(optimizers)

    def update(self, progress: float) -> None:
        """Set what the recipe says.

        Args:
            progress: Epochs done, with the fraction of the current one.
        """
        config = self.config
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        start = config.lr_poly_drop_start_epoch
        dropping = start is not None and progress >= start
        if config.base_lr is not None and not dropping:
            for group in groups:
                group["lr"] = config.base_lr
        if start is not None and dropping:
            if len(self._rates) != len(groups):
                self._rates = [float(group["lr"]) if config.base_lr is None else config.base_lr for group in groups]
            factor = polynomial_drop(progress, start, config.lr_poly_drop_duration_epochs)
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate * factor
        decay = config.base_wd
        if config.disable_wd_start_epoch is not None and progress >= config.disable_wd_start_epoch:
            decay = 0.0
        if decay is not None:
            for group in groups:
                group["weight_decay"] = decay
        if groups:
            self.current = float(groups[0]["lr"]), float(groups[0].get("weight_decay", 0.0))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the optimizers, which a copy of the network does not have until they are attached."""
        return {**self.__dict__, "_optimizers": []}

    def state_dict(self) -> dict[str, Any]:
        """Return the learning rates from which the drop began."""
        return {"rates": self._rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set them."""
        self._rates = [float(rate) for rate in state["rates"]]
