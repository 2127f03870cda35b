"""Compression with no training: `Trainer(max_epochs=0)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.hooks.insertion import strip
from lightning_nncf.proof import OnnxRuntimeModel
from tests.callback.modules import Classifier, config, loader, trainer


def _initializer(**more: Any) -> dict[str, Any]:
    return {
        "range": {"num_init_samples": 16},
        "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
        **more,
    }


def _fitted(tmp_path: Path, **settings: Any) -> tuple[Classifier, NNCFCallback, pl.Trainer]:
    pl.seed_everything(1, verbose=False)
    module, callback = Classifier(), NNCFCallback(config(**settings))
    run = trainer(tmp_path, callback, max_epochs=0)
    run.fit(module, loader(), loader())
    return module, callback, run


def test_no_epochs_give_a_calibrated_and_proven_file(tmp_path: Path) -> None:
    plain = {name: value.clone() for name, value in _plain().state_dict().items()}
    module, callback, run = _fitted(tmp_path, initializer=_initializer())
    assert run.global_step == 0
    assert callback.compressed is not None
    assert callback.compressed.stage == CompressionStage.FULLY_COMPRESSED
    assert callback.proof is not None
    assert callback.proof.verification is not None
    assert callback.proof.verification.proven
    assert all(torch.equal(value, plain[name]) for name, value in module.state_dict().items() if name in plain)
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = module.eval()(x)
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "model.onnx")(x), expected, rtol=0.05, atol=0.02)
    assert (tmp_path / "model.layers.csv").exists()
    assert len((tmp_path / "model.weights.csv").read_text().splitlines()) == 1 + 3


def _plain() -> Classifier:
    pl.seed_everything(1, verbose=False)
    return Classifier()


def test_ranges_come_from_the_data(tmp_path: Path) -> None:
    module, _, _ = _fitted(tmp_path, initializer=_initializer(range={"type": "min_max", "num_init_samples": 16}))
    largest = torch.cat([batch[0] for batch in loader()]).abs().max()
    torch.testing.assert_close(module.state_dict()["net.stem.lnncf_in.quantization.scale"], largest.reshape(1))


def test_checkpoint_can_be_loaded_and_trained_further(tmp_path: Path) -> None:
    module, _, run = _fitted(tmp_path, initializer=_initializer())
    run.save_checkpoint(tmp_path / "a.ckpt")
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_from_checkpoint(Classifier, tmp_path / "a.ckpt")(x), module.eval()(x))
    fresh, callback = Classifier(), NNCFCallback(config(initializer=_initializer()), export_path=None)
    again = trainer(tmp_path, callback, max_epochs=1)
    again.fit(fresh, loader(), ckpt_path=tmp_path / "a.ckpt")
    assert again.global_step == 4
    assert callback.compressed is not None
    assert callback.compressed.graph is None


def test_adjusted_weights_are_ordinary_weights_of_a_checkpoint(tmp_path: Path) -> None:
    settings = _initializer(bias_correction={"num_samples": 16}, smooth_quant={"alpha": 0.5, "num_samples": 16})
    module, callback, run = _fitted(tmp_path, initializer=settings)
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_from_checkpoint(Classifier, tmp_path / "a.ckpt")
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())
    strip(loaded)
    assert not torch.equal(loaded.net.body.bias, _plain().net.body.bias)
    assert callback.compressed is not None
    lines = callback.compressed.algorithms[0].summary()
    assert "Bias correction: 3 layers" in lines
    assert "SmoothQuant: 0 activations in front of 0 linear layers" in lines


def test_training_starts_from_corrected_biases(tmp_path: Path) -> None:
    pl.seed_everything(1, verbose=False)
    module = Classifier(lr=0.0)
    before = module.net.head.bias.detach().clone()
    settings = _initializer(bias_correction={"num_samples": 16})
    seen: list[Tensor] = []

    class Keep(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(module.net.head.bias.detach().clone())

    callback = NNCFCallback(config(initializer=settings), export_path=None)
    trainer(tmp_path, callback, Keep()).fit(module, loader())
    assert not torch.equal(seen[0], before)
    assert torch.equal(module.net.head.bias.detach(), seen[0])


@pytest.mark.parametrize("key", ["bias_correction", "smooth_quant"])
def test_initializer_without_samples_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}.num_samples"):
        NNCFCallback(config(initializer={key: {"num_samples": 0}}))
