"""What the overflow fix is for: quantized networks in OpenVINO on processors without instructions for 8-bit products.

Run ``python -m benchmarks.overflow``; the result goes to ``benchmarks/results/overflow.json``. The processors are this
one with its instruction set limited by ``ONEDNN_MAX_CPU_ISA``, so that it takes one with VNNI to compare them.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import write_results
from example_modules.digits import DigitsDataModule
from example_modules.residual import SmallResNet
from lightning_nncf import compress, export_onnx
from lightning_nncf.proof import OpenVINOModel

INSTRUCTION_SETS = ("DEFAULT", "AVX512_CORE", "AVX2")
FIXES = ("enable", "first_layer_only", "disable")
EPOCHS = 15


def run_limited(path: Path, inputs: Path, outputs: Path, instruction_set: str) -> Tensor:
    """Run a file in OpenVINO in a process of its own, where the instruction set is still to be chosen."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instruction_set}
    arguments = [sys.executable, "-m", "benchmarks.overflow", str(path), str(inputs), str(outputs)]
    subprocess.run(arguments, env=environment, check=True)
    result: Tensor = torch.load(outputs)
    return result


def one_sign() -> tuple[nn.Module, Tensor, list[Tensor]]:
    """Return a convolution whose filters add up without cancelling, bright images and batches of them."""
    network = nn.Sequential(nn.Conv2d(64, 64, 3))
    layer = network[0]
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        signs = torch.randint(0, 2, (64, 1, 1, 1)) * 2 - 1
        layer.weight.copy_((0.8 + 0.2 * torch.rand_like(layer.weight)) * signs)
    images = 0.5 + 0.5 * torch.rand(8, 64, 16, 16)
    return network, images, [images]


def digits() -> tuple[nn.Module, Tensor, list[Tensor], Tensor]:
    """Return a small residual network trained on hard digits, the test images, batches to calibrate with and labels."""
    data = DigitsDataModule(fold=0, hard=True)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    network = SmallResNet()
    loader = data.train_dataloader()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs=EPOCHS, steps_per_epoch=len(loader))
    for _ in range(EPOCHS):
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
    images, labels = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    return network.eval(), images, [batch for batch, _ in loader], labels


def measure(network: nn.Module, images: Tensor, batches: list[Tensor], labels: Tensor | None) -> dict[str, Any]:
    """Quantize a network with and without the fix and compare its file with itself for each instruction set."""
    result: dict[str, Any] = {}
    for fix in FIXES:
        quantized = copy.deepcopy(network)
        compress(quantized, {"compression": {"algorithm": "quantization", "overflow_fix": fix}}, batches)
        with torch.no_grad():
            expected = quantized.eval()(images)
        with tempfile.TemporaryDirectory() as folder:
            path, inputs, outputs = (Path(folder) / name for name in ("model.onnx", "inputs.pt", "outputs.pt"))
            export_onnx(quantized, ((images,), {}), path)
            torch.save(images, inputs)
            entries = {}
            for instruction_set in INSTRUCTION_SETS:
                got = run_limited(path, inputs, outputs, instruction_set)
                entry = {"relative_error": float(f"{(got - expected).norm() / expected.norm():.3g}")}
                if labels is not None:
                    entry["accuracy"] = round(float((got.argmax(1) == labels).float().mean()) * 100, 2)
                entries[instruction_set] = entry
        result[fix] = entries
    return result


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, images, batches = one_sign()
    result = {"one_sign": measure(network, images, batches, None)}
    trained, images, batches, labels = digits()
    with torch.no_grad():
        accuracy = float((trained(images).argmax(1) == labels).float().mean()) * 100
    result["hard_digits"] = {"float_accuracy": round(accuracy, 2), **measure(trained, images, batches, labels)}
    write_results("overflow", result)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        torch.save(OpenVINOModel(sys.argv[1], threads=1)(torch.load(sys.argv[2])), sys.argv[3])
    else:
        main()
