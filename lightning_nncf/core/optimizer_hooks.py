"""Hooks on the optimizers that train a network, around each of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_nncf.core.added import UndecayedStep

__all__ = ["OptimizerHooks"]


class OptimizerHooks:
    """Calls something before and something after each step of the optimizers that train a network.

    What comes before a step sees its gradients: a step that is given a closure makes them in there, so that it comes at
    the end of the closure. A trainer that clips gradients calls `before_step` itself, earlier; the hooks then leave it
    out. Copies of a pair of hooks, and of the optimizers, are attached to nothing.

    Args:
        network: The network; optimizers with none of its parameters are left alone.
        before: Called before each step.
        after: Called after each step.
    """

    def __init__(self, network: nn.Module, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._network = network
        self._before = before
        self._after = after
        self._optimizers: list[Any] = []
        self._handles: list[RemovableHandle] = []
        self._done: set[int] = set()
        self._undecayed = UndecayedStep(network)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the optimizers."""
        return {
            **self.__dict__,
            "_optimizers": [],
            "_handles": [],
            "_done": set(),
            "_undecayed": UndecayedStep(self._network),
        }

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Put hooks on these optimizers, and take them off those attached before."""
        self.remove()
        self._optimizers = list({_key(optimizer): optimizer for optimizer in optimizers}.values())
        for optimizer in self._optimizers:
            # Some trainers' own optimizers are not torch's; they call `before_step`.
            if isinstance(optimizer, Optimizer):
                self._handles.append(optimizer.register_step_pre_hook(self._enter))
                self._handles.append(optimizer.register_step_post_hook(self._leave))

    def remove(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers = [], []
        self._done.clear()

    def before_step(self, optimizer: Any) -> bool:
        """Do now what comes before the next step of an optimizer.

        Returns:
            Whether the step counts as one of the network: the optimizer trains it, or none of those attached does.
        """
        if not self._trains(optimizer):
            return not any(map(self._trains, self._optimizers))
        self._done.add(_key(optimizer))
        self._before()
        return True

    def before_steps(self) -> None:
        """Do now what comes before the next step of all attached optimizers together."""
        self._done.update(map(_key, self._optimizers))
        self._before()

    def _trains(self, optimizer: Any) -> bool:
        stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return any(id(parameter) in stepped for parameter in self._network.parameters())

    def _enter(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Leave out what is not decayed; look at gradients that are there, or let the closure that makes them do it."""
        if self._trains(optimizer):
            self._undecayed.begin(optimizer)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._look(optimizer)
            return None

        def looked() -> Any:
            result = closure()
            self._look(optimizer)
            return result

        if "closure" in kwargs:
            return args, {**kwargs, "closure": looked}
        return (args[0], looked, *args[2:]), kwargs

    def _look(self, optimizer: Optimizer) -> None:
        if _key(optimizer) in self._done:
            self._done.discard(_key(optimizer))
        elif self._trains(optimizer):
            self._before()

    def _leave(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._undecayed.end(optimizer)
        self._done.discard(_key(optimizer))
        if self._trains(optimizer):
            self._after()


def _key(optimizer: Any) -> int:
    """Identify an optimizer, also within a wrapper that shares its groups and hooks, as Fabric's does."""
    return id(optimizer.param_groups)
