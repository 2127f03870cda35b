from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer


def quantize_in_onnx_runtime(x: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """Run QuantizeLinear and DequantizeLinear with the exported parameters of a quantizer."""
    scale, zero_point, quant_min, _ = quantizer.quantization_parameters()
    integers = zero_point.numpy().astype(np.int8 if quant_min < 0 else np.uint8)
    constants = {"scale": scale.numpy(), "zero_point": integers}
    if quantizer.axis < 0:
        constants = {name: value.reshape(()) for name, value in constants.items()}
    attributes = {"axis": quantizer.axis} if quantizer.axis >= 0 else {}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"], **attributes),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"], **attributes),
        ],
        "quantizer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "config",
    [QuantizerConfig(signed=True), QuantizerConfig(signed=False), QuantizerConfig(mode="asymmetric")],
    ids=["signed", "unsigned", "asymmetric"],
)
def test_onnx_runtime_gives_the_same_values(config: QuantizerConfig, per_channel: bool) -> None:
    torch.manual_seed(4)
    x = torch.randn(8, 3, 5, 7) * torch.tensor([0.3, 1.0, 40.0]).reshape(1, 3, 1, 1)
    quantizer = build_quantizer(QuantizerConfig(**{**config.to_dict(), "per_channel": per_channel}), x.shape, 1)
    channels = x.transpose(0, 1).flatten(1) if per_channel else x.reshape(1, -1)
    quantizer.set_range(channels.amin(1) * 0.6, channels.amax(1) * 0.8)
    with torch.no_grad():
        ours = quantizer(x).numpy()
    np.testing.assert_array_equal(quantize_in_onnx_runtime(x.numpy(), quantizer), ours)


def test_ties_round_alike() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 7.5], dtype=np.float32)
    quantizer = build_quantizer(QuantizerConfig(mode="asymmetric"), x.shape, 0)
    quantizer.set_range(torch.tensor(-55.0), torch.tensor(200.0))  # steps of one, an odd zero point
    with torch.no_grad():
        ours = quantizer(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(quantize_in_onnx_runtime(x, quantizer), ours)
    assert ours.tolist() == [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0, 8.0]
