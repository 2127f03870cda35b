from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.errors import ExportError, VerificationError
from lightning_nncf.export import ExportReport
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel, Tolerance, verify_file, verify_onnx
from lightning_nncf.proof.compare import compare, relative_rms
from lightning_nncf.proof.disturbance import Disturbance
from tests.export.networks import Block, Residual, activation, for_weight, quick_export

_Exported = tuple[Residual, Tensor, Path, ExportReport]


def test_good_file_is_proven_in_both_runtimes(residual: _Exported) -> None:
    network, x, path, _ = residual
    report = verify_onnx(path, network, ((x,), {}), latency_runs=0)
    assert report.proven
    assert [result.runtime for result in report.results] == ["onnxruntime", "openvino"]
    for result in report.results:
        assert result.difference is not None
        assert result.layers is not None
        assert result.difference.relative_rms < 0.01
        assert result.difference.samples == 16
        assert (result.layers.convolutions, result.layers.all_convolutions) == (2, 2)


def test_float_file_gives_size_and_speed(residual: _Exported, tmp_path: Path) -> None:
    network, x, path, _ = residual
    quick_export(nn.Conv2d(3, 8, 3), x, tmp_path / "float.onnx")
    report = verify_onnx(path, network, ((x,), {}), reference_fp32=tmp_path / "float.onnx", latency_runs=3)
    assert report.reference_size == (tmp_path / "float.onnx").stat().st_size
    assert all(result.speedup is not None and result.speedup > 0 for result in report.results)
    assert "fp32 ms" in report.table()
    assert report.to_dict()["results"][0]["speedup"] == report.results[0].speedup


@pytest.mark.parametrize("runtime", [OnnxRuntimeModel, OpenVINOModel])
def test_one_block_is_within_one_step(runtime: type[OnnxRuntimeModel], tmp_path: Path) -> None:
    block, x = Block(nn.Conv2d(8, 16, 3)).eval(), torch.randn(4, 8, 16, 16)
    quick_export(block, x, tmp_path / "m.onnx")
    step = block.output.quantization_parameters()[0].item()
    difference = (runtime(tmp_path / "m.onnx")(x) - block(x)).abs()
    assert difference.max().item() <= 1.001 * step
    assert (difference > step / 2).float().mean().item() < 1e-3


def _break(path: Path, name: str, to: Path, factor: float = 0.5) -> None:
    """Write the file with one constant made smaller or larger."""
    model = onnx.load(path)
    for item in model.graph.initializer:
        if item.name == name:
            item.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(item) * factor).astype(np.float32), name))
    onnx.save(model, to)


@pytest.mark.parametrize(
    ("constant", "layer"), [("conv1.quantizer/folded_scale", "relu1"), ("conv2.quantizer/folded_scale", "branch")]
)
def test_wrong_layer_is_named(residual: _Exported, constant: str, layer: str, tmp_path: Path) -> None:
    network, x, path, _ = residual
    _break(path, constant, tmp_path / "broken.onnx")
    with pytest.raises(VerificationError, match=f"first diverging layer is the one before '{layer}'"):
        verify_onnx(
            tmp_path / "broken.onnx", network, ((x,), {}), tolerance=Tolerance(relative_rms=0.02), latency_runs=0
        )


def test_fault_below_the_tolerance_of_the_outputs_is_found_in_its_layer(residual: _Exported, tmp_path: Path) -> None:
    network, x, path, _ = residual
    _break(path, "conv1.quantizer/folded_scale", tmp_path / "broken.onnx", 1.1)
    report = verify_onnx(
        tmp_path / "broken.onnx",
        network,
        ((x,), {}),
        tolerance=0.5,
        latency_runs=0,
        raise_on_failure=False,
        runtimes=["onnxruntime"],
    )
    (result,) = report.results
    assert result.difference is not None
    assert result.difference.within(report.tolerance)
    assert not result.passed
    assert result.layer_check is not None
    assert result.layer_check.first == "relu1"
    assert result.layer_check.steps > 0.5


