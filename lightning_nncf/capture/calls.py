"""Calls of modules that run while a network is recorded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from lightning_nncf.graph.graph import CallFrame

__all__ = ["Port", "RunningCall"]

Port = tuple[str, int]
"""An op's address, and which of its inputs or outputs."""


class RunningCall:
    """A call of a module that has not returned yet.

    Args:
        frame: Its description in the graph.
        module: The module; none for what runs outside of any.
        arguments: The tensors that it got.
    """

    def __init__(self, frame: CallFrame, module: nn.Module | None, arguments: Iterable[torch.Tensor]) -> None:
        self.frame = frame
        self.module = module
        self.functions: Counter[str] = Counter()
        self.valued: Counter[str] = Counter()
        self.in_forward = module is None
        self.begun = False  # past the hooks before its forward
        self.calls: Counter[str] = Counter()
        self.positions: dict[int, list[int]] = defaultdict(list)
        self.arguments = tuple(arguments)  # held, so that their ids stay theirs
        for position, tensor in enumerate(self.arguments):
            self.positions[id(tensor)].append(position)
        self.readers: dict[int, set[Port]] = defaultdict(set)
