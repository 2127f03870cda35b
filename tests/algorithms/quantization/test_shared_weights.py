"""A parameter that is read in several ways has one quantizer, and is in the file once."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, export_onnx
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import PlacementError
from tests.hooks.shared_weights import NETWORKS

onnxruntime = pytest.importorskip("onnxruntime")


def _compressed(name: str, **section: object) -> tuple[CompressedNetwork, Tensor]:
    make, _, x = NETWORKS[name]
    torch.manual_seed(0)
    return compress(make().eval(), {"compression": {"algorithm": "quantization", **section}}, [x, x]), x


def _granularity(compressed: CompressedNetwork, place: str) -> list[str]:
    return [row["granularity"] for row in compressed.rows() if row["kind"] == "weight" and place in row["place"]]


@pytest.mark.parametrize(
    ("name", "matrices"), [("linear", 2), ("t", 2), ("slice", 2), ("codebook", 2), ("argument", 1), ("tied", 1)]
)
def test_the_file_holds_each_matrix_once_in_integers(name: str, matrices: int, tmp_path: Path) -> None:
    compressed, x = _compressed(name)
    assert sum(row["kind"] == "weight" for row in compressed.rows()) == matrices
    report = export_onnx(compressed.network, ((x,), {}), tmp_path / "m.onnx")
    stored = [item for item in onnx.load(tmp_path / "m.onnx").graph.initializer if len(item.dims) > 1]
    assert [item.data_type for item in stored] == [onnx.TensorProto.INT8] * matrices
    assert report.missing_quantizers == ()
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {report.input_names[0]: x.numpy()})
    with torch.no_grad():
        expected = compressed.network(x)
    assert float((torch.from_numpy(found) - expected).norm() / expected.norm()) < 0.02


def test_a_head_tied_to_a_table_is_multiplied_in_integers_by_openvino(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    compressed, x = _compressed("t")
    export_onnx(compressed.network, ((x,), {}), tmp_path / "m.onnx")
    model = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU").get_runtime_model()
    products = [op for op in model.get_ops() if op.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    kinds = {op.get_rt_info()["runtimePrecision"].astype(str) for op in products}
    assert (len(products), kinds - {"i8", "u8"}) == (2, set())


def test_a_table_has_a_range_per_channel_of_the_product_with_it() -> None:
    for name, axis in (("t", 0), ("as it is", 1)):
        compressed, _ = _compressed(name)
        points = compressed.algorithms[0].inserted.setup.points
        (point,) = [point for point in points if str(point.point).startswith("emb/embedding:0|")]
        assert (point.config.per_channel, point.channel_axis) == (True, axis)


def test_channels_along_two_axes_give_one_range_and_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compressed, _ = _compressed("attends")
    assert _granularity(compressed, "layer/") == ["per tensor"]
    assert "'layer.weight' has one range instead of one per channel: 'layer/linear:0', '/matmul:0'" in caplog.text
    with pytest.raises(PlacementError, match=r"'layer.weight' cannot have a range per channel: 'layer/linear:0', '/ma"):
        _compressed("attends", weights={"per_channel": True})


def test_a_product_in_full_precision_keeps_its_weight_from_ranges_along_the_sum() -> None:
    compressed, _ = _compressed("attends", ignored_scopes=["/matmul:0"])
    assert _granularity(compressed, "layer/") == ["per tensor"]


def test_a_restored_network_compresses_every_reading() -> None:
    compressed, x = _compressed("linear")
    torch.manual_seed(0)
    other = NETWORKS["linear"][0]().eval()
    CompressedNetwork.restore(other, compressed.config, compressed.structure())
    other.load_state_dict(compressed.network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x), compressed.network(x))
        changed = next(key for key in other.state_dict() if "emb.lnncf_weight" in key)
        other.get_parameter(changed).mul_(3)
        assert not torch.allclose(other.how(torch.ones(1, 8), other.emb.weight), other(x)[0, :1])


class Rotated(nn.Module):
    """A weight that is the product of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(6, 2))
        self.up = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.down @ self.up)


def test_products_of_parameters_keep_full_precision_and_their_result_is_the_weight() -> None:
    net, x = Rotated(), torch.randn(3, 4)
    compressed = compress(net, {"compression": {"algorithm": "quantization"}}, [x])
    assert [row["place"] for row in compressed.rows()] == ["/input:0", "/matmul:0"]


def test_the_range_of_a_computed_weight_is_that_of_the_whole_weight() -> None:
    net = Rotated()
    with torch.no_grad():
        net.down[0].mul_(50)
        weight = net.down @ net.up
    compressed = compress(net, {"compression": {"algorithm": "quantization"}}, [torch.randn(3, 4)])
    (row,) = [row for row in compressed.rows() if row["place"] == "/matmul:0"]
    assert max(-row["low"], row["high"]) == pytest.approx(float(weight.abs().max()), rel=0.02)
