"""How many convolutions and matrix multiplications really run on integers: what the runtimes made of the file."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from lightning_nncf.proof.runtimes import OpenVINOModel, RuntimeModel, session_options

__all__ = ["Int8Layers", "count_int8_layers"]

_ORT_CONVOLUTIONS = {
    **dict.fromkeys(("QLinearConv", "ConvInteger", "QLinearConvTranspose"), True),
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "ConvTranspose"), False),
}
_ORT_MATMULS = {
    **dict.fromkeys(
        ("QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "MatMulNBits"),
        True,
    ),
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul"), False),
}
_OPENVINO_CONVOLUTIONS = ("Convolution", "Deconvolution", "GroupConvolution", "BinaryConvolution")
_OPENVINO_MATMULS = ("FullyConnected", "MatMul")
_INTEGERS = ("u8", "i8", "u4", "i4")


@dataclass(frozen=True, kw_only=True)
class Int8Layers:
    """Layers that run on integers among all of their kind.

    Args:
        convolutions: Convolutions on integers.
        all_convolutions: All convolutions.
        matmuls: Matrix multiplications and fully connected layers on integers.
        all_matmuls: All of those.
    """

    convolutions: int
    all_convolutions: int
    matmuls: int
    all_matmuls: int

    @classmethod
    def of(cls, convolutions: Iterable[bool], matmuls: Iterable[bool]) -> Int8Layers:
        """Count from one flag per layer.

        >>> Int8Layers.of([True, False], [True])
        Int8Layers(convolutions=1, all_convolutions=2, matmuls=1, all_matmuls=1)
        """
        first, second = list(convolutions), list(matmuls)
        return cls(convolutions=sum(first), all_convolutions=len(first), matmuls=sum(second), all_matmuls=len(second))


def count_int8_layers(model: RuntimeModel) -> Int8Layers:
    """Count the integer layers of a model after its runtime's own optimization."""
    return _openvino(model) if isinstance(model, OpenVINOModel) else _onnxruntime(model.path)


def _onnxruntime(path: Path) -> Int8Layers:
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(None)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        runtime = importlib.import_module("onnxruntime")
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        ops = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return Int8Layers.of(
        (_ORT_CONVOLUTIONS[op] for op in ops if op in _ORT_CONVOLUTIONS),
        (_ORT_MATMULS[op] for op in ops if op in _ORT_MATMULS),
    )


def _openvino(model: OpenVINOModel) -> Int8Layers:
    layers = [
        tuple(str(op.get_rt_info()[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        for op in model.compiled.get_runtime_model().get_ops()
    ]
    return Int8Layers.of(
        (precision in _INTEGERS for kind, precision in layers if kind in _OPENVINO_CONVOLUTIONS),
        (precision in _INTEGERS for kind, precision in layers if kind in _OPENVINO_MATMULS),
    )
