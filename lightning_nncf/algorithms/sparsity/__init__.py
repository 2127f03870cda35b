"""Sparsity of weights: which weights are zero, and how masks find that out."""

from lightning_nncf.algorithms.sparsity.const import ConstSparsity
from lightning_nncf.algorithms.sparsity.magnitude import MagnitudeSparsity
from lightning_nncf.algorithms.sparsity.movement import MovementSparsity
from lightning_nncf.algorithms.sparsity.n_m import NMSparsity
from lightning_nncf.algorithms.sparsity.rb import RBSparsity

__all__ = ["ConstSparsity", "MagnitudeSparsity", "MovementSparsity", "NMSparsity", "RBSparsity"]
