"""Running a LightningModule's network outside the training loop: by itself where possible, else by its steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_nncf.callback.running.network_calls import CallWatch, NetworkCall
from lightning_nncf.callback.running.snapshot import kept
from lightning_nncf.callback.running.stand_ins import StandIns, counted_batches, early_optimizers
from lightning_nncf.callback.wrappers import AddLoss
from lightning_nncf.errors import CaptureError, InitializationError

__all__ = ["StepRunner", "defines", "step_arguments"]


class StepRunner:
    """Runs the network on training batches as the training step does, and leaves nothing else behind.

    The first batch goes through the step, which shows how it calls the network. If it calls it once, with parts of the
    batch, the network alone runs from then on. Else the step runs every time: loggers and optimizers are stand-ins, and
    what it changed in the module is put back. Where the training step fails or does not call the network, the
    validation step or the test step is taken.

    Args:
        trainer: The Trainer.
        module: The LightningModule.
        network: The network inside it, whose mode is left as it is.
        batches: Tells how many batches an epoch has, for optimizers that are needed before they exist.

    Raises:
        CaptureError: The module has no step that can run.
    """

    def __init__(self, trainer: Any, module: Any, network: nn.Module, batches: Callable[[], float]) -> None:
        self.module = module
        self._trainer = trainer
        self._network = network
        self._batches = batches
        self._call: NetworkCall | None = None
        self._step: str | None = None

    def __call__(self, batch: Any) -> object:
        """Run the network on a batch that is on the right device.

        Returns:
            What the network or the step returned.

        Raises:
            CaptureError: No step can run.
        """
        if self._call is not None:
            try:
                args, kwargs = self._call.arguments(batch)
            except LookupError:
                pass  # this batch is built differently
            else:
                with self._trainer.precision_plugin.forward_context():
                    return self._network(*args, **kwargs)
        if self._step is not None and self._call is None:
            return self._run(self._step, batch)
        return self._find(batch)

    def loss(self, batch: Any) -> object:
        """Return what the training step makes of a batch; with manual optimization, the loss it goes back from.

        Raises:
            InitializationError: The module has no training step.
        """
        if not defines(self.module, "training_step"):
            raise InitializationError(f"{type(self.module).__name__} has no `training_step`, so there is no loss")
        losses: list[Tensor] = []
        result = self._run("training_step", batch, losses)
        if losses and not self.module.automatic_optimization:
            return torch.stack([loss.reshape(()) for loss in losses]).sum()
        return result

    def evaluate(self, batch: Any) -> object:
        """Run the validation step, whatever it calls.

        Raises:
            CaptureError: There is none.
        """
        if not defines(self.module, "validation_step"):
            raise CaptureError(f"{type(self.module).__name__} has no `validation_step`")
        return self._run("validation_step", batch)

    @property
    def alone(self) -> bool:
        """Whether the network runs by itself now."""
        return self._call is not None

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """Put back what running does to the module, and leave to the algorithms what is the network's."""
        own = tuple(self._network.modules())
        with kept(self.module, self._trainer.datamodule, untouched=own):
            yield

    def _find(self, batch: Any) -> object:
        """Run the first step that reaches the network, and remember how."""
        failures: list[tuple[str, BaseException | None]] = []
        for name in ("training_step", "validation_step", "test_step"):
            if not defines(self.module, name):
                continue
            watch = CallWatch(self.module, self._network, batch)
            result, failure = self._watched(name, batch, watch)
            if failure is not None and watch.call is None and name == "training_step" and self._lacks_optimizers:
                watch = CallWatch(self.module, self._network, batch)
                try:
                    with early_optimizers(self._trainer, self.module, self._batches()):
                        result, failure = self._watched(name, batch, watch)
                except Exception as error:
                    failure = error
            if watch.call is not None:
                # what the step does after its call may fail outside of training
                self._call, self._step = watch.call, name
                return result
            if failure is None and watch.reached:
                self._step = name
                return result
            failures.append((name, failure))
        raise self._failed(failures)

    @property
    def _lacks_optimizers(self) -> bool:
        return not self._trainer.strategy.optimizers

    def _watched(self, name: str, batch: Any, watch: CallWatch) -> tuple[object, Exception | None]:
        try:
            with watch.watching():
                return self._run(name, batch), None
        except Exception as error:
            return None, error

    def _run(self, name: str, batch: Any, losses: list[Tensor] | None = None) -> object:
        """Run a step with stand-ins, and put back what it changed."""
        step = getattr(self.module, name)
        while isinstance(step, AddLoss):
            step = step.method
        # these statistics are what batch-norm adaptation collects
        norms = [part for part in self._network.modules() if isinstance(part, _BatchNorm)]
        statistics = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        with ExitStack() as stack:
            stack.enter_context(kept(self.module, self._trainer.datamodule, ignored=statistics))
            stack.enter_context(counted_batches(self._trainer, self._batches()))
            if not self.module.automatic_optimization and self._lacks_optimizers:
                stack.enter_context(early_optimizers(self._trainer, self.module, self._batches()))
            stand_ins = stack.enter_context(StandIns(self._trainer, self.module))
            stack.enter_context(self._trainer.precision_plugin.forward_context())
            result: object = step(*step_arguments(step, batch))
            if losses is not None:
                losses += stand_ins.losses
        return result

    def _failed(self, failures: list[tuple[str, BaseException | None]]) -> Exception:
        name = type(self.module).__name__
        if not failures:
            return CaptureError(f"{name} has no `training_step`, `validation_step` or `test_step` that could run")
        reasons = "; ".join(
            f"`{step}` " + ("never calls the network" if error is None else f"raises {type(error).__name__}: {error}")
            for step, error in failures
        )
        result = CaptureError(
            f"the network of {name} cannot be run on a training batch: {reasons}. Set `example_input_array`, give "
            "`input_info` in the configuration, or name the network that the step calls with `network=...`"
        )
        result.__cause__ = next((error for _, error in failures if error is not None), None)
        return result


def step_arguments(step: Callable[..., Any], batch: Any, batch_idx: int = 0, dataloader_idx: int | None = None) -> Any:
    """Return the arguments that Lightning gives to a step, as positional ones.

    Args:
        step: The step, of any signature that Lightning supports.
        batch: The batch.
        batch_idx: Its index.
        dataloader_idx: The index of its loader where there are several.
    """
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        return (iter([(batch, batch_idx, dataloader_idx or 0)]),)
    arguments = [batch]
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        arguments.append(batch_idx)
    parameter = inspect.signature(step).parameters.get("dataloader_idx")
    required = parameter is not None and parameter.default is parameter.empty
    if dataloader_idx is not None or required:
        arguments.append(dataloader_idx or 0)
    return tuple(arguments)


def defines(module: Any, name: str) -> bool:
    """Whether a LightningModule has a step of its own, and not only Lightning's empty one.

    Lightning's own test for this knows only modules of one of its two packages.
    """
    method = getattr(type(module), name, None)
    return method is not None and not method.__module__.startswith(("pytorch_lightning.", "lightning.pytorch."))
