"""How each kind of op passes removed channels on; importing this package registers all rules.

`propagation` finds a rule in `RULES` by the name of the op's function; a new op is a new function under `rule`. A rule
is given one op and what arrives at it: it never looks at the graph around it.
"""

from lightning_nncf.dependencies.rules import attention, elementwise, layers, normalization, reductions, shapes
from lightning_nncf.dependencies.rules.registry import RULES, Rule, rule

__all__ = ["RULES", "Rule", "attention", "elementwise", "layers", "normalization", "reductions", "rule", "shapes"]
