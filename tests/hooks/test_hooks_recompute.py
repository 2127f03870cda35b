"""Activation checkpointing of modules and of closures: gradients equal those without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import checkpoint as checkpointing

from lightning_nncf.capture.trace import trace
from lightning_nncf.hooks.insertion import strip
from tests.capture.networks import Affine, Block, gradients, put


class Closures(nn.Module):
    """Checkpoints closures that use functions, a module called twice, a weight read directly, and nested ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.act = nn.Sigmoid()
        self.weight = nn.Parameter(torch.rand(4, 4))
        self.reentrant: bool | None = None

    def _part(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.act(self.first(x)))
        x = self.act(torch.tanh(F.linear(x, self.weight)) * 2.0)
        return self._checkpointed(self._inner, x)

    def _inner(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(F.linear(torch.tanh(x), self.weight)).exp()

    def _checkpointed(self, function: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if self.reentrant is None:
            return function(x)
        return checkpointing.checkpoint(function, x, use_reentrant=self.reentrant)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.weight) + 0.1
        x = torch.tanh(x)
        x = self._checkpointed(self._part, x)
        return torch.tanh(x * 0.3)


POINTS = [
    ("weight", "first/linear:0", 1, 1.3),
    ("weight", "/linear:0", 1, 0.8),
    ("output", "act/sigmoid:0", 0, 1.2),
    ("output", "act@1/sigmoid:0", 0, 0.7),
    ("output", "/tanh:0", 0, 0.9),
    ("output", "/tanh:1", 0, 1.1),
    ("output", "/tanh:2", 0, 1.4),
    ("output", "/tanh:3", 0, 0.6),
    ("output", "/tanh:4", 0, 1.25),
    ("output", "/sin:0", 0, 0.95),
    ("input", "/linear:2", 0, 1.05),
]


def _hooked() -> Closures:
    torch.manual_seed(0)
    net = Closures()
    graph = trace(net, lambda: net(torch.rand(3, 4)))
    for kind, address, port, factor in POINTS:
        put(net, graph, kind, address, port, Affine(factor))
    return net


def _step(net: nn.Module, requires_grad: bool = True) -> dict[str, torch.Tensor]:
    net.zero_grad(set_to_none=True)
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(3)).requires_grad_(requires_grad)
    net(x).square().sum().backward()
    return gradients(net)


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_gradients_of_checkpointed_closures_equal_those_without(reentrant: bool) -> None:
    net = _hooked()
    expected = _step(net)
    assert len(expected) == 3 + len(POINTS)
    net.reentrant = reentrant
    found = _step(net)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_two_forwards_before_the_backwards_keep_their_states_apart(reentrant: bool) -> None:
    net = _hooked()
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    y = torch.rand(3, 4, generator=torch.Generator().manual_seed(4)).requires_grad_()
    (net(x) * net(y)).sum().backward()
    expected = gradients(net)
    net.zero_grad(set_to_none=True)
    net.reentrant = reentrant
    (net(x) * net(y)).sum().backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients(net)[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_checkpointed_modules_have_the_gradients_of_plain_ones(reentrant: bool) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()
            self.checkpointed = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                if self.checkpointed:
                    x = checkpointing.checkpoint(self.block, x, use_reentrant=reentrant)
                else:
                    x = self.block(x)
            return x

    torch.manual_seed(0)
    net = Wrapper()
    x = torch.rand(2, 4, 5, 5, requires_grad=True)
    graph = trace(net, lambda: net(x))
    for kind, address, port, factor in (
        ("weight", "block.conv1/conv2d:0", 1, 1.3),
        ("output", "block.relu@1/relu:0", 0, 0.8),
        ("output", "block@1.relu/relu:0", 0, 1.2),
        ("output", "block/add:0", 0, 0.9),
        ("output", "block@1/add:1", 0, 1.1),
    ):
        put(net, graph, kind, address, port, Affine(factor))
    net(x).square().mean().backward()
    expected = gradients(net)
    net.zero_grad(set_to_none=True)
    net.checkpointed = True
    net(x).square().mean().backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients(net)[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_torch_is_as_before_outside_hooked_forwards() -> None:
    names = [name for name in vars(checkpointing) if "heckpoint" in name]
    before = {name: getattr(checkpointing, name) for name in names}
    net = _hooked()
    net.reentrant = False
    _step(net)
    assert {name: getattr(checkpointing, name) for name in names} == before
    net.first.bias.data = torch.zeros(7)
    with pytest.raises(RuntimeError):
        _step(net)
    assert {name: getattr(checkpointing, name) for name in names} == before


def test_checkpointed_closures_work_after_strip() -> None:
    net = _hooked()
    strip(net)
    expected = _step(net)
    net.reentrant = True
    for name, gradient in _step(net).items():
        torch.testing.assert_close(gradient, expected[name])
