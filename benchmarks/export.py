"""What export gives for ResNet-50: size, layers that run on integers, speed, agreement with torch.

    python -m benchmarks.export

Random weights with batch norm statistics that fit them: speed and size do not depend on training. The float and the
int8 file are called in turn, in one process, and medians are taken, of wall time and of the CPU time of all threads
(the work, which other programs on the machine disturb less). Writes ``benchmarks/results/export.json``. The bar of 2.5
holds for processors with VNNI; without it int8 products take three instructions instead of one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.machine import write_results
from lightning_nncf.core.compression import compress
from lightning_nncf.export import export_onnx
from lightning_nncf.proof import RuntimeResult, verify_onnx
from lightning_nncf.proof.latency import interleaved_medians
from lightning_nncf.proof.runtimes import RUNTIMES

BARS = {"size": 0.27, "speedup": 2.5, "convolutions": 53, "layer_steps": 0.5}


def sane_resnet50() -> nn.Module:
    """Build a ResNet-50 with varied batch norms whose statistics fit its activations."""
    network = torchvision.models.resnet50(weights=None)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 96, 96))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def timings(files: dict[str, Path], x: Tensor, runs: int, threads: int) -> dict[str, Any]:
    """Time the files in every runtime."""
    results: dict[str, Any] = {}
    for name, runtime in RUNTIMES.items():
        calls = {file: runtime(path, threads=threads).runner([x]) for file, path in files.items()}
        wall = interleaved_medians(calls, runs)
        work = interleaved_medians(calls, runs, clock=time.process_time)
        results[name] = {
            "wall_ms": {file: round(1e3 * value, 2) for file, value in wall.items()},
            "cpu_ms": {file: round(1e3 * value, 2) for file, value in work.items()},
            "speedup_wall": round(wall["float"] / wall["int8"], 3),
            "speedup_cpu": round(work["float"] / work["int8"], 3),
        }
    return results


def agreement(result: RuntimeResult) -> dict[str, Any]:
    """Describe what one runtime made of the int8 file."""
    assert result.layers is not None
    assert result.difference is not None
    return {
        "version": result.version,
        "convolutions": f"{result.layers.convolutions}/{result.layers.all_convolutions}",
        "matmuls": f"{result.layers.matmuls}/{result.layers.all_matmuls}",
        "relative_rms": round(result.difference.relative_rms, 4),
        "worst_layer_steps_rms": None if result.layer_check is None else round(result.layer_check.steps, 4),
        "passed": result.passed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    network, x = sane_resnet50(), torch.randn(2, 3, options.size, options.size)
    with tempfile.TemporaryDirectory() as folder:
        files = {"float": Path(folder) / "float.onnx", "int8": Path(folder) / "int8.onnx"}
        plain = export_onnx(network, ((x,), {}), files["float"])
        config = {
            "compression": {
                "algorithm": "quantization",
                "initializer": {
                    "range": {"num_init_samples": 4},
                    "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
                },
            }
        }
        compressed = compress(network, config, [x, x], example_inputs=x)
        report = export_onnx(compressed.network, ((x,), {}), files["int8"])
        proof = verify_onnx(files["int8"], compressed.network, ((x,), {}), latency_runs=0, raise_on_failure=False)
        times = timings(files, x[:1], options.runs, options.threads)
    flags = Path("/proc/cpuinfo").read_text()
    write_results(
        "export",
        {
            "network": f"resnet50, {options.size}x{options.size}, batch 1, {options.threads} threads",
            "vnni": "vnni" in flags,
            "bars": BARS,
            "float_bytes": plain.size,
            "int8_bytes": report.size,
            "size": round(report.size / plain.size, 4),
            "weight_quantizers": report.weight_quantizers,
            "activation_quantizers": report.activation_quantizers,
            "batch_norms_folded": report.batch_norms_folded,
            "seconds": {"float": round(plain.seconds, 1), "int8": round(report.seconds, 1)},
            "runtimes": {result.runtime: agreement(result) | times[result.runtime] for result in proof.results},
        },
    )


if __name__ == "__main__":
    main()
