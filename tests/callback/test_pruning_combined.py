"""Filter pruning in one configuration with other algorithms: masked, shrunk during fit, saved, and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lightning_nncf import compress, export_and_verify, load_from_checkpoint
from tests.callback.modules import loader, trainer
from tests.callback.test_pruning import Wide, fit, prune

INITIALIZER = {"range": {"num_init_samples": 8}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 0}}
INT8: dict[str, Any] = {"algorithm": "quantization", "initializer": INITIALIZER}
ASYMMETRIC = {"mode": "asymmetric"}
# Masks of sparsity are settled before filters are removed, since a level counts removed filters as sparse.
FROZEN = {"sparsity_target": 0.5, "sparsity_target_epoch": 0, "sparsity_freeze_epoch": 1}
MAGNITUDE = {"algorithm": "magnitude_sparsity", "params": FROZEN}
COMBINATIONS: dict[str, list[dict[str, Any]]] = {
    "int8": [INT8],
    "asymmetric": [{**INT8, "weights": {**ASYMMETRIC, "per_channel": True}, "activations": ASYMMETRIC}],
    "magnitude": [MAGNITUDE],
    "rb": [{"algorithm": "rb_sparsity", "params": FROZEN}],
    "n_m": [{"algorithm": "n_m_sparsity"}],
    "magnitude_int8": [MAGNITUDE, INT8],
}
PER_CHANNEL = {**INT8, "activations": {"per_channel": True}}
X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_network_shrunk_between_other_algorithms_is_trained_saved_and_resumed_alike(tmp_path: Path, name: str) -> None:
    more = COMBINATIONS[name]
    masked = fit(tmp_path / "masked", prune(more=more))
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    torch.manual_seed(0)
    small = Wide()
    runner = trainer(tmp_path, prune(more=more, shrink_at=2), keep, max_epochs=4, enable_checkpointing=True)
    runner.fit(small, loader())
    assert small.net.stem.weight.shape[0] == 8
    expected = small.eval()(X)
    torch.testing.assert_close(expected, masked.eval()(X), rtol=1e-5, atol=1e-5)
    assert torch.equal(load_from_checkpoint(Wide, tmp_path / "epoch=3.ckpt")(X), expected)
    resumed = Wide()
    again = trainer(tmp_path / "again", prune(more=more, shrink_at=2), max_epochs=4)
    again.fit(resumed, loader(), ckpt_path=str(tmp_path / "epoch=2.ckpt"))
    torch.testing.assert_close(resumed.eval()(X), expected, rtol=1e-6, atol=1e-6)
    runner.test(small, loader(), ckpt_path=str(tmp_path / "epoch=0.ckpt"), verbose=False)
    assert small.net.stem.weight.shape[0] == 16


@pytest.mark.parametrize("name", ["int8", "asymmetric", "magnitude_int8"])
@pytest.mark.parametrize("shrink_at", [None, 2], ids=["masked", "shrunk"])
def test_exported_file_is_small_and_agrees_in_both_runtimes(tmp_path: Path, name: str, shrink_at: int | None) -> None:
    callback = prune("both.onnx", more=COMBINATIONS[name], shrink_at=shrink_at)
    fit(tmp_path, callback)
    assert (8, 8, 3, 3) in _integer_shapes(tmp_path / "both.onnx")
    assert callback.proof is not None
    assert callback.proof.verification is not None
    ran = {result.runtime for result in callback.proof.verification.results if result.skipped is None}
    assert ran == {"onnxruntime", "openvino"}
    assert callback.proof.verification.passed


def test_ranges_per_channel_of_activations_are_sliced_with_the_channels(tmp_path: Path) -> None:
    masked = fit(tmp_path / "masked", prune(more=[PER_CHANNEL], device="TRIAL"))
    keep = ModelCheckpoint(tmp_path, filename="last")
    torch.manual_seed(0)
    small = Wide()
    callback = prune(more=[PER_CHANNEL], device="TRIAL", shrink_at=2)
    trainer(tmp_path, callback, keep, max_epochs=4, enable_checkpointing=True).fit(small, loader())
    scales = {name: tuple(value.shape) for name, value in small.net.named_parameters() if "_out0.quantization" in name}
    assert scales["lnncf_relu_0_out0.quantization.scale"] == (1, 8, 1, 1)
    assert scales["lnncf_mean_0_out0.quantization.scale"] == (1, 8)
    expected = small.eval()(X)
    torch.testing.assert_close(expected, masked.eval()(X), rtol=1e-5, atol=1e-5)
    assert torch.equal(load_from_checkpoint(Wide, tmp_path / "last.ckpt")(X), expected)


def test_thresholds_of_binary_activations_are_sliced_with_the_channels(tmp_path: Path) -> None:
    binary = {"algorithm": "binarization", "ignored_scopes": ["{re}stem", "{re}head"]}
    keep = ModelCheckpoint(tmp_path, filename="last")
    torch.manual_seed(0)
    small = Wide()
    runner = trainer(tmp_path, prune(more=[binary], shrink_at=2), keep, max_epochs=4, enable_checkpointing=True)
    runner.fit(small, loader())
    assert small.net.body.lnncf_in.binarization.threshold_logit.shape == (1, 8, 1, 1)
    assert torch.equal(load_from_checkpoint(Wide, tmp_path / "last.ckpt")(X), small.eval()(X))


def test_optimizer_keeps_what_it_knows_of_the_ranges_that_stay() -> None:
    torch.manual_seed(0)
    network = Wide().net
    params = {"pruning_target": 0.5, "schedule": "baseline", "grouping": "full", "shrink_at": 1}
    pruning = {"algorithm": "filter_pruning", "params": params}
    compressed = compress(network, {"compression": [pruning, INT8]}, [X], example_inputs=X)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    compressed.attach([optimizer])
    compressed.epoch_step()
    F.cross_entropy(network(X), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    scale = network.body.lnncf_weight.quantization.scale
    before = optimizer.state[scale]["exp_avg"].clone()
    kept = network.body.weight.flatten(1).any(dim=1)
    compressed.epoch_step()
    assert scale.shape == (8, 1, 1, 1)
    assert torch.equal(optimizer.state[scale]["exp_avg"], before[kept])
    network.body.lnncf_weight.quantization.set_range(-torch.arange(1.0, 9.0), torch.arange(1.0, 9.0))
    assert scale.flatten().tolist() == pytest.approx(list(range(1, 9)))


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True], ids=["int8", "sparse_int8"])
def test_pruned_and_quantized_resnet18_runs_in_both_runtimes(tmp_path: Path, sparse: bool) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    x = torch.rand(4, 3, 64, 64)
    params = {"pruning_flops_target": 0.5, "schedule": "baseline", "grouping": "full"}
    sections = [{"algorithm": "filter_pruning", "params": params}, *([MAGNITUDE] if sparse else []), INT8]
    compressed = compress(network, {"compression": sections}, [x], example_inputs=x)
    for _ in range(2):
        compressed.epoch_step()
    assert compressed.statistics()["flops_ratio"] <= 0.5
    proof = export_and_verify(compressed, tmp_path / "small.onnx", inputs=((x,), {}))
    assert proof.verification is not None
    assert proof.verification.passed
    ran = [result for result in proof.verification.results if result.skipped is None]
    assert {result.runtime for result in ran} == {"onnxruntime", "openvino"}
    assert sum(torch.Size(shape).numel() for shape in _integer_shapes(tmp_path / "small.onnx")) < 0.6 * 11.7e6


def _integer_shapes(path: Path) -> list[tuple[int, ...]]:
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return [tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer if tensor.data_type in kinds]
