"""Binarization of convolutions."""

from lightning_nncf.algorithms.binarization.algorithm import Binarization

__all__ = ["Binarization"]
