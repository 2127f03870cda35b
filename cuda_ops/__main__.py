"""Build the kernels ahead of time and report: ``python -m cuda_ops [cpu] [cuda]``.

Several libraries are built side by side: each has files that keep one core busy while the others have ended.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from cuda_ops import toolchain
from cuda_ops.building import DEVICES, BuildError, build, interrupt, library_path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Build the libraries asked for and print what happened.

    Args:
        arguments: Command line without the program; the process's own by default.

    Returns:
        0 if all of them are there, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cuda_ops", description="Build the kernels ahead of time and report."
    )
    parser.add_argument(
        "devices", nargs="*", metavar="DEVICE", help="cpu, cuda; what this machine can build by default"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a build is given up")
    options = parser.parse_args(arguments)
    unknown = [device for device in options.devices if device not in DEVICES]
    if unknown:
        parser.error(f"unknown device {unknown[0]!r}, expected {' or '.join(DEVICES)}")
    home = toolchain.cuda_home()
    print(f"torch {torch.__version__}, compiler {shutil.which(_compiler()) or 'none'}, CUDA toolkit {home or 'none'}")
    devices = options.devices or ["cpu", *(["cuda"] if home and torch.version.cuda else [])]
    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            return max(pool.map(lambda device: _build(device, options.timeout), devices))
        except KeyboardInterrupt:
            interrupt()
            raise


def _compiler() -> str:
    return toolchain.environment("cpu").get("CXX", "c++")


def _build(device: str, timeout: float) -> int:
    start = time.monotonic()
    present = library_path(device).exists()
    try:
        path = build(device, timeout=timeout, retry=True)
    except BuildError as error:
        print(f"{device}: FAILED: {error}")
        return 1
    detail = f" for {toolchain.cuda_architectures()}" if device == "cuda" else ""
    print(f"{device}: {'present' if present else 'built'}{detail} in {time.monotonic() - start:.1f} s: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
