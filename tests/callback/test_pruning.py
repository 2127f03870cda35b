"""Filter pruning in a whole run: fit, shrink, checkpoint, resume, test, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.core.stage import CompressionStage
from tests.callback.modules import Classifier, loader, trainer


class Wide(Classifier):
    """The classifier with more channels, so that some may go."""

    def __init__(self, lr: float = 0.05, output: str = "tensor") -> None:
        super().__init__(lr, output)
        self.net.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.net.norm = nn.BatchNorm2d(16)
        self.net.body = nn.Conv2d(16, 16, 3, padding=1)
        self.net.head = nn.Linear(16, 3)


def prune(export_path: Any = None, *, more: Any = (), device: str = "ANY", **params: Any) -> NNCFCallback:
    section = {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {"pruning_target": 0.5, "pruning_steps": 3, "grouping": "full", **params},
        "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}},
    }
    return NNCFCallback({"target_device": device, "compression": [section, *more]}, export_path=export_path)


def fit(tmp_path: Path, callback: NNCFCallback, epochs: int = 4, **kwargs: Any) -> Wide:
    torch.manual_seed(0)
    module = Wide()
    trainer(tmp_path, callback, max_epochs=epochs, **kwargs).fit(module, loader())
    return module


def test_filters_are_masked_in_training_and_gone_in_the_exported_file(tmp_path: Path) -> None:
    callback = prune("small.onnx")
    module = fit(tmp_path, callback)
    assert callback.compressed is not None
    assert callback.compressed.stage is CompressionStage.FULLY_COMPRESSED
    weight = module.net.stem.weight
    assert weight.shape[0] == 16
    assert int((weight.flatten(1) == 0).all(dim=1).sum()) == 8
    shapes = {tuple(t.dims) for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert (8, 1, 3, 3) in shapes
    assert (8, 8, 3, 3) in shapes
    assert callback.proof is not None
    assert callback.proof.verification is not None


def test_shrinking_during_fit_changes_nothing_but_the_size(tmp_path: Path) -> None:
    masked = fit(tmp_path / "a", prune())
    callback = prune(shrink_at=2)
    small = fit(tmp_path / "b", callback)
    assert type(small.net) is type(masked.net)
    assert small.net.stem.weight.shape[0] == 8
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(small.eval()(x), masked.eval()(x), rtol=1e-5, atol=1e-5)


def test_shrunk_checkpoint_loads_without_trainer_data_or_initialization(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="last")
    torch.manual_seed(0)
    module = Wide()
    trainer(tmp_path, prune(shrink_at=1), keep, max_epochs=4, enable_checkpointing=True).fit(module, loader())
    loaded = load_from_checkpoint(Wide, tmp_path / "last.ckpt")
    assert type(loaded) is Wide
    assert loaded.net.stem.out_channels == 8
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded(x), module.eval()(x))


@pytest.mark.parametrize("shrink_at", [None, 1], ids=["masked", "shrunk"])
def test_stopping_and_resuming_equals_not_stopping(tmp_path: Path, shrink_at: int | None) -> None:
    whole = fit(tmp_path / "whole", prune(shrink_at=shrink_at))
    torch.manual_seed(0)
    half = Wide()
    keep = ModelCheckpoint(tmp_path, filename="half")
    callback = prune(shrink_at=shrink_at)
    trainer(tmp_path, callback, keep, max_epochs=2, enable_checkpointing=True).fit(half, loader())
    torch.manual_seed(1)
    resumed = Wide()
    trainer(tmp_path, prune(shrink_at=shrink_at), max_epochs=4).fit(
        resumed, loader(), ckpt_path=str(tmp_path / "half.ckpt")
    )
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_checkpoint_from_before_shrinking_is_tested_after_it(tmp_path: Path) -> None:
    early = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    module = Wide()
    callback = prune(shrink_at=2)
    runner = trainer(tmp_path, callback, early, max_epochs=4, enable_checkpointing=True)
    runner.fit(module, loader())
    assert module.net.stem.out_channels == 8
    runner.test(module, loader(), ckpt_path=str(tmp_path / "epoch=0.ckpt"))
    assert module.net.stem.out_channels == 16
    assert module.net.stem.weight.shape[0] == 16


def test_ranking_is_learned_with_the_training_step(tmp_path: Path) -> None:
    legr = {"generations": 3, "train_steps": 2, "population_size": 2, "num_samples": 2}
    ranking = tmp_path / "ranking.json"
    callback = prune(
        pruning_target=None,
        pruning_flops_target=0.4,
        interlayer_ranking_type="learned_ranking",
        legr_params=legr,
        save_ranking_coeffs_path=str(ranking),
    )
    fit(tmp_path, callback)
    assert callback.compressed is not None
    assert callback.compressed.statistics()["flops_ratio"] <= 0.6
    assert set(json.loads(ranking.read_text())) == {"stem.weight", "body.weight"}


def test_statistics_and_rows_tell_what_is_left(tmp_path: Path) -> None:
    callback = prune()
    fit(tmp_path, callback)
    assert callback.compressed is not None
    statistics = callback.compressed.statistics()
    assert statistics["pruning_ratio"] == pytest.approx(0.5)
    rows = {row["parameter"]: row for row in callback.compressed.rows()}
    body = rows["net.body.weight".removeprefix("net.")]
    assert (body["filters"], body["filters_left"]) == (16, 8)
    assert (body["flops"], body["flops_now"], body["flops_left"]) == (294912, 294912, 73728)
    assert "output of the network" in rows["head.weight"]["reason"]
