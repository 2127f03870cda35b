from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers
from tests.export.networks import QuantizedConv, activation, quick_export


class _ReLU6(nn.Module):
    """A convolution, ReLU6 and a quantizer up to `high`."""

    def __init__(self, high: float, bits: int) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.conv = QuantizedConv(nn.Conv2d(8, 8, 3))
        self.output = activation(0.0, high, bits=bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(nn.functional.relu6(self.conv(self.input(x))))


def _exported(high: float, bits: int, path: Path) -> tuple[_ReLU6, Tensor, onnx.ModelProto]:
    torch.manual_seed(0)
    network = _ReLU6(high, bits).eval()
    with torch.no_grad():
        network.conv.conv.weight.mul_(8)
        network.conv.quantizer.scale.mul_(8)
    x = torch.randn(4, 8, 10, 10)
    quick_export(network, x, path)
    return network, x, onnx.load(path)


@pytest.mark.parametrize(
    ("high", "integer"),
    [
        pytest.param(6.0, 15, id="the same range"),
        pytest.param(3.0, 15, id="a narrower one"),
        pytest.param(9.0, 10, id="a wider one"),  # 6 / (9 / 15)
    ],
)
def test_relu6_before_four_bits_is_clipped_as_integers(high: float, integer: int, tmp_path: Path) -> None:
    network, x, model = _exported(high, 4, tmp_path / "m.onnx")
    (clip,) = (node for node in model.graph.node if node.op_type == "Clip")
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert [int(constants[name]) for name in clip.input[1:]] == [0, integer]
    expected = network(x).detach()
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        differences = (runtime(tmp_path / "m.onnx")(x) - expected).abs()
        # A sum at the border between two integers may fall to either side.
        assert (differences > 1e-4).float().mean() < 0.01
        assert differences.max() < 1.01 * high / 15
    assert count_int8_layers(OnnxRuntimeModel(tmp_path / "m.onnx")).convolutions == 1


def test_relu6_before_eight_bits_stays_in_front(tmp_path: Path) -> None:
    _, _, model = _exported(9.0, 8, tmp_path / "m.onnx")
    following = {name: node.op_type for node in model.graph.node for name in node.input}
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert [following[node.output[0]] for node in clips] == ["QuantizeLinear"]
