from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.export import ExportReport, export_onnx
from lightning_nncf.export.passes.storage import pack_nibbles
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers
from tests.export.networks import Block, QuantizedConv, activation, for_weight, quick_export


class _Linear(nn.Module):
    """A linear layer, its weight quantized, its input and output if asked."""

    def __init__(self, size: int = 32, *, activations: bool = True, **settings: object) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.weight = for_weight(self.linear.weight, **{"half_range": False, "bits": 4, **settings})
        self.input = activation(-3.0, 3.0) if activations else nn.Identity()
        self.output = activation(-2.0, 2.0) if activations else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.linear(self.input(x), self.weight(self.linear.weight), self.linear.bias))


def _export(network: nn.Module, x: Tensor, path: Path, opset: int = 21) -> tuple[onnx.ModelProto, ExportReport]:
    report = export_onnx(network, ((x,), {}), path, opset=opset)
    return onnx.load(path), report


def _packed(model: onnx.ModelProto) -> list[TensorProto]:
    return [item for item in model.graph.initializer if item.data_type in (TensorProto.INT4, TensorProto.UINT4)]


def test_nibbles_are_read_back_by_onnx() -> None:
    values = np.arange(-8, 7, dtype=np.int8)
    tensor = TensorProto(data_type=TensorProto.INT4, dims=values.shape, raw_data=pack_nibbles(values))
    assert numpy_helper.to_array(tensor).astype(np.int8).tolist() == values.tolist()


