from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.export import ExportReport
from lightning_nncf.proof import verify_onnx
from lightning_nncf.proof.examination import first_line, warnings_of
from lightning_nncf.proof.fallbacks import QuantizedLayer, float_layers, quantized_layers
from lightning_nncf.proof.int8_layers import RuntimeLayer
from lightning_nncf.proof.processor import saturates
from lightning_nncf.proof.sessions import SESSIONS
from tests.export.networks import QuantizedConv, Residual, activation, quick_export

_Exported = tuple[Residual, Tensor, Path, ExportReport]


class _Head(nn.Module):
    """A convolution whose output leaves the network, which ONNX Runtime computes in float."""

    def __init__(self) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.conv = QuantizedConv(nn.Conv2d(3, 8, 3))
        self.middle = activation(0.0, 3.0)
        self.head = QuantizedConv(nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.conv(self.input(x)))))


def test_layer_that_runs_in_float_is_named_with_the_reason(tmp_path: Path) -> None:
    network, x = _Head().eval(), torch.randn(4, 3, 8, 8)
    quick_export(network, x, tmp_path / "m.onnx")
    report = verify_onnx(tmp_path / "m.onnx", network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])
    assert report.proven
    (warning,) = report.warnings
    assert warning.startswith("1 of 2 quantized layers run in float: '")
    assert "head" in warning
    assert "its output is one of the network's and not quantized" in warning
    assert f"WARNING: {warning}" in report.table()
    assert report.summary()["onnxruntime"]["warnings"] == [warning]


def test_quantized_layers_of_a_file_are_those_with_quantized_weight_and_input(residual: _Exported) -> None:
    layers = quantized_layers(onnx.load(residual[2]), {"onnxruntime": "1.32.0"})
    assert [layer.op for layer in layers] == ["Conv", "Conv", "Gemm"]


def test_float_bias_is_the_reason_before_onnxruntime_1_23(residual: _Exported) -> None:
    model = onnx.load(residual[2])
    for node in model.graph.node:
        if node.op_type == "Conv":
            del node.input[2:]
            node.input.append("bias")
    model.graph.initializer.append(onnx.numpy_helper.from_array(torch.zeros(8).numpy(), "bias"))
    old, new = (quantized_layers(model, {"onnxruntime": version})[0] for version in ("1.22.1", "1.23.0"))
    assert "ONNX Runtime 1.22.1 wants integer biases" in old.reasons["onnxruntime"]
    assert "biases" not in new.reasons["onnxruntime"]


def test_layers_in_float_are_found_by_their_names() -> None:
    quantized = [QuantizedLayer(name=name, op="Conv", reasons={"openvino": "so"}) for name in ("a", "b")]
    layers = [
        RuntimeLayer(kind="convolution", integer=True, names=("a", "relu")),
        RuntimeLayer(kind="convolution", integer=False, names=("b/bias", "b")),
        RuntimeLayer(kind="convolution", integer=False, names=("never quantized",)),
    ]
    assert float_layers(quantized, layers, "openvino") == [("b", "so")]


def test_layers_that_a_runtime_renames_when_it_fuses_them_are_found() -> None:
    quantized = [QuantizedLayer(name=name, op="MatMul", reasons={"onnxruntime": name}) for name in ("q/k", "q", "v")]
    layers = [
        RuntimeLayer(kind="matmul", integer=False, names=("q/k/MatMulScaleFusion/",)),
        RuntimeLayer(kind="matmul", integer=False, names=("fused v",)),
    ]
    assert float_layers(quantized, layers, "onnxruntime") == [("q/k", "q/k"), ("v", "v")]


def test_layer_behind_a_token_that_is_picked_counts_as_quantized() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["": 20]>
        pooler (uint8[N, 4, 8] x, int8[8, 8] w) => (float[N, 8] y)
        <float s = {0.1}, int64 first = {0}>
        {
            hidden = DequantizeLinear(x, s)
            token = Gather<axis = 1>(hidden, first)
            weight = DequantizeLinear(w, s)
            y = MatMul(token, weight)
        }
        """
    )
    assert [layer.op for layer in quantized_layers(model, {})] == ["MatMul"]


def test_slower_than_float_is_a_warning_beyond_what_calls_cost() -> None:
    (warning,) = warnings_of([], [], "openvino", {"file": 0.0125, "reference": 0.0006})
    assert warning.startswith("the file takes 12.5 ms, the float file 0.6 ms")
    assert warnings_of([], [], "openvino", {"file": 0.00102, "reference": 0.001}) == ()
    assert warnings_of([], [], "openvino", {"file": 0.000021, "reference": 0.000011}) == ()
    assert warnings_of([], [], "openvino", {"file": 1.0}) == ()


def test_slow_file_is_told_in_the_report(residual: _Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, path, _ = residual
    monkeypatch.setitem(SESSIONS, "onnxruntime", "tests.proof.fake_runtimes:SlowSession")
    quick_export(nn.Conv2d(3, 8, 3), x, tmp_path / "float.onnx")
    report = verify_onnx(
        path,
        network,
        ((x,), {}),
        reference_fp32=tmp_path / "float.onnx",
        latency_runs=3,
        runtimes=["onnxruntime"],
    )
    assert any("the file takes" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        ("avx2", "", True),
        ("avx2 avx_vnni", "", False),
        ("avx512_vnni", "AVX512_CORE", True),
        ("amx_int8", "ALL", False),
    ],
)
def test_processor_is_blamed_only_where_it_saturates(flags: str, limit: str, expected: bool) -> None:
    assert saturates(flags, limit) is expected


def test_line_that_says_most_is_taken_from_a_long_message() -> None:
    assert first_line("Exception from a.cpp:1:\nthe rank is unknown\nUnsupported padding mode: [wrap]") == (
        "Unsupported padding mode: [wrap]"
    )
    assert first_line("") == "no reason given"
