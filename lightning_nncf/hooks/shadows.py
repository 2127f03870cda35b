"""What a hooked module reads while it runs: values in its ``__dict__`` that hide parameters or other attributes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

__all__ = ["ABSENT", "FLAT_WEIGHTS", "flat_weights", "keep_write", "plain_value", "version_of"]

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


def version_of(value: torch.Tensor) -> int:
    """Return how often a tensor was written, which those of inference mode do not know.

    >>> value = torch.zeros(1)
    >>> value.add_(1), version_of(value)
    (tensor([1.]), 1)
    """
    return 0 if value.is_inference() else value._version


def keep_write(holder: nn.Module, name: str, value: Any, where: str) -> None:
    """Give a parameter what was written into the compressed value that hid it, where it would be gone.

    What writes in every call was seen when the network was captured, and its parameter left alone. Writes through
    ``.data`` leave no trace and are not found.

    Args:
        holder: The module that has the parameter.
        name: Name of the parameter there.
        value: The compressed value, no longer in its place.
        where: The module that ran, for the message.
    """
    parameter = holder._parameters.get(name)
    if parameter is None or value is parameter or not isinstance(value, torch.Tensor):
        return
    parameter.data.copy_(value.detach())
    warnings.warn(
        f"the forward of {where} wrote the weight {name!r}, which it had not done when the network was captured: what "
        "was written into its compressed value is kept as the value that is trained. Put the layer into "
        "`ignored_scopes`, or write the weight after an optimizer step",
        stacklevel=1,  # one place, so that it is shown once
    )
