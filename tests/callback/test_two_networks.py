"""Two callbacks in one Trainer, each with a network of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.cli import main
from lightning_nncf.core.checkpoint import open_checkpoint
from lightning_nncf.errors import CheckpointError, ConfigError
from tests.callback.modules import config, dataset, loader, trainer

RB = {"algorithm": "rb_sparsity", "params": {"sparsity_target": 0.4, "sparsity_target_epoch": 2}}


MAGNITUDE = {"algorithm": "magnitude_sparsity", "params": {"sparsity_target": 0.4, "sparsity_target_epoch": 2}}


class Pair(pl.LightningModule):
    """An encoder and a decoder, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.decoder.append(nn.Linear(8, 3))
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_before_backward(self, loss: Tensor) -> None:
        self.losses.append(float(loss))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def _callbacks(
    *, encoder: str | None = None, decoder: str | None = None, second: dict[str, Any] = RB
) -> tuple[NNCFCallback, NNCFCallback]:
    return (
        NNCFCallback(config(), network="encoder", export_path=encoder, verify=False),
        NNCFCallback(
            {"compression": [config()["compression"], second]}, network="decoder", export_path=decoder, verify=False
        ),
    )


def _fit(
    folder: Path, *callbacks: pl.Callback, data: Any = None, ckpt_path: Path | None = None, **settings: Any
) -> tuple[Pair, Any]:
    pl.seed_everything(1, verbose=False)
    module = Pair()
    run = trainer(folder, *callbacks, **{"max_epochs": 2, **settings})
    run.fit(module, data or loader(), ckpt_path=ckpt_path)
    return module, run


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pair, pl.Trainer]:
    folder = tmp_path_factory.mktemp("pair")
    module, run = _fit(folder, *_callbacks(encoder="encoder.onnx", decoder="decoder.onnx"))
    run.save_checkpoint(folder / "pair.ckpt")
    return folder, module, run


def test_each_network_has_its_section_file_and_statistics(saved: tuple[Path, Pair, pl.Trainer]) -> None:
    folder, module, run = saved
    checkpoint = torch.load(folder / "pair.ckpt", weights_only=True)
    assert checkpoint["lightning_nncf"]["networks"].keys() == {"encoder", "decoder"}
    assert (folder / "encoder.onnx").exists()
    assert (folder / "decoder.onnx").exists()
    assert run.callback_metrics["compression/encoder/weight_bits_8"] == 2
    assert "compression/encoder/sparsity_level" not in run.callback_metrics
    assert run.callback_metrics["compression/decoder/sparsity_target"] > 0.2
    loaded = load_from_checkpoint(Pair, folder / "pair.ckpt")
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), module.eval()(x))


