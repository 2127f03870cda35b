"""Quantizers that the exporter's trace does not meet as the network did."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, export_onnx

X = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0))


class Masks(nn.Module):
    """Computes a mask with further calls of `__getitem__` while it is exported, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(x)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            steps = torch.arange(x.shape[1], device=x.device)
            hidden = hidden.masked_fill((steps[:, None] < 0)[None], 0.0)
        return self.head(hidden[:, 0]), hidden


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_calls_on_masks_do_not_shift_those_on_values(exporter: str, tmp_path: Path) -> None:
    net = Masks().eval()
    compressed = compress(net, {"compression": {"algorithm": "quantization"}}, [X])
    places = [row["place"] for row in compressed.rows() if row["kind"] == "activation"]
    assert places == ["/input:0", "/__getitem__:0#0"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not in the exported file.*")
        report = export_onnx(net, ((X,), {}), tmp_path / "m.onnx", exporter=exporter, opset=20)
    assert (report.activation_quantizers, report.missing_quantizers) == (2, ())


class Shortcut(nn.Module):
    """Leaves a layer out while it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x if torch.compiler.is_exporting() else self.second(x))


def test_quantizers_that_do_not_reach_the_file_are_named(tmp_path: Path) -> None:
    net = Shortcut().eval()
    compress(net, {"compression": {"algorithm": "quantization"}}, [X])
    with pytest.warns(UserWarning, match=r"2 quantizers of the network are not in .*second\.lnncf_weight"):
        report = export_onnx(net, ((X,), {}), tmp_path / "m.onnx", exporter="dynamo")
    assert report.missing_quantizers == ("second.lnncf_weight.quantization", "second.lnncf_out.quantization")


def test_the_reading_of_a_shared_quantizer_that_is_left_out_is_named(tmp_path: Path) -> None:
    net = Twice().eval()
    compress(net, {"compression": {"algorithm": "quantization"}}, [X])
    with pytest.warns(UserWarning, match="3 quantizers of the network are not in the exported file"):
        report = export_onnx(net, ((X,), {}), tmp_path / "m.onnx", exporter="dynamo")
    # What both halves share is in the file, but not its second call.
    assert set(report.missing_quantizers) == {
        "left.lnncf_in.quantization@1",
        "left.lnncf_out.quantization@1",
        "right.lnncf_weight.quantization",
    }


class Twice(nn.Module):
    """Joins two halves with one scale, and leaves one out while it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 8)
        self.right = nn.Linear(8, 8)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        right = torch.zeros_like(left) if torch.compiler.is_exporting() else self.right(x)
        return self.head(torch.cat([left, right], -1))
