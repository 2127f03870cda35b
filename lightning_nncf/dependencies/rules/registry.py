"""Rules by the name of the function they understand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lightning_nncf.dependencies.values import Call, Value

__all__ = ["RULES", "Rule", "rule"]

Rule = Callable[[Call], Sequence[Value]]
"""Returns the value of each output of an op."""
RULES: dict[str, Rule] = {}

RuleT = TypeVar("RuleT", bound=Rule)


def rule(*functions: str) -> Callable[[RuleT], RuleT]:
    """Register a rule for functions, by the names they have in addresses.

    Raises:
        ValueError: A function has a rule already.
    """

    def decorate(found: RuleT) -> RuleT:
        for function in functions:
            if RULES.setdefault(function, found) is not found:
                raise ValueError(f"{function} has a rule already")
        return found

    return decorate
