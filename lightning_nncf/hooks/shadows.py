"""What a hooked module reads while it runs: values in its ``__dict__`` that hide parameters or other attributes."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["ABSENT", "FLAT_WEIGHTS", "flat_weights", "plain_value"]

ABSENT: Any = object()
"""Stands for an attribute that is not in the ``__dict__``."""

FLAT_WEIGHTS = "_flat_weights"
"""Attribute from which a recurrent layer reads all its parameters."""


def flat_weights(layer: nn.Module) -> list[Any]:
    """Return what a recurrent layer reads, compressed values before the parameters that they hide."""
    names: list[str] = layer._flat_weights_names  # type: ignore[assignment]
    return [getattr(layer, name) for name in names]


def plain_value(holder: nn.Module, name: str) -> Any:
    """Return a parameter, also where its compressed value hides it, or a plain attribute.

    >>> layer = nn.Linear(1, 1)
    >>> layer.__dict__["weight"] = "compressed"
    >>> plain_value(layer, "weight") is layer._parameters["weight"], plain_value(layer, "in_features")
    (True, 1)
    """
    parameters = holder._parameters
    return parameters[name] if name in parameters else holder.__dict__[name]
