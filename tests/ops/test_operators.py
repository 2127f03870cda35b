from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck

from lightning_nncf.ops import fake_quantize_asymmetric, fake_quantize_symmetric, native

OPS = torch.ops.lightning_nncf

TENSORS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: torch.randn(2, 5, 3, 3),
    "channels_last": lambda: torch.randn(2, 5, 3, 3).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(5, 3, 4).transpose(0, 1),
    "strided": lambda: torch.randn(4, 10, 3)[:, ::2],
    "expanded": lambda: torch.randn(1, 5, 3).expand(4, 5, 3),
    "odd": lambda: torch.randn(3, 5, 7),
    "empty": lambda: torch.randn(0, 5, 2),
    "vector": lambda: torch.randn(2, 5),
    "half": lambda: torch.randn(2, 5, 3).half(),
    "bfloat16": lambda: torch.randn(2, 5, 3).bfloat16(),
    "double": lambda: torch.randn(2, 5, 3).double(),
}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(3)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def parameter(x: Tensor, axis: int, value: float = 1.0) -> Tensor:
    shape = [size if dim == axis else 1 for dim, size in enumerate(x.shape)] if axis >= 0 else [1]
    return torch.full(shape, value).requires_grad_()


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("name", TENSORS)
def test_operators_keep_the_contract_of_pytorch(name: str, axis: int) -> None:
    x = TENSORS[name]().requires_grad_()
    scale, low, width = parameter(x, axis), parameter(x, axis, -0.7), parameter(x, axis, 1.5)
    grad = torch.randn(x.shape).to(x.dtype)
    plain = [part.detach() for part in (x, scale, low, width)]
    results = [
        opcheck(OPS.fake_quantize_symmetric.default, (x, scale, -128, 127, axis)),
        opcheck(OPS.fake_quantize_asymmetric.default, (x, low, width, 256, axis)),
        opcheck(OPS.fake_quantize_symmetric_forward.default, (plain[0], plain[1], -128, 127, axis)),
        opcheck(OPS.fake_quantize_asymmetric_forward.default, (plain[0], plain[2], plain[3], 256, axis)),
        opcheck(OPS.fake_quantize_symmetric_backward.default, (grad, plain[0], plain[1], -128, 127, axis)),
        opcheck(OPS.fake_quantize_asymmetric_backward.default, (grad, plain[0], plain[2], plain[3], 256, axis)),
        opcheck(OPS.fake_quantize_symmetric_backward_.default, (grad.clone(), plain[0], plain[1], -128, 127, axis)),
        opcheck(
            OPS.fake_quantize_asymmetric_backward_.default, (grad.clone(), plain[0], plain[2], plain[3], 256, axis)
        ),
    ]
    assert all(set(result.values()) == {"SUCCESS"} for result in results)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("name", TENSORS)
def test_shape_type_and_strides_are_those_of_the_input(name: str, axis: int) -> None:
    x = TENSORS[name]()
    like = torch.empty_like(x)
    results = [
        fake_quantize_symmetric(x, parameter(x, axis), -128, 127, axis),
        fake_quantize_asymmetric(x, parameter(x, axis, -0.7), parameter(x, axis, 1.5), 256, axis),
        OPS.fake_quantize_symmetric_backward(x, x, parameter(x, axis), -128, 127, axis)[0],
        OPS.fake_quantize_asymmetric_backward(x, x, parameter(x, axis), parameter(x, axis), 256, axis)[0],
    ]
    for result in results:
        assert (result.shape, result.dtype, result.stride()) == (like.shape, like.dtype, like.stride())


