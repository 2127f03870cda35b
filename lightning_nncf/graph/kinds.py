"""The classes of modules that compression treats in ways of their own."""

from __future__ import annotations

from torch import nn

__all__ = ["BASE", "BATCH_NORMS", "RECTIFIERS", "kind_of"]

RECTIFIERS = (nn.ReLU, nn.ReLU6)
"""Activation functions whose work a quantizer of their output can do, see `lightning_nncf.hooks.layers`."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Batch norms whose work a quantizer of their output, or of an activation function behind, can do as well."""

BASE = "_lnncf_base"
"""Attribute of a generated class that holds the class it was generated from."""


def kind_of(module: nn.Module) -> type[nn.Module]:
    """Return the class that the user gave a module, also while it has a generated one.

    >>> kind_of(nn.ReLU()) is nn.ReLU
    True
    """
    kind = type(module)
    base: type[nn.Module] = kind.__dict__.get(BASE, kind)
    return base
