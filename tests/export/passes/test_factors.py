"""Factors before products of matrices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.factors import fold_factors


def _model(factor: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        scores (float[N, 3, 4] x, float[N, 4, 3] k) => (float[N, 3, 3] y)
        <float s = {0.25}, uint8 z = {128}, float half = {0.5}, float minus = {-1.0}> {
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
            f = FACTOR
            y = MatMul(f, k)
        }""".replace("FACTOR", factor)
    )


@pytest.mark.parametrize(("factor", "scale"), [("Mul(d, half)", 0.125), ("Mul(half, d)", 0.125), ("Div(d, half)", 0.5)])
def test_factor_goes_into_the_scale(factor: str, scale: float) -> None:
    model, rng = _model(factor), np.random.default_rng(0)
    given = {"x": rng.normal(size=(2, 3, 4)).astype(np.float32), "k": rng.normal(size=(2, 4, 3)).astype(np.float32)}
    expected = ReferenceEvaluator(model).run(None, given)[0]
    graph = OnnxGraph(model)
    assert fold_factors(graph) == 1
    graph.close()
    assert [node.op_type for node in model.graph.node] == ["QuantizeLinear", "DequantizeLinear", "MatMul"]
    found = OnnxGraph(model).constant(model.graph.node[1].input[1])
    assert found is not None
    assert found == np.float32(scale)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, given)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", ["Mul(d, minus)", "Div(half, d)", "Mul(d, d)", "Mul(x, half)"])
def test_other_products_stay(factor: str) -> None:
    assert fold_factors(OnnxGraph(_model(factor))) == 0
