"""What a file says of the runtimes that load it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lightning_nncf.export.needs import advice, needs


def _model(opset: int, *, four_bits: bool = False) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones(2, np.int8), "w")
    if four_bits:
        weight = helper.make_tensor("w", TensorProto.INT4, [2], [1, 1])
    graph = helper.make_graph([], "g", [], [], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("opset", "eight", "four"),
    [(18, "1.17", "1.17"), (20, "1.17", "1.17"), (21, "1.18", "1.23"), (22, "1.21", "1.23"), (23, "1.24", "1.24")],
)
def test_opset_and_four_bits_decide_which_onnxruntime_loads_a_file(opset: int, eight: str, four: str) -> None:
    assert needs(_model(opset)) == {"onnxruntime": eight}
    assert needs(_model(opset, four_bits=True)) == {"onnxruntime": four}


def test_versions_are_compared_as_numbers() -> None:
    # As text, 1.9 is newer than 1.18 and 1.100 older.
    assert advice(_model(21), "onnxruntime", "1.9.0") is not None
    assert advice(_model(21), "onnxruntime", "1.100.2") is None


def test_a_runtime_that_is_not_installed_needs_no_advice(tmp_path: Path) -> None:
    assert advice(_model(25), "onnxruntime", None) is None
