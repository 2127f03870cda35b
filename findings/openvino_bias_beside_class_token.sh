#!/usr/bin/env bash
# OpenVINO: where the batch size is read (a class token before patches), a quantizer behind a convolution adds the bias
# of the first channel to all channels, without an error.
#
# Patches come from Conv with a bias, are quantized and dequantized, and are concatenated with a token that is expanded
# to the batch size, which `Shape` reads from the input. Guess: how the batch size was read changes no number. What
# happens: OpenVINO reads it from the convolution ahead of its bias instead; the bias then goes not into the convolution
# but into the quantizer, with its first element alone. With a dimension that is negated twice, so that it is not
# recognized, or a batch size that is fixed, all is right; so is all in ONNX Runtime and onnx's reference evaluator.
#
# Versions: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2, CPython 3.11, Linux x86-64.
# Seen on 2026-12-01:
#   open batch: openvino wrong onnxruntime right
#     as if all channels had the bias of the first: True
#   fixed batch: openvino right onnxruntime right
#   negated twice: openvino right onnxruntime right
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
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

random = np.random.default_rng(0)
BIAS = np.linspace(-1, 1, 8).astype(np.float32)


def model(batch, size, bias):
    text = f"""
    <ir_version: 9, opset_import: ["" : 20]> patches (float[{batch}, 3, 8, 8] x) => (float[{batch}, 5, 8] y) {{
        conv = Conv <strides = [4, 4]> (x, weight, bias)
        quantized = QuantizeLinear(conv, scale, zero)
        dequantized = DequantizeLinear(quantized, scale, zero)
        rows = Reshape(dequantized, rows_shape)
        tokens = Transpose <perm = [0, 2, 1]> (rows)
        {size}
        shape = Concat <axis = 0> (size, one, one)
        first = Expand(token, shape)
        y = Concat <axis = 1> (first, tokens)
    }}"""
    made = onnx.parser.parse_model(text)
    constants = {
        "weight": np.random.default_rng(1).normal(0, 0.1, (8, 3, 4, 4)).astype(np.float32),
        "bias": bias,
        "scale": np.float32(0.03),
        "zero": np.uint8(128),
        "rows_shape": np.array([-1, 8, 4]),
        "token": np.ones((1, 1, 8), np.float32),
        "one": np.array([1]),
        "start": np.array([0]),
    }
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    return made


def openvino_output(made, x):
    pathlib.Path("model.onnx").write_bytes(made.SerializeToString())
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([x])[compiled.outputs[0]]


PLAIN = "size = Shape <start = 0, end = 1> (x)"
TWICE = "whole = Shape(x) minus = Neg(whole) plus = Neg(minus) size = Slice(plus, start, one)"
x = random.random((2, 3, 8, 8)).astype(np.float32)


def right(found, made):
    return bool(np.abs(found - ReferenceEvaluator(made).run(None, {"x": x})[0]).max() < 0.05)


seen = []
for name, batch, size in (("open batch", "N", PLAIN), ("fixed batch", 2, PLAIN), ("negated twice", "N", TWICE)):
    made = model(batch, size, BIAS)
    found = openvino_output(made, x)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    results = right(found, made), right(session.run(None, {"x": x})[0], made)
    words = ("right" if result else "wrong" for result in results)
    print(f"{name}:", *(f"{runtime} {word}" for runtime, word in zip(("openvino", "onnxruntime"), words)))
    seen += results
    if name == "open batch":
        first = right(found, model(batch, size, np.full_like(BIAS, BIAS[0])))
        print("  as if all channels had the bias of the first:", first)
        seen.append(first)
raise SystemExit(seen != [False, True, True, True, True, True, True])
PY
"$work/venv/bin/python" case.py
