"""Time of a mask update of ResNet-50 and of training steps with masks, against plain ones.

python benchmarks/sparsity.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import get_model

from lightning_nncf import compress


def sparse(name: str, section: dict[str, Any], batch: torch.Tensor) -> tuple[nn.Module, Any]:
    """Make a network with masks."""
    torch.manual_seed(0)
    network = get_model(name, num_classes=10)
    compressed = compress(network, {"compression": section}, [batch])
    compressed.epoch_step()
    return network, compressed


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def stepper(network: nn.Module, batch: torch.Tensor, before: Callable[[], object]) -> Callable[[], None]:
    """Return a training step with SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.zeros(len(batch), dtype=torch.long)
    network.train()

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(batch), target).backward()
        before()
        optimizer.step()

    return step


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    params = {"sparsity_target": 0.7, "sparsity_target_epoch": 0}
    network, compressed = sparse("resnet50", {"algorithm": "magnitude_sparsity", "params": params}, batch[:1])
    algorithm = compressed.algorithms[0]
    weights = sum(module.mask.numel() for module in algorithm.masks)
    start = time.process_time()
    updates = [seconds(lambda: algorithm._apply(0.7)) for _ in range(arguments.rounds)]
    processor = (time.process_time() - start) / arguments.rounds
    sys.stdout.write(
        f"mask update of {weights / 1e6:.1f} M weights: median {statistics.median(updates):.3f} s, "
        f"best {min(updates):.3f} s, processor {processor:.3f} s, sparsity {algorithm.sparsity():.6f}\n"
    )
    torch.manual_seed(0)
    plain = stepper(get_model("resnet50", num_classes=10), batch, lambda: None)
    masked = stepper(network, batch, compressed.before_optimizer_step)
    plain()
    masked()
    # Alternating, so that whatever else the machine does hits both alike.
    times = [(seconds(plain), seconds(masked)) for _ in range(arguments.rounds)]
    ratio = statistics.median(b / a for a, b in times)
    best, best_masked = min(a for a, _ in times), min(b for _, b in times)
    sys.stdout.write(
        f"training step: plain best {best:.3f} s, with masks best {best_masked:.3f} s, median ratio {ratio:.3f}, "
        f"ratio of bests {best_masked / best:.3f}\n"
    )


if __name__ == "__main__":
    main()
