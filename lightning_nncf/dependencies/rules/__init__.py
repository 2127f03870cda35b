"""How each kind of op passes removed channels on; importing this package registers all rules."""

from lightning_nncf.dependencies.rules import attention, elementwise, layers, normalization, reductions, shapes
from lightning_nncf.dependencies.rules.registry import RULES, Rule, rule

__all__ = ["RULES", "Rule", "attention", "elementwise", "layers", "normalization", "reductions", "rule", "shapes"]
