"""Folding batch normalization into the scales of quantized weights.

ONNX Runtime keeps a convolution in float when a BatchNormalization stands behind its quantized weight. The factor of
each channel goes into the scale of that channel, exactly: the integers of the weight stay what they were in training.
Products and sums with a constant per channel are folded in the same way: a frozen batch norm is written like that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired

__all__ = ["FoldedBatchNorms", "fold_batch_norms", "scale_channels"]


@dataclass(frozen=True, kw_only=True)
class FoldedBatchNorms:
    """Outcome of the folding.

    Args:
        folded: How many were folded.
        left: Those behind a quantized weight that stay, each with the reason.
    """

    folded: int = 0
    left: tuple[str, ...] = ()


def fold_batch_norms(graph: OnnxGraph) -> FoldedBatchNorms:
    """Fold every BatchNormalization behind a convolution or Gemm with a dequantized constant weight.

    Products and sums with constants are folded, too, but are not counted.

    Args:
        graph: Graph with ``DequantizeLinear`` weights.

    Returns:
        What was folded and what was not.
    """
    folded, left = 0, []
    shared: dict[tuple[str, ...], tuple[str, str]] = {}
    for norm in [node for node in graph.nodes if node.op_type in ("BatchNormalization", "Mul", "Add")]:
        producer = _layer_before(graph, norm)
        if producer is None:
            continue
        dequantize = graph.producer(producer.input[1])
        if (
            dequantize is None
            or dequantize.op_type != "DequantizeLinear"
            or graph.constant(dequantize.input[0]) is None
        ):
            continue
        reason = _fold(graph, norm, producer, dequantize, shared)
        if norm.op_type != "BatchNormalization":
            continue
        if reason is None:
            folded += 1
        else:
            left.append(f"{norm.name}: {reason}")
    return FoldedBatchNorms(folded=folded, left=tuple(left))


def _fold(
    graph: OnnxGraph,
    norm: onnx.NodeProto,
    producer: onnx.NodeProto,
    dequantize: onnx.NodeProto,
    shared: dict[tuple[str, ...], tuple[str, str]],
) -> str | None:
    """Fold one batch norm; layers that are called several times share the folded weight. Return why not."""
    if graph.only_consumer(producer.output[0]) is not norm:
        return "the output before it is also used elsewhere"
    axis = _channel_axis(producer)
    if axis is None:
        return f"{producer.op_type} with groups or factors has no channel axis for it"
    # The same weight, bias and batch norm again: a layer called a second time.
    key = (
        producer.op_type,
        *producer.input[1:],
        norm.op_type,
        *_constants(norm),
        str(attribute(norm, "epsilon", 1e-5)),
    )
    if key in shared:
        graph.replace_all([(producer, [_behind(producer, norm, *shared[key])]), (norm, [])])
        return None
    integers = np.asarray(graph.constant(dequantize.input[0]))
    affine = _affine(graph, norm, integers.ndim, integers.shape[axis])
    if affine is None:
        return "its statistics are not constant"
    factor, mean, beta = affine
    scale = np.asarray(graph.constant(dequantize.input[1]))
    has_zero_point = len(dequantize.input) > 2
    zero_point = np.asarray(graph.constant(dequantize.input[2])) if has_zero_point else np.zeros((), integers.dtype)
    if scale.ndim and attribute(dequantize, "axis", 1) % integers.ndim != axis:
        return f"its weight is quantized per channel along another axis than {axis}"
    channels = integers.shape[axis]
    integers, scale, zero_point = scale_channels(
        integers, np.broadcast_to(scale, channels), np.broadcast_to(zero_point, channels), factor, axis
    )
    bias = np.zeros(channels)
    if len(producer.input) > 2 and producer.input[2]:
        given = graph.constant(producer.input[2])
        if given is None:
            return "the bias before it is not constant"
        bias = bias + given
    name = dequantize.name.removesuffix("/DequantizeLinear")
    if graph.producer(f"{name}/folded") is not None:
        name = f"{name}/{norm.name or norm.output[0]}"
    weight = f"{name}/folded"
    new_dequantize = helper.make_node(
        "DequantizeLinear",
        [
            graph.add_constant(f"{name}/folded_integers", integers),
            graph.add_constant(f"{name}/folded_scale", scale),
            graph.add_constant(f"{name}/folded_zero_point", zero_point),
        ],
        [weight],
        name=f"{name}/folded/DequantizeLinear",
        axis=axis,
    )
    new_bias = graph.add_constant(f"{name}/folded_bias", (beta + (bias - mean) * factor).astype(np.float32))
    shared[key] = (weight, new_bias)
    new_producer = _behind(producer, norm, weight, new_bias)
    # The weight is unfolded where others share it, so its own node stays until a sweep finds it unused.
    graph.replace_all([(producer, [new_dequantize, new_producer]), (norm, [])])
    return None


def _layer_before(graph: OnnxGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the layer whose result a node takes, None if it takes another computed tensor too."""
    for port in range(1 if node.op_type == "BatchNormalization" else 2):
        producer = graph.producer(node.input[port])
        if producer is not None and producer.op_type in ("Conv", "ConvTranspose", "Gemm"):
            others = () if node.op_type == "BatchNormalization" else (node.input[1 - port],)
            return producer if all(graph.constant(name) is not None for name in others) else None
    return None


