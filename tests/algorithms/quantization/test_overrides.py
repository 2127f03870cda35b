from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import compress, export_onnx
from lightning_nncf.algorithms.quantization import Quantization
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ConfigError, PlacementError, ScopeError


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu()).relu()
        head: torch.Tensor = self.head(x.mean((2, 3)))
        return head


def _compressed(device: str = "TRIAL", **quantization: Any) -> Quantization:
    net = _Net()
    config = NNCFConfig.load({"target_device": device, "compression": {"algorithm": "quantization", **quantization}})
    algorithm = CompressedNetwork.build(net, config, trace(net, lambda: net(torch.rand(1, 3, 8, 8)))).algorithms[0]
    assert isinstance(algorithm, Quantization)
    return algorithm


def _formats(algorithm: Quantization) -> dict[str, tuple[int, str, bool]]:
    return {
        str(point.point): (point.config.bits, point.config.mode, point.config.per_channel)
        for point in algorithm.inserted.setup.points
    }


def test_overrides_win_over_their_group_and_keep_the_rest_of_it() -> None:
    formats = _formats(
        _compressed(
            weights={"per_channel": True, "bits": 6},
            scope_overrides={
                "weights": {"second": {"bits": 4, "mode": "asymmetric"}},
                "activations": {"{re}head": {"bits": 5}},
            },
        )
    )
    assert formats == {
        "/input:0": (8, "symmetric", False),
        "first/conv2d:0|weight1": (6, "symmetric", True),
        "/relu:0": (8, "symmetric", False),
        "second/conv2d:0|weight1": (4, "asymmetric", True),
        "/relu:1": (8, "symmetric", False),
        "/mean:0": (5, "symmetric", False),
        "head/linear:0|weight1": (6, "symmetric", True),
    }


def test_names_of_nncf_are_translated() -> None:
    formats = _formats(_compressed(scope_overrides={"weights": {"_Net/NNCFConv2d[second]/conv2d_0": {"bits": 4}}}))
    assert [place for place, (bits, _, _) in formats.items() if bits == 4] == ["second/conv2d:0|weight1"]


def test_two_overrides_at_one_place_are_both_named() -> None:
    overrides = {"weights": {"{re}conv2d": {"bits": 4}, "second": {"bits": 6}}}
    with pytest.raises(
        ConfigError, match=r"`scope_overrides.weights`: '{re}conv2d' and 'second' both .*'second/conv2d:0'"
    ):
        _compressed(scope_overrides=overrides)
    # where only one of them has a quantizer they may overlap
    _compressed(
        scope_overrides={"activations": {"{re}relu": {"bits": 4}, "{re}relu:0|second": {"bits": 6}}},
        validate_scopes=False,
    )


def test_an_override_that_matches_nothing_names_what_is_near() -> None:
    with pytest.raises(
        ScopeError, match=r"`scope_overrides.weights`: scope 'secondd' matches nothing.*did you mean 'second"
    ):
        _compressed(scope_overrides={"weights": {"secondd": {"bits": 4}}})
    formats = _formats(_compressed(scope_overrides={"weights": {"secondd": {"bits": 4}}}, validate_scopes=False))
    assert all(bits == 8 for bits, _, _ in formats.values())


def test_an_override_of_ops_without_quantizers_is_an_error() -> None:
    with pytest.raises(
        ScopeError, match=r"`scope_overrides.activations`: '/relu:0' selects no op whose inputs are quantized"
    ):
        _compressed(scope_overrides={"activations": {"/relu:0": {"bits": 4}}})


def test_bits_that_the_device_lacks_are_refused_at_the_first_place() -> None:
    with pytest.raises(
        PlacementError, match=r"'second/conv2d:0': target device 'GPU' allows 8-bit .* asks for .*bits=4"
    ):
        _compressed("GPU", scope_overrides={"weights": {"second": {"bits": 4}}})
    with pytest.raises(PlacementError, match=r"no activation quantizer fits at 'first/conv2d:0'.*bits=4"):
        _compressed("CPU", activations={"bits": 4})
    assert _formats(_compressed("NPU", scope_overrides={"weights": {"second": {"bits": 4}}}))[
        "second/conv2d:0|weight1"
    ] == (4, "symmetric", True)


def test_an_override_brings_its_own_range_initialization() -> None:
    algorithm = _compressed(
        initializer={"range": {"type": "mean_min_max", "num_init_samples": 3}},
        scope_overrides={
            "activations": {"second": {"initializer": {"range": {"type": "min_max", "num_init_samples": 7}}}}
        },
    )
    found = {
        str(point.point): (entry.type, entry.num_init_samples)
        for point, entry in zip(algorithm.inserted.setup.points, algorithm.inserted.ranges, strict=True)
    }
    assert {place for place, entry in found.items() if entry == ("min_max", 7)} == {"/relu:0"}
    assert set(found.values()) == {("min_max", 7), ("mean_min_max", 3)}


def test_signed_is_forced_or_left_to_the_data() -> None:
    algorithm = _compressed(
        activations={"signed": True}, scope_overrides={"activations": {"second": {"signed": False}}}
    )
    signs = {
        str(point.point): point.config.signed for point in algorithm.inserted.setup.points if point.kind == "activation"
    }
    assert signs == {"/input:0": True, "/relu:0": False, "/relu:1": True, "/mean:0": True}
    signs = {str(point.point): point.config.signed for point in _compressed().inserted.setup.points}
    assert set(signs.values()) == {None}


def test_scales_are_shared_by_the_names_of_nncf_too() -> None:
    algorithm = _compressed(activations={"unified_scale_ops": [["_Net/Conv2d[second]/conv2d_0", "head"]]})
    assert [
        {str(algorithm.inserted.setup.points[i].point) for i in group} for group in algorithm.inserted.setup.unified
    ] == [{"/relu:0", "/mean:0"}]
    places = [
        i for i, point in enumerate(algorithm.inserted.setup.points) if str(point.point) in ("/relu:0", "/mean:0")
    ]
    assert algorithm.inserted.quantizers[places[0]] is algorithm.inserted.quantizers[places[1]]
    with pytest.raises(ScopeError, match=r"`activations.unified_scale_ops`: scope 'haed' .*'head"):
        _compressed(activations={"unified_scale_ops": [["second", "haed"]]})


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (True, False, ["/input:0", "/relu:0", "/relu:1", "/mean:0"]),
        (False, False, ["/relu:0", "/relu:1", "/mean:0"]),
        (True, True, ["/input:0", "/relu:0", "/relu:1", "/mean:0", "head/linear:0"]),
    ],
)
def test_ends_of_the_network(inputs: bool, outputs: bool, expected: list[str]) -> None:
    algorithm = _compressed("ANY", quantize_inputs=inputs, quantize_outputs=outputs)
    assert [str(point.point) for point in algorithm.inserted.setup.points if point.kind == "activation"] == expected


def test_shared_scales_are_equal_in_the_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    net, x = _Net().eval(), torch.rand(2, 3, 8, 8)
    lists = [["second", "head"]]
    compress(net, {"compression": {"algorithm": "quantization", "activations": {"unified_scale_ops": lists}}}, [x])
    path = tmp_path / "model.onnx"
    export_onnx(net, ((x,), {}), path)
    model = onnx.load(path)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = [float(values[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear"]
    # of the input and of what follows it, then the two that share one
    assert len(scales) == 4
    assert sorted(scales.count(scale) for scale in set(scales)) == [1, 1, 2]
