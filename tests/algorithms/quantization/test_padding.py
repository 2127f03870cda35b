from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization import Quantization
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.export import export_onnx
from lightning_nncf.proof.runtimes import RUNTIMES

FOUR_BITS = {"weights": {"bits": 4}, "activations": {"bits": 4, "mode": "symmetric"}}


def _net(**second: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, **second))


def _config(device: str, **quantization: Any) -> NNCFConfig:
    return NNCFConfig.load({"target_device": device, "compression": {"algorithm": "quantization", **quantization}})


def _compressed(net: nn.Module, device: str = "VPU", **quantization: Any) -> CompressedNetwork:
    x = torch.rand(2, 3, 6, 6)
    compressed = CompressedNetwork.build(net, _config(device, **quantization), trace(net, lambda: net(x)))
    algorithm = _algorithm(compressed)
    for point, quantizer in zip(algorithm.inserted.setup.points, algorithm.inserted.quantizers, strict=True):
        # the input has negative values, so that its padding stays zero
        low = -0.7 if point.kind == "weight" or str(point.point) == "/input:0" else 0.0
        quantizer.set_range(torch.tensor(low), torch.tensor(0.7))
    compressed.activate()
    return compressed


def _algorithm(compressed: CompressedNetwork) -> Quantization:
    algorithm = compressed.algorithms[0]
    assert isinstance(algorithm, Quantization)
    return algorithm


def _quantizer(compressed: CompressedNetwork, place: str) -> Quantizer:
    algorithm = _algorithm(compressed)
    (found,) = (
        q
        for p, q in zip(algorithm.inserted.setup.points, algorithm.inserted.quantizers, strict=True)
        if str(p.point) == place
    )
    return found


def _reference(compressed: CompressedNetwork, plain: nn.Sequential, x: torch.Tensor, widths: list[int]) -> torch.Tensor:
    """The network written out by hand, the second convolution padded with half of its input's range, 0.35."""
    first, second = plain[0], plain[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    x = _quantizer(compressed, "/input:0")(x)
    x = F.conv2d(x, _quantizer(compressed, "0/conv2d:0|weight1")(first.weight), first.bias, padding=1).relu()
    x = F.pad(_quantizer(compressed, "1/relu:0")(x), widths, value=0.35)
    return F.conv2d(x, _quantizer(compressed, "2/conv2d:0|weight1")(second.weight), second.bias, second.stride)


@pytest.mark.parametrize("device", ["VPU", "NPU"])
@pytest.mark.parametrize(
    ("second", "widths"),
    [
        ({"padding": 1}, [1, 1, 1, 1]),
        ({"padding": (1, 2), "stride": 2}, [2, 2, 1, 1]),
        ({"padding": "same", "kernel_size": 3}, [1, 1, 1, 1]),
    ],
    ids=["square", "oblong", "same"],
)
def test_unsigned_four_bit_inputs_are_padded_with_half_of_their_range(
    device: str, second: dict[str, Any], widths: list[int]
) -> None:
    second.pop("kernel_size", None)
    net = _net(**second)
    plain = copy.deepcopy(net)
    compressed = _compressed(net, device, **FOUR_BITS)
    x = torch.rand(2, 3, 6, 6) - 0.5
    assert torch.allclose(net(x), _reference(compressed, plain, x, widths), atol=1e-6)
    assert net[2].padding == plain[2].padding  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("device", "quantization"),
    [
        ("TRIAL", FOUR_BITS),
        ("VPU", {**FOUR_BITS, "weights": {"bits": 8}}),
        ("VPU", {**FOUR_BITS, "activations": {"bits": 8, "mode": "symmetric"}}),
        ("VPU", {**FOUR_BITS, "activations": {**FOUR_BITS["activations"], "signed": True}}),
    ],
    ids=["another device", "8-bit weights", "8-bit inputs", "signed inputs"],
)
def test_everything_else_is_padded_with_zeros(device: str, quantization: dict[str, Any]) -> None:
    net = _net(padding=1)
    plain = copy.deepcopy(net)
    compressed = _compressed(net, device, **quantization)
    x = torch.rand(2, 3, 6, 6) - 0.5
    first, second = plain[0], plain[2]
    value = F.conv2d(
        _quantizer(compressed, "/input:0")(x),
        _quantizer(compressed, "0/conv2d:0|weight1")(first.weight),  # type: ignore[arg-type]
        first.bias,  # type: ignore[arg-type]
        padding=1,
    )
    value = F.conv2d(
        _quantizer(compressed, "1/relu:0")(value.relu()),
        _quantizer(compressed, "2/conv2d:0|weight1")(second.weight),  # type: ignore[arg-type]
        second.bias,  # type: ignore[arg-type]
        padding=1,
    )
    assert torch.allclose(net(x), value, atol=1e-6)


