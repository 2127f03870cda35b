from __future__ import annotations

from typing import Any

import pytest

from lightning_nncf.algorithms.quantization.placement import (
    Constraints,
    GroupSettings,
    PlacementSettings,
    place_quantizers,
)
from lightning_nncf.graph.graph import InsertionPoint
from tests.algorithms.quantization.placement.sketch import Sketch, activations, weights

NNCF = PlacementSettings(quantize_after_convolutions=False)


def test_quantizer_moves_through_agnostic_ops_to_the_producer() -> None:
    net = Sketch()
    value = net.block(net.input(), "first")
    value = net.op("dropout", net.op("max_pool2d", value))
    net.output(net.conv(value, "second"))
    found = activations(place_quantizers(net.graph))
    assert found == {"/input:0": ("first/conv2d:0",), "first.relu/relu:0": ("second/conv2d:0",)}


@pytest.mark.parametrize(
    ("attributes", "place"),
    [({}, "first.relu/relu:0"), ({"value": 0.0}, "first.relu/relu:0"), ({"value": 1.0}, "pad:0")],
    ids=["default", "zero", "one"],
)
def test_quantizer_stays_behind_padding_with_a_value_that_its_grid_may_lack(
    attributes: dict[str, float], place: str
) -> None:
    net = Sketch()
    value = net.op("pad", net.block(net.input(), "first"), pad=[1, 1], **attributes)
    net.output(net.conv(value, "second"))
    assert activations(place_quantizers(net.graph))[place] == ("second/conv2d:0",)


def test_division_keeps_full_precision_because_a_small_divisor_would_become_zero() -> None:
    net = Sketch()
    value = net.op("div", net.block(net.input(), "first"), net.block(net.input(), "second"))
    net.output(net.conv(value, "third"))
    found = activations(place_quantizers(net.graph, NNCF))
    assert found["div:0"] == ("third/conv2d:0",)
    assert not any("div:0" in ops for ops in found.values())


def test_no_quantizer_comes_between_fused_ops() -> None:
    net = Sketch()
    value = net.op("relu6", net.op("batch_norm", net.conv(net.input(), "first"), (4,)))
    net.output(net.conv(value, "second"))
    assert list(activations(place_quantizers(net.graph))) == ["/input:0", "relu6:0"]


def test_convolution_is_quantized_before_an_activation_that_does_more_than_clip() -> None:
    net = Sketch()
    value = net.op("sigmoid", net.op("batch_norm", net.conv(net.input(), "first"), (4,)))
    net.output(net.conv(value, "second"))
    assert list(activations(place_quantizers(net.graph))) == ["/input:0", "batch_norm:0", "sigmoid:0"]


def test_fusing_needs_a_single_consumer() -> None:
    net = Sketch()
    first = net.conv(net.input(), "first")
    net.output(net.op("add", net.conv(net.op("relu", first), "second"), net.conv(first, "third")))
    found = activations(place_quantizers(net.graph))
    assert set(found["first/conv2d:0"]) == {"second/conv2d:0", "third/conv2d:0"}
    assert "relu:0" not in found


def test_residual_block_has_one_quantizer_per_tensor() -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    branch = net.op("batch_norm", net.conv(net.block(value, "a"), "b"), (4,), name="b.bn")
    value = net.op("relu", net.op("__iadd__", branch, value, name="block"), name="last")
    net.output(net.op("linear", net.op("adaptive_avg_pool2d", value, name="pool"), "fc.weight", name="fc"))
    found = activations(place_quantizers(net.graph))
    assert {place: set(ops) for place, ops in found.items()} == {
        "/input:0": {"stem/conv2d:0"},
        "stem.relu/relu:0": {"a/conv2d:0", "block/__iadd__:0"},
        "a.relu/relu:0": {"b/conv2d:0"},
        "b.bn/batch_norm:0": {"block/__iadd__:0"},
        "last/relu:0": {"pool/adaptive_avg_pool2d:0"},
        "pool/adaptive_avg_pool2d:0": {"fc/linear:0"},
    }


