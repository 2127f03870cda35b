"""The teacher: made once, run beside the network, and part of nothing that is trained or saved."""

from __future__ import annotations

import copy
import hashlib
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.distillation.config import TeacherConfig
from lightning_nncf.capture.values import replace_tensors, tensors_in
from lightning_nncf.core.checkpoint import load_weights, read_weights
from lightning_nncf.core.network import find_network
from lightning_nncf.errors import CheckpointError, ConfigError

__all__ = ["Teacher", "digest_of", "make_teacher"]


class Teacher:
    """A network that is run and never trained.

    It is no module, so that nothing takes it for a part of the network.

    Args:
        network: The network; it is changed to need no gradients.
        config: How it runs.
    """

    def __init__(self, network: nn.Module, config: TeacherConfig) -> None:
        self.network = network.requires_grad_(False).train(config.mode == "train")
        self._dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
        if self._dtype is not None:
            network.to(self._dtype)
        self._careful = True

    def settle(self, like: nn.Module) -> None:
        """Move it to the device of a network, and to its type unless it has one of its own."""
        first = next((each for each in like.parameters() if each.is_floating_point()), None)
        if first is not None:
            self.network.to(first.device, self._dtype or first.dtype)

    @torch.no_grad()
    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run it on what the network is called with, in whatever precision context it is called.

        Inputs stay as they are, also where the network writes into them.
        """
        values: Any = (args, kwargs)
        if self._dtype is not None:
            values = replace_tensors(values, lambda _, each: each.to(self._dtype) if each.is_floating_point() else each)
        if self._careful:
            values = replace_tensors(values, lambda _, each: each.clone())
            before = [tensor._version for tensor in tensors_in(values)]
            result = self.network(*values[0], **values[1])
            self._careful = before != [tensor._version for tensor in tensors_in(values)]
            return result
        return self.network(*values[0], **values[1])


def make_teacher(network: nn.Module, config: TeacherConfig) -> nn.Module:
    """Make the network of a teacher.

    Args:
        network: The network that learns, plain still.
        config: Which teacher.

    Raises:
        ConfigError: Its class cannot be imported or made.
        CheckpointError: Its weights cannot be read or do not fit.
    """
    if config.class_path is None:
        teacher = copy.deepcopy(network)
        return teacher if config.checkpoint is None else _load(teacher, config.checkpoint)
    path, _, name = config.class_path.rpartition(".")
    try:
        module = getattr(importlib.import_module(path), name)(**config.init_args)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"`knowledge_distillation.teacher.class_path`: cannot make {config.class_path!r}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"`knowledge_distillation.teacher.class_path` must name a module, got {config.class_path!r}")
    if config.checkpoint is not None:
        load_weights(module, config.checkpoint)
    return find_network(module, config.network)[1]


def digest_of(network: nn.Module, dtype: str | None = None) -> dict[str, str]:
    """Return a short description of all weights, by which they are recognised.

    Args:
        network: The network.
        dtype: Type to compare floating point tensors in; default: each its own.
    """
    first = next((each for each in network.parameters() if each.is_floating_point()), torch.empty(0))
    name = dtype or str(first.dtype).removeprefix("torch.")
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        if isinstance(value, Tensor):
            tensor = value.detach().cpu()
            tensor = tensor.to(getattr(torch, name)) if tensor.is_floating_point() else tensor
            digest.update(key.encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return {"digest": digest.hexdigest(), "dtype": name}


def _load(network: nn.Module, path: str) -> nn.Module:
    """Load the weights of a network, which the module in the checkpoint may hold under some name."""
    weights, own = read_weights(path), network.state_dict()
    shortest = min(own, key=len)
    prefixes = [name.removesuffix(shortest) for name in weights if name == shortest or name.endswith(f".{shortest}")]
    fitting = [prefix for prefix in prefixes if all(prefix + key in weights for key in own)]
    if len(fitting) != 1:
        raise CheckpointError(
            f"`knowledge_distillation.teacher.checkpoint`: {path} holds {len(fitting) or 'no'} networks with the "
            f"parameters of {type(network).__name__}; for a teacher of another class give `teacher.class_path`"
        )
    try:
        network.load_state_dict({key: weights[fitting[0] + key] for key in own})
    except RuntimeError as error:
        raise CheckpointError(f"`knowledge_distillation.teacher.checkpoint`: {path} does not fit: {error}") from error
    return network
