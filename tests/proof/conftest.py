"""A seed for every test, and one file that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_nncf.export import ExportReport, export_onnx
from tests.export.networks import Residual


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def residual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Residual, Tensor, Path, ExportReport]:
    """A network, an input, its file written by the default exporter, and the report."""
    torch.manual_seed(0)
    network, x = Residual().eval(), torch.randn(16, 3, 8, 8)
    path = tmp_path_factory.mktemp("residual") / "model.onnx"
    return network, x, path, export_onnx(network, ((x,), {}), path, metadata={"config": {"bits": 8}})
