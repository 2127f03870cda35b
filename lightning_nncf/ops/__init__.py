"""Operators: fake quantization, binarization, random masks, as formulas, C++ and CUDA.

Modules that algorithms insert call these; hooks call `data_ranges` and `rebuilding`, which spare work around them. This
is the only room that knows `cuda_ops`. Nothing here knows a configuration, a graph or a hook.
"""

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
