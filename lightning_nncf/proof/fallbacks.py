"""Quantized layers that a runtime computes in float all the same, and why it does so, as far as is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from lightning_nncf.export.formats import OPENVINO_DOMAIN
from lightning_nncf.export.onnx_graph import attribute
from lightning_nncf.proof.int8_layers import RuntimeLayer

__all__ = ["QuantizedLayer", "find_layer", "float_layers", "quantized_layers"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What hands integers on unchanged: the quantizer of a layer may be ahead of it.
_PASSING = {
    "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Resize", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_BYTES = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)
_BIAS_VERSION = (1, 23)


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """A layer of a file with quantized weight and input, and what makes runtimes compute it in float.

    Args:
        name: Name of its node.
        op: ONNX operator.
        reasons: By runtime, why it may be computed in float; the first that applies.
    """

    name: str
    op: str
    reasons: Mapping[str, str]


def quantized_layers(model: onnx.ModelProto, versions: Mapping[str, str | None]) -> list[QuantizedLayer]:
    """List the layers of a file that are to run on integers of up to 8 bits.

    Args:
        model: The file.
        versions: Version of each runtime, by package.
    """
    graph = _Graph(model)
    return [
        QuantizedLayer(name=node.name or node.output[0], op=node.op_type, reasons=_reasons(graph, node, versions))
        for node in model.graph.node
        if node.op_type in _LAYERS and all(graph.is_quantized(name) for name in node.input[:2])
    ]


def float_layers(
    quantized: Sequence[QuantizedLayer], layers: Iterable[RuntimeLayer], runtime: str
) -> list[tuple[str, str]]:
    """List the quantized layers that a runtime computes in float, each with the likely reason.

    Args:
        quantized: The quantized layers of the file.
        layers: What the runtime made of them.
        runtime: Package of the runtime.
    """
    in_float = [find_layer(quantized, layer) for layer in layers if not layer.integer]
    return [(layer.name, layer.reasons[runtime]) for layer in quantized if layer in in_float]


def find_layer(quantized: Iterable[QuantizedLayer], layer: RuntimeLayer) -> QuantizedLayer | None:
    """Return the quantized layer that a runtime made a layer from, if there is one.

    Runtimes name a layer after the nodes of the file that went into it. ONNX Runtime puts text before or behind, as in
    ``fused attention/MatMul`` and ``attention/MatMul/MatMulScaleFusion/``.

    >>> product = QuantizedLayer(name="attention/MatMul", op="MatMul", reasons={})
    >>> made = RuntimeLayer(kind="matmul", integer=False, names=("attention/MatMul/MatMulScaleFusion/",))
    >>> find_layer([product], made) is product
    True
    """
    names = [f"{name.removeprefix('fused ')}/" for name in layer.names]
    return next((each for each in quantized if any(name.startswith(f"{each.name}/") for name in names)), None)


class _Graph:
    """Who makes and who reads the tensors of a file."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {item.name for item in model.graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def source(self, name: str) -> NodeProto | None:
        """Return the node that dequantized a tensor, none if it is in float."""
        node = self.makers.get(name)
        while node is not None and node.op_type in (*_PASSING, "Mul", "Cast"):
            node = self.makers.get(node.input[0])
        quantizer = node is not None and (node.op_type == "DequantizeLinear" or node.domain == OPENVINO_DOMAIN)
        return node if quantizer else None

    def is_quantized(self, name: str) -> bool:
        """Whether a tensor comes from integers of up to 8 bits."""
        node = self.source(name)
        if node is None:
            return False
        if node.domain == OPENVINO_DOMAIN:
            return int(attribute(node, "levels", 0)) <= 256
        kind = self._kind(node)
        return kind is None or kind in _BYTES

    def _kind(self, node: NodeProto) -> int | None:
        for name in (node.input[0], *node.input[2:3]):
            if name in self.constants:
                return int(self.constants[name].data_type)
        return None

    def has_offset(self, name: str) -> bool:
        """Whether the zero point of a quantized tensor is other than 0."""
        node = self.source(name)
        if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3:
            return False
        constant = self.constants.get(node.input[2])
        if constant is None or constant.data_location == TensorProto.EXTERNAL:
            return False
        return bool(np.any(numpy_helper.to_array(constant).astype(np.int32) != 0))


def _reasons(graph: _Graph, node: NodeProto, versions: Mapping[str, str | None]) -> dict[str, str]:
    return {
        "onnxruntime": _onnxruntime(graph, node, versions.get("onnxruntime")),
        "openvino": _openvino(graph, node),
    }


def _onnxruntime(graph: _Graph, node: NodeProto, version: str | None) -> str:
    if node.op_type == "ConvTranspose":
        return "ONNX Runtime has transposed convolutions in float alone"
    if len(node.input) > 2 and node.input[2] in graph.constants and _parts(version) < _BIAS_VERSION:
        return f"ONNX Runtime {version} wants integer biases; 1.23 and newer do not"
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0):
        return "its alpha or beta is not 1"
    maker = graph.makers.get(node.input[0])
    if maker is not None and maker.op_type != "DequantizeLinear":
        return f"{maker.op_type} stands between its input's quantizer and it"
    if node.output[0] in graph.outputs:
        return "its output is one of the network's and not quantized"
    readers = graph.readers.get(node.output[0], [])
    if len(readers) > 1:
        return f"{len(readers)} nodes read its output before it is quantized"
    if readers and readers[0].op_type != "QuantizeLinear" and readers[0].op_type not in ("Relu", "Clip"):
        return f"{readers[0].op_type} reads its output before it is quantized"
    return "no reason is known"


def _openvino(graph: _Graph, node: NodeProto) -> str:
    if node.op_type == "ConvTranspose" and graph.has_offset(node.input[0]):
        return "OpenVINO wants the zero point of its input to be 0"
    if node.op_type == "MatMul" and graph.has_offset(node.input[1]):
        return "OpenVINO wants the zero points of its weights to be 0"
    weight = graph.constants.get(_first(graph, node))
    groups = int(attribute(node, "group", 1))
    if node.op_type == "Conv" and groups > 1 and weight is not None and len(weight.dims) == 5:
        return "OpenVINO has grouped convolutions of volumes in float alone"
    return "no reason is known"


def _first(graph: _Graph, node: NodeProto) -> str:
    source = graph.source(node.input[1])
    return "" if source is None else str(source.input[0])


def _parts(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (version or "").split(".")[:2] if part.isdigit())
