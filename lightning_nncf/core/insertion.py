"""Compressing a network that is plain, wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_nncf.errors import HookError
from lightning_nncf.hooks.insertion import inserted, strip
from lightning_nncf.hooks.notices import is_up

__all__ = ["inserting", "refuse_compressed", "refuse_stripped"]


def refuse_compressed(network: nn.Module, remedy: str) -> None:
    """Refuse a network that is compressed already.

    Args:
        network: The network.
        remedy: What to do, for the message.

    Raises:
        HookError: It is.
    """
    # Filters that are pruned leave nothing inserted behind.
    if any(map(is_up, network.modules())) or any(True for _ in inserted(network)):
        raise HookError(f"{type(network).__name__} is compressed already; {remedy}")


def refuse_stripped(network: nn.Module) -> None:
    """Refuse a network that was compressed and is plain again.

    Raises:
        HookError: It is.
    """
    if not is_up(network):
        raise HookError(
            f"{type(network).__name__} was stripped: it is a plain network, and what compressed it is gone; save or "
            "export it before `strip()`, or compress it again"
        )


@contextmanager
def inserting(network: nn.Module) -> Iterator[None]:
    """Leave a network plain if not all can be inserted."""
    try:
        yield
    except BaseException:
        strip(network)
        raise
