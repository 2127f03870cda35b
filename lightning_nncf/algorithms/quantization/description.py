"""What inserted quantizers are like: numbers for statistics and rows for tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.inserted import InsertedQuantizers
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import PointKind

__all__ = ["observe", "rows", "summary"]


def observe(inserted: InsertedQuantizers) -> dict[str, Tensor]:
    """Return bit widths per quantizer, bit widths and sizes per parameter, and widths of activation ranges."""
    parameters = [p for name, p in inserted.network.named_parameters() if "lnncf_" not in name]
    parameter_bits = {id(p): 32 for p in parameters}
    for places, quantizer, point in zip(inserted.sites, inserted.quantizers, inserted.setup.points, strict=True):
        if point.kind == "weight":
            for site in places:
                parameter_bits[id(site.parameter_of(inserted.network))] = quantizer.config.bits
    widths = [
        (high - low).flatten() for quantizer in inserted.of_kind("activation") for low, high in [quantizer.range()]
    ]
    return {
        "weight_bits": torch.tensor(_bits(inserted, "weight"), dtype=torch.long),
        "activation_bits": torch.tensor(_bits(inserted, "activation"), dtype=torch.long),
        "parameter_bits": torch.tensor([parameter_bits[id(p)] for p in parameters]),
        "parameter_counts": torch.tensor([p.numel() for p in parameters]),
        "range_widths": torch.cat([width.float().cpu() for width in widths]) if widths else torch.zeros(0),
    }


def rows(inserted: InsertedQuantizers) -> list[dict[str, Any]]:
    """Return one row per quantization point."""
    found = []
    for point, quantizer in zip(inserted.setup.points, inserted.quantizers, strict=True):
        low, high = quantizer.range()
        found.append(
            {
                "place": str(point.point),
                "kind": point.kind,
                "bits": quantizer.config.bits,
                "mode": quantizer.config.mode,
                "granularity": "per channel" if quantizer.config.per_channel else "per tensor",
                "levels": _levels(quantizer),
                "low": float(low.min()),
                "high": float(high.max()),
            }
        )
    return found


def summary(inserted: InsertedQuantizers) -> str:
    """Say how many quantizers there are."""
    weights, activations = inserted.setup.count("weight"), inserted.setup.count("activation")
    distinct = len(inserted.of_kind("activation"))
    shared = f" ({distinct} distinct)" if distinct != activations else ""
    return f"Quantization: {weights} weight and {activations} activation quantizers{shared}"


def _bits(inserted: InsertedQuantizers, kind: PointKind) -> list[int]:
    pairs = zip(inserted.setup.points, inserted.quantizers, strict=True)
    return [quantizer.config.bits for point, quantizer in pairs if point.kind == kind]


def _levels(quantizer: Quantizer) -> str:
    """Write the integers of a quantizer, unless the data has yet to decide on their sign."""
    undecided = quantizer.config.signed is None and quantizer.config.mode == "symmetric"
    return "set by data" if undecided else f"{quantizer.quant_min}..{quantizer.quant_max}"
