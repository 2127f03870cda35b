"""Quantization-aware training."""

from lightning_nncf.algorithms.quantization.algorithm import Quantization

__all__ = ["Quantization"]
