"""Fake quantization operators."""

from __future__ import annotations

from lightning_nncf.ops.dispatch import fake_quantize_asymmetric, fake_quantize_symmetric
from lightning_nncf.ops.native import backend, describe

__all__ = ["backend", "describe", "fake_quantize_asymmetric", "fake_quantize_symmetric"]