@pytest.mark.parametrize(
    ("right", "message"), [(True, "the float file agrees"), (False, "the float file disagrees too")]
)
def test_message_says_whether_the_float_file_disagrees_too(
    right: bool, message: str, residual: _Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, path, _ = residual
    plain = _without_quantizers(network)
    if not right:
        plain.linear = nn.Linear(8, 5)
    quick_export(plain, x, tmp_path / "float.onnx")
    _break(path, "conv1.quantizer/folded_scale", tmp_path / "broken.onnx")
    # Quantizers of these networks are ordinary submodules, which strip() would leave.
    monkeypatch.setattr("lightning_nncf.proof.torch_side.strip", lambda plain: _disable(plain))
    with pytest.raises(VerificationError, match=message):
        verify_onnx(
            tmp_path / "broken.onnx",
            network,
            ((x,), {}),
            reference_fp32=tmp_path / "float.onnx",
            latency_runs=0,
            runtimes=["onnxruntime"],
        )


def _disable(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Quantizer):
            module.enabled = False


def _without_quantizers(network: Residual) -> Residual:
    plain = copy.deepcopy(network)
    _disable(plain)
    return plain


@pytest.mark.parametrize("lacking", [True, False])
def test_saturation_is_blamed_only_where_the_processor_saturates(
    lacking: bool, residual: _Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, path, _ = residual
    _break(path, "conv1.quantizer/folded_scale", tmp_path / "broken.onnx")
    monkeypatch.setattr("lightning_nncf.proof.complaint.saturates", lambda: lacking)
    with pytest.raises(VerificationError) as raised:
        verify_onnx(tmp_path / "broken.onnx", network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])
    assert ("overflow_fix" in str(raised.value)) is lacking
    assert ("ignored_scopes" in str(raised.value)) is not lacking


def test_layers_are_compared_though_the_outputs_agree(residual: _Exported) -> None:
    network, x, path, _ = residual
    report = verify_onnx(path, network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])
    (result,) = report.results
    assert result.layer_check is not None
    assert result.layer_check.layers == 5
    assert not result.by_layer


class _Amplifier(nn.Module):
    """Turns a single quantization step of its input into a large difference, as untrained networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.input = activation(-3.0, 3.0)
        self.linear = nn.Linear(4, 4)
        self.weight = for_weight(self.linear.weight)
        self.last = activation(-3.0, 3.0, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(nn.functional.linear(self.input(x), self.weight(self.linear.weight), self.linear.bias))
        return torch.sin(y * 1e6)


def test_network_that_amplifies_float_noise_is_told_from_a_wrong_file(tmp_path: Path) -> None:
    network, x = _Amplifier().eval(), torch.randn(64, 4)
    quick_export(network, x, tmp_path / "m.onnx")
    report = verify_onnx(
        tmp_path / "m.onnx",
        network,
        ((x,), {}),
        tolerance=Tolerance(relative_rms=1e-9),
        latency_runs=0,
        runtimes=["onnxruntime"],
        raise_on_failure=False,
    )
    assert report.proven
    assert report.results[0].by_layer
    assert "the network moves them by" in report.table()


def test_fault_behind_the_last_quantizer_is_told_apart(residual: _Exported, tmp_path: Path) -> None:
    network, x, path, _ = residual
    _break(path, "linear_weight/scale", tmp_path / "broken.onnx")
    report = verify_onnx(tmp_path / "broken.onnx", network, ((x,), {}), latency_runs=0, raise_on_failure=False)
    assert not report.passed
    for result in report.results:
        assert result.layer_check is not None
        assert result.layer_check.first is None
        assert result.layer_check.output > 0.2
        assert "layers after the last quantizers differ" in str(result.layer_check)


def test_steps_that_fell_otherwise_are_no_fault_of_the_file(tmp_path: Path) -> None:
    network = nn.Sequential(*(Block(nn.Conv2d(8, 8, 3, padding=1)) for _ in range(3))).eval()
    x = torch.randn(8, 8, 24, 24)
    quick_export(network, x, tmp_path / "m.onnx")
    strict = Tolerance(relative_rms=0.0)
    report = verify_onnx(tmp_path / "m.onnx", network, ((x,), {}), tolerance=strict, latency_runs=0)
    checks = [result.layer_check for result in report.results if result.layer_check is not None]
    assert report.proven
    assert checks
    for check in checks:
        assert check.passed
        assert check.layers == 6
        assert check.steps < 0.1
        assert "all 6 quantized layers agree" in str(check)


def test_missing_runtime_is_reported(residual: _Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, path, _ = residual
    importer = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "openvino":
            raise ImportError(name)
        return importer(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    report = verify_onnx(path, network, ((x,), {}), latency_runs=0)
    assert report.results[1].skipped == "not installed"
    assert report.proven
    assert "not installed" in report.table()
    with pytest.raises(ExportError, match="pip install openvino"):
        OpenVINOModel(path)


def test_openvino_format_is_proven_in_openvino_alone(tmp_path: Path) -> None:
    network, x = Residual().eval(), torch.randn(4, 3, 8, 8)
    quick_export(network, x, tmp_path / "m.onnx", export_format="openvino_fq")
    report = verify_onnx(tmp_path / "m.onnx", network, ((x,), {}), latency_runs=0)
    assert report.results[0].skipped == "does not know FakeQuantize"
    assert report.results[1].layers is not None
    assert report.results[1].layers.convolutions == 2


def test_file_is_checked_without_its_network(residual: _Exported) -> None:
    report = verify_file(residual[2], latency_runs=2)
    first, second = report.results
    assert report.proven
    assert report.reference == "onnxruntime"
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.relative_rms < 0.05
    assert report.metadata["export_format"] == "qdq"


def test_damaged_file_is_an_export_error(residual: _Exported, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(residual[2].read_bytes()[:200])
    with pytest.raises(ExportError, match=r"not an ONNX model|cannot load"):
        verify_file(tmp_path / "m.onnx")


def test_missing_file_is_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot read"):
        verify_file(tmp_path / "none.onnx")


_SATURATION = """
import sys, torch
from torch import nn
from lightning_nncf.export import export_onnx
from lightning_nncf.proof import verify_onnx
from tests.export.networks import Block
torch.manual_seed(0)
torch.set_num_threads(2)
conv = nn.Conv2d(16, 16, 3)
with torch.no_grad():
    conv.weight.uniform_(0.8, 1.0)
    conv.weight[::2] *= -1
