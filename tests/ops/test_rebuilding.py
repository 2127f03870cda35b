from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lightning_nncf
from lightning_nncf.ops import fake_quantize_asymmetric, fake_quantize_symmetric, native, rebuilding
from lightning_nncf.ops.rebuilding import rebuild_in_backward

SHAPE = (2, 8, 192, 192)  # 2.25 MiB: below 1 MiB tensors are kept


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.backend("cpu") != "native":
        pytest.skip(native.describe("cpu"))
    torch.manual_seed(6)


def symmetric(x: Tensor) -> Tensor:
    return fake_quantize_symmetric(x, torch.ones(1, requires_grad=True), 0, 255, -1)


def asymmetric(x: Tensor) -> Tensor:
    low, width = torch.full((1,), -0.3, requires_grad=True), torch.ones(1, requires_grad=True)
    return fake_quantize_asymmetric(x, low, width, 256, -1)


@pytest.mark.parametrize("quantize", [symmetric, asymmetric], ids=lambda each: each.__name__)
def test_what_a_convolution_kept_is_freed_and_is_the_same_when_asked_for(quantize: object) -> None:
    assert callable(quantize)
    weight = torch.randn(4, 8, 3, 3, requires_grad=True)
    y = quantize(torch.randn(SHAPE).requires_grad_())
    z = nn.functional.conv2d(y, weight)
    rebuild_in_backward(z)
    values, gone = y.detach().clone(), weakref.ref(y.untyped_storage())
    del y
    assert gone() is None
    assert z.grad_fn is not None
    assert torch.equal(z.grad_fn._saved_input, values)


class Network(nn.Module):
    """Two convolutions with the activations of a residual block between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 4, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.first(x)))
        y = self.act(self.second(y) + y)
        return self.third(y)


def test_a_training_step_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = Network(), torch.randn(2, 3, 192, 192)
    config = {"compression": {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": 2}}}}
    lightning_nncf.compress(network, config, [x])
    outcomes = []
    rebuilt = []
    follow = rebuilding._Recipe.follow
    monkeypatch.setattr(rebuilding._Recipe, "follow", lambda recipe: (rebuilt.append(1), follow(recipe))[1])
    for least in (1 << 40, 0):
        monkeypatch.setattr(rebuilding, "_LEAST_BYTES", least)
        module = copy.deepcopy(network).train()
        module(x).square().mean().backward()
        outcomes.append([parameter.grad for parameter in module.parameters()])
        assert len(rebuilt) == (0 if least else 2)  # not of the second: it keeps what its batch norm gave
    for mine, theirs in zip(*outcomes, strict=True):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]


def test_values_that_were_changed_in_place_are_an_error() -> None:
    weight = torch.randn(4, 8, 1, 1, requires_grad=True)
    x = torch.randn(SHAPE)
    y = symmetric(x)
    z = nn.functional.conv2d(y, weight)
    rebuild_in_backward(z)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified in place"):
        torch.autograd.grad(z.sum(), weight)


def test_the_weights_alone_can_be_differentiated_after_the_trunk_was() -> None:
    one, two = (torch.randn(4, 8, 1, 1, requires_grad=True) for _ in range(2))
    y = symmetric(torch.randn(SHAPE).requires_grad_())
    results = [nn.functional.conv2d(y, weight) for weight in (one, two)]
    for result in results:
        rebuild_in_backward(result)
    results[0].sum().backward()
    (grad,) = torch.autograd.grad(results[1].sum(), two)
    torch.testing.assert_close(grad, y.detach().sum(dim=(0, 2, 3)).reshape(1, 8, 1, 1).expand(4, -1, -1, -1))


def kept(values: Tensor, result: Tensor) -> bool:
    """Whether what an operation saved is the tensor it was called with."""
    rebuild_in_backward(result)
    assert result.grad_fn is not None
    return bool(result.grad_fn._saved_input.data_ptr() == values.data_ptr())


def test_other_tensors_are_kept() -> None:
    weight = torch.randn(4, 8, 1, 1, requires_grad=True)
    big, small = torch.randn(SHAPE), torch.randn(1, 8, 16, 16)
    assert kept(big, nn.functional.conv2d(big, weight))
    plain = big.clone().requires_grad_() * 2
    assert kept(plain, nn.functional.conv2d(plain, weight))
    few = symmetric(small)
    assert kept(few, nn.functional.conv2d(few, weight))
    many = symmetric(big)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        hooked = nn.functional.conv2d(many, weight)
    assert kept(many, hooked)
    assert not kept(many, nn.functional.conv2d(many, weight))


def test_without_gradients_nothing_happens() -> None:
    y = symmetric(torch.randn(SHAPE))
    with torch.no_grad():
        z = nn.functional.conv2d(y, torch.randn(4, 8, 1, 1))
    rebuild_in_backward(z)
    rebuild_in_backward({"z": z})
    assert z.grad_fn is None


def test_checkpointing_still_works() -> None:
    weight = torch.randn(4, 8, 1, 1, requires_grad=True)
    x = torch.randn(SHAPE)
    scale = torch.ones(1, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        y = fake_quantize_symmetric(x, scale, 0, 255, -1)
        z = nn.functional.conv2d(y, weight)
        rebuild_in_backward(z)
        return z.relu()

    expected = torch.autograd.grad(run(x).sum(), [weight, scale])
    ours = torch.autograd.grad(checkpoint(run, x, use_reentrant=False).sum(), [weight, scale])  # type: ignore[union-attr]
    for mine, theirs in zip(ours, expected, strict=True):
        assert torch.equal(mine, theirs)
