from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.capture.trace import trace
from lightning_nncf.errors import ExportError
from lightning_nncf.export import ExportReport, export_onnx
from lightning_nncf.graph.graph import InsertionPoint
from lightning_nncf.hooks.insertion import insert, sites
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from tests.export.networks import Block, Residual, activation, for_weight, quick_export

_Exported = tuple[Residual, Tensor, Path, ExportReport]


def _constants(path: Path) -> dict[str, TensorProto]:
    return {item.name: item for item in onnx.load(path).graph.initializer}


def test_default_file_is_standard_onnx_with_integer_weights(residual: _Exported) -> None:
    _, _, path, report = residual
    model = onnx.load(path)
    constants = _constants(path)
    weights = [
        constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    assert {item.domain for item in model.opset_import} == {""}
    assert (report.exporter, report.opset) == ("dynamo", 21)
    biases = [item for item in weights if item.data_type == TensorProto.INT32]
    weights = [item for item in weights if item.data_type != TensorProto.INT32]
    assert [tuple(item.dims) for item in biases] == [(8,), (8,), (5,)]
    assert [tuple(item.dims) for item in weights] == [(8, 3, 3, 3), (8, 8, 3, 3), (5, 8)]
    assert all(item.data_type == TensorProto.INT8 and len(item.raw_data) == np.prod(item.dims) for item in weights)


def test_no_float_weight_of_a_quantized_layer_remains(residual: _Exported) -> None:
    _, _, path, _ = residual
    floats = [item for item in onnx.load(path).graph.initializer if item.data_type == TensorProto.FLOAT]
    assert max(np.prod(item.dims) for item in floats) <= 8


def test_every_norm_behind_a_quantized_weight_is_folded(residual: _Exported) -> None:
    _, _, path, report = residual
    assert report.batch_norms_folded == 2
    assert report.batch_norms_left == ()
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}


