from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


STAGED = {
    "params": {"activations_quant_start_epoch": 1, "weights_quant_start_epoch": 2},
    "initializer": {"range": {"type": "percentile", "num_init_samples": 8}},
}


@pytest.mark.parametrize(("epochs", "section"), [(1, {}), (3, STAGED)], ids=["plain", "staged with percentiles"])
def test_two_processes_hold_the_same_weights_and_ranges_bit_for_bit(
    tmp_path: Path, epochs: int, section: dict[str, Any]
) -> None:
    command = [sys.executable, "-m", "tests.callback.ddp_script", str(tmp_path), str(epochs), json.dumps(section)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for moment in ("initial", "final"):
        # Weights too: bias correction and SmoothQuant change them from what each process sees. Batch norm collects its
        # own statistics in each process once training begins.
        names = [name for name in ranks[0][moment] if moment == "initial" or ".norm." not in name]
        assert any("lnncf_" in name for name in names)
        assert all(torch.equal(ranks[0][moment][name], ranks[1][moment][name]) for name in names)
    trained = [
        name
        for name in names
        if "lnncf_" in name and not torch.equal(ranks[0]["initial"][name], ranks[0]["final"][name])
    ]
    assert trained
