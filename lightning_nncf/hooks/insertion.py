"""Inserts compression modules into a network and takes them out again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lightning_nncf.errors import HookError, near
from lightning_nncf.hooks.call_hooks import Enter, Leave
from lightning_nncf.hooks.calls import close_call
from lightning_nncf.hooks.frames import HOOKED, HookedModule
from lightning_nncf.hooks.generated import release
from lightning_nncf.hooks.hook_site import HookSite
from lightning_nncf.hooks.layers import STAND_IN, adopt_layer, is_layer, stand_in
from lightning_nncf.hooks.notices import take_down
from lightning_nncf.hooks.order import as_built
from lightning_nncf.hooks.owners import adopt
from lightning_nncf.hooks.recompute import check_recomputation
from lightning_nncf.hooks.sites import sites
from lightning_nncf.hooks.slots import PREFIX, Slot

__all__ = ["HookSite", "insert", "inserted", "sites", "strip"]


def insert(network: nn.Module, site: HookSite, module: nn.Module, *, algorithm: str, priority: int) -> None:
    """Put a module at a site; it becomes the submodule ``<site.key>.<algorithm>``.

    A module that already sits at another site of the network is shared and stays registered there only.

    Args:
        network: Network that the paths of the site refer to.
        site: Where.
        module: Maps a tensor to a tensor of the same shape.
        algorithm: Name of the algorithm the module belongs to; one module of it per site.
        priority: Modules of several algorithms at one site run in ascending priority.

    Raises:
        HookError: The site is not in the network, holds a module of this algorithm already, or the module or network
            cannot be hooked.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> site = HookSite(kind="weight", module="0", holder="0", slot="weight", frame="0", parameter="weight")
    >>> insert(net, site, nn.ReLU6(), algorithm="demo", priority=1)
    >>> [type(module).__name__ for _, _, module in inserted(net)]
    ['ReLU6']
    >>> strip(net)
    >>> list(inserted(net))
    []
    """
    _check_module(network, module, site)
    holder = _submodule(network, site.holder)
    target = _submodule(network, site.module)
    if isinstance(target, torch.jit.ScriptModule):
        raise HookError(f"module {site.module!r} is scripted and cannot be hooked; insert before torch.jit.script")
    if site.kind == "weight" and site.parameter not in holder._parameters:
        known = near(site.parameter, holder._parameters)
        raise HookError(f"module {site.holder!r} has no parameter {site.parameter!r}; {known}")
    if site.kind == "attribute" and site.parameter not in holder.__dict__:
        known = near(site.parameter, holder.__dict__)
        raise HookError(f"module {site.holder!r} has no attribute {site.parameter!r}; {known}")
    slot = holder._modules.get(PREFIX + site.slot)
    if slot is None:
        slot = Slot(site)
        holder.add_module(PREFIX + site.slot, slot)
        _attach(network, site, target, holder, slot)
    if not isinstance(slot, Slot) or slot.site != site:
        raise HookError(f"{site.key!r} is taken by another site of the network")
    for _, known_algorithm, known_module in _chain(slot):
        if known_algorithm == algorithm:
            if known_module is module:
                return
            raise HookError(f"{site.key!r} already holds a module of algorithm {algorithm!r}")
    register = all(known is not module for other in _slots(network) for known in other.chain)
    slot.add(module, algorithm=algorithm, priority=priority, register=register)


def inserted(network: nn.Module) -> Iterator[tuple[HookSite, str, nn.Module]]:
    """Yield every site of a network with the name of the algorithm and its module there, in order of application."""
    for slot in list(_slots(network)):
        for _, algorithm, module in _chain(slot):
            yield slot.site, algorithm, module


def strip(network: nn.Module) -> None:
    """Take all inserted modules and hooks out; classes, submodules and attributes are as before `insert`."""
    for module in list(network.modules()):
        hooked: HookedModule | None = module.__dict__.pop(HOOKED, None)
        module.__dict__.pop(STAND_IN, None)
        while hooked is not None and hooked.frames:
            close_call(hooked)  # left open only when an interrupt hit the middle of a forward
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, (Enter, Leave)):
                    _forget(module, key)
        for name, child in list(module._modules.items()):
            if isinstance(child, Slot):
                del module._modules[name]
                if child.site.kind == "weight":
                    # A copy made in the middle of a forward holds the value but no open frame.
                    module.__dict__.pop(child.site.parameter, None)
        take_down(module)
        as_built(module)
        release(module)


def _forget(module: nn.Module, key: int) -> None:
    for hooks in (
        module._forward_pre_hooks,
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
    ):
        hooks.pop(key, None)


def _attach(network: nn.Module, site: HookSite, target: nn.Module, holder: nn.Module, slot: Slot) -> None:
    hooked = _hooked(target, site.module)
    if site.kind in ("weight", "attribute"):
        for reading in (hooked, *(_hooked_at(network, reader) for reader in site.readers)):
            reading.weights.append((holder, site.parameter, slot))
            if isinstance(holder, nn.RNNBase) and all(known is not holder for known in reading.recurrent):
                reading.recurrent.append(holder)
        return
    for caller, callee in site.calls:
        above, below = _hooked_at(network, caller), _hooked_at(network, callee)
        below.tracked = True
        _call(above, below)
    if site.paths:
        hooked.paths = list(site.paths)
        hooked.located.clear()
        hooked.free = site.free
    # A module seen in one call only has hooks for whatever call.
    frame = site.frame if site.paths else site.module
    if site.kind == "module_input":
        hooked.inputs.setdefault(frame, {})[site.port] = slot
    elif site.kind == "module_output":
        hooked.outputs.setdefault(frame, {})[site.port] = slot
        hooked.rectifies = site.rectifies
        if site.normalizes:
            stand_in(_submodule(network, site.normalizes), hooked, slot)
    else:
        for callee in site.callees:
            _call(hooked, _hooked_at(network, callee))
        end = "input" if site.kind == "op_input" else "output"
        slots = hooked.functions.setdefault(frame, {}).setdefault((site.function, site.index, end), {})
        slots[site.port] = slot
        hooked.counts[site.function] = max(site.count, hooked.counts.get(site.function, 0))
        if is_layer(target):
            release(target)
            _hook(target, hooked)
        adopt(target)
    if site.calls or site.function:
        check_recomputation()


def _call(above: HookedModule, below: HookedModule) -> None:
    if all(known is not below for known in above.callees):
        above.callees.append(below)
        above.leaf = False


def _hooked_at(network: nn.Module, path: str) -> HookedModule:
    return _hooked(_submodule(network, path), path)


def _hooked(module: nn.Module, path: str) -> HookedModule:
    hooked: HookedModule | None = module.__dict__.get(HOOKED)
    if hooked is None:
        hooked = HookedModule(module, path)
        module.__dict__[HOOKED] = hooked
        if is_layer(module):
            adopt_layer(module)
        else:
            _hook(module, hooked)
    hooked.solitary = None
    return hooked


def _hook(module: nn.Module, hooked: HookedModule) -> None:
    if not any(isinstance(hook, Enter) for hook in module._forward_pre_hooks.values()):
        module.register_forward_pre_hook(Enter(hooked), with_kwargs=True)
        module.register_forward_hook(Leave(hooked), always_call=True)


def _slots(network: nn.Module) -> Iterator[Slot]:
    return (module for module in network.modules() if isinstance(module, Slot))


def _chain(slot: Slot) -> list[tuple[int, str, nn.Module]]:
    return [(*order, module) for order, module in zip(slot.order, slot.chain, strict=True)]


def _submodule(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in network.named_modules() if name]
        raise HookError(f"the network has no module {path!r}; {near(path, known)}") from None


def _check_module(network: nn.Module, module: Any, site: HookSite) -> None:
    if not isinstance(module, nn.Module):
        raise HookError(f"expected an nn.Module to insert at {site.key!r}, got {type(module).__name__}")
    if isinstance(network, nn.DataParallel):
        raise HookError("nn.DataParallel cannot carry compression; use DistributedDataParallel and the bare network")
    for name, parameter in module.named_parameters():
        if parameter.dim() == 0:
            raise HookError(
                f"parameter {name!r} of the module for {site.key!r} has no dimensions, which FSDP2 refuses; "
                "give it the shape [1]"
            )
