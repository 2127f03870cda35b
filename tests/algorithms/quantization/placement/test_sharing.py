from __future__ import annotations

from typing import Any

import pytest

from lightning_nncf.algorithms.quantization.placement import Constraints, PlacementSettings, place_quantizers
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.errors import PlacementError, ScopeError
from tests.algorithms.quantization.placement.sketch import Sketch, activations


def _three_branches() -> Sketch:
    net = Sketch()
    value = net.block(net.input(), "stem")
    for name in "abc":
        net.output(net.conv(net.block(value, name), f"{name}.end"))
    return net


def _shared(net: Sketch, *lists: dict[str, tuple[str, ...]], **settings: Any) -> tuple[QuantizationSetup, list[Any]]:
    setup = place_quantizers(net.graph, PlacementSettings(unified=lists, **settings))
    return setup, [{str(setup.points[index].point) for index in group} for group in setup.unified]


def _one(*addresses: str) -> dict[str, tuple[str, ...]]:
    return {address: (address,) for address in addresses}


def test_quantizers_of_listed_ops_share_a_scale_and_no_others() -> None:
    setup, groups = _shared(_three_branches(), _one("a.end/conv2d:0", "c.end/conv2d:0"))
    assert groups == [{"a.relu/relu:0", "c.relu/relu:0"}]
    assert len(activations(setup)) == 5  # input, stem, three branches, as without the list


def test_an_op_that_only_moves_values_means_the_quantizer_of_its_output() -> None:
    assert _shared(_three_branches(), _one("a.relu/relu:0", "c.end/conv2d:0"))[1] == [
        {"a.relu/relu:0", "c.relu/relu:0"}
    ]


def test_lists_that_overlap_make_one_group() -> None:
    lists = _one("a.end/conv2d:0", "b.end/conv2d:0"), _one("b.end/conv2d:0", "c.end/conv2d:0")
    assert _shared(_three_branches(), *lists)[1] == [{"a.relu/relu:0", "b.relu/relu:0", "c.relu/relu:0"}]


def test_all_inputs_of_an_op_take_part() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    value = net.op("relu", net.op("add", value, net.block(value, "b")))
    net.output(net.conv(value, "c"))
    assert _shared(net, _one("add:0"))[1] == [{"a.relu/relu:0", "b.relu/relu:0"}]


def test_a_shared_quantizer_stays_behind_an_equal_one_with_another_scale() -> None:
    net = Sketch()
    value = net.block(net.input(), "a")
    net.op("topk", value)  # needs full precision, so that the quantizers behind it stay at their ops
    pooled = net.op("max_pool2d", value)
    net.output(net.op("topk", pooled))
    net.output(net.conv(pooled, "b"))
    net.output(net.conv(net.block(net.input(), "c"), "d"))
    _, groups = _shared(net, _one("b/conv2d:0", "d/conv2d:0"))
    assert groups == [{"b/conv2d:0#0", "c.relu/relu:0"}]


def test_formats_without_a_common_one_are_an_error() -> None:
    def four_bits_for_a(address: str, kind: str) -> Constraints | None:
        return Constraints(bits=4) if address == "a.end/conv2d:0" and kind == "activation" else None

    with pytest.raises(PlacementError, match=r"'a.end/conv2d:0' and 'b.end/conv2d:0' have no format per tensor"):
        _shared(
            _three_branches(),
            _one("a.end/conv2d:0", "b.end/conv2d:0"),
            override=four_bits_for_a,
            target_device="TRIAL",
        )


def test_an_entry_without_quantizers_is_an_error_unless_validation_is_off() -> None:
    entries = _one("a.end/conv2d:0") | {"stem.bn": ("stem.bn/batch_norm:0",), "x": ("/output:0",)}
    with pytest.raises(ScopeError, match=r"`activations.unified_scale_ops`: 'x' has no activation quantizer"):
        _shared(_three_branches(), entries)
    _, groups = _shared(_three_branches(), entries, validate=False)
    assert groups == [{"stem.relu/relu:0", "a.relu/relu:0"}]  # the batch norm stands for its unit
