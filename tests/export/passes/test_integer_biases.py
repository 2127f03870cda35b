from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.bias import quantize_biases
from lightning_nncf.export.passes.bias_room import make_room_for_biases
from lightning_nncf.export.passes.zero_points import spread_zero_points
from tests.export.networks import Block, quick_export


def _convolution(
    weight_scale: list[float], bias: list[float], zero_points: list[int] | None = None, weight: np.ndarray | None = None
) -> onnx.ModelProto:
    """A quantized 1x1 convolution of one input channel; its input has the scale 0.5, its output 0.25."""
    channels = len(weight_scale)
    constants = {
        "w": np.full((channels, 1, 1, 1), 100, np.int8) if weight is None else weight,
        "w_scale": np.array(weight_scale, np.float32),
        "w_zero": np.array(zero_points or [0] * channels, np.int8),
        "x_scale": np.float32(0.5),
        "x_zero": np.uint8(128),
        "y_scale": np.float32(0.25),
        "y_zero": np.uint8(128),
        "b": np.array(bias, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_dq"]),
        helper.make_node(
            "DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], name="conv/DequantizeLinear", axis=0
        ),
        helper.make_node("Conv", ["x_dq", "w_dq", "b"], ["c"], name="conv/Conv"),
        helper.make_node("QuantizeLinear", ["c", "y_scale", "y_zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 1, 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _changed(rewrite: Callable[[OnnxGraph], int], model: onnx.ModelProto) -> int:
    """Run one pass on a model and return how many places it rewrote."""
    graph = OnnxGraph(model)
    count = rewrite(graph)
    graph.close()
    return count


_X = np.linspace(-40, 40, 5, dtype=np.float32).reshape(1, 1, 1, 5)


def _reference(model: onnx.ModelProto) -> np.ndarray:
    (output,) = ReferenceEvaluator(model).run(None, {"x": _X})
    return np.asarray(output)


def _in_onnxruntime(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": _X})
    return np.asarray(output)


def test_bias_of_a_convolution_is_written_in_steps_of_its_sums() -> None:
    model = _convolution([0.01, 0.02], [1.0, -2.5])
    assert _changed(quantize_biases, model) == 1
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    dequantize = next(node for node in model.graph.node if node.output[0] == conv.input[2])
    integers, scale = (constants[name] for name in dequantize.input)
    assert integers.dtype == np.int32
    assert integers.tolist() == [200, -250]  # 1.0 / (0.5 * 0.01), -2.5 / (0.5 * 0.02)
    np.testing.assert_allclose(scale, [0.005, 0.01], rtol=1e-6)


def test_bias_stays_float_where_old_runtimes_would_refuse_the_integer_convolution() -> None:
    assert _changed(quantize_biases, _convolution([0.01, 0.02], [1.0, -2.5], zero_points=[3, 4])) == 0
    assert _changed(quantize_biases, _convolution([0.01, 0.02], [1.0, -2.5], zero_points=[3, 3])) == 1


@pytest.mark.parametrize("scale", [1e-8, 1e-12, 1e-30])
@pytest.mark.parametrize("bias", [7.0, -7.0])
def test_bias_of_a_channel_that_is_switched_off_does_not_overflow(bias: float, scale: float) -> None:
    model = _convolution([0.01, scale], [0.5, bias])
    expected = _reference(model)
    assert expected[0, 1].tolist() == [[bias] * 5]
    assert _changed(make_room_for_biases, model) == 1
    assert _changed(quantize_biases, model) == 1
    np.testing.assert_array_equal(_in_onnxruntime(model), expected)


def test_norm_that_switched_a_channel_off_is_exported_rightly(tmp_path: Path) -> None:
    block = Block(nn.Conv2d(3, 4, 3)).eval()
    with torch.no_grad():
        block.norm.weight[1] = 1e-9
        block.norm.bias[1] = 1.5
    x = torch.randn(2, 3, 6, 6)
    quick_export(block, x, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), block(x).detach(), rtol=0, atol=1.01 * 3 / 255)


def _lone_linear(zero_point: np.ndarray) -> onnx.ModelProto:
    constants = {
        "w": np.array([[1, 2], [3, 4], [5, 6]], zero_point.dtype),
        "scale": np.float32(0.5),
        "zero": zero_point,
    }
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["weight"], name="fc/DequantizeLinear"),
            helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_one_zero_point_of_a_lone_weight_is_written_per_channel() -> None:
    model = _lone_linear(np.array(7, np.uint8))
    x = np.array([[1.0, 10.0]], np.float32)
    before = ReferenceEvaluator(model).run(None, {"x": x})
    assert _changed(spread_zero_points, model) == 1
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    node = model.graph.node[0]
    assert [constants[name].tolist() for name in node.input[1:]] == [[0.5] * 3, [7] * 3]
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x}), before)
    assert _changed(spread_zero_points, _lone_linear(np.array(0, np.int8))) == 0


@pytest.mark.parametrize(("opset", "ir"), [(13, 9), (19, 9), (20, 9), (21, 10)])
def test_file_declares_no_newer_format_than_its_opset_needs(opset: int, ir: int, tmp_path: Path) -> None:
    network: nn.Module = nn.Linear(4, 2)
    x: Tensor = torch.randn(2, 4)
    options = {"opset": opset} if opset < 21 else {"opset": opset, "exporter": "dynamo"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick_export(network, x, tmp_path / "m.onnx", **options)
    assert onnx.load(tmp_path / "m.onnx").ir_version <= ir


def test_convolution_with_several_zero_points_is_warned_of(tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        conv.weight += torch.tensor([0.3, -0.3, 0.1, 0.0]).reshape(4, 1, 1, 1)
    settings = {"mode": "asymmetric", "signed": None, "half_range": False}
    with pytest.warns(UserWarning, match="1 convolutions have weights with several zero points"):
        quick_export(Block(conv, **settings).eval(), torch.randn(2, 3, 6, 6), tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*several zero points.*")
        quick_export(Block(nn.Conv2d(3, 4, 3)).eval(), torch.randn(2, 3, 6, 6), tmp_path / "m.onnx")
