from __future__ import annotations

from lightning_nncf.algorithms.quantization.placement import PlacementSettings, place_quantizers
from tests.algorithms.quantization.placement.sketch import Sketch, Value, activations, weights


def test_arithmetic_on_the_input_is_not_quantized() -> None:
    net = Sketch()
    value = net.op("__truediv__", net.op("__sub__", net.input(), (3, 1, 1)), (3, 1, 1))
    net.output(net.conv(value, "a"))
    assert list(activations(place_quantizers(net.graph))) == ["__truediv__:0"]


def test_boxes_made_from_a_head_are_not_quantized() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    deltas = net.op("permute", net.conv(value, "head"))
    centers = net.op("__add__", net.op("__mul__", net.op("__truediv__", deltas, ()), (4,)), (4,))
    sizes = net.op("__mul__", net.op("exp", deltas), (4,))
    boxes = net.op("stack", net.op("__sub__", centers, sizes), net.op("__add__", centers, sizes))
    net.output(net.op("mean", boxes))
    assert list(activations(place_quantizers(net.graph))) == ["/input:0", "a.relu/relu:0"]


def test_coordinates_of_pooled_regions_keep_precision_and_features_do_not() -> None:
    net = Sketch()
    features = net.block(net.input(), "backbone")
    boxes = net.op("__mul__", net.conv(features, "rpn"), (4,))
    pooled = net.op("roi_align", features, boxes)
    net.output(net.op("linear", pooled, "fc.weight", name="fc", weight_shape=(4, 8)))
    found = activations(place_quantizers(net.graph))
    assert set(found["backbone.relu/relu:0"]) == {"rpn/conv2d:0", "roi_align:0"}
    assert set(found) == {"/input:0", "backbone.relu/relu:0", "roi_align:0"}


def test_pooling_after_the_last_convolution_is_quantized() -> None:
    net = Sketch()
    net.output(net.op("flatten", net.op("adaptive_avg_pool2d", net.block(net.input(), "a"))))
    assert "a.relu/relu:0" in activations(place_quantizers(net.graph))


def test_mean_of_a_loss_is_not_quantized() -> None:
    net = Sketch()
    error = net.op("__sub__", net.conv(net.input(), "a"), net.input())
    net.output(net.op("mean", net.op("pow", error)))
    assert list(activations(place_quantizers(net.graph))) == ["/input:0"]


def test_sum_whose_result_is_not_quantized_is_not_either() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    net.output(net.op("softmax", net.op("__add__", net.conv(value, "b"), net.conv(value, "c"))))
    assert list(activations(place_quantizers(net.graph))) == ["/input:0", "a.relu/relu:0"]


def _after(pattern: str) -> list[str]:
    net = Sketch()
    value: Value = net.conv(net.input(), "a")
    if pattern == "swish":
        value = net.op("__mul__", value, net.op("sigmoid", value), name="end")
    elif pattern == "h_sigmoid":
        value = net.op("__truediv__", net.op("relu6", net.op("__add__", value)), name="end")
    elif pattern == "h_swish":
        gate = net.op("relu6", net.op("__add__", value))
        value = net.op("__truediv__", net.op("__mul__", value, gate), name="end")
    elif pattern == "gelu":
        inner = net.op("__add__", value, net.op("__mul__", net.op("pow", value)))
        inner = net.op("__add__", net.op("tanh", net.op("__mul__", inner)))
        value = net.op("__mul__", net.op("__mul__", value), inner, name="end")
    elif pattern == "rms_norm":
        scale = net.op("rsqrt", net.op("__add__", net.op("mean", net.op("pow", value))))
        value = net.op("__mul__", value, scale)
        value = net.op("__mul__", "gamma", value, name="end", weight_shape=(4,))
    elif pattern == "frozen_batch_norm":
        value = net.op("__add__", net.op("__mul__", value, (1, 4, 1, 1)), (1, 4, 1, 1), name="end")
    net.output(net.conv(value, "b"))
    setup = place_quantizers(net.graph)
    assert len(weights(setup)) == 2
    return [place.split("/")[0] for place in activations(setup)]


def test_functions_spelled_out_are_fused() -> None:
    for pattern in ("swish", "h_sigmoid", "h_swish", "gelu"):
        assert _after(pattern) == ["", "a", "end"], pattern
    assert _after("frozen_batch_norm") == ["", "end"]
    # No quantizer between the ops of the norm; one before it is for the convolution.
    assert _after("rms_norm") == ["", "a", "end"]


def test_gate_is_no_composite() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    gate = net.op("sigmoid", net.conv(net.op("adaptive_avg_pool2d", value, name="pool"), "squeeze"), name="gate")
    net.output(net.conv(net.op("mul", value, gate, name="scaled"), "b"))
    found = activations(place_quantizers(net.graph))
    assert set(found["a.relu/relu:0"]) == {"pool/adaptive_avg_pool2d:0", "scaled/mul:0"}
    assert "gate/sigmoid:0" in found


def test_product_with_a_number_is_quantized_after_a_convolution_only() -> None:
    net = Sketch()
    value = net.op("__mul__", net.conv(net.input(), "a"), name="scaled")
    value = net.op("__mul__", net.op("linear", value, "fc.weight", name="fc", weight_shape=(8, 8)), name="q")
    net.output(net.conv(value, "b"))
    assert list(activations(place_quantizers(net.graph))) == [
        "/input:0",
        "a/conv2d:0",
        "scaled/__mul__:0",
        "q/__mul__:0",
    ]


def test_unknown_ops_keep_precision() -> None:
    net = Sketch()
    value = net.op("fancy", net.block(net.input(), "a"))
    net.output(net.conv(value, "b"))
    setup = place_quantizers(net.graph, PlacementSettings(quantize_after_convolutions=False))
    assert list(activations(setup)) == ["/input:0", "fancy:0"]
