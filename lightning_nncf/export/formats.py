"""How a quantizer is written: one class per export format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.errors import ExportError
from lightning_nncf.export.binary import Step
from lightning_nncf.export.grid import Grid
from lightning_nncf.export.onnx_graph import OnnxGraph

__all__ = ["FORMATS", "OPENVINO_DOMAIN", "QUANTIZED", "Format", "OpenVINOFakeQuantize", "QuantizeDequantize"]

OPENVINO_DOMAIN = "org.openvinotoolkit"
_BINARY_CHANNELS = 8
"""OpenVINO 2026's binary convolution on CPUs gives wrong results unless the input channels are a multiple of this."""
QUANTIZED = "/quantized"
"""Ending of the names of integer activations, by which verification finds them."""


class Format(Protocol):
    """What an export format has to say about weights and activations."""

    domains: Mapping[str, int]
    """Operator sets beside the standard one, with their versions."""

    def weight(
        self, graph: OnnxGraph, output: str, grid: Grid, integers: NDArray[Any], name: str
    ) -> list[onnx.NodeProto]:
        """Return nodes that compute `output` from constants."""

    def activation(
        self, graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int | None
    ) -> list[onnx.NodeProto]:
        """Return nodes that compute `output` from the tensor `source`."""

    def binary_activation(
        self, graph: OnnxGraph, source: str, output: str, step: Step, name: str
    ) -> list[onnx.NodeProto]:
        """Return nodes that compute the two values of `output` from the tensor `source`."""


class QuantizeDequantize:
    """Standard ``QuantizeLinear`` and ``DequantizeLinear``; weights are stored as integers."""

    domains: Mapping[str, int] = {}

    def weight(
        self, graph: OnnxGraph, output: str, grid: Grid, integers: NDArray[Any], name: str
    ) -> list[onnx.NodeProto]:
        """Return one ``DequantizeLinear`` over a raw int8 or uint8 initializer.

        A weight that is too wide for a zero point of 0 on int8 keeps it on uint8, unless it is 0 there: OpenVINO has no
        layer for that, so it is moved to -128 on int8.
        """
        grid, integers = grid.for_weight(integers)
        if grid.quant_min >= 0 and not grid.zero_point.any():
            grid, integers = grid.shifted(-128), integers - 128
        dtype = np.int8 if grid.quant_min < 0 else np.uint8
        constant = graph.add_constant(f"{name}/integers", integers.astype(dtype))
        affine = _affine(graph, grid, name, dtype)
        return [_linear("DequantizeLinear", [constant, *affine], output, grid, name)]

    def activation(
        self, graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int | None
    ) -> list[onnx.NodeProto]:
        """Return ``QuantizeLinear`` and ``DequantizeLinear``, with a clip of integers between for less than 256 levels.

        Grids are moved to start at 0: ONNX Runtime runs a convolution in integers only if its input and output have one
        type, and outputs of ReLU are unsigned. ``QuantizeLinear`` then cuts at the low end by itself. The high end is
        cut behind it, because any op in front of it keeps a convolution in float in ONNX Runtime.
        """
        grid = grid.shifted(-grid.quant_min)
        if grid.per_channel:
            return self._per_channel(graph, source, output, grid, name, _known(rank, name))
        quantized, affine = name + QUANTIZED, _affine(graph, grid, name, np.uint8)
        clipped = grid.quant_max < 255
        first = f"{name}/unclipped" if clipped else quantized
        nodes = [_linear("QuantizeLinear", [source, *affine], first, grid, name)]
        if clipped:
            bounds = [
                graph.add_constant(f"{name}/{end}", np.array(value, np.uint8))
                for end, value in (("low", 0), ("high", grid.quant_max))
            ]
            nodes.append(helper.make_node("Clip", [first, *bounds], [quantized], name=f"{name}/Clip"))
        return [*nodes, _linear("DequantizeLinear", [quantized, *affine], output, grid, name)]

    def _per_channel(
        self, graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int
    ) -> list[onnx.NodeProto]:
        """Return a quantizer whose clips keep ONNX Runtime from making one integer layer of it and a convolution.

        That layer would be refused when it runs, as it takes one zero point only.
        """
        quantized, affine = name + QUANTIZED, _affine(graph, grid, name, np.uint8)
        clipped, low = f"{name}/clipped", graph.add_constant(f"{name}/lowest", grid.spread(grid.low(), rank))
        return [
            *_clip(graph, source, clipped, grid, name, rank),
            _linear("QuantizeLinear", [clipped, *affine], quantized, grid, name),
            _linear("DequantizeLinear", [quantized, *affine], f"{name}/dequantized", grid, name),
            helper.make_node("Max", [f"{name}/dequantized", low], [output], name=f"{name}/Shield"),
        ]

    def binary_activation(
        self, graph: OnnxGraph, source: str, output: str, step: Step, name: str
    ) -> list[onnx.NodeProto]:
        """Return a comparison and a choice, for no quantizer decides by a threshold of its own."""
        threshold = graph.add_constant(f"{name}/threshold", step.threshold)
        high = graph.add_constant(f"{name}/high", step.height.reshape(()))
        low = graph.add_constant(f"{name}/low", np.zeros((), np.float32))
        return [
            helper.make_node("Greater", [source, threshold], [f"{name}/above"], name=f"{name}/Greater"),
            helper.make_node("Where", [f"{name}/above", high, low], [output], name=f"{name}/Where"),
        ]


def _affine(graph: OnnxGraph, grid: Grid, name: str, dtype: Any) -> tuple[str, str]:
    shape = (-1,) if grid.per_channel else ()
    scale = graph.add_constant(f"{name}/scale", grid.scale.reshape(shape))
    return scale, graph.add_constant(f"{name}/zero_point", grid.zero_point.astype(dtype).reshape(shape))