def _constants(node: onnx.NodeProto) -> Sequence[str]:
    return node.input[1:5] if node.op_type == "BatchNormalization" else sorted(node.input)


def _affine(
    graph: OnnxGraph, node: onnx.NodeProto, rank: int, channels: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """Return factor, mean and shift per channel, ``[C]``: what a node makes of x is ``(x - mean) * factor + shift``.

    Args:
        graph: The graph.
        node: BatchNormalization, Mul or Add.
        rank: Rank of what it takes, whose channels are on axis 1.
        channels: How many there are.

    Returns:
        None where these are not constant, or are more than one value per channel.
    """
    values = [graph.constant(name) for name in _constants(node)]
    if node.op_type == "BatchNormalization":
        if any(value is None for value in values):
            return None
        gamma, shift, mean, variance = (np.asarray(value, dtype=np.float64) for value in values)
        return gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5)), mean, shift
    constant = next(value for value in values if value is not None)
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) != rank or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    each = np.broadcast_to(np.asarray(constant, dtype=np.float64).reshape(-1), channels)
    zeros, ones = np.zeros(channels), np.ones(channels)
    return (each, zeros, zeros) if node.op_type == "Mul" else (ones, zeros, each)


def _behind(producer: onnx.NodeProto, norm: onnx.NodeProto, weight: str, bias: str) -> onnx.NodeProto:
    """Return a layer like another with folded weight and bias, in the place of the batch norm behind it."""
    return rewired(producer, inputs={1: weight, 2: bias}, outputs={0: norm.output[0]})


def _channel_axis(node: onnx.NodeProto) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and not attribute(node, "transA", 0)
    return (0 if attribute(node, "transB", 0) else 1) if plain else None


def scale_channels(
    integers: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any], factor: NDArray[Any], axis: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Multiply a quantized weight by one factor per channel.

    A positive factor goes into the scale. A negative one also turns the sign of the integers: -q where that fits and
    the zero point is 0, else the complement, which moves the zero point with it. A factor too small for a normal
    float32 scale makes the channel zero.

    Args:
        integers: int8 or uint8.
        scale: ``[C]``.
        zero_point: ``[C]``, dtype of `integers`.
        factor: ``[C]``, float64.
        axis: Axis of the channels in `integers`.

    Returns:
        New integers, scale and zero point, such that ``(q - zero_point) * scale`` is the old product times `factor`.

    >>> scale_channels(np.array([[5, -3]], np.int8), np.ones(1), np.zeros(1, np.int8), np.array([-2.0]), 0)
    (array([[-5,  3]], dtype=int8), array([2.], dtype=float32), array([0], dtype=int8))
    """
    info = np.iinfo(integers.dtype)
    shape = [1] * integers.ndim
    shape[axis] = -1
    wide, point = integers.astype(np.int64), zero_point.astype(np.int64)
    others = tuple(dim for dim in range(integers.ndim) if dim != axis)
    smallest = wide.min(axis=others) if wide.size else np.zeros_like(point)
    negative = factor < 0
    negated = negative & (point == 0) & (smallest > info.min) & (info.min < 0)
    complemented = negative & ~negated
    wide = np.where(negated.reshape(shape), -wide, wide)
    wide = np.where(complemented.reshape(shape), info.min + info.max - wide, wide)
    point = np.where(complemented, info.min + info.max - point, point)
    new_scale = (scale.astype(np.float64) * np.abs(factor)).astype(np.float32)
    vanished = new_scale < np.finfo(np.float32).tiny
    wide = np.where(vanished.reshape(shape), point.reshape(shape), wide)
    new_scale = np.where(vanished, scale, new_scale).astype(np.float32)
    return wide.astype(integers.dtype), new_scale, point.astype(integers.dtype)
