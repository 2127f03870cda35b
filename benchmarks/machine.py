"""Where a benchmark ran, and writing its results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["labelled", "machine", "read_results", "write_results"]

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "onnx", "onnxruntime", "openvino")


def machine() -> dict[str, Any]:
    """Describe processor, GPU and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def write_results(name: str, result: Any) -> None:
    """Write a result with the date and the machine to ``benchmarks/results/<name>.json``, and print it."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    record = {"date": datetime.date.today().isoformat(), "machine": machine(), "result": result}
    path.write_text(json.dumps(record, indent=2) + "\n")
    sys.stdout.write(json.dumps(record, indent=2) + "\n")


def read_results(name: str) -> Any:
    """Return the result that `write_results` wrote last, or nothing."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    return json.loads(path.read_text())["result"] if path.exists() else None


def labelled(name: str, label: str | None) -> str:
    """Return the name of the results of one of several machines."""
    return f"{name}_{label}" if label else name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
