"""Binarization: convolutions whose weights and activations have two values, in stages.

`binarizers` holds the modules that export writes into files; the rest is reached through `Binarization`. How values
become binary is an operator in `lightning_nncf.ops`, not a formula here.
"""

from lightning_nncf.algorithms.binarization.algorithm import Binarization

__all__ = ["Binarization"]
