"""Filter pruning: groups of filters that depend on each other, masked while training and then removed.

Nobody above imports more than `FilterPruning` and its configuration. Which filters depend on each other is found in
`lightning_nncf.dependencies`; here it is decided which of them go, and they are removed.
"""

from lightning_nncf.algorithms.pruning.algorithm import FilterPruning
from lightning_nncf.algorithms.pruning.config import FilterPruningConfig

__all__ = ["FilterPruning", "FilterPruningConfig"]
