"""What runs the network once, so that its graph can be captured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

from lightning_nncf.callback.batches.loaders import TrainBatches
from lightning_nncf.callback.batches.sources import LoopData
from lightning_nncf.callback.running.snapshot import kept
from lightning_nncf.callback.running.stand_ins import muted
from lightning_nncf.callback.running.steps import StepRunner
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.inputs import inputs_from_info
from lightning_nncf.errors import CaptureError, InitializationError
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["capture_run", "require_call"]


def capture_run(
    trainer: Any, module: Any, network: nn.Module, config: NNCFConfig, data: LoopData
) -> Callable[[], object]:
    """Choose what runs the network: described inputs, the module's example input, or the first training batch.

    Args:
        trainer: The Trainer, about to fit.
        module: The LightningModule; it is moved to the training device.
        network: The network inside it.
        config: The configuration, for its ``input_info``.
        data: The training loop's data.

    Raises:
        InitializationError: The train loader yields nothing.
    """
    module.to(trainer.strategy.root_device)
    # The strategy does this to the whole module only when it is set up, which is later.
    trainer.precision_plugin.convert_module(module)
    if config.input_info:
        args, kwargs = inputs_from_info(config.input_info, network)
        return lambda: network(*args, **kwargs)
    if module.example_input_array is not None:
        example = trainer.precision_plugin.convert_input(module.example_input_array)
        example = trainer.strategy.batch_to_device(example, dataloader_idx=0)
        return lambda: _call(module, example)
    data.prepare()
    batches = iter(TrainBatches(trainer, module, data))
    with kept(module, trainer.datamodule):  # the hooks around a batch's transfer may count or collect
        batch = next(batches, None)
        batches.close()  # type: ignore[attr-defined]
    if batch is None:
        raise InitializationError(
            "the train loader yields no batch, so the network can be neither captured nor initialized; "
            "check the data and `limit_train_batches`"
        )
    runner = StepRunner(trainer, module, network, data.total)

    def run() -> object:
        result = runner(batch)
        if not network.training:
            # the validation step may take another way through the network, or not understand a training batch
            with suppress(Exception):
                runner.evaluate(batch)
        return result

    return run


def require_call(module: nn.Module, network: nn.Module, graph: NetworkGraph) -> None:
    """Check that the network was called itself, without which its inputs are unknown and it cannot be exported.

    Args:
        module: The LightningModule.
        network: The network inside it.
        graph: The network's graph.

    Raises:
        CaptureError: Only parts of the network were called.
    """
    if graph.example_inputs is not None:
        return
    prefix = next(path for path, each in module.named_modules() if each is network)
    parts = [
        f"{prefix}.{frame.module}".strip(".")
        for frame in graph.frames.values()
        if frame.caller == "" and any(True for _ in network.get_submodule(frame.module).parameters())
    ]
    names = " or ".join(f"`network={part!r}`" for part in dict.fromkeys(parts))
    raise CaptureError(
        f"{type(network).__name__} is never called itself, only its parts, so there is nothing to export as a whole: "
        f"name the part to compress and export with {names}; or give it a `forward` and set `example_input_array`; "
        "or train without a file with `export_path=None`"
    )


def _call(module: Any, example: Any) -> object:
    """Call a module with its example input, as Lightning does."""
    with muted(module):
        if isinstance(example, tuple):
            return module(*example)
        if isinstance(example, dict):
            return module(**example)
        return module(example)
