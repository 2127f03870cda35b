"""What a teacher costs: a training step with one over a plain step and the teacher's forward pass, on the CPU.

    python -m benchmarks.distillation [--steps 15]

The three alternate in one process, so that load and warmth hit all; what counts is the ratio of the medians. Writes
``benchmarks/results/distillation.json``.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import lightning_nncf
from benchmarks.machine import write_results
from lightning_nncf import heap

CASES = {"resnet18 64x64 batch 16": ("resnet18", 64, 16), "mobilenet_v2 96x96 batch 8": ("mobilenet_v2", 96, 8)}
BAR = 1.05


def _step(network: nn.Module, images: Tensor, labels: Tensor, added: Callable[[], Tensor] | None) -> None:
    loss = nn.functional.cross_entropy(network(images), labels)
    (loss if added is None else loss + added()).backward()


def measured(case: str, steps: int) -> dict[str, Any]:
    """Time a plain step, a forward pass of the teacher and a step with the teacher in turn."""
    name, size, batch = CASES[case]
    torch.manual_seed(0)
    plain: nn.Module = getattr(torchvision.models, name)().train()
    teacher, student = copy.deepcopy(plain).eval().requires_grad_(False), copy.deepcopy(plain)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    section = {"algorithm": "knowledge_distillation", "type": "softmax", "temperature": 2.0}
    compressed = lightning_nncf.compress(student, {"compression": section}, example_inputs=images)
    optimizers = [torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9) for network in (plain, student)]
    compressed.attach(optimizers[1:])
    student.train()

    def train(index: int) -> None:
        optimizers[index].zero_grad()
        _step((plain, student)[index], images, labels, (None, compressed.loss)[index])
        optimizers[index].step()

    def teach() -> None:
        with torch.no_grad():
            teacher(images)

    contestants: dict[str, Callable[[], None]] = {
        "plain": lambda: train(0),
        "teacher": teach,
        "distilled": lambda: train(1),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(steps + 3):
        for each, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if turn >= 3:
                times[each].append(1e3 * (time.perf_counter() - start))
    median = {each: statistics.median(values) for each, values in times.items()}
    return {"milliseconds": median, "ratio": median["distilled"] / (median["plain"] + median["teacher"]), "bar": BAR}


def main() -> None:
    """Time all cases and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heap.keep()
    write_results("distillation", {case: measured(case, arguments.steps) for case in CASES})


if __name__ == "__main__":
    main()
