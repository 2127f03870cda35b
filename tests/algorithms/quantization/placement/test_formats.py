from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_nncf.algorithms.quantization.placement import (
    Constraints,
    GroupSettings,
    PlacementSettings,
    place_quantizers,
)
from lightning_nncf.algorithms.quantization.placement.candidates import constrain, merge_into_base, merge_single, settle
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint, QuantizationSetup
from lightning_nncf.errors import ConfigError, PlacementError
from tests.algorithms.quantization.placement.sketch import Sketch

SYM, ASYM = QuantizerConfig(), QuantizerConfig(mode="asymmetric")
SYM4 = QuantizerConfig(bits=4)
SYM_CHANNEL = QuantizerConfig(per_channel=True)


def _two_convolutions(**second: int) -> Sketch:
    net = Sketch()
    net.output(net.conv(net.block(net.input(), "a"), "b", **second))
    return net


def _points(setup: QuantizationSetup) -> dict[str, QuantizationPoint]:
    return {str(point.point): point for point in setup.points}


def test_defaults_of_cpu() -> None:
    points = _points(place_quantizers(_two_convolutions().graph))
    assert points["/input:0"].config == SYM
    weight = points["a/conv2d:0|weight1"]
    assert weight.config == QuantizerConfig(signed=True, per_channel=True, half_range=True)
    assert (weight.shape, weight.channel_axis) == ((4, 4, 3, 3), 0)


def test_defaults_of_trial() -> None:
    points = _points(place_quantizers(_two_convolutions().graph, PlacementSettings(target_device="TRIAL")))
    assert points["/input:0"].config == SYM
    assert points["a/conv2d:0|weight1"].config == QuantizerConfig(narrow_range=True)


def test_trial_takes_any_format() -> None:
    wanted = Constraints(bits=4, mode="asymmetric", per_channel=True)
    settings = PlacementSettings(target_device="TRIAL", weights=GroupSettings(constraints=wanted))
    config = _points(place_quantizers(_two_convolutions().graph, settings))["b/conv2d:0|weight1"].config
    assert config == QuantizerConfig(bits=4, mode="asymmetric", per_channel=True)


@pytest.mark.parametrize(
    ("fix", "half"),
    [("enable", (True, True)), ("disable", (False, False)), ("first_layer_only", (True, False))],
)
def test_overflow_fix(fix: str, half: tuple[bool, bool]) -> None:
    settings = PlacementSettings(overflow_fix=fix)  # type: ignore[arg-type]
    points = _points(place_quantizers(_two_convolutions().graph, settings))
    configs = [points[f"{name}/conv2d:0|weight1"].config for name in "ab"]
    assert tuple(config.half_range for config in configs) == half
    assert all(config.narrow_range != config.half_range for config in configs)
    assert [config.quant_range() for config in configs] == [(-64, 63) if each else (-127, 127) for each in half]


def test_mixed_preset_is_a_mode_per_group() -> None:
    settings = PlacementSettings(
        weights=GroupSettings(constraints=Constraints(mode="symmetric")),
        activations=GroupSettings(constraints=Constraints(mode="asymmetric")),
    )
    setup = place_quantizers(_two_convolutions().graph, settings)
    assert {point.config.mode for point in setup.points if point.kind == "activation"} == {"asymmetric"}
    assert {point.config.mode for point in setup.points if point.kind == "weight"} == {"symmetric"}


def test_depthwise_activations_are_per_tensor_unless_asked() -> None:
    net = Sketch()
    value = net.op("max_pool2d", net.block(net.input(), "a"))
    net.output(net.conv(value, "b", groups=4))
    assert not _points(place_quantizers(net.graph))["a.relu/relu:0"].config.per_channel

    def per_channel(address: str, kind: str) -> Constraints | None:
        return Constraints(per_channel=True) if (address, kind) == ("b/conv2d:0", "activation") else None

    point = _points(place_quantizers(net.graph, PlacementSettings(override=per_channel)))["a.relu/relu:0"]
    assert point.config.per_channel
    assert (point.shape, point.channel_axis) == ((1, 4, 8, 8), 1)


def test_ranges_per_channel_do_not_move_through_ops_that_move_channels() -> None:
    net = Sketch()
    net.output(net.conv(net.op("reshape", net.block(net.input(), "a")), "b"))
    wanted = GroupSettings(constraints=Constraints(per_channel=True))
    settings = PlacementSettings(target_device="TRIAL", activations=wanted)
    assert "reshape:0" in _points(place_quantizers(net.graph, settings))


def test_channels_of_a_matrix_product_are_on_the_last_axis() -> None:
    net = Sketch()
    net.output(net.op("linear", net.input((1, 8, 4)), "fc.weight", name="fc", weight_shape=(6, 4)))
    wanted = GroupSettings(constraints=Constraints(per_channel=True))
    settings = PlacementSettings(target_device="TRIAL", activations=wanted)
    assert _points(place_quantizers(net.graph, settings))["/input:0"].channel_axis == 2


def test_first_place_in_conflict_is_named() -> None:
    settings = PlacementSettings(activations=GroupSettings(constraints=Constraints(bits=4)))
    with pytest.raises(PlacementError, match=r"'a/conv2d:0'.*8-bit symmetric per tensor.*bits=4"):
        place_quantizers(_two_convolutions().graph, settings)
    settings = PlacementSettings(weights=GroupSettings(constraints=Constraints(signed=False, mode="symmetric")))
    with pytest.raises(PlacementError, match=r"weight quantizer fits at 'a/conv2d:0'.*signed=False"):
        place_quantizers(_two_convolutions().graph, settings)


def test_unknown_device_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'CPUU'.*did you mean 'CPU'"):
        place_quantizers(_two_convolutions().graph, PlacementSettings(target_device="CPUU"))


def test_setup_survives_a_checkpoint_and_repeats() -> None:
    setup = place_quantizers(_two_convolutions().graph)
    assert QuantizationSetup.from_dict(setup.to_dict()) == setup == place_quantizers(_two_convolutions().graph)


def test_input_and_weight_of_an_op_are_adjacent() -> None:
    setup = place_quantizers(_two_convolutions().graph)
    groups = [{str(setup.points[index].point) for index in group} for group in setup.adjacent]
    assert groups == [{"/input:0", "a/conv2d:0|weight1"}, {"a.relu/relu:0", "b/conv2d:0|weight1"}]


def test_merged_order_is_the_sum_of_positions_then_bits_granularity_and_mode() -> None:
    assert merge_single([(ASYM, SYM), (SYM, ASYM)]) == (SYM, ASYM)
    assert merge_single([(SYM4, SYM), (SYM, SYM4)]) == (SYM, SYM4)
    assert merge_single([(SYM_CHANNEL, SYM), (SYM, SYM_CHANNEL)]) == (SYM, SYM_CHANNEL)
    assert merge_single([(SYM4, ASYM, SYM), (SYM4, SYM, ASYM)])[0] == SYM4
    assert merge_single([(SYM,), (ASYM,)]) == ()


def test_base_of_requantization_keeps_what_every_branch_can_start_from() -> None:
    assert merge_into_base([(SYM4,), (SYM,)]) == (SYM,)
    assert merge_into_base([(ASYM,), (SYM,)]) == (ASYM,)  # asymmetric cannot follow symmetric
    assert settle((ASYM, SYM4), (SYM,)) == (SYM4,)


def test_constraints_decide_open_signs_and_reject_others() -> None:
    assert constrain((SYM, ASYM), Constraints(signed=True)) == (replace(SYM, signed=True), ASYM)
    assert constrain((replace(SYM, signed=True),), Constraints(signed=False)) == ()
