"""Compression of neural networks as one PyTorch Lightning callback, from training to a proven ONNX file.

Here are the names that users import, and nothing else. Code of the package imports from the module that holds what it
needs, never from here; nothing is defined here.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lightning_nncf import callback as _callback
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.added import compression_parameter_groups
from lightning_nncf.core.checkpoint import load, load_from_checkpoint, load_weights
from lightning_nncf.core.compression import compress
from lightning_nncf.export import export_onnx
from lightning_nncf.proof import export_and_verify, verify_file, verify_onnx

if TYPE_CHECKING:
    from lightning_nncf.callback import CompressionCheckpoint, NNCFCallback

__all__ = [
    "CompressionCheckpoint",
    "NNCFCallback",
    "NNCFConfig",
    "compress",
    "compression_parameter_groups",
    "export_and_verify",
    "export_onnx",
    "load",
    "load_from_checkpoint",
    "load_weights",
    "verify_file",
    "verify_onnx",
]

__version__ = version("lightning_nncf")


def __getattr__(name: str) -> Any:
    """Return a callback, which both packages of Lightning are to know for theirs, when it is asked for."""
    if name in ("CompressionCheckpoint", "NNCFCallback"):
        return getattr(_callback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