def test_half_range_weights_need_no_clip(residual: _Exported) -> None:
    _, _, path, _ = residual
    weights = {name: item for name, item in _constants(path).items() if "integers" in name and "/bias/" not in name}
    integers = [numpy_helper.to_array(item) for item in weights.values()]
    assert len(integers) == 3
    # A negative factor of a norm turns -64..63 into -63..64.
    assert all(value.min() >= -64 and value.max() <= 64 for value in integers)
    assert "Clip" not in {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("runtime", [OnnxRuntimeModel, OpenVINOModel])
@pytest.mark.parametrize("batch", [1, 16])
def test_runtimes_give_the_networks_own_structure_for_any_batch(
    residual: _Exported, runtime: type[OnnxRuntimeModel], batch: int
) -> None:
    network, x, path, _ = residual
    output = runtime(path)(x[:batch])
    assert list(output) == ["logits"]
    torch.testing.assert_close(output["logits"], network(x[:batch])["logits"], rtol=0.02, atol=0.02)


def test_network_is_not_changed(tmp_path: Path) -> None:
    network, x = Residual().train(), torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    keys = [sorted(module.__dict__) for module in network.modules()]
    quick_export(network, x, tmp_path / "m.onnx")
    assert [module.training for module in network.modules()] == modes
    assert [sorted(module.__dict__) for module in network.modules()] == keys
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_file_says_nothing_about_the_machine(residual: _Exported) -> None:
    _, _, path, _ = residual
    content = path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content
    assert str(Path.home()).encode() not in content
    assert str(Path(__file__).parent).encode() not in content


def test_metadata_can_be_read_in_the_runtime(residual: _Exported) -> None:
    metadata = OnnxRuntimeModel(residual[2]).metadata
    assert json.loads(metadata["config"]) == {"bits": 8}
    assert json.loads(metadata["bits"]) == {"weights": {"8": 3}, "activations": {"8": 5}}
    assert metadata["torch"] == torch.__version__
    assert {"version", "export_format", "inputs", "outputs"} <= set(metadata)


def test_nodes_are_named_after_modules_and_quantizers(residual: _Exported) -> None:
    names = {node.name for node in onnx.load(residual[2]).graph.node}
    assert {"conv1/Conv", "relu1/QuantizeLinear", "relu1/DequantizeLinear"} <= names


def test_torchscript_writes_the_same_integers(residual: _Exported, tmp_path: Path) -> None:
    network, x, path, _ = residual
    report = quick_export(network, x, tmp_path / "m.onnx")
    # Nodes, which biases are named after, begin with a slash there.
    old, new = ({name.lstrip("/"): item for name, item in _constants(p).items()} for p in (path, tmp_path / "m.onnx"))
    integers = {name for name in old if "integers" in name}
    assert (report.exporter, report.opset) == ("torchscript", 19)
    assert integers == {name for name in new if "integers" in name}
    for name in integers:
        np.testing.assert_array_equal(numpy_helper.to_array(old[name]), numpy_helper.to_array(new[name]))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_openvino_format_writes_fake_quantize_with_256_levels(exporter: str, tmp_path: Path) -> None:
    network, x = Residual().eval(), torch.randn(2, 3, 8, 8)
    opset = 21 if exporter == "dynamo" else 17
    report = export_onnx(
        network, ((x,), {}), tmp_path / "m.onnx", export_format="openvino_fq", exporter=exporter, opset=opset
    )
    nodes = [node for node in onnx.load(tmp_path / "m.onnx").graph.node if node.domain == "org.openvinotoolkit"]
    assert report.weight_quantizers + report.activation_quantizers == len(nodes) == 8
    assert {node.op_type for node in nodes} == {"FakeQuantize"}
    # Half-range weights too: the full 8 bits on the same grid hold all their values.
    assert {node.attribute[0].i for node in nodes} == {256}
    got = OpenVINOModel(tmp_path / "m.onnx")(x)["logits"]
    torch.testing.assert_close(got, network(x)["logits"], rtol=0.02, atol=0.02)


def test_openvino_format_scales_the_range_of_half_range_weights(tmp_path: Path) -> None:
    block = Block(nn.Conv2d(2, 4, 3)).eval()
    quick_export(block, torch.randn(1, 2, 5, 5), tmp_path / "m.onnx", export_format="openvino_fq")
    constants = _constants(tmp_path / "m.onnx")
    scale = block.conv.quantizer.scale.detach().numpy()
    np.testing.assert_allclose(numpy_helper.to_array(constants["conv.quantizer/high"]), scale * 127 / 63, rtol=1e-6)
    np.testing.assert_allclose(numpy_helper.to_array(constants["conv.quantizer/low"]), -scale * 128 / 63, rtol=1e-6)


class _TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.weight = for_weight(self.linear.weight)
        self.input = activation(-2.0, 2.0)

    def forward(self, x: Tensor, *, mask: Tensor, scale: float = 2.0, extra: Tensor | None = None) -> Sequence[Tensor]:
        y = F.linear(self.input(x), self.weight(self.linear.weight), self.linear.bias) * mask * scale
        return y, y.sum(1)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_keyword_inputs_and_constants_are_kept(exporter: str, tmp_path: Path) -> None:
    network, x, mask = _TwoInputs().eval(), torch.randn(1, 4), torch.ones(1, 1)
    opset = 21 if exporter == "dynamo" else 17
    call = ((x,), {"mask": mask, "scale": 3.0, "extra": None})
    report = export_onnx(network, call, tmp_path / "m.onnx", exporter=exporter, opset=opset)
    x, mask = torch.randn(5, 4), torch.rand(5, 1)
    outputs = OnnxRuntimeModel(tmp_path / "m.onnx")(x, mask=mask)
    assert report.input_names == ("input", "mask")
    assert report.output_names == ("output_0", "output_1")
    for got, expected in zip(outputs, network(x, mask=mask, scale=3.0), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@dataclass
class Detection:
    boxes: Tensor
    scores: Tensor


class _Detector(nn.Module):
    def forward(self, x: Tensor) -> Detection:
        return Detection(boxes=x * 2, scores=x.sum(1))


def test_dataclass_comes_back_as_itself(tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    quick_export(_Detector(), x, tmp_path / "m.onnx")
    output = OnnxRuntimeModel(tmp_path / "m.onnx")(x)
    assert isinstance(output, Detection)
    torch.testing.assert_close(output.boxes, x * 2)


class _Shared(nn.Module):
    """One quantizer for two places, and one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.weight = for_weight(self.linear.weight)
        self.act = activation(-2.0, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.act(x), self.weight(self.linear.weight))
        return F.linear(self.act(x.tanh()), self.weight(self.linear.weight))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_shared_weight_is_stored_once_and_calls_are_told_apart(exporter: str, tmp_path: Path) -> None:
    network, x = _Shared().eval(), torch.randn(2, 4)
    opset = 21 if exporter == "dynamo" else 17
    report = export_onnx(network, ((x,), {}), tmp_path / "m.onnx", exporter=exporter, opset=opset)
    names = [node.name for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert (report.weight_quantizers, report.activation_quantizers) == (1, 2)
    assert sum("integers" in name for name in _constants(tmp_path / "m.onnx")) == 1
    assert {"act/QuantizeLinear", "act@1/QuantizeLinear"} <= set(names)
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x), rtol=0.05, atol=0.02)


class _Masked(nn.Module):
    """A mask and a transpose stand between the parameter and its quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.randn(6, 4))
        self.register_buffer("mask", (torch.rand(6, 4) > 0.5).float())
        self.weight = for_weight(self.parameter.t(), 1)
        self.act = activation(-2.0, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x) @ self.weight((self.parameter * self.mask).t())


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_what_stands_before_a_weight_quantizer_is_computed_at_export(exporter: str, tmp_path: Path) -> None:
    network, x = _Masked().eval(), torch.randn(2, 4)
    opset = 21 if exporter == "dynamo" else 17
    export_onnx(network, ((x,), {}), tmp_path / "m.onnx", exporter=exporter, opset=opset)
    ops = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    (integers,) = [numpy_helper.to_array(v) for n, v in _constants(tmp_path / "m.onnx").items() if "integers" in n]
    assert ops.count("Mul") == ops.count("Transpose") == 0
    assert (integers == 0).sum() >= (network.mask == 0).sum().item() > 0
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"bits": 4}, id="4 bits"),
        pytest.param({"bits": 4, "signed": True}, id="4 bits signed"),
        pytest.param({"bits": 4, "mode": "asymmetric"}, id="4 bits asymmetric"),
        pytest.param({"signed": True, "narrow_range": True}, id="narrow"),
        pytest.param({"mode": "asymmetric"}, id="asymmetric"),
        pytest.param({"signed": True}, id="signed"),
        pytest.param({}, id="sign from data"),
    ],
)
@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
def test_activation_is_cut_where_its_quantizer_cuts(
    settings: dict[str, object], export_format: str, tmp_path: Path
) -> None:
    quantizer = activation(-1.0, 1.5, **settings)
    network = nn.Sequential(quantizer)
    x = torch.linspace(-4, 4, 64).reshape(1, 64)
    quick_export(network, x, tmp_path / "m.onnx", export_format=export_format)
    output = (OnnxRuntimeModel if export_format == "qdq" else OpenVINOModel)(tmp_path / "m.onnx")(x)
    torch.testing.assert_close(output, network(x).detach(), rtol=1e-5, atol=1e-6)


