"""What hooks of the user call before and after a forward, and tensors that a forward makes leaves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress
from lightning_nncf.capture.trace import trace
from lightning_nncf.graph.graph import InsertionPoint
from lightning_nncf.hooks.insertion import sites
from tests.capture.networks import Affine, put


class Scaled(nn.Module):
    """Multiplies in its forward, with hooks that multiply before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(lambda module, args: (args[0] * 2.0,))
        self.register_forward_hook(lambda module, args, result: result * 5.0)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(3.0) + 1.0


class Around(nn.Module):
    """Has such a child."""

    def __init__(self) -> None:
        super().__init__()
        self.child = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x)


def test_functions_of_the_forward_are_found_behind_those_of_a_hook() -> None:
    net, x = Around(), torch.tensor([[1.0, -2.0]])
    graph = trace(net, lambda: net(x))
    assert [graph[f"child/mul:{index}"].by_hook for index in range(3)] == [True, False, True]
    put(net, graph, "output", "child/mul:1", 0, Affine(0.7))
    torch.testing.assert_close(net(x), ((x * 2 * 3) * 0.7 + 0.05 + 1) * 5)


def test_no_site_is_where_no_hook_reaches() -> None:
    net, x = Around(), torch.ones(1, 2)
    graph = trace(net, lambda: net(x))
    for kind, address in (("output", "child/mul:0"), ("input", "child/mul:0"), ("input", "child/mul:2")):
        assert sites(graph, net, InsertionPoint(kind=kind, address=address)) == ()
    put(net, graph, "output", "child/mul:2", 0, Affine(0.7))  # the output of the module, whoever makes it
    torch.testing.assert_close(net(x), ((x * 2 * 3) + 1) * 5 * 0.7 + 0.05)


class Leafy(nn.Module):
    """Lets gradients of its input be computed, as the feature encoders of wav2vec 2 and its kin do in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x[:, None]
        if self.training:
            hidden.requires_grad = True
        return self.head(self.conv(hidden).mean(-1))


@pytest.mark.parametrize("quantize_inputs", [True, False])
def test_a_tensor_that_the_network_makes_a_leaf_is_quantized_behind(quantize_inputs: bool) -> None:
    net, x = Leafy(), torch.randn(4, 9)
    section = {"algorithm": "quantization", "quantize_inputs": quantize_inputs}
    compressed = compress(net, {"compression": section}, [x])
    places = [row["place"] for row in compressed.rows()]
    assert ("conv/conv1d:0#0" in places) is quantize_inputs
    assert not any("getitem" in place or "input" in place for place in places)
    net.train()
    net(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_nothing_learns_before_a_leaf() -> None:
    net, x = Leafy(), torch.randn(4, 9)
    graph = trace(net, lambda: net(x))
    assert graph.leaves == {("/__getitem__:0", 0)}
    for kind, address in (("output", "/input:0"), ("input", "/__getitem__:0"), ("output", "/__getitem__:0")):
        assert sites(graph, net, InsertionPoint(kind=kind, address=address)) == ()
    assert len(sites(graph, net, InsertionPoint(kind="input", address="conv/conv1d:0"))) == 1
