from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_nncf.errors import ExportError, VerificationError
from lightning_nncf.export import ExportReport
from lightning_nncf.proof import verify_file, verify_onnx
from lightning_nncf.proof.process import RuntimeEndedError, RuntimeProcess
from lightning_nncf.proof.sessions import SESSIONS
from tests.export.networks import Residual

_Exported = tuple[Residual, Tensor, Path, ExportReport]
_FAKES = "tests.proof.fake_runtimes:"


def _fake(monkeypatch: pytest.MonkeyPatch, name: str, runtime: str = "openvino") -> None:
    monkeypatch.setitem(SESSIONS, runtime, f"{_FAKES}{name}")


@pytest.mark.parametrize(("name", "when"), [("AbortingSession", "load"), ("AbortingRunSession", "run")])
def test_runtime_that_aborts_is_an_error_naming_it_and_the_other_goes_on(
    name: str, when: str, residual: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, path, _ = residual
    _fake(monkeypatch, name)
    report = verify_onnx(path, network, ((x,), {}), latency_runs=0, raise_on_failure=False)
    first, second = report.results
    assert first.passed
    assert first.difference is not None
    assert not report.passed
    assert second.error is not None
    assert f"openvino {second.version} ended with SIGABRT when it was to {when}" in second.error
    assert "FAILED" in report.table()


def test_last_words_of_a_runtime_that_aborts_are_in_the_error(
    residual: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, path, _ = residual
    _fake(monkeypatch, "AbortingSession", "onnxruntime")
    with pytest.raises(
        VerificationError, match=r"the kernel has no such thing(.|\n)*leave onnxruntime out of `verify`"
    ):
        verify_onnx(path, network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])


def test_file_without_its_network_survives_a_runtime_that_aborts(
    residual: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake(monkeypatch, "AbortingSession", "onnxruntime")
    report = verify_file(residual[2], latency_runs=0)
    assert [result.passed for result in report.results] == [False, True]
    assert report.reference == "openvino"


def test_abort_while_layers_are_shown_costs_only_their_comparison(
    residual: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, path, _ = residual
    _fake(monkeypatch, "AbortingWatchedSession", "onnxruntime")
    report = verify_onnx(path, network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])
    assert report.proven
    assert report.results[0].layer_check is None
    assert "its layers could not be compared" in report.table()


def test_runtime_that_takes_too_long_is_stopped(residual: _Exported) -> None:
    with RuntimeProcess("slowpoke", "1.0", f"{_FAKES}SleepingSession", timeout=20) as process:
        process.load("file", residual[2])
        process._timeout = 0.2
        with pytest.raises(RuntimeEndedError, match=r"slowpoke 1\.0 took more than 0\.2 s to run"):
            process.run("file", [residual[1].numpy()])
        with pytest.raises(RuntimeEndedError, match="ended with SIGKILL"):
            process.layers("other")


def test_process_imports_neither_torch_nor_the_package(residual: _Exported) -> None:
    with (
        RuntimeProcess("any", None, f"{_FAKES}ModulesSession") as process,
        pytest.raises(ExportError, match=r"any cannot load .*: imported: \[\]"),
    ):
        process.load("file", residual[2])


def test_process_ends_with_its_proof_and_leaves_no_file() -> None:
    with RuntimeProcess("onnxruntime", "1", SESSIONS["onnxruntime"]) as process:
        child, folder = process._process, Path(process._folder.name)
        assert folder.is_dir()
    assert child.poll() is not None
    assert not folder.exists()


def test_interpreter_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: str(tmp_path / "none"))
    with pytest.raises(ExportError, match=r"cannot start .*none.* to run onnxruntime"):
        RuntimeProcess("onnxruntime", None, SESSIONS["onnxruntime"])


def _run_in_daemon(path: str, x: Any, results: Any) -> None:
    with RuntimeProcess("onnxruntime", "1", SESSIONS["onnxruntime"]) as process:
        process.load("file", path)
        results.put(process.run("file", [x])[0].shape[0])


def test_proof_works_in_a_daemonic_process(residual: _Exported) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    worker = context.Process(target=_run_in_daemon, args=(str(residual[2]), residual[1].numpy(), results), daemon=True)
    worker.start()
    assert results.get(timeout=120) == 16
    worker.join(30)


def test_bits_of_bfloat16_come_back_as_such(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    from lightning_nncf.proof.arrays import to_arrays

    info = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    x = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    with RuntimeProcess("onnxruntime", "1", SESSIONS["onnxruntime"]) as process:
        process.load("file", tmp_path / "m.onnx")
        (y,) = process.run("file", to_arrays([x], graph.input))
    assert torch.equal(y, x)