def test_per_channel_activation_is_cut_per_channel(tmp_path: Path) -> None:
    from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
    from lightning_nncf.algorithms.quantization.quantizers import build_quantizer

    quantizer = build_quantizer(QuantizerConfig(bits=4, per_channel=True), (2, 3, 4, 4), 1)
    quantizer.set_range(torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([1.0, 3.0, 0.5]))
    network, x = nn.Sequential(nn.ReLU(), quantizer), torch.randn(2, 3, 4, 4) * 3
    export_onnx(network, ((x,), {}), tmp_path / "m.onnx")
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x).detach(), rtol=1e-5, atol=1e-6)


def test_disabled_quantizer_is_not_exported(tmp_path: Path) -> None:
    block, x = Block(nn.Conv2d(3, 4, 3)).eval(), torch.randn(1, 3, 5, 5)
    block.input.enabled = False
    report = quick_export(block, x, tmp_path / "m.onnx")
    assert report.activation_quantizers == 1


class _DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x
        for _ in range(int(x.abs().sum().item()) % 3 + 1):
            total = total + x
        return total


def test_auto_falls_back_with_one_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = export_onnx(_DataDependent(), ((torch.ones(2, 2),), {}), tmp_path / "m.onnx")
    ours = [item for item in caught if "exporting with dynamo=False" in str(item.message)]
    assert (report.exporter, report.opset) == ("torchscript", 20)
    assert len(ours) == 1


