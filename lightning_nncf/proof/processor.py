"""What the processor can do with 8-bit integers."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["saturates"]

_WITH_SUMS = ("vnni", "avx10", "amx", "all", "default")


def saturates(info: str | None = None, limit: str | None = None) -> bool:
    """Whether products of 8-bit integers are added up in 16 bits, so that full-range weights saturate.

    So it is on x86 processors without VNNI, and where oneDNN is told to do without it.

    Args:
        info: The processor as Linux describes it. Default: this machine's.
        limit: ``ONEDNN_MAX_CPU_ISA``. Default: the environment's.

    >>> saturates("flags: avx2 avx512f", ""), saturates("flags: avx2 avx512_vnni", "")
    (True, False)
    >>> saturates("flags: avx2 avx512_vnni", "AVX2")
    True
    """
    if info is None:
        if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
            return False
        file = Path("/proc/cpuinfo")
        info = file.read_text() if file.exists() else "vnni"
    chosen = os.environ.get("ONEDNN_MAX_CPU_ISA", "") if limit is None else limit
    limited = bool(chosen) and not any(word in chosen.lower() for word in _WITH_SUMS)
    return limited or not ("vnni" in info or "amx_int8" in info)
