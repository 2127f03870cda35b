"""Methods of a LightningModule and a strategy, wrapped on the instance for as long as they are needed.

The wrappers are classes of this module and not closures, so that modules stay picklable for spawned processes.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor

__all__ = ["AddEntries", "AddLoss", "AfterCall", "BeforeCall", "Inside", "Instead", "actions", "unwrap", "wrap"]


class _Wrapper:
    """A callable in front of a bound method, recognised as that method by Lightning.

    A copy of what it is on has the bare method: a copied module is none that our callback looks after.
    """

    def __init__(self, method: Callable[..., Any], action: Callable[..., Any]) -> None:
        functools.update_wrapper(cast("Any", self), method)
        # Lightning looks behind one wrapper only.
        self.__wrapped__: Callable[..., Any] = method.__wrapped__ if isinstance(method, _Wrapper) else method
        self.method: Callable[..., Any] = method
        self.action = action

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.method, memo)


class BeforeCall(_Wrapper):
    """Run an action with the same arguments, then the method."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run both."""
        self.action(*args, **kwargs)
        return self.method(*args, **kwargs)


class AfterCall(_Wrapper):
    """Run the method, then an action with the same arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run both and return what the method returned."""
        result = self.method(*args, **kwargs)
        self.action(*args, **kwargs)
        return result


class Inside(_Wrapper):
    """Run the method inside of a context that the action makes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the method returns."""
        with self.action():
            return self.method(*args, **kwargs)


class AddLoss(_Wrapper):
    """Run a training step and add a loss to the one it returns: what the action gives for that."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step.

        Returns:
            What the step returned, its tensor or its ``loss`` increased; nothing if the step returned nothing.
        """
        output = self.method(*args, **kwargs)
        loss: Tensor | None = self.action(output.get("loss") if isinstance(output, Mapping) else output)
        if loss is None or output is None:
            return output
        if isinstance(output, Mapping):
            return {**output, "loss": output["loss"] + loss}
        return output + loss


class AddEntries(_Wrapper):
    """Run the method and add what the action returns to the dict it returns."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return both."""
        result: dict[str, Any] = self.method(*args, **kwargs)
        return {**result, **self.action(*args, **kwargs)}


class Instead(_Wrapper):
    """Run the action instead of the method."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the action returns."""
        return self.action(*args, **kwargs)


def wrap(owner: Any, name: str, wrapper: type[_Wrapper], action: Callable[..., Any]) -> None:
    """Put a wrapper in front of a method of one instance; what it had is kept for `unwrap`.

    One that is there already, left by a run that failed, is not put there again.
    """
    layer = vars(owner).get(name)
    while isinstance(layer, _Wrapper):
        if type(layer) is wrapper and layer.action == action:
            return
        layer = layer.method
    setattr(owner, name, wrapper(getattr(owner, name), action))


def actions(owner: Any, name: str) -> list[Callable[..., Any]]:
    """Return the actions of all wrappers around a method of an instance, the outermost first."""
    found, wrapper = [], vars(owner).get(name)
    while isinstance(wrapper, _Wrapper):
        found.append(wrapper.action)
        wrapper = wrapper.method
    return found


def unwrap(owner: Any, name: str, action: Callable[..., Any] | None = None) -> None:
    """Take a wrapper away from a method of an instance, if there is one.

    Several wrappers may be around one method, and go in any order.

    Args:
        owner: The instance.
        name: Name of the method.
        action: The action of the wrapper; the outermost with this one goes. Default: the outermost one.
    """
    outer, wrapper = None, vars(owner).get(name)
    while isinstance(wrapper, _Wrapper) and action is not None and wrapper.action != action:
        outer, wrapper = wrapper, wrapper.method
    if not isinstance(wrapper, _Wrapper):
        return
    if outer is not None:
        outer.method = wrapper.method
    elif getattr(wrapper.method, "__self__", None) is owner or getattr(type(owner), name, None) is wrapper.method:
        delattr(owner, name)
    else:
        setattr(owner, name, wrapper.method)
