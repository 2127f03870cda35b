from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.errors import ExportError
from lightning_nncf.export import ExportReport, export_onnx
from lightning_nncf.proof.runtimes import OnnxRuntimeModel


class _Named(nn.Module):
    """Subtracts a buffer before a mean and a linear layer; the buffer's name is free."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer(name, torch.rand(shape) + 0.5)
        self.name, self.before = name, len(shape) == 4
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        buffer = getattr(self, self.name)
        x = torch.relu(self.conv(x - buffer if self.before else x)).mean((2, 3))
        return self.linear(x if self.before else x - buffer)


class _Keyed(nn.Module):
    """An input and an output of a name that tensors between have too, and a buffer of a third tensor's name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((1, 3), 3.0))
        self.linear = nn.Linear(3, 8)

    def forward(self, x: Tensor, relu: Tensor, scale: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.linear(x * self.scale + scale) + relu)
        return {"linear": y, "relu": y.mean(1), "scale": y.sum(1)}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("mean", (1, 3, 1, 1), id="an op, of another rank"),
        pytest.param("mean", (1, 8), id="an op, of a shape that fits"),
        pytest.param("input", (1, 8), id="the input"),
        pytest.param("output", (1, 8), id="the output"),
        pytest.param("network", (1, 8), id="the wrapper"),
    ],
)
def test_buffer_may_have_the_name_of_any_tensor(
    name: str, shape: tuple[int, ...], exporter: str, tmp_path: Path
) -> None:
    network, x = _Named(name, shape).eval(), torch.randn(4, 3, 6, 6)
    export_onnx(network, ((x,), {}), tmp_path / "m.onnx", exporter=exporter, opset=19)
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x).detach(), rtol=1e-4, atol=1e-5)


def _export_keyed(network: nn.Module, inputs: dict[str, Tensor], path: Path, **options: object) -> ExportReport:
    return export_onnx(network, ((), inputs), path, **options)


def test_keys_of_inputs_and_outputs_may_be_names_of_ops_and_buffers(tmp_path: Path) -> None:
    network = _Keyed().eval()
    inputs = {"x": torch.randn(4, 3), "relu": torch.randn(4, 8), "scale": torch.randn(4, 3)}
    report = _export_keyed(network, inputs, tmp_path / "m.onnx")
    assert report.input_names == ("x", "relu", "scale")
    assert report.output_names == ("linear", "relu_output", "scale_output")
    model = onnx.load(tmp_path / "m.onnx")
    assert "network.scale" in {item.name for item in model.graph.initializer}
    found, expected = OnnxRuntimeModel(tmp_path / "m.onnx")(**inputs), network(**inputs)
    assert list(found) == ["linear", "relu", "scale"]
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.detach(), rtol=1e-4, atol=1e-5)


def test_output_named_as_an_input_is_refused(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(4, 3), "relu": torch.randn(4, 8), "scale": torch.randn(4, 3)}
    with pytest.raises(ExportError, match="`output_names` must differ from the names of the inputs, both hold 'x'"):
        _export_keyed(_Keyed().eval(), inputs, tmp_path / "m.onnx", output_names=["x", "y", "z"])


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistic_of_a_norm_that_is_not_finite_is_named(name: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    getattr(network[1], name)[2] = float("nan" if name == "running_mean" else "inf")
    with pytest.raises(ExportError, match=f"1 buffers are NaN or infinite, as '1.{name}'"):
        export_onnx(network, ((torch.randn(2, 3, 6, 6),), {}), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_buffer_with_nan_is_named_and_a_mask_of_infinities_is_not(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 4))
    network.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
    network.register_buffer("steps", torch.tensor(3))
    export_onnx(network, ((torch.randn(2, 3),), {}), tmp_path / "m.onnx", exporter="torchscript", opset=19)
    network.register_buffer("offset", torch.tensor([0.0, float("nan")]))
    with pytest.raises(ExportError, match="1 buffers are NaN or infinite, as 'offset'"):
        export_onnx(network, ((torch.randn(2, 3),), {}), tmp_path / "n.onnx")


def test_negative_variance_is_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    network[1].running_var[1] = -0.5
    with pytest.raises(ExportError, match=r"1 variances are negative, as '1\.running_var'"):
        export_onnx(network, ((torch.randn(2, 3, 6, 6),), {}), tmp_path / "m.onnx")
