"""Exported models in ONNX Runtime and OpenVINO, called like the network they came from."""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.export.metadata import read_metadata
from lightning_nncf.export.structure import flatten_like, rebuild
from lightning_nncf.export.writing import read_graph
from lightning_nncf.proof.arrays import graph_inputs, to_arrays, to_tensors
from lightning_nncf.proof.sessions import OnnxRuntimeSession, OpenVINOSession, Session

__all__ = ["RUNTIMES", "OnnxRuntimeModel", "OpenVINOModel", "RuntimeModel", "runtime_version"]


def runtime_version(package: str) -> str | None:
    """Return the version of an installed package, None when it cannot be imported."""
    try:
        return str(importlib.import_module(package).__version__).partition("-")[0]
    except ImportError:
        return None


class RuntimeModel(ABC):
    """An exported model in a runtime, in this process.

    It is called with torch tensors as the network was, keywords included, and returns what the network returned: the
    file holds the structure. A file from elsewhere returns its only output, or a tuple of all.

    Args:
        path: The ONNX file.
        threads: Threads of the runtime; None leaves it to the runtime.

    Raises:
        ExportError: The runtime is not installed, or cannot load the file.
    """

    package: ClassVar[str]
    """Name of the Python package."""
    title: ClassVar[str]
    """Name of the runtime."""
    session_class: ClassVar[type[Session]]

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        if runtime_version(self.package) is None:
            raise ExportError(f"{self.package} is not installed; install it with `pip install {self.package}`")
        self.path = Path(path)
        model = read_graph(self.path)
        self.inputs = graph_inputs(model)
        self.output_names = [item.name for item in model.graph.output]
        self.metadata = read_metadata(model)
        try:
            self.session = self.session_class(str(self.path), threads)
        except Exception as error:
            raise ExportError(f"{self.title} cannot load {str(self.path)!r}: {error}") from error

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run on flat tensors, in the order of the file's inputs, and return flat CPU tensors."""
        arrays = to_arrays(tensors, self.inputs)
        try:
            return to_tensors(self.session.run(arrays))
        except Exception as error:
            shapes = ", ".join(
                f"{item.name} {tuple(array.shape)}" for item, array in zip(self.inputs, arrays, strict=True)
            )
            raise ExportError(f"{self.package} cannot run {str(self.path)!r} on {shapes}: {error}") from error

    def runner(self, tensors: Sequence[Tensor]) -> Callable[[], object]:
        """Return a call on fixed inputs without any conversion, for timing."""
        return self.session.caller(to_arrays(tensors, self.inputs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the network is called; tensors come back on the device of the first tensor given."""
        given = _structure(self.metadata, "inputs")
        tensors = list(args) if given is None else flatten_like(given, args, kwargs)
        device = next((tensor.device for tensor in tensors if isinstance(tensor, Tensor)), torch.device("cpu"))
        outputs = [tensor.to(device) for tensor in self.run(tensors)]
        returned = _structure(self.metadata, "outputs")
        if returned is not None:
            return rebuild(returned, outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _structure(metadata: Mapping[str, str], key: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(metadata[key]) if key in metadata else None
    return found


class OnnxRuntimeModel(RuntimeModel):
    """An exported model in ONNX Runtime on the CPU."""

    package = "onnxruntime"
    title = "ONNX Runtime"
    session_class = OnnxRuntimeSession


class OpenVINOModel(RuntimeModel):
    """An exported model in OpenVINO on the CPU."""

    package = "openvino"
    title = "OpenVINO"
    session_class = OpenVINOSession


RUNTIMES: dict[str, type[RuntimeModel]] = {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVINOModel}
"""Runtimes that prove a file, by package."""
