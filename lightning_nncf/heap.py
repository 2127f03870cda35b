"""Memory of the C library, kept between training steps on a CPU.

A step frees what it allocated. The GNU C library gives large freed parts of its heap back to the system, and takes them
again in the next step with a page fault for each 4 KiB: up to a tenth of a step of ResNet-50 that trains with
quantizers, and more for it than without, since more is held at the peak.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

__all__ = ["keep", "kept", "release"]

# Parameters of mallopt(3), and the largest values that the library sets by itself on 64-bit systems.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20
_LARGEST_TRIM_THRESHOLD = 2 * _LARGEST_MMAP_THRESHOLD
_NEVER = 2**31 - 1

_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep() -> bool:
    """Let the process keep the memory that it frees, up to what was in use at once.

    Returns:
        Whether that was done: not with another C library, nor where its settings come from the environment.
    """
    library = _library()
    if library is None or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and library.mallopt(_TRIM_THRESHOLD, _NEVER))


def release() -> None:
    """Give kept memory back, and let the C library do so from now on."""
    library = _library()
    if library is not None and not any(name in os.environ for name in _OWN_SETTINGS):
        library.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
        library.malloc_trim(0)


@contextlib.contextmanager
def kept() -> Iterator[bool]:
    """Keep freed memory for a while.

    >>> with kept() as done:
    ...     isinstance(done, bool)
    True
    """
    try:
        yield keep()
    finally:
        release()


def _library() -> Any:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
