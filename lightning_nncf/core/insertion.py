"""Compressing a network that is plain, wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_nncf.errors import HookError
from lightning_nncf.graph.hooks import inserted, strip

__all__ = ["inserting", "refuse_compressed"]


def refuse_compressed(network: nn.Module, remedy: str) -> None:
    """Refuse a network that is compressed already.

    Args:
        network: The network.
        remedy: What to do, for the message.

    Raises:
        HookError: It is.
    """
    if any(True for _ in inserted(network)):
        raise HookError(f"{type(network).__name__} is compressed already; {remedy}")


@contextmanager
def inserting(network: nn.Module) -> Iterator[None]:
    """Leave a network plain if not all can be inserted."""
    try:
        yield
    except BaseException:
        strip(network)
        raise
