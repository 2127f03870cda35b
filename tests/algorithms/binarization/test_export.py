"""Exported files of binary networks: what the nodes are, and the same outputs as PyTorch in the runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor

from lightning_nncf import compress
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.export import export_onnx
from lightning_nncf.proof import export_and_verify
from tests.algorithms.binarization.test_binarization import batch, network, section


def binary(mode: str, channels: int = 4) -> CompressedNetwork:
    """The network of the other tests with binary weights and activations, thresholds and scale as if trained."""
    values = {**section(activations_quant_start_epoch=0, weights_quant_start_epoch=0), "mode": mode}
    compressed = compress(network(channels), {"compression": values}, [batch()])
    compressed.epoch_step()
    compressed.network.train()(batch())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in compressed.algorithms[0].activations:
            module.log_scale.fill_(0.3)
            module.threshold_logit.copy_(torch.randn(module.threshold_logit.shape, generator=generator))
    compressed.network.eval()
    return compressed


def openvino_output(path: Path, x: Tensor) -> Tensor:
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(model(x.numpy())[0])


def onnx_runtime_output(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(found)


def constants(path: Path) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("mode", ["xnor", "dorefa"])
def test_standard_onnx_computes_the_same_in_both_runtimes(tmp_path: Path, mode: str, exporter: Any) -> None:
    compressed, path = binary(mode), tmp_path / "model.onnx"
    report = export_onnx(compressed.network, ((batch(),), {}), path, exporter=exporter, opset=20)
    assert (report.weight_quantizers, report.activation_quantizers, report.missing_quantizers) == (1, 1, ())
    expected = compressed.network(batch())
    assert {item.domain for item in onnx.load(path).opset_import} == {""}
    torch.testing.assert_close(onnx_runtime_output(path, batch()), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(openvino_output(path, batch()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["xnor", "dorefa"])
def test_standard_onnx_stores_binary_weights_as_signs_in_4_bits(tmp_path: Path, mode: str) -> None:
    compressed, path = binary(mode), tmp_path / "model.onnx"
    export_onnx(compressed.network, ((batch(),), {}), path)
    (signs,) = [value for value in constants(path).values() if value.shape == (8, 4, 3, 3)]
    assert str(signs.dtype) == "int4"
    # A batch normalization with a negative factor, folded into the scale, turns the signs of its filter round.
    norm = compressed.network[3].weight.detach()
    expected = torch.where(compressed.network[2].weight > 0, 1, -1) * norm.sign().reshape(-1, 1, 1, 1)
    assert np.array_equal(signs, expected.numpy())


@pytest.mark.parametrize("mode", ["xnor", "dorefa"])
def test_openvino_gets_fake_quantize_of_two_levels_and_runs_binary_convolutions(tmp_path: Path, mode: str) -> None:
    compressed, path = binary(mode, channels=16), tmp_path / "model.onnx"
    export_onnx(compressed.network, ((batch(),), {}), path, export_format="openvino_fq", dynamic_batch=False)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "FakeQuantize"]
    levels = [attribute.i for node in nodes for attribute in node.attribute if attribute.name == "levels"]
    assert levels == [2, 2]
    values = constants(path)
    activation = next(node for node in nodes if node.input[0] not in values)
    weight = next(node for node in nodes if node.input[0] in values)
    module = compressed.algorithms[0].activations[0]
    height = module.height().detach()
    assert values[activation.input[1]].item() == 0
    # The step of two levels lies in the middle of the input range.
    thresholds = (module.threshold_logit.sigmoid() * height).detach().numpy()
    np.testing.assert_allclose(values[activation.input[2]] / 2, thresholds, rtol=1e-6)
    assert [values[name].item() for name in activation.input[3:]] == pytest.approx([0.0, float(height)])
    magnitudes = compressed.network[2].weight.detach().abs()
    mean = magnitudes.mean((1, 2, 3)) if mode == "xnor" else magnitudes.mean().reshape(1)
    for name, sign in zip(weight.input[1:], [-1, 1, -1, 1], strict=True):
        np.testing.assert_allclose(values[name].ravel(), sign * mean.numpy(), rtol=1e-6)
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in model.get_runtime_model().get_ordered_ops()]
    assert kinds.count("BinaryConvolution") == 1
    expected = compressed.network(batch())
    torch.testing.assert_close(torch.from_numpy(model(batch().numpy())[0]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 4, 12, 20])
def test_openvino_computes_the_same_where_its_binary_kernel_would_not(tmp_path: Path, channels: int) -> None:
    compressed, path = binary("xnor", channels=channels), tmp_path / "model.onnx"
    with pytest.warns(UserWarning, match="only at a fixed batch size"):
        export_onnx(compressed.network, ((batch(),), {}), path, export_format="openvino_fq")
    expected = compressed.network(batch())
    torch.testing.assert_close(openvino_output(path, batch()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:OpenVINO runs binary convolutions only")
def test_activations_at_the_threshold_stay_zero_in_every_runtime(tmp_path: Path) -> None:
    compressed = binary("xnor")
    module = compressed.algorithms[0].activations[0]
    with torch.no_grad():
        module.log_scale.zero_()
        module.threshold_logit.zero_()
    inner = compressed.network[2]
    # Half of a scale of 1, and the next number above it.
    x = torch.full((1, 4, 8, 8), 0.5)
    x[:, :, 0, 0] = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0))
    expected = inner(x)
    assert bool(expected.any())
    for export_format, run in (
        ("qdq", onnx_runtime_output),
        ("qdq", openvino_output),
        ("openvino_fq", openvino_output),
    ):
        path = tmp_path / f"{export_format}.onnx"
        export_onnx(inner, ((x,), {}), path, export_format=export_format)
        torch.testing.assert_close(run(path, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:OpenVINO runs binary convolutions only")
@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
def test_export_is_proven_in_the_runtimes_that_read_it(tmp_path: Path, export_format: Any) -> None:
    proof = export_and_verify(binary("xnor"), tmp_path / "model.onnx", export_format=export_format)
    assert proof.verification is not None
    ran = {result.runtime for result in proof.verification.results if result.skipped is None}
    assert ran == ({"onnxruntime", "openvino"} if export_format == "qdq" else {"openvino"})


def test_idle_binarizers_are_not_exported(tmp_path: Path) -> None:
    values = section(activations_quant_start_epoch=5, weights_quant_start_epoch=5)
    compressed = compress(network(), {"compression": values}, [batch()])
    compressed.epoch_step()
    path = tmp_path / "model.onnx"
    report = export_onnx(compressed.network, ((batch(),), {}), path)
    assert (report.weight_quantizers, report.activation_quantizers) == (0, 0)
    expected = compressed.network.eval()(batch())
    torch.testing.assert_close(onnx_runtime_output(path, batch()), expected, rtol=1e-4, atol=1e-5)
