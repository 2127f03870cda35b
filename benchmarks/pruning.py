"""What filter pruning gives: FLOPs of NNCF's zoo, latency, steps and epochs of a shrunk network.

python -m benchmarks.pruning zoo|latency|latency_target|step|epochs|grouping
"""

from __future__ import annotations

import argparse
import copy
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model

from benchmarks.machine import write_results
from example_modules.classification import ImageClassifier
from lightning_nncf import NNCFCallback, compress
from lightning_nncf.algorithms.pruning.latency import latency as measure
from lightning_nncf.capture.trace import trace
from lightning_nncf.dependencies.groups import make_structure
from lightning_nncf.dependencies.propagation import propagate

PUBLISHED = {
    "resnet18": (75.75, 79.02),
    "resnet34": (69.03, 71.03),
    "resnet50": (56.00, 62.98),
    "googlenet": (45.48, 52.50),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False, "transform_input": True}
}


def zoo() -> dict[str, Any]:
    """Prune 40 % with NNCF's defaults and no training."""
    found: dict[str, Any] = {}
    for name, published in PUBLISHED.items():
        network = get_model(name, **ARGUMENTS.get(name, {}))
        params = {"pruning_target": 0.4, "schedule": "baseline"}
        section = {"algorithm": "filter_pruning", "params": params}
        compressed = compress(network, {"compression": section}, example_inputs=torch.rand(2, 3, 224, 224))
        compressed.epoch_step()
        left = compressed.statistics()
        got = (round(100 * left["flops_ratio"], 2), round(100 * left["parameter_ratio"], 2))
        found[name] = {"flops_and_parameters_left": got, "published": published}
    return found


def latency(name: str = "resnet50", size: int = 224, rounds: int = 30) -> dict[str, Any]:
    """Remove half of the FLOPs and time both networks in ONNX Runtime, one call each in turn."""
    torch.manual_seed(0)
    network = get_model(name).eval()
    params = {"pruning_flops_target": 0.5, "schedule": "baseline", "grouping": "full"}
    batch = torch.rand(1, 3, size, size)
    plain = copy.deepcopy(network)
    section = {"algorithm": "filter_pruning", "params": params}
    compressed = compress(network, {"compression": section}, example_inputs=batch)
    compressed.epoch_step()
    files = [_onnx(each, batch) for each in (plain, compressed.exportable())]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files]
    times = [[_seconds(session, batch) for session in sessions] for _ in range(rounds)][3:]
    return {
        "flops_left": compressed.statistics()["flops_ratio"],
        "parameters_left": compressed.statistics()["parameter_ratio"],
        "size_ratio": len(files[1]) / len(files[0]),
        "best_ms": [1e3 * min(column) for column in zip(*times, strict=True)],
        "speedup_of_bests": min(a for a, _ in times) / min(b for _, b in times),
        "median_speedup": statistics.median(a / b for a, b in times),
    }


def latency_target(name: str = "resnet18", size: int = 224, target: float = 0.4, rounds: int = 5) -> dict[str, Any]:
    """Ask for a share of the latency to go, and time the network before and after, in turn."""
    torch.manual_seed(0)
    network, batch = get_model(name).eval(), torch.rand(1, 3, size, size)
    plain = copy.deepcopy(network)
    params = {"pruning_latency_target": target, "schedule": "baseline", "grouping": "full"}
    section = {"algorithm": "filter_pruning", "params": params}
    compressed = compress(network, {"compression": section}, [batch], example_inputs=batch)
    compressed.epoch_step()
    pair, inputs = (plain, compressed.exportable()), ((batch,), {})
    times = [[measure(each, inputs) for each in pair] for _ in range(rounds)]
    return {
        "target": target,
        "flops_left": compressed.statistics()["flops_ratio"],
        "latency_left": statistics.median(b / a for a, b in times),
        "ms": [1e3 * statistics.median(column) for column in zip(*times, strict=True)],
    }


def step(name: str = "resnet18", size: int = 96, batch: int = 8, rounds: int = 10) -> dict[str, Any]:
    """Time training steps of a network with half of its FLOPs masked, and of the same one shrunk, in turn."""
    steps, flops = [], 1.0
    x, labels = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)
    for shrink_at in (None, 0):
        torch.manual_seed(0)
        network = get_model(name)
        params = {"pruning_flops_target": 0.5, "schedule": "baseline", "grouping": "full", "shrink_at": shrink_at}
        section = {"algorithm": "filter_pruning", "params": params}
        compressed = compress(network, {"compression": section}, example_inputs=x[:2])
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        compressed.attach([optimizer])
        compressed.epoch_step()
        flops = compressed.statistics()["flops_ratio"]
        steps.append(_step(network.train(), optimizer, x, labels))
    times = [[_timed(run) for run in steps] for _ in range(rounds)][2:]
    return {
        "flops_left": flops,
        "best_ms_masked_and_shrunk": [1e3 * min(column) for column in zip(*times, strict=True)],
        "ratio_of_bests": min(b for _, b in times) / min(a for a, _ in times),
        "median_ratio": statistics.median(b / a for a, b in times),
    }


def epochs(name: str = "resnet18", size: int = 96, batches: int = 8, each: int = 3) -> dict[str, Any]:
    """Time epochs of one `fit` before and after half of the FLOPs are removed in it."""

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seconds.append(-time.perf_counter())

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seconds[-1] += time.perf_counter()

    images, labels = torch.rand(8 * batches, 3, size, size), torch.zeros(8 * batches, dtype=torch.long)
    params = {"pruning_flops_target": 0.5, "schedule": "baseline", "grouping": "full", "shrink_at": each}
    config = {"compression": {"algorithm": "filter_pruning", "params": params}}
    callback, clock = NNCFCallback(config, export_path=None), Clock()
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2 * each,
        accelerator="cpu",
        callbacks=[callback, clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ImageClassifier(f"torchvision:{name}"), DataLoader(TensorDataset(images, labels), batch_size=8))
    assert callback.compressed is not None
    best = [min(half) for half in (clock.seconds[:each], clock.seconds[each:])]
    return {
        "flops_left": callback.compressed.statistics()["flops_ratio"],
        "seconds": clock.seconds,
        "ratio_of_bests": best[1] / best[0],
    }


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor) -> Any:
    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()

    return run


def _timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def grouping(layers: int = 1000) -> dict[str, Any]:
    """Group a residual network of many layers, captured before."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks = [nn.Sequential(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()) for _ in range(layers)]
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for index, block in enumerate(self.blocks):
                x = x + block(x) if index % 2 else block(x)
            return x.mean((2, 3))

    network = Deep()
    graph = trace(network, lambda: network(torch.rand(2, 64, 2, 2)))
    started, cpu = time.perf_counter(), time.process_time()
    structure = make_structure(propagate(graph, network))
    cpu = time.process_time() - cpu
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": cpu,
        "groups": len(structure.groups),
        "ops": len(graph),
    }


def _onnx(network: nn.Module, batch: torch.Tensor) -> bytes:
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (batch,), file, dynamo=False)
    content: bytes = file.getvalue()
    return content


def _seconds(session: Any, batch: torch.Tensor) -> float:
    started = time.perf_counter()
    session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    return time.perf_counter() - started


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "zoo": zoo,
    "latency": latency,
    "grouping": grouping,
    "latency_target": latency_target,
    "step": step,
    "epochs": epochs,
}


def main() -> None:
    """Run one part and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    write_results(f"pruning_{arguments.part}", PARTS[arguments.part]())


if __name__ == "__main__":
    main()
