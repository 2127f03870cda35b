from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import (
    AsymmetricQuantizer,
    Quantizer,
    SymmetricQuantizer,
    build_quantizer,
)
from lightning_nncf.errors import InitializationError

SIGNED = QuantizerConfig(signed=True)
CONFIGS = {
    "signed": SIGNED,
    "unsigned": QuantizerConfig(signed=False),
    "narrow": QuantizerConfig(signed=True, narrow_range=True),
    "half range": QuantizerConfig(signed=True, half_range=True),
    "4 bits": QuantizerConfig(signed=True, bits=4),
    "2 bits": QuantizerConfig(signed=True, bits=2),
    "asymmetric": QuantizerConfig(mode="asymmetric"),
    "asymmetric narrow": QuantizerConfig(mode="asymmetric", narrow_range=True),
    "asymmetric 3 bits": QuantizerConfig(mode="asymmetric", bits=3),
}


def built(config: QuantizerConfig, low: float | list[float], high: float | list[float]) -> Quantizer:
    quantizer = build_quantizer(config, (4, 3, 2), 1)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


@pytest.mark.parametrize(
    ("per_channel", "shape", "channel_axis", "expected", "axis"),
    [
        (False, (8, 3, 5, 5), 0, (1,), -1),
        (True, (8, 3, 5, 5), 0, (8, 1, 1, 1), 0),
        (True, (8, 3, 5, 5), 1, (1, 3, 1, 1), 1),
        (True, (2, 7, 16), -1, (1, 1, 16), 2),
        (True, (1, 4, 3, 3), 0, (1, 1, 1, 1), 0),
    ],
    ids=["tensor", "conv", "transposed conv", "last axis", "one channel"],
)
@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_parameters_have_one_value_per_channel(
    mode: str, per_channel: bool, shape: tuple[int, ...], channel_axis: int, expected: tuple[int, ...], axis: int
) -> None:
    quantizer = build_quantizer(QuantizerConfig(mode=mode, per_channel=per_channel), shape, channel_axis)  # type: ignore[arg-type]
    assert {tuple(part.shape) for part in quantizer.parameters()} == {expected}
    assert quantizer.axis == axis
    assert quantizer(torch.randn(shape)).shape == shape


def test_modes_build_their_class_and_their_state() -> None:
    assert type(build_quantizer(SIGNED, (2, 2), 0)) is SymmetricQuantizer
    assert set(build_quantizer(SIGNED, (2, 2), 0).state_dict()) == {"scale"}
    asymmetric = build_quantizer(QuantizerConfig(mode="asymmetric"), (2, 2), 0)
    assert type(asymmetric) is AsymmetricQuantizer
    assert set(asymmetric.state_dict()) == {"input_low", "input_range"}


def test_a_channel_axis_outside_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`channel_axis` must be an axis of the shape \(4, 3\), got 2"):
        build_quantizer(QuantizerConfig(per_channel=True), (4, 3), 2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SIGNED, (-128, 127, 256)),
        (QuantizerConfig(signed=False), (0, 255, 256)),
        (QuantizerConfig(signed=True, narrow_range=True), (-127, 127, 255)),
        (QuantizerConfig(signed=True, half_range=True), (-64, 63, 128)),
        (QuantizerConfig(mode="asymmetric", narrow_range=True), (1, 255, 255)),
    ],
)
def test_bounds_follow_the_config(config: QuantizerConfig, expected: tuple[int, int, int]) -> None:
    quantizer = build_quantizer(config, (4,), 0)
    assert (quantizer.quant_min, quantizer.quant_max, quantizer.levels) == expected


@pytest.mark.parametrize(
    ("low", "high", "scale"), [(-3.0, 2.0, 3.0), (0.5, 2.0, 2.0), (-0.01, 2e-6, 0.01), (0, 0, 0.1)]
)
def test_a_symmetric_scale_is_the_largest_magnitude(low: float, high: float, scale: float) -> None:
    quantizer = built(SIGNED, low, high)
    assert quantizer.get_parameter("scale").item() == pytest.approx(scale)


