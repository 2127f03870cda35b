"""Training in processes that the Trainer starts: the main process gets the compressed module back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("strategy", "package", "do"),
    [
        ("ddp_fork", "pytorch_lightning", "all"),
        ("ddp_notebook", "lightning.pytorch", "fit"),
        ("ddp_spawn", "pytorch_lightning", "fit"),
    ],
)
def test_main_process_holds_what_rank_zero_trained(tmp_path: Path, strategy: str, package: str, do: str) -> None:
    if package == "lightning.pytorch":
        pytest.importorskip(package, reason="the package `lightning` is not installed")
    command = [sys.executable, "-m", "tests.callback.launch_script", str(tmp_path), strategy, do]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "LIGHTNING_PACKAGE": package}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    result = torch.load(tmp_path / "result.pt", weights_only=False)
    assert result["fitted"]
    assert result["samples"][0][0].shape == (4, 1, 8, 8)
    assert any("lnncf_" in name for name in result["state"])
    if do != "all":
        # The checkpoint was written by rank zero in the last epoch.
        saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
        expected = {name: value for name, value in saved.items() if "lnncf_hint" not in name}
        assert result["state"].keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in result["state"].items())
    if do == "all":
        assert result["proof"] == str(tmp_path / "model.onnx")
        assert result["after"] == pytest.approx(result["during"], abs=1e-6)
        assert result["state"]["net.0.weight"].shape[0] < 16
        assert result["alone"] == pytest.approx(result["during"], abs=1e-6)
        assert "lightning_nncf" in torch.load(tmp_path / "main.ckpt", weights_only=True)
        assert (tmp_path / "main.onnx").exists()
        # The second fit went on where the first had ended.
        assert result["epochs"] == [3, 3]
        assert not torch.equal(result["again"]["net.0.weight"], result["state"]["net.0.weight"])
