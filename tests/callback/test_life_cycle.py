from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.errors import CheckpointError
from tests.callback.modules import Classifier, Net, config, loader, trainer


def quantize(**kwargs: Any) -> NNCFCallback:
    return NNCFCallback(config(), export_path=None, **kwargs)


def fitted(tmp_path: Path, **kwargs: Any) -> tuple[Classifier, NNCFCallback]:
    pl.seed_everything(1)
    module, callback = Classifier(), quantize()
    trainer(tmp_path, callback, **kwargs).fit(module, loader(), loader())
    return module, callback


def test_ranges_are_trained_with_the_weights(tmp_path: Path) -> None:
    initial: dict[str, Tensor] = {}

    class Keep(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            initial.update({n: v.clone() for n, v in pl_module.state_dict().items() if "lnncf_" in n})

    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback, Keep())
    run.fit(module, loader(), loader())
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert {id(p) for p in module.parameters()} == held
    assert callback.compressed is not None
    assert callback.compressed.stage.name == "FULLY_COMPRESSED"
    changed = [name for name, value in initial.items() if not torch.equal(module.state_dict()[name], value)]
    assert sorted(changed) == sorted(initial)


def test_module_keeps_class_parameters_and_step(tmp_path: Path) -> None:
    module = Classifier()
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    trainer(tmp_path, quantize()).fit(module, loader())
    after = {name: id(parameter) for name, parameter in module.named_parameters() if "lnncf_" not in name}
    assert after == before
    assert isinstance(module.net, Net)
    assert "training_step" not in vars(module)


def test_strip_gives_the_plain_module_back(tmp_path: Path) -> None:
    module, callback = fitted(tmp_path)
    callback.strip()
    assert module.state_dict().keys() == Classifier().state_dict().keys()
    assert type(module.net) is Net
    assert "on_save_checkpoint" not in vars(module)


def test_resuming_equals_not_stopping(tmp_path: Path) -> None:
    whole, _ = fitted(tmp_path / "whole", max_epochs=4)
    pl.seed_everything(1)
    first, callback = Classifier(), quantize()
    run = trainer(tmp_path / "half", callback, max_epochs=2)
    run.fit(first, loader(), loader())
    run.save_checkpoint(tmp_path / "half.ckpt")
    second, again = Classifier(), quantize()
    run = trainer(tmp_path / "half", again, max_epochs=4)
    run.fit(second, loader(), loader(), ckpt_path=tmp_path / "half.ckpt")
    expected, actual = whole.state_dict(), second.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert again.compressed is not None
    assert again.compressed.state_dict()["quantization"]["scheduler"] == {"current_epoch": 3, "current_step": 15}


def test_best_checkpoint_can_be_tested_after_fit(tmp_path: Path) -> None:
    module, callback = Classifier(), quantize()
    keep = ModelCheckpoint(dirpath=tmp_path, monitor="val_loss")
    run = trainer(tmp_path, callback, keep, enable_checkpointing=True, max_epochs=3)
    run.fit(module, loader(), loader())
    result = run.test(module, loader(), ckpt_path="best", verbose=False)
    assert result[0]["test_loss"] == pytest.approx(float(keep.best_model_score), abs=1e-5)  # type: ignore[arg-type]


def test_checkpoint_can_be_tested_in_a_new_module_without_train_data(tmp_path: Path) -> None:
    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    expected = run.predict(module, loader(4))
    fresh = quantize()
    actual = trainer(tmp_path, fresh).predict(Classifier(), loader(4), ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(expected[0], actual[0])  # type: ignore[index, arg-type]
    assert fresh.compressed is not None
    assert fresh.compressed.graph is None


def test_load_from_checkpoint_needs_no_trainer(tmp_path: Path) -> None:
    module, callback = Classifier(lr=0.02), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_from_checkpoint(Classifier, tmp_path / "a.ckpt")
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), module.eval()(x))
    assert loaded.lr == 0.02
    assert not loaded.training


def test_load_from_checkpoint_refuses_a_plain_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fit(Classifier(), loader())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(CheckpointError, match="without compression"):
        load_from_checkpoint(Classifier, tmp_path / "plain.ckpt")


def test_float_checkpoint_is_loaded_before_compression(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1)
    plain = Classifier()
    run.fit(plain, loader())
    run.save_checkpoint(tmp_path / "plain.ckpt", weights_only=True)
    module, callback = Classifier(lr=0.0), quantize()
    module.load_state_dict(torch.load(tmp_path / "plain.ckpt", weights_only=True)["state_dict"])
    trainer(tmp_path, callback).fit(module, loader())
    assert torch.equal(module.net.body.weight, plain.net.body.weight)


