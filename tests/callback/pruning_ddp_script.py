"""Prunes a module in two processes, shrinking it or not, and writes every rank's state; run by test_pruning_ddp."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from tests.callback.modules import loader
from tests.callback.test_pruning import Wide, prune


def main(folder: Path, shrink_at: int | None) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    module = Wide()
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[prune(shrink_at=shrink_at)],
    )
    trainer.fit(module, loader())
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = {"state": module.state_dict(), "output": module.eval()(x).detach()}
    torch.save(result, folder / f"{shrink_at}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
