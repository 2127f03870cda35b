"""Sparsity: which weights are zero, and how masks find that out.

Nobody above imports more than the algorithms; what they share is in `base`, `scheduled` and `mask`. Masks hide weights
and never change the shape of one: what is really removed belongs to pruning.
"""

from lightning_nncf.algorithms.sparsity.const import ConstSparsity
from lightning_nncf.algorithms.sparsity.magnitude import MagnitudeSparsity
from lightning_nncf.algorithms.sparsity.movement import MovementSparsity
from lightning_nncf.algorithms.sparsity.n_m import NMSparsity
from lightning_nncf.algorithms.sparsity.rb import RBSparsity

__all__ = ["ConstSparsity", "MagnitudeSparsity", "MovementSparsity", "NMSparsity", "RBSparsity"]
