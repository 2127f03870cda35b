"""Fake quantization operators."""

from __future__ import annotations

from lightning_nncf.ops.dispatch import fake_quantize_asymmetric, fake_quantize_symmetric

__all__ = ["fake_quantize_asymmetric", "fake_quantize_symmetric"]
