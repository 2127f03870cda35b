from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def _run(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.callback.pruning_ddp_script", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    name = arguments[0] if arguments and arguments[0].isdigit() else "None"
    return [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("more", [(), ("int8",)], ids=["pruned", "pruned_int8"])
def test_two_processes_shrink_alike_and_go_on_as_if_only_masked(tmp_path: Path, more: tuple[str, ...]) -> None:
    small, masked = _run(tmp_path, "1", *more), _run(tmp_path, *more)
    for name, value in small[0]["state"].items():
        # Batch-norm statistics are each rank's own.
        if "running" not in name:
            assert torch.equal(value, small[1]["state"][name]), name
    assert small[0]["state"]["net.stem.weight"].shape[0] == 8
    assert masked[0]["state"]["net.stem.weight"].shape[0] == 16
    torch.testing.assert_close(small[0]["output"], masked[0]["output"], rtol=1e-5, atol=1e-5)