def test_dynamo_alone_does_not_fall_back(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be exported with dynamo"):
        export_onnx(_DataDependent(), ((torch.ones(2, 2),), {}), tmp_path / "m.onnx", exporter="dynamo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("exporter", "opset"), [("dynamo", 17), ("torchscript", 21), ("auto", 9), ("auto", 99)], ids=str
)
def test_impossible_opset_is_refused_with_the_possible_ones(exporter: str, opset: int, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="19 to 25 with 'dynamo', 13 to 20 with 'torchscript'"):
        export_onnx(nn.ReLU(), ((torch.ones(1, 2),), {}), tmp_path / "m.onnx", exporter=exporter, opset=opset)


def test_auto_takes_torchscript_for_old_opsets(tmp_path: Path) -> None:
    report = export_onnx(nn.ReLU(), ((torch.ones(1, 2),), {}), tmp_path / "m.onnx", opset=15)
    assert (report.exporter, report.opset) == ("torchscript", 15)


class _NeverCalled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("work was done before the path was checked")


@pytest.mark.parametrize("place", ["file/model.onnx", "."], ids=["below a file", "a directory"])
def test_bad_path_is_an_error_before_any_work(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write|is a directory"):
        export_onnx(_NeverCalled(), ((torch.ones(1),), {}), tmp_path / place)


def test_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError):
        export_onnx(_DataDependent(), ((torch.ones(2, 2),), {}), path, exporter="dynamo")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="did you mean 'qdq'"):
        export_onnx(nn.ReLU(), ((torch.ones(1),), {}), tmp_path / "m.onnx", export_format="qqd")


def test_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    quick_export(nn.ReLU(), torch.ones(3, 2), tmp_path / "m.onnx", dynamic_batch=False)
    assert [dim.dim_value for dim in onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim] == [3, 2]


def test_half_precision_network_under_autocast_is_exported_in_float(tmp_path: Path) -> None:
    block, x = Block(nn.Conv2d(3, 4, 3)).eval(), torch.randn(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        export_onnx(block.to(torch.bfloat16), ((x.bfloat16(),), {}), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert "Cast" not in {node.op_type for node in model.graph.node}
    assert TensorProto.BFLOAT16 not in {item.data_type for item in model.graph.initializer}


class _WithLoss(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x * 2, "loss": x.square().mean()}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_scalar_output_has_no_batch_size(exporter: str, tmp_path: Path) -> None:
    opset = 21 if exporter == "dynamo" else 17
    export_onnx(_WithLoss(), ((torch.randn(4, 2),), {}), tmp_path / "m.onnx", exporter=exporter, opset=opset)
    output = OnnxRuntimeModel(tmp_path / "m.onnx")(torch.ones(3, 2))
    assert output["loss"].shape == ()
    assert output["loss"].item() == pytest.approx(1.0)
    assert output["logits"].shape == (3, 2)


class _Images(nn.Module):
    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{"mean": image.mean((1, 2))} for image in images]


def test_list_of_samples_has_no_open_batch_size(tmp_path: Path) -> None:
    images = [torch.rand(3, 4, 4), torch.rand(3, 5, 5)]
    quick_export(_Images(), ([*images],), tmp_path / "m.onnx")
    shapes = [[dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in _inputs(tmp_path / "m.onnx")]
    output = OnnxRuntimeModel(tmp_path / "m.onnx")(images)
    assert shapes == [[3, 4, 4], [3, 5, 5]]
    for got, image in zip(output, images, strict=True):
        torch.testing.assert_close(got["mean"], image.mean((1, 2)))


def _inputs(path: Path) -> Sequence[onnx.ValueInfoProto]:
    return onnx.load(path).graph.input


class _OnSizes(nn.Module):
    """Adds sizes before it adds tensors; torch.jit's trace makes tensors of the sizes."""

    def forward(self, x: Tensor) -> Tensor:
        end = x.size(0) + x.size(1)
        return ((x + x.flip(0)) + x.abs())[:end]


def test_arithmetic_on_sizes_does_not_move_quantizers_in_the_torchscript_trace(tmp_path: Path) -> None:
    x, network = torch.randn(4, 6), _OnSizes()
    graph = trace(network, lambda: network(x))
    first = next(op.address for op in graph.ops() if "add" in op.function)
    (site,) = sites(graph, network, InsertionPoint(kind="output", address=first))
    insert(network, site, activation(-2.0, 2.0), algorithm="quantization", priority=11)
    report = quick_export(network, x, tmp_path / "m.onnx")
    assert report.activation_quantizers == 1
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x).detach(), rtol=1e-4, atol=1e-4)


def test_parameters_that_are_not_finite_are_named_before_anything_is_written(tmp_path: Path) -> None:
    network = Block(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        network.conv.conv.weight[0, 0, 0, 0] = torch.nan
        network.output.scale.fill_(torch.inf)
    with pytest.raises(ExportError, match=r"2 parameters .* 'conv\.conv\.weight', 'output\.scale': training diverged"):
        export_onnx(network, ((torch.rand(1, 3, 8, 8),), {}), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
