from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]


def test_two_processes_hold_the_same_masks_bit_for_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.algorithms.sparsity.ddp_script", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for name in ("rb", "magnitude"):
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1))
        masks = [key for key in first["state"] if "lnncf_" in key]
        assert masks
        assert all(torch.equal(first["state"][key], second["state"][key]) for key in masks)
        kept = torch.cat([mask.flatten() for mask in first["kept"]])
        assert abs(float(kept.float().mean()) - 0.5) <= 0.01, name
