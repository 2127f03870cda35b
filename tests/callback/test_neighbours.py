from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, Callback, EarlyStopping, LambdaCallback, ModelPruning
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf import NNCFCallback
from lightning_nncf.errors import ConfigError
from tests.callback.modules import Classifier, config, loader, trainer


@pytest.mark.parametrize("first", [True, False], ids=["nncf first", "nncf last"])
def test_model_pruning_is_refused_before_anything_is_changed(tmp_path: Path, first: bool) -> None:
    module, nncf, pruning = Classifier(), NNCFCallback(config(), export_path=None), ModelPruning("l1_unstructured")
    callbacks = [nncf, pruning] if first else [pruning, nncf]
    with pytest.raises(ConfigError, match=r"ModelPruning beside NNCFCallback.*magnitude_sparsity"):
        trainer(tmp_path, *callbacks).fit(module, loader())
    assert not any("lnncf" in name for name in module.state_dict())


def test_model_pruning_of_the_other_package_is_refused(tmp_path: Path) -> None:
    other: Any = pytest.importorskip("lightning.pytorch", reason="the package `lightning` is not installed")
    from lightning.pytorch.callbacks import ModelPruning as OtherPruning

    class Mine(OtherPruning):
        """A subclass."""

    class Module(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Classifier().net

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    callbacks = [Mine("l1_unstructured"), NNCFCallback(config(), export_path=None)]
    run = other.Trainer(accelerator="cpu", logger=False, callbacks=callbacks, default_root_dir=tmp_path)
    with pytest.raises(ConfigError, match="Mine beside NNCFCallback"):
        run.fit(Module(), loader())


class Backbone(Classifier):
    """A classifier as `BackboneFinetuning` wants it."""

    @property
    def backbone(self) -> nn.Module:
        return nn.ModuleList([self.net.stem, self.net.norm])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)


@pytest.mark.parametrize("first", [True, False], ids=["nncf first", "nncf last"])
def test_backbone_is_frozen_and_trained_again_beside_quantization(tmp_path: Path, first: bool) -> None:
    weights: list[Tensor] = []
    note = LambdaCallback(
        on_train_epoch_start=lambda _, module: weights.append(module.net.stem.weight.detach().clone())
    )
    module, nncf = Backbone(), NNCFCallback(config(), export_path=None)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=2, verbose=False)
    callbacks = [nncf, finetuning] if first else [finetuning, nncf]
    trainer(tmp_path, *callbacks, note, max_epochs=4).fit(module, loader())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    assert nncf.compressed is not None
    assert nncf.compressed.stage.name == "FULLY_COMPRESSED"


class Worse(Classifier):
    """Does worse in every epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", -float(self.current_epoch))


def test_early_stopping_ends_a_fit_which_exports(tmp_path: Path) -> None:
    callback = NNCFCallback(config(), export_path="model.onnx", verify=False)
    stopping = EarlyStopping("score", mode="max", patience=2)
    runner = trainer(tmp_path, callback, stopping, max_epochs=9)
    runner.fit(Worse(), loader(), loader())
    assert stopping.stopped_epoch == 2
    assert runner.current_epoch == 3
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_of_what_compression_adds_are_clipped_too(tmp_path: Path, algorithm: str) -> None:
    sizes: list[float] = []
    added: list[float] = []

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.optimizers[0].register_step_post_hook(lambda *_: self.look(pl_module))

        def look(self, module: Any) -> None:
            named = [(name, value.grad) for name, value in module.named_parameters() if value.grad is not None]
            flat = torch.cat([gradient.flatten() for _, gradient in named])
            sizes.append(float(flat.norm() if algorithm == "norm" else flat.abs().max()))
            added.append(max(float(gradient.abs().max()) for name, gradient in named if "lnncf" in name))

    settings: dict[str, Any] = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    trainer(tmp_path, NNCFCallback(config(), export_path=None), Look(), **settings).fit(Classifier(), loader())
    assert sizes == pytest.approx([1e-3] * 4, rel=1e-3)
    assert min(added) > 0
