from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import Callback, GradientAccumulationScheduler

from lightning_nncf import NNCFCallback
from lightning_nncf.errors import ConfigError
from tests.callback.modules import Classifier, config, loader, trainer


def accumulating(*sections: dict[str, Any]) -> NNCFCallback:
    return NNCFCallback({"compression": list(sections)}, export_path=None)


def staged(multiplier: int) -> dict[str, Any]:
    section: dict[str, Any] = config(params={"batch_multiplier": multiplier})["compression"]
    return section


def test_batch_multiplier_accumulates_during_fit_only(tmp_path: Path) -> None:
    steps: list[int] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    callback = accumulating(staged(2))
    run = trainer(tmp_path, callback, Watch(), max_epochs=2)
    run.fit(Classifier(), loader())
    assert steps == [0, 1, 1, 2, 2, 3, 3, 4]
    assert run.accumulate_grad_batches == 1
    assert callback.compressed is not None
    assert callback.compressed.algorithms[0].scheduler.current_step == 3


def test_a_trainer_that_says_the_same_is_fine(tmp_path: Path) -> None:
    run = trainer(tmp_path, accumulating(staged(2)), accumulate_grad_batches=2)
    run.fit(Classifier(), loader())
    assert (run.global_step, run.accumulate_grad_batches) == (2, 2)


def test_a_trainer_that_says_otherwise_is_an_error(tmp_path: Path) -> None:
    run = trainer(tmp_path, accumulating(staged(2)), accumulate_grad_batches=4)
    with pytest.raises(ConfigError, match=r"batch_multiplier` of 2 contradicts .*`accumulate_grad_batches` of 4"):
        run.fit(Classifier(), loader())


def test_a_schedule_of_accumulation_is_an_error(tmp_path: Path) -> None:
    run = trainer(tmp_path, accumulating(staged(2)), GradientAccumulationScheduler({0: 3}))
    with pytest.raises(ConfigError, match="contradicts GradientAccumulationScheduler"):
        run.fit(Classifier(), loader())


def test_manual_optimization_is_an_error(tmp_path: Path) -> None:
    class Manual(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(ConfigError, match="Manual optimizes manually"):
        trainer(tmp_path, accumulating(staged(2))).fit(Manual(), loader(), loader())
