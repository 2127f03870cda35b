"""Time from a plain ResNet-50 to one with all quantizers in place, against forward passes of the same network.

Run ``python -m benchmarks.setup``; the result goes to ``benchmarks/results/setup.json``.
"""

from __future__ import annotations

import time
from statistics import median

import torch
from torchvision.models import resnet50

from benchmarks.machine import write_results
from lightning_nncf import compress

CONFIG = {"compression": {"algorithm": "quantization"}}
BATCH = 8
ROUNDS = 5


def main() -> None:
    torch.set_num_threads(2)
    x = torch.randn(BATCH, 3, 224, 224)
    forwards, setups = [], []
    for _ in range(ROUNDS):
        network = resnet50().eval()
        with torch.no_grad():
            network(x)
            for _ in range(2):
                start = time.perf_counter()
                network(x)
                forwards.append(time.perf_counter() - start)
        start = time.perf_counter()
        compress(network, CONFIG, example_inputs=x)
        setups.append(time.perf_counter() - start)
    forward, setup = median(forwards), median(setups)
    result = {
        "network": "resnet50",
        "batch": BATCH,
        "forward_s": round(forward, 3),
        "setup_s": round(setup, 3),
        "setup_minus_3_forwards_s": round(setup - 3 * forward, 3),
        "bar": "setup_minus_3_forwards_s under 1.5",
    }
    write_results("setup", result)


if __name__ == "__main__":
    main()
