"""Loading the libraries, once for each kind of device, and saying which implementation runs."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings

import torch

from cuda_ops.building import DEVICES, BuildError, build, library_path

__all__ = ["MODES", "backend", "describe", "load"]

MODES = ("auto", "native", "reference")
"""Values of ``LIGHTNING_NNCF_OPS``: native kernels where they work, native kernels or an error, none."""

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_backends: dict[str, str] = {}
_described: dict[str, str] = {}


def load(device: str) -> bool:
    """Load the kernels of a kind of device, building them when they are not there.

    Only the first call does anything. Where the kernels cannot be had, one warning says why, and the operators keep
    the implementation they have.

    Args:
        device: A device type such as ``"cpu"`` or ``"cuda"``; for any other there are no kernels.

    Returns:
        Whether native kernels run on the device.

    Raises:
        BuildError: With ``LIGHTNING_NNCF_OPS=native``, if there are no kernels.
    """
    with _lock:
        if device not in _backends:
            _backends[device] = "native" if _load(device) else "reference"
        return _backends[device] == "native"


def backend(device: str) -> str | None:
    """Return ``"native"`` or ``"reference"``, or None where `load` was not called for the device.

    Args:
        device: A device type such as ``"cpu"``.
    """
    return _backends.get(device)


def describe(device: str) -> str:
    """Return one line saying which implementation runs on a device and why.

    Args:
        device: A device type such as ``"cpu"``.
    """
    return _described.get(device, f"{device} operators: not loaded")


def _load(device: str) -> bool:
    mode = os.environ.get("LIGHTNING_NNCF_OPS", "auto")
    if mode not in MODES:
        warnings.warn(f"LIGHTNING_NNCF_OPS is {mode!r}, expected one of {', '.join(MODES)}; using auto", stacklevel=4)
        mode = "auto"
    if device not in DEVICES or mode == "reference":
        return _fell_back(device, "chosen by LIGHTNING_NNCF_OPS" if device in DEVICES else "no kernels for this device")
    start = time.monotonic()
    try:
        _check(device)
        fresh = not library_path(device).exists()
        if fresh:
            _logger.info("building the %s kernels of lightning_nncf, which happens once", device)
        _load_library(device)
    except Exception as error:  # whatever it is, a training must not end here
        if mode == "native":
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(
            f"lightning_nncf runs the slower reference operators on {device}: {reason}", RuntimeWarning, stacklevel=4
        )
        return _fell_back(device, reason)
    seconds = time.monotonic() - start
    language = "C++" if device == "cpu" else "CUDA"
    detail = f"{language}, {torch.backends.cpu.get_cpu_capability()}" if device == "cpu" else language
    _described[device] = f"{device} operators: native ({detail}), {'built' if fresh else 'loaded'} in {seconds:.1f} s"
    _logger.info(_described[device])
    return True


def _load_library(device: str) -> None:
    torch.ops.load_library(str(build(device)))  # type: ignore[no-untyped-call]


def _check(device: str) -> None:
    if device == "cuda":
        if torch.version.cuda is None:
            raise BuildError("this PyTorch was built without CUDA")
        if not torch.cuda.is_available():
            raise BuildError("no CUDA device is available")


def _fell_back(device: str, reason: str) -> bool:
    _described[device] = f"{device} operators: reference ({reason})"
    _logger.info(_described[device])
    return False
