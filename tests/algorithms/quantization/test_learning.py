from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_nncf import compress
from lightning_nncf.algorithms.quantization.learning import RangeLearning
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode, QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer

MODES: tuple[QuantizationMode, ...] = ("symmetric", "asymmetric")


def built(mode: QuantizationMode, **learning: Any) -> Quantizer:
    config = QuantizerConfig(bits=4, mode=mode, signed=True)
    quantizer = build_quantizer(config, (4, 3), 0, RangeLearning(**learning))
    quantizer.set_range(torch.tensor(-1.3), torch.tensor(2.7))
    return quantizer


def gradients(quantizer: Quantizer) -> dict[str, torch.Tensor]:
    x = torch.linspace(-4, 4, 24).reshape(4, 6)
    (quantizer(x) * torch.arange(24.0).reshape(4, 6)).sum().backward()
    return {name: part.grad for name, part in quantizer.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("mode", MODES)
def test_a_logarithm_changes_neither_values_nor_state_but_the_gradient(mode: QuantizationMode) -> None:
    plain, logarithmic = built(mode), built(mode, logarithm=True)
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(logarithmic(x), plain(x))
    torch.testing.assert_close(logarithmic.range(), plain.range())
    torch.testing.assert_close(logarithmic.quantization_parameters(), plain.quantization_parameters())
    state = logarithmic.state_dict()
    assert list(state) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name], value, check_dtype=False)
    linear, relative = gradients(plain), gradients(logarithmic)
    # d/d log(w) = w * d/dw
    width = plain.get_parameter(plain.width).detach()
    torch.testing.assert_close(relative[plain.width], linear[plain.width] * width)


@pytest.mark.parametrize("mode", MODES)
@given(value=st.floats(-60, 60, width=32))
def test_a_logarithm_survives_its_state_dict_to_the_bit(mode: QuantizationMode, value: float) -> None:
    if abs(value) < 2**-28:
        value = 0.0  # a range that differs from 1 by less is 1 in single precision
    first, second = built(mode, logarithm=True), built(mode, logarithm=True)
    first.get_parameter(first.width).data.fill_(value)
    second.load_state_dict(first.state_dict())
    assert second.get_parameter(first.width).tolist() == [value]


def test_a_linear_state_loads_into_a_logarithm() -> None:
    quantizer = built("symmetric", logarithm=True)
    quantizer.load_state_dict({"scale": torch.tensor([-2.0])})  # the sign of a linear scale has no meaning
    assert quantizer.range()[1].tolist() == pytest.approx([2.0])


@pytest.mark.parametrize("mode", MODES)
def test_lsq_divides_by_the_root_of_values_times_quant_max(mode: QuantizationMode) -> None:
    plain, scaled = gradients(built(mode)), gradients(built(mode, lsq_values=24))
    quant_max = 7 if mode == "symmetric" else 15
    for name, gradient in plain.items():
        torch.testing.assert_close(scaled[name], gradient / (24 * quant_max) ** 0.5)


def test_a_copied_quantizer_keeps_its_gradient() -> None:
    quantizer = built("symmetric", multiplier=0.5)
    torch.testing.assert_close(gradients(copy.deepcopy(quantizer)), gradients(quantizer))
    torch.testing.assert_close(
        gradients(built("symmetric"))["scale"] * 0.5, gradients(built("symmetric", multiplier=0.5))["scale"]
    )


def range_gradients(root: dict[str, Any], **section: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.rand(8, 3, 6, 6)
    initializer = {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}}
    compress(
        network, {**root, "compression": {"algorithm": "quantization", "initializer": initializer, **section}}, [x]
    )
    network(x).square().mean().backward()
    return {name: part.grad for name, part in network.named_parameters() if "lnncf" in name and part.grad is not None}


@pytest.mark.parametrize(
    ("root", "section"),
    [
        ({"compression_lr_multiplier": 0.5}, {}),
        ({"compression_lr_multiplier": 9.0}, {"compression_lr_multiplier": 0.5}),
    ],
    ids=["root", "own wins"],
)
def test_compression_lr_multiplier_reaches_every_range(root: dict[str, Any], section: dict[str, Any]) -> None:
    plain, scaled = range_gradients({}), range_gradients(root, **section)
    assert plain
    assert all(bool(gradient.any()) for gradient in plain.values())
    torch.testing.assert_close(scaled, {name: gradient * 0.5 for name, gradient in plain.items()})


def test_lsq_counts_weights_per_channel_and_activations_per_sample() -> None:
    plain, scaled = range_gradients({}), range_gradients({}, gradient="lsq")
    ratios = {name: float((scaled[name] / plain[name]).flatten()[0]) for name in plain}
    expected = {
        "0.lnncf_weight.quantization.scale": (27 * 63) ** -0.5,
        "0.lnncf_in.quantization.scale": (108 * 255) ** -0.5,
        "3.lnncf_weight.quantization.scale": (64 * 63) ** -0.5,
    }
    assert {name: ratios.get(name) for name in expected} == {
        name: pytest.approx(ratio) for name, ratio in expected.items()
    }
