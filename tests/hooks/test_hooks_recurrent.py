"""Recurrent layers read their weights from a list of their own, which must hold the compressed values."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from lightning_nncf.capture.trace import trace
from lightning_nncf.hooks.insertion import strip
from tests.capture.networks import Affine, put

LAYERS = {
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "projected lstm": lambda: nn.LSTM(3, 4, proj_size=2),
    "gru": lambda: nn.GRU(3, 4, bias=False),
    "rnn": lambda: nn.RNN(3, 4, nonlinearity="relu"),
}


def _x() -> torch.Tensor:
    return torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(1))


def _hooked(layer: nn.Module) -> None:
    """Put a scaled and shifted weight in the place of every matrix."""
    graph = trace(layer, lambda: layer(_x()))
    (op,) = (op for op in graph.ops() if op.parameters)
    for port, name in op.parameters.items():
        if name.startswith("weight"):
            put(layer, graph, "weight", op.address, port, Affine(1.3))


def _moved(layer: nn.Module) -> nn.Module:
    """Return a plain layer that holds those weights."""
    moved = copy.deepcopy(layer)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name.startswith("weight"):
                parameter.copy_(parameter * 1.3 + 0.05)
    return moved


def _run(layer: nn.Module, *args: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    layer.zero_grad(set_to_none=True)
    output = layer(*args)[0]
    output = output if isinstance(output, torch.Tensor) else output.data
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if "lnncf" not in name and p.grad is not None}
    return output.detach(), gradients


@pytest.fixture(params=LAYERS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A hooked layer and a plain one that must behave like it."""
    torch.manual_seed(0)
    layer = LAYERS[request.param]()
    moved = _moved(layer)
    _hooked(layer)
    return layer, moved


def _assert_same(layer: nn.Module, moved: nn.Module, *args: Any) -> None:
    (found, gradients), (expected, wanted) = _run(layer, *args), _run(moved, *args)
    torch.testing.assert_close(found, expected)
    assert set(gradients) == set(wanted)
    for name, gradient in wanted.items():
        factor = 1.3 if name.startswith("weight") else 1.0  # the chain rule through the affine map
        torch.testing.assert_close(gradients[name], gradient * factor, msg=name)


def test_compressed_weights_are_used_forward_and_backward(pair: tuple[nn.Module, nn.Module]) -> None:
    for _ in range(2):
        _assert_same(*pair, _x())


def test_packed_sequences(pair: tuple[nn.Module, nn.Module]) -> None:
    _assert_same(*pair, pack_padded_sequence(_x(), [5, 2]))


def test_the_layer_is_as_before_between_calls(pair: tuple[nn.Module, nn.Module]) -> None:
    layer, moved = pair
    layer(_x())
    parameters = dict(layer.named_parameters())
    assert all(
        value is parameters[name]
        for value, name in zip(layer._flat_weights, layer._flat_weights_names, strict=True)  # type: ignore[arg-type]
    )
    with pytest.raises(RuntimeError):
        layer(torch.rand(5, 2, 7))
    assert all(isinstance(value, nn.Parameter) for value in layer._flat_weights)  # type: ignore[union-attr]
    _assert_same(layer, moved, _x())


def test_copies_and_pickles_are_hooked_too(pair: tuple[nn.Module, nn.Module]) -> None:
    layer, moved = pair
    layer(_x())
    _assert_same(copy.deepcopy(layer), moved, _x())
    _assert_same(pickle.loads(pickle.dumps(layer)), moved, _x())


def test_strip_gives_the_plain_layer_back(pair: tuple[nn.Module, nn.Module]) -> None:
    layer, moved = pair
    layer(_x())
    strip(layer)
    assert list(layer.state_dict()) == list(moved.state_dict())
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("weight"):
                parameter.copy_(parameter * 1.3 + 0.05)
    torch.testing.assert_close(layer(_x())[0], moved(_x())[0])


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_reads_compressed_weights(reentrant: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(lambda value: self.rnn(value)[0], x, use_reentrant=reentrant)
            return result

    torch.manual_seed(0)
    net = Net()
    moved = _moved(net.rnn)
    graph = trace(net, lambda: net(_x().requires_grad_()))
    for port, name in graph["rnn/gru:0"].parameters.items():
        if "weight" in name:
            put(net, graph, "weight", "rnn/gru:0", port, Affine(1.3))
    net(_x().requires_grad_()).square().sum().backward()
    _, wanted = _run(moved, _x())
    for name, gradient in wanted.items():
        found = net.rnn.get_parameter(name).grad
        torch.testing.assert_close(found, gradient * (1.3 if name.startswith("weight") else 1.0))


def test_cells_read_compressed_weights() -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 4)
    moved = _moved(cell)
    x = _x()[0]
    graph = trace(cell, lambda: cell(x))
    for port, name in graph["/lstm_cell:0"].parameters.items():
        if name.startswith("weight"):
            put(cell, graph, "weight", "/lstm_cell:0", port, Affine(1.3))
    _assert_same(cell, moved, x)
