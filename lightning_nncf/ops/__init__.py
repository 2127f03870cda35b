"""Operators: fake quantization, binarization, random masks."""

from __future__ import annotations

from lightning_nncf.ops.binarization import binarize_activations, binarize_weights
from lightning_nncf.ops.dispatch import fake_quantize_asymmetric, fake_quantize_symmetric
from lightning_nncf.ops.masking import sample_and_mask
from lightning_nncf.ops.native import backend, describe

__all__ = [
    "backend",
    "binarize_activations",
    "binarize_weights",
    "describe",
    "fake_quantize_asymmetric",
    "fake_quantize_symmetric",
    "sample_and_mask",
]
