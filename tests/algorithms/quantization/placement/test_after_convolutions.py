"""Quantizers behind convolutions whose results are used in full precision, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_nncf.algorithms.quantization.placement import GroupSettings, PlacementSettings, place_quantizers
from tests.algorithms.quantization.placement.sketch import Sketch, activations

ASKED = PlacementSettings()
NOT_ASKED = PlacementSettings(quantize_after_convolutions=False)


def _forked() -> Sketch:
    """Draw a convolution whose result goes to another and to a norm that no device computes in integers."""
    net = Sketch()
    value = net.block(net.input(), "stem")
    net.output(net.op("__add__", net.conv(value, "a"), net.conv(net.op("fancy", value), "b")))
    return net


def test_one_quantizer_serves_all_that_take_the_result() -> None:
    assert set(activations(place_quantizers(_forked().graph, ASKED))) == {"/input:0", "stem.relu/relu:0", "fancy:0"}
    without = {"/input:0", "a/conv2d:0#0", "fancy:0"}
    assert set(activations(place_quantizers(_forked().graph, NOT_ASKED))) == without


def test_quantizer_stands_before_ops_that_move_values() -> None:
    net = Sketch()
    patches = net.op("transpose", net.op("flatten", net.conv(net.input(), "patches")))
    net.output(net.op("linear", net.op("fancy", patches), "fc.weight", name="fc", weight_shape=(8, 8)))
    found = activations(place_quantizers(net.graph, ASKED))
    assert found["patches/conv2d:0"] == ("flatten:0",)
    assert "patches/conv2d:0" not in activations(place_quantizers(net.graph, NOT_ASKED))


@pytest.mark.parametrize("device", ["GPU", "NPU", "VPU"])
def test_devices_that_need_no_quantizer_behind_a_convolution_get_none(device: str) -> None:
    assert "stem.relu/relu:0" not in activations(
        place_quantizers(_forked().graph, PlacementSettings(target_device=device))
    )


def test_transposed_convolution_gets_none() -> None:
    net = Sketch()
    value = net.op("fancy", net.op("conv_transpose2d", net.input(), "up.weight", name="up"))
    net.output(net.conv(value, "b"))
    assert "up/conv_transpose2d:0" not in activations(place_quantizers(net.graph, ASKED))


def test_last_convolution_and_what_the_network_returns_stay_exact() -> None:
    net = Sketch()
    value = net.conv(net.input(), "a")
    net.output(net.op("flatten", value))
    net.output(net.op("fancy", net.conv(net.op("fancy", value), "last")))
    assert set(activations(place_quantizers(net.graph, ASKED))) == {"/input:0", "fancy:0"}


def test_op_that_the_user_ignores_gets_full_precision() -> None:
    settings = replace(ASKED, ignored=lambda address: address.startswith("fancy"))
    assert "stem.relu/relu:0" not in activations(place_quantizers(_forked().graph, settings))


def test_convolution_whose_weight_is_not_quantized_gets_none() -> None:
    settings = replace(ASKED, weights=GroupSettings(ignored=lambda address: address.startswith("stem")))
    assert "stem.relu/relu:0" not in activations(place_quantizers(_forked().graph, settings))
