"""Runtimes in child processes: one that aborts, hangs or is killed costs an error, not the training.

The child is a fresh interpreter, not a fork and not `multiprocessing`, so it works in daemonic processes, in notebooks,
and where ``__main__`` cannot be imported.
"""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import onnx
from numpy.typing import NDArray
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.proof.arrays import to_tensors
from lightning_nncf.proof.int8_layers import RuntimeLayer, onnxruntime_layers, openvino_layers
from lightning_nncf.proof.sessions import read_arrays, write_arrays

__all__ = ["TIMEOUT", "RuntimeEndedError", "RuntimeProcess"]

TIMEOUT = 1800.0
"""Seconds that a runtime may take for one load, run or timing."""

# The package's own __init__ would import torch, which takes seconds: empty packages with the same folders stand for it.
_PROGRAM = """
import json, sys, types
path, packages, session = json.loads(sys.argv[1])
sys.path[:] = path
for name, folders in packages.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = folders
from lightning_nncf.proof.child import main
main(session)
"""


class RuntimeEndedError(ExportError):
    """The process of a runtime is gone: it aborted, was killed, or was stopped because it took too long."""


class RuntimeProcess:
    """A runtime in a child process, for the time of one proof.

    Use it as a context manager: the process ends with it.

    Args:
        package: Package of the runtime.
        version: Its version, for messages.
        session: Module and class of its session, as in ``package.module:Class``.
        timeout: Seconds that one request may take.
    """

    def __init__(self, package: str, version: str | None, session: str, *, timeout: float = TIMEOUT) -> None:
        self.package = package
        self.name = f"{package} {version}" if version else package
        self._timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="lightning_nncf_", ignore_cleanup_errors=True)
        self._files = 0
        self._paths: dict[str, str] = {}
        self._buffer = b""
        self._errors = (Path(self._folder.name) / "stderr").open("wb+")
        packages = {name: list(sys.modules[name].__path__) for name in ("lightning_nncf", "lightning_nncf.proof")}
        job = json.dumps([[entry for entry in sys.path if isinstance(entry, str)], packages, session])
        # An application that embeds Python says with multiprocessing.set_executable which interpreter to start.
        program = os.fsdecode(multiprocessing.spawn.get_executable() or sys.executable or "python3")
        try:
            self._process = subprocess.Popen(
                [program, "-c", _PROGRAM, job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )
        except OSError as error:
            self._close_files()
            raise ExportError(f"cannot start {program!r} to run {self.name}: {error.strerror or error}") from error
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> RuntimeProcess:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._selector.close()
        self._close_files()

    def load(
        self,
        model: str,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        inspect: bool = False,
        external: bool = False,
    ) -> None:
        """Load a file under a name.

        Args:
            model: The name.
            path: The file.
            threads: Threads of the runtime; None leaves it to the runtime.
            inspect: Whether `layers` will be asked for.
            external: Whether the weights lie in files of their own.

        Raises:
            ExportError: The runtime cannot load it, or ended.
        """
        self._ask(
            f"load {os.fspath(path)!r}",
            action="load",
            model=model,
            path=str(Path(path).absolute()),
            threads=threads,
            optimized=str(self._optimized(model)) if inspect else None,
            external=inspect and external,
        )
        self._paths[model] = os.fspath(path)

    def has(self, model: str) -> bool:
        """Whether a model of that name is loaded."""
        return model in self._paths

    def run(self, model: str, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
        """Run a loaded model on arrays in the order of its inputs.

        Raises:
            ExportError: The runtime cannot run it, or ended.
        """
        outputs = self._file()
        shapes = ", ".join(str(array.shape) for array in arrays)
        reply = self._ask(
            f"run {self._paths[model]!r} on inputs of shape {shapes}",
            action="run",
            model=model,
            inputs=str(self._write(arrays)),
            outputs=str(outputs),
        )
        tensors = to_tensors(list(zip(read_arrays(str(outputs)), reply["kinds"], strict=True)))
        outputs.unlink()
        return tensors

    def layers(self, model: str) -> list[RuntimeLayer]:
        """Return the convolutions and matrix multiplications of a loaded model after the runtime's optimization."""
        if self._optimized(model).exists():
            return onnxruntime_layers(onnx.load(self._optimized(model), load_external_data=False))
        return openvino_layers(
            self._ask(f"list the layers of {self._paths.get(model)!r}", action="layers", model=model)["layers"]
        )

    def time(self, models: Sequence[str], arrays: Sequence[NDArray[Any]], runs: int) -> dict[str, float]:
        """Time loaded models in turn on the same inputs; return median seconds by name."""
        files = " and ".join(repr(self._paths[model]) for model in models)
        inputs = str(self._write(arrays))
        seconds: dict[str, float] = self._ask(
            f"time {files}", action="time", models=list(models), inputs=inputs, runs=runs
        )["seconds"]
        return seconds

    def _ask(self, doing: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._ended(doing) from None
        reply: dict[str, Any] = json.loads(self._line(doing))
        if "error" in reply:
            raise ExportError(f"{self.name} cannot {doing}: {reply['error']}")
        return reply

    def _line(self, doing: str) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not self._selector.select(self._timeout):
                self._process.kill()
                raise RuntimeEndedError(
                    f"{self.name} took more than {self._timeout:g} s to {doing} and was stopped; leave this runtime "
                    "out of the proof, or try a smaller batch"
                )
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._ended(doing)
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _ended(self, doing: str) -> RuntimeEndedError:
        """Return the error of a process that is gone."""
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        hint = ", as a system does that is short of memory" if code == -signal.SIGKILL else ""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()[-5:]
        words = f". It said: {' | '.join(said)[-1000:]}" if said else ""
        return RuntimeEndedError(
            f"{self.name} ended with {how}{hint} when it was to {doing}{words}. Another version of it may do better, "
            "or leave this runtime out of the proof"
        )

    def _optimized(self, model: str) -> Path:
        folder = Path(self._folder.name) / f"optimized_{model}"
        folder.mkdir(exist_ok=True)
        return folder / "model.onnx"

    def _write(self, arrays: Sequence[NDArray[Any]]) -> Path:
        path = Path(self._folder.name) / "inputs.npy"
        with path.open("wb") as file:
            write_arrays(file, arrays)
        return path

    def _file(self) -> Path:
        self._files += 1
        return Path(self._folder.name) / f"{self._files}.npy"

    def _close_files(self) -> None:
        self._errors.close()
        self._folder.cleanup()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
