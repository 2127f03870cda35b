"""The same test of a module in PyTorch float, PyTorch compressed and each runtime."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from lightning_nncf.callback.report import render
from lightning_nncf.callback.running.steps import defines
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.inputs import Arguments, limit_batch
from lightning_nncf.export.preparation import cpu_inputs
from lightning_nncf.hooks.insertion import strip
from lightning_nncf.proof import Proof, runtime_models
from lightning_nncf.proof.latency import interleaved_medians
from lightning_nncf.proof.proof import SAMPLES

__all__ = ["Comparison", "replaced_forward"]


@contextmanager
def replaced_forward(network: nn.Module, model: Any) -> Iterator[None]:
    """Let an exported model answer every call of a network."""
    present = vars(network).get("forward")
    vars(network)["forward"] = model
    try:
        yield
    finally:
        if present is None:
            del vars(network)["forward"]
        else:
            vars(network)["forward"] = present


@dataclass(kw_only=True)
class Row:
    """What is known about one way to run the network.

    Args:
        metrics: What the module logged in its test.
        size: Bytes of the file, where there is one.
        latency: Median seconds of one call with the example inputs.
        convolutions: How many convolutions of all run on integers.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    latency: float | None = None
    convolutions: str = ""


class Comparison:
    """Runs a Trainer's test, or validation where there is none, once per way to run the network.

    Args:
        trainer: The Trainer.
        module: The LightningModule.
        datamodule: Its data, or nothing where the module brings its own.
    """

    def __init__(self, trainer: Any, module: Any, datamodule: Any) -> None:
        self._trainer = trainer
        self._module = module
        self._datamodule = datamodule
        self._rows: dict[str, Row] = {}

    def measure_plain(self) -> None:
        """Run the test with the float network."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*runs the plain network.*")
            self._rows["PyTorch float"] = Row(metrics=self._test())

    def measure_compressed(self, compressed: CompressedNetwork, inputs: Arguments | None, proof: Proof | None) -> None:
        """Run the test with the compressed network, in PyTorch and with the exported file in every runtime.

        Args:
            compressed: The compressed network inside the module.
            inputs: Example call ``(args, kwargs)``; default: random inputs.
            proof: What the export wrote; nothing if there was none.
        """
        network = compressed.network
        call = limit_batch(inputs or compressed.example_inputs(), SAMPLES)
        latencies = _torch_latencies(network, call)
        convolutions = sum(type(module).__name__.startswith("Conv") for module in network.modules())
        plain = self._rows.setdefault("PyTorch float", Row())
        plain.latency, plain.convolutions = latencies["float"], f"0/{convolutions}"
        self._rows["PyTorch INT8 (simulated)"] = Row(
            metrics=self._test(), latency=latencies["int8"], convolutions=f"0/{convolutions}"
        )
        if proof is None:
            return
        results = {} if proof.verification is None else {r.runtime: r for r in proof.verification.results}
        for name, model in runtime_models(Path(proof.export.path), proof.verification).items():
            result = results.get(model.package)
            with replaced_forward(network, model):
                metrics = self._test()
            self._rows[f"{name} INT8"] = row = Row(metrics=metrics, size=proof.export.size)
            if result is not None and proof.verification is not None:
                row.latency = result.latency
                layers = result.layers
                row.convolutions = "" if layers is None else f"{layers.convolutions}/{layers.all_convolutions}"
                self._rows[f"{name} float"] = Row(
                    size=proof.verification.reference_size, latency=result.reference_latency
                )

    def table(self, title: str = "Results") -> str:
        """Return all results as one table with a row per way to run the network."""
        names = list(dict.fromkeys(metric for row in self._rows.values() for metric in row.metrics))
        table = Table(title=title, box=SIMPLE, title_justify="left")
        table.add_column("network")
        for name in (*names, "file MB", "latency ms", "int8 convolutions"):
            table.add_column(name, justify="right")
        for name, row in self._rows.items():
            table.add_row(
                name,
                *(f"{row.metrics[metric]:.4f}" if metric in row.metrics else "" for metric in names),
                "" if row.size is None else f"{row.size / 1e6:.2f}",
                "" if row.latency is None else f"{1e3 * row.latency:.2f}",
                row.convolutions,
            )
        return render(table)

    def _test(self) -> dict[str, float]:
        """Run the Trainer's test, or validation where there is none, and return its metrics."""
        test = defines(self._module, "test_step") and (
            self._datamodule is None or defines(self._datamodule, "test_dataloader")
        )
        run = self._trainer.test if test else self._trainer.validate
        results = run(self._module, datamodule=self._datamodule, verbose=False)
        return {key: value for result in results for key, value in result.items()}


def _torch_latencies(network: nn.Module, call: Arguments) -> dict[str, float]:
    """Time the network with and without compression on the CPU, in evaluation mode."""
    compressed = copy.deepcopy(network).cpu().eval()
    plain = copy.deepcopy(compressed)
    strip(plain)
    args, kwargs = cpu_inputs(call)
    with torch.no_grad():
        return interleaved_medians(
            {"float": lambda: plain(*args, **kwargs), "int8": lambda: compressed(*args, **kwargs)}, runs=10
        )
