"""Runtimes that go wrong by themselves, on any file, for the tests of the guard around real ones."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning_nncf.proof.sessions import OnnxRuntimeSession, Session


class AbortingSession(Session):
    """Ends its process while it loads."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        sys.stderr.write("terminate called: the kernel has no such thing\n")
        sys.stderr.flush()
        os.abort()


class AbortingRunSession(OnnxRuntimeSession):
    """Loads, and ends its process at its first run."""

    def run(self, arrays: Sequence[Any]) -> list[tuple[Any, str]]:
        os.abort()


class AbortingWatchedSession(OnnxRuntimeSession):
    """Ends its process when it is to show its layers."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        if path.endswith("watched.onnx"):
            os.abort()
        super().__init__(path, threads, optimized, external)


class SleepingSession(OnnxRuntimeSession):
    """Never comes back from a run."""

    def run(self, arrays: Sequence[Any]) -> list[tuple[Any, str]]:
        time.sleep(60)
        raise AssertionError


class UnwillingSession(OnnxRuntimeSession):
    """Loads nothing."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        raise RuntimeError("Exception from core.cpp:1:\nUnsupported padding mode: [wrap]")


class OnlyFloatSession(OnnxRuntimeSession):
    """Loads nothing but float files."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        if not path.endswith("float.onnx"):
            raise RuntimeError("QuantizeLinear is unknown")
        super().__init__(path, threads, optimized, external)


class StaleSession(OnnxRuntimeSession):
    """Right for the first two rows; the rest is what lay in memory."""

    def run(self, arrays: Sequence[Any]) -> list[tuple[Any, str]]:
        outputs = super().run(arrays)
        for array, _ in outputs:
            array[2:] = 17.0
        return outputs


class SlowSession(OnnxRuntimeSession):
    """Slow with every file but float ones."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        super().__init__(path, threads, optimized, external)
        self._pause = 0.0 if path.endswith("float.onnx") else 0.002

    def caller(self, arrays: Sequence[Any]) -> Callable[[], object]:
        call, pause = super().caller(arrays), self._pause

        def slow() -> object:
            time.sleep(pause)
            return call()

        return slow


class ModulesSession(Session):
    """Tells which heavy packages its process has imported."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        heavy = [name for name in ("torch", "onnx", "pytorch_lightning") if name in sys.modules]
        raise RuntimeError(f"imported: {heavy}")
