from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lightning_nncf
from lightning_nncf.hooks import call_hooks
from lightning_nncf.ops import data_ranges, fake_quantize_asymmetric, fake_quantize_symmetric
from lightning_nncf.ops.data_ranges import is_quantized_data, learn_through_weight

Quantize = Callable[[Tensor, list[Tensor], int], Tensor]


def symmetric(x: Tensor, ranges: list[Tensor], axis: int) -> Tensor:
    return fake_quantize_symmetric(x, ranges[0], -128, 127, axis)


def asymmetric(x: Tensor, ranges: list[Tensor], axis: int) -> Tensor:
    return fake_quantize_asymmetric(x, ranges[0], ranges[1], 256, axis)


def ranges_of(axis: int, channels: int) -> list[Tensor]:
    """Return ranges that cut off some of the values of a normal distribution, for either kind of quantizer."""
    count = channels if axis >= 0 else 1
    generator = torch.Generator().manual_seed(3)
    low = -1.1 - 0.2 * torch.rand(count, generator=generator, dtype=torch.float64)
    return [low.requires_grad_(), (-low.detach() + 0.9).requires_grad_()]


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    lightning_nncf.compress(network, {"compression": {"algorithm": "quantization"}}, [torch.rand(4, 3, 16, 16)])
    return network.train()


def input_scale(network: nn.Module) -> nn.Parameter:
    (found,) = [parameter for name, parameter in network.named_parameters() if name.startswith("0.lnncf_in")]
    return found


@pytest.mark.parametrize("quantize", [symmetric, asymmetric], ids=lambda each: each.__name__)
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(4, 6, 7, stride=2, padding=3), (17, 19)),
        (nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False), (9, 9)),
        (nn.Conv1d(4, 6, 3, padding="same"), (21,)),
        (nn.Conv3d(4, 4, 2, groups=4), (5, 6, 7)),
    ],
    ids=str,
)
def test_the_range_has_the_gradient_that_the_input_would_give(
    quantize: Quantize, axis: int, layer: nn.Module, size: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    layer = copy.deepcopy(layer).double()
    data = torch.randn(3, 4, *size, dtype=torch.float64)
    gradients = []
    for through_weight in (False, True):
        ranges = ranges_of(axis, 4)
        x = quantize(data, ranges, axis)
        assert is_quantized_data(x)
        if through_weight:
            y = learn_through_weight(layer(x.detach()), x)
            assert y is not None
        else:
            y = layer(x)
        layer.zero_grad()
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape)).sum().backward()
        used = ranges if quantize is asymmetric else ranges[:1]
        gradients.append([parameter.grad for parameter in (*used, *layer.parameters())])
    for theirs, mine in zip(*gradients, strict=True):
        assert theirs is not None
        assert mine is not None
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_only_quantized_data_counts() -> None:
    scale = torch.ones(1, requires_grad=True)
    data = torch.rand(1, 3, 4, 4)
    assert not is_quantized_data(data)
    assert not is_quantized_data(fake_quantize_symmetric(data.requires_grad_(), scale, 0, 255, -1))
    assert not is_quantized_data(fake_quantize_symmetric(data.detach().bfloat16(), scale, 0, 255, -1))
    x = fake_quantize_symmetric(data.detach(), scale, 0, 255, -1)
    assert is_quantized_data(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_quantized_data(x)


def test_a_network_takes_this_way_and_gets_the_same_gradients(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, images = copy.deepcopy(network), torch.rand(4, 3, 16, 16)
    learned = []
    follow = data_ranges.learn_through_weight
    monkeypatch.setattr(call_hooks, "learn_through_weight", lambda *args: learned.append(1) or follow(*args))
    network(images).square().mean().backward()
    assert learned == [1]
    monkeypatch.setattr(call_hooks, "is_quantized_data", lambda x: False)
    other(images).square().mean().backward()
    assert learned == [1]
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert theirs.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("change", ["hook", "padding"])
def test_a_layer_that_does_more_than_to_convolve_learns_as_before(
    network: nn.Sequential, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, images = network[0], torch.rand(4, 3, 16, 16)
    if change == "hook":
        layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    else:
        layer.padding_mode = "reflect"
    other = copy.deepcopy(network)
    for _ in range(2):
        network(images).square().mean().backward()
    monkeypatch.setattr(call_hooks, "is_quantized_data", lambda x: False)
    for _ in range(2):
        other(images).square().mean().backward()
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_padding_by_another_rule_is_no_part_of_the_convolution() -> None:
    layer, scale = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), torch.ones(1, requires_grad=True)
    x = fake_quantize_symmetric(torch.rand(1, 3, 8, 8), scale, 0, 255, -1)
    assert learn_through_weight(layer(x.detach()), x) is None


def test_a_second_derivative_by_the_range_is_an_error() -> None:
    layer, scale = nn.Conv2d(3, 4, 3), torch.ones(1, requires_grad=True)
    x = fake_quantize_symmetric(torch.rand(1, 3, 8, 8), scale, 0, 255, -1)
    y = learn_through_weight(layer(x.detach()), x)
    assert y is not None
    (first,) = torch.autograd.grad(y.square().sum(), scale, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_checkpointed_first_layer_learns_its_range(network: nn.Sequential) -> None:
    images, other = torch.rand(4, 3, 16, 16), copy.deepcopy(network)
    network(images).square().mean().backward()
    torch.utils.checkpoint.checkpoint(other, images, use_reentrant=False).square().mean().backward()
    torch.testing.assert_close(input_scale(other).grad, input_scale(network).grad)
