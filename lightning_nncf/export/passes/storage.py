"""How the integers of each weight are stored in a file: in 4 bits where that loses nothing, else in 8.

A weight of at most 4 bits becomes an ONNX INT4 or UINT4 initializer. What both runtimes make of one (ONNX Runtime 1.32,
OpenVINO 2026.4, 2 to 64 samples, one thread) decides how its layer reads it:

* Read by ``DequantizeLinear`` as it is, the layer loses its integer kernel: a convolution runs in float in both
  runtimes, a fully connected layer in ONNX Runtime (1024x1024 at batch 1: 0.85 ms instead of 0.02 ms).
* Behind a ``Cast`` to 8 bits, which both runtimes compute once while they load the file, convolutions and fully
  connected layers run on integers exactly as with an 8-bit initializer, in the same time.
* Where nothing but the weight is quantized there is no integer kernel to lose, and fully connected layers and
  embeddings keep 4 bits in memory without the cast (``MatMulNBits`` in ONNX Runtime, ``i4`` in OpenVINO).

A weight that does not fit INT4, because it was quantized asymmetrically or a folded batch norm turned its sign, is
stored as UINT4 with an integer to add per channel, 0 in channels without a negative value. One that was widened for its
layer's bias is multiplied behind the cast, also when the file is loaded.

INT2 exists from opset 25 on, but OpenVINO refuses it, so 2 and 3 bits are stored in 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired

__all__ = ["FIRST_OPSET", "StoredWeight", "float_weights", "pack_nibbles", "packed", "store_weights"]

FIRST_OPSET = 21
"""First opset whose ``DequantizeLinear`` and ``Cast`` take 4-bit integers."""


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """How one quantized weight lies in a file.

    Args:
        quantizer: Label of its quantizer.
        bits: Bits it was quantized to.
        stored: Type of the initializer: ``int4``, ``uint4``, ``int8``, ``uint8`` or ``float32``.
        read: What the layer gets: the initializer ``directly``, or ``cast`` to 8 bits when the file is loaded.
        bytes: Size of the initializer.
        reason: Why it is stored and read in this way.
    """

    quantizer: str
    bits: int
    stored: str
    read: str
    bytes: int
    reason: str


def store_weights(graph: OnnxGraph, bits: Mapping[str, int], factors: Mapping[str, int]) -> tuple[StoredWeight, ...]:
    """Store the integers of every quantized weight in the smallest type that keeps its layer's speed.

    Args:
        graph: Graph with ``DequantizeLinear`` weights in 8-bit initializers.
        bits: Label of each weight quantizer to its bits.
        factors: What the integers of an initializer were multiplied by when they were widened; default: 1.

    Returns:
        One entry per initializer.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    stored: dict[str, StoredWeight] = {}
    for node in graph.nodes:
        label = _label(node, bits)
        name = node.input[0] if label is not None else ""
        if label is None or name in stored or graph.producer(name) is not None:
            continue
        integers, readers = np.asarray(graph.constant(name)), graph.consumers(name)
        factor = factors.get(name, 1)
        nibbles = _nibbles(integers // factor, node, graph)
        kept = _kept(nibbles, bits[label], graph.opset)
        why_cast = _why_cast(graph, readers)
        if kept is not None or nibbles is None:
            cast, reason, size, kind = False, kept or "", integers.size, integers.dtype.name
        else:
            cast, reason = why_cast is not None, why_cast or "only the weight is quantized"
            size, kind = (integers.size + 1) // 2, "int4" if nibbles.signed else "uint4"
            replacements += _pack(graph, name, nibbles, readers, cast=cast, factor=factor)
        stored[name] = StoredWeight(
            quantizer=label,
            bits=bits[label],
            stored=kind,
            read="cast" if cast else "directly",
            bytes=size,
            reason=reason,
        )
    graph.replace_all(replacements)
    return tuple(stored.values())


def float_weights(graph: OnnxGraph, bits: Mapping[str, int]) -> tuple[StoredWeight, ...]:
    """List the weights that stand before a ``FakeQuantize``, which takes floats.

    Args:
        graph: Graph with ``FakeQuantize`` weights.
        bits: Label of each weight quantizer to its bits.
    """
    sizes = {
        node.name.removesuffix("/FakeQuantize"): np.asarray(graph.constant(node.input[0])).nbytes
        for node in graph.nodes
        if node.op_type == "FakeQuantize" and graph.constant(node.input[0]) is not None
    }
    return tuple(
        StoredWeight(
            quantizer=label,
            bits=bits[label],
            stored="float32",
            read="directly",
            bytes=size,
            reason="FakeQuantize takes floats; OpenVINO makes them integers when it loads the file",
        )
        for label, size in sizes.items()
        if label in bits
    )


def pack_nibbles(integers: NDArray[Any]) -> bytes:
    """Pack 4-bit integers as ONNX does: two in a byte, the first in the lower half.

    >>> pack_nibbles(np.array([1, -1, 7], np.int8)).hex()
    'f107'
    """
    halves = integers.flatten().astype(np.uint8) & 0x0F
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    return bytes(halves[0::2] | (halves[1::2] << 4))


def _label(node: onnx.NodeProto, bits: Mapping[str, int]) -> str | None:
    """Return the quantizer that a ``DequantizeLinear`` of a weight was written for; nodes are named after it."""
    if node.op_type != "DequantizeLinear":
        return None
    labels = [label for label in bits if node.name.startswith(f"{label}/")]
    return max(labels, key=len, default=None)


def _why_cast(graph: OnnxGraph, readers: Sequence[onnx.NodeProto]) -> str | None:
    """Return why a weight in 4 bits must be cast to 8, None if it need not."""
    if any(_takes_quantized(graph, layer) for reader in readers for layer in _layers(graph, reader)):
        return "its layer runs on 8-bit integers"
    if any(reader.op_type != "DequantizeLinear" for reader in readers):
        return "one of its layers reads it transposed"
    return None


def _layers(graph: OnnxGraph, reader: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the layers that take a weight whose integers a node reads, to transpose or to dequantize them."""
    takers = graph.consumers(reader.output[0])
    if reader.op_type == "DequantizeLinear":
        return takers
    return [layer for taker in takers for layer in _layers(graph, taker)]


def _takes_quantized(graph: OnnxGraph, layer: onnx.NodeProto) -> bool:
    """Whether a layer takes a quantized activation, and so may run on integers."""
    for producer in map(graph.producer, layer.input):
        if (
            producer is not None
            and producer.op_type == "DequantizeLinear"
            and graph.constant(producer.input[0]) is None
        ):
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class _Nibbles:
    """A weight in 4 bits.

    Args:
        integers: What is stored.
        offset: What was subtracted from the weight, in a shape that broadcasts against it.
        signed: Whether they are read as -8..7, else as 0..15.
    """

    integers: NDArray[Any]
    offset: NDArray[Any]
    signed: bool


def _nibbles(integers: NDArray[Any], node: onnx.NodeProto, graph: OnnxGraph) -> _Nibbles | None:
    """Return a weight in 4 bits, as it is where it fits INT4, else above its minima; None if it spans more.

    Weights with a zero point stay as they are: they were not moved to the int8 grid, so they are too wide anyway.
    """
    if integers.dtype != np.int8 or np.any(graph.constant(node.input[2])):
        return None
    axis = attribute(node, "axis", 1) % integers.ndim
    per_channel = np.asarray(graph.constant(node.input[1])).ndim == 1
    others = tuple(dim for dim in range(integers.ndim) if dim != axis or not per_channel)
    wide = integers.astype(np.int64)
    low, high = wide.min(axis=others, keepdims=True), wide.max(axis=others, keepdims=True)
    if low.min() >= -8 and high.max() <= 7:
        return _Nibbles(integers=integers, offset=np.zeros_like(low), signed=True)
    # Zero stays a level, for the zero point that stands for the offset must fit 4 bits too.
    offset = np.minimum(low, 0)
    if (np.maximum(high, 0) - offset).max() > 15:
        return None
    return _Nibbles(integers=wide - offset, offset=offset, signed=False)


def _kept(nibbles: _Nibbles | None, bits: int, opset: int) -> str | None:
    """Return why a weight stays in 8 bits, None if it does not."""
    if bits > 4:
        return f"{bits} bits"
    if opset < FIRST_OPSET:
        return f"opset {opset} has no 4-bit integers, {FIRST_OPSET} has"
    return "its integers span more than 4 bits" if nibbles is None else None


def _pack(
    graph: OnnxGraph,
    name: str,
    nibbles: _Nibbles,
    readers: Sequence[onnx.NodeProto],
    *,
    cast: bool,
    factor: int,
) -> list[tuple[onnx.NodeProto, list[onnx.NodeProto]]]:
    """Store a weight in 4 bits and return what replaces the nodes that read it."""
    offset, signed = nibbles.offset, nibbles.signed
    source = graph.add_tensor(f"{name}/packed", packed(nibbles.integers, signed=signed))
    before: list[onnx.NodeProto] = []
    if cast:
        before.append(
            helper.make_node("Cast", [source], [f"{source}/cast"], name=f"{source}/Cast", to=TensorProto.INT8)
        )
        if offset.any():
            moved = graph.add_constant(f"{name}/offset", offset.astype(np.int8))
            before.append(
                helper.make_node("Add", [before[0].output[0], moved], [f"{source}/moved"], name=f"{source}/Add")
            )
        for index in range(factor.bit_length() - 1):
            # Doubled by adding: OpenVINO takes a product for dequantization and then runs the layer in float.
            last, doubled = before[-1].output[0], f"{source}/wide{index}"
            before.append(helper.make_node("Add", [last, last], [doubled], name=f"{source}/Double{index}"))
        source = before[-1].output[0]
    replacements = []
    for node in readers:
        inputs = {0: source}
        if not cast:
            shape = np.asarray(graph.constant(node.input[1])).shape
            points = np.broadcast_to(-offset.reshape(-1 if shape else ()), shape)
            inputs[2] = graph.add_tensor(f"{name}/zero_point", packed(points, signed=signed))
        replacements.append((node, [*before, rewired(node, inputs=inputs)]))
        before = []
    return replacements


def packed(integers: NDArray[Any], *, signed: bool) -> TensorProto:
    """Return an INT4 or UINT4 tensor that has no name yet."""
    return TensorProto(
        data_type=TensorProto.INT4 if signed else TensorProto.UINT4,
        dims=integers.shape,
        raw_data=pack_nibbles(integers),
    )
