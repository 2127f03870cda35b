"""Distillation in the Trainer's own loop: statistics, accumulation, manual optimization, processes, restarts."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader

from lightning_nncf import NNCFCallback, load_from_checkpoint
from tests.callback.modules import Classifier, config, dataset, loader, trainer
from tests.callback.test_pruning import Wide

ROOT = Path(__file__).parents[2]
DISTILLATION = {"algorithm": "knowledge_distillation", "type": "softmax", "scale": 3.0}
INT8 = config()["compression"]


def distil(*more: dict[str, Any], **keys: Any) -> NNCFCallback:
    return NNCFCallback({"compression": [{**DISTILLATION, **keys}, *more]}, export_path=None)


class ByHand(Classifier):
    """Adds a teacher's loss itself."""

    teacher: Any = None

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        if self.teacher is None:
            self.teacher = [copy.deepcopy(self.net).eval()]
        with torch.no_grad():
            answer = self.teacher[0](batch[0])
        output = self.net(batch[0])
        soft = -(output.log_softmax(1) * answer.softmax(1)).sum(1).mean()
        return F.cross_entropy(output, batch[1]) + 3.0 * soft


class Manual(Classifier):
    """Optimizes by itself."""

    callback: NNCFCallback

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]) + self.callback.compression_loss())
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        self.lr_schedulers().step()  # type: ignore[union-attr]


def _fit(module: pl.LightningModule, folder: Path, *callbacks: Any, **settings: Any) -> pl.Trainer:
    runner = trainer(folder, *callbacks, **{"max_epochs": 2, "precision": "64-true", **settings})
    runner.fit(module, loader())
    return runner


@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_equals_a_module_that_distils_by_hand(tmp_path: Path, accumulated: int) -> None:
    modules: list[Classifier] = []
    for cls, callbacks in ((Classifier, [distil()]), (ByHand, [])):
        pl.seed_everything(0, verbose=False)
        modules.append(cls())
        _fit(modules[-1], tmp_path, *callbacks, accumulate_grad_batches=accumulated)
    for (name, mine), other in zip(modules[0].named_parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12, msg=name)


def test_manual_optimization_adds_the_loss_itself(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    automatic = Classifier()
    _fit(automatic, tmp_path, distil())
    pl.seed_everything(0, verbose=False)
    manual, manual.callback = Manual(), distil()
    _fit(manual, tmp_path, manual.callback)
    for (name, mine), other in zip(manual.named_parameters(), automatic.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12, msg=name)


class Forgetful(Manual):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))
        optimizer.step()


def test_manual_optimization_that_forgets_the_loss_is_told(tmp_path: Path) -> None:
    module, callback = Forgetful(), distil()
    with pytest.warns(UserWarning, match="never added `callback.compression_loss"):
        _fit(module, tmp_path, callback)


def test_losses_are_logged_each_by_itself(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    module = Classifier(lr=0.0)
    sparsity = {"algorithm": "rb_sparsity"}
    runner = _fit(module, tmp_path, distil(sparsity), max_epochs=1)
    logged = {name: float(value) for name, value in runner.callback_metrics.items()}
    assert {name for name in logged if "loss_" in name} == {
        "compression/loss_task",
        "compression/loss_rb_sparsity",
        "compression/loss_knowledge_distillation",
    }
    # the module logs its task's loss of the last of four batches; the entropy of three classes is at most log 3
    assert 0.5 < logged["compression/loss_task"] < 2.0
    assert 0.0 < logged["compression/loss_knowledge_distillation"] <= 3.0 * 1.2


def test_the_teacher_is_in_no_checkpoint_and_no_optimizer(tmp_path: Path) -> None:
    module = Classifier()
    parameters = len(list(module.parameters()))
    runner = _fit(module, tmp_path, distil())
    runner.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert [name for name in saved["state_dict"] if "lnncf" not in name] == list(Classifier().state_dict())
    assert not [name for name in saved["state_dict"] if "teacher" in name]
    assert sum(len(group["params"]) for group in runner.optimizers[0].param_groups) == parameters
    assert (tmp_path / "end.ckpt").stat().st_size < 40_000
    loaded = load_from_checkpoint(Classifier, tmp_path / "end.ckpt")
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded.double()(x.double()), module.eval().double()(x.double()))


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_the_teacher_runs_in_the_precision_of_the_network(tmp_path: Path, precision: Any) -> None:
    callback = distil(type="mse")
    module = Classifier()
    seen: list[torch.dtype] = []

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            teacher = callback.compressed.algorithms[0].teacher.network  # type: ignore[union-attr]
            teacher.register_forward_hook(lambda module, args, result: seen.append(result.dtype))

    _fit(module, tmp_path, callback, Look(), precision=precision)
    assert set(seen) == {torch.bfloat16}
    assert len(seen) == 2 * 4  # once for each batch


PRUNED = {
    "algorithm": "filter_pruning",
    "pruning_init": 0.1,
    "params": {"pruning_target": 0.5, "pruning_steps": 2, "grouping": "full", "shrink_at": 1},
}


@pytest.mark.parametrize("more", [(), (INT8,), (PRUNED, INT8)], ids=["alone", "int8", "shrunk and int8"])
def test_resuming_in_any_step_equals_not_stopping(tmp_path: Path, more: tuple[dict[str, Any], ...]) -> None:
    # Lightning begins the loader anew, so all batches are alike.
    data = DataLoader(ConcatDataset([dataset(4)] * 4), batch_size=4)

    def fit(*callbacks: Any, **settings: Any) -> dict[str, Tensor]:
        pl.seed_everything(0, verbose=False)
        module, callback = Wide(), distil(*more, features=[{"student": "body/conv2d:0", "projection": True}])
        runner = trainer(tmp_path, callback, *callbacks, max_epochs=3, enable_checkpointing=bool(callbacks))
        runner.fit(module, data, **settings)
        return module.state_dict()

    whole = fit(ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1))
    for step in (3, 4, 6, 9):
        resumed = fit(ckpt_path=str(tmp_path / f"step={step}.ckpt"), weights_only=True)
        assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == [], step


def test_two_processes_learn_what_one_does_from_whole_batches(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    for devices in ("1", "2"):
        command = [sys.executable, "-m", "tests.callback.distillation_ddp_script", str(tmp_path), devices]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr[-3000:]
    one, two, other = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    assert one["losses"]["compression/loss_knowledge_distillation"] > 0
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-9, atol=1e-12, msg=name)
        assert torch.equal(two["weights"][name], other["weights"][name])