@pytest.mark.parametrize("name", ["channels_last", "transposed", "strided", "expanded"])
def test_layout_does_not_change_values_or_gradients(name: str) -> None:
    x = TENSORS[name]()
    outcomes = []
    for values in (x, x.contiguous()):
        leaf, scale = values.detach().requires_grad_(), parameter(x, 1)
        y = fake_quantize_symmetric(leaf, scale, -8, 7, 1)
        (y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
        outcomes.append((y, leaf.grad, scale.grad))
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("axis", [-1, 1])
def test_half_types_are_computed_in_float32(dtype: torch.dtype, axis: int) -> None:
    x = torch.randn(4, 6, 5).to(dtype)
    weights = torch.randn(4, 6, 5).to(dtype)
    outcomes = []
    for values, factor in ((x, weights), (x.float(), weights.float())):
        leaf = values.clone().requires_grad_()
        scale, low, width = parameter(x, axis, 1.3), parameter(x, axis, -0.9), parameter(x, axis, 2.1)
        y = fake_quantize_symmetric(leaf, scale, -128, 127, axis)
        z = fake_quantize_asymmetric(leaf, low, width, 256, axis)
        torch.autograd.backward([y, z], [factor, factor])
        outcomes.append([y, z, scale.grad, low.grad, width.grad])
    for half, full in zip(*outcomes, strict=True):
        assert half is not None
        assert full is not None
        torch.testing.assert_close(half, full.to(half.dtype), rtol=torch.finfo(half.dtype).eps, atol=0)
    assert outcomes[0][0].dtype == dtype
    assert outcomes[0][2].dtype == torch.float32


def test_autocast_leaves_values_and_ranges_in_their_types() -> None:
    x, scale = torch.randn(3, 4), torch.tensor([1.7], requires_grad=True)
    expected = fake_quantize_symmetric(x, scale, -128, 127, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fake_quantize_symmetric(x, scale, -128, 127, -1)
        activation = torch.mm(x, x.T)
        z = fake_quantize_symmetric(activation, scale, -128, 127, -1)
    assert torch.equal(y, expected)
    assert z.dtype == activation.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(z.float().sum(), scale)
    assert grad.dtype == torch.float32


class Quantized(nn.Module):
    """Both operators, per channel and per tensor, between layers.

    All sizes are whole vectors: for others, what inductor of torch 2.14 makes for AVX2 writes past the end of tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 1)
        self.scale = nn.Parameter(torch.linspace(0.05, 0.2, 16).reshape(16, 1, 1, 1))
        self.low = nn.Parameter(torch.tensor([-0.3]))
        self.width = nn.Parameter(torch.tensor([0.9]))

    def forward(self, x: Tensor) -> Tensor:
        weight = fake_quantize_symmetric(self.conv.weight, self.scale, -64, 63, 0)
        y = nn.functional.conv2d(x, weight, self.conv.bias)
        return fake_quantize_asymmetric(y, self.low, self.width, 256, -1)


def outcome(run: Callable[..., Any], module: nn.Module, x: Tensor) -> list[Tensor]:
    module.zero_grad()
    x = x.detach().requires_grad_()
    y = run(x)
    y.square().sum().backward()
    grads = [part.grad for part in module.parameters()]
    return [y.detach(), *(grad.clone() for grad in (x.grad, *grads) if grad is not None)]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_in_one_graph_gives_the_eager_values_and_gradients(backend: str) -> None:
    module, x = Quantized(), torch.randn(2, 8, 8, 8)
    expected = outcome(module, module, x)
    ours = outcome(torch.compile(module, backend=backend, fullgraph=True), module, x)
    assert len(ours) == len(expected) == 7
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_compiled_code_holds_the_formula_and_not_the_operator() -> None:
    names: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        names.extend(
            str(node.target)
            for inner in graph.modules()
            if isinstance(inner, torch.fx.GraphModule)
            for node in inner.graph.nodes
        )
        return graph.forward

    torch.compile(Quantized(), backend=backend, fullgraph=True)(torch.randn(1, 8, 5, 5))
    assert any("round" in name for name in names)
    assert not any("lightning_nncf" in name for name in names)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_keeps_the_operators_as_single_nodes(strict: bool) -> None:
    module, x = Quantized().eval(), torch.randn(2, 8, 6, 6)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    program = program.run_decompositions()
    targets = [node.target for node in program.graph.nodes if "lightning_nncf" in str(node.target)]
    assert targets == [OPS.fake_quantize_symmetric.default, OPS.fake_quantize_asymmetric.default]
    y = torch.randn(5, 8, 6, 6)
    torch.testing.assert_close(program.module()(y), module(y))


def test_a_trace_keeps_the_operators_as_single_nodes() -> None:
    traced = torch.jit.trace(Quantized().eval(), torch.randn(1, 8, 5, 5))
    assert "lightning_nncf::fake_quantize_symmetric" in str(traced.inlined_graph)
    assert "lightning_nncf::fake_quantize_asymmetric" in str(traced.inlined_graph)


def test_the_first_call_of_an_operator_loads_the_kernels() -> None:
    code = """
import torch
from lightning_nncf.ops import native
assert not native.prepared
y = torch.ops.lightning_nncf.fake_quantize_symmetric(torch.tensor([-9.0, 0.6]), torch.tensor([7.0]), -8, 7, -1)
assert y.tolist() == [-8.0, 1.0]
print(native.prepared["cpu"])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == native.backend("cpu")
