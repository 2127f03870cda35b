"""Judges candidates of a learned ranking: prune, train for a few steps, look at the loss, undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import nn

from lightning_nncf.calibration import CalibrationData, computing_loss, training_loss
from lightning_nncf.errors import InitializationError

__all__ = ["Trial"]

_JUDGED = 4
"""Batches that are kept aside to judge candidates."""


class Trial:
    """Trains a pruned network for some steps and returns minus the loss on batches it was not trained on.

    Args:
        network: The network; after every trial it is as before.
        data: Batches of the train loader and the way to compute the loss of one.
        steps: Training steps.
        apply: Masks the weights again; called after every step.
    """

    def __init__(self, network: nn.Module, data: CalibrationData, steps: int, apply: Callable[[], None]) -> None:
        self.network = network
        self.data = data
        self.steps = steps
        self.apply = apply
        self.judged = list(islice(iter(data.batches), _JUDGED))
        if not self.judged:
            raise InitializationError("the train loader yields no batch, so no ranking can be learned")

    def run(self, mask: Callable[[], None]) -> float:
        """Run one trial.

        Args:
            mask: Masks the weights for it.

        Raises:
            InitializationError: Running a batch returns no loss.
        """
        state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        try:
            mask()
            self._train()
            return -self._loss()
        finally:
            self.network.load_state_dict(state)
            self.network.zero_grad(set_to_none=True)
            self.network.eval()

    def _train(self) -> None:
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=5e-4, nesterov=True)
        self.network.train()
        with torch.enable_grad():
            for batch in islice(self._batches(), self.steps):
                optimizer.zero_grad()
                training_loss(self.data, batch).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                self.apply()

    @torch.no_grad()
    def _loss(self) -> float:
        with computing_loss(self.network):
            losses = [training_loss(self.data, batch).detach().double().cpu() for batch in self.judged]
        loss = torch.stack(losses).mean()
        if self.data.reduce is not None:
            both = self.data.reduce(torch.stack([loss, torch.ones((), dtype=torch.float64)]), "sum")
            loss = both[0] / both[1]
        return float(loss)

    def _batches(self) -> Iterator[Any]:
        """Yield training batches without end; those kept aside only if there are no others."""
        while True:
            others = islice(iter(self.data.batches), len(self.judged), None)
            empty = True
            for batch in others:
                empty = False
                yield batch
            if empty:
                yield from self.judged