half = sys.argv[1] == "half"
block = Block(conv, norm=False, half_range=half, narrow_range=not half).eval()
block.input.set_range(torch.tensor(0.0), torch.tensor(1.0))
block.input.config = block.input.config.__class__(signed=False)
block.output.set_range(torch.tensor(0.0), torch.tensor(140.0))
x = torch.rand(2, 16, 8, 8) * 0.3 + 0.7
export_onnx(block, ((x,), {}), sys.argv[2], exporter="torchscript", opset=19)
report = verify_onnx(sys.argv[2], block, ((x,), {}), latency_runs=0, raise_on_failure=False)
found = report.results[1]
print(found.difference.relative_rms, found.passed, found.layer_check)
"""


def _saturate(weights: str, path: Path) -> tuple[float, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _SATURATION, weights, str(path)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    difference, passed, check = done.stdout.strip().splitlines()[-1].split(maxsplit=2)
    return float(difference), passed, check


def test_saturating_full_range_weights_are_found_and_half_range_cures_them(tmp_path: Path) -> None:
    difference, passed, check = _saturate("full", tmp_path / "full.onnx")
    assert difference > 0.1
    assert passed == "False"
    assert "first diverging layer is the one before 'output'" in check
    difference, passed, _ = _saturate("half", tmp_path / "half.onnx")
    assert difference < 0.01
    assert passed == "True"


def test_relative_rms_by_hand() -> None:
    # differences 0 and 3, reference 3 and 4: sqrt(9 / 2) / sqrt(25 / 2)
    assert relative_rms(torch.tensor([3.0, 7.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.6)
    assert relative_rms(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert relative_rms(torch.ones(2), torch.ones(3)) == float("inf")


def test_one_sample_may_always_disagree() -> None:
    reference = torch.eye(4).repeat(1, 1) * 1e-3 + 5
    outputs = reference.clone()
    outputs[0] = outputs[0].flip(0)
    difference = compare([outputs], [reference])
    assert difference.agreement == 0.75
    assert difference.within(Tolerance())
    outputs[1] = outputs[1].flip(0)
    assert not compare([outputs], [reference]).within(Tolerance())


@pytest.mark.parametrize("runtime", [OnnxRuntimeModel, OpenVINOModel])
def test_input_of_a_wrong_shape_is_an_error_that_names_it(runtime: type[OnnxRuntimeModel], residual: _Exported) -> None:
    with pytest.raises(ExportError, match=r"cannot run .*input \(2, 4, 8, 8\)"):
        runtime(residual[2])(torch.zeros(2, 4, 8, 8))


def test_equal_scores_in_another_order_are_no_fault() -> None:
    scores = torch.ones(1, 64)
    plain = torch.topk(scores, 3).indices
    with Disturbance():
        disturbed = torch.topk(scores, 3).indices
    assert not torch.equal(plain, disturbed)
    with Disturbance():
        apart = torch.topk(torch.arange(64.0), 3).indices
    assert apart.tolist() == [63, 62, 61]
