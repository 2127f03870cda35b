from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.initialization.bias_correction import (
    BiasTarget,
    bias_targets,
    correct_biases,
)
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.capture.trace import trace
from lightning_nncf.core.compression import compress


def _quantized(network: nn.Module, data: list[Tensor], *, bits: int = 8, **initializer: Any) -> nn.Module:
    section = {
        "algorithm": "quantization",
        "weights": {"bits": bits, "per_channel": True},
        "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}, **initializer},
    }
    compress(network, {"target_device": "TRIAL", "compression": section}, data)
    return network.eval()


def _calibration(network: nn.Module, batches: list[Tensor], **settings: Any) -> CalibrationData:
    forward: Callable[[Tensor], object] = network
    return CalibrationData(batches=batches, forward=forward, batch_size=len, **settings)


def _quantizers(network: nn.Module) -> list[Quantizer]:
    return [module for module in network.modules() if isinstance(module, Quantizer)]


def _targets(network: nn.Module, x: Tensor) -> list[BiasTarget]:
    """Find targets as if every weight were quantized."""
    from lightning_nncf.algorithms.quantization.placement import place_quantizers
    from lightning_nncf.algorithms.quantization.placement.settings import PlacementSettings

    graph = trace(network, lambda: network(x))
    setup: QuantizationSetup = place_quantizers(graph, PlacementSettings())
    return bias_targets(network, graph, setup)


def test_shift_is_the_mean_of_what_rounding_took_away() -> None:
    # 2 bits, scale 1: 0.7 is rounded to 1 and -0.2 to 0. Behind inputs of mean 2 and 4 the float layer gives
    # 0.7 * 2 - 0.2 * 4 = 0.6, the quantized one 1 * 2 + 0 * 4 = 2, so the bias of 3 falls by 1.4.
    network = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.7, -0.2]]))
        network[0].bias.fill_(3.0)
    data = [torch.tensor([[1.0, 3.0], [3.0, 5.0]])]
    _quantized(network, data, bits=2)
    (weight,) = [q for q in _quantizers(network) if q.config.bits == 2]
    with torch.no_grad():
        weight.scale.fill_(1.0)
    others = [q for q in _quantizers(network) if q is not weight]
    for quantizer in others:
        quantizer.enabled = False
    assert correct_biases(network, [BiasTarget(layer="0")], [weight], _calibration(network, data), 2) == 1
    torch.testing.assert_close(network[0].bias.detach(), torch.tensor([1.6]))


