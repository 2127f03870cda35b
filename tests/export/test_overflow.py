"""Sums of 8-bit products overflow 16 bits on processors without VNNI; half of the weights' range prevents it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, export_onnx

pytest.importorskip("openvino")

_RUN = """
import sys, torch
from lightning_nncf.proof import OpenVINOModel
torch.save(OpenVINOModel(sys.argv[1], threads=1)(torch.load(sys.argv[2])), sys.argv[3])
"""


def _run_limited(path: Path, x: Tensor, instruction_set: str) -> Tensor:
    """Run a file in a process of its own, where the instruction set is still to be chosen."""
    inputs, outputs = path.with_suffix(".in"), path.with_suffix(".out")
    torch.save(x, inputs)
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instruction_set}
    subprocess.run([sys.executable, "-c", _RUN, str(path), str(inputs), str(outputs)], env=environment, check=True)
    result: Tensor = torch.load(outputs)
    return result


def _errors(fix: str, folder: Path) -> tuple[float, float]:
    """Return the relative errors with all instructions and with AVX2 only, of a network that provokes the overflow."""
    network = nn.Sequential(nn.Conv2d(16, 16, 3))
    with torch.no_grad():
        # bright inputs and filters of one sign: products of 255 and 127 in every pair
        network[0].weight.copy_((0.8 + 0.2 * torch.rand(16, 16, 3, 3)) * (torch.randint(0, 2, (16, 1, 1, 1)) * 2 - 1))  # type: ignore[operator]
    x = 0.5 + 0.5 * torch.rand(2, 16, 8, 8)
    compress(network, {"compression": {"algorithm": "quantization", "overflow_fix": fix}}, [x])
    path = folder / f"{fix}.onnx"
    export_onnx(network, ((x,), {}), path)
    with torch.no_grad():
        expected = network(x)
    native, limited = (_run_limited(path, x, name) for name in ("DEFAULT", "AVX2"))
    return float((native - expected).norm() / expected.norm()), float((limited - native).norm() / native.norm())


def test_half_range_is_exact_without_vnni(tmp_path: Path) -> None:
    native, difference = _errors("enable", tmp_path)
    assert native < 1e-5
    assert difference < 0.01


def test_full_range_overflows_without_vnni(tmp_path: Path) -> None:
    if "vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no VNNI to compare with")
    native, difference = _errors("disable", tmp_path)
    assert native < 1e-5  # VNNI adds up in 32 bits
    assert difference > 0.1
