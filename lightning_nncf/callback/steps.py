"""Running a LightningModule's own steps outside the training loop, with nothing logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_nncf.callback.wrappers import Instead, unwrap, wrap
from lightning_nncf.errors import CaptureError

__all__ = ["StepRunner", "defines", "muted"]

_LOGGING = ("log", "log_dict", "print")


@contextmanager
def muted(module: Any) -> Iterator[None]:
    """Let ``self.log`` and the like of a LightningModule do nothing."""
    for name in _LOGGING:
        wrap(module, name, Instead, _nothing)
    try:
        yield
    finally:
        for name in _LOGGING:
            unwrap(module, name)


class StepRunner:
    """Runs a module on one batch by the step of its current mode.

    In training mode the training step runs, in evaluation mode the validation step, else the test or training step.
    With manual optimization a training step would change the weights, so the other steps run in both modes.

    Args:
        module: The LightningModule.
        network: The network inside it, whose mode decides.

    Raises:
        CaptureError: The module has no step that can run.
    """

    def __init__(self, module: Any, network: nn.Module) -> None:
        evaluation = [name for name in ("validation_step", "test_step") if defines(module, name)]
        training = ["training_step"] if defines(module, "training_step") and module.automatic_optimization else []
        self._names = {True: [*training, *evaluation], False: [*evaluation, *training]}
        self._module = module
        self._network = network
        if not self._names[True]:
            raise CaptureError(
                f"{type(module).__name__} optimizes manually and has no validation or test step, so its network "
                "cannot be run safely; set `example_input_array`, give `input_info` or add a `validation_step`"
            )

    def __call__(self, batch: Any) -> object:
        """Run one step on a batch that is on the right device."""
        name = self._names[self._network.training][0]
        with muted(self._module):
            result: object = getattr(self._module, name)(batch, 0)
        return result


def defines(module: Any, name: str) -> bool:
    """Whether a LightningModule has a step of its own, and not only Lightning's empty one.

    Lightning's own test for this knows only modules of one of its two packages.
    """
    method = getattr(type(module), name, None)
    return method is not None and not method.__module__.startswith(("pytorch_lightning.", "lightning.pytorch."))


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Do nothing."""
