"""What a compressed network says to those who do not know that it is one."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import nn

__all__ = ["HINT", "is_up", "put_up", "take_down"]

HINT = (
    "lnncf_hint: compressed by lightning_nncf; load it with `lightning_nncf.load_from_checkpoint(ModuleClass, path)`, "
    "or with the NNCFCallback in the Trainer"
)
"""Name of an empty tensor beside the weights of a network in a checkpoint.

PyTorch names it first among the unexpected keys when somebody loads the checkpoint into a plain network.
"""


class _PassOverHint:
    """Hook before a state dict is loaded: a compressed network needs no hint."""

    def __call__(self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
        state.pop(prefix + HINT, None)


class _WarnOfExport:
    """Hook before each forward: PyTorch's exporters do not know compression."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.onnx.is_in_onnx_export():
            warnings.warn(
                f"torch.onnx.export sees the compressed {type(module).__name__}, whose fake quantization and masks it "
                "cannot write as integers and zeros; call `callback.export(path)`, or without the callback "
                "`lightning_nncf.export_and_verify(compressed, path)`",
                stacklevel=2,
            )


def put_up(network: nn.Module) -> None:
    """Let a network that is compressed say so where it would fail or surprise."""
    take_down(network)
    network.register_load_state_dict_pre_hook(_PassOverHint())  # type: ignore[no-untyped-call]
    network.register_forward_pre_hook(_WarnOfExport())


def is_up(module: nn.Module) -> bool:
    """Whether a module itself is a network that says so: it was compressed, and not stripped since.

    >>> network = nn.Linear(1, 1)
    >>> put_up(network)
    >>> is_up(network)
    True
    """
    return any(isinstance(hook, _WarnOfExport) for hook in module._forward_pre_hooks.values())


def take_down(module: nn.Module) -> None:
    """Take these hooks from a module, if it has them."""
    hooks: Any
    for hooks in (module._load_state_dict_pre_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "hook", hook), (_PassOverHint, _WarnOfExport)):
                del hooks[key]
