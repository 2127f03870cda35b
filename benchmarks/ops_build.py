"""How long the kernels take to build from nothing, and to load once they are there.

Run ``python -m benchmarks.ops_build``; the result goes to ``benchmarks/results/ops_build.json``. Builds what the
machine can build, as ``python -m cuda_ops`` does, into an empty cache; loads in fresh processes. Wall time says what
other work on the machine lets it, processor time over the number of cores the least that it could be.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import write_results
from cuda_ops import toolchain

ROOT = Path(__file__).parent.parent
ROUNDS = 5
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


def main() -> None:
    devices = ["cpu", *(["cuda"] if torch.version.cuda and toolchain.cuda_home() else [])]
    with tempfile.TemporaryDirectory() as cache:
        seconds, processor = {}, {}
        for device in devices:
            start, used = time.perf_counter(), children()
            run([sys.executable, "-m", "cuda_ops", device], cache)
            seconds[device] = round(time.perf_counter() - start, 1)
            processor[device] = round(children() - used, 1)
        loads = [float(run([sys.executable, "-c", LOAD], cache)) for _ in range(ROUNDS)]
    result = {
        "build_s": seconds | {"all": round(sum(seconds.values()), 1)},
        "build_processor_s": processor | {"all": round(sum(processor.values()), 1)},
        "build_bar": 30.0,
        "cuda_architectures": toolchain.cuda_architectures() if "cuda" in devices else None,
        "load_s": round(statistics.median(loads), 3),
        "load_bar": 0.3,
    }
    write_results("ops_build", result)


if __name__ == "__main__":
    main()
