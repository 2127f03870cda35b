from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import lightning_nncf.proof.proof as proof_module
from lightning_nncf import compress, export_and_verify, verify_file
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ConfigError, ExportError, VerificationError
from lightning_nncf.export import export_onnx
from lightning_nncf.proof import Tolerance
from lightning_nncf.proof.sessions import SESSIONS

_FAKES = "tests.proof.fake_runtimes:"
_ONE = ["onnxruntime"]


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x / 255).relu())


@pytest.fixture(scope="module")
def compressed() -> CompressedNetwork:
    torch.manual_seed(0)
    data = [torch.randint(0, 256, (2, 3, 8, 8)).float() for _ in range(2)]
    network = _Network().eval()
    return compress(
        network, {"compression": {"algorithm": "quantization"}}, data, example_inputs=torch.zeros(1, 3, 8, 8)
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Export in tens of milliseconds, and time nothing unless a test wants it."""

    def quick(*args: Any, **options: Any) -> Any:
        return export_onnx(*args, **{**options, "exporter": "torchscript", "opset": 19})

    monkeypatch.setattr(proof_module, "export_onnx", quick)
    return


def test_layers_in_float_are_warned_of_and_written_into_the_file(compressed: CompressedNetwork, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"m\.onnx in onnxruntime .*1 of 2 quantized layers run in float"):
        proof = export_and_verify(compressed, tmp_path / "m.onnx", verify=_ONE)
    assert proof.verification is not None
    assert proof.verification.proven
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    written = json.loads(entries["lightning_nncf.proof"])
    assert list(written) == _ONE
    assert written["onnxruntime"]["layers"]["convolutions"] == 1
    assert "run in float" in written["onnxruntime"]["warnings"][0]
    assert proof.export.size == (tmp_path / "m.onnx").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_required_integers_make_the_warning_an_error(compressed: CompressedNetwork, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"`require_int8` is set(.|\n)*run in float(.|\n)*m\.unverified\.onnx"):
        export_and_verify(compressed, tmp_path / "m.onnx", verify=_ONE, require_int8=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.unverified.onnx"]


def test_values_of_calibration_are_in_the_file_and_used_later(compressed: CompressedNetwork, tmp_path: Path) -> None:
    export_and_verify(compressed, tmp_path / "m.onnx", verify=False)
    report = verify_file(tmp_path / "m.onnx", latency_runs=0, runtimes=_ONE)
    (described,) = json.loads(report.metadata["values"])
    assert described["whole"]
    assert (described["quantiles"][0], described["quantiles"][-1]) == (0, 255)
    assert compressed.samples is not None
    assert compressed.samples[0][0].max() > 1


@pytest.mark.filterwarnings("ignore:.*run in float")
def test_runtime_that_cannot_run_the_float_file_either_does_not_cost_the_file(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SESSIONS, "openvino", f"{_FAKES}UnwillingSession")
    verification = export_and_verify(compressed, tmp_path / "m.onnx").verification
    assert verification is not None
    assert verification.proven
    assert verification.results[1].skipped == "cannot run the float file either: Unsupported padding mode: [wrap]"
    assert (tmp_path / "m.onnx").exists()
    assert verify_file(tmp_path / "m.onnx", latency_runs=0).proven


def test_file_that_no_runtime_can_run_is_not_proven(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SESSIONS, "onnxruntime", f"{_FAKES}UnwillingSession")
    with pytest.raises(VerificationError, match="no runtime could run"):
        export_and_verify(compressed, tmp_path / "m.onnx", verify=_ONE)


def test_runtime_that_can_run_only_the_float_file_is_an_error(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SESSIONS, "onnxruntime", f"{_FAKES}OnlyFloatSession")
    with pytest.raises(VerificationError, match="QuantizeLinear is unknown") as raised:
        export_and_verify(compressed, tmp_path / "m.onnx", verify=_ONE)
    assert str(tmp_path / "m.onnx") in str(raised.value)


def test_tolerance_and_open_sizes_are_arguments(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def look(*_args: object, **options: Any) -> None:
        asked.update(options)
        raise VerificationError("enough")

    monkeypatch.setattr(proof_module, "verify_onnx", look)
    with pytest.raises(VerificationError, match="enough"):
        export_and_verify(
            compressed,
            tmp_path / "m.onnx",
            tolerance=0.3,
            dynamic_batch=False,
            inputs=((torch.zeros(2, 3, 8, 8),), {}),
            dynamic_shapes={"input": {2: "height"}},
        )
    assert asked["tolerance"] == Tolerance(relative_rms=0.3)
    shape = onnx.load(tmp_path / "m.unverified.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == [2, 3, "height", 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"verify": ["tensorrt"]}, "unknown runtime 'tensorrt'"), ({"tolerance": -1.0}, "`tolerance` must be a positive")],
)
def test_wrong_arguments_are_errors_before_the_work(
    options: dict[str, Any], message: str, compressed: CompressedNetwork, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_and_verify(compressed, tmp_path / "m.onnx", **options)


def test_long_name_is_an_error_before_the_work_and_one_that_fits_is_written(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="takes 250 bytes; use at most 240"):
        export_and_verify(compressed, tmp_path / f"{'n' * 245}.onnx", verify=_ONE)
    monkeypatch.setitem(SESSIONS, "onnxruntime", f"{_FAKES}OnlyFloatSession")
    with pytest.raises(VerificationError, match=r"kept as .*\.unverified\.onnx"):
        export_and_verify(compressed, tmp_path / f"{'ü' * 117}.onnx", verify=_ONE)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:.*run in float")
def test_link_stays_a_link_and_its_target_is_written(compressed: CompressedNetwork, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "m.onnx").symlink_to(tmp_path / "store" / "v1.onnx")
    proof = export_and_verify(compressed, tmp_path / "m.onnx", verify=_ONE)
    assert (tmp_path / "m.onnx").is_symlink()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["v1.onnx"]
    assert proof.export.path == str(tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["store"]


def test_link_that_leads_to_itself_is_an_error(compressed: CompressedNetwork, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to(tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="a link that leads to itself"):
        export_and_verify(compressed, tmp_path / "m.onnx")


def test_two_exports_to_one_path_prove_files_of_their_own(
    compressed: CompressedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, written = threading.Barrier(2, timeout=60), []

    def meet(path: str | os.PathLike[str], *_args: object, **_options: object) -> None:
        written.append(os.fspath(path))
        both.wait()
        assert Path(path).exists()
        both.wait()
        raise VerificationError("enough")

    def run() -> None:
        with pytest.raises(VerificationError):
            export_and_verify(compressed, tmp_path / "m.onnx")

    monkeypatch.setattr(proof_module, "verify_onnx", meet)
    export_lock = threading.Lock()
    quick = proof_module.export_onnx

    def locked(*args: Any, **options: Any) -> Any:
        with export_lock:  # torch's exporter itself is not made for threads
            return quick(*args, **options)

    monkeypatch.setattr(proof_module, "export_onnx", locked)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(written)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m.unverified.onnx"]
