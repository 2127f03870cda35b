"""What hooks cost: a whole training step with identity modules inserted over the plain step.

    python -m benchmarks.hooks

Plain and hooked steps alternate in one process, so that load and warmth hit both. Prints medians and writes
``benchmarks/results/hooks.json``. The identity returns its input: what is measured is the mechanism alone. Besides wall
time the CPU time of the thread is taken, which other work on the machine disturbs less.
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
from torch import nn

from benchmarks.machine import write_results
from lightning_nncf.capture.trace import trace
from lightning_nncf.capture.values import tensors_in
from lightning_nncf.graph.graph import INPUT, OUTPUT, InsertionPoint, NetworkGraph, OpNode
from lightning_nncf.hooks.insertion import insert, inserted, sites

BARS = {"hooks": 1.05, "hooks_functions": 1.08}
_WEIGHTED = {"conv2d", "linear", "embedding"}
_ACTIVATIONS = {"relu", "gelu", "tanh", "batch_norm", "layer_norm", "linear", "conv2d", "embedding"}
_FUNCTIONS = {"add", "add_", "matmul", "flatten", "scaled_dot_product_attention", "mul", "softmax"}


class Identity(nn.Module):
    """Returns its input."""

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return tensor


def hook(network: nn.Module, graph: NetworkGraph, wanted: Callable[[OpNode, str], bool]) -> dict[str, int]:
    """Insert identities at all weights and at the outputs that are wanted; count the sites by kind."""
    done: set[str] = set()
    for op in graph.ops():
        points = []
        if op.function in _WEIGHTED:
            points += [
                InsertionPoint(kind="weight", address=op.address, port=port)
                for port, name in op.parameters.items()
                if name.endswith("weight")
            ]
        if op.function not in (INPUT, OUTPUT) and op.outputs and op.outputs[0].is_floating_point:
            points.append(InsertionPoint(kind="output", address=op.address))
        for point in points:
            for site in sites(graph, network, point):
                if site.key not in done and (site.kind == "weight" or wanted(op, site.kind)):
                    done.add(site.key)
                    insert(network, site, Identity(), algorithm="identity", priority=1)
    counts: dict[str, int] = {}
    for site, _, _ in inserted(network):
        counts[site.kind] = counts.get(site.kind, 0) + 1
    return counts


def at_modules(op: OpNode, kind: str) -> bool:
    return kind == "module_output" and op.function in _ACTIVATIONS


def also_functions(op: OpNode, kind: str) -> bool:
    return at_modules(op, kind) or op.function in _FUNCTIONS


def resnet18() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    x = torch.rand(16, 3, 64, 64)
    return torchvision.models.resnet18(), lambda network: network(x).square().mean()


def bert() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    from transformers import BertConfig, BertForSequenceClassification

    settings = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    ids = torch.randint(0, 1000, (4, 64))
    return BertForSequenceClassification(settings), lambda network: network(input_ids=ids).logits.square().mean()


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run the steps in turn, in an order that rotates; return wall and CPU seconds of each."""
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in steps}
    names = list(steps)
    for number in range(rounds + 3):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            wall, cpu = time.perf_counter(), time.thread_time()
            steps[name]()
            if number >= 3:
                times[name]["wall"].append(time.perf_counter() - wall)
                times[name]["cpu"].append(time.thread_time() - cpu)
    return times


def training_step(network: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> Callable[[], None]:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

    def step() -> None:
        loss(network).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def benchmark_model(name: str, make: Callable[[], Any], rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    network, loss = make()
    graph = trace(network, lambda: loss(network))
    variants = {"plain": network, "hooks": copy.deepcopy(network), "hooks_functions": copy.deepcopy(network)}
    counts = {
        "plain": {},
        "hooks": hook(variants["hooks"], graph, at_modules),
        "hooks_functions": hook(variants["hooks_functions"], graph, also_functions),
    }
    times = measure({variant: training_step(module, loss) for variant, module in variants.items()}, rounds)
    rows = []
    for variant, samples in times.items():
        row: dict[str, Any] = {"model": name, "variant": variant, "sites": counts[variant], "bar": BARS.get(variant)}
        for clock, values in samples.items():
            plain = times["plain"][clock]
            pairs = [one / other for one, other in zip(values, plain, strict=True)]
            row[f"{clock}_median_s"] = statistics.median(values)
            row[f"{clock}_ratio_of_medians"] = statistics.median(values) / statistics.median(plain)
            row[f"{clock}_median_of_ratios"] = statistics.median(pairs)
            row[f"{clock}_ratio_of_minima"] = min(values) / min(plain)
        rows.append(row)
    return rows


def benchmark_trace(rounds: int) -> dict[str, Any]:
    """Measure tracing ResNet-50 in forward passes of each mode."""
    network = torchvision.models.resnet50()
    x = torch.rand(8, 3, 224, 224)
    times: dict[str, list[float]] = {"train": [], "eval": [], "trace": []}
    with torch.no_grad():
        for number in range(rounds + 1):
            for mode in ("train", "eval"):
                network.train(mode == "train")
                start = time.perf_counter()
                list(tensors_in(network(x)))
                times[mode].append(time.perf_counter() - start)
            start = time.perf_counter()
            trace(network, lambda: network(x))
            times["trace"].append(time.perf_counter() - start)
            if number == 0:
                for values in times.values():
                    values.clear()
    medians = {mode: statistics.median(values) for mode, values in times.items()}
    both = [one + other for one, other in zip(times["train"], times["eval"], strict=True)]
    return {
        **{f"{mode}_s": value for mode, value in medians.items()},
        "over_two_forwards_s": statistics.median(
            [trace_s - forward for trace_s, forward in zip(times["trace"], both, strict=True)]
        ),
        "bar": "setup as a whole: 3 forwards + 1.5 s",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = benchmark_model("resnet18 64x64 batch 16", resnet18, options.rounds)
    rows += benchmark_model("bert 4 layers seq 64 batch 4", bert, options.rounds)
    heads = ("wall ms", 9), ("ratio", 6), ("cpu ms", 9), ("ratio", 6), ("min", 6), ("bar", 5)
    print(f"{'model':30} {'variant':16} " + " ".join(f"{head:>{width}}" for head, width in heads) + "  sites")
    for row in rows:
        print(
            f"{row['model']:30} {row['variant']:16} {row['wall_median_s'] * 1e3:9.2f} "
            f"{row['wall_ratio_of_medians']:6.3f} {row['cpu_median_s'] * 1e3:9.2f} {row['cpu_ratio_of_medians']:6.3f} "
            f"{row['cpu_ratio_of_minima']:6.3f} {row['bar'] or '':>5}  {row['sites']}"
        )
    tracing = benchmark_trace(5)
    print("trace of resnet50, batch 8, 224x224:", tracing)
    write_results("hooks", {"rounds": options.rounds, "steps": rows, "trace_resnet50": tracing})


if __name__ == "__main__":
    main()
