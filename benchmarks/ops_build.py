"""How long the kernels take to build from nothing, and to load once they are there.

Run ``python -m benchmarks.ops_build``; the result goes to ``benchmarks/results/ops_build.json``. Builds what the
machine can build, with ``python -m cuda_ops`` into an empty cache: each library alone and all of them by one command,
the median of several rounds. Loads in fresh processes. Wall time says what other work on the machine lets it,
processor time over the number of cores the least that it could be.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import write_results
from cuda_ops import toolchain

ROOT = Path(__file__).parent.parent
BUILDS = 3
LOADS = 5
LOAD = """
import time
import torch, lightning_nncf.ops
import cuda_ops
start = time.perf_counter()
native = cuda_ops.load("cpu")
print(time.perf_counter() - start if native else "not loaded")
"""


def run(command: list[str], cache: str) -> str:
    """Run a command with a cache of kernels and return what it printed."""
    environment = os.environ | {"LIGHTNING_NNCF_CACHE": cache}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def children() -> float:
    """Return the processor time of all ended processes that this one started, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def build(devices: list[str]) -> tuple[float, float]:
    """Build libraries from nothing and return the seconds that it took and those of processor time."""
    with tempfile.TemporaryDirectory() as cache:
        start, used = time.perf_counter(), children()
        run([sys.executable, "-m", "cuda_ops", *devices], cache)
        return time.perf_counter() - start, children() - used


def main() -> None:
    devices = ["cpu", *(["cuda"] if torch.version.cuda and toolchain.cuda_home() else [])]
    choices = {device: [device] for device in devices} | {"all": devices}
    builds = {name: [build(chosen) for _ in range(BUILDS)] for name, chosen in choices.items()}
    seconds, processor = ({name: median(times[i] for times in builds[name]) for name in builds} for i in range(2))
    with tempfile.TemporaryDirectory() as cache:
        run([sys.executable, "-m", "cuda_ops", "cpu"], cache)
        loads = [float(run([sys.executable, "-c", LOAD], cache)) for _ in range(LOADS)]
    result = {
        "build_s": {name: round(value, 1) for name, value in seconds.items()},
        "build_processor_s": {name: round(value, 1) for name, value in processor.items()},
        "build_bar": 30.0,
        "cuda_architectures": toolchain.cuda_architectures() if "cuda" in devices else None,
        "load_s": round(median(loads), 3),
        "load_bar": 0.3,
    }
    write_results("ops_build", result)


if __name__ == "__main__":
    main()
