"""Fits, evaluates and fits again with processes that the Trainer starts; run by test_launching.

Arguments: folder, strategy, what to do: ``fit``, or ``all``, with filters removed in training and a file written. The
environment variable ``LIGHTNING_PACKAGE`` names the package of Lightning, for spawned processes, too.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.callback.modules import config, loader

PRUNING = {
    "algorithm": "filter_pruning",
    "pruning_init": 0.5,
    "params": {"pruning_target": 0.5, "pruning_steps": 1, "grouping": "full", "shrink_at": 1},
}

pl: Any = importlib.import_module(os.environ.get("LIGHTNING_PACKAGE", "pytorch_lightning"))


class Wide(pl.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        # Each process sees half of the data.
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def main(folder: Path, strategy: str, do: str) -> None:
    from lightning_nncf import NNCFCallback

    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    quantization = config()["compression"]
    whole = do == "all"
    sections = {"compression": [quantization, PRUNING] if whole else quantization}
    callback = NNCFCallback(sections, export_path="model.onnx" if whole else None, verify=False)
    module = Wide()

    def trainer(**settings: Any) -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        keep = pl.callbacks.ModelCheckpoint(dirpath=folder, save_last=True)
        settings = {"strategy": strategy, "devices": 2, **settings}
        return pl.Trainer(
            accelerator="cpu", default_root_dir=folder, callbacks=[callback, keep], max_epochs=2, **quiet, **settings
        )

    first = trainer()
    first.fit(module, loader(), loader())
    fitted = callback.compressed is not None and callback.compressed.network is module.net
    result: dict[str, Any] = {
        "fitted": fitted,
        "state": {name: value.clone() for name, value in module.state_dict().items()},
        "samples": callback.samples,
        "proof": None if callback.proof is None else callback.proof.export.path,
        "during": float(first.callback_metrics["val_loss"]),
    }
    if whole:
        result["after"] = first.validate(module, loader(), verbose=False)[0]["val_loss"]
        alone = trainer(strategy="auto", devices=1)
        result["alone"] = alone.validate(module, loader(), verbose=False)[0]["val_loss"]
        alone.save_checkpoint(folder / "main.ckpt")
        callback.export(folder / "main.onnx")
        trainer().fit(module, loader())
        assert callback.compressed is not None
        result["epochs"] = [each.scheduler.current_epoch for each in callback.compressed.algorithms]
        result["again"] = module.state_dict()
    torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
