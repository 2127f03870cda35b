"""Quantizers right behind convolutions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.hoisting import hoist_quantizers

_SHAPE = (1, 2, 2, 2)


def _model(behind: str) -> onnx.ModelProto:
    """Return a convolution that doubles and triples its channels, and what is behind it, up to ``y``."""
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        hoisted (float[1, 2, 2, 2] x) => (float y)
        <float s = {0.25}, uint8 z = {128}, uint8 zero = {0}, float t = {0.5}, int8[2, 1, 1, 1] w = {2, 3},
         float one = {1.0}, int8 none = {0}, int64[2] rows = {1, 8}, float low = {0.0}, float six = {6.0}> {
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  wd = DequantizeLinear(w, one, none)
            c = Conv<group = 2>(d, wd)
            BEHIND
        }""".replace("BEHIND", behind)
    )


_HOISTED = {
    "reshape": "r = Reshape(c, rows) p = QuantizeLinear(r, t, z) y = DequantizeLinear(p, t, z)",
    "relu of a signed grid": "r = Relu(c) p = QuantizeLinear(r, t, z) y = DequantizeLinear(p, t, z)",
    "clip below the range": "r = Clip(c, low, six) p = QuantizeLinear(r, t, zero) y = DequantizeLinear(p, t, zero)",
    "two readers on one grid": """r = Transpose(c) p = QuantizeLinear(r, t, z) m = DequantizeLinear(p, t, z)
        a = Relu(c) b = QuantizeLinear(a, t, z) n = DequantizeLinear(b, t, z) o = Transpose(n) y = Sub(m, o)""",
}


@pytest.mark.parametrize("behind", _HOISTED)
def test_quantizer_is_hoisted_without_a_change_of_any_value(behind: str) -> None:
    model = _model(_HOISTED[behind])
    x = np.random.default_rng(0).normal(0, 3, size=(200, *_SHAPE)).astype(np.float32)
    expected = [ReferenceEvaluator(model).run(None, {"x": each})[0] for each in x]
    graph = OnnxGraph(model)
    assert hoist_quantizers(graph) == 1
    graph.close()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    assert [node.op_type for node in model.graph.node if conv.output[0] in node.input] == ["QuantizeLinear"]
    np.testing.assert_array_equal([ReferenceEvaluator(model).run(None, {"x": each})[0] for each in x], expected)


@pytest.mark.parametrize(
    "behind",
    [
        "p = QuantizeLinear(c, t, z) y = DequantizeLinear(p, t, z)",
        "r = Relu(c) p = QuantizeLinear(r, t, zero) y = DequantizeLinear(p, t, zero)",
        "r = Sigmoid(c) p = QuantizeLinear(r, t, z) y = DequantizeLinear(p, t, z)",
        "r = Reshape(c, rows) p = QuantizeLinear(r, t, z) m = DequantizeLinear(p, t, z) n = ReduceMax(c) y = Sub(m, n)",
        "p = QuantizeLinear(c, t, z) m = DequantizeLinear(p, t, z) r = QuantizeLinear(c, s, z) "
        "n = DequantizeLinear(r, s, z) y = Sub(m, n)",
        "y = Reshape(c, rows)",
    ],
    ids=["there already", "a relu that is merged", "computed", "a reader in float", "two grids", "an output"],
)
def test_nothing_is_hoisted_where_it_is_there_or_would_change_values(behind: str) -> None:
    assert hoist_quantizers(OnnxGraph(_model(behind))) == 0
