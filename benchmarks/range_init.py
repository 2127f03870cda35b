"""Time and memory of range initialization of ResNet-50 on 256 images, against the forward passes alone.

    python -m benchmarks.range_init --threads 1

Every type runs in a process of its own, and its result is written at once: first the plain passes, then the
initialization, which is one such pass with statistics; the memory is what the peak of the second is above the first's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torchvision.models import get_model

from benchmarks.machine import read_results, write_results
from lightning_nncf import compress
from lightning_nncf.core.compression import calibration_from

TYPES = ("min_max", "mixed_min_max", "percentile", "mean_percentile", "threesigma")


def measure(kind: str, name: str, images: int, batch_size: int, size: int, threads: int) -> dict[str, float]:
    """Time one type and see how much memory it takes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    batches = [torch.randn(batch_size, 3, size, size) for _ in range(images // batch_size)]
    initializer = {"range": {"type": kind, "num_init_samples": images}}
    section = {"algorithm": "quantization", "initializer": initializer}
    compressed = compress(network, {"compression": section}, example_inputs=batches[0][:1])
    data = calibration_from(network, batches)
    with torch.no_grad():
        data.forward(batches[0])
        started, processor = time.perf_counter(), time.process_time()
        for batch in batches:
            data.forward(batch)
    plain, plain_processor = time.perf_counter() - started, time.process_time() - processor
    plain_peak = _peak_mb()
    started, processor = time.perf_counter(), time.process_time()
    compressed.initialize_ranges(data)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return {
        "plain_s": plain,
        "s": seconds,
        "ratio": seconds / plain,
        "processor_ratio": processor / plain_processor,
        "plain_peak_mb": plain_peak,
        "mb_above": _peak_mb() - plain_peak,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Measure every type in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=TYPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = {
        "name": arguments.network,
        "images": arguments.images,
        "batch_size": arguments.batch,
        "size": arguments.size,
        "threads": arguments.threads,
    }
    if arguments.child:
        sys.stdout.write(json.dumps(measure(arguments.child, **settings)))
        return
    command = [sys.executable, "-m", "benchmarks.range_init", *sys.argv[1:], "--child"]
    torch.set_num_threads(arguments.threads)
    found: dict[str, Any] = read_results("range_init") or {}
    for kind in arguments.types:
        output = subprocess.run([*command, kind], check=True, stdout=subprocess.PIPE, text=True).stdout
        found[kind] = {"settings": settings, **json.loads(output.splitlines()[-1])}
        write_results("range_init", found)


if __name__ == "__main__":
    main()
