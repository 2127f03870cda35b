"""Small networks with quantizers put in by hand."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.export import ExportReport, export_onnx

RUNS_SEVERAL_ZERO_POINTS = Version(onnxruntime.__version__) >= Version("1.27")
"""Whether ONNX Runtime runs convolutions whose weights have a zero point for each channel: before, it refuses them."""


def activation(low: float, high: float, **settings: object) -> Quantizer:
    quantizer = build_quantizer(QuantizerConfig(**settings), (1,), -1)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


def for_weight(weight: Tensor, axis: int = 0, **settings: object) -> Quantizer:
    config = QuantizerConfig(**{"signed": True, "per_channel": True, "half_range": True, **settings})
    quantizer = build_quantizer(config, weight.shape, axis)
    dims = [dim for dim in range(weight.ndim) if dim != axis] if config.per_channel else list(range(weight.ndim))
    quantizer.set_range(weight.detach().amin(dims), weight.detach().amax(dims))
    return quantizer


class QuantizedConv(nn.Module):
    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, **settings: object) -> None:
        super().__init__()
        self.conv = conv
        axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
        self.quantizer = for_weight(conv.weight, axis, **settings)

    def forward(self, x: Tensor) -> Tensor:
        weight, conv = self.quantizer(self.conv.weight), self.conv
        if isinstance(conv, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)


class Block(nn.Module):
    """Quantized input, convolution, batch norm, ReLU, quantized output."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, *, norm: bool = True, **settings: object) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.conv = QuantizedConv(conv, **settings)
        self.norm = random_norm(conv.out_channels) if norm else nn.Identity()
        self.output = activation(0.0, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.norm(self.conv(self.input(x)))))


class Residual(nn.Module):
    """Two convolutions with batch norm, an addition and a linear layer; the output is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.conv1 = QuantizedConv(nn.Conv2d(3, 8, 3, padding=1, bias=False))
        self.norm1 = random_norm(8)
        self.relu1 = activation(0.0, 3.0)
        self.conv2 = QuantizedConv(nn.Conv2d(8, 8, 3, padding=1))
        self.norm2 = random_norm(8)
        self.branch = activation(-3.0, 3.0, signed=True)
        self.relu2 = activation(0.0, 4.0)
        self.pool = activation(0.0, 2.0)
        self.linear = nn.Linear(8, 5)
        self.linear_weight = for_weight(self.linear.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.relu1(torch.relu(self.norm1(self.conv1(self.input(x)))))
        x = self.relu2(torch.relu(x + self.branch(self.norm2(self.conv2(x)))))
        pooled = self.pool(x.mean((2, 3)))
        return {"logits": F.linear(pooled, self.linear_weight(self.linear.weight), self.linear.bias)}


def random_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias, std=0.1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(std=0.1)
    norm.running_var.uniform_(0.5, 2.0)
    return norm.eval()


def quick_export(network: nn.Module, x: Tensor | tuple[object, ...], path: Path, **options: object) -> ExportReport:
    """Export in tens of milliseconds."""
    args = x if isinstance(x, tuple) else (x,)
    return export_onnx(network, (args, {}), path, **{"exporter": "torchscript", "opset": 19, **options})
