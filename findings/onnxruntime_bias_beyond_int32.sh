#!/usr/bin/env bash
# ONNX Runtime: a quantized convolution silently loses a float bias that does not fit int32 in its own scale.
#
# A Conv whose input and per-channel int8 weight come out of DequantizeLinear and whose result goes into QuantizeLinear
# runs on integers, and its float bias is turned into integers of scale `input scale * weight scale`. Guess: where
# |bias| / scale exceeds 2^31 the bias saturates, or the convolution stays in float. What happens: the channel's bias
# is 0 in the result, with no error and no warning; one decimal below the border everything is right. OpenVINO and
# onnx's reference evaluator are right on the same file. Small weight scales are ordinary: pruned or nearly dead
# channels behind a folded batch norm have them.
#
# Versions: onnxruntime 1.32.0, openvino 2026.4.1, onnx 1.23.2, numpy 2.x, CPython 3.11, Linux x86-64.
# Seen on 2026-12-01 (bias 0.5, input scale 0.02; mean of the channel):
#   weight scale 1e-06: reference 0.5 onnxruntime 0.5 openvino 0.5
#   weight scale 1e-08: reference 0.5 onnxruntime 0.0 openvino 0.5
#   weight scale 1e-10: reference 0.5 onnxruntime 0.0 openvino 0.5
# Exits 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 openvino==2026.4.1 onnx==1.23.2
cd "$work"
cat >case.py <<'PY'
import pathlib

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def model(weight_scale):
    constants = {
        "weight": np.array([3, 5], np.int8).reshape(2, 1, 1, 1),
        "weight_scale": np.array([0.01, weight_scale], np.float32),
        "weight_zero": np.zeros(2, np.int8),
        "bias": np.array([0.1, 0.5], np.float32),
        "in_scale": np.float32(0.02),
        "out_scale": np.float32(0.01),
        "zero": np.uint8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "in_scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "in_scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w", "bias"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "out_scale", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "out_scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 2, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


x = np.linspace(0, 4, 4, dtype=np.float32).reshape(1, 1, 2, 2)
seen = []
for weight_scale in (1e-6, 1e-8, 1e-10):
    made = model(weight_scale)
    data = made.SerializeToString()
    pathlib.Path("model.onnx").write_bytes(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = {
        "reference": ReferenceEvaluator(made).run(None, {"x": x})[0],
        "onnxruntime": session.run(None, {"x": x})[0],
        "openvino": compiled([x])[compiled.outputs[0]],
    }
    means = {name: round(float(value[0, 1].mean()), 2) for name, value in results.items()}
    print(f"weight scale {weight_scale:g}:", *(f"{name} {mean}" for name, mean in means.items()))
    seen.append(tuple(means.values()))
raise SystemExit(seen != [(0.5, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.0, 0.5)])
PY
"$work/venv/bin/python" case.py
