"""Exported files of sparse networks: exact zeros, patterns, and agreement with PyTorch in both runtimes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.proof import export_and_verify
from tests.algorithms.sparsity.networks import batch, multistep, network
from tests.callback.modules import Classifier, loader, trainer

QUANTIZATION: dict[str, Any] = {
    "algorithm": "quantization",
    "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 2}},
}


def weights_in(path: Path) -> list[np.ndarray]:
    arrays = [onnx.numpy_helper.to_array(initializer) for initializer in onnx.load(path).graph.initializer]
    return [array for array in arrays if array.ndim >= 2]


def zeros_by_shape(arrays: list[np.ndarray]) -> dict[tuple[int, ...], int]:
    found = {array.shape: int((array == 0).sum()) for array in arrays}
    assert len(found) == len(arrays), "shapes must tell weights apart, and nothing but weights is in the file"
    return found


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(
    "section",
    [
        pytest.param({"algorithm": "magnitude_sparsity", "params": multistep(0.7, 0.7)}, id="magnitude"),
        pytest.param({"algorithm": "n_m_sparsity"}, id="2:4"),
        pytest.param({"algorithm": "rb_sparsity", "params": multistep(0.5, 0.5)}, id="rb"),
    ],
)
def test_zeros_of_the_masks_are_zeros_in_the_file(tmp_path: Path, section: dict[str, Any], quantized: bool) -> None:
    net = network()
    compressed = compress(net, {"compression": [section, QUANTIZATION] if quantized else section}, [batch()])
    algorithm = compressed.algorithms[0]
    if section["algorithm"] == "rb_sparsity":
        for module in algorithm.masks:
            with torch.no_grad():
                module.logits.copy_(torch.randn_like(module.logits))
    compressed.epoch_step()
    path = tmp_path / "model.onnx"
    proof = export_and_verify(compressed, path)
    assert proof.verification is not None
    found = zeros_by_shape(weights_in(path))
    for place, module in zip(algorithm.places, algorithm.masks, strict=True):
        dropped = int((~module.kept()).sum())
        assert found[place.shape] >= dropped if quantized else found[place.shape] == dropped
    if section["algorithm"] == "n_m_sparsity":
        for array in weights_in(path):
            groups = np.moveaxis(array, 1, -1).reshape(-1, 4)
            assert ((groups != 0).sum(-1) <= 2).all()


def test_zeros_make_the_deflated_file_smaller_by_about_their_share(tmp_path: Path) -> None:
    sizes = []
    for level in (0.0, 0.75):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(256, 256, bias=False))
        section = {"algorithm": "magnitude_sparsity", "params": multistep(level, level)}
        compressed = compress(net, {"compression": section}, [torch.zeros(1, 256)])
        compressed.epoch_step()
        path = tmp_path / f"{level}.onnx"
        report = export_and_verify(compressed, path, verify=False).export
        with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(path)
        (entry,) = archive.infolist()
        assert report.deflated_size == pytest.approx(entry.compress_size, abs=16)
        sizes.append(report.deflated_size)
    # A quarter of the floats is left, and where they are.
    assert 0.25 < sizes[1] / sizes[0] < 0.4


def test_the_quantizer_sees_the_masked_weight() -> None:
    net = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[100.0, 1.0, 2.0, 3.0]]))
    sections = [{"algorithm": "const_sparsity"}, QUANTIZATION]
    with torch.no_grad():
        net[0].weight[0, 1] = 0.0
    compress(net, {"compression": sections}, [torch.eye(4)])
    with torch.no_grad():
        net[0].weight[0, 1] = 50.0
    assert net[0].lnncf_weight(net[0].weight)[0, 1] == 0.0


def test_callback_trains_sparse_int8_with_masks_stable_after_freeze(tmp_path: Path) -> None:
    section = {
        "algorithm": "magnitude_sparsity",
        "params": {"sparsity_target": 0.6, "sparsity_target_epoch": 1, "sparsity_freeze_epoch": 2},
    }
    torch.manual_seed(0)
    callback = NNCFCallback({"compression": [section, QUANTIZATION]}, export_path="model.onnx")
    module = Classifier()
    fit = trainer(tmp_path, callback, max_epochs=4)
    fit.fit(module, loader())
    assert callback.compressed is not None
    masks = [mask.kept().clone() for mask in callback.compressed.algorithms[0].masks]
    found = zeros_by_shape(weights_in(tmp_path / "model.onnx"))
    for place, mask in zip(callback.compressed.algorithms[0].places, masks, strict=True):
        assert found[place.shape] >= int((~mask).sum())
    assert abs(callback.compressed.algorithms[0].sparsity() - 0.6) <= 1 / 192
    fit.save_checkpoint(tmp_path / "last.ckpt")
    again = NNCFCallback({"compression": [section, QUANTIZATION]}, export_path=None)
    trainer(tmp_path, again, max_epochs=6).fit(Classifier(), loader(), ckpt_path=tmp_path / "last.ckpt")
    assert again.compressed is not None
    for mask, other in zip(masks, again.compressed.algorithms[0].masks, strict=True):
        assert torch.equal(mask, other.kept())