def test_branch_that_needs_precision_keeps_quantizers_at_the_other_branches() -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    net.output(net.conv(value, "a"))
    net.output(net.conv(value, "b"))
    net.output(net.op("softmax", value))
    setup = place_quantizers(net.graph, NNCF)
    assert [place for place in activations(setup) if place != "/input:0"] == ["a/conv2d:0#0", "b/conv2d:0#0"]
    assert len(setup.unified) == 1  # one tensor, one scale


def test_tensor_that_the_network_returns_stays_exact() -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    net.output(net.conv(value, "a"))
    net.output(value)
    assert list(activations(place_quantizers(net.graph))) == ["/input:0", "a/conv2d:0#0"]


def test_quantize_outputs_puts_a_quantizer_at_each_output() -> None:
    net = Sketch()
    net.output(net.conv(net.input(), "a"))
    found = activations(place_quantizers(net.graph, PlacementSettings(quantize_outputs=True)))
    assert found["a/conv2d:0"] == ("/output:0",)


def test_quantize_inputs_can_be_switched_off() -> None:
    net = Sketch()
    value = net.block(net.op("pad", net.input()), "a")
    net.output(net.conv(value, "b"))
    setup = place_quantizers(net.graph, PlacementSettings(quantize_inputs=False))
    assert list(activations(setup)) == ["a.relu/relu:0"]
    assert len(weights(setup)) == 2


def test_concat_inputs_share_one_scale() -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    parts = [net.block(value, "a"), net.block(value, "b")]
    net.output(net.conv(net.op("cat", *parts), "c"))
    setup = place_quantizers(net.graph)
    places = [str(setup.points[index].point) for index in setup.unified[0]]
    assert places == ["a.relu/relu:0", "b.relu/relu:0"]
    assert len(setup.unified) == 1


def test_concat_with_a_constant_is_quantized_behind() -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    net.output(net.conv(net.op("cat", value, (1, 1, 8, 8)), "c"))
    assert "cat:0" in activations(place_quantizers(net.graph))


def test_groups_of_two_concats_join_where_they_share_an_input() -> None:
    net = Sketch()
    x = net.block(net.input(), "x")
    y, z = net.block(x, "y"), net.block(x, "z")
    net.output(net.conv(net.op("cat", x, y), "a"))
    net.output(net.conv(net.op("cat", x, z), "b"))
    setup = place_quantizers(net.graph)
    groups = [[str(setup.points[index].point) for index in group] for group in setup.unified]
    assert groups == [["x.relu/relu:0", "y.relu/relu:0", "z.relu/relu:0"]]


def test_split_passes_one_quantizer_for_all_parts() -> None:
    net = Sketch()
    value = net.op("linear", net.input((1, 8, 4)), "qkv.weight", name="qkv", weight_shape=(12, 4))
    q, k, v = net.op("chunk", value, outputs=3)
    net.output(net.op("scaled_dot_product_attention", q, k, v))
    found = activations(place_quantizers(net.graph))
    assert found["qkv/linear:0"] == ("scaled_dot_product_attention:0",)
    assert len(found) == 2


def test_ignored_op_keeps_precision_and_blocks() -> None:
    net = Sketch()
    value = net.op("max_pool2d", net.block(net.input(), "a"))
    net.output(net.conv(value, "b"))
    settings = PlacementSettings(ignored=lambda address: address in ("max_pool2d:0", "a/conv2d:0"))
    setup = place_quantizers(net.graph, settings)
    assert list(activations(setup)) == ["max_pool2d:0"]
    assert weights(setup) == ["b/conv2d:0|weight1"]


def test_target_allows_nothing_else() -> None:
    net = Sketch()
    net.output(net.conv(net.block(net.input(), "a"), "b"))
    setup = place_quantizers(net.graph, PlacementSettings(target=lambda address: address.startswith("b/")))
    assert list(activations(setup)) == ["a.relu/relu:0"]
    assert weights(setup) == ["b/conv2d:0|weight1"]


