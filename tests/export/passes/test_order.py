"""Each two neighbours in the order of the passes: what goes wrong when they are swapped, or that nothing does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute
from lightning_nncf.export.passes.findings import Findings, Pass
from lightning_nncf.export.passes.order import PASSES
from tests.export.passes.order_networks import Everything, Exported, Sequences

Test = TypeVar("Test", bound=Callable[..., None])
MATTERS: set[tuple[str, str, str]] = set()
COMMUTES = [
    ("qdq", "labels_in", "end_sequences"),
    ("qdq", "end_sequences", "lower"),
    ("qdq", "fold_batch_norms", "repeat_quantizers"),
    ("qdq", "hoist_quantizers", "fold_factors"),
    ("qdq", "fold_factors", "merge_clips"),
    ("qdq", "merge_clips", "rewrite_average_pools"),
    ("qdq", "rewrite_average_pools", "rewrite_reductions"),
    ("qdq", "rewrite_reductions", "sign_activations"),
    ("qdq", "sign_activations", "make_room_for_biases"),
    ("qdq", "quantize_biases", "store_weights"),
    ("qdq", "spread_zero_points", "own_zero_points"),
    ("qdq", "own_zero_points", "shield_negative_factors"),
    ("qdq", "shield_negative_factors", "hide_dimensions"),
    ("qdq", "hide_dimensions", "several_zero_points"),
    ("openvino_fq", "labels_in", "end_sequences"),
    ("openvino_fq", "end_sequences", "lower"),
    ("openvino_fq", "rewrite_average_pools", "rewrite_reductions"),
    ("openvino_fq", "rewrite_reductions", "shield_negative_factors"),
    ("openvino_fq", "shield_negative_factors", "hide_dimensions"),
    ("openvino_fq", "hide_dimensions", "float_weights"),
]


def matters(export_format: str, first: str, second: str) -> Callable[[Test], Test]:
    """Note that a test fails when two neighbours are swapped."""
    MATTERS.add((export_format, first, second))
    return lambda test: test


def names(passes: Sequence[Pass]) -> list[str]:
    return [each.function.__name__ for each in passes]


def swapped(export_format: str, first: str, second: str) -> list[Pass]:
    """Return the passes of a format, two neighbours in the other order."""
    passes = list(PASSES[export_format])
    at = names(passes).index(first)
    assert names(passes)[at + 1] == second, "no neighbours"
    passes[at : at + 2] = passes[at + 1], passes[at]
    return passes


def moved(export_format: str, name: str, behind: str) -> list[Pass]:
    """Return the passes of a format, one of them right behind a later one."""
    passes = list(PASSES[export_format])
    passes.insert(names(passes).index(behind), passes.pop(names(passes).index(name)))
    return passes


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Sequence[Exported]]:
    """Networks by export format, between which every pass has something to do."""
    torch.manual_seed(0)
    path, x = tmp_path_factory.mktemp("everything") / "m.onnx", torch.randn(2, 4, 6, 6)
    script = {"exporter": "torchscript", "opset": 20}

    def export(export_format: str, network: nn.Module, data: Tensor, **options: Any) -> Exported:
        return Exported(network, data, path, export_format=export_format, **options)

    # Only the other exporter knows 4 bits, and leaves a Transpose before a layer.
    first = {"qdq": export("qdq", Everything(), x), "openvino_fq": export("openvino_fq", Everything(), x, **script)}
    return {name: [first[name], export(name, Sequences(), torch.randn(2, 3, 4), **script)] for name in PASSES}


def content(outcome: tuple[onnx.ModelProto, Findings]) -> tuple[object, ...]:
    """Return all that a file holds whatever the order of its parts, and what the report says of it."""
    model, found = outcome
    graph = model.graph
    fields = (graph.node, graph.initializer, graph.value_info, graph.input, graph.output, model.opset_import)
    parts = [sorted(item.SerializeToString(deterministic=True) for item in field) for field in fields]
    return *parts, found


@pytest.mark.parametrize(("export_format", "first", "second"), COMMUTES)
def test_neighbours_that_commute_give_one_file_in_both_orders(
    export_format: str, first: str, second: str, everything: Mapping[str, Sequence[Exported]]
) -> None:
    for exported in everything[export_format]:
        expected = content(exported.through(PASSES[export_format]))
        assert content(exported.through(swapped(export_format, first, second))) == expected


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("labels_in", "lower"),
        ("fold_transposes", "store_weights"),
        ("fold_batch_norms", "quantize_biases"),
        ("fold_batch_norms", "hoist_quantizers"),
        ("repeat_quantizers", "fold_factors"),
        ("repeat_quantizers", "sign_activations"),
        ("repeat_quantizers", "own_zero_points"),
        ("rewrite_average_pools", "own_zero_points"),
        ("widen_weights", "store_weights"),
    ],
)
def test_pass_behind_a_later_one_that_needs_it_gives_another_file(
    first: str, later: str, everything: Mapping[str, Sequence[Exported]]
) -> None:
    exported = everything["qdq"][0]
    assert content(exported.through(moved("qdq", first, later))) != content(exported.through(PASSES["qdq"]))


@pytest.mark.parametrize("export_format", PASSES)
def test_every_pass_has_something_to_do_in_these_tests(
    export_format: str, everything: Mapping[str, Sequence[Exported]]
) -> None:
    """Else they would commute with everything."""
    passes = PASSES[export_format]
    for index, name in enumerate(names(passes)):
        if name == "lower":
            continue  # without which a graph is none of ONNX
        without = [*passes[:index], *passes[index + 1 :]]
        assert any(
            content(each.through(without)) != content(each.through(passes)) for each in everything[export_format]
        )


@pytest.mark.parametrize("export_format", PASSES)
def test_each_two_neighbours_are_in_a_test(export_format: str) -> None:
    listed = names(PASSES[export_format])
    neighbours = {(export_format, *pair) for pair in pairwise(listed)}
    tested = {pair for pair in [*MATTERS, *COMMUTES] if pair[0] == export_format}
    assert neighbours - tested == set(), "add a test with `matters`, or a pair to COMMUTES"
    assert tested - neighbours == set(), "no neighbours any more"


@pytest.mark.parametrize("export_format", PASSES)
def test_a_pass_reads_only_what_is_given_or_written_before(export_format: str) -> None:
    known = {"quantizers", "writer"}
    for each in PASSES[export_format]:
        assert {name.partition(".")[0] for name in each.reads} <= known
        assert each.writes not in known
        known |= {each.writes} if each.writes else set()
    assert known <= set(Findings.__dataclass_fields__)


def both_orders(
    everything: Mapping[str, Sequence[Exported]], export_format: str, first: str, second: str
) -> tuple[OnnxGraph, OnnxGraph]:
    """Return what becomes of the network in the order of the format, and with two neighbours swapped."""
    exported = everything[export_format][0]
    orders = PASSES[export_format], swapped(export_format, first, second)
    right, wrong = (OnnxGraph(exported.through(passes)[0]) for passes in orders)
    return right, wrong


def node(graph: OnnxGraph, name: str) -> onnx.NodeProto:
    return next(item for item in graph.nodes if item.name == name)


def source(graph: OnnxGraph, name: str, port: int) -> onnx.NodeProto:
    """Return the node that an input of a node comes from."""
    found = graph.producer(node(graph, name).input[port])
    assert found is not None
    return found


def kinds(graph: OnnxGraph) -> list[str]:
    return [item.op_type for item in graph.nodes]


@matters("qdq", "lower", "fold_transposes")
def test_transpose_stays_before_a_layer_if_folded_before_its_weight_is_quantized(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    right, wrong = both_orders(everything, "qdq", "lower", "fold_transposes")
    assert source(right, "turned/Gemm", 1).op_type == "DequantizeLinear"
    assert source(wrong, "turned/Gemm", 1).op_type == "Transpose"


@matters("qdq", "fold_transposes", "fold_batch_norms")
def test_batch_norm_stays_behind_a_transposed_weight_if_folded_before_the_transpose(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    right, wrong = both_orders(everything, "qdq", "fold_transposes", "fold_batch_norms")
    assert "BatchNormalization" not in kinds(right)
    assert kinds(wrong).count("BatchNormalization") == 1


@matters("qdq", "repeat_quantizers", "hoist_quantizers")
def test_result_is_quantized_too_late_if_hoisted_before_the_input_is_quantized_again(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    graphs = both_orders(everything, "qdq", "repeat_quantizers", "hoist_quantizers")
    takers = [[each.op_type for each in graph.consumers(node(graph, "patches/Conv").output[0])] for graph in graphs]
    assert takers == [["QuantizeLinear"], ["Reshape"]]


@matters("qdq", "make_room_for_biases", "widen_weights")
def test_four_bits_take_eight_if_widened_before_a_bias_gets_its_room(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    exported, stored = everything["qdq"][0], []
    for passes in (PASSES["qdq"], swapped("qdq", "make_room_for_biases", "widen_weights")):
        _, found = exported.through(passes)
        stored.append({weight.quantizer: weight.stored for weight in found.weights}["narrow.quantizer"])
    assert stored == ["int4", "int8"]


@matters("qdq", "widen_weights", "quantize_biases")
def test_bias_is_in_other_steps_than_the_sums_if_quantized_before_its_weight_is_widened(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    right, wrong = both_orders(everything, "qdq", "widen_weights", "quantize_biases")
    ratios = []
    for graph in (right, wrong):
        scales = [graph.constant(source(graph, "narrow/Conv", port).input[1]) for port in range(3)]
        assert all(scale is not None for scale in scales)
        ratios.append(scales[2] / (scales[0] * scales[1]))
    np.testing.assert_allclose(ratios[0], 1, rtol=1e-6)
    np.testing.assert_allclose(ratios[1], 8, rtol=1e-6)  # what -7..7 were multiplied by: 2 * 255 * 7 * 8 < 2**15


@matters("qdq", "store_weights", "spread_zero_points")
def test_packed_weight_keeps_one_zero_point_if_spread_before_it_is_packed(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    right, wrong = both_orders(everything, "qdq", "store_weights", "spread_zero_points")
    shapes = []
    for graph in (right, wrong):
        zero_point = graph.constant(source(graph, "lone/Gemm", 1).input[2])
        assert zero_point is not None
        shapes.append(zero_point.shape)
    assert shapes == [(4,), ()]


@matters("openvino_fq", "lower", "rewrite_average_pools")
def test_pool_counts_its_own_padding_if_rewritten_before_its_input_is_quantized(
    everything: Mapping[str, Sequence[Exported]],
) -> None:
    right, wrong = both_orders(everything, "openvino_fq", "lower", "rewrite_average_pools")
    pools = [next(item for item in graph.nodes if item.op_type == "AveragePool") for graph in (right, wrong)]
    assert [attribute(pool, "count_include_pad", 0) for pool in pools] == [0, 1]
