"""Quantization-aware training: quantizers, where they stand, how they begin and how many bits they have.

Export and proof import `quantizers`; the rest is reached through `Quantization`. `precision`, `initialization` and
`placement` are rooms of their own, and import each other in this order only. How a tensor is fake-quantized is an
operator in `lightning_nncf.ops`, not a formula here.
"""

from lightning_nncf.algorithms.quantization.algorithm import Quantization

__all__ = ["Quantization"]