def _linear(op: str, inputs: list[str], output: str, grid: Grid, name: str) -> onnx.NodeProto:
    axis: dict[str, Any] = {"axis": grid.axis} if grid.per_channel else {}
    return helper.make_node(op, inputs, [output], name=f"{name}/{op}", **axis)


def _clip(graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int | None) -> list[onnx.NodeProto]:
    if not grid.per_channel:
        low = graph.add_constant(f"{name}/low", grid.low().reshape(()))
        high = graph.add_constant(f"{name}/high", grid.high().reshape(()))
        return [helper.make_node("Clip", [source, low, high], [output], name=f"{name}/Clip")]
    low = graph.add_constant(f"{name}/low", grid.spread(grid.low(), _known(rank, name)))
    high = graph.add_constant(f"{name}/high", grid.spread(grid.high(), _known(rank, name)))
    return [
        helper.make_node("Max", [source, low], [f"{name}/above_low"], name=f"{name}/Max"),
        helper.make_node("Min", [f"{name}/above_low", high], [output], name=f"{name}/Min"),
    ]


def _known(rank: int | None, name: str) -> int:
    if rank is None:
        raise ExportError(
            f"the exporter did not record how many dimensions the activation of {name!r} has, which its per-channel "
            "quantizer needs; quantize it per tensor, or use exporter='dynamo'"
        )
    return rank


class OpenVINOFakeQuantize:
    """``FakeQuantize`` of OpenVINO's domain; weights stay float values on their grid."""

    domains: Mapping[str, int] = {OPENVINO_DOMAIN: 1}

    def __init__(self) -> None:
        _register_fake_quantize()

    def weight(
        self, graph: OnnxGraph, output: str, grid: Grid, integers: NDArray[Any], name: str
    ) -> list[onnx.NodeProto]:
        """Return a ``FakeQuantize`` over the weight's values, with the 256 levels that OpenVINO looks for.

        Binary weights have two; where OpenVINO's binary kernel would misread their input channels, they are written as
        plain values.
        """
        constant = graph.add_constant(f"{name}/values", grid.values(integers))
        if grid.levels == 2:
            if integers.shape[1] % _BINARY_CHANNELS:
                return [helper.make_node("Identity", [constant], [output], name=f"{name}/Identity")]
            return [_fake_quantize(graph, constant, output, grid, name, integers.ndim)]
        full = grid.for_weight(integers)[0].full()
        return [_fake_quantize(graph, constant, output, full, name, integers.ndim)]

    def activation(
        self, graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int | None
    ) -> list[onnx.NodeProto]:
        """Return one ``FakeQuantize`` of 256 levels, behind a clip where there are fewer.

        OpenVINO runs 128 levels in float, and 255 levels with errors of several steps.
        """
        full = grid.full()
        nodes = _clip(graph, source, f"{name}/clipped", grid, name, rank) if full.levels != grid.levels else []
        source = f"{name}/clipped" if nodes else source
        return [
            *nodes,
            _fake_quantize(graph, source, output, full, name, _known(rank, name) if grid.per_channel else 0),
        ]

    def binary_activation(
        self, graph: OnnxGraph, source: str, output: str, step: Step, name: str
    ) -> list[onnx.NodeProto]:
        """Return one ``FakeQuantize`` of two levels, with the threshold in the middle of its input range.

        OpenVINO also takes a range that has shrunk to the threshold, but then divides by zero where it runs no binary
        convolution.
        """
        low = graph.add_constant(f"{name}/low", np.zeros_like(step.height))
        middle = graph.add_constant(f"{name}/twice_threshold", 2 * step.threshold)
        high = graph.add_constant(f"{name}/high", step.height)
        return [_fake_quantize_node([source, low, middle, low, high], output, name, levels=2)]


def _fake_quantize(graph: OnnxGraph, source: str, output: str, grid: Grid, name: str, rank: int) -> onnx.NodeProto:
    low = graph.add_constant(f"{name}/low", grid.spread(grid.low(), rank))
    high = graph.add_constant(f"{name}/high", grid.spread(grid.high(), rank))
    return _fake_quantize_node([source, low, high, low, high], output, name, grid.levels)


def _fake_quantize_node(inputs: list[str], output: str, name: str, levels: int) -> onnx.NodeProto:
    return helper.make_node(
        "FakeQuantize", inputs, [output], name=f"{name}/FakeQuantize", domain=OPENVINO_DOMAIN, levels=levels
    )


def _register_fake_quantize() -> None:
    if onnx.defs.has("FakeQuantize", OPENVINO_DOMAIN):
        return
    schema = onnx.defs.OpSchema
    names = ("x", "input_low", "input_high", "output_low", "output_high")

    def same_as_input(context: Any) -> None:
        context.set_output_type(0, context.get_input_type(0))

    fake_quantize = schema(
        "FakeQuantize",
        OPENVINO_DOMAIN,
        1,
        doc="Quantize to a number of levels between two ends and dequantize between two others.",
        inputs=[schema.FormalParameter(name, "T") for name in names],
        outputs=[schema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)", "tensor(float16)"], "")],
        attributes=[schema.Attribute("levels", schema.AttrType.INT, "", required=True)],
    )
    if hasattr(fake_quantize, "set_type_and_shape_inference_function"):
        fake_quantize.set_type_and_shape_inference_function(same_as_input)
    onnx.defs.register_schema(fake_quantize)


FORMATS: dict[str, type[Format]] = {"qdq": QuantizeDequantize, "openvino_fq": OpenVINOFakeQuantize}
"""Export formats by name."""
