"""Compile one library in the current process: ``python -m cuda_ops.compile cpu FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from torch.utils import cpp_extension

from cuda_ops import toolchain

__all__ = ["main"]

_SOURCES = Path(__file__).parent / "csrc"


def main(device: str, folder: str) -> None:
    """Compile the library of a device with ninja.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        folder: Where to put object files and the library.
    """
    if device == "cuda" and toolchain.cuda_home() is None:
        raise SystemExit("error: no CUDA toolkit with nvcc and headers was found; set CUDA_HOME")
    cpp_extension.load(
        name=f"lightning_nncf_{device}",
        sources=[str(source) for source in toolchain.sources(_SOURCES, device)],
        extra_cflags=list(toolchain.compiler_flags(device)),
        extra_cuda_cflags=list(toolchain.nvcc_flags()),
        build_directory=folder,
        is_python_module=False,
        with_cuda=device == "cuda",
        verbose=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
