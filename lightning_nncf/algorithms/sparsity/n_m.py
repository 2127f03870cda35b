"""n:m sparsity: n of every m weights along the input channels are kept."""

from __future__ import annotations

from typing import ClassVar

import torch

from lightning_nncf.algorithms.sparsity.config import NMSparsityConfig
from lightning_nncf.algorithms.sparsity.functional import importance, n_m_masks
from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.algorithms.sparsity.scheduled import ScheduledSparsity
from lightning_nncf.core.registry import register
from lightning_nncf.core.weights import CONVOLUTIONS, WeightPlace

__all__ = ["NMSparsity"]


@register(NMSparsityConfig)
class NMSparsity(ScheduledSparsity):
    """Masks that keep the n largest of every m weights, for a scheduled share of all groups of m.

    Layers whose input channels do not divide into groups of m, first and depthwise convolutions mostly, stay dense.
    """

    name: ClassVar[str] = "n_m_sparsity"
    functions: ClassVar[frozenset[str]] = CONVOLUTIONS | {"linear", "multi_head_attention_forward"}

    def _ends(self) -> tuple[float, float]:
        return 0.0, self.config.level

    def _accepts(self, place: WeightPlace) -> bool:
        size = place.shape[_input_axis(place)]
        # The input channels of all groups of a transposed convolution lie one after the other.
        per_group = size // place.groups if "transpose" in place.function else size
        group: int = self.config.m
        return per_group % group == 0

    @torch.no_grad()
    def _apply(self, level: float) -> None:
        values = [importance(weight) for weight in self._weights()]
        axes = [_input_axis(place) for place in self.places]
        share = min(level / self.config.level, 1.0)
        share = 1.0 if share > 1 - 1e-6 else share
        for module, mask in zip(self.masks, n_m_masks(values, self.config.n, self.config.m, axes, share), strict=True):
            module.set_mask(mask)

    def _make_mask(self, place: WeightPlace) -> WeightMask:
        return WeightMask(place.shape)


def _input_axis(place: WeightPlace) -> int:
    """Return the axis of the input channels of a weight."""
    return 0 if "transpose" in place.function else 1
