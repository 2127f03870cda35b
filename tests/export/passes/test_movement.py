from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, export_onnx, verify_onnx
from lightning_nncf.proof import OnnxRuntimeModel
from lightning_nncf.proof.int8_layers import count_int8_layers

CONFIG = {
    "compression": {
        "algorithm": "quantization",
        "initializer": {"range": {"num_init_samples": 4}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 4}},
    }
}


class Concatenated(nn.Module):
    """Two branches of convolutions, concatenated, then split again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.joined, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        first, _ = torch.relu(self.joined(x)).chunk(2, 1)
        return torch.relu(self.last(first)).mean((2, 3))


class CalledTwice(nn.Module):
    """One convolution with batch norm that is called for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def branch(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) - self.branch(x.flip(3))


@pytest.mark.parametrize(("network", "convolutions"), [(Concatenated, 5), (CalledTwice, 2)])
def test_every_convolution_is_int8_and_agrees(tmp_path: Path, network: type[nn.Module], convolutions: int) -> None:
    torch.manual_seed(0)
    net = network().eval()
    x = torch.randn(4, 3, 8, 8)
    compress(net, CONFIG, [x])
    export_onnx(net, ((x,), {}), tmp_path / "model.onnx")
    assert verify_onnx(tmp_path / "model.onnx", net, ((x,), {})).proven
    layers = count_int8_layers(OnnxRuntimeModel(tmp_path / "model.onnx"))
    assert (layers.convolutions, layers.all_convolutions) == (convolutions, convolutions)


def test_folded_weight_of_a_layer_called_twice_is_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CalledTwice().eval()
    x = torch.randn(4, 3, 8, 8)
    compress(net, CONFIG, [x])
    report = export_onnx(net, ((x,), {}), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    integers = [tensor for tensor in graph.initializer if list(tensor.dims) == [4, 3, 3, 3]]
    assert len(integers) == 1
    assert report.batch_norms_folded == 2
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]


def test_linear_layer_with_a_bias_is_int8_and_agrees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    nn.init.uniform_(net[3].bias, -2, 2)
    x = torch.randn(4, 3, 8, 8)
    compress(net, CONFIG, [x])
    export_onnx(net, ((x,), {}), tmp_path / "model.onnx")
    report = verify_onnx(tmp_path / "model.onnx", net, ((x,), {}))
    assert report.proven
    assert all(r.difference is not None and r.difference.max_abs < 1e-3 for r in report.results)
    layers = count_int8_layers(OnnxRuntimeModel(tmp_path / "model.onnx"))
    assert (layers.matmuls, layers.all_matmuls) == (1, 1)
