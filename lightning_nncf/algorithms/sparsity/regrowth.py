"""Regrowth of dropped weights by gradient, as pure functions.

After U. Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["exchanged_share", "regrow"]


def exchanged_share(epoch: int, end_epoch: int, fraction: float) -> float:
    """Return which share of the kept weights changes places, falling along half a cosine.

    Args:
        epoch: The epoch.
        end_epoch: Epoch from which nothing changes places.
        fraction: Share in epoch 0.

    >>> [round(exchanged_share(epoch, 4, 0.3), 3) for epoch in range(6)]
    [0.3, 0.256, 0.15, 0.044, 0.0, 0.0]
    """
    if epoch >= end_epoch:
        return 0.0
    return fraction / 2 * (1 + math.cos(math.pi * epoch / end_epoch))


def regrow(mask: Tensor, weight: Tensor, gradient: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Exchange kept weights of small magnitude for dropped ones of large gradient.

    Args:
        mask: Boolean mask of a layer.
        weight: Its weights.
        gradient: Gradient of the loss by the masked weight, at dropped places too.
        share: Share of the kept weights to exchange, in [0, 1).

    Returns:
        The new mask, which keeps as many weights, and where it keeps weights that were dropped; those begin at zero.

    >>> mask = torch.tensor([True, True, False, False])
    >>> regrow(mask, torch.tensor([5.0, 1.0, 9.0, 9.0]), torch.tensor([0.0, 0.0, -2.0, 1.0]), share=0.5)[0]
    tensor([ True, False,  True, False])
    """
    kept, dropped = mask.reshape(-1), ~mask.reshape(-1)
    count = min(int(share * int(kept.sum())), int(dropped.sum()))
    if count == 0:
        return mask.clone(), torch.zeros_like(mask)
    sizes = torch.where(kept, weight.reshape(-1).abs().float(), math.inf)
    pulls = torch.where(dropped, gradient.reshape(-1).abs().float(), -math.inf)
    grown = torch.zeros_like(kept)
    grown[pulls.topk(count).indices] = True
    new = kept | grown
    new[sizes.topk(count, largest=False).indices] = False
    return new.reshape(mask.shape), grown.reshape(mask.shape)
