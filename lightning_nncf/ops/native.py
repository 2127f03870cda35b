"""Native kernels: loaded before the first operator runs on a kind of device, never at import."""

from __future__ import annotations

import cuda_ops

__all__ = ["backend", "describe", "prepare", "prepared"]

prepared: dict[str, str] = {}
"""Which implementation runs on the kinds of devices that have been prepared: ``"native"`` or ``"reference"``."""


def prepare(device: str) -> None:
    """Load the kernels of a kind of device, building them if need be; only the first call does anything.

    Operators of every layer call it only where `prepared` does not have the device.

    Args:
        device: A device type such as ``"cpu"``. There are kernels for CPUs and CUDA devices.

    Raises:
        cuda_ops.BuildError: With ``LIGHTNING_NNCF_OPS=native``, if there are no kernels.
    """
    if device not in prepared:
        if device in cuda_ops.DEVICES:
            cuda_ops.load(device)
        prepared[device] = cuda_ops.backend(device) or "reference"


def backend(device: str) -> str:
    """Return which implementation of the operators runs on a kind of device: ``"native"`` or ``"reference"``.

    Args:
        device: A device type such as ``"cpu"``; its kernels are loaded, and built if need be.
    """
    prepare(device)
    return prepared[device]


def describe(device: str) -> str:
    """Return a line that says which implementation runs on a kind of device, and why.

    Args:
        device: A device type such as ``"cpu"``; its kernels are loaded, and built if need be.
    """
    prepare(device)
    return cuda_ops.describe(device)
