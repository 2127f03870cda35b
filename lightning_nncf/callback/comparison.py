"""The same test of a module in PyTorch float, PyTorch compressed and each runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import MINIMAL
from rich.table import Table
from torch import nn

from lightning_nncf.callback.report import render
from lightning_nncf.callback.steps import defines
from lightning_nncf.export import Proof, runtime_models

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
        self._metrics: dict[str, Mapping[str, float]] = {}
        self._proof: Proof | None = None

    def measure_plain(self) -> None:
        """Run the test with the float network."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*runs the plain network.*")
            self._measure("PyTorch float")

    def measure_compressed(self, network: nn.Module, proof: Proof | None) -> None:
        """Run the test with the compressed network, in PyTorch and with the exported file in every runtime.

        Args:
            network: The compressed network inside the module.
            proof: What the export wrote; nothing if there was none.
        """
        self._measure("PyTorch INT8")
        self._proof = proof
        if proof is None:
            return
        for name, model in runtime_models(Path(proof.export.path)).items():
            with replaced_forward(network, model):
                self._measure(f"{name} INT8")

    def table(self) -> str:
        """Return all results as tables: metrics by network, then sizes, latencies and int8 convolutions."""
        names = list(dict.fromkeys(metric for metrics in self._metrics.values() for metric in metrics))
        table = Table(title="Results", box=MINIMAL, title_justify="left")
        table.add_column("network")
        for name in names:
            table.add_column(name, justify="right")
        for row, metrics in self._metrics.items():
            table.add_row(row, *(f"{metrics[name]:.4f}" if name in metrics else "" for name in names))
        lines = [line.rstrip() for line in render(table).splitlines()]
        if self._proof is not None and self._proof.verification is not None:
            lines.append(self._proof.verification.table())
        return "\n".join(lines)

    def _measure(self, name: str) -> None:
        test = defines(self._module, "test_step") and (
            self._datamodule is None or defines(self._datamodule, "test_dataloader")
        )
        run = self._trainer.test if test else self._trainer.validate
        results = run(self._module, datamodule=self._datamodule, verbose=False)
        self._metrics[name] = {key: value for result in results for key, value in result.items()}
