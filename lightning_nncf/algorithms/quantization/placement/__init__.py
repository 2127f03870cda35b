"""Placement of quantizers."""

from __future__ import annotations

from lightning_nncf.algorithms.quantization.placement.settings import Constraints, GroupSettings, PlacementSettings
from lightning_nncf.algorithms.quantization.placement.solver import place_quantizers

__all__ = ["Constraints", "GroupSettings", "PlacementSettings", "place_quantizers"]
