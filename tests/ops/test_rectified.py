from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck

import lightning_nncf
from lightning_nncf.algorithms.quantization.quantizers import SymmetricQuantizer
from lightning_nncf.capture.trace import trace
from lightning_nncf.ops import fake_quantize_symmetric, rectified
from lightning_nncf.ops.rectified import fake_quantize_rectified, pays

OPS = torch.ops.lightning_nncf
CONFIG = {"compression": {"algorithm": "quantization"}}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def values(dtype: torch.dtype, shape: tuple[int, ...] = (3, 5, 7, 9)) -> Tensor:
    """Return values of both signs, with the ends of both activation functions among them."""
    x = (4 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    if x.numel() > 8:
        x.view(-1)[:8] = torch.tensor([0.0, -0.0, 6.0, 3.0, -6.0, math.inf, -math.inf, 1e-30]).to(dtype)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [3.0, 6.0, 7.3, -4.0, 1e-3])
@pytest.mark.parametrize("top", [math.inf, 6.0])
def test_values_and_gradients_are_those_of_both_functions_after_each_other(
    dtype: torch.dtype, scale: float, top: float
) -> None:
    activation = nn.functional.relu if top == math.inf else nn.functional.relu6
    x, grad = values(dtype), torch.randn(3, 5, 7, 9).to(dtype)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    my_scale, their_scale = (torch.tensor([scale], dtype=torch.float64).requires_grad_() for _ in range(2))
    if dtype != torch.float64:
        my_scale, their_scale = (each.detach().float().requires_grad_() for each in (my_scale, their_scale))
    y = fake_quantize_rectified(mine, my_scale, 255, top)
    z = fake_quantize_symmetric(activation(theirs), their_scale, 0, 255, -1)
    assert torch.equal(y, z)
    y.backward(grad)
    z.backward(grad)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.equal(mine.grad, theirs.grad)
    torch.testing.assert_close(my_scale.grad, their_scale.grad, rtol=1e-5, atol=1e-5 * float(grad.abs().sum()) / 255)


def test_values_worked_by_hand() -> None:
    x = torch.tensor([-1.0, 0.0, 1.2, 6.0, 7.0], requires_grad=True)
    scale = torch.tensor([10.0], requires_grad=True)
    y = fake_quantize_rectified(x, scale, 4, 6.0)  # steps of 2.5; 6 lies nearest to 5
    assert y.tolist() == [0.0, 0.0, 0.0, 5.0, 5.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
    # Residuals over the range: (0 - 1.2) / 10 and twice (5 - 6) / 10.
    torch.testing.assert_close(scale.grad, torch.tensor([-0.32]))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "empty", "0-dim"])
@pytest.mark.parametrize("top", [math.inf, 6.0])
def test_operators_keep_the_contract_of_pytorch_in_every_layout(layout: str, top: float) -> None:
    x = {
        "contiguous": lambda: values(torch.float32),
        "channels_last": lambda: values(torch.float32).to(memory_format=torch.channels_last),
        "strided": lambda: values(torch.float32)[:, ::2],
        "empty": lambda: values(torch.float32, (0, 3)),
        "0-dim": lambda: values(torch.float32, ()),
    }[layout]()
    scale, grad = torch.tensor([2.0]), torch.randn(x.shape)
    results = [
        opcheck(OPS.fake_quantize_rectified.default, (x, scale, 255, top)),
        opcheck(OPS.fake_quantize_rectified_backward.default, (grad, x, scale, 255, top)),
        opcheck(OPS.fake_quantize_rectified_backward_.default, (grad.clone(), x, scale, 255, top)),
    ]
    assert all(set(result.values()) == {"SUCCESS"} for result in results)
    assert OPS.fake_quantize_rectified(x, scale, 255, top).stride() == torch.empty_like(x).stride()