def test_one_network_of_a_checkpoint_is_exported_by_name(
    saved: tuple[Path, Pair, pl.Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = saved
    export = ["export", str(folder / "pair.ckpt"), "--output", str(folder / "one.onnx"), "--check", "false"]
    with pytest.raises(SystemExit, match=r"'decoder', 'encoder'.*say which with `network`"):
        main(export)
    assert not (folder / "one.onnx").exists()
    main([*export, "--network", "decoder"])
    assert "one.onnx" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'decoder'"):
        open_checkpoint(folder / "pair.ckpt", network="decode")


def test_counts_and_losses_are_taken_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With two batches per step: four steps of eight batches.
    callbacks = _callbacks()
    looked: list[int] = []

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            for index, callback in enumerate(callbacks):
                assert callback.compressed is not None
                count = (lambda at: lambda _optimizer: looked.append(at))(index)
                monkeypatch.setattr(callback.compressed, "before_optimizer_step", count)
                monkeypatch.setattr(callback.compressed, "present_loss", lambda: torch.tensor(1000.0))

    module, _ = _fit(tmp_path, *callbacks, Look(), accumulate_grad_batches=2)
    assert sorted(looked) == [0] * 4 + [1] * 4
    # Lightning divides by the number of accumulated batches.
    assert all(1000 < loss < 1010 for loss in module.losses)
    for callback in callbacks:
        assert callback.compressed is not None
        counters = [each.scheduler.state_dict() for each in callback.compressed.algorithms]
        assert [(each["current_epoch"], each["current_step"]) for each in counters] == [(1, 3)] * len(counters)
    assert not {"training_step", "to_onnx"} & vars(module).keys()


def test_resuming_within_an_epoch_equals_not_stopping(tmp_path: Path) -> None:
    # Lightning begins the loader anew, so all batches are alike;
    # RB draws its masks from PyTorch's generator, which a checkpoint does not hold.
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=6)
    data = DataLoader(ConcatDataset([dataset(4)] * 4), batch_size=4)
    whole, _ = _fit(tmp_path, *_callbacks(second=MAGNITUDE), keep, data=data, enable_checkpointing=True)
    resumed, _ = _fit(tmp_path, *_callbacks(second=MAGNITUDE), data=data, ckpt_path=tmp_path / "step=6.ckpt")
    assert len(resumed.losses) == 2
    expected, actual = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_taking_one_network_out_leaves_the_other(tmp_path: Path) -> None:
    for first in (0, 1):
        callbacks = _callbacks()
        module, run = _fit(tmp_path, *callbacks, max_epochs=1)
        callbacks[first].strip()
        run.save_checkpoint(tmp_path / "one.ckpt")
        left = ("decoder", "encoder")[first]
        assert torch.load(tmp_path / "one.ckpt", weights_only=True)["lightning_nncf"]["networks"].keys() == {left}
        callbacks[1 - first].strip()
        assert module.state_dict().keys() == Pair().state_dict().keys()
        assert not {"on_save_checkpoint", "on_load_checkpoint", "training_step"} & vars(module).keys()


def test_network_that_no_callback_is_for_is_named(saved: tuple[Path, Pair, pl.Trainer], tmp_path: Path) -> None:
    folder, _, _ = saved
    with pytest.raises(CheckpointError, match=r"network 'decoder' of Pair.*add one with `network='decoder'`"):
        _fit(tmp_path, _callbacks()[0], ckpt_path=folder / "pair.ckpt")
    _, run = _fit(tmp_path, _callbacks()[0], max_epochs=1)
    run.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(CheckpointError, match="no compressed network 'decoder', only 'encoder'"):
        _fit(tmp_path, *_callbacks(), ckpt_path=tmp_path / "one.ckpt")


def _twice() -> list[NNCFCallback]:
    return [NNCFCallback(config(), export_path=None)] * 2


def _files() -> list[NNCFCallback]:
    return [NNCFCallback(config(), network=name) for name in ("encoder", "decoder")]


def _on(*paths: str | None) -> list[NNCFCallback]:
    return [NNCFCallback(config(), network=path, export_path=None) for path in paths]


@pytest.mark.parametrize(
    ("callbacks", "problem"),
    [
        (_twice(), "the same NNCFCallback more than once"),
        (_on("encoder", "encoder"), "two NNCFCallbacks for `network='encoder'`"),
        (_on(None, None), "two NNCFCallbacks without `network`"),
        (_on(None, ""), "two NNCFCallbacks for `network=''`"),
        (_on("decoder", ""), "'decoder' and '', which share 4 parameters, as '0.weight'"),
        (_files(), "would write .*model.onnx.*its own `export_path`"),
    ],
    ids=["twice", "one path", "no path", "found", "inside", "file"],
)
def test_callbacks_in_each_others_way_are_refused(tmp_path: Path, callbacks: list[NNCFCallback], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        _fit(tmp_path, *callbacks)
    assert not (tmp_path / "model.onnx").exists()


def test_networks_that_share_a_parameter_are_refused(tmp_path: Path) -> None:
    class Tied(Pair):
        def __init__(self) -> None:
            super().__init__()
            self.encoder[2].weight = self.decoder[0].weight

    with pytest.raises(ConfigError, match=r"share 1 parameters, as '2\.weight'"):
        trainer(tmp_path, *_callbacks()).fit(Tied(), loader())


@pytest.mark.parametrize("given_back", [(0, 1), (1, 0)], ids=["first", "last"])
def test_accumulation_asked_for_twice_is_given_back(tmp_path: Path, given_back: tuple[int, int]) -> None:
    section = {**config()["compression"], "params": {"batch_multiplier": 2}}
    encoder, decoder = [
        NNCFCallback({"compression": section}, network=name, export_path=None) for name in ("encoder", "decoder")
    ]
    _, run = _fit(tmp_path, *[(encoder, decoder)[index] for index in given_back])
    assert run.global_step == 4
    assert run.accumulate_grad_batches == 1


def test_evaluation_by_another_trainer_needs_no_callbacks(tmp_path: Path) -> None:
    class Tested(Pair):
        def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    module = Tested()
    run = trainer(tmp_path, *_callbacks())
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    expected = run.test(module, loader(), verbose=False)
    with torch.no_grad():
        module.encoder[0].weight.zero_()
    assert trainer(tmp_path).test(module, loader(), ckpt_path=tmp_path / "a.ckpt", verbose=False) == expected
