"""Hooked networks under torch.compile, torch.export, ONNX export and jit.trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.hooks.insertion import strip
from tests.capture.networks import Affine, Net, gradients, hooked_net, put


class Logits(nn.Module):
    """Returns a tensor for exporters that take no dictionary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)["logits"]
        return logits


def _x() -> torch.Tensor:
    return torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_without_graph_breaks_equals_eager(backend: str) -> None:
    net, _ = hooked_net()
    net(_x())["logits"].square().sum().backward()
    expected = gradients(net)
    out = net(_x())["logits"]
    net.zero_grad(set_to_none=True)
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        found = compiled(_x())["logits"]
        found.square().sum().backward()
        torch.testing.assert_close(found, out, rtol=1e-5, atol=1e-6)
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients(net)[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert not any(isinstance(value, torch.Tensor) for module in net.modules() for value in module.__dict__.values())
    torch.testing.assert_close(net(_x())["logits"], out)


def test_toggling_modes_and_eager_calls_does_not_recompile_again_and_again() -> None:
    net, _ = hooked_net()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    for training in (True, False, True, False, True, False):
        net.train(training)
        compiled(_x())
        net(_x())
    assert counter.frame_count <= 2


def test_operators_go_by_the_same_names_in_compiled_code() -> None:
    class Operators(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            x = 2 - x
            x = x * 3
            x = 2 / (x - 50.0)
            x += 0.5
            x = x @ x.T
            x = -x
            x *= 0.1
            return x / 3

    net = Operators()
    x = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    graph = trace(net, lambda: net(x))
    for number, op in enumerate(graph.ops()):
        if op.function not in ("input", "output", "T"):
            put(net, graph, "output", op.address, 0, Affine(1.0 + 0.05 * (number + 1)))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))
    eager = net(x)
    strip(net)
    assert not torch.allclose(net(x), eager)


@pytest.mark.parametrize("strict", [False, True], ids=["non_strict", "strict"])
def test_exported_program_equals_eager(strict: bool) -> None:
    net, _ = hooked_net()
    net.eval()
    program = torch.export.export(Logits(net), (_x(),), strict=strict)
    torch.testing.assert_close(program.module()(_x()), net(_x())["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_onnx_model_equals_eager(tmp_path: Path, dynamo: bool) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net, _ = hooked_net()
    net.eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(Logits(net), (_x(),), path, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: _x().numpy()})
    np.testing.assert_allclose(found, net(_x())["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_jit_trace_equals_eager() -> None:
    net, _ = hooked_net()
    net.eval()
    traced = torch.jit.trace(Logits(net), (_x(),), check_trace=False)
    other = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(traced(other), net(other)["logits"])


def test_compiled_network_is_traced_uncompiled() -> None:
    torch.manual_seed(0)
    net = Net()
    expected = [op.address for op in trace(net, lambda: net(_x())).ops()]
    net.compile(backend="eager")
    net(_x())
    assert [op.address for op in trace(net, lambda: net(_x())).ops()] == expected
