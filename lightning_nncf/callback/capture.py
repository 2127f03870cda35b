"""What runs the network once, so that its graph can be captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_nncf.callback.loaders import TrainBatches
from lightning_nncf.callback.steps import StepRunner, muted
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.inputs import inputs_from_info
from lightning_nncf.errors import InitializationError

__all__ = ["capture_run"]


def capture_run(trainer: Any, module: Any, network: nn.Module, config: NNCFConfig) -> Callable[[], object]:
    """Choose what runs the network: described inputs, the module's example input, or the first training batch.

    Args:
        trainer: The Trainer, about to fit.
        module: The LightningModule; it is moved to the training device.
        network: The network inside it.
        config: The configuration, for its ``input_info``.

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
    trainer.fit_loop.setup_data()
    batch = next(iter(TrainBatches(trainer, module)), None)
    if batch is None:
        raise InitializationError(
            "the train loader yields no batch, so the network can be neither captured nor initialized; "
            "check the data and `limit_train_batches`"
        )
    runner = StepRunner(module, network)

    def run() -> object:
        with trainer.precision_plugin.forward_context():
            return runner(batch)

    return run


def _call(module: Any, example: Any) -> object:
    """Call a module with its example input, as Lightning does."""
    with muted(module):
        if isinstance(example, tuple):
            return module(*example)
        if isinstance(example, dict):
            return module(**example)
        return module(example)