def test_gradients_reach_input_and_weight_through_the_border() -> None:
    net = _net(padding=1)
    plain = copy.deepcopy(net)
    compressed = _compressed(net, **FOUR_BITS)
    x = torch.rand(2, 3, 6, 6) - 0.5
    found = torch.autograd.grad(net(x).square().sum(), [net[0].weight, net[2].weight])  # type: ignore[list-item]
    reference = _reference(compressed, plain, x, [1, 1, 1, 1])
    expected = torch.autograd.grad(reference.square().sum(), [plain[0].weight, plain[2].weight])  # type: ignore[list-item]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_bits_found_later_decide_anew() -> None:
    net = _net(padding=1)
    compressed = _compressed(net, weights={"bits": 4}, activations={"mode": "symmetric", "bits": 8})
    x = torch.rand(2, 3, 6, 6)
    quantizer = _quantizer(compressed, "1/relu:0")
    before = net(x)
    quantizer.config = replace(quantizer.config, bits=4)
    change = (net(x) - before).abs()
    # inside only the rounding is coarser; the border also moves from 0 to 0.35
    assert change[..., 0, :].mean() > 2 * change[..., 1:-1, 1:-1].mean()


def test_the_adjustment_comes_back_from_a_checkpoint_and_leaves_with_strip() -> None:
    net = _net(padding=1)
    compressed = _compressed(net, **FOUR_BITS)
    x = torch.rand(2, 3, 6, 6) - 0.5
    expected = net(x)
    structure = json.loads(json.dumps({**compressed.structure(), "initialized": True}))
    again = _net(padding=1)
    CompressedNetwork.restore(again, _config("VPU", **FOUR_BITS), structure)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), expected)
    compressed.strip(weights="latent")
    plain = _net(padding=1)
    assert torch.equal(net(x), plain(x))
    assert list(net.state_dict()) == list(plain.state_dict())


def test_a_layer_called_twice_is_reported_and_not_adjusted(caplog: pytest.LogCaptureFixture) -> None:
    class _Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value: torch.Tensor = self.conv(self.conv(x).relu())
            return value

    compressed = _compressed(_Twice(), **FOUR_BITS)
    assert "the padding of 'conv' is not adjusted" in caplog.text
    assert _algorithm(compressed).structure()["padded"] == []


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_exported_padding_has_the_same_value(exporter: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))  # a second layer would round sums on either side of a half
    unsigned = {**FOUR_BITS["activations"], "signed": False}
    compressed = _compressed(net, weights={"bits": 4}, activations=unsigned)
    x = torch.rand(2, 3, 6, 6)
    path = tmp_path / "padded.onnx"
    opset = 20 if exporter == "torchscript" else 21
    export_onnx(compressed.exportable(), ((x,), {}), path, exporter=exporter, opset=opset)  # type: ignore[arg-type]
    nodes = onnx.load(path).graph.node
    assert [node.op_type for node in nodes].count("Pad") == 1
    assert not any(node.op_type == "Where" for node in nodes)
    for name, runtime in RUNTIMES.items():
        pytest.importorskip(name)
        assert torch.allclose(runtime(path)(x), net(x), atol=1e-5), name
    zeros = copy.deepcopy(net)
    zeros[0].lnncf_padding.padding.condition = zeros[0].lnncf_in.padding.condition = False  # type: ignore[union-attr]
    assert (zeros(x) - net(x)).abs().max() > 0.1  # so the comparison sees the border