def test_the_formula_gives_what_the_kernel_gives() -> None:
    x, scale, grad = values(torch.float32), torch.tensor([7.3]), torch.randn(3, 5, 7, 9)
    assert torch.equal(OPS.fake_quantize_rectified(x, scale, 255, 6.0), rectified._forward(x, scale, 255, 6.0))
    finite = x.clamp(-50, 50)
    for mine, theirs in zip(
        OPS.fake_quantize_rectified_backward(grad, finite, scale, 255, 6.0),
        rectified._backward(grad, finite, scale, 255, 6.0),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_it_pays_in_eager_training_on_a_cpu_only() -> None:
    x = torch.rand(2, requires_grad=True)
    assert pays(x)
    assert not pays(x.detach())
    with torch.no_grad():
        assert not pays(x)
    assert not pays(torch.rand(2, device="meta", requires_grad=True))


class Network(nn.Module):
    """A block with a branch, all of whose activations are one module."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        return self.third(self.act(self.second(y) + y))


class Careless(Network):
    """Reads what the activation function leaves in its argument."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.act(y)
        return self.third(y + 1)


class Viewing(Network):
    """Reads it through another tensor of the same memory."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.act(y.view(y.shape))
        return self.third(y + z)


def compressed(network: nn.Module) -> tuple[nn.Module, Tensor]:
    images = torch.randn(2, 3, 12, 12)
    lightning_nncf.compress(network, CONFIG, [images])
    return network.train(), images


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one each time a quantizer does the work of an activation function."""
    calls: list[int] = []
    plain = SymmetricQuantizer.rectified

    def rectify(quantizer: SymmetricQuantizer, x: Tensor, top: float) -> Tensor | None:
        result = plain(quantizer, x, top)
        calls.extend([1] * (result is not None))
        return result

    monkeypatch.setattr(SymmetricQuantizer, "rectified", rectify)
    return calls


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True)], ids=str)
def test_a_training_step_gives_the_same_bits(activation: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = compressed(Network(activation))
    other, calls = copy.deepcopy(network), counted(monkeypatch)
    y = network(images)
    y.square().mean().backward()
    assert len(calls) == 2
    monkeypatch.setattr(SymmetricQuantizer, "rectified", lambda *args: None)
    z = other(images)
    z.square().mean().backward()
    assert torch.equal(y, z)
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("kind", [Careless, Viewing])
def test_what_an_activation_function_leaves_in_its_argument_stays_there(
    kind: type[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = kind(nn.ReLU(inplace=True))
    images = torch.randn(2, 3, 12, 12)
    assert trace(network, lambda: network(images)).reread == {"act"}
    network, images = compressed(network)
    calls = counted(monkeypatch)
    network(images).sum().backward()
    assert not calls


def test_the_result_may_be_read_as_often_as_one_likes() -> None:
    network, images = Network(nn.ReLU(inplace=True)), torch.randn(2, 3, 12, 12)
    assert not trace(network, lambda: network(images)).reread


def test_who_waits_for_gradients_gets_them() -> None:
    network, images = compressed(Network(nn.ReLU()))
    heard: list[object] = []
    for layer in (network.act, network.first):
        layer.register_full_backward_hook(lambda module, of_input, of_output: heard.append(of_input[0].shape))
    network(images).sum().backward()
    assert heard == [(2, 8, 10, 10), (2, 8, 10, 10), (2, 3, 12, 12)]


@pytest.mark.parametrize("listener", ["pre hook", "hook", "quantizer"])
def test_who_listens_hears_what_each_module_gets_and_gives(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = compressed(Network(nn.ReLU()))
    calls, heard = counted(monkeypatch), []
    quantizer = next(module for module in network.act.modules() if isinstance(module, SymmetricQuantizer))
    if listener == "pre hook":
        network.act.register_forward_pre_hook(lambda module, args: heard.append(args[0].shape))
    elif listener == "hook":
        network.act.register_forward_hook(lambda module, args, result: heard.append(args[0].shape))
    else:
        quantizer.register_forward_pre_hook(lambda module, args: heard.append(args[0].shape))
    network(images)
    assert heard == [(2, 8, 10, 10)] * len(heard)
    assert len(heard) == (1 if listener == "quantizer" else 2)
    assert len(calls) == (1 if listener == "quantizer" else 0)


def test_an_exported_network_keeps_its_activation_functions() -> None:
    network, images = compressed(Network(nn.ReLU()))
    program = torch.export.export(network, (images,))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("relu" in name for name in names) == 2
    assert not any("rectified" in name for name in names)