class _Branches(nn.Module):
    """A layer with a bias, one with a batch norm behind it, and one with neither."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.third = nn.Conv2d(8, 8, 1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.norm(self.second(x)))
        return self.head(F.relu(self.third(x)).mean((2, 3)))


def test_targets_are_in_order_and_say_what_takes_the_shift() -> None:
    assert _targets(_Branches().eval(), torch.randn(2, 3, 8, 8)) == [
        BiasTarget(layer="first"),
        BiasTarget(layer="second", norm="norm"),
        BiasTarget(layer="third", correctable=False),
        BiasTarget(layer="head"),
    ]


def test_norm_of_two_layers_takes_no_shift() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(3, 8, 3, bias=False)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.one(x)) + self.norm(self.two(x))

    targets = _targets(Shared().eval(), torch.randn(2, 3, 8, 8))
    assert [(target.norm, target.correctable) for target in targets] == [(None, False), (None, False)]


def test_means_behind_every_corrected_layer_are_those_of_float() -> None:
    torch.manual_seed(0)
    network, data = _Branches().eval(), [torch.randn(8, 3, 8, 8) for _ in range(4)]
    network.norm.running_mean.normal_()
    expected = {name: _mean_behind(network, name, data) for name in ("first", "norm", "head")}
    _quantized(network, data, bits=3, bias_correction={"num_samples": 32})
    # A layer in front of another never changes again, so all corrections hold in the end.
    for name, mean in expected.items():
        torch.testing.assert_close(_mean_behind(network, name, data), mean, rtol=1e-5, atol=1e-6)


def _mean_behind(network: nn.Module, name: str, data: list[Tensor]) -> Tensor:
    """Return the mean of each channel behind a module, before any quantizer there."""
    outputs: list[Tensor] = []  # what a hook computes itself would be taken for operations of the network
    handle = network.get_submodule(name).register_forward_hook(lambda *call: outputs.append(call[-1]), prepend=True)
    with torch.no_grad():
        for x in data:
            network(x)
    handle.remove()
    return torch.stack([output.double().transpose(0, 1).flatten(1).mean(1) for output in outputs]).mean(0)


def test_error_of_the_output_falls() -> None:
    torch.manual_seed(0)
    data, errors = [torch.rand(16, 3, 8, 8) for _ in range(4)], []
    state = _Branches().state_dict()
    for settings in ({}, {"bias_correction": {"num_samples": 64}}):
        network = _Branches().eval()
        network.load_state_dict(state)
        expected = network(data[0]).detach()
        _quantized(network, data, bits=3, **settings)
        errors.append((network(data[0]) - expected).square().mean().item())
    assert errors[1] < 0.5 * errors[0]


def test_processes_agree_on_the_mean_over_all_samples() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    state = _Branches().state_dict()

    def corrected(mine: Tensor, other: Tensor | None) -> Tensor:
        network = _Branches().eval()
        network.load_state_dict(state)
        _quantized(network, [x], bits=3)
        twin = None if other is None else iter(_sums_of(state, x, other))

        def reduce(values: Tensor, operation: Literal["sum", "min", "max"]) -> Tensor:
            assert operation == "sum"
            assert twin is not None
            return values + (next(twin) if values.dtype == torch.float64 else values)

        data = _calibration(network, [mine], reduce=None if other is None else reduce)
        correct_biases(network, [BiasTarget(layer="first")], _quantizers(network), data, len(mine))
        return network.first.bias.detach()

    torch.testing.assert_close(corrected(x[:3], x[3:]), corrected(x, None), rtol=1e-6, atol=1e-7)


def _sums_of(state: dict[str, Tensor], x: Tensor, part: Tensor) -> list[Tensor]:
    """What another process, with its own part of the data, contributes to the reductions."""
    network, found = _Branches().eval(), []
    network.load_state_dict(state)
    _quantized(network, [x], bits=3)

    def reduce(values: Tensor, operation: str) -> Tensor:
        if values.dtype == torch.float64:
            found.append(values.clone())
        return values

    data = _calibration(network, [part], reduce=reduce)
    correct_biases(network, [BiasTarget(layer="first")], _quantizers(network), data, len(part))
    return found


def test_layer_that_no_sample_reaches_keeps_its_bias() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) if x.sum() < 100 else self.other(x)

    network = Unused().eval()
    before = network.other.bias.detach().clone()
    targets = [BiasTarget(layer="other"), BiasTarget(layer="used")]
    assert correct_biases(network, targets, [], _calibration(network, [torch.ones(4, 2)]), 4) == 1
    assert torch.equal(network.other.bias.detach(), before)


@pytest.mark.parametrize("shuffle_seed", [0, 1])
def test_every_pass_sees_the_same_shuffled_samples(shuffle_seed: int) -> None:
    """Without quantizers nothing differs between the passes, unless they see different samples."""

    class Shuffled:
        def __iter__(self) -> Any:
            return iter(torch.randn(3, 4, 2))

    torch.manual_seed(shuffle_seed)
    network = nn.Sequential(nn.Linear(2, 2))
    before = network[0].bias.detach().clone()
    data = CalibrationData(batches=Shuffled(), forward=network, batch_size=len)
    correct_biases(network, [BiasTarget(layer="0")], [], data, 12)
    torch.testing.assert_close(network[0].bias.detach(), before)
