"""Fits sparse modules in two processes and writes every rank's state; run by test_ddp."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, loader

SECTIONS: dict[str, dict[str, Any]] = {
    "rb": {
        "algorithm": "rb_sparsity",
        "params": {
            "sparsity_target": 0.5,
            "sparsity_target_epoch": 4,
            "sparsity_freeze_epoch": 11,
            "check_sparsity_masks": True,
        },
    },
    "magnitude": {
        "algorithm": "magnitude_sparsity",
        "params": {
            "sparsity_target": 0.5,
            "sparsity_target_epoch": 2,
            "sparsity_freeze_epoch": 9,
            "regrow": {"fraction": 0.3},
        },
    },
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name, section in SECTIONS.items():
        pl.seed_everything(1, verbose=False)
        module = Classifier()
        callback = NNCFCallback({"compression": section}, export_path=None)
        trainer = pl.Trainer(
            max_epochs=14 if name == "rb" else 4,
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
            callbacks=[callback],
        )
        trainer.fit(module, loader(64))
        assert callback.compressed is not None
        kept = [mask.kept() for mask in callback.compressed.algorithms[0].masks]
        state = {"state": module.state_dict(), "kept": kept}
        torch.save(state, folder / f"{name}{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
