from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lightning_nncf.errors import ConfigError, ExportError
from lightning_nncf.proof import verify_file
from lightning_nncf.proof.file_inputs import make_inputs
from lightning_nncf.proof.sessions import SESSIONS
from tests.export.networks import Residual, quick_export


def _file(path: Path, element: int, op: str = "Identity", shape: tuple[Any, ...] = ("n", 4)) -> Path:
    info = [helper.make_tensor_value_info(name, element, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"] * (1 + (op == "Add")), ["y"])], "g", info[:1], info[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.mark.parametrize("element", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "UINT16", "BOOL", "FLOAT8E4M3FN"])
def test_inputs_of_any_number_type_are_made(element: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "m.onnx", getattr(TensorProto, element))
    report = verify_file(path, latency_runs=1, runtimes=["onnxruntime"])
    assert report.proven


def test_half_precision_agrees_in_both_runtimes(tmp_path: Path) -> None:
    report = verify_file(_file(tmp_path / "m.onnx", TensorProto.FLOAT16, "Abs"), latency_runs=0)
    assert report.proven
    assert report.results[1].difference is not None
    assert [size.label for size in report.results[1].sizes] == ["n 1", "n 3", "n 8"]


def test_texts_are_made(tmp_path: Path) -> None:
    report = verify_file(_file(tmp_path / "m.onnx", TensorProto.STRING), latency_runs=1, runtimes=["onnxruntime"])
    assert report.proven


def test_weights_in_a_file_of_their_own_are_read(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", info[:1], info[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    report = verify_file(path, latency_runs=0)
    assert report.proven
    assert report.results[0].layers is not None
    assert report.results[0].layers.all_matmuls == 1
    (tmp_path / "m.data").unlink()
    report = verify_file(path, latency_runs=0, runtimes=["onnxruntime"])
    assert report.results[0].error is not None
    assert not report.passed


def test_input_larger_than_the_machine_is_refused_before_the_work(tmp_path: Path) -> None:
    path = _file(tmp_path / "m.onnx", TensorProto.FLOAT, shape=(1 << 20, 1 << 20))
    with pytest.raises(ExportError, match=r"input 'x' is declared with the sizes \[1048576, 1048576\].* GiB"):
        verify_file(path)


def test_inputs_have_the_sizes_and_values_that_the_file_tells() -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "c", 2])]
    metadata = {"values": '[{"dtype": "float32", "shape": [7, 5, 2], "values": [200.0, 300.0]}]'}
    (made,) = make_inputs(inputs, metadata, batch_size=3, seed=0)
    assert isinstance(made, torch.Tensor)
    assert made.shape == (3, 5, 2)
    assert set(made.flatten().tolist()) == {200.0, 300.0}


def test_open_sizes_of_one_name_are_one_size() -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in ("ids", "mask")]
    ids, mask = make_inputs(inputs, {}, batch_size=3, seed=0)
    assert ids.shape == mask.shape == (3, 8)


def test_runtime_that_cannot_read_a_file_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SESSIONS, "openvino", "tests.proof.fake_runtimes:UnwillingSession")
    report = verify_file(_file(tmp_path / "m.onnx", TensorProto.FLOAT), latency_runs=0)
    assert [result.passed for result in report.results] == [True, False]
    assert "Unsupported padding mode" in report.table()


def test_runtime_that_was_left_out_at_export_is_left_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SESSIONS, "openvino", "tests.proof.fake_runtimes:UnwillingSession")
    proof = {"openvino": {"skipped": "cannot run the float file either: so it is"}}
    quick_export(Residual().eval(), torch.randn(2, 3, 8, 8), tmp_path / "m.onnx", metadata={"proof": proof})
    report = verify_file(tmp_path / "m.onnx", latency_runs=0)
    assert report.proven
    assert report.results[1].skipped == "cannot run the float file either: so it is"


def test_runtime_that_is_wrong_at_another_batch_size_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SESSIONS, "openvino", "tests.proof.fake_runtimes:StaleSession")
    report = verify_file(_file(tmp_path / "m.onnx", TensorProto.FLOAT), latency_runs=0)
    assert not report.passed
    assert [size.passed for size in report.results[1].sizes] == [True, False, False]


@pytest.mark.parametrize(
    ("runtimes", "message"), [(["onnxruntim"], "did you mean 'onnxruntime'"), ([], "must be a list"), ("x", "a list")]
)
def test_unknown_runtime_is_an_error_that_names_the_known(runtimes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        verify_file(tmp_path / "m.onnx", runtimes=runtimes)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("inf")])
def test_tolerance_that_is_no_positive_number_is_an_error(tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`tolerance` must be a positive number"):
        verify_file(tmp_path / "m.onnx", tolerance=tolerance)
