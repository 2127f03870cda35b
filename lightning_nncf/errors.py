"""Errors of lightning_nncf: one family, each also a builtin, so that either can be caught."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CaptureError",
    "CheckpointError",
    "ConfigError",
    "ExportError",
    "HookError",
    "InitializationError",
    "LightningNNCFError",
    "NetworkNotFoundError",
    "PlacementError",
    "ScopeError",
    "VerificationError",
    "near",
]


class LightningNNCFError(Exception):
    """Base of every error that lightning_nncf raises on purpose."""


class ConfigError(LightningNNCFError, ValueError):
    """A configuration holds an unknown key, a wrong type or a value out of range."""


class ScopeError(ConfigError):
    """A scope matches nothing in the network, or more than it may."""


class NetworkNotFoundError(LightningNNCFError, LookupError):
    """The network to compress cannot be found in the LightningModule."""


class CaptureError(LightningNNCFError, RuntimeError):
    """The graph of a network cannot be captured."""


class HookError(LightningNNCFError, RuntimeError):
    """A compression module cannot be inserted, or its hook ran where it cannot be right."""


class PlacementError(LightningNNCFError, RuntimeError):
    """No quantizer configuration satisfies all constraints at some place."""


class InitializationError(LightningNNCFError, RuntimeError):
    """Data-driven initialization got no data, or statistics that are empty, NaN or infinite."""


class CheckpointError(LightningNNCFError, RuntimeError):
    """A checkpoint was written by an unknown version or for another configuration."""


class ExportError(LightningNNCFError, RuntimeError):
    """A model cannot be exported or written."""


class VerificationError(LightningNNCFError, RuntimeError):
    """An exported model disagrees with the PyTorch model beyond the tolerance."""


def near(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return a hint naming the known words closest to an unknown one.

    Args:
        name: The word that was not recognised.
        known: The words that would have been.
        count: How many to name at most.

    Returns:
        A sentence such as ``did you mean 'bits'?``, or a list of all known words when none is close
        and they are few, or an empty string.

    >>> near("bist", ["bits", "mode"])
    "did you mean 'bits'?"
    >>> near("zzz", ["bits", "mode"])
    "known: 'bits', 'mode'"
    """
    words = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, words, n=count)
    if close:
        return "did you mean " + " or ".join(repr(word) for word in close) + "?"
    if 0 < len(words) <= 40:
        return "known: " + ", ".join(repr(word) for word in sorted(words))
    return ""
