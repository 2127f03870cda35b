"""Several algorithms in one configuration, from training to the exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from example_modules.classification import ImageClassifier
from example_modules.digits import DigitsDataModule
from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.hooks.insertion import inserted

EPOCHS = 4
QUANTIZATION = {
    "algorithm": "quantization",
    "initializer": {"range": {"num_init_samples": 64}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 128}},
}
# RB moves 2 % of the weights in a step, so it needs 31 of them.
SCHEDULE = {"sparsity_target_epoch": 1, "sparsity_freeze_epoch": 3}
SECTIONS: dict[str, dict[str, Any]] = {
    "rb": {"algorithm": "rb_sparsity", "params": {"sparsity_target": 0.61, **SCHEDULE}},
    "magnitude": {"algorithm": "magnitude_sparsity", "params": {"sparsity_target": 0.7, **SCHEDULE}},
    "n_m": {"algorithm": "n_m_sparsity"},
    "pruning": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {"pruning_target": 0.5, "pruning_steps": 2, "grouping": "full"},
    },
    # Removed at once and not at export only, so that sparsity is a share of what is left.
    "shrunk": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {"pruning_target": 0.5, "pruning_steps": 2, "grouping": "full", "shrink_at": 1},
    },
    "binarization": {
        "algorithm": "binarization",
        "target_scopes": ["{re}conv2/"],
        "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1},
    },
}
LEVELS = {"rb": 0.61, "magnitude": 0.7, "n_m": 0.5}
PAIRS = ["rb", "magnitude", "n_m", "pruning", "binarization"]


@dataclass
class Result:
    """What a run left behind."""

    module: ImageClassifier
    compressed: CompressedNetwork
    callback: NNCFCallback
    trainer: Trainer
    folder: Path


def _config(*names: str) -> dict[str, Any]:
    """Put quantization first, so that order in the file and order at the weight differ."""
    quantization = dict(QUANTIZATION)
    if "binarization" in names:
        quantization["ignored_scopes"] = SECTIONS["binarization"]["target_scopes"]
    return {"compression": [quantization, *(SECTIONS[name] for name in names)]}


def _train(folder: Path, *names: str, **fit: Any) -> Result:
    seed_everything(0)
    module = ImageClassifier(network_args={"widths": [16, 32]}, lr=0.02, weight_decay=0.0)
    callback = NNCFCallback(_config(*names), export_path="model.onnx")
    every = ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1)
    trainer = Trainer(
        max_epochs=EPOCHS,
        limit_train_batches=16,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[callback, every],
    )
    trainer.fit(module, DigitsDataModule(), **fit)
    assert callback.compressed is not None
    return Result(module, callback.compressed, callback, trainer, folder)


@pytest.fixture(scope="module", params=[(name,) for name in PAIRS] + [("shrunk", "rb")], ids="+".join)
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], Result]:
    """A network trained, exported and proven with quantization and the algorithms named."""
    return request.param, _train(tmp_path_factory.mktemp("run"), *request.param)


def _weights(result: Result) -> dict[str, torch.Tensor]:
    """Return the weights of convolutions as the file holds them, by name."""
    model = onnx.load(result.folder / "model.onnx")
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items() if value.ndim == 4}


def test_all_algorithms_reach_their_targets_together(result: tuple[tuple[str, ...], Result]) -> None:
    names, run = result
    assert run.compressed.stage.name == "FULLY_COMPRESSED"
    found = run.compressed.statistics()
    assert found["weight_bits_8"] > 0
    for name in names:
        if name in LEVELS:
            weights = sum(
                module.mask.numel()
                for a in run.compressed.algorithms
                for module in getattr(a, "masks", [])
                if hasattr(module, "mask")
            )
            assert abs(found["sparsity_level"] - LEVELS[name]) * weights <= 1.01
        if name in ("pruning", "shrunk"):
            assert found["flops_ratio"] < 0.7
        if name == "binarization":
            assert found["binarized_macs"] > 0.1


def test_statistics_of_all_are_logged(result: tuple[tuple[str, ...], Result]) -> None:
    _, run = result
    logged = {name for name in run.trainer.callback_metrics if name.startswith("compression/")}
    assert logged == {f"compression/{name}" for name in run.compressed.statistics()}


def test_file_is_proven_and_runs_on_integers(result: tuple[tuple[str, ...], Result]) -> None:
    names, run = result
    assert run.callback.proof is not None
    assert run.callback.proof.verification is not None
    for outcome in run.callback.proof.verification.results:
        assert outcome.passed
        assert outcome.layers is not None
        floats = outcome.layers.all_convolutions - outcome.layers.convolutions
        # What feeds a binary convolution has no quantizer behind it, and a runtime may keep it in float.
        assert floats <= (4 if "binarization" in names else 0)


def test_order_at_a_weight_is_pruning_sparsity_quantization(result: tuple[tuple[str, ...], Result]) -> None:
    _, run = result
    priorities = [algorithm.priority for algorithm in run.compressed.algorithms]
    assert priorities == sorted(priorities)
    chains: dict[Any, list[str]] = {}
    for site, algorithm, _ in inserted(run.compressed.network):
        if site.kind == "weight":
            chains.setdefault(site, []).append(algorithm)
    assert all(chain[-1] in ("quantization", "binarization") for chain in chains.values())
    assert all(len(set(chain)) == len(chain) for chain in chains.values())


def test_file_holds_the_zeros_and_the_smaller_shapes(result: tuple[tuple[str, ...], Result]) -> None:
    names, run = result
    weights = _weights(run)
    level = next((LEVELS[name] for name in names if name in LEVELS), None)
    integers = {name: value for name, value in weights.items() if "quantization" in name}
    assert all(torch.equal(value, value.round()) for value in integers.values())
    assert len(integers) == (4 if "binarization" in names else 6)
    if level is not None:
        zeros = sum(int((value == 0).sum()) for value in integers.values())
        # The classifier is masked too, and small weights become the integer zero.
        assert zeros / sum(value.numel() for value in integers.values()) > level - 0.05
    full = sum(
        p.numel()
        for n, p in ImageClassifier(network_args={"widths": [16, 32]}).network.named_parameters()
        if p.ndim == 4
    )
    left = sum(value.numel() for value in weights.values())
    assert (left < 0.6 * full) == bool({"pruning", "shrunk"} & set(names))


def test_masked_weights_stay_zero_behind_the_quantizer(result: tuple[tuple[str, ...], Result]) -> None:
    names, run = result
    if not set(names) & set(LEVELS):
        return
    masks = {site: module for site, algorithm, module in inserted(run.compressed.network) if hasattr(module, "kept")}
    quantizers = {
        s: m for s, _, m in inserted(run.compressed.network) if s.kind == "weight" and isinstance(m, Quantizer)
    }
    assert masks
    for site, mask in masks.items():
        weight = site.parameter_of(run.compressed.network)
        quantized = quantizers[site](torch.where(mask.kept(), weight, 0.0))
        assert not quantized[~mask.kept()].any()


def test_checkpoint_alone_gives_the_same_network(result: tuple[tuple[str, ...], Result]) -> None:
    _, run = result
    module = load_from_checkpoint(ImageClassifier, run.folder / f"epoch={EPOCHS - 1}.ckpt")
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    run.module.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(images), run.module(images), rtol=0, atol=0)


def test_stopping_and_resuming_equals_not_stopping(result: tuple[tuple[str, ...], Result], tmp_path: Path) -> None:
    names, run = result
    resumed = _train(tmp_path, *names, ckpt_path=str(run.folder / "epoch=1.ckpt"), weights_only=False)
    assert resumed.compressed.statistics() == run.compressed.statistics()
    for name, value in run.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], value, rtol=0, atol=0)


def test_losses_are_summed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = _train(tmp_path, "shrunk", "rb")
    for algorithm, loss in zip(run.compressed.algorithms, (1.0, 0.25, None), strict=True):
        monkeypatch.setattr(algorithm, "loss", lambda loss=loss: None if loss is None else torch.tensor(loss))
    assert float(run.compressed.loss()) == 1.25  # type: ignore[arg-type]


def test_schedulers_step_together(tmp_path: Path) -> None:
    run = _train(tmp_path, "pruning", "magnitude")
    states = [algorithm.scheduler.state_dict() for algorithm in run.compressed.algorithms]
    assert {(state["current_epoch"], state["current_step"]) for state in states} == {(EPOCHS - 1, 16 * EPOCHS - 1)}
