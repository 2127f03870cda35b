from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.tuner import Tuner
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, config, dataset, trainer

SPARSE = {
    "algorithm": "magnitude_sparsity",
    "sparsity_init": 0.2,
    "params": {"schedule": "polynomial", "sparsity_target": 0.5, "sparsity_target_epoch": 2},
}


class Tuned(Classifier):
    """Has a batch size to find, and notes the ranges that training steps run with."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 4
        self.ranges: list[float] = []

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(dataset(), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(dataset(), batch_size=self.batch_size)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        named = self.named_parameters()
        self.ranges += [float(p.detach().flatten()[0]) for n, p in named if n.endswith(".scale")][:1]
        return super().training_step(batch, batch_idx)


def make() -> tuple[Tuned, NNCFCallback]:
    torch.manual_seed(0)
    return Tuned(), NNCFCallback({"compression": [SPARSE, config()["compression"]]}, export_path=None)


def fitted(tmp_path: Path, *callbacks: Any) -> tuple[Tuned, NNCFCallback]:
    module, nncf = make()
    trainer(tmp_path, *callbacks, nncf, max_epochs=2).fit(module)
    return module, nncf


def equal(one: pl.LightningModule, other: pl.LightningModule) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def tune(method: str, run: pl.Trainer, module: Tuned) -> None:
    tuner = Tuner(run)
    if method == "lr_find":
        assert tuner.lr_find(module, num_training=12, update_attr=False) is not None
    else:
        assert tuner.scale_batch_size(module, max_trials=2, steps_per_trial=2) is not None
        module.batch_size = 4


@pytest.mark.parametrize("method", ["lr_find", "scale_batch_size"])
def test_tuner_tries_the_initialized_network_and_leaves_no_trace(tmp_path: Path, method: str) -> None:
    module, nncf = make()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = trainer(tmp_path, nncf, max_epochs=2)
    tune(method, run, module)
    assert module.ranges
    assert 1.0 not in module.ranges
    assert nncf.compressed is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    run.fit(module)
    reference, _ = fitted(tmp_path)
    assert equal(module, reference)
    assert nncf.compressed is not None
    assert nncf.compressed.algorithms[0].scheduler.current_epoch == 1


@pytest.mark.parametrize("method", ["lr_find", "scale_batch_size"])
def test_tuner_between_two_fits_keeps_the_compressed_state(tmp_path: Path, method: str) -> None:
    module, nncf = fitted(tmp_path)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert nncf.compressed is not None
    state = nncf.compressed.state_dict()
    tune(method, trainer(tmp_path, nncf, max_epochs=1), module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert nncf.compressed.state_dict() == state


@pytest.mark.parametrize("first", [True, False], ids=["finder first", "finder last"])
@pytest.mark.parametrize(
    "finder",
    [
        lambda: LearningRateFinder(num_training_steps=12, update_attr=False),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=2, init_val=4),
    ],
    ids=["learning rate", "batch size"],
)
def test_finder_of_a_fit_changes_nothing_that_is_trained(tmp_path: Path, finder: Any, first: bool) -> None:
    module, nncf = make()
    callbacks = [finder(), nncf] if first else [nncf, finder()]
    run = trainer(tmp_path, *callbacks, max_epochs=2)
    run.fit(module)
    reference, other = fitted(tmp_path)
    assert 1.0 not in module.ranges
    assert len(module.ranges) > len(reference.ranges)
    assert equal(module, reference)
    assert nncf.compressed is not None
    assert other.compressed is not None
    assert nncf.compressed.state_dict() == other.compressed.state_dict()


def test_network_is_initialized_before_any_other_callback_sees_the_fit(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Spy(pl.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append(nncf.compressed is not None and nncf.compressed.initialized)

    module, nncf = make()
    trainer(tmp_path, Spy(), nncf, max_epochs=1).fit(module)
    assert seen == [True]


def test_fit_after_a_tuner_that_failed_keeps_what_it_trained(tmp_path: Path) -> None:
    module, nncf = make()
    run = trainer(tmp_path, nncf, max_epochs=2)
    with pytest.raises(AttributeError, match="unknown"):
        Tuner(run).lr_find(module, num_training=12, attr_name="unknown")
    before = module.net.head.weight.detach().clone()
    trainer(tmp_path, nncf, max_epochs=1).fit(module)
    assert nncf.compressed is not None
    assert not torch.equal(module.net.head.weight, before)


def test_loss_is_added_once_after_a_fit_that_failed(tmp_path: Path) -> None:
    module, nncf = make()
    layers: list[int] = []

    class Failing(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            layer, count = vars(module).get("training_step"), 0
            while hasattr(layer, "action"):
                layer, count = layer.method, count + 1
            layers.append(count)
            raise RuntimeError("stop here")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="stop here"):
            trainer(tmp_path, nncf, Failing(), max_epochs=1).fit(module)
    assert layers == [1, 1]
