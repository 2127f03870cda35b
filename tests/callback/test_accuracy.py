"""Accuracy-aware training in a fit: the reference, the end, the report, restarts and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_nncf import NNCFCallback
from lightning_nncf.errors import ConfigError
from tests.callback.modules import Classifier, config, loader, trainer
from tests.callback.test_best import sparse


class Told(Classifier):
    """Logs what a list says: of the plain network, of the initialized one, of each epoch."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        compressed = any("lnncf" in name for name, _ in self.net.named_modules())
        index = 2 + self.current_epoch if self.trainer.validating else int(compressed)
        self.log("score", self.scores[index])


def aware(**keys: Any) -> dict[str, Any]:
    params = {"maximal_absolute_accuracy_degradation": 0.1}
    return {"accuracy_aware_training": {"mode": "early_exit", "params": params, **keys}}


def fit(folder: Path, scores: list[float], *callbacks: Any, section: Any = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    given = {"compression": section or config()["compression"], **aware(**settings.pop("keys", {}))}
    callback = NNCFCallback(given, export_path="model.onnx", verify=False)
    runner = trainer(folder, callback, *callbacks, **{"max_epochs": 6, **settings.pop("trainer", {})})
    runner.fit(Told(scores), loader(), loader(), **settings)
    return runner, json.loads((folder / "model.accuracy.json").read_text())


def test_the_fit_ends_in_the_first_epoch_that_holds_the_target(tmp_path: Path) -> None:
    runner, report = fit(tmp_path, [0.9, 0.5, 0.7, 0.85, 0.95])
    assert runner.current_epoch == 2
    assert report["monitor"] == "score"
    assert report["uncompressed"] == pytest.approx(0.9)
    assert report["compressed"] == pytest.approx(0.85)
    assert report["held"] is True
    assert report["epochs_spent"] == 2


def test_no_epoch_is_trained_where_initialization_is_enough(tmp_path: Path) -> None:
    runner, report = fit(tmp_path, [0.9, 0.85])
    assert runner.global_step == 0
    assert report["epochs_spent"] == 0
    assert report["held"] is True


def test_a_network_that_is_not_fully_compressed_is_never_enough(tmp_path: Path) -> None:
    runner, report = fit(tmp_path, [0.9] * 9, section=sparse())
    assert runner.current_epoch == 3
    assert report["stage"] == "FULLY_COMPRESSED"


def test_a_target_that_cannot_be_held_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"could not be held: score was 0\.9 .* is 0\.7 at best"):
        runner, report = fit(tmp_path, [0.9, 0.5, 0.6, 0.7, 0.65], trainer={"max_epochs": 3})
    assert runner.current_epoch == 3
    assert report["best_after_epochs"] == 2


def test_a_reference_may_be_given(tmp_path: Path) -> None:
    _, report = fit(tmp_path, [0.9, 0.5, 0.6], keys={"uncompressed_accuracy": 0.65, "monitor": "score"})
    assert report["uncompressed"] == 0.65
    assert report["epochs_spent"] == 1


def test_a_restart_knows_the_reference_and_what_was_reached(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    scores = [0.9, 0.5, 0.6, 0.7, 0.65, 0.85]
    fit(tmp_path, scores, keep, trainer={"enable_checkpointing": True})
    whole = json.loads((tmp_path / "model.accuracy.json").read_text())
    runner, report = fit(tmp_path, scores, ckpt_path=str(tmp_path / "epoch=1.ckpt"), weights_only=True)
    assert runner.current_epoch == 4
    assert report == whole


@pytest.mark.parametrize(
    ("keys", "loaders", "message"),
    [
        ({}, [loader()], "`accuracy_aware_training` judges networks by validation, but there is no validation loader"),
        ({"monitor": "scoring"}, [loader(), loader()], "`accuracy_aware_training.monitor`.*'score'"),
    ],
    ids=["no validation", "never logged"],
)
def test_a_target_without_a_metric_is_refused_before_training(
    tmp_path: Path, keys: dict[str, Any], loaders: Any, message: str
) -> None:
    callback = NNCFCallback({**config(), **aware(**keys)}, export_path=None)
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path, callback).fit(Told([0.9, 0.8]), *loaders)
