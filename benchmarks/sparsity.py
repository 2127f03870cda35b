"""Time of a mask update of ResNet-50 and of training steps with masks, against plain ones.

python -m benchmarks.sparsity
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import get_model

from benchmarks.machine import write_results
from lightning_nncf import compress
from lightning_nncf.core.compressed import CompressedNetwork

LEVEL = 0.7
SECTIONS: dict[str, dict[str, Any]] = {
    "magnitude": {"algorithm": "magnitude_sparsity", "params": {"sparsity_target": LEVEL, "sparsity_target_epoch": 0}},
    "n_m": {"algorithm": "n_m_sparsity"},
    "rb": {"algorithm": "rb_sparsity", "params": {"sparsity_target": LEVEL, "sparsity_target_epoch": 0}},
}


def network(batch: torch.Tensor, section: dict[str, Any] | None) -> tuple[nn.Module, CompressedNetwork | None]:
    """Make a ResNet-50, with masks if a section asks for them."""
    torch.manual_seed(0)
    made = get_model("resnet50", num_classes=10)
    if section is None:
        return made, None
    compressed = compress(made, {"compression": section}, [batch])
    compressed.epoch_step()
    return made, compressed


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Time one call, by the clock and by the processor, which other programs disturb less."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def stepper(made: nn.Module, compressed: CompressedNetwork | None, batch: torch.Tensor) -> Callable[[], None]:
    """Return a training step with SGD, as the callback makes it."""
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3, momentum=0.9)
    target = torch.zeros(len(batch), dtype=torch.long)
    made.train()

    def step() -> None:
        if compressed is not None:
            compressed.step()
        optimizer.zero_grad()
        loss = functional.cross_entropy(made(batch), target)
        own = None if compressed is None else compressed.present_loss()
        (loss if own is None else loss + own).backward()
        if compressed is not None:
            compressed.before_optimizer_step()
        optimizer.step()

    return step


def updates(compressed: CompressedNetwork, rounds: int) -> dict[str, float]:
    """Time the update of all masks to the level of the schedule."""
    algorithm = compressed.algorithms[0]
    times = [seconds(lambda: algorithm._follow(algorithm.level))[0] for _ in range(rounds)]
    return {
        "weights": sum(module.mask.numel() for module in algorithm.masks),
        "seconds": statistics.median(times),
        "slowest": max(times),
        "sparsity": algorithm.sparsity(),
    }


def main() -> None:
    """Measure and write ``sparsity_step.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    made = {name: network(batch[:1], section) for name, section in {"plain": None, **SECTIONS}.items()}
    update = {
        name: updates(one, arguments.rounds) for name, (_, one) in made.items() if name in ("magnitude", "n_m") and one
    }
    steps = {name: stepper(*pair, batch) for name, pair in made.items()}
    for step in steps.values():
        step()
    # Alternating, so that whatever else the machine does hits all alike.
    times = [{name: seconds(step) for name, step in steps.items()} for _ in range(arguments.rounds)]
    step = {
        name: {
            "seconds": statistics.median(each[name][0] for each in times),
            "ratio": statistics.median(each[name][0] / each["plain"][0] for each in times),
            "processor_seconds": statistics.median(each[name][1] for each in times),
            "processor_ratio": statistics.median(each[name][1] / each["plain"][1] for each in times),
        }
        for name in steps
    }
    write_results("sparsity_step", {"settings": vars(arguments), "mask_update": update, "training_step": step})


if __name__ == "__main__":
    main()