def test_plain_checkpoint_on_a_compressed_network_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fit(Classifier(), loader())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    with pytest.raises(CheckpointError, match="saved without compression"):
        run.test(module, loader(), ckpt_path=tmp_path / "plain.ckpt")


def test_checkpoint_of_another_config_is_refused_naming_the_difference(tmp_path: Path) -> None:
    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    other = NNCFCallback(config(preset="mixed"), export_path=None)
    with pytest.raises(CheckpointError, match=r"compression\.0\.preset.*performance.*mixed"):
        trainer(tmp_path, other).fit(Classifier(), loader(), ckpt_path=tmp_path / "a.ckpt")


def test_checkpoint_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    checkpoint["lightning_nncf"]["format"] = 99
    torch.save(checkpoint, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="format 99"):
        load_from_checkpoint(Classifier, tmp_path / "b.ckpt")


def test_second_fit_goes_on_without_initializing_again(tmp_path: Path) -> None:
    module, callback = Classifier(lr=0.0), quantize()
    trainer(tmp_path, callback).fit(module, loader())
    before = {name: value.clone() for name, value in module.state_dict().items() if "lnncf_" in name}
    with torch.no_grad():
        module.net.body.weight.mul_(3.0)
    compressed = callback.compressed
    trainer(tmp_path, callback).fit(module, loader())
    assert callback.compressed is compressed
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_second_fit_adds_the_loss_of_the_compression_too(tmp_path: Path) -> None:
    losses: list[float] = []

    class Keep(pl.Callback):
        def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
            losses.append(float(loss))

    module, callback = Classifier(), quantize()
    trainer(tmp_path, callback).fit(module, loader())
    assert callback.compressed is not None
    callback.compressed.present_loss = lambda: torch.tensor(1000.0)  # type: ignore[method-assign]
    trainer(tmp_path, callback, Keep()).fit(module, loader())
    assert len(losses) == 4
    assert all(1000 < loss < 1010 for loss in losses)


def test_statistics_are_logged(tmp_path: Path) -> None:
    module, callback = Classifier(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    assert run.callback_metrics["compression/weight_bits_8"] == 3
    assert 0.5 < run.callback_metrics["compression/quantized_share"] < 1
    assert 2.5 < run.callback_metrics["compression/size_reduction"] < 4


def test_initialization_leaves_random_generators_and_logs_alone(tmp_path: Path) -> None:
    states: list[Tensor] = []

    class Watch(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            states.append(torch.get_rng_state())

    module = Classifier()
    run = trainer(tmp_path, Watch(), quantize(), Watch())
    run.fit(module, loader())
    assert torch.equal(states[0], states[1])


def test_network_made_in_configure_model_is_found(tmp_path: Path) -> None:
    class Late(Classifier):
        def __init__(self) -> None:
            super().__init__()
            del self.net

        def configure_model(self) -> None:
            if not hasattr(self, "net"):
                self.net = Net()

    module, callback = Late(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "late.ckpt")
    assert "net.stem.lnncf_weight.quantization.scale" in module.state_dict()
    assert isinstance(load_from_checkpoint(Late, tmp_path / "late.ckpt").net, Net)


def test_network_made_in_setup_is_found(tmp_path: Path) -> None:
    class Late(Classifier):
        def __init__(self) -> None:
            super().__init__()
            del self.net

        def setup(self, stage: str) -> None:
            self.net = Net()

    module = Late()
    trainer(tmp_path, quantize()).fit(module, loader())
    assert "net.stem.lnncf_weight.quantization.scale" in module.state_dict()


def test_module_that_is_its_own_network(tmp_path: Path) -> None:
    class Own(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]) + self.bias, batch[1])

    module, callback = Own(), quantize()
    run = trainer(tmp_path, callback)
    run.fit(module, loader())
    assert callback.network_path == ""
    assert "net.stem.lnncf_weight.quantization.scale" in module.state_dict()


def test_validate_without_fit_runs_the_plain_network_and_says_so(tmp_path: Path) -> None:
    module = Classifier()
    expected = trainer(tmp_path).validate(module, loader(), verbose=False)
    with pytest.warns(UserWarning, match="runs the plain network"):
        actual = trainer(tmp_path, quantize()).validate(module, loader(), verbose=False)
    assert actual == expected


def test_uneven_train_generator_is_left_as_it_was(tmp_path: Path) -> None:
    def batches(*callbacks: pl.Callback) -> list[float]:
        seen: list[float] = []

        class Record(pl.Callback):
            def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
                seen.append(float(batch[0].sum()))

        generator = torch.Generator().manual_seed(5)
        data = torch.utils.data.DataLoader(loader().dataset, batch_size=4, shuffle=True, generator=generator)
        trainer(tmp_path, Record(), *callbacks).fit(Classifier(), data)
        return seen

    assert batches(quantize()) == batches()
