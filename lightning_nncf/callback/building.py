"""Compression of a module's network with what a Trainer has: captured by a run, initialized from the train loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from lightning_nncf.calibration import CalibrationData
from lightning_nncf.callback.batches.loaders import calibration_data
from lightning_nncf.callback.batches.sources import FitData
from lightning_nncf.callback.capture import capture_run, require_call
from lightning_nncf.callback.evaluation import ValidationScore
from lightning_nncf.callback.network_copies import warn_of_copies
from lightning_nncf.callback.running.snapshot import kept
from lightning_nncf.callback.running.steps import StepRunner
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.copies import copies_of, held_averages
from lightning_nncf.core.network import find_network

__all__ = ["build_compressed", "initialization_data"]


def build_compressed(
    trainer: Any,
    module: Any,
    path: str | None,
    config: NNCFConfig,
    data: FitData,
    *,
    exported: bool,
    others: Iterable[str | None],
) -> tuple[str, CompressedNetwork]:
    """Capture a network and insert the algorithms of a configuration; the module stays as it was otherwise.

    Args:
        trainer: The Trainer, about to fit.
        module: The LightningModule.
        path: Path of the network in the module; see `find_network`.
        config: The configuration.
        data: What the loops read.
        exported: Whether the network is to be exported, which needs calls of the network itself.
        others: Paths of networks that other callbacks compress.

    Returns:
        The path and the network.
    """
    found, network = find_network(module, path)
    with isolate_rng():
        run = capture_run(trainer, module, network, config, data.training)
        with kept(module):
            graph = trace(network, run)
    if exported:
        require_call(module, network, graph)
    known = [found, *others]
    copies, averages = copies_of(module, found, known), held_averages(module, found, known)
    compressed = CompressedNetwork.build(network, config, graph)
    compressed.place(module, found, averages)
    renewed = tuple(f"{name}." for name in averages)
    warn_of_copies(module, found, compressed, [name for name in copies if not name.startswith(renewed)])
    return found, compressed


def initialization_data(trainer: Any, module: Any, network: nn.Module, data: FitData) -> CalibrationData:
    """Return what a network is initialized with: batches of the train loader, the steps and scores of its module."""
    runner = StepRunner(trainer, module, network, data.training.total)
    score = ValidationScore(trainer, module, data.validation)
    return calibration_data(trainer, runner, data.training, evaluate=score)
