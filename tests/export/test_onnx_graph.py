from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lightning_nncf.export.formats import QuantizeDequantize
from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.findings import Findings, Pass, run_passes


@pytest.fixture
def graph() -> OnnxGraph:
    """``y = x + (2 * 3 + 1)``, the constant in two steps."""
    constants = {"two": 2.0, "three": 3.0, "one": 1.0}
    return OnnxGraph(
        helper.make_model(
            helper.make_graph(
                [
                    helper.make_node("Mul", ["two", "three"], ["six"], name="product"),
                    helper.make_node("Add", ["six", "one"], ["seven"], name="sum"),
                    helper.make_node("Add", ["x", "seven"], ["y"], name="last"),
                ],
                "sums",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
                [numpy_helper.from_array(np.float32(value).reshape(1), name) for name, value in constants.items()],
                value_info=[helper.make_tensor_value_info("seven", TensorProto.FLOAT, [1])],
            ),
            opset_imports=[helper.make_opsetid("", 21)],
        )
    )


def test_values_behind_a_replaced_node_are_computed_anew(graph: OnnxGraph) -> None:
    assert graph.constant("seven") == 7
    assert graph.constant("y") is None
    product = graph.nodes[0]
    graph.replace(product, [rewired(product, inputs={1: graph.add_constant("five", np.full(1, 5, np.float32))})])
    assert graph.constant("seven") == 11
    last = graph.nodes[2]
    graph.replace(last, [rewired(last, inputs={0: "one"})])
    assert graph.constant("y") == 12


def _shorten(graph: OnnxGraph) -> int:
    """Add one to the input instead of seven, and leave what made seven behind."""
    last = next(node for node in graph.nodes if node.name == "last")
    graph.replace(last, [rewired(last, inputs={1: "one"})])
    return 1


def test_what_nothing_reads_any_more_is_gone_before_the_next_pass(graph: OnnxGraph) -> None:
    readers: list[int] = []
    assert len(graph.consumers("one")) == 1
    passes = [
        Pass(function=_shorten),
        Pass(function=lambda opened: readers.append(len(opened.consumers("one")))),
    ]
    run_passes(graph, passes, Findings(quantizers={}, writer=QuantizeDequantize()))
    graph.close()
    assert readers == [1]
    assert [node.name for node in graph.model.graph.node] == ["last"]
    assert [item.name for item in graph.model.graph.initializer] == ["one"]
    assert not graph.model.graph.value_info


def test_rewiring_leaves_the_node_as_it_is() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=2)
    before = node.SerializeToString()
    copied = rewired(node, inputs={0: "a", 2: "b"}, outputs={0: "z"}, attributes=[])
    assert (list(copied.input), list(copied.output), list(copied.attribute)) == (["a", "w", "b"], ["z"], [])
    assert (copied.op_type, copied.name) == ("Conv", "conv")
    assert node.SerializeToString() == before


def test_shapes_that_nobody_noted_are_inferred_from_what_stands_now(graph: OnnxGraph) -> None:
    assert set(graph.shapes()) == {"x", "y", "seven"}
    last = graph.nodes[2]
    new = [rewired(last, inputs={1: "one"}, outputs={0: "between"}), helper.make_node("Neg", ["between"], ["y"])]
    graph.replace(last, new)
    found = graph.shapes(inferred=True)
    assert [dim.dim_value for dim in found["between"].shape.dim] == [1]
    assert [node.name for node in graph.model.graph.node] == ["product", "sum", "last"]
