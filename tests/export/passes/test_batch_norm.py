from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from lightning_nncf.export.passes.batch_norm import scale_channels
from lightning_nncf.proof import OnnxRuntimeModel
from tests.export.networks import Block, QuantizedConv, quick_export

_INTEGERS = st.sampled_from([np.int8, np.uint8]).flatmap(
    lambda dtype: st.tuples(hnp.arrays(dtype, (3, 4)), hnp.arrays(dtype, (3,)))
)


@given(_INTEGERS, hnp.arrays(np.float64, (3,), elements=st.sampled_from([-2.0, -0.3, 0.0, 1e-300, 0.7, 5.0])))
@settings(max_examples=200, deadline=None)
def test_scaled_channels_stand_for_scaled_values(quantized: tuple[np.ndarray, np.ndarray], factor: np.ndarray) -> None:
    integers, zero_point = quantized
    scale = np.array([0.5, 1.0, 2.0])
    new, new_scale, new_point = scale_channels(integers, scale, zero_point, factor, 0)
    expected = (integers.astype(float) - zero_point[:, None]) * scale[:, None] * factor[:, None]
    got = (new.astype(float) - new_point[:, None].astype(float)) * new_scale[:, None]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-30)
    assert new.dtype == integers.dtype
    assert (new_scale > 0).all()


def test_symmetric_weight_keeps_zero_point_zero_under_a_negative_factor() -> None:
    weight = np.array([[-127, 5], [3, -64]], np.int8)
    new, _, zero_point = scale_channels(weight, np.ones(2), np.zeros(2, np.int8), np.array([-1.0, 1.0]), 0)
    assert new.tolist() == [[127, -5], [3, -64]]
    assert zero_point.tolist() == [0, 0]


def test_weight_of_minus_128_is_complemented() -> None:
    weight = np.array([[-128, 5]], np.int8)
    new, _, zero_point = scale_channels(weight, np.ones(1), np.zeros(1, np.int8), np.array([-1.0]), 0)
    assert new.tolist() == [[127, -6]]
    assert zero_point.tolist() == [-1]


def _set_factors(block: Block, values: list[float]) -> Block:
    assert isinstance(block.norm, nn.BatchNorm2d)
    with torch.no_grad():
        block.norm.weight.copy_(torch.tensor(values))
    return block


@pytest.mark.parametrize(
    ("conv", "settings"),
    [
        pytest.param(nn.Conv2d(3, 4, 3, bias=False), {}, id="no bias"),
        pytest.param(nn.Conv2d(3, 4, 3), {"per_channel": False}, id="bias, per tensor"),
        pytest.param(nn.Conv2d(4, 4, 3, groups=4), {}, id="depthwise"),
        pytest.param(nn.Conv2d(3, 4, 3), {"mode": "asymmetric", "half_range": False}, id="asymmetric"),
        pytest.param(nn.Conv2d(3, 4, 3), {"half_range": False}, id="full range"),
        pytest.param(nn.ConvTranspose2d(3, 4, 2, stride=2), {}, id="transposed"),
    ],
)
def test_folded_file_gives_what_torch_gives(conv: nn.Conv2d, settings: dict[str, object], tmp_path: Path) -> None:
    conv.reset_parameters()  # seeded, unlike what was made when tests were collected
    block = _set_factors(Block(conv, **settings), [1.3, -0.7, 0.0, -2.0]).eval()
    x = torch.randn(2, conv.in_channels, 6, 6)
    report = quick_export(block, x, tmp_path / "m.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    step = block.output.quantization_parameters()[0].item()
    # Not a runtime: where the processor has no VNNI their kernels saturate on full-range weights.
    (output,) = ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, {"input": x.numpy()})
    difference = (torch.from_numpy(output) - block(x)).abs()
    assert report.batch_norms_folded == 1
    assert "BatchNormalization" not in ops
    assert difference.max().item() <= step * 1.001
    assert (difference > step / 2).float().mean().item() < 0.02


class _TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block(nn.Conv2d(3, 4, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.block.conv(x)
        return self.block.norm(y), y


def test_norm_stays_where_the_output_before_it_is_used_elsewhere(tmp_path: Path) -> None:
    network, x = _TwoReaders().eval(), torch.randn(2, 3, 6, 6)
    report = quick_export(network, x, tmp_path / "m.onnx")
    assert report.batch_norms_folded == 0
    assert "is also used elsewhere" in report.batch_norms_left[0]
    for got, expected in zip(OnnxRuntimeModel(tmp_path / "m.onnx")(x), network(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_grouped_transposed_convolution_keeps_its_norm(tmp_path: Path) -> None:
    block, x = Block(nn.ConvTranspose2d(4, 4, 2, groups=2)).eval(), torch.randn(1, 4, 4, 4)
    block.conv = QuantizedConv(block.conv.conv, per_channel=False)
    report = quick_export(block, x, tmp_path / "m.onnx")
    assert report.batch_norms_folded == 0
    assert "groups" in report.batch_norms_left[0]


def test_integers_of_the_weight_survive_up_to_their_sign(tmp_path: Path) -> None:
    block = _set_factors(Block(nn.Conv2d(2, 4, 3)), [1.0, -1.0, 0.5, -3.0]).eval()
    quick_export(block, torch.randn(1, 2, 5, 5), tmp_path / "m.onnx")
    initializers = {item.name: item for item in onnx.load(tmp_path / "m.onnx").graph.initializer}
    stored = numpy_helper.to_array(initializers["conv.quantizer/folded_integers"])
    scale = block.conv.quantizer.quantization_parameters()[0].reshape(4, 1, 1, 1)
    integers = (block.conv.quantizer(block.conv.conv.weight) / scale).round().detach().numpy()
    signs = np.array([1, -1, 1, -1]).reshape(4, 1, 1, 1)
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(stored, integers * signs)
