"""Exported models in ONNX Runtime and OpenVINO, called like the network they came from."""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.export.metadata import read_metadata
from lightning_nncf.export.preparation import float_inputs
from lightning_nncf.export.structure import flatten_like, rebuild
from lightning_nncf.export.writing import read_model

__all__ = ["RUNTIMES", "OnnxRuntimeModel", "OpenVINOModel", "RuntimeModel", "runtime_version"]


def runtime_version(package: str) -> str | None:
    """Return the version of an installed package, None when it cannot be imported."""
    try:
        return str(importlib.import_module(package).__version__).partition("-")[0]
    except ImportError:
        return None


class RuntimeModel(ABC):
    """An exported model in a runtime.

    It is called with torch tensors as the network was, keywords included, and returns what the network returned: the
    file holds the structure. A file from elsewhere returns its only output, or a tuple of all.

    Args:
        path: The ONNX file.
        threads: Threads of the runtime; None leaves it to the runtime.
    """

    package: str
    """Name of the Python package."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        if runtime_version(self.package) is None:
            raise ExportError(f"{self.package} is not installed; install it with `pip install {self.package}`")
        self.path = Path(path)
        model = read_model(self.path)
        initializers = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [item for item in model.graph.input if item.name not in initializers]
        self.output_names = [item.name for item in model.graph.output]
        self.metadata = read_metadata(model)
        self._run = self._load(threads)

    @abstractmethod
    def _load(self, threads: int | None) -> Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]:
        """Return a function from flat inputs to flat outputs."""

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run on flat tensors, in the order of the file's inputs, and return flat CPU tensors."""
        arrays = [
            np.asarray(float_inputs(tensor).numpy(), dtype=onnx.helper.tensor_dtype_to_np_dtype(_element_type(item)))
            for tensor, item in zip(tensors, self.inputs, strict=True)
        ]
        try:
            outputs = self._run(arrays)
        except Exception as error:
            shapes = ", ".join(
                f"{item.name} {tuple(array.shape)}" for item, array in zip(self.inputs, arrays, strict=True)
            )
            raise ExportError(f"{self.package} cannot run {str(self.path)!r} on {shapes}: {error}") from error
        return [torch.from_numpy(np.array(output)) for output in outputs]

    def runner(self, tensors: Sequence[Tensor]) -> Callable[[], object]:
        """Return a call on fixed inputs without any conversion, for timing."""
        arrays = [float_inputs(tensor).contiguous().numpy() for tensor in tensors]
        return lambda: self._run(arrays)

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


def _element_type(item: onnx.ValueInfoProto) -> int:
    return int(item.type.tensor_type.elem_type)


def _structure(metadata: Mapping[str, str], key: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(metadata[key]) if key in metadata else None
    return found


class OnnxRuntimeModel(RuntimeModel):
    """An exported model in ONNX Runtime on the CPU."""

    package = "onnxruntime"

    def _load(self, threads: int | None) -> Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]:
        runtime = importlib.import_module(self.package)
        options = session_options(threads)
        try:
            session = runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load {str(self.path)!r}: {error}") from error
        names = [item.name for item in self.inputs]

        def run(arrays: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
            results: Sequence[NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
            return results

        return run


def session_options(threads: int | None) -> Any:
    """Return ONNX Runtime's options as we use them everywhere."""
    options = importlib.import_module("onnxruntime").SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle threads of one session would burn the cores that the other runtime of an interleaved timing works on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OpenVINOModel(RuntimeModel):
    """An exported model in OpenVINO on the CPU."""

    package = "openvino"

    def _load(self, threads: int | None) -> Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]:
        # f32: on processors with bf16 units OpenVINO would else run the float layers in bf16.
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            core = importlib.import_module(self.package).Core()
            self.compiled = core.compile_model(str(self.path), "CPU", properties)
        except Exception as error:
            raise ExportError(f"OpenVINO cannot load {str(self.path)!r}: {error}") from error
        request, count = self.compiled.create_infer_request(), len(self.output_names)

        def run(arrays: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
            request.infer(list(arrays))
            return [request.get_output_tensor(index).data for index in range(count)]

        return run


RUNTIMES: dict[str, type[RuntimeModel]] = {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVINOModel}
"""Runtimes that prove a file, by package."""
