"""The base of metrics that describe a network itself."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric

__all__ = ["NetworkMetric"]


class NetworkMetric(Metric):
    """A metric of the network's own state, equal on all ranks, so nothing is reduced between them.

    Args:
        *states: Names of states that are one number, 0 at first.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, *states: str, **kwargs: Any) -> None:
        super().__init__(sync_on_compute=False, **kwargs)
        for state in states:
            self.add_state(state, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)
