#!/usr/bin/env bash
# OpenVINO: a matrix that stands before and behind a Softmax (a codebook, soft attention over a table) gives wrong
# numbers in float, without an error.
#
# y = softmax(x W^T + b) W with one initializer W for both products. Guess: sharing an initializer changes nothing. What
# happens: OpenVINO's result is 0.8 away (relative RMS); with a copy of W for the second product it is right, and so it
# is with Relu or Tanh in place of the Softmax. ONNX Runtime and onnx's reference evaluator are right on all files.
#
# Versions: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2, CPython 3.11, Linux x86-64, float32 throughout.
# Seen on 2026-12-01:
#   Softmax shared: openvino wrong onnxruntime right
#   Softmax copied: openvino right onnxruntime right
#   Tanh shared: openvino right onnxruntime right
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

SIZE = 6


def model(function, shared):
    random = np.random.default_rng(1)
    matrix = random.standard_normal((SIZE, SIZE)).astype(np.float32)
    bias = random.standard_normal(SIZE).astype(np.float32)
    second = "matrix" if shared else "copy"
    tensors = {"matrix": matrix, "bias": bias, second: matrix}
    nodes = [
        helper.make_node("Gemm", ["x", "matrix", "bias"], ["g"], transB=1),
        helper.make_node(function, ["g"], ["s"]),
        helper.make_node("MatMul", ["s", second], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


x = np.random.default_rng(0).standard_normal((5, SIZE)).astype(np.float32)
seen = []
for function, shared in (("Softmax", True), ("Softmax", False), ("Tanh", True)):
    made = model(function, shared)
    data = made.SerializeToString()
    pathlib.Path("model.onnx").write_bytes(data)
    expected = ReferenceEvaluator(made).run(None, {"x": x})[0]
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    results = {"openvino": compiled([x])[compiled.outputs[0]], "onnxruntime": session.run(None, {"x": x})[0]}
    right = {name: bool(np.abs(value - expected).max() < 1e-4) for name, value in results.items()}
    words = (f"{name} {'right' if value else 'wrong'}" for name, value in right.items())
    print(f"{function} {'shared' if shared else 'copied'}:", *words)
    seen.append(tuple(right.values()))
raise SystemExit(seen != [(False, True), (True, True), (True, True)])
PY
"$work/venv/bin/python" case.py
