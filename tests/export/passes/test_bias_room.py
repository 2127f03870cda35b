from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lightning_nncf.export import export_onnx
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from tests.export.networks import RUNS_SEVERAL_ZERO_POINTS, activation, for_weight


class Layer(nn.Module):
    """A quantized layer with an ordinary bias."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, reach: float, **settings: object) -> None:
        super().__init__()
        self.input, self.layer = activation(-reach, reach), layer
        self.weight, self.output = for_weight(layer.weight, **settings), activation(-4.0, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(self.layer.weight)
        function = nn.functional.conv2d if isinstance(self.layer, nn.Conv2d) else nn.functional.linear
        return self.output(function(self.input(x), weight, self.layer.bias))


def exported(layer: nn.Conv2d | nn.Linear, x: Tensor, reach: float, path: Path, **settings: object) -> list[float]:
    """Return how far both runtimes are from PyTorch at most, in steps of the output."""
    network = Layer(layer, reach, **settings).eval()
    with torch.no_grad():
        expected = network(x)
    export_onnx(network, ((x,), {}), path)
    step = 8 / 255
    return [
        float(np.abs(np.asarray(run(x)) - expected.numpy()).max()) / step
        for run in (OnnxRuntimeModel(path), OpenVINOModel(path))
    ]


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_bias_beside_tiny_weights_is_right(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 6, 3) if kind == "conv" else nn.Linear(12, 6)
    small = torch.tensor([1.0, 1e-2, 3e-6, 1e-5, 1e-9, 0.0])
    with torch.no_grad():
        layer.weight *= small.reshape(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.copy_(torch.tensor([0.3, 1.5, -200.0, 2.0, -1.0, 1.0]))  # type: ignore[union-attr]
    x = torch.randn(2, 3, 6, 6) if kind == "conv" else torch.randn(5, 12)
    assert max(exported(layer, x, 3.0, tmp_path / "model.onnx")) < 1.1


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="per channel"),
        pytest.param({"per_channel": False}, id="per tensor"),
        pytest.param({"bits": 4, "half_range": False}, id="4 bits"),
        pytest.param(
            {"mode": "asymmetric", "signed": None, "half_range": False},
            id="asymmetric",
            marks=pytest.mark.skipif(not RUNS_SEVERAL_ZERO_POINTS, reason="ONNX Runtime before 1.27 refuses them"),
        ),
    ],
)
def test_a_bias_behind_a_tiny_input_is_right(settings: dict[str, object], tmp_path: Path) -> None:
    reach = 1e-8
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.3, 1.5, -2.0, 1e-6]))  # type: ignore[union-attr]
    x = torch.randn(2, 3, 6, 6) * reach / 3
    assert max(exported(layer, x, reach, tmp_path / "model.onnx", **settings)) < 1.1


def test_weights_whose_bias_fits_are_stored_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    exported(layer, torch.randn(2, 3, 6, 6), 3.0, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert not any(item.name.endswith("/room") for item in model.graph.initializer)
    integers = [numpy_helper.to_array(item) for item in model.graph.initializer if list(item.dims) == [4, 3, 3, 3]]
    assert [int(np.abs(values.astype(int)).max()) for values in integers] == [63]
