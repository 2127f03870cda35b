"""The order in which a compressed network shows what it has: all of its own first, then what was inserted.

Much code pairs a network with a copy of it by order: `zip` of their parameters, averages of weights, the indices of an
optimizer's state. Inserted modules are children of the layers that they are for, and would stand between the parameters
of these.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from torch import nn

from lightning_nncf.hooks.slots import Slot, is_inserted

__all__ = ["as_built", "is_own_first", "own_first"]

_WALK = "named_modules"


class _OwnFirst:
    """`torch.nn.Module.named_modules` of one module, on which parameters and buffers are listed too.

    It is an attribute of the module, so that the module keeps its class.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield each module with its name."""
        inserted = []
        begin = len(prefix)
        for item in type(self.module).named_modules(self.module, memo, prefix, remove_duplicate):
            if is_inserted(item[0], begin):
                inserted.append(item)
            else:
                yield item
        yield from inserted


class _InsertedLast:
    """Hook after a state dict is made: what was inserted below a module moves behind its own."""

    def __call__(self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, _metadata: Any) -> None:
        for name in [name for name in state if name.startswith(prefix) and is_inserted(name, len(prefix))]:
            state[name] = state.pop(name)


def own_first(module: nn.Module, path: str = "") -> list[nn.Module]:
    """Let a network, and all that it is in, list what was inserted behind all of their own.

    Args:
        module: The network, or a module that holds it.
        path: Path of the network in the module.

    Returns:
        The modules around the network, to be given to `as_built` when it is plain again.

    >>> network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> network[0].add_module("lnncf_weight", Slot(None))
    >>> network[0].lnncf_weight.add_module("mask", nn.Linear(1, 1, bias=False))
    >>> [name for name, _ in network.named_parameters()]
    ['0.weight', '0.lnncf_weight.mask.weight', '1.weight']
    >>> _ = own_first(network)
    >>> [name for name, _ in network.named_parameters()], list(network.state_dict())[1]
    (['0.weight', '1.weight', '0.lnncf_weight.mask.weight'], '1.weight')
    """
    around = [module]
    for name in path.split(".") if path else ():
        around.append(around[-1].get_submodule(name))
    network = around.pop()
    for part in (*around, *network.modules()):
        # Slots are the last children of a layer that has no others.
        if any(not isinstance(child, Slot) for child in part.children()) and not isinstance(part, Slot):
            as_built(part)
            part.__dict__[_WALK] = _OwnFirst(part)
            part.register_state_dict_post_hook(_InsertedLast())  # type: ignore[no-untyped-call]
    return around


def is_own_first(module: nn.Module) -> bool:
    """Whether a module itself lists what was inserted behind its own."""
    return isinstance(module.__dict__.get(_WALK), _OwnFirst)


def as_built(module: nn.Module) -> None:
    """Let a module itself list everything as it is built again."""
    if is_own_first(module):
        del module.__dict__[_WALK]
    for key, hook in list(module._state_dict_hooks.items()):
        if isinstance(hook, _InsertedLast):
            del module._state_dict_hooks[key]
