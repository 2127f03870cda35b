"""What OpenVINO puts into a quantizer of float values, and would put there wrongly: biases, factors of both signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from tests.export.networks import QuantizedConv, activation, quick_export


class Beside(nn.Module):
    """A quantized convolution, and something of which there is one for each sample."""

    shape = (3, 8, 8)

    def __init__(self, conv: nn.Conv2d, made: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.input, self.output, self.made = activation(-3.0, 3.0), activation(-3.0, 3.0), made
        self.conv = QuantizedConv(conv)
        with torch.no_grad():
            conv.bias.copy_(torch.linspace(-1.5, 1.5, len(conv.bias)))  # type: ignore[union-attr,arg-type]
        self.token = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.output(self.conv(self.input(x))), self.made(x, self.token)


class Scaled(nn.Module):
    """A product with a constant per channel before a quantizer, turned in between or not."""

    shape = (5, 8)

    def __init__(self, turn: Callable[[Tensor], Tensor], scale: Sequence[int]) -> None:
        super().__init__()
        self.layer, self.turn, self.output = nn.Linear(8, 8), turn, activation(-3.0, 3.0)
        self.scale = nn.Parameter(torch.linspace(-1.0, 1.2, 8).reshape(*scale))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.output(self.turn(self.layer(x)) * self.scale)
        return y, y


SIZES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand": lambda x, token: token.expand(x.shape[0], -1, -1, -1),
    "arange": lambda x, _: torch.arange(x.shape[0], dtype=torch.float32),
    "zeros": lambda x, _: torch.zeros(x.shape[0], 2) + 1,
    "repeat": lambda x, token: token.repeat(x.shape[0], 1, 1, 1),
}
NETWORKS: dict[str, Callable[[], Beside | Scaled]] = {
    **{f"bias, {name}": lambda made=made: Beside(nn.Conv2d(3, 8, 3, padding=1), made) for name, made in SIZES.items()},
    "bias of a depthwise layer, arange": lambda: Beside(nn.Conv2d(3, 3, 3, groups=3), SIZES["arange"]),
    "factors": lambda: Scaled(torch.relu, [8]),
    "factors of channels": lambda: Scaled(lambda x: x.transpose(1, 2), [8, 1]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
def test_what_stands_before_a_quantizer_stays_what_it_is(export_format: str, name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]().eval()
    path = tmp_path / "m.onnx"
    quick_export(network, (torch.randn(2, *network.shape),), path, export_format=export_format)
    for runtime in (OnnxRuntimeModel, OpenVINOModel) if export_format == "qdq" else (OpenVINOModel,):
        model = runtime(path)
        for batch in (1, 3, 8):
            x = torch.randn(batch, *network.shape)
            with torch.no_grad():
                expected = network(x)
            quantized, beside = model(x)
            steps = (quantized - expected[0]).abs() / network.output.quantization_parameters()[0]
            assert steps.max() <= 1.001
            assert (steps > 0.001).float().mean() <= 0.05
            assert torch.allclose(beside, expected[1], atol=1.001 * float(network.output.quantization_parameters()[0]))
