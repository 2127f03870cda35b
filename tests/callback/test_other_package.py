from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_nncf import NNCFCallback
from tests.callback.modules import Net, config, loader

other: Any = pytest.importorskip("lightning.pytorch", reason="the package `lightning` is not installed")


def test_callback_works_in_the_trainer_of_the_other_package(tmp_path: Path) -> None:
    class Module(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    callback = NNCFCallback(config(), export_path=None)
    module = Module()
    trainer = other.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
    )
    trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert callback.compressed is not None
    assert callback.compressed.stage.name == "FULLY_COMPRESSED"
    assert "lightning_nncf" in torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert trainer.callback_metrics["compression/weight_bits_8"] == 3