def test_asymmetric_channels_are_widened_to_a_hundredth_of_what_they_reach() -> None:
    quantizer = built(QuantizerConfig(mode="asymmetric", per_channel=True), [-4.0, 1.0, 2.0], [6.0, 1.02, 2.0])
    # widths 10, 0.02, 0 of a reach of 10, 1.02, 2 -> the last is widened by 0.01 on both sides
    assert quantizer.get_parameter("input_low").flatten().tolist() == pytest.approx([-4.0, 1.0, 1.99])
    assert quantizer.get_parameter("input_range").flatten().tolist() == pytest.approx([10.0, 0.02, 0.02])


def test_with_the_floor_of_nncf_ranges_are_at_least_a_tenth_or_a_hundredth_of_the_widest() -> None:
    symmetric = build_quantizer(QuantizerConfig(signed=True), (4,), 0, floor="nncf")
    symmetric.set_range(torch.tensor(-0.01), torch.tensor(0.02))
    assert symmetric.get_parameter("scale").item() == pytest.approx(0.1)
    config = QuantizerConfig(mode="asymmetric", per_channel=True)
    asymmetric = build_quantizer(config, (4, 3, 2), 1, floor="nncf")
    asymmetric.set_range(torch.tensor([-4.0, 1.0, 2.0]), torch.tensor([6.0, 1.02, 2.0]))
    # widths 10, 0.02, 0 -> at least 0.1, widened by 0.04 and 0.05 on both sides
    assert asymmetric.get_parameter("input_low").flatten().tolist() == pytest.approx([-4.0, 0.96, 1.95])
    assert asymmetric.get_parameter("input_range").flatten().tolist() == pytest.approx([10.0, 0.1, 0.1])


def test_a_constant_asymmetric_tensor_keeps_a_range_that_can_learn() -> None:
    quantizer = built(QuantizerConfig(mode="asymmetric"), 0.0, 0.0)
    quantizer(torch.tensor([0.3])).sum().backward()
    grad = quantizer.get_parameter("input_range").grad
    assert grad is not None
    assert grad.item() == 1.0


@pytest.mark.parametrize(("low", "signed"), [(-0.5, True), (0.0, False), (0.25, False)])
def test_data_decide_the_sign_only_where_the_config_does_not(low: float, signed: bool) -> None:
    config = QuantizerConfig()
    quantizer = built(config, low, 1.0)
    assert quantizer.config.signed is signed
    assert quantizer.quant_min == (-128 if signed else 0)
    assert config.signed is None
    assert built(QuantizerConfig(signed=not signed), low, 1.0).config.signed is not signed


def test_one_negative_channel_makes_the_quantizer_signed() -> None:
    assert built(QuantizerConfig(per_channel=True), [0.0, -0.1, 0.0], [1.0, 1.0, 1.0]).config.signed is True


@pytest.mark.parametrize(
    ("low", "high"),
    [(float("nan"), 1.0), (-1.0, float("inf")), (-float("inf"), 1.0), (float("inf"), -float("inf")), (2.0, 1.0)],
)
@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_statistics_that_are_no_range_are_refused_and_change_nothing(mode: str, low: float, high: float) -> None:
    quantizer = build_quantizer(QuantizerConfig(mode=mode), (4,), 0)  # type: ignore[arg-type]
    before = copy.deepcopy(quantizer.state_dict())
    with pytest.raises(InitializationError, match="finite statistics with low <= high, got low"):
        quantizer.set_range(torch.tensor(low), torch.tensor(high))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_setting_a_range_keeps_the_parameter_objects() -> None:
    quantizer = build_quantizer(SIGNED, (4,), 0)
    parameters = [id(part) for part in quantizer.parameters()]
    quantizer.set_range(torch.tensor(-2.0), torch.tensor(2.0))
    assert [id(part) for part in quantizer.parameters()] == parameters
    assert all(part.requires_grad and part.is_leaf for part in quantizer.parameters())


def test_a_disabled_quantizer_returns_its_input() -> None:
    quantizer, x = built(SIGNED, -1.0, 1.0), torch.tensor([0.1234567])
    quantizer.enabled = False
    assert quantizer(x) is x
    quantizer.enabled = True
    assert quantizer(x).item() == pytest.approx(16 / 127)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_range_holds_the_smallest_and_largest_outputs(name: str) -> None:
    quantizer = built(CONFIGS[name], -0.77, 1.31)
    y = quantizer(torch.tensor([-1e4, 1e4]))
    torch.testing.assert_close(torch.cat(quantizer.range()), y.detach())


