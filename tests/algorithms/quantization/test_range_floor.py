from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_nncf import compress
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import build_quantizer
from lightning_nncf.algorithms.quantization.range_floor import (
    LEAST,
    RangeFloor,
    asymmetric_range,
    symmetric_scale,
)


@given(exponent=st.integers(-30, 60))
def test_ranges_follow_the_scale_of_the_data(exponent: int) -> None:
    low, high = torch.tensor([-3.0, 0.25, 0.0, 2.0]), torch.tensor([1.0, 0.5, 0.0, 2.0])
    factor = 2.0**exponent
    assert torch.equal(symmetric_scale(low * factor, high * factor), symmetric_scale(low, high) * factor)
    for scaled, plain in zip(asymmetric_range(low * factor, high * factor), asymmetric_range(low, high), strict=True):
        torch.testing.assert_close(scaled, plain * factor, rtol=1e-6, atol=0)


def test_a_channel_of_zeros_gets_the_median_of_the_others() -> None:
    high = torch.tensor([0.0, 0.001, 0.004, 0.003, 1e-12])
    assert symmetric_scale(-high, high).tolist() == pytest.approx([0.003, 0.001, 0.004, 0.003, 0.003])
    low, width = asymmetric_range(torch.zeros(5), high)
    assert width.tolist() == pytest.approx([0.003, 0.001, 0.004, 0.003, 0.003])
    assert low.tolist() == pytest.approx([-0.0015, 0.0, 0.0, 0.0, -0.0015])


@pytest.mark.parametrize("value", [0.0, 1e-30, LEAST / 2])
def test_nothing_but_zeros_gives_a_range_that_can_learn(value: float) -> None:
    size = torch.tensor([value, 0.0])
    assert symmetric_scale(-size, size).tolist() == pytest.approx([0.1, 0.1])
    assert asymmetric_range(-size, size)[1].tolist() == pytest.approx([0.1, 0.1])


def test_a_constant_keeps_a_width_that_can_learn() -> None:
    low, width = asymmetric_range(torch.tensor([0.002]), torch.tensor([0.002]))
    assert width.tolist() == pytest.approx([2e-5])
    assert low.tolist() == pytest.approx([0.00199])


def waveform(floor: RangeFloor | None, std: float, **section: Any) -> float:
    """Error of a quantized network on waveforms of a standard deviation, as a share of its output."""
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 8, 9, stride=4, bias=False), nn.Conv1d(8, 8, 9, bias=False), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(8 * 17, 4, bias=False)).eval()
    x = torch.randn(8, 1, 108) * std
    with torch.no_grad():
        plain = network(x)
        initializer = {} if floor is None else {"range_floor": floor}
        config = {"compression": {"algorithm": "quantization", "initializer": initializer, **section}}
        compress(network, config, [x])
        return float((network(x) - plain).norm() / plain.norm())


@pytest.mark.parametrize(
    "section",
    [
        pytest.param({}, id="symmetric"),
        pytest.param({"preset": "mixed"}, id="asymmetric"),
        pytest.param({"weights": {"logarithm_scale": True}, "activations": {"logarithm_scale": True}}, id="logarithm"),
    ],
)
@pytest.mark.parametrize("std", [1e-3, 1e-8])
def test_small_inputs_are_quantized_as_well_as_large_ones(std: float, section: dict[str, Any]) -> None:
    assert waveform(None, std, **section) == pytest.approx(waveform(None, 1.0, **section), rel=0.02)


def test_the_floor_of_nncf_is_there_by_key() -> None:
    assert waveform("nncf", 1e-3) > 0.2 > waveform(None, 1e-3)


def test_small_channels_of_a_weight_keep_their_precision() -> None:
    weight = torch.tensor([[1.0, -0.3], [1e-3, 3e-4], [0.0, 0.0]])
    quantizer = build_quantizer(QuantizerConfig(signed=True, per_channel=True), weight.shape, 0)
    quantizer.set_range(weight.amin(1), weight.amax(1))
    error = (quantizer(weight) - weight).detach().abs().amax(1)
    assert float(error[0]) < 0.005
    assert float(error[1]) < 0.005e-3
    assert float(error[2]) == 0
