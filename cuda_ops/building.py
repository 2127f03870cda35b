"""Building the two shared libraries: which flags, where they are kept, and who may build.

A library is named after everything that decides its content: sources, flags, PyTorch's version and C++ ABI. It is
built in a directory of its own by another process, which can be killed after a timeout, and moved into place when it
is whole. The lock is the operating system's, so it goes away with whoever held it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cuda_ops import toolchain

__all__ = ["DEVICES", "BuildError", "build", "cache_directory", "interrupt", "library_path"]

DEVICES = ("cpu", "cuda")
TIMEOUT = 600.0
"""Seconds after which a build, or the wait for another process's build, is given up."""

_FAILURE_LIFETIME = 3600.0
_SOURCES = Path(__file__).parent / "csrc"
_interrupted = threading.Event()


class BuildError(RuntimeError):
    """A library cannot be built here."""


def cache_directory() -> Path:
    """Return where libraries are kept: ``LIGHTNING_NNCF_CACHE``, else a folder of the user's cache."""
    chosen = os.environ.get("LIGHTNING_NNCF_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lightning_nncf" / "ops"


def library_path(device: str) -> Path:
    """Return where the library of a device lies once it is built.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """
    digest = hashlib.sha256()
    for part in (torch.__version__, str(torch.version.cuda), str(torch._C._GLIBCXX_USE_CXX11_ABI), sys.platform):
        digest.update(part.encode() + b"\0")
    flags = toolchain.compiler_flags(device)
    if device == "cuda":
        flags = (*flags, *toolchain.nvcc_flags(), toolchain.cuda_architectures())
    for flag in flags:
        digest.update(flag.encode() + b"\0")
    for source in (*toolchain.headers(_SOURCES, device), *toolchain.sources(_SOURCES, device)):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return cache_directory() / f"{device}-{digest.hexdigest()[:24]}" / f"lightning_nncf_{device}.so"


def build(device: str, *, timeout: float = TIMEOUT, retry: bool = False) -> Path:
    """Build the library of a device unless it is there already, and return its path.

    Of several processes one builds and the others wait for it.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        timeout: Seconds after which to give up.
        retry: Try again where an attempt within the last hour failed.

    Raises:
        BuildError: If the library cannot be built; the message says why.
    """
    if device not in DEVICES:
        raise BuildError(f"no kernels for device {device!r}; there are kernels for {' and '.join(DEVICES)}")
    target = library_path(device)
    if target.exists():
        return target
    deadline = time.monotonic() + timeout
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock"), deadline):
            if not target.exists():
                _build_locked(device, target, deadline, retry)
    except OSError as error:
        raise BuildError(
            f"cannot write to {target.parent}: {error}. Set LIGHTNING_NNCF_CACHE to another folder"
        ) from error
    return target


def interrupt() -> None:
    """End the builds of all threads, since the process ends: each raises KeyboardInterrupt and leaves nothing."""
    _interrupted.set()


def _wait() -> None:
    """Wait a moment for another process."""
    if _interrupted.wait(0.1):
        raise KeyboardInterrupt


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold the lock of a library; a process that dies lets go of it."""
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildError(f"another process has been building {path.stem} for too long") from None
                _wait()
        yield


def _build_locked(device: str, target: Path, deadline: float, retry: bool) -> None:
    failure = target.with_suffix(".failed")
    if not retry and failure.exists() and time.time() - failure.stat().st_mtime < _FAILURE_LIFETIME:
        raise BuildError(f"{failure.read_text().strip()} (tried before; `python -m cuda_ops` tries again)")
    for left_over in target.parent.glob("build-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    workspace = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    try:
        built = _compile(device, workspace, max(1.0, deadline - time.monotonic()))
        os.replace(built, target)  # noqa: PTH105
        failure.unlink(missing_ok=True)
    except BuildError as error:
        failure.write_text(f"{error}\n")
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _compile(device: str, workspace: Path, timeout: float) -> Path:
    """Run ``cuda_ops.compile`` in a process group of its own, so that all of it can be stopped."""
    environment = toolchain.environment(device)
    command = [sys.executable, "-m", "cuda_ops.compile", device, str(workspace)]
    log = workspace / "build.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise BuildError(f"building the {device} kernels took longer than {timeout:.0f} s")
                _wait()
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    library = workspace / f"lightning_nncf_{device}.so"
    if process.returncode != 0 or not library.exists():
        raise BuildError(f"building the {device} kernels failed: {_reason(log.read_text(errors='replace'))}")
    return library


def _reason(log: str) -> str:
    """Return the lines of a build log that say what went wrong."""
    lines = list(dict.fromkeys(line.strip() for line in log.splitlines() if line.strip()))
    telling = [
        line
        for line in lines
        if any(sign in line.lower() for sign in ("error:", "fatal", "not found"))
        and not any(frame in line for frame in ("CalledProcessError", "Error building extension"))
    ]
    return " | ".join(telling[:3] or lines[-3:]) or "no output"
