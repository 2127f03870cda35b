"""NNCF's own samples of training with a teacher and with an accuracy target, on a small network and digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer, seed_everything

from example_modules.classification import ImageClassifier
from example_modules.digits import DigitsDataModule
from lightning_nncf import NNCFCallback

# As in NNCF's sample configurations, the shape of the input, numbers of samples and of epochs aside.
DISTILLED = """{
    "model": "resnet34", "epochs": 100, "optimizer": {"type": "SGD", "base_lr": 0.1},
    "compression": [
        {
            "algorithm": "filter_pruning",
            "pruning_init": 0.1,
            "params": {
                "schedule": "exponential", "pruning_target": 0.5, "pruning_steps": 2,
                "filter_importance": "geometric_median"
            }
        },
        {"algorithm": "knowledge_distillation", "type": "softmax" // or mse
        }
    ]
}"""
AWARE = """{
    "model": "resnet18", "epochs": 100,
    "accuracy_aware_training": {
        "mode": "early_exit",
        "params": {"maximal_relative_accuracy_degradation": 1.0, "maximal_total_epochs": 100}
    },
    "compression": {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": 64}}}
}"""


def _trainer(folder: Path, epochs: int, *callbacks: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def test_pruning_with_a_teacher_runs_from_the_sample_file(tmp_path: Path) -> None:
    (tmp_path / "kd.json").write_text(DISTILLED)
    seed_everything(0, verbose=False)
    module = ImageClassifier(network_args={"widths": [16, 32]}, lr=0.02)
    callback = NNCFCallback(tmp_path / "kd.json", export_path="model.onnx")
    trainer = _trainer(tmp_path, 3, callback)
    trainer.fit(module, DigitsDataModule())
    assert callback.compressed is not None
    assert callback.compressed.stage.name == "FULLY_COMPRESSED"
    assert trainer.callback_metrics["compression/loss_knowledge_distillation"] > 0
    assert (tmp_path / "model.onnx").exists()


def test_an_accuracy_target_is_held_on_digits(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    module = ImageClassifier(network_args={"widths": [16, 32]}, lr=0.05)
    _trainer(tmp_path, 5).fit(module, DigitsDataModule())
    config = json.loads(AWARE)
    config["accuracy_aware_training"]["monitor"] = "val_accuracy"
    callback = NNCFCallback(config, export_path="model.onnx")
    trainer = _trainer(tmp_path, 8, callback)
    trainer.fit(module, DigitsDataModule())
    report = json.loads((tmp_path / "model.accuracy.json").read_text())
    assert report["held"]
    assert report["relative_drop_percent"] <= 1.0
    assert trainer.current_epoch == report["epochs_spent"] < 8
    after = _trainer(tmp_path, 1).validate(module, datamodule=DigitsDataModule(), verbose=False)
    assert after[0]["val_accuracy"] == pytest.approx(report["compressed"], abs=1e-6)