def test_group_ignored_scopes_touch_one_group() -> None:
    net = Sketch()
    net.output(net.conv(net.block(net.input(), "a"), "b"))
    ignoring = GroupSettings(ignored=lambda address: address.startswith("b"))
    setup = place_quantizers(net.graph, PlacementSettings(weights=ignoring))
    assert weights(setup) == ["a/conv2d:0|weight1"]
    assert len(activations(setup)) == 2
    setup = place_quantizers(net.graph, PlacementSettings(activations=ignoring))
    assert len(weights(setup)) == 2
    assert list(activations(setup)) == ["/input:0"]


def test_integers_are_never_quantized() -> None:
    net = Sketch()
    ids = net.input((1, 8), dtype="int64")
    mask = net.op("__mul__", net.op("__sub__", net.op("to", ids), ()), ())
    value = net.op("embedding", ids, "table.weight", name="table", shape=(1, 8, 4), weight_shape=(10, 4))
    value = net.op("linear", value, "fc.weight", name="fc", weight_shape=(4, 4))
    net.output(net.op("linear", net.op("__add__", value, mask), "head.weight", name="head", weight_shape=(4, 4)))
    found = activations(place_quantizers(net.graph))
    assert set(found) == {"__add__:0"}  # the table's weight quantizer serves `fc`, the mask is no activation


def test_in_place_ops_are_quantized_behind_where_their_result_may_be_dropped() -> None:
    net = Sketch()
    a = net.block(net.input(), "a")
    value = net.op("copy_", net.op("new_zeros"), a)
    net.output(net.conv(value, "c"))
    assert "c/conv2d:0#0" in activations(place_quantizers(net.graph, NNCF))


def test_quantizer_steps_back_to_the_last_place_that_accepts_it() -> None:
    net = Sketch()
    value = net.op("max_pool2d", net.block(net.input(), "a"))
    net.output(net.conv(value, "b"))
    closed = {
        InsertionPoint(kind="output", address="a.relu/relu:0"),
        InsertionPoint(kind="input", address="max_pool2d:0"),
    }
    settings = PlacementSettings(accepts=lambda point: point not in closed)
    assert list(activations(place_quantizers(net.graph, settings))) == ["/input:0", "max_pool2d:0"]


def test_ops_of_training_alone_are_left_out() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    net.output(net.conv(value, "b"))
    net.op("conv2d", value, "aux.weight", name="aux", modes=frozenset({"train"}))
    net.op("softmax", value, modes=frozenset({"train"}))
    setup = place_quantizers(net.graph)
    assert weights(setup) == ["a/conv2d:0|weight1", "b/conv2d:0|weight1"]
    assert "a.relu/relu:0" in activations(setup)


@pytest.mark.parametrize("merge", ["single", "requantize"])
def test_formats_that_agree_nowhere(merge: str, caplog: pytest.LogCaptureFixture) -> None:
    net = Sketch()
    value = net.block(net.input(), "stem")
    net.output(net.conv(value, "a"))
    net.output(net.conv(value, "b"))

    def four_bits_for_b(address: str, kind: str) -> Constraints | None:
        return Constraints(bits=4) if address.startswith("b/") else None

    given: dict[str, Any] = {"override": four_bits_for_b, "merge": merge}
    settings = PlacementSettings(target_device="TRIAL", quantize_after_convolutions=False, **given)
    setup = place_quantizers(net.graph, settings)
    bits = {str(point.point): point.config.bits for point in setup.points if point.kind == "activation"}
    if merge == "single":
        assert bits == {"/input:0": 8, "a/conv2d:0#0": 8, "b/conv2d:0#0": 4}
        assert "share no quantizer format" in caplog.text
    else:
        assert bits == {"/input:0": 8, "stem.relu/relu:0": 8, "b/conv2d:0#0": 4}
