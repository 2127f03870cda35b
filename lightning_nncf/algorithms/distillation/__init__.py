"""Distillation: the compressed network learns what another network, its teacher, says to the same inputs.

`teacher` makes and runs the teacher, `watch` sees the calls of the network in training, `outputs` pairs what both
return, `features` what flows between their layers. The rest is reached through `Distillation`.
"""

from lightning_nncf.algorithms.distillation.algorithm import Distillation

__all__ = ["Distillation"]
