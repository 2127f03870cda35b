"""Batch norms under the callback: frozen ones, and batches too small for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier

CONFIG: dict[str, Any] = {"compression": {"algorithm": "quantization"}}


class Frozen(Classifier):
    """A classifier that keeps its norm in evaluation mode, as detectors do."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.net.norm.eval()
        return self


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pooled, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x))).mean((2, 3))
        return self.head(self.pooled(x))


def loader(samples: int, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(samples, 1, 8, 8), torch.arange(samples) % 3), batch_size)


def fit(module: Any, data: Any, path: Path, **options: Any) -> NNCFCallback:
    callback = NNCFCallback(CONFIG, export_path=None)
    pl.Trainer(
        max_epochs=1,
        default_root_dir=path,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    ).fit(module, data)
    return callback


def test_a_norm_that_the_module_freezes_keeps_its_statistics(tmp_path: Path) -> None:
    module = Frozen()
    module.net.norm.running_mean.fill_(0.25)  # type: ignore[union-attr]
    module.train()
    fit(module, loader(16, 8), tmp_path)
    assert module.net.norm.running_mean.tolist() == [0.25] * 4  # type: ignore[union-attr]
    assert int(module.net.norm.num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_last_batch_of_one_sample_does_not_end_the_initialization(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Classifier()
    module.net = Pooled()
    # initialization sees the batch of one, training stops before it
    callback = fit(module, loader(9, 4), tmp_path, max_steps=2)
    assert callback.compressed is not None
    assert callback.compressed.initialized
    # three batches to renew the statistics, which are far from the data, three to adapt and two to train
    assert int(module.net.norm.num_batches_tracked) == 8  # type: ignore[arg-type]
    assert all(bool(value.isfinite().all()) for value in module.state_dict().values())
