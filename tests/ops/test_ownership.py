from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.ops import dispatch, fake_quantize_asymmetric, fake_quantize_symmetric, native
from lightning_nncf.ops.reference import fake_quantize_symmetric_backward

SHAPE = (4, 16, 32, 32)


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.backend("cpu") != "native":
        pytest.skip(native.describe("cpu"))
    torch.manual_seed(5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the two backward operators ran, in order."""
    ran: list[str] = []

    def noting(name: str, operator: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (ran.append(name), operator(*arguments))[1]

    for which in ("symmetric", "asymmetric"):
        for name, label in ((f"_{which}_backward_op", "new"), (f"_{which}_backward_in_place_op", "in place")):
            monkeypatch.setattr(dispatch, name, noting(label, getattr(dispatch, name)))
    return ran


def leaf() -> Tensor:
    return torch.randn(SHAPE).requires_grad_()


def quantized(x: Tensor) -> Tensor:
    return fake_quantize_symmetric(x, torch.ones(1, requires_grad=True), -128, 127, -1)


def inside(x: Tensor) -> Tensor:
    """Where gradients pass a quantizer from -128 / 127 to 1."""
    return ((x >= -128 / 127) & (x <= 1)).float()


def test_a_gradient_that_nobody_else_holds_is_written_over(calls: list[str]) -> None:
    x = leaf()
    factor = torch.randn(SHAPE)
    (quantized(x) * factor).sum().backward()
    assert calls == ["in place"]
    assert x.grad is not None
    assert torch.equal(x.grad, factor * inside(x.detach()))


def test_weights_of_a_convolution_are_written_over(calls: list[str]) -> None:
    weight, scale = torch.randn(64, 64, 3, 3).requires_grad_(), torch.rand(64, 1, 1, 1).add_(0.5).requires_grad_()
    shadow = fake_quantize_symmetric(weight, scale, -127, 127, 0)
    shadow.retain_grad()
    nn.functional.conv2d(torch.randn(2, 64, 8, 8), shadow).square().sum().backward()
    assert calls == ["in place"]
    assert shadow.grad is not None
    expected = fake_quantize_symmetric_backward(shadow.grad, weight.detach(), scale.detach(), -127, 127, 0)
    assert torch.equal(weight.grad, expected[0])  # type: ignore[arg-type]  # what retain_grad kept was not written over
    torch.testing.assert_close(scale.grad, expected[1], rtol=1e-5, atol=1e-5)


def test_the_asymmetric_backward_writes_over_as_well(calls: list[str]) -> None:
    outcomes = []
    x = torch.randn(SHAPE)
    for power in (1, 2):
        ours, low, width = x.clone().requires_grad_(), torch.full((1,), -0.7), torch.full((1,), 1.9)
        low.requires_grad_()
        width.requires_grad_()
        y = fake_quantize_asymmetric(ours, low, width, 256, -1)
        if power == 1:
            (y * 2.0).sum().backward()
        else:
            y.backward(torch.full(SHAPE, 2.0))
        outcomes.append((ours.grad, low.grad, width.grad))
    assert calls == ["in place", "new"]
    for mine, theirs in zip(*outcomes, strict=True):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]


def the_users(x: Tensor, kept: list[Tensor]) -> None:
    kept.append(torch.randn(SHAPE))
    quantized(x).backward(kept[0])


def a_hooks(x: Tensor, kept: list[Tensor]) -> None:
    y = quantized(x)
    y.register_hook(kept.append)
    (y * 2.0).sum().backward()


def a_nodes(x: Tensor, kept: list[Tensor]) -> None:
    y = quantized(x)
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda grads: kept.append(grads[0]))
    (y * 2.0).sum().backward()


def a_modules(x: Tensor, kept: list[Tensor]) -> None:
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return quantized(x)

    module = Module()
    module.register_full_backward_pre_hook(lambda module, grads: kept.append(grads[0]))
    (module(x) * 2.0).sum().backward()


def asked_for(x: Tensor, kept: list[Tensor]) -> None:
    y = quantized(x)
    kept.append(torch.autograd.grad((y * 2.0).sum(), [y, x])[0])


def seen_through_a_view(x: Tensor, kept: list[Tensor]) -> None:
    y = quantized(x)
    flat = y.reshape(-1)
    flat.register_hook(kept.append)
    (flat * 2.0).sum().backward()


def the_same_for_two(x: Tensor, kept: list[Tensor]) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor) -> Tensor:
            return a.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Tensor:
            kept.append(grads[0] * 2.0)
            return kept[0]

    Twice.apply(quantized(x)).sum().backward()


HELD = [the_users, a_hooks, a_nodes, a_modules, asked_for, seen_through_a_view, the_same_for_two]


@pytest.mark.parametrize("use", HELD, ids=lambda use: use.__name__)
def test_a_gradient_that_somebody_else_holds_stays_as_it_is(
    use: Callable[[Tensor, list[Tensor]], None], calls: list[str]
) -> None:
    x, kept = leaf(), list[Tensor]()
    use(x, kept)
    assert calls == ["new"]
    outside = inside(x.detach()) == 0
    assert (kept[0].reshape(SHAPE)[outside] != 0).all()
    if x.grad is not None:
        assert torch.equal(x.grad, kept[0].reshape(SHAPE) * inside(x.detach()))


def test_of_two_quantizers_with_one_gradient_the_last_alone_writes_over_it(calls: list[str]) -> None:
    one, two = leaf(), leaf()
    ((quantized(one) + quantized(two)) * 3.0).sum().backward()
    assert calls == ["new", "in place"]
    for x in (one, two):
        assert x.grad is not None
        assert torch.equal(x.grad, 3.0 * inside(x.detach()))


def test_a_gradient_that_a_leaf_gets_as_well_stays_as_it_is() -> None:
    x, other = leaf(), torch.zeros(SHAPE, requires_grad=True)
    ((quantized(x) + other) * 2.0).sum().backward()
    assert x.grad is not None
    assert other.grad is not None
    assert torch.equal(x.grad, 2.0 * inside(x.detach()))
    assert torch.equal(other.grad, torch.full(SHAPE, 2.0))


def test_a_gradient_that_is_expanded_is_not_written_over(calls: list[str]) -> None:
    x = leaf()
    quantized(x).sum().backward()
    assert calls == ["new"]
    assert x.grad is not None
    assert torch.equal(x.grad, inside(x.detach()))


def test_a_small_gradient_is_written_over_as_well(calls: list[str]) -> None:
    x = torch.randn(16, requires_grad=True)
    (quantized(x) * 2.0).sum().backward()
    assert calls == ["in place"]
    assert x.grad is not None
    assert torch.equal(x.grad, 2.0 * inside(x.detach()))


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_detecting_anomalies_changes_nothing(calls: list[str]) -> None:
    x = leaf()
    with torch.autograd.detect_anomaly():
        (quantized(x) * 2.0).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2.0 * inside(x.detach()))


def test_a_second_derivative_is_refused(calls: list[str]) -> None:
    x = leaf()
    (grad,) = torch.autograd.grad((quantized(x) ** 2).sum(), x, create_graph=True)
    assert calls == ["new"]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
