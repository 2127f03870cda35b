"""Integers of weights, from the quantizer through the file and back, for every number format."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.export.formats import QuantizeDequantize
from lightning_nncf.export.lowering import lower
from lightning_nncf.export.marker import DOMAIN, OP_TYPE
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.storage import store_weights
from lightning_nncf.export.passes.widening import widen_weights
from tests.export.networks import for_weight


def _model(weight: Tensor, quantizer: Quantizer, *, integers: bool, opset: int) -> onnx.ModelProto:
    """A fully connected layer, on integers or not, whose weight is an output too once it is stored."""
    nodes = [helper.make_node(OP_TYPE, ["w"], ["weight"], domain=DOMAIN, address="fc", call=0)]
    source = "x"
    if integers:
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["quantized"]),
            helper.make_node("DequantizeLinear", ["quantized", "scale", "zero_point"], ["dequantized"]),
        ]
        source = "dequantized"
    nodes.append(helper.make_node("Gemm", [source, "weight"], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weight.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight.numpy(), "w"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(100), "zero_point"),
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    opened = OnnxGraph(model)
    bits = lower(opened, {"fc": quantizer}, QuantizeDequantize()).weights
    factors = widen_weights(opened, bits)
    opened.sweep()
    store_weights(opened, bits, factors)
    opened.close()
    model.graph.output.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, list(weight.shape)))
    return model


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Tensor, Quantizer, bool, int]:
    mode = draw(st.sampled_from(["symmetric", "asymmetric"]))
    signed = draw(st.booleans()) if mode == "symmetric" else None
    bits, rows, columns = draw(st.integers(2, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    # Where the values lie decides about signs and zero points: all above zero, all below, on both sides, constant.
    shift, spread = draw(st.sampled_from([-10.0, -1.0, 0.0, 0.5, 1.0, 10.0])), draw(st.sampled_from([0.0, 0.1, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = shift + spread * torch.randn(rows, columns, generator=generator)
    quantizer = for_weight(
        weight,
        bits=bits,
        mode=mode,
        signed=signed,
        per_channel=draw(st.booleans()),
        narrow_range=draw(st.booleans()),
        half_range=bits == 8 and draw(st.booleans()),
    )
    return weight, quantizer, draw(st.booleans()), draw(st.sampled_from([20, 21]))


@settings(max_examples=150, deadline=None)
@given(_cases())
def test_stored_weight_reads_back_as_the_quantizers_output(case: tuple[Tensor, Quantizer, bool, int]) -> None:
    weight, quantizer, integers, opset = case
    model = _model(weight, quantizer, integers=integers, opset=opset)
    expected = quantizer(weight).detach().numpy()
    x = np.zeros((1, weight.shape[1]), np.float32)
    _, stored = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(stored, expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("integers", [True, False], ids=["on integers", "weight only"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("sign", [1, -1], ids=["all above zero", "all below zero"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_runtime_reads_back_a_weight_of_one_sign(bits: int, sign: int, per_channel: bool, integers: bool) -> None:
    weight = sign * torch.linspace(0.5, 3.0, 24).reshape(4, 6)
    quantizer = for_weight(weight, bits=bits, mode="asymmetric", signed=None, per_channel=per_channel, half_range=False)
    model = _model(weight, quantizer, integers=integers, opset=21)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.eye(6, dtype=np.float32)
    (_, stored) = session.run(None, {"x": x})
    np.testing.assert_allclose(stored, quantizer(weight).detach().numpy(), rtol=1e-6)
