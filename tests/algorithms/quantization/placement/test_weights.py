from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.placement import Constraints, PlacementSettings, place_quantizers
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint
from lightning_nncf.capture.trace import trace
from lightning_nncf.errors import PlacementError
from tests.algorithms.quantization.placement.sketch import Sketch, activations, weights


def _weight(net: Sketch) -> QuantizationPoint:
    points = [point for point in place_quantizers(net.graph).points if point.kind == "weight"]
    assert len(points) == 1
    return points[0]


def test_channel_axis_of_each_kind_of_weight() -> None:
    net = Sketch()
    net.output(net.op("conv_transpose2d", net.input(), "up.weight", weight_shape=(4, 6, 3, 3)))
    assert _weight(net).channel_axis == 1
    net = Sketch()
    net.output(net.op("addmm", "c.bias", net.input((8, 4)), "c.weight", weight_shape=(4, 4)))
    assert (_weight(net).channel_axis, _weight(net).point.port) == (1, 2)
    net = Sketch()
    net.output(net.op("matmul", net.input((8, 4)), "c.weight", weight_shape=(4, 6)))
    assert _weight(net).channel_axis == 1


def test_transposed_parameter_is_quantized_as_the_parameter() -> None:
    net = Sketch()
    turned = net.op("t", "c.weight", weight_shape=(6, 4), shape=(4, 6))
    net.output(net.op("matmul", net.input((8, 4)), turned))
    point = _weight(net)
    assert (str(point.point), point.channel_axis, point.ops) == ("t:0|weight0", 0, ("matmul:0",))


def test_computed_weight_is_quantized_where_it_is_computed() -> None:
    net = Sketch()
    weight = net.op("mul", net.op("norm", "v"), "g")
    net.output(net.op("conv2d", net.input(), weight))
    assert set(activations(place_quantizers(net.graph))) == {"/input:0", "mul:0"}


def test_shared_module_has_one_weight_quantizer() -> None:
    net = Sketch()
    value = net.op("conv2d", net.input(), "c.weight", name="c")
    net.output(net.op("conv2d", value, "c.weight", name="c@1"))
    assert _weight(net).ops == ("c/conv2d:0", "c@1/conv2d:0")


def test_ops_that_share_a_weight_must_allow_a_common_format() -> None:
    net = Sketch()
    value = net.op("conv2d", net.input(), "c.weight", name="c")
    net.output(net.op("conv2d", value, "c.weight", name="c@1"))

    def four_bits_in_the_second_call(address: str, kind: str) -> Constraints | None:
        return Constraints(bits=4) if (address, kind) == ("c@1/conv2d:0", "weight") else None

    settings = PlacementSettings(target_device="TRIAL", override=four_bits_in_the_second_call)
    with pytest.raises(PlacementError, match=r"'c.weight' is shared by 'c/conv2d:0', 'c@1/conv2d:0', whose settings"):
        place_quantizers(net.graph, settings)


def test_weight_of_an_embedding_serves_as_quantizer_of_its_output() -> None:
    net = Sketch()
    ids = net.input((1, 8), dtype="int64")
    value = net.op("embedding", ids, "table.weight", name="table", shape=(1, 8, 4), weight_shape=(10, 4))
    net.output(net.op("linear", value, "fc.weight", name="fc", weight_shape=(6, 4)))
    setup = place_quantizers(net.graph)
    assert activations(setup) == {}
    table = setup.points[0]
    assert table.ops == ("table/embedding:0", "fc/linear:0")
    assert not table.config.per_channel
    assert not table.config.half_range  # nothing is accumulated
    assert setup.adjacent == ((0, 1),)


def test_tied_embedding_keeps_ranges_per_channel_and_a_quantizer_behind_it() -> None:
    net = Sketch()
    ids = net.input((1, 8), dtype="int64")
    value = net.op("embedding", ids, "table.weight", name="table", shape=(1, 8, 4), weight_shape=(10, 4))
    net.output(net.op("linear", value, "table.weight", name="head", weight_shape=(10, 4)))
    setup = place_quantizers(net.graph)
    assert weights(setup) == ["table/embedding:0|weight1"]
    assert setup.points[0].ops == ("table/embedding:0", "head/linear:0")
    assert setup.points[0].config.per_channel
    assert setup.points[0].config.half_range
    assert activations(setup) == {"table/embedding:0": ("head/linear:0",)}


def test_first_layers_are_one_per_input() -> None:
    net = Sketch()
    a, b = net.block(net.input(), "a"), net.block(net.input(), "b")
    net.output(net.conv(net.op("add", a, b), "c"))
    setup = place_quantizers(net.graph, PlacementSettings(overflow_fix="first_layer_only"))
    half = {str(point.point): point.config.half_range for point in setup.points if point.kind == "weight"}
    assert half == {"a/conv2d:0|weight1": True, "b/conv2d:0|weight1": True, "c/conv2d:0|weight1": False}


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.matrix = nn.Parameter(torch.ones(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.conv2d(x, self.kernel).relu().mean((2, 3)), self.matrix)


def test_functional_calls_on_parameters_count_as_layers() -> None:
    net = _Functional()
    setup = place_quantizers(trace(net, lambda: net(torch.rand(1, 3, 8, 8))))
    assert weights(setup) == ["/conv2d:0|weight1", "/linear:0|weight1"]
    assert list(activations(setup)) == ["/input:0", "/relu:0", "/mean:0"]
