"""The Lightning callback: hooks in, calls out, no maths.

Only the command line and the package's own list of names import from here. `callback` is thin: `adopting` holds the
module, `preparation` builds and initializes, `batches` and `running` read data and run steps for them. What works
without a Trainer belongs to `lightning_nncf.core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_nncf.callback import best as _best
from lightning_nncf.callback import callback as _callback
from lightning_nncf.callback.packages import join_packages

if TYPE_CHECKING:
    from lightning_nncf.callback.best import CompressionCheckpoint
    from lightning_nncf.callback.callback import NNCFCallback

__all__ = ["CompressionCheckpoint", "NNCFCallback"]


def __getattr__(name: str) -> Any:
    """Return a callback as a class of every package of Lightning that is imported by now."""
    if name == "NNCFCallback":
        join_packages(_callback.NNCFCallback)
        return _callback.NNCFCallback
    if name == "CompressionCheckpoint":
        join_packages(_best.CompressionCheckpoint, "ModelCheckpoint")
        return _best.CompressionCheckpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
