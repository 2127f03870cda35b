"""What a step of a LightningModule finds outside of training: loggers and optimizers that do nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor
from torch.optim import Optimizer

from lightning_nncf.callback.wrappers import Instead, unwrap, wrap

__all__ = ["StandIns", "counted_batches", "early_optimizers", "lightning_part", "muted"]

_LOGGING = ("log", "log_dict", "print")
_OPTIMIZING = ("clip_gradients", "toggle_optimizer", "untoggle_optimizer", "lr_scheduler_step")


@contextmanager
def muted(module: Any) -> Iterator[None]:
    """Let ``self.log`` and the like of a LightningModule do nothing."""
    with _instead(module, dict.fromkeys(_LOGGING, _nothing)):
        yield


class StandIns:
    """While open, a step neither logs nor optimizes: it meets stand-ins for the Trainer's loggers and optimizers.

    Args:
        trainer: The Trainer.
        module: The LightningModule.
        log: Takes the place of ``self.log`` and ``self.log_dict``, by name; default: nothing is logged.

    Attributes:
        losses: What the step gave to ``manual_backward``.
    """

    def __init__(self, trainer: Any, module: Any, log: dict[str, Callable[..., Any]] | None = None) -> None:
        self.losses: list[Tensor] = []
        self._trainer = trainer
        self._module = module
        self._log = dict.fromkeys(_LOGGING, _nothing) | (log or {})
        self._stack = ExitStack()

    def __enter__(self) -> StandIns:
        """Put the stand-ins in place."""
        trainer, strategy = self._trainer, self._trainer.strategy
        with ExitStack() as stack:
            optimizing = dict.fromkeys(_OPTIMIZING, _nothing) | {"manual_backward": self._take}
            stack.enter_context(_instead(self._module, {**self._log, **optimizing}))
            stack.enter_context(_replaced(trainer, "should_stop", trainer.should_stop))
            stack.enter_context(_replaced(trainer, "_loggers", [DummyLogger() for _ in trainer.loggers]))
            idle = [_IdleOptimizer(optimizer) for optimizer in strategy.optimizers]
            schedulers = [_Idle(each, scheduler=_Idle(each.scheduler)) for each in strategy.lr_scheduler_configs]
            stack.enter_context(_replaced(strategy, "_optimizers", idle))
            stack.enter_context(_replaced(strategy, "_lightning_optimizers", idle))
            stack.enter_context(_replaced(strategy, "lr_scheduler_configs", schedulers))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        """Take them away."""
        self._stack.close()

    def _take(self, loss: Tensor, *_args: Any, **_kwargs: Any) -> None:
        self.losses.append(loss)


@contextmanager
def early_optimizers(trainer: Any, module: Any, batches: float) -> Iterator[None]:
    """Let a module's optimizers exist already, for steps that ask for them before Lightning makes them.

    Those that Lightning trains with are made later, as ever.

    Args:
        trainer: The Trainer.
        module: The LightningModule.
        batches: Number of batches in an epoch, for schedules that ask for it.
    """
    strategy = trainer.strategy
    if strategy.optimizers:
        yield
        return
    make = lightning_part(trainer, "core.optimizer")._init_optimizers_and_lr_schedulers
    with counted_batches(trainer, batches), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizers, schedulers = make(module)
    with (
        _replaced(strategy, "_optimizers", optimizers),
        _replaced(strategy, "_lightning_optimizers", optimizers),
        _replaced(strategy, "lr_scheduler_configs", schedulers),
    ):
        yield


@contextmanager
def counted_batches(trainer: Any, batches: float) -> Iterator[None]:
    """Let a Trainer know the number of batches in an epoch, for which it would start its loaders if it were asked.

    Args:
        trainer: The Trainer.
        batches: The number.
    """
    with (
        _instead(trainer.fit_loop, {"setup_data": _nothing}),
        _replaced(trainer.fit_loop, "max_batches", batches),
    ):
        yield


def lightning_part(trainer: Any, name: str) -> Any:
    """Return a part of the package that a Trainer is of: ``pytorch_lightning`` or ``lightning.pytorch``."""
    for kind in type(trainer).__mro__:
        for package in ("pytorch_lightning", "lightning.pytorch"):
            if kind.__module__.startswith(f"{package}."):
                return sys.modules[f"{package}.{name}"]
    raise TypeError(f"{type(trainer).__name__} is no Trainer of Lightning")


class _Idle:
    """Shows an object's attributes, and does nothing when it is to step."""

    def __init__(self, original: Any, **attributes: Any) -> None:
        vars(self).update(attributes, original=original)

    def step(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name == "original":
            raise AttributeError(name)
        return getattr(self.original, name)


class _IdleOptimizer(Optimizer):
    """An optimizer that changes nothing; a class of optimizers, as Lightning looks for those."""

    def __init__(self, optimizer: Any) -> None:
        # what the base class makes is the original's
        vars(self).update(optimizer=optimizer, param_groups=[dict(group) for group in optimizer.param_groups])

    def step(self, closure: Callable[[], Any] | None = None, **_kwargs: Any) -> Any:
        """Compute what a closure computes, no more."""
        return None if closure is None else closure()

    def zero_grad(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing."""

    def load_state_dict(self, *_args: Any) -> None:
        """Do nothing."""

    def add_param_group(self, *_args: Any) -> None:
        """Do nothing."""

    @contextmanager
    def toggle_model(self, *_args: Any, **_kwargs: Any) -> Iterator[None]:
        """Leave the parameters as they are."""
        yield

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)


@contextmanager
def _instead(owner: Any, actions: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Replace methods of one instance."""
    with ExitStack() as stack:
        for name, action in actions.items():
            wrap(owner, name, Instead, action)
            stack.callback(unwrap, owner, name)
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let an attribute have another value."""
    earlier = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, earlier)


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Do nothing."""
