"""Distils a module in as many processes as asked for and writes its weights; run by test_distillation.

Arguments: a folder, the number of processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_nncf import NNCFCallback
from tests.callback.modules import dataset


class Itself(pl.LightningModule):
    """Its own network, without norms that would differ between processes; calls itself from its step."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x.flatten(1))))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(folder: Path, devices: int) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    module = Itself().double()
    section = {
        "algorithm": "knowledge_distillation",
        "type": "mse",
        "scale": 10.0,
        "features": [{"student": "first/linear:0", "projection": True}],
    }
    callback = NNCFCallback({"compression": section}, network="", export_path=None)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="64-true",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        callbacks=[callback],
    )
    data = dataset()
    rank = trainer.global_rank if devices > 1 else 0
    # Each process takes half of every batch that one process takes whole.
    size = 8 // devices
    order = [i for start in range(0, len(data), 8) for i in range(start + rank * size, start + (rank + 1) * size)]
    trainer.fit(module, DataLoader(torch.utils.data.Subset(data, order), batch_size=size))
    losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
    torch.save({"weights": module.state_dict(), "losses": losses}, folder / f"{devices}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
