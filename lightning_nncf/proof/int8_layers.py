"""How many convolutions and matrix multiplications really run on integers: what the runtimes made of the file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from lightning_nncf.proof.runtimes import RuntimeModel
from lightning_nncf.proof.sessions import OnnxRuntimeSession

__all__ = ["Int8Layers", "RuntimeLayer", "count_int8_layers", "onnxruntime_layers", "openvino_layers"]

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
class RuntimeLayer:
    """A convolution or matrix multiplication after a runtime's own optimization.

    Args:
        kind: What it is.
        integer: Whether it runs on integers.
        names: Names of the file's nodes that went into it, as far as the runtime kept them.
    """

    kind: Literal["convolution", "matmul"]
    integer: bool
    names: tuple[str, ...]


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
    def of(cls, layers: Iterable[RuntimeLayer]) -> Int8Layers:
        """Count layers.

        >>> Int8Layers.of([RuntimeLayer(kind="matmul", integer=True, names=())])
        Int8Layers(convolutions=0, all_convolutions=0, matmuls=1, all_matmuls=1)
        """
        found = list(layers)
        convolutions = [layer.integer for layer in found if layer.kind == "convolution"]
        matmuls = [layer.integer for layer in found if layer.kind == "matmul"]
        return cls(
            convolutions=sum(convolutions),
            all_convolutions=len(convolutions),
            matmuls=sum(matmuls),
            all_matmuls=len(matmuls),
        )


def count_int8_layers(model: RuntimeModel) -> Int8Layers:
    """Count the integer layers of a model after its runtime's own optimization."""
    if layers := model.session.layers():
        return Int8Layers.of(openvino_layers(layers))
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        OnnxRuntimeSession(str(model.path), None, str(optimized))
        return Int8Layers.of(onnxruntime_layers(onnx.load(optimized, load_external_data=False)))


def onnxruntime_layers(optimized: onnx.ModelProto) -> list[RuntimeLayer]:
    """List the layers of a file as ONNX Runtime wrote it after optimization."""
    layers = []
    for node in optimized.graph.node:
        names = (node.name, *node.output)
        if node.op_type in _ORT_CONVOLUTIONS:
            layers.append(RuntimeLayer(kind="convolution", integer=_ORT_CONVOLUTIONS[node.op_type], names=names))
        elif node.op_type in _ORT_MATMULS:
            layers.append(RuntimeLayer(kind="matmul", integer=_ORT_MATMULS[node.op_type], names=names))
    return layers


def openvino_layers(layers: Iterable[Sequence[str]]) -> list[RuntimeLayer]:
    """List the layers of OpenVINO's runtime model, given by kind, precision and original names.

    >>> openvino_layers([("Convolution", "u8", "conv1/Conv,relu"), ("Reorder", "f32", "")])
    [RuntimeLayer(kind='convolution', integer=True, names=('conv1/Conv', 'relu'))]
    """
    found = []
    for kind, precision, names in layers:
        integer, originals = precision in _INTEGERS, tuple(names.split(","))
        if kind in _OPENVINO_CONVOLUTIONS:
            found.append(RuntimeLayer(kind="convolution", integer=integer, names=originals))
        elif kind in _OPENVINO_MATMULS:
            found.append(RuntimeLayer(kind="matmul", integer=integer, names=originals))
    return found