def test_four_bits_take_half_a_byte_and_keep_the_integer_kernels(tmp_path: Path) -> None:
    network, x = _Linear(64).eval(), torch.randn(8, 64)
    model, report = _export(network, x, tmp_path / "m.onnx")
    (weight,) = _packed(model)
    (stored,) = report.weights
    assert (stored.stored, stored.read, stored.bytes, stored.bits) == ("int4", "cast", 64 * 64 // 2, 4)
    assert len(weight.raw_data) == 64 * 64 // 2
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        loaded = runtime(tmp_path / "m.onnx")
        assert count_int8_layers(loaded).matmuls == 1
        torch.testing.assert_close(loaded(x), network(x).detach(), rtol=0, atol=1.01 * 2 / 127)


def test_eight_bits_stay_eight_bits(tmp_path: Path) -> None:
    model, report = _export(_Linear(bits=8).eval(), torch.randn(2, 32), tmp_path / "m.onnx")
    assert _packed(model) == []
    assert [(w.stored, w.bytes, w.reason) for w in report.weights] == [("int8", 32 * 32, "8 bits")]


@pytest.mark.parametrize("bits", [3, 2])
def test_two_and_three_bits_are_stored_in_four(bits: int, tmp_path: Path) -> None:
    _, report = _export(_Linear(bits=bits).eval(), torch.randn(2, 32), tmp_path / "m.onnx")
    assert [(w.stored, w.bits, w.bytes) for w in report.weights] == [("int4", bits, 32 * 32 // 2)]


def test_opset_without_four_bits_is_named(tmp_path: Path) -> None:
    model, report = _export(_Linear().eval(), torch.randn(2, 32), tmp_path / "m.onnx", opset=20)
    assert _packed(model) == []
    assert report.weights[0].stored == "int8"
    assert "opset 20 has no 4-bit integers" in report.weights[0].reason


def test_lone_weight_is_read_in_four_bits(tmp_path: Path) -> None:
    network, x = _Linear(activations=False).eval(), torch.randn(4, 32)
    model, report = _export(network, x, tmp_path / "m.onnx")
    assert "Cast" not in {node.op_type for node in model.graph.node}
    assert [(w.stored, w.read) for w in report.weights] == [("int4", "directly")]
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        torch.testing.assert_close(runtime(tmp_path / "m.onnx")(x), network(x).detach(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("activations", [True, False], ids=["all quantized", "weight only"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
def test_asymmetric_weight_is_stored_with_what_to_add(activations: bool, per_channel: bool, tmp_path: Path) -> None:
    network = _Linear(activations=activations)
    with torch.no_grad():
        network.linear.weight.add_(0.1)
    settings = {"mode": "asymmetric", "signed": None, "per_channel": per_channel}
    network.weight = for_weight(network.linear.weight, half_range=False, bits=4, **settings)
    x = torch.randn(4, 32)
    _, report = _export(network.eval(), x, tmp_path / "m.onnx")
    assert [(w.stored, w.bytes) for w in report.weights] == [("uint4", 32 * 32 // 2)]
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        got = runtime(tmp_path / "m.onnx")(x)
        torch.testing.assert_close(got, network(x).detach(), rtol=0, atol=1.01 * 2 / 127 if activations else 0.03)


def test_convolution_whose_norm_turned_its_sign_is_stored_in_four_bits(tmp_path: Path) -> None:
    block = Block(nn.Conv2d(3, 4, 3), bits=4, half_range=False).eval()
    with torch.no_grad():
        block.norm.weight.copy_(torch.tensor([-1.0, 1.0, -0.5, 2.0]))
        block.conv.conv.weight[0, 0, 0, 0] = -9.0  # -8 after rounding, +8 behind the norm
        block.conv.quantizer.scale.fill_(1.0)
    x = torch.randn(4, 3, 8, 8)
    _, report = _export(block, x, tmp_path / "m.onnx")
    assert [(w.stored, w.read) for w in report.weights] == [("uint4", "cast")]
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        loaded = runtime(tmp_path / "m.onnx")
        assert count_int8_layers(loaded).convolutions == 1
        torch.testing.assert_close(loaded(x), block(x).detach(), rtol=0, atol=1.01 * 3 / 255)


class _Tied(nn.Module):
    """The table of an embedding is the weight of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 8))
        self.weight = for_weight(self.table, half_range=False, bits=4)
        self.hidden = activation(-2.0, 2.0)

    def forward(self, index: Tensor) -> Tensor:
        table = self.weight(self.table)
        return F.linear(self.hidden(F.embedding(index, table)), table)


def test_tied_weight_is_stored_once(tmp_path: Path) -> None:
    network, index = _Tied().eval(), torch.randint(0, 10, (3, 4))
    model, report = _export(network, index, tmp_path / "m.onnx")
    assert [(w.stored, w.read, w.bytes) for w in report.weights] == [("int4", "cast", 10 * 8 // 2)]
    assert [tuple(item.dims) for item in _packed(model)] == [(8, 10)]  # as the layer reads it
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        torch.testing.assert_close(runtime(tmp_path / "m.onnx")(index), network(index).detach(), rtol=1e-3, atol=2e-2)


class _Two(nn.Module):
    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.first = QuantizedConv(nn.Conv2d(16, 64, 3), bits=first, half_range=False)
        self.middle = activation(0.0, 3.0)
        self.second = QuantizedConv(nn.Conv2d(64, 64, 3), bits=second, half_range=False)
        self.output = activation(0.0, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.second(self.middle(torch.relu(self.first(self.input(x)))))))


def test_mixed_bits_are_reported_per_layer_and_show_in_the_size(tmp_path: Path) -> None:
    x, sizes = torch.randn(2, 16, 8, 8), {}
    for bits in ((8, 8), (8, 4), (4, 4)):
        report = export_onnx(_Two(*bits).eval(), ((x,), {}), tmp_path / "m.onnx")
        stored = {item.quantizer: item.stored for item in report.weights}
        assert stored == {"first.quantizer": f"int{bits[0]}", "second.quantizer": f"int{bits[1]}"}
        sizes[bits] = report.size
    assert sizes[8, 8] - sizes[8, 4] == pytest.approx(64 * 64 * 9 // 2, abs=1000)  # a few nodes more
    assert sizes[8, 4] - sizes[4, 4] == pytest.approx(64 * 16 * 9 // 2, abs=1000)


def test_fake_quantize_keeps_floats_and_says_so(tmp_path: Path) -> None:
    report = quick_export(_Linear().eval(), torch.randn(2, 32), tmp_path / "m.onnx", export_format="openvino_fq")
    assert [(w.stored, w.bytes) for w in report.weights] == [("float32", 4 * 32 * 32)]