def affine(x: Tensor, quantizer: Quantizer) -> Tensor:
    """QuantizeLinear, a clip, DequantizeLinear."""
    scale, zero_point, quant_min, quant_max = quantizer.quantization_parameters()
    shape = quantizer.shape if quantizer.axis >= 0 else (1,)
    scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    integers = (torch.round(x / scale) + zero_point).clamp(quant_min, quant_max)
    return (integers - zero_point) * scale


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    per_channel=st.booleans(),
    low=st.floats(-30, 5, width=32),
    width=st.floats(0.0078125, 40, width=32),
    seed=st.integers(0, 100),
)
def test_the_exported_map_to_integers_gives_the_forward(
    name: str, per_channel: bool, low: float, width: float, seed: int
) -> None:
    config = QuantizerConfig(**{**CONFIGS[name].to_dict(), "per_channel": per_channel})
    quantizer = build_quantizer(config, (4, 3, 2), 1)
    lows = torch.tensor([low, low - 1, low / 2] if per_channel else [low])
    quantizer.set_range(lows, lows + width)
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(seed)) * (abs(low) + width)
    assert torch.equal(quantizer(x), affine(x, quantizer))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_exported_map_has_integers_that_fit_eight_bits(name: str) -> None:
    quantizer = built(CONFIGS[name], -0.77, 1.31)
    scale, zero_point, quant_min, quant_max = quantizer.quantization_parameters()
    assert (scale.shape, scale.dtype, zero_point.shape, zero_point.dtype) == ((1,), torch.float32, (1,), torch.int32)
    assert not scale.requires_grad
    assert quant_min <= zero_point.item() <= quant_max
    assert (quant_min, quant_max) == CONFIGS[name].quant_range()
    if CONFIGS[name].mode == "symmetric":
        assert zero_point.item() == 0


def test_the_zero_point_of_an_asymmetric_range_worked_by_hand() -> None:
    # 255 steps of 0.01 from -0.55: zero is the 55th level
    scale, zero_point, quant_min, quant_max = built(
        QuantizerConfig(mode="asymmetric"), -0.55, 2.0
    ).quantization_parameters()
    assert scale.item() == pytest.approx(0.01)
    assert (zero_point.item(), quant_min, quant_max) == (55, 0, 255)


@pytest.mark.parametrize("name", ["signed", "asymmetric"])
def test_copies_and_state_restore_the_quantizer(name: str) -> None:
    quantizer, x = built(CONFIGS[name], -0.3, 1.7), torch.randn(5)
    fresh = build_quantizer(quantizer.config, (4, 3, 2), 1)
    fresh.load_state_dict(quantizer.state_dict())
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), fresh):
        assert torch.equal(other(x), quantizer(x))
        assert other.config == quantizer.config


def test_a_module_in_half_precision_still_quantizes() -> None:
    quantizer = built(SIGNED, -1.0, 1.0).to(torch.bfloat16)
    y = quantizer(torch.tensor([0.5, 3.0], dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert y.tolist() == pytest.approx([64 / 127, 1.0], rel=0.01)


def test_training_moves_the_range_to_the_data() -> None:
    torch.manual_seed(0)
    quantizer = built(QuantizerConfig(mode="asymmetric", bits=4), -0.2, 0.2)
    x = torch.rand(512) * 3 - 1
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)

    def error() -> Tensor:
        loss: Tensor = (quantizer(x) - x).square().mean()
        return loss

    first = error().item()
    for _ in range(100):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < first / 50


def test_the_representation_names_the_number_format() -> None:
    assert "bits=8, -128..127, per tensor" in repr(build_quantizer(SIGNED, (4,), 0))
    assert "axis=1" in repr(build_quantizer(QuantizerConfig(per_channel=True), (4, 3), 1))


def test_the_quantizer_compiles_in_one_graph() -> None:
    quantizer, x = built(SIGNED, -1.0, 1.0), torch.randn(6)
    compiled = torch.compile(quantizer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), quantizer(x))
    quantizer.enabled = False
    assert torch.equal(compiled(x), x)
