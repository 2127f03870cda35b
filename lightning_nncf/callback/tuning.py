"""Runs of Lightning's ``Tuner``, which try a fit and take it back."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from lightning_nncf.callback.neighbours import neighbours

__all__ = ["TrialState"]


class TrialState:
    """What a plain module was before a fit that the Tuner only tries.

    The Tuner restores what it has trained, but knows nothing of a network that is compressed and initialized before.
    The fit that follows is to find the module as if there had been no trial.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None

    def note(self, trainer: Any, module: nn.Module, *, plain: bool) -> None:
        """Remember a plain module if its fit is a trial; forget what a trial that failed has left.

        Args:
            trainer: The Trainer, about to fit.
            module: The module.
            plain: Whether it is not compressed yet. If it is, what the Tuner restores is all of its state.
        """
        finders = [*neighbours(trainer, "LearningRateFinder"), *neighbours(trainer, "BatchSizeFinder")]
        trial = plain and any(finder._early_exit for finder in finders)
        self._state = copy.deepcopy(module.state_dict()) if trial else None

    @property
    def noted(self) -> bool:
        """Whether there is something to give back."""
        return self._state is not None

    def give_back(self, module: nn.Module) -> None:
        """Restore a module, plain again."""
        assert self._state is not None
        module.load_state_dict(self._state)
        self._state = None
