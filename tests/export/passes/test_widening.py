from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lightning_nncf.export import export_onnx
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.widening import widen_weights
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers
from tests.export.networks import QuantizedConv, activation


def _layer(weight: np.ndarray, *, highest_input: int | None) -> onnx.ModelProto:
    """A fully connected layer over an activation of so many levels; None: over a float."""
    nodes = [helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], name="fc/DequantizeLinear")]
    if highest_input is not None:
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["rough"]),
            helper.make_node("Clip", ["rough", "x_zero", "x_high"], ["integers"]),
            helper.make_node("DequantizeLinear", ["integers", "x_scale", "x_zero"], ["x_read"]),
        ]
    nodes.append(helper.make_node("MatMul", ["x" if highest_input is None else "x_read", "weight"], ["y"]))
    constants = {
        "w": weight,
        "w_scale": np.float32(0.5),
        "w_zero": np.int8(0),
        "x_scale": np.float32(0.1),
        "x_zero": np.uint8(0),
        "x_high": np.uint8(highest_input or 0),
    }
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


_FOUR_BITS = np.array([[-8, 7], [1, 0]], np.int8)


@pytest.mark.parametrize(
    ("weight", "highest_input", "factor"),
    [
        # 2 * 255 * 64 = 32640 fits 16 bits, 2 * 255 * 128 does not.
        pytest.param(_FOUR_BITS, 255, 8, id="8-bit input"),
        # -8 * 16 would be -128, which narrow 8 bits do not hold.
        pytest.param(_FOUR_BITS, 15, 8, id="4-bit input"),
        pytest.param(np.array([[-7, 7], [1, 0]], np.int8), 15, 16, id="narrow weight, 4-bit input"),
        pytest.param(np.array([[-1, 1], [1, 0]], np.int8), 255, 64, id="2 bits"),
        pytest.param(np.array([[-17, 1], [1, 0]], np.int8), 15, 1, id="8-bit weight"),
        pytest.param(np.zeros((2, 2), np.int8), 15, 1, id="zeros"),
        pytest.param(_FOUR_BITS, None, 1, id="float input"),
    ],
)
def test_integers_grow_as_far_as_sums_of_two_products_fit(
    weight: np.ndarray, highest_input: int | None, factor: int
) -> None:
    model = _layer(weight, highest_input=highest_input)
    graph = OnnxGraph(model)
    factors = widen_weights(graph, ["fc"])
    graph.close()
    assert list(factors.values()) == ([] if factor == 1 else [factor])
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    reader = next(node for node in model.graph.node if node.name == "fc/DequantizeLinear")
    assert constants[reader.input[0]].tolist() == (weight.astype(int) * factor).tolist()
    assert constants[reader.input[1]] == 0.5 / factor


class _FourBits(nn.Module):
    """One convolution of 4 bits whose accumulator steps are wide beside those of its output, with a bias between."""

    def __init__(self) -> None:
        super().__init__()
        self.input = activation(0.0, 6.0, bits=4)
        self.conv = QuantizedConv(nn.Conv2d(8, 8, 3), bits=4, half_range=False)
        self.output = activation(0.0, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.conv(self.input(x))))


@pytest.mark.parametrize("runtime", [OnnxRuntimeModel, OpenVINOModel])
def test_bias_of_a_four_bit_convolution_is_not_rounded_to_wide_steps(runtime: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = _FourBits().eval(), torch.rand(4, 8, 10, 10) * 6
    report = export_onnx(network, ((x,), {}), tmp_path / "m.onnx", opset=21)
    assert [(item.stored, item.bytes) for item in report.weights] == [("int4", 8 * 8 * 9 // 2)]
    loaded = runtime(tmp_path / "m.onnx")
    assert count_int8_layers(loaded).convolutions == 1
    step = 0.5 / 255
    # Without widening the error reaches half an accumulator step, (6 / 15) * (0.118 / 7) / 2 = 1.7 output steps.
    assert (loaded(x) - network(x).detach()).abs().max() <= 1.01 * step
