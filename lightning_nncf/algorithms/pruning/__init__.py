"""Filter pruning: groups of filters that depend on each other, masked while training and then removed."""

from lightning_nncf.algorithms.pruning.algorithm import FilterPruning
from lightning_nncf.algorithms.pruning.config import FilterPruningConfig

__all__ = ["FilterPruning", "FilterPruningConfig"]
