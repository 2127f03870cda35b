"""Prunes a module in two processes and writes every rank's state; run by test_pruning_ddp.

Arguments: a folder, then in any order the epoch to shrink at and ``int8`` to quantize too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from tests.callback.modules import loader
from tests.callback.test_pruning import Wide, prune
from tests.callback.test_pruning_combined import INT8


def main(folder: Path, shrink_at: int | None, more: Sequence[dict[str, Any]]) -> None:
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
        callbacks=[prune(shrink_at=shrink_at, more=more)],
    )
    trainer.fit(module, loader())
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = {"state": module.state_dict(), "output": module.eval()(x).detach()}
    torch.save(result, folder / f"{shrink_at}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    epochs = [int(argument) for argument in sys.argv[2:] if argument.isdigit()]
    main(Path(sys.argv[1]), epochs[0] if epochs else None, [INT8] if "int8" in sys.argv else [])
