"""Which version of ONNX Runtime loads files of which opset, with 8-bit weights alone and with some of 4 bits.

    python -m benchmarks.opsets [--versions 1.22.1 1.23.2 ...]

Writes ``benchmarks/results/opsets.json``: by version and opset the relative error of the outputs, or null where the
file does not load. `lightning_nncf.export.needs` tells users what was found here. Versions before 1.19 need a Python
whose newest numpy is 1.x, or are told as not to be installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.deployment import InstallError, installed, measure
from benchmarks.machine import read_results, write_results
from lightning_nncf import compress, export_onnx

VERSIONS = ("1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.1", "1.26.0", "1.27.0")
OPSETS = range(17, 26)
_KINDS: dict[str, dict[str, Any]] = {
    "8 bits": {},
    "4 and 8 bits": {"scope_overrides": {"weights": {"3": {"bits": 4}}}},
}


def write_files(folder: Path) -> list[tuple[str, int, str]]:
    """Write a small network in each opset; return kinds, opsets and names of the files."""
    found = []
    for kind, section in _KINDS.items():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
        ).eval()
        inputs = torch.randn(4, 3, 16, 16)
        compression = {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": 4}}, **section}
        compress(network, {"target_device": "TRIAL", "compression": compression}, [inputs])
        with torch.no_grad():
            output = network(inputs)
        for opset in OPSETS:
            name = f"{kind.replace(' ', '_')}_{opset}"
            export_onnx(network, ((inputs,), {}), folder / f"{name}.onnx", opset=opset)
            np.savez(folder / f"{name}.npz", input_0=inputs.numpy(), output=output.numpy())
            found.append((kind, opset, name))
    return found


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    options = parser.parse_args()
    results = read_results("opsets") or {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        for version in options.versions:
            rows: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
            try:
                with installed(f"onnxruntime=={version}") as install:
                    for kind, opset, name in files:
                        row = measure(install, name, Path(folder), runs=0, threads=1)
                        rows[kind][str(opset)] = row.get("relative_rms")
            except InstallError as error:
                sys.stderr.write(f"{error}\n")
                continue
            results[version] = rows
            sys.stderr.write(f"{version}: {rows}\n")
    write_results("opsets", results)


if __name__ == "__main__":
    main()
