"""What quantization-aware training costs: a whole INT8 training step over the plain float step, on the CPU.

    python benchmarks/step.py [--steps 15] [--only resnet18] [--threads 2] [--processes 5] [--label xeon]

Every quantizer of the default configuration with trainable ranges, SGD with momentum. The two steps alternate in one
process, so that load and warmth hit both; what counts is the ratio of the medians of wall time. A third step alternates
with them, whose quantizers only copy and hand gradients on: the least that quantizers cost which are operations of
their own, and not one with the batch norms before them. All keep the memory that a step frees, as `NNCFCallback` lets
them. Where a process has its memory changes the time of its convolutions by a tenth, so that every case is timed in
several processes, and the median of their ratios counts. Memory is the most that a process held of its own, measured in
three further processes for each kind, the median; the plain ones leave freed memory to the C library, as without the
callback. Writes ``benchmarks/results/step_<threads>_<label>.json``, where a case replaces its earlier result; every
machine has a label of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import lightning_nncf
from benchmarks.machine import labelled, read_results, write_results
from lightning_nncf import heap, ops
from lightning_nncf.algorithms.quantization.quantizers import SymmetricQuantizer
from lightning_nncf.ops.rectified import pays

CASES: dict[str, tuple[str, int, int, float]] = {
    "resnet18 64x64 batch 16": ("resnet18", 64, 16, 1.20),
    "resnet50 64x64 batch 8": ("resnet50", 64, 8, 1.15),
    "resnet50 128x128 batch 16": ("resnet50", 128, 16, 1.15),
    "mobilenet_v2 96x96 batch 8": ("mobilenet_v2", 96, 8, 1.20),
}
MEMORY_BAR = 1.3


def networks(case: str) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return the plain and the quantized network, and a batch."""
    name, size, batch, _ = CASES[case]
    torch.manual_seed(0)
    plain: nn.Module = getattr(torchvision.models, name)()
    images, labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    quantized = copy.deepcopy(plain)
    config = {"compression": {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": batch}}}}
    lightning_nncf.compress(quantized, config, [images])
    return plain.train(), quantized.train(), images, labels


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return one step of training, ready to be called."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, top: float | None) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x.clone() if top is None else x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        _, scale = ctx.saved_tensors
        return grads[0], torch.zeros_like(scale), None


class Copying(SymmetricQuantizer):
    """Does nothing that a quantizer does, in as many calls and passes over memory."""

    def quantize(self, x: Tensor) -> Tensor:
        result: Tensor = _Copy.apply(x, self.scale, None)
        return result

    def normalized(self, norm: nn.Module, x: Tensor, top: float | None) -> Tensor | None:
        return None

    def rectified(self, x: Tensor, top: float) -> Tensor | None:
        result: Tensor = _Copy.apply(x, self.scale, top)
        return result if pays(x) else None


def timed(step: Callable[[], None]) -> tuple[float, float]:
    """Return the wall time and the CPU time of a step in milliseconds."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)


def timed_in_turn(case: str, steps: int) -> dict[str, Any]:
    """Time the steps in turn, in this process."""
    plain, quantized, images, labels = networks(case)
    copying = copy.deepcopy(quantized)
    for module in copying.modules():
        if isinstance(module, SymmetricQuantizer):
            module.__class__ = Copying
    contestants = [training_step(network, images, labels) for network in (plain, quantized, copying)]
    for step in contestants * 3:
        step()
    times: list[list[tuple[float, float]]] = [[], [], []]
    for _ in range(steps):
        for step, taken in zip(contestants, times, strict=True):
            taken.append(timed(step))
    (plain_ms, plain_cpu), (int8_ms, int8_cpu), (copying_ms, _) = (
        [round(statistics.median(values), 2) for values in zip(*taken, strict=True)] for taken in times
    )
    least = [min(wall for wall, _ in taken) for taken in times]
    return {
        "plain_ms": plain_ms,
        "int8_ms": int8_ms,
        "ratio": round(int8_ms / plain_ms, 3),
        "ratio_of_processor_time": round(int8_cpu / plain_cpu, 3),
        "ratio_of_least": round(least[1] / least[0], 3),
        "ratio_of_copies": round(copying_ms / plain_ms, 3),
        "quantizers": sum(name.endswith(("scale", "input_low")) for name, _ in quantized.named_parameters()),
    }


def output_of(*arguments: str) -> str:
    """Run this file in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def measure(case: str, steps: int, threads: int, processes: int) -> dict[str, Any]:
    """Time the steps in several processes."""
    arguments = ("--time", case, "--steps", str(steps), "--threads", str(threads))
    runs = [json.loads(output_of(*arguments)) for _ in range(processes)]
    medians = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    return medians | {"ratios": sorted(run["ratio"] for run in runs), "bar": CASES[case][3]}


def held(case: str, which: str) -> float:
    """Return the MiB that a few steps hold beyond what the process held before them."""
    plain, quantized, images, labels = networks(case)
    network = plain if which == "plain" else quantized
    del plain, quantized
    step = training_step(network, images, labels)
    if which == "int8":
        heap.keep()
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")  # forget the most that was held until now
    for _ in range(4):
        step()
    return round(_most_resident() - before, 1)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _most_resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status does not say VmHWM")


def memory(case: str) -> dict[str, Any]:
    """Measure memory in processes for each kind of step, whose heaps differ by a tenth."""
    values = {}
    for which in ("plain", "int8"):
        values[which] = statistics.median(float(output_of("--memory", case, which)) for _ in range(3))
    ratio = round(values["int8"] / values["plain"], 3)
    return {"plain_mib": values["plain"], "int8_mib": values["int8"], "memory_ratio": ratio, "memory_bar": MEMORY_BAR}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=5, help="in which a case is timed")
    parser.add_argument("--label", help="of this machine, which results are named after")
    parser.add_argument("--dry", action="store_true", help="write no file")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--time", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        sys.stdout.write(f"{held(*options.memory)}\n")
        return
    if options.time:
        with heap.kept():  # as `NNCFCallback` does while it trains on a CPU
            sys.stdout.write(f"{json.dumps(timed_in_turn(options.time, options.steps))}\n")
        return
    name = labelled(f"step_{options.threads}", options.label)
    results: dict[str, Any] = read_results(name) or {}
    results |= {"threads": options.threads, "operators": ops.describe("cpu")}
    for case in CASES:
        if options.only in case:
            results[case] = measure(case, options.steps, options.threads, options.processes) | memory(case)
            sys.stderr.write(f"{case}: {json.dumps(results[case])}\n")
    if not options.dry:
        write_results(name, results)


if __name__ == "__main__":
    main()
