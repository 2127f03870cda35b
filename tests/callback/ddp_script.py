"""Fits a module in two processes and writes every rank's state; run by test_ddp.

Arguments: folder, number of epochs, keys of quantization as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, config, loader

INITIALIZER = {
    "range": {"num_init_samples": 8},
    "batchnorm_adaptation": {"num_bn_adaptation_samples": 8},
    "smooth_quant": {"num_samples": 8},
    "bias_correction": {"num_samples": 8},
}


def main(folder: Path, epochs: int, section: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    module = Classifier()
    initial: dict[str, torch.Tensor] = {}

    class Keep(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            initial.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[NNCFCallback(config(**{"initializer": INITIALIZER, **section}), export_path=None), Keep()],
    )
    trainer.fit(module, loader(), loader())
    torch.save({"initial": initial, "final": module.state_dict()}, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
