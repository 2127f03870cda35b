"""Files loaded in a runtime and fed with arrays.

A child process imports this file without the rest of the package, so it needs numpy and the runtime alone. Types that
numpy lacks, such as bfloat16, travel as the unsigned integers of their bits.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable, Sequence
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SESSIONS",
    "OnnxRuntimeSession",
    "OpenVINOSession",
    "Session",
    "read_arrays",
    "session_options",
    "write_arrays",
]

Array = NDArray[Any]


class Session:
    """A file in a runtime.

    Args:
        path: The ONNX file.
        threads: Threads of the runtime; None leaves it to the runtime.
        optimized: Where to write what the runtime made of the file, for runtimes that can only say it in this way.
        external: Whether weights of that file go into a second one, as beyond 2 GB they must.
    """

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        raise NotImplementedError

    def run(self, arrays: Sequence[Array]) -> list[tuple[Array, str]]:
        """Run on arrays in the order of the file's inputs; return the outputs with the type of those that are bits."""
        raise NotImplementedError

    def caller(self, arrays: Sequence[Array]) -> Callable[[], object]:
        """Return a call on fixed inputs without any conversion, for timing."""
        raise NotImplementedError

    def layers(self) -> list[tuple[str, str, str]]:
        """Return kind, precision and original names of all layers; empty where only the optimized file tells."""
        raise NotImplementedError


def session_options(threads: int | None) -> Any:
    """Return ONNX Runtime's options as we use them everywhere."""
    options = importlib.import_module("onnxruntime").SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle threads of one session would burn the cores that the other runtime of an interleaved timing works on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntimeSession(Session):
    """A file in ONNX Runtime on the CPU."""

    _ELEMENTS: ClassVar = {
        "bfloat16": 16,
        "float8e4m3fn": 17,
        "float8e4m3fnuz": 18,
        "float8e5m2": 19,
        "float8e5m2fnuz": 20,
    }

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        self._runtime = importlib.import_module("onnxruntime")
        options = session_options(threads)
        if optimized is not None:
            options.optimized_model_filepath = optimized
        if external:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        self._session = self._runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [(item.name, item.type[7:-1]) for item in self._session.get_inputs()]
        outputs = [item.type for item in self._session.get_outputs()]
        self._plain = not any(f"({kind})" in text for kind in self._ELEMENTS for text in outputs)

    def run(self, arrays: Sequence[Array]) -> list[tuple[Array, str]]:
        """Run on arrays in the order of the file's inputs."""
        fed = self._fed(arrays)
        if self._plain and all(isinstance(value, np.ndarray) for value in fed.values()):
            return [(array, "") for output in self._session.run(None, fed) for array in _arrays(output)]
        values = {name: self._value(value) for name, value in fed.items()}
        return [self._read(value) for value in self._session.run_with_ort_values(None, values)]

    def caller(self, arrays: Sequence[Array]) -> Callable[[], object]:
        """Return a call on fixed inputs."""
        fed = self._fed(arrays)
        if self._plain and all(isinstance(value, np.ndarray) for value in fed.values()):
            return lambda: self._session.run(None, fed)
        values = {name: self._value(value) for name, value in fed.items()}
        return lambda: self._session.run_with_ort_values(None, values)

    def layers(self) -> list[tuple[str, str, str]]:
        """Return nothing: the optimized file tells."""
        return []

    def _fed(self, arrays: Sequence[Array]) -> dict[str, Any]:
        return {
            name: self._bits(array, self._ELEMENTS[kind]) if kind in self._ELEMENTS else _text(array)
            for (name, kind), array in zip(self._inputs, arrays, strict=True)
        }

    def _bits(self, array: Array, element: int) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), element)

    def _value(self, value: Any) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value

    def _read(self, value: Any) -> tuple[Array, str]:
        kind = value.data_type()[7:-1]
        if kind not in self._ELEMENTS:
            return value.numpy(), ""
        number = ctypes.c_uint16 if kind == "bfloat16" else ctypes.c_uint8
        shape = value.shape()
        if 0 in shape:
            return np.empty(shape, number), kind
        memory = (number * int(np.prod(shape))).from_address(value._ortvalue.data_ptr())
        return np.ctypeslib.as_array(memory).reshape(shape).copy(), kind


class OpenVINOSession(Session):
    """A file in OpenVINO on the CPU."""

    def __init__(self, path: str, threads: int | None, optimized: str | None = None, external: bool = False) -> None:
        self._runtime = importlib.import_module("openvino")
        # f32: on processors with bf16 units OpenVINO would else run the float layers in bf16.
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        self.compiled = self._runtime.Core().compile_model(path, "CPU", properties)
        self._kinds = [item.element_type.get_type_name() for item in self.compiled.inputs]
        self._request = self.compiled.create_infer_request()

    def run(self, arrays: Sequence[Array]) -> list[tuple[Array, str]]:
        """Run on arrays in the order of the file's inputs."""
        self._request.infer(self._fed(arrays))
        outputs = []
        for index in range(len(self.compiled.outputs)):
            tensor = self._request.get_output_tensor(index)
            kind = tensor.element_type.get_type_name()
            if kind == "bf16":
                outputs.append((np.array(tensor.data).view(np.uint16), "bfloat16"))
            else:
                outputs.append((np.array(tensor.str_data if kind == "string" else tensor.data), ""))
        return outputs

    def caller(self, arrays: Sequence[Array]) -> Callable[[], object]:
        """Return a call on fixed inputs."""
        fed = self._fed(arrays)
        return lambda: self._request.infer(fed)

    def layers(self) -> list[tuple[str, str, str]]:
        """Return kind, precision and original names of all layers."""
        keys = ("layerType", "runtimePrecision", "originalLayersNames")
        found = []
        for op in self.compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            kind, precision, names = (str(info[key].astype(str)) for key in keys)
            found.append((kind, precision, names))
        return found

    def _fed(self, arrays: Sequence[Array]) -> list[Any]:
        return [
            self._runtime.Tensor(np.ascontiguousarray(array), list(array.shape), self._runtime.Type.bf16)
            if kind == "bf16"
            else array
            for kind, array in zip(self._kinds, arrays, strict=True)
        ]


def write_arrays(file: IO[bytes], arrays: Sequence[Array]) -> None:
    """Write arrays one behind the other."""
    for array in arrays:
        np.save(file, array, allow_pickle=False)


def read_arrays(path: str) -> list[Array]:
    """Read what `write_arrays` wrote."""
    arrays = []
    with open(path, "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            arrays.append(np.load(file, allow_pickle=False))
    return arrays


SESSIONS: dict[str, str] = {
    "onnxruntime": "lightning_nncf.proof.sessions:OnnxRuntimeSession",
    "openvino": "lightning_nncf.proof.sessions:OpenVINOSession",
}
"""Where the session of each runtime is found, by package."""


def _text(array: Array) -> Array:
    """Return an array of texts as the objects that ONNX Runtime takes."""
    return array.astype(object) if array.dtype.kind == "U" else array


def _arrays(output: Any) -> list[Array]:
    """Return the arrays of an output; sequences and maps, as classifiers of other tools return, are taken apart."""
    if isinstance(output, dict):
        return [np.asarray(list(output.values()))]
    if isinstance(output, list):
        return [array for item in output for array in _arrays(item)]
    array = np.asarray(output)
    return [array.astype(str) if array.dtype == object else array]
