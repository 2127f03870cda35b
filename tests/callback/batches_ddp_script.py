"""Fits in two processes with and without the callback, and writes the batches of this rank; run by a test.

Argument: folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.callback import test_training_batches as batches

NAMES = ("shuffled", "persistent worker", "sampler with memory", "one-shot iterator")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    options = {"devices": 2, "strategy": "ddp"}
    found = {}
    for name in NAMES:
        plain = batches._trained(folder, batches.LOADERS[name](), **options)
        found[name] = [plain, batches._trained(folder, batches.LOADERS[name](), batches._callback(), **options)]
    rank = torch.distributed.get_rank()
    (folder / f"batches{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
